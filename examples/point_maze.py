"""Gymnasium-Robotics' PointMaze: one goal cell per task. Its observations are dicts, which are flattened.

The flat vector has the keys in alphabetical order: achieved_goal (2), desired_goal (2), observation (4).
"""

import gymnasium as gym
import gymnasium_robotics
import numpy as np

from qmp_collect import QMPCollector

gym.register_envs(gymnasium_robotics)
GOALS = ([1, 1], [1, 3], [3, 3])  # cells (row, column) of the 3 x 3 room of this map


def make(goal):
    env = gym.make("PointMaze_Open-v3", maze_map=[[1] * 5, [1, 0, 0, 0, 1], [1, 0, 0, 0, 1], [1, 0, 0, 0, 1], [1] * 5],
                   max_episode_steps=60, continuing_task=False)  # fmt: skip

    class ToGoal(gym.Wrapper):  # the goal of a task is an option of every reset
        def reset(self, *, seed=None, options=None):
            return self.env.reset(seed=seed, options={**(options or {}), "goal_cell": np.array(goal)})

    return gym.wrappers.FlattenObservation(ToGoal(env))


envs = gym.vector.SyncVectorEnv([lambda g=g: make(g) for g in GOALS])

# Stand-ins for learners: noisy pushes in different directions, and critics that like a push towards the goal.
rng = np.random.default_rng(0)
policies = [
    lambda obs, m=m: rng.normal(m, 0.5, (len(obs), 2)).clip(-1, 1) for m in ([-0.5, 0.5], [0.5, 0.5], [0.5, -0.5])
]


def towards_goal(obs, actions):
    to_goal, velocity = obs[:, 2:4] - obs[:, 0:2], obs[:, 6:8]
    return -((actions - (4 * to_goal - velocity)) ** 2).sum(1)


collector = QMPCollector(envs, policies, [towards_goal] * len(GOALS), seed=0)
stats = collector.collect(n_episode=4)
print("success:", stats.per_task(stats.successes), " length:", stats.per_task(stats.lens).round(1))
print("who acted (row: task, column: policy):", stats.mixture.round(2), sep="\n")
envs.close()
