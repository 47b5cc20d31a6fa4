"""CleanRL's single-file DQN, one Q-network per task. The lines that QMP adds or changes are marked.

Greedy actions are the best that the own Q-function knows, so that other policies win only where the own one explores.
"""

import gymnasium as gym
import torch
import torch.nn.functional as F  # noqa: N812
from torch import nn

from qmp_collect import QMPCollector, TaskReplayBuffer  # QMP

LENGTHS, GAMMA, STARTS, EPSILON = (0.5, 1.0), 0.99, 200, 0.2
torch.manual_seed(1)


def make(length):
    env = gym.make("CartPole-v1")
    env.unwrapped.length = length
    return env


def network():
    return nn.Sequential(nn.Linear(4, 64), nn.ReLU(), nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 2))


def epsilon_greedy(q_network):
    def act(obs):
        greedy = q_network(obs).argmax(1)
        return torch.where(torch.rand(len(obs)) < EPSILON, torch.randint_like(greedy, 2), greedy)

    return act


envs = gym.vector.SyncVectorEnv([lambda x=x: make(x) for x in LENGTHS])
q_networks, target_networks = ([network() for _ in LENGTHS] for _ in range(2))
optimizers = [torch.optim.Adam(q.parameters(), 1e-3) for q in q_networks]
rb = TaskReplayBuffer(
    10_000, 2, envs.single_observation_space, envs.single_action_space, seed=1
)  # QMP: a ring per task
policies = [epsilon_greedy(q) for q in q_networks]  # QMP: each task's as before
collector = QMPCollector(envs, policies, q_networks, buffer=rb, backend="torch", seed=1)  # QMP

obs, _ = collector.reset()  # QMP: envs.reset(seed=1)
for step in range(600):
    actions = collector.act(obs, random=step < STARTS)  # QMP: every network its own environment's action
    obs, rewards, terminations, truncations, infos = envs.step(actions)
    collector.observe(obs, rewards, terminations, truncations, infos)  # QMP: rb.add(...), with true successors
    if step % 100 == 0:
        for q, target in zip(q_networks, target_networks, strict=True):
            target.load_state_dict(q.state_dict())
    if step >= STARTS and step % 2 == 0:
        data = rb.sample(64)
        for task, (q, target, optimizer) in enumerate(zip(q_networks, target_networks, optimizers, strict=True)):
            batch_obs, batch_actions, rewards_, next_obs, dones = (field[task] for field in data[:5])
            with torch.no_grad():
                aim = rewards_ + GAMMA * (1 - dones) * target(next_obs).max(1)[0]
            loss = F.mse_loss(q(batch_obs).gather(1, batch_actions[:, None])[:, 0], aim)
            optimizer.zero_grad(), loss.backward(), optimizer.step()
stats = collector.stats()
print("who acted (row: task, column: policy):", stats.mixture.round(2), sep="\n")
print("episodes:", stats.n_collected_episodes, " their lengths by task:", stats.per_task(stats.lens).round(1))
