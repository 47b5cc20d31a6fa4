"""Pixels: a convolutional Q-network per task, on the 32 x 32 picture of a small room, with discrete actions.

Observations are uint8 in the environment; elements of a `Box` are numbers, and so they reach policies, Q-functions and
the learner as floating-point ones, from 0 to 255.
"""

import gymnasium as gym
import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812
from torch import nn

from qmp_collect import QMPCollector, TaskReplayBuffer


class Room(gym.Env):
    """Four by four cells; the picture shows where one is (bright) and where the task's goal is."""

    observation_space = gym.spaces.Box(0, 255, (1, 32, 32), np.uint8)
    action_space = gym.spaces.Discrete(4)

    def __init__(self, goal):
        self.goal = np.array(goal)

    def picture(self):
        cells = np.zeros((4, 4), np.uint8)
        cells[tuple(self.goal)], cells[tuple(self.at)] = 100, 255
        return cells.repeat(8, 0).repeat(8, 1)[None]

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.at = self.np_random.integers(0, 4, 2)
        return self.picture(), {}

    def step(self, action):
        self.at = (self.at + [(0, 1), (1, 0), (0, -1), (-1, 0)][action]).clip(0, 3)
        there = bool((self.at == self.goal).all())
        return self.picture(), float(there), there, False, {"success": there}


def convolutional():
    layers = nn.Conv2d(1, 8, 8, 8), nn.ReLU(), nn.Conv2d(8, 16, 2), nn.ReLU(), nn.Flatten(), nn.Linear(144, 4)
    network = nn.Sequential(*layers)
    return network, lambda pictures: network(pictures / 255)


def boltzmann(q):
    return lambda obs: torch.distributions.Categorical(logits=q(obs) / 0.1).sample()


torch.manual_seed(1)
envs = gym.vector.SyncVectorEnv([lambda g=g: gym.wrappers.TimeLimit(Room(g), 20) for g in ((0, 3), (3, 3))])
networks, q_functions = zip(*(convolutional() for _ in range(2)), strict=True)
optimizer = torch.optim.Adam([p for network in networks for p in network.parameters()], 2e-3)
buffer = TaskReplayBuffer(2_000, 2, envs.single_observation_space, envs.single_action_space, seed=1)
collector = QMPCollector(envs, [boltzmann(q) for q in q_functions], q_functions, buffer=buffer, backend="torch", seed=1)
collector.collect(n_step=200, random=True)
for _ in range(35):
    stats = collector.collect(n_step=20)
    for _ in range(4):
        batch = buffer.sample(32)
        loss = 0
        for task, q in enumerate(q_functions):
            obs, actions, rewards, next_obs, terminations = (field[task] for field in batch[:5])
            aim = rewards + 0.9 * (1 - terminations) * q(next_obs).detach().max(1)[0]
            loss += F.mse_loss(q(obs).gather(1, actions[:, None])[:, 0], aim)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
stats = collector.stats()
print("success:", stats.per_task(stats.successes).round(2), " who acted:", stats.mixture.round(2).tolist())
