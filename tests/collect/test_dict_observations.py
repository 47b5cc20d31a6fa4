"""Dict observations, flattened as the documentation says: every part of a true successor, in every autoreset mode."""

from __future__ import annotations

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.vector import AutoresetMode, SyncVectorEnv

from qmp_collect import QMPCollector, TaskReplayBuffer


class Goal(gym.Env):
    """Place and goal on a line, and what was done; four steps."""

    observation_space = gym.spaces.Dict(
        {
            "observation": gym.spaces.Box(-9, 9, (2,), np.float32),
            "achieved_goal": gym.spaces.Box(-9, 9, (1,), np.float32),
            "desired_goal": gym.spaces.Box(-9, 9, (1,), np.float32),
        }
    )
    action_space = gym.spaces.Box(-1, 1, (1,), np.float32)

    def __init__(self, goal):
        self.goal = goal

    def _obs(self, action):
        parts = {"observation": [action, self.steps], "achieved_goal": [self.place], "desired_goal": [self.goal]}
        return {name: np.array(values, np.float32) for name, values in parts.items()}

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.place, self.steps = 0.0, 0
        return self._obs(0.0), {}

    def step(self, action):
        self.place, self.steps = self.place + float(action[0]), self.steps + 1
        return self._obs(float(action[0])), 0.0, False, self.steps == 2, {}


@pytest.mark.parametrize("mode", AutoresetMode)
def test_flattened_sub_environments(mode):
    def towards_the_goal(rows):
        return np.clip(rows[:, 1:2] - rows[:, :1], -1, 1)

    envs = SyncVectorEnv(
        [lambda g=g: gym.wrappers.FlattenObservation(Goal(g)) for g in (5.0, -5.0)], autoreset_mode=mode
    )
    buffer = TaskReplayBuffer(8, 2, envs.single_observation_space, envs.single_action_space)
    QMPCollector(envs, [towards_the_goal] * 2, [lambda obs, actions: actions[:, 0]] * 2, buffer=buffer).collect(
        n_step=6
    )
    batch = buffer.sample(40)
    for task, sign in ((0, 1.0), (1, -1.0)):  # achieved goal, desired goal, action before, steps
        seen = {
            (*map(tuple, rows),) for rows in zip(batch.obs[task].tolist(), batch.next_obs[task].tolist(), strict=True)
        }
        first, second, last = (0.0, 5 * sign, 0, 0), (sign, 5 * sign, sign, 1), (2 * sign, 5 * sign, sign, 2)
        assert seen == {(first, second), (second, last)}
