"""Gymnasium's own `Meta-World/MT10`, as Meta-World registers it, with `task_ids` told: sub-environment i is task i.

`MetaWorldMT10-v0` of `qmp_envs` has the same tasks, makes and resets them faster, and can be checkpointed.
"""

import gymnasium as gym
import metaworld  # noqa: F401 (registers Meta-World/MT10)
import numpy as np

from qmp_collect import QMPCollector

# Made quickly, and with short episodes, to be tried: leave out num_goals (50 per task) and max_episode_steps (500).
envs = gym.make_vec("Meta-World/MT10", seed=1, vector_strategy="sync", num_goals=5, max_episode_steps=20)
T = envs.num_envs

rng = np.random.default_rng(0)
policies = [lambda obs, k=k: np.tanh(rng.normal(np.sin(k + np.arange(4)), 1, (len(obs), 4))) for k in range(T)]
q_functions = [lambda obs, actions, t=t: actions @ np.cos(t + np.arange(4)) for t in range(T)]

collector = QMPCollector(envs, policies, q_functions, task_ids=np.arange(T), seed=1)
stats = collector.collect(n_step=20 * T)
print("steps of each task:", stats.behavior_counts.sum(1), " mean return:", stats.per_task(stats.returns).round(1))
print("the policy that acted most in each task:", stats.mixture.argmax(1))
envs.close()
