"""Uniformly random actions for all sub-environments."""

from __future__ import annotations

import copy
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium.vector import VectorEnv
from gymnasium.vector.utils import batch_space
from numpy.typing import NDArray

from qmp_collect.states import check_like


class RandomActions:
    """Samples of the action spaces of ``envs``, from a generator of their own.

    Some environments' ``action_space`` is that of a single one: `shape` is that of a batch in any case.
    """

    def __init__(self, envs: VectorEnv[Any, Any, Any], stream: np.random.SeedSequence) -> None:
        single: gym.Space[Any] = envs.single_action_space
        self.shape = (int(envs.num_envs), *(single.shape or ()))
        batched = tuple(envs.action_space.shape or ()) == self.shape
        self._space = copy.deepcopy(envs.action_space) if batched else batch_space(single, envs.num_envs)
        self._space.seed(int(stream.generate_state(1)[0]))

    def sample(self) -> NDArray[Any]:
        """``(N, *A)``."""
        return np.array(self._space.sample())

    def state_dict(self) -> Any:
        """The generator's state."""
        return self._space.np_random.bit_generator.state

    def check_state(self, state: Any) -> None:
        """`ValueError` if it is of another kind of generator."""
        check_like("random_actions", state, self.state_dict())

    def load_state_dict(self, state: Any) -> None:
        """Continue from `state_dict`."""
        self._space.np_random.bit_generator.state = state
