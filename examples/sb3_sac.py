"""Stable-Baselines3: two SAC models, one per task, that share behaviour. They collect together and learn apart."""

import gymnasium as gym
from stable_baselines3 import SAC

from qmp_collect import QMPCollector, evaluate
from qmp_collect.adapters import sb3_agents

GRAVITY = (9.81, 5.0)  # two tasks: a pendulum here, and one where things weigh half as much
STEPS = 800  # stored transitions of both tasks together; 20_000 see both pendulums stand


def make(gravity):
    return lambda: gym.make("Pendulum-v1", g=gravity)


envs = gym.vector.SyncVectorEnv([make(g) for g in GRAVITY])
models = [
    SAC("MlpPolicy", make(g)(), policy_kwargs={"net_arch": [64, 64]}, seed=task, device="cpu")
    for task, g in enumerate(GRAVITY)
]
policies, q_functions, sinks = sb3_agents(models)  # their samples and means, their first critics, their replay buffers
collector = QMPCollector(envs, policies, q_functions, buffer=sinks, seed=0)


collector.collect(n_step=600, random=True)
while collector.num_steps < STEPS:
    collector.collect(n_step=40)
    for model in models:
        model.train(gradient_steps=20, batch_size=64)
print("who acted (row: task, column: policy):", collector.stats().mixture.round(2), sep="\n")

# Each task's own policy, alone and without noise: the mixture is for collecting only.
test_envs = gym.vector.SyncVectorEnv([make(g) for g in GRAVITY])
stats = evaluate(test_envs, policies, episodes_per_env=2, seed=1)
print("return of each task:", stats.per_task(stats.returns).round())
