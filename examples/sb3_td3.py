"""Stable-Baselines3: two TD3 models. Their exploration noise is part of what each policy proposes.

Noise that is added to what `collector.act` returned is executed, too, but must be told: `observe(..., actions=noisy)`.
"""

import gymnasium as gym
import numpy as np
from stable_baselines3 import TD3
from stable_baselines3.common.noise import NormalActionNoise

from qmp_collect import QMPCollector
from qmp_collect.adapters import sb3_agents

GRAVITY = (9.81, 5.0)
envs = gym.vector.SyncVectorEnv([lambda g=g: gym.make("Pendulum-v1", g=g) for g in GRAVITY])
models = [
    TD3(
        "MlpPolicy",
        gym.make("Pendulum-v1", g=g),
        action_noise=NormalActionNoise(np.zeros(1), 0.1 * np.ones(1)),  # in units of [-1, 1]
        policy_kwargs={"net_arch": [64, 64]},
        seed=task,
        device="cpu",
    )
    for task, g in enumerate(GRAVITY)
]
policies, q_functions, sinks = sb3_agents(models)
collector = QMPCollector(envs, policies, q_functions, buffer=sinks, seed=0)

collector.collect(n_step=600, random=True)
for _ in range(10):
    collector.collect(n_step=40)
    for model in models:
        model.train(gradient_steps=10, batch_size=64)
stats = collector.stats()
print("who acted (row: task, column: policy):", stats.mixture.round(2), sep="\n")
print("by how much the chosen action's value exceeds the own one's:", stats.q_gap.round(4))
