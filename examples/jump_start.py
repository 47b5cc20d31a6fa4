"""Jump-Start RL: a scripted guide begins every episode, the learner goes on from where it leads, ever earlier.

The guide knows the way and is slow. It acts for the first `steps` of an episode, a number that falls to 0; the rest is
the learner's own, a DDPG in PyTorch, which finds no goal without the guide. With `then=QSwitch()` the guide may
act later too, where the critic prefers it.
"""

import copy

import gymnasium as gym
import numpy as np
import torch
from torch import nn

import qmp_envs  # noqa: F401 (registers PointReach-v0)
from qmp_collect import JumpStart, Proposal, QMPCollector, TaskReplayBuffer, evaluate

STEPS = 1_200
torch.manual_seed(0)
envs, test_envs = gym.make_vec("PointReach-v0", num_envs=4), gym.make_vec("PointReach-v0", num_envs=1)


def network(inputs, outputs, *last):
    return nn.Sequential(nn.Linear(inputs, 64), nn.ReLU(), nn.Linear(64, outputs), *last)


actor, critic = network(2, 2, nn.Tanh()), network(4, 1)
target = copy.deepcopy(critic).requires_grad_(False)
of_actor, of_critic = (torch.optim.Adam(net.parameters(), 3e-3) for net in (actor, critic))


def step(optimizer, loss):
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()


def explore(obs):
    mean = actor(obs)
    return Proposal((mean + 0.3 * torch.randn_like(mean)).clamp(-1, 1), mean)


def guide(obs):
    return np.full_like(obs, 0.6)


def steps(num_steps):
    return 20 * (1 - num_steps / (0.8 * STEPS))  # of the 20 that an episode has; the last fifth is the learner's alone


buffer = TaskReplayBuffer(10_000, 1, envs.single_observation_space, envs.single_action_space, seed=0)
switch = JumpStart(guide=1, steps=steps)
collector = QMPCollector(envs, [explore, guide], None, buffer=buffer, switch=switch, seed=0)
shares = []
while collector.num_steps < STEPS:
    shares.append(round(float(collector.collect(n_step=80).mixture[0, 1]), 2))
    for _ in range(20):
        obs, actions, rewards, next_obs, terminations, *_ = buffer.sample_joint(64)
        rewards = (rewards > -0.05).float()  # 1 at the goal and 0 elsewhere: who never gets there learns nothing
        after = target(torch.cat([next_obs, actor(next_obs)], -1)).detach()[:, 0]
        values = critic(torch.cat([obs, actions], -1))[:, 0]
        step(of_critic, (values - rewards - 0.9 * (1 - terminations) * after).square().mean())
        step(of_actor, -critic(torch.cat([obs, actor(obs)], -1)).mean())
        torch._foreach_lerp_(list(target.parameters()), list(critic.parameters()), 0.05)
print("share of the steps that the guide acted in, by round:", shares)
print("success of the learner alone:", evaluate(test_envs, [actor], episodes_per_env=1).successes.mean())
assert shares[0] > 0.9, "the guide begins"
assert shares[-1] == 0, "and is not needed any more"
