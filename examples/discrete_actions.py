"""Discrete actions: policies give integers, Q-functions give the values of all actions at once.

Policies that sample, as SAC's for discrete actions do, leave others room to propose better; a greedy learner's own
proposal is already its best (`sb3_dqn.py`). Here tables learn: one frozen lake, and each task has another goal on it.
"""

import gymnasium as gym
import numpy as np

from qmp_collect import QMPCollector

ROOMS, TASKS, GAMMA = 16, 4, 0.9
envs = gym.vector.SyncVectorEnv(
    [lambda: gym.make("FrozenLake-v1", is_slippery=False, max_episode_steps=30) for _ in range(TASKS)]
)
goals = np.array([15, 10, 3, 13])  # the state that each task wants to reach; the environments are the same
q_tables = np.zeros((TASKS, ROOMS, 4), np.float32)
rng = np.random.default_rng(0)


def policies(obs):  # batched: (N,) -> (N, K), a sample of every task's Boltzmann policy in every state
    logits = q_tables[:, obs].swapaxes(0, 1) / 0.1
    return (logits + rng.gumbel(size=logits.shape)).argmax(-1)


def q_functions(obs, task_ids):  # batched: (N,), (N,) -> (N, n)
    return q_tables[task_ids, obs]


collector = QMPCollector(envs, policies, q_functions, num_tasks=TASKS, seed=0)
obs, _ = collector.reset()
for step in range(1_500):
    actions = collector.act(obs, random=step < 300)
    obs, rewards, terminations, truncations, infos = envs.step(actions)
    t = collector.observe(obs, rewards, terminations, truncations, infos)
    reached = t.next_obs == goals[t.task_ids]  # every task rewards the same transitions in its own way
    aim = reached + GAMMA * ~(reached | t.terminations) * q_tables[t.task_ids, t.next_obs].max(-1)
    old = q_tables[t.task_ids, t.obs, t.actions]
    q_tables[t.task_ids, t.obs, t.actions] = old + 0.5 * (aim - old)
print("value of the start for each task:", q_tables[:, 0].max(-1).round(2))
print("who acted (row: task, column: policy):", collector.stats().mixture.round(2), sep="\n")
