"""Tianshou 2: two SAC algorithms, each with a `VectorReplayBuffer` that `TianshouSink` fills.

Tianshou's policies think in actions of [-1, 1]; The callables translate, and the sink does so by itself.
"""

import gymnasium as gym
import torch
from tianshou.algorithm import SAC
from tianshou.algorithm.algorithm_base import policy_within_training_step
from tianshou.algorithm.modelfree.sac import SACPolicy
from tianshou.algorithm.optim import AdamOptimizerFactory
from tianshou.data import Batch, VectorReplayBuffer
from tianshou.utils.net.common import Net
from tianshou.utils.net.continuous import ContinuousActorProbabilistic, ContinuousCritic

from qmp_collect import Proposal, QMPCollector
from qmp_collect.adapters import TianshouSink

torch.manual_seed(1)
GRAVITY, PER_TASK, TASK_IDS = (9.81, 5.0), 2, [0, 0, 1, 1]
envs = gym.vector.SyncVectorEnv([lambda g=g: gym.make("Pendulum-v1", g=g) for g in GRAVITY for _ in range(PER_TASK)])


def make_algorithm():
    net = Net(state_shape=(3,), hidden_sizes=(64, 64))
    actor = ContinuousActorProbabilistic(preprocess_net=net, action_shape=(1,), unbounded=True, conditioned_sigma=True)
    critic = ContinuousCritic(preprocess_net=Net(state_shape=(3,), action_shape=(1,), hidden_sizes=(64,), concat=True))
    optim = AdamOptimizerFactory(lr=1e-3)
    policy = SACPolicy(actor=actor, action_space=envs.single_action_space)
    return SAC(policy=policy, policy_optim=optim, critic=critic, critic_optim=optim)


def policy(algorithm):
    def act(obs):
        distribution = algorithm.policy(Batch(obs=obs, info={})).dist
        return Proposal(*(2 * torch.tanh(a) for a in (distribution.sample(), distribution.mode)))  # bounds -2, 2

    return act


algorithms = [make_algorithm() for _ in GRAVITY]
buffers = [VectorReplayBuffer(20_000, PER_TASK) for _ in GRAVITY]  # a part for each sub-environment
policies = [policy(a) for a in algorithms]
q_functions = [lambda obs, actions, a=a: a.critic(obs, actions / 2) for a in algorithms]
sinks = [TianshouSink(b, a.policy) for b, a in zip(buffers, algorithms, strict=True)]
collector = QMPCollector(envs, policies, q_functions, task_ids=TASK_IDS, buffer=sinks, backend="torch", seed=1)

collector.collect(n_step=400, random=True)
for _ in range(20):
    collector.collect(n_step=40)
    for algorithm, buffer in zip(algorithms, buffers, strict=True):
        with policy_within_training_step(algorithm.policy):  # else its actions would be deterministic
            algorithm.update(buffer=buffer, sample_size=64)
print("who acted (row: task, column: policy):", collector.stats().mixture.round(2), sep="\n")
