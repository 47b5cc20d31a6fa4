"""The single environments of a ``SyncVectorEnv`` as one that can be saved, if each of them can."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium.vector import SyncVectorEnv

from qmp_collect.states import check_like, has_own_state, restore, state_of

_ENTRIES = ("autoreset", "elapsed", "obs", "singles")


def saved_by(envs: Any) -> Any:
    """Whose ``get_state`` and ``set_state`` are those of the vector environment ``envs``: its own, if it has them."""
    if not isinstance(envs, SyncVectorEnv) or has_own_state(envs):
        return envs
    return SubEnvironments(envs) if all(has_own_state(env.unwrapped) for env in envs.envs) else envs


class SubEnvironments:
    """The single environments of a ``SyncVectorEnv``, and what it and time limits know of the running episodes."""

    def __init__(self, envs: SyncVectorEnv) -> None:
        self._envs = envs

    def get_state(self) -> dict[str, Any]:
        """Of each environment its own, and the steps of its time limits; and which ones will reset themselves."""
        return {
            "singles": [state_of(env.unwrapped) for env in self._envs.envs],
            "elapsed": [[limit._elapsed_steps for limit in _time_limits(env)] for env in self._envs.envs],
            "autoreset": np.array(self._envs._autoreset_envs),
            "obs": copy.deepcopy(list(self._envs._env_obs)),  # what a reset of other rows answers of these
        }

    def set_state(self, state: Mapping[str, Any]) -> None:
        """Continue from ``get_state()`` of as many environments.

        One may refuse its state; then nothing has changed, but that environments which had never been reset are.
        """
        if not isinstance(state, Mapping) or sorted(state) != sorted(_ENTRIES):
            raise ValueError(f"the state holds that of a vector environment, but {self._envs} itself has no set_state")
        saved = [len(steps) for steps in state["elapsed"]]
        limits = [len(list(_time_limits(env))) for env in self._envs.envs]
        if saved != limits or {len(state["singles"]), len(state["obs"])} != {len(limits)}:
            raise ValueError(f"the state is of environments with {saved} time limits, here are {limits}")
        check_like("autoreset", state["autoreset"], np.array(self._envs._autoreset_envs))
        self._reset_new()
        here = self.get_state()
        try:
            self._set(state)
        except Exception:
            self._set(here)
            raise

    def _reset_new(self) -> None:
        """Wrappers (those of ``gymnasium.make``) refuse to step what was never reset; some attributes begin there."""
        for index, env in enumerate(self._envs.envs):
            if self._envs._env_obs[index] is None:
                self._envs._env_obs[index], _ = env.reset()

    def _set(self, state: Mapping[str, Any]) -> None:
        for env, single, elapsed in zip(self._envs.envs, state["singles"], state["elapsed"], strict=True):
            restore(env.unwrapped, single)
            for limit, steps in zip(_time_limits(env), elapsed, strict=True):
                limit._elapsed_steps = steps
        self._envs._autoreset_envs = np.array(state["autoreset"])
        self._envs._env_obs = copy.deepcopy(list(state["obs"]))


def _time_limits(env: Any) -> Iterator[Any]:
    while isinstance(env, gym.Wrapper):
        if isinstance(env, gym.wrappers.TimeLimit):
            yield env
        env = env.env
