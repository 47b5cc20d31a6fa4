"""One task, a cloned policy and a learner: demonstrations become a policy, which proposes beside the one that learns.

As in imitation-bootstrapped RL: argmax over both proposals when acting, which is what the collector does with two
candidates, and when bootstrapping, which is one line of the update. Half of each batch is what the learner did itself.
"""

import copy

import gymnasium as gym
import torch
from torch import nn

import qmp_envs  # noqa: F401 (registers PointReach-v0)
from qmp_collect import Proposal, QMPCollector, TaskReplayBuffer, evaluate

torch.manual_seed(0)
envs, test_envs = gym.make_vec("PointReach-v0", num_envs=4), gym.make_vec("PointReach-v0", num_envs=1)


def network(inputs, outputs, *last):
    return nn.Sequential(nn.Linear(inputs, 64), nn.ReLU(), nn.Linear(64, outputs), *last)


actor, critic, clone = network(2, 2, nn.Tanh()), network(4, 1), network(2, 2, nn.Tanh())
target = copy.deepcopy(critic).requires_grad_(False)
of_actor, of_critic, of_clone = (torch.optim.Adam(net.parameters(), 3e-3) for net in (actor, critic, clone))


def step(optimizer, loss):
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()


# Demonstrations: 10 states of a slow way to the goal, and what was done there. Then the clone learns them by heart.
states = torch.linspace(0, 1, 10)[:, None].repeat(1, 2)
for _ in range(100):
    step(of_clone, (clone(states) - torch.tensor([0.5, 0.6])).square().mean())


def explore(obs):
    mean = actor(obs)
    return Proposal((mean + 0.3 * torch.randn_like(mean)).clamp(-1, 1), mean)


def q(obs, actions, net=critic):
    return net(torch.cat([obs, actions], -1))


buffer = TaskReplayBuffer(10_000, 1, envs.single_observation_space, envs.single_action_space, seed=0)
policies = [explore, lambda obs: Proposal(clone(obs), clone(obs))]
collector = QMPCollector(envs, policies, [q], buffer=buffer, backend="torch", seed=0)
for _ in range(15):
    collector.collect(n_step=80)
    for _ in range(20):
        obs, actions, rewards, next_obs, terminations, *_ = buffer.sample_joint(64, own_fraction=0.5)
        with torch.no_grad():
            after = torch.maximum(*(q(next_obs, policy(next_obs), target) for policy in (actor, clone)))[:, 0]
        step(of_critic, (q(obs, actions)[:, 0] - rewards - 0.9 * (1 - terminations) * after).square().mean())
        step(of_actor, -q(obs, actor(obs)).mean())
        torch._foreach_lerp_(list(target.parameters()), list(critic.parameters()), 0.05)
print("share of the steps, learner and clone:", collector.stats().mixture[0].round(2))
returns = [round(float(evaluate(test_envs, [net], episodes_per_env=1).returns[0]), 2) for net in (actor, clone)]
print("return of the learner and of the clone, each alone:", returns)
