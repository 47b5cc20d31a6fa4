"""Uniformly random actions for all sub-environments."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium.vector import VectorEnv
from gymnasium.vector.utils import batch_space
from numpy.typing import NDArray

from qmp_collect.states import check_like


class RandomActions:
    """Samples of the action spaces of ``envs``, from a generator of their own; of several groups, one for each.

    Some environments' ``action_space`` is that of a single one: `shape` is that of a batch in any case.
    """

    def __init__(
        self,
        envs: VectorEnv[Any, Any, Any],
        streams: Sequence[np.random.SeedSequence],
        rows: Sequence[NDArray[np.int64] | slice],
    ) -> None:
        single: gym.Space[Any] = envs.single_action_space
        self.shape = (int(envs.num_envs), *(single.shape or ()))
        batched = tuple(envs.action_space.shape or ()) == self.shape
        self._rows = rows
        if len(rows) == 1:
            self._spaces = [copy.deepcopy(envs.action_space) if batched else batch_space(single, envs.num_envs)]
        else:
            every = np.arange(envs.num_envs)
            self._spaces = [batch_space(single, len(every[of_group])) for of_group in rows]
        for space, stream in zip(self._spaces, streams, strict=True):
            space.seed(int(stream.generate_state(1)[0]))

    def sample(self) -> NDArray[Any]:
        """``(N, *A)``."""
        if len(self._spaces) == 1:
            return np.array(self._spaces[0].sample())
        samples = [np.asarray(space.sample()) for space in self._spaces]
        actions = np.empty(self.shape, samples[0].dtype)
        for rows, sample in zip(self._rows, samples, strict=True):
            actions[rows] = sample
        return actions

    def state_dict(self) -> Any:
        """The generator's state; of several, by their group."""
        states = [space.np_random.bit_generator.state for space in self._spaces]
        return states[0] if len(states) == 1 else {str(group): state for group, state in enumerate(states)}

    def check_state(self, state: Any) -> None:
        """`ValueError` if it is of another kind of generator."""
        check_like("random_actions", state, self.state_dict())

    def load_state_dict(self, state: Any) -> None:
        """Continue from `state_dict`."""
        for group, space in enumerate(self._spaces):
            space.np_random.bit_generator.state = state if len(self._spaces) == 1 else state[str(group)]
