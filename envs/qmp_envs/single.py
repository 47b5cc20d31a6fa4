"""One task as a plain Gymnasium environment: the vector environment with a single sub-environment."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, ClassVar

import gymnasium as gym
import numpy as np
import numpy.typing as npt
from gymnasium.vector import AutoresetMode

from qmp_envs.task_set import TaskSet
from qmp_envs.vector import Array, BatchedVectorEnv


class SingleEnv(gym.Env[Array, Array]):
    """Base of the single environments; a subclass names its vector environment.

    Args:
        env_id: id of the task set.
        task: index of the task, 0 to T - 1.
        render_mode: None or "rgb_array".
        kwargs: passed on to `vector_class`.

    Raises:
        ValueError: arguments out of range.
    """

    # called with the id, then keywords
    vector_class: ClassVar[Callable[..., BatchedVectorEnv]]

    def __init__(self, env_id: str, task: int = 0, render_mode: str | None = None, **kwargs: Any) -> None:
        self._batch = self.vector_class(
            env_id,
            num_envs=1,
            task_ids=[task],
            autoreset_mode=AutoresetMode.DISABLED,
            render_mode=render_mode,
            **kwargs,
        )
        self.task = task
        self.render_mode = render_mode
        self.observation_space = self._batch.single_observation_space
        self.action_space = self._batch.single_action_space

    @property
    def task_set(self) -> TaskSet:
        """The facts of the task set this task belongs to."""
        return self._batch.task_set

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Array, dict[str, Any]]:
        """Start a new episode; ``options`` are not used. See `BatchedVectorEnv.reset`."""
        super().reset(seed=seed)
        self._batch.rngs = [self.np_random]
        observations, infos = self._batch.reset()
        return observations[0], _row(infos)

    def step(self, action: Array) -> tuple[Array, float, bool, bool, dict[str, Any]]:
        """Step the task; errors as in `BatchedVectorEnv.step`."""
        batch = np.asarray(action)[None]
        observations, rewards, terminations, truncations, infos = self._batch.step(batch)
        return observations[0], float(rewards[0]), bool(terminations[0]), bool(truncations[0]), _row(infos)

    def render(self) -> npt.NDArray[np.uint8] | None:
        """Picture (H, W, 3) uint8, or None without a render mode."""
        frames = self._batch.render()
        return None if frames is None else frames[0]

    def close(self) -> None:
        """Release the simulation."""
        self._batch.close()

    def get_state(self) -> dict[str, Any]:
        """See `BatchedVectorEnv.get_state`."""
        return self._batch.get_state()

    def set_state(self, state: Mapping[str, Any]) -> None:
        """See `BatchedVectorEnv.set_state`."""
        self._batch.set_state(state)
        self.np_random = self._batch.rngs[0]


def _row(infos: dict[str, Any]) -> dict[str, Any]:
    return {key: values[0].item() for key, values in infos.items() if not key.startswith("_")}
