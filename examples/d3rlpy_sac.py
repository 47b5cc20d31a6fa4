"""d3rlpy: two SAC algorithms. Its replay buffers hold episodes, so that each takes the rows of one sub-environment.

The buffer keeps no successor: it is the next row's observation. `clip_episode` says that an episode ends, and how.
"""

import d3rlpy
import gymnasium as gym

from qmp_collect import QMPCollector
from qmp_collect.adapters import FunctionSink

GRAVITY = (9.81, 5.0)
d3rlpy.seed(1)


def make(gravity):
    return gym.make("Pendulum-v1", g=gravity)


envs = gym.vector.SyncVectorEnv([lambda g=g: make(g) for g in GRAVITY])
space = envs.single_action_space
scaler = d3rlpy.preprocessing.MinMaxActionScaler(minimum=space.low, maximum=space.high)  # else actions stay in [-1, 1]
algos = [d3rlpy.algos.SACConfig(batch_size=64, action_scaler=scaler).create() for _ in GRAVITY]
buffers = [d3rlpy.dataset.create_fifo_replay_buffer(limit=10_000, env=make(g)) for g in GRAVITY]
for algo, g in zip(algos, GRAVITY, strict=True):
    algo.build_with_env(make(g))


def sink(buffer):
    def store(t):
        rows = zip(t.obs, t.actions, t.rewards, t.terminations, t.truncations, strict=True)
        for obs, action, reward, terminated, truncated in rows:
            buffer.append(obs, action, float(reward))
            if terminated or truncated:
                buffer.clip_episode(bool(terminated))

    return FunctionSink(store)


policies, q_functions = [algo.sample_action for algo in algos], [algo.predict_value for algo in algos]
collector = QMPCollector(envs, policies, q_functions, buffer=[sink(b) for b in buffers], seed=1)
collector.collect(n_step=1_000, random=True)
for _ in range(10):
    collector.collect(n_step=40)
    for algo, buffer in zip(algos, buffers, strict=True):
        for _ in range(4):
            algo.update(buffer.sample_transition_batch(64))
print("who acted (row: task, column: policy):", collector.stats().mixture.round(2), sep="\n")
