"""Natively batched vector environments: N sub-environments, and a few numpy expressions per step.

`BatchedVectorEnv` keeps Gymnasium's rules and knows no physics; `qmp_envs.physics` adds MuJoCo.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any, ClassVar, TypeAlias

import gymnasium as gym
import numpy as np
import numpy.typing as npt
from gymnasium.utils import seeding
from gymnasium.vector import AutoresetMode
from gymnasium.vector.utils import batch_space

from qmp_envs.arguments import (
    OnDivergence,
    Renderer,
    assign_tasks,
    check_modes,
    check_same_tasks,
    checked_limit,
    checked_mask,
    checked_seeds,
)
from qmp_envs.task_set import OfTaskSet, Reduction, TaskSet

Array: TypeAlias = npt.NDArray[Any]
Rows: TypeAlias = npt.NDArray[np.intp]


class BatchedVectorEnv(OfTaskSet, gym.vector.VectorEnv[Array, Array, Array]):
    """Base of all task sets: tasks, autoreset, seeds, infos, saving.

    A step is: `_advance`, episode counters, `_judge`, reset of the rows that asked for it, `_observe`. A task
    set is a subclass that sets the class attributes, calls ``__init__`` with its spaces, and implements the
    hooks. Autoreset modes and the layout of ``infos`` are those of `gymnasium.vector.SyncVectorEnv`.

    Args:
        task_set: the facts of the task set.
        observation_space, action_space: of a single sub-environment.
        num_envs: N.
        task_ids: (N,) task of each sub-environment; default ``i % T``.
        autoreset_mode: who resets a finished sub-environment, and when (Gymnasium's three modes).
        max_episode_steps: truncation after this many steps instead of ``task_set.horizon``.
        on_divergence: "raise", an error in the step where a simulation diverges, or "end": the episode is truncated
            there, with the observation before the step and the reward ``task_set.min_reward``; ``infos["diverged"]``
            and the episode metric of that name tell.
        render_mode: None or "rgb_array".
        renderer: "numpy", pictures that need nothing and are the same everywhere; or, where ``renderers`` has it,
            "mujoco": MuJoCo's own, which need OpenGL (EGL or OSMesa).

    Raises:
        ValueError: arguments out of range.
    """

    metadata: dict[str, Any] = {"render_modes": ["rgb_array"], "autoreset_mode": AutoresetMode.NEXT_STEP}
    renderers: ClassVar[tuple[Renderer, ...]] = ("numpy",)  # those that `_draw` knows
    # what `_judge` reports besides reward and termination; a reset reports zeros
    info_types: Mapping[str, type] = MappingProxyType({"success": bool})

    task_set: TaskSet
    task_ids: npt.NDArray[np.int64]
    autoreset_mode: AutoresetMode

    def __init__(
        self,
        task_set: TaskSet,
        observation_space: gym.spaces.Box,
        action_space: gym.spaces.Box,
        *,
        num_envs: int,
        task_ids: Sequence[int] | npt.NDArray[np.integer[Any]] | None = None,
        autoreset_mode: AutoresetMode | str = AutoresetMode.NEXT_STEP,
        max_episode_steps: int | None = None,
        on_divergence: OnDivergence = "raise",
        render_mode: str | None = None,
        renderer: Renderer = "numpy",
    ) -> None:
        check_modes(render_mode, on_divergence, renderer, self.renderers)
        self.task_set = task_set
        self.task_ids = assign_tasks(task_set, num_envs, task_ids)
        self.num_envs = num_envs
        self.max_episode_steps = checked_limit(max_episode_steps, task_set)
        self.on_divergence = on_divergence
        if on_divergence == "end":
            self.info_types = {**self.info_types, "diverged": bool}
        self.autoreset_mode = AutoresetMode(autoreset_mode)
        self.metadata = {**type(self).metadata, "autoreset_mode": self.autoreset_mode}
        self.render_mode = render_mode
        self.renderer = renderer
        self.single_observation_space = observation_space
        self.single_action_space = action_space
        self.observation_space = batch_space(observation_space, num_envs)
        self.action_space = batch_space(action_space, num_envs)

        self._action_shape = (num_envs, *action_space.shape)
        self._action_low = action_space.low.astype(np.float64)
        self._action_high = action_space.high.astype(np.float64)
        # one generator per sub-environment; empty before the first reset
        self.rngs: list[np.random.Generator] = []
        # control steps of the running episodes
        self._elapsed = np.zeros(num_envs, dtype=np.int64)
        # sub-environments whose episode is over and that were not reset yet
        self._finished = np.zeros(num_envs, dtype=np.bool_)
        self._any_finished = False
        # sub-environments whose simulation diverged: in this step if that ends episodes, else not reset since
        self._diverged = np.zeros(num_envs, dtype=np.bool_)
        # per-env arrays of a task set that belong to the state of an episode (stages, counters, ...); a new
        # episode begins with zeros
        self._episode: dict[str, Array] = {}

    # ------------------------------------------------------------------ hooks of a task set

    def _start(self, rows: Rows) -> None:
        """Write the start state of ``rows``."""
        raise NotImplementedError

    def _advance(self, actions: Array) -> None:
        """Make a step with ``actions`` (N, *A) float64, not clipped yet, not to be written to."""
        raise NotImplementedError

    def _judge(self) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.bool_], dict[str, Array]]:
        """Judge the step just made: rewards (N,), terminations (N,), an (N,) array per key of ``info_types``.

        All arrays are fresh: the caller overwrites the rows that are reset in this step.
        """
        raise NotImplementedError

    def _observe(self) -> Array:
        """Fresh observations (N, *O) of the current state."""
        raise NotImplementedError

    def _draw(self, index: int) -> npt.NDArray[np.uint8]:
        """Picture (H, W, 3) of one sub-environment, by ``self.renderer``."""
        raise NotImplementedError

    # ------------------------------------------------------------------ Gymnasium's interface

    @property
    def finished(self) -> npt.NDArray[np.bool_]:
        """(N,) sub-environments whose episode is over, or broken off, and that were not reset yet."""
        return self._finished.copy()

    @property
    def episode_metrics(self) -> Mapping[str, Reduction]:
        """What else than return, length and success to report of episodes: key in ``infos`` -> reduction."""
        ended: dict[str, Reduction] = {"diverged": "any"} if self.on_divergence == "end" else {}
        return {**self.task_set.episode_metrics, **ended}

    def reset(
        self, *, seed: int | Sequence[int | None] | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Array, dict[str, Any]]:
        """Start new episodes in all sub-environments, or in those of ``options["reset_mask"]``, an (N,) bool array.

        Args:
            seed: sub-environment ``i`` is seeded with ``seed + i`` or ``seed[i]``; None continues its generator.
            options: only ``reset_mask`` is known; it is left in the dictionary.

        Returns:
            Observations (N, *O) of all sub-environments, and infos for the ones that were reset.

        Raises:
            TypeError, ValueError: a malformed mask or seed.
            RuntimeError: a partial reset before the first full one, or after `close`.
        """
        self._require_open("reset")
        mask = checked_mask(options, self.num_envs)
        seeds = checked_seeds(seed, self.num_envs)
        if not self.rngs:
            if not mask.all():
                raise RuntimeError("the first reset must be a full one, without 'reset_mask'")
            self.rngs = [seeding.np_random(s)[0] for s in seeds]
        else:
            for i in np.flatnonzero(mask):
                if seeds[i] is not None:
                    self.rngs[i] = seeding.np_random(seeds[i])[0]
        self._begin(np.flatnonzero(mask))
        self._any_finished = bool(self._finished.any())
        infos: dict[str, Any] = {}
        for key, kind in self.info_types.items():
            infos[key] = np.zeros(self.num_envs, dtype=kind)
            infos[f"_{key}"] = mask.copy()
        return self._observe(), infos

    def step(self, actions: Array) -> tuple[Array, Array, Array, Array, dict[str, Any]]:
        """Step all sub-environments at once.

        Args:
            actions: (N, *A), clipped to the action space. Rows that are reset in this step are ignored.

        Returns:
            Observations (N, *O), rewards (N,) float64, terminations and truncations (N,) bool, infos. An
            episode that terminates in its last step counts as terminated, not as truncated.

        Raises:
            ValueError: actions of a wrong shape or with NaN.
            RuntimeError: before the first reset or after `close`; a sub-environment that is finished (autoreset
                DISABLED) or has diverged, and was not reset.
            FloatingPointError: the simulation of a sub-environment diverged (``on_divergence="raise"``). It must be
                reset; the others are as they were before this step.
        """
        actions = np.asarray(actions, dtype=np.float64)
        if actions.shape != self._action_shape:
            raise ValueError(f"actions must have shape {self._action_shape}, got {actions.shape}")
        self._require_open("step")
        self._require_reset("step")
        restart: Rows | None = None
        if self._any_finished:
            restart = np.flatnonzero(self._finished)
            if self._diverged.any():
                raise RuntimeError(
                    f"sub-environments {np.flatnonzero(self._diverged).tolist()} have diverged: reset them first, with "
                    "reset(options={'reset_mask': mask}), a bool array that is True for them"
                )
            if self.autoreset_mode is AutoresetMode.DISABLED:
                raise RuntimeError(
                    f"sub-environments {restart.tolist()} have finished: reset them first, with "
                    "reset(options={'reset_mask': terminations | truncations})"
                )
            actions = actions.copy()
            actions[restart] = 0.0
        if math.isnan(actions.min()):  # one call, and unlike a sum it takes infinities
            self._refuse_nan(actions)
        self._advance(actions)
        self._elapsed += 1
        rewards, terminations, outcome = self._judge()
        truncations = self._elapsed >= self.max_episode_steps
        if self.on_divergence == "end":
            outcome["diverged"] = lost = self._diverged.copy()
            rewards[lost] = self.task_set.min_reward
            terminations[lost] = outcome["success"][lost] = False
            truncations[lost] = True
            self._diverged[:] = False
        if restart is not None:
            # These rows made a meaningless step. Resetting them only now keeps it out of their new episode.
            self._begin(restart)
            rewards[restart] = 0.0
            terminations[restart] = truncations[restart] = False
            for values in outcome.values():
                values[restart] = 0
        np.greater(truncations, terminations, out=truncations)  # truncated and not terminated
        observations = self._observe()
        np.logical_or(terminations, truncations, out=self._finished)
        self._any_finished = bool(np.count_nonzero(self._finished))  # quicker than any()
        infos: dict[str, Any] = {}
        if self._any_finished and self.autoreset_mode is AutoresetMode.SAME_STEP:
            observations = self._finish(observations, outcome, infos)
        masks = np.ones((len(outcome), self.num_envs), dtype=np.bool_)
        for (key, values), mask in zip(outcome.items(), masks, strict=True):
            infos[key] = values
            infos[f"_{key}"] = mask
        return observations, rewards, terminations, truncations, infos

    def render(self) -> tuple[npt.NDArray[np.uint8], ...] | None:
        """N pictures (H, W, 3) uint8, or None if the environment was made without a render mode.

        Raises:
            RuntimeError: before the first reset; or with ``renderer="mujoco"``, where OpenGL does not work.
        """
        if self.render_mode is None:
            gym.logger.warn("render() needs render_mode='rgb_array', given when the environment is made")
            return None
        self._require_reset("render")
        return tuple(self._draw(i) for i in range(self.num_envs))

    # ------------------------------------------------------------------ saving and restoring

    def get_state(self) -> dict[str, Any]:
        """Everything that the future depends on, as a tree of arrays, numbers and strings.

        Restoring it with `set_state`, here or in another process, continues bit-exactly. Before the first reset that
        is little: an environment that is given such a state must be reset first.
        """
        return {
            "env_id": self.task_set.env_id,
            "task_ids": self.task_ids.copy(),
            "elapsed": self._elapsed.copy(),
            "finished": self._finished.copy(),
            "diverged": self._diverged.copy(),
            "episode": {key: values.copy() for key, values in self._episode.items()},
            "rng": [rng.bit_generator.state for rng in self.rngs],
        }

    def set_state(self, state: Mapping[str, Any]) -> None:
        """Restore what `get_state` returned.

        Raises:
            ValueError: the state is of another task set, of sub-environments with other tasks, or has other arrays.
                Then nothing has changed.
        """
        check_same_tasks(self.task_set, self.task_ids, state)
        if len(state["rng"]) not in (0, self.num_envs):
            raise ValueError(
                f"expected {self.num_envs} generators, or none before the first reset, got {len(state['rng'])}"
            )
        for index, rng_state in enumerate(state["rng"]):
            try:
                seeding.np_random(0)[0].bit_generator.state = rng_state
            except (ValueError, TypeError, LookupError, OverflowError) as error:
                raise ValueError(
                    f"expected the states of PCG64 generators, got another one at {index}: {error}"
                ) from error
        saved = self._saved(state)
        for name, (mine, given) in saved.items():
            if given.shape != mine.shape or not np.can_cast(given.dtype, mine.dtype, "same_kind"):
                raise ValueError(
                    f"expected a state whose {name!r} is {mine.dtype} of shape {mine.shape}, got {given.dtype} of "
                    f"shape {given.shape}: it is of another version or of other arguments"
                )
        elapsed = saved["elapsed"][1]
        if elapsed.min() < 0 or elapsed.max() > self.max_episode_steps:
            raise ValueError(
                f"expected episodes of 0 to {self.max_episode_steps} steps so far, got {elapsed.tolist()}: the state "
                "is damaged, or of another max_episode_steps"
            )
        for mine, given in saved.values():
            mine[...] = given
        self._any_finished = bool(self._finished.any())
        if len(self.rngs) != len(state["rng"]):  # none before the first reset
            self.rngs = [seeding.np_random(0)[0] for _ in state["rng"]]
        for rng, rng_state in zip(self.rngs, state["rng"], strict=True):
            rng.bit_generator.state = rng_state

    # ------------------------------------------------------------------ internals

    def _saved(self, state: Mapping[str, Any]) -> dict[str, tuple[Array, Array]]:
        """Arrays that a state is copied into, and what it has for them."""
        none = np.zeros(self.num_envs, np.bool_)  # states of before there was this entry
        return {
            "elapsed": (self._elapsed, np.asarray(state["elapsed"])),
            "finished": (self._finished, np.asarray(state["finished"])),
            "diverged": (self._diverged, np.asarray(state.get("diverged", none))),
            **{key: (values, np.asarray(state["episode"][key])) for key, values in self._episode.items()},
        }

    def _begin(self, rows: Rows) -> None:
        for values in self._episode.values():
            values[rows] = 0
        self._start(rows)
        self._elapsed[rows] = 0
        self._finished[rows] = self._diverged[rows] = False

    def _finish(self, observations: Array, outcome: dict[str, Array], infos: dict[str, Any]) -> Array:
        """SAME_STEP: move the finished rows' last observation and outcome to ``infos``, start them anew."""
        mask = self._finished.copy()
        rows = np.flatnonzero(mask)
        final_obs = np.full(self.num_envs, None, dtype=object)
        for i in rows:
            final_obs[i] = observations[i].copy()
        final_info: dict[str, Any] = {}
        for key, values in outcome.items():
            final_info[key] = np.zeros_like(values)
            final_info[key][rows] = values[rows]
            final_info[f"_{key}"] = mask.copy()
            values[rows] = 0
        infos.update(final_obs=final_obs, _final_obs=mask, final_info=final_info, _final_info=mask.copy())
        self._begin(rows)
        self._any_finished = False
        observations[rows] = self._observe()[rows]
        return observations

    def _require_open(self, method: str) -> None:
        if self.closed:
            raise RuntimeError(f"{method}() after close(): make a new environment")

    def _require_reset(self, method: str) -> None:
        if not self.rngs:
            raise RuntimeError(f"{method}() before the first reset(): call reset() first")

    def _where(self, index: int) -> str:
        task, step = int(self.task_ids[index]), int(self._elapsed[index]) + 1
        where = f"task {task} {self.task_names[task]!r}, step {step} of its episode"
        return where if self.num_envs == 1 else f"sub-environment {index} ({where})"

    def _refuse_nan(self, actions: Array) -> None:
        # MuJoCo would silently zero the controls of such a sub-environment.
        bad = np.flatnonzero(np.isnan(actions.reshape(self.num_envs, -1)).any(axis=1))
        raise ValueError(f"actions must not be NaN: got {actions[bad[0]]} for {self._where(bad[0])}")
