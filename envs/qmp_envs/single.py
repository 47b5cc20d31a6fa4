"""One task as a plain Gymnasium environment: the vector environment with a single sub-environment."""

from __future__ import annotations

import operator
from collections.abc import Callable, Mapping
from typing import Any, ClassVar

import gymnasium as gym
import numpy as np
import numpy.typing as npt
from gymnasium.vector import AutoresetMode

from qmp_envs.arguments import checked_seed, outer_limit
from qmp_envs.task_set import TaskSet
from qmp_envs.vector import Array, BatchedVectorEnv


class SingleEnv(gym.Env[Array, Array]):
    """Base of the single environments; a subclass names its vector environment.

    ``metadata["task_attribute"]`` names the attribute that holds the task, so that a vector environment of such
    environments can be asked for its tasks: ``envs.get_attr("task")``.

    Args:
        env_id: id of the task set.
        task: index of the task, 0 to T - 1.
        render_mode: None or "rgb_array".
        kwargs: passed on to `vector_class`.

    Raises:
        TypeError, ValueError: arguments of a wrong type or out of range.
    """

    # called with the id, then keywords
    vector_class: ClassVar[Callable[..., BatchedVectorEnv]]

    def __init__(self, env_id: str, task: int = 0, render_mode: str | None = None, **kwargs: Any) -> None:
        self.task = operator.index(task)
        self._batch = self.vector_class(
            env_id,
            num_envs=1,
            task_ids=[self.task],
            autoreset_mode=AutoresetMode.DISABLED,
            render_mode=render_mode,
            **kwargs,
        )
        self._limit = self._batch.max_episode_steps
        self.render_mode = render_mode
        self.metadata = {**type(self).metadata, "task_attribute": "task"}
        self.observation_space = self._batch.single_observation_space
        self.action_space = self._batch.single_action_space

    @property
    def task_set(self) -> TaskSet:
        """The facts of the task set this task belongs to."""
        return self._batch.task_set

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Array, dict[str, Any]]:
        """Start a new episode; ``options`` are not used. See `BatchedVectorEnv.reset`.

        The limit of a `gymnasium.wrappers.TimeLimit` around this environment, as ``gymnasium.make(env_id,
        max_episode_steps=...)`` adds it, takes the place of its own.
        """
        super().reset(seed=checked_seed(seed))
        self._batch.rngs = [self.np_random]
        self._batch.max_episode_steps = outer_limit() or self._limit
        observations, infos = self._batch.reset()
        return observations[0], _row(infos)

    def step(self, action: Array) -> tuple[Array, float, bool, bool, dict[str, Any]]:
        """Step the task; ``action`` (*A) is clipped to the action space.

        Raises:
            ValueError: an action of a wrong shape or with NaN.
            RuntimeError: before the first reset, or the episode is over.
            FloatingPointError: the simulation diverged (``on_divergence="raise"``); it must be reset.
        """
        action = np.asarray(action, dtype=np.float64)
        if action.shape != self.action_space.shape:
            raise ValueError(f"the action must have shape {self.action_space.shape}, got {action.shape}")
        if self._batch.finished[0]:
            raise RuntimeError("the episode is over: call reset() first")
        observations, rewards, terminations, truncations, infos = self._batch.step(action[None])
        return observations[0], float(rewards[0]), bool(terminations[0]), bool(truncations[0]), _row(infos)

    def render(self) -> npt.NDArray[np.uint8] | None:
        """Picture (H, W, 3) uint8, or None without a render mode."""
        frames = self._batch.render()
        return None if frames is None else frames[0]

    def close(self) -> None:
        """Stop native threads, if there are any; a later step starts them anew."""
        self._batch.close_extras()

    def get_state(self) -> dict[str, Any]:
        """See `BatchedVectorEnv.get_state`."""
        return self._batch.get_state()

    def set_state(self, state: Mapping[str, Any]) -> None:
        """See `BatchedVectorEnv.set_state`."""
        self._batch.set_state(state)
        self._np_random = self._batch.rngs[0] if self._batch.rngs else None
        self._np_random_seed = None if self._np_random is None else -1  # Gymnasium's sign for an unknown seed


def _row(infos: dict[str, Any]) -> dict[str, Any]:
    return {key: values[0].item() for key, values in infos.items() if not key.startswith("_")}
