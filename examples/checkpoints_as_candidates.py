"""One task, and earlier checkpoints of the same agent beside it: what it has unlearned since is tried again.

The agent is a DDPG in PyTorch. The collector reads parameters when it asks, so that a candidate is a frozen network
whose content changes whenever there is a better checkpoint; nothing is to be said to the collector.
"""

import copy

import gymnasium as gym
import torch
from torch import nn

import qmp_envs  # noqa: F401 (registers PointReach-v0)
from qmp_collect import Proposal, QMPCollector, QSwitch, TaskReplayBuffer, evaluate

torch.manual_seed(0)
envs, test_envs = gym.make_vec("PointReach-v0", num_envs=4), gym.make_vec("PointReach-v0", num_envs=1)


def network(inputs, outputs, *last):
    return nn.Sequential(nn.Linear(inputs, 64), nn.ReLU(), nn.Linear(64, outputs), *last)


actor, critic = network(2, 2, nn.Tanh()), network(4, 1)
target = copy.deepcopy(critic).requires_grad_(False)
frozen = [copy.deepcopy(actor).requires_grad_(False) for _ in range(2)]  # the best so far, and the best before it
of_actor, of_critic = (torch.optim.Adam(net.parameters(), lr) for net, lr in ((actor, 3e-4), (critic, 1e-3)))
best, history = -float("inf"), []


def step(optimizer, loss):
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()


def noisy(net):
    def act(obs):
        mean = net(obs)
        return Proposal((mean + 0.3 * torch.randn_like(mean)).clamp(-1, 1), mean)

    return act


def q(obs, actions):
    return critic(torch.cat([obs, actions], -1))


buffer = TaskReplayBuffer(10_000, 1, envs.single_observation_space, envs.single_action_space, seed=0)
candidates, switch = [noisy(net) for net in (actor, *frozen)], QSwitch(score="sample")  # the best of three samples
collector = QMPCollector(envs, candidates, [q], buffer=buffer, switch=switch, backend="torch", seed=0)
collector.collect(n_step=200, random=True)
for _ in range(10):
    collector.collect(n_step=80)
    for _ in range(20):
        data = buffer.sample_joint(64)
        after = torch.cat([data.next_obs, actor(data.next_obs)], -1).detach()
        aim = data.rewards + 0.95 * (1 - data.terminations) * target(after)[:, 0]
        step(of_critic, (q(data.obs, data.actions)[:, 0] - aim).square().mean())
        step(of_actor, -q(data.obs, actor(data.obs)).mean())
        torch._foreach_lerp_(list(target.parameters()), list(critic.parameters()), 0.02)
    value = evaluate(test_envs, [actor], episodes_per_env=1).returns.mean()
    history.append(round(float(value), 2))
    if value > best:
        best = value
        frozen[1].load_state_dict(frozen[0].state_dict())
        frozen[0].load_state_dict(actor.state_dict())
print("return of the agent after each round:", history)
print("share of the steps, agent, best checkpoint, the best before it:", collector.stats().mixture[0].round(2))
print("rows of the last batch that the agent itself collected:", buffer.own_share().item())
