"""Environments of your own: a plain Gymnasium environment per task, several of each, side by side in `SyncVectorEnv`.

All the collector asks for is `task_ids`: which task each sub-environment is.
"""

import gymnasium as gym
import numpy as np

from qmp_collect import QMPCollector, check_callables


class Corridor(gym.Env):
    """Walk along a line to your task's door. `infos["success"]` is what the collector reports as success."""

    observation_space = gym.spaces.Box(-6, 6, (1,))
    action_space = gym.spaces.Box(-1, 1, (1,))

    def __init__(self, door):
        self.door = door

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.x = self.np_random.uniform(-1, 1)
        return np.array([self.x], np.float32), {}

    def step(self, action):
        self.x = float(np.clip(self.x + 0.5 * action[0], -6, 6))
        there = abs(self.x - self.door) < 0.25
        return np.array([self.x], np.float32), -abs(self.x - self.door), there, False, {"success": there}


DOORS, PER_TASK = (-4.0, 3.0, 5.0), 2
make = [lambda d=d: gym.wrappers.TimeLimit(Corridor(d), 30) for d in DOORS for _ in range(PER_TASK)]
envs = gym.vector.SyncVectorEnv(make)
task_ids = np.repeat(np.arange(len(DOORS)), PER_TASK)  # [0, 0, 1, 1, 2, 2]

# Stand-ins for learners: policy t drifts to its own side, and critic t knows how far its door is.
rng = np.random.default_rng(0)
policies = [lambda obs, d=d: rng.normal(0.1 * np.sign(d), 0.6, obs.shape).clip(-1, 1) for d in DOORS]
q_functions = [lambda obs, actions, d=d: -abs(obs[:, 0] + 0.5 * actions[:, 0] - d) for d in DOORS]
check_callables(policies, q_functions, envs.single_observation_space, envs.single_action_space, num_tasks=len(DOORS))

collector = QMPCollector(envs, policies, q_functions, task_ids=task_ids, seed=0)
stats = collector.collect(n_episode=20)
print(
    "episodes of each task:", np.bincount(stats.episode_task_ids), " success:", stats.per_task(stats.successes).round(2)
)
print("who acted (row: task, column: policy):", stats.mixture.round(2), sep="\n")
