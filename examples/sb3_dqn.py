"""Stable-Baselines3: two DQN models, and why learners that act greedily on their values gain nothing from QMP.

A DQN policy is the best action of its own Q-function. No other policy can propose a better one, so that the mixture
stays the identity. Only where exploring samples are scored do others win: where the own policy happens to explore.
"""

import gymnasium as gym
from stable_baselines3 import DQN

from qmp_collect import QMPCollector
from qmp_collect.adapters import sb3_agents

LENGTHS = (0.5, 1.0)


def make(length):
    env = gym.make("CartPole-v1", max_episode_steps=200)
    env.unwrapped.length = length
    return env


for epsilon in (0.0, 0.2):
    envs = gym.vector.SyncVectorEnv([lambda x=x: make(x) for x in LENGTHS])
    models = [DQN("MlpPolicy", make(x), learning_rate=1e-3, seed=t, device="cpu") for t, x in enumerate(LENGTHS)]
    policies, q_functions, sinks = sb3_agents(models, epsilon=epsilon)
    collector = QMPCollector(envs, policies, q_functions, buffer=sinks, seed=0)
    collector.collect(n_step=400, random=True)
    for _ in range(10):
        collector.collect(n_step=40)
        for model in models:
            model.train(gradient_steps=8, batch_size=64)
    print(f"epsilon {epsilon}: who acted", collector.stats().mixture.round(2).tolist())
