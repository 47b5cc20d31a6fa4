"""Dict observations: a goal, a place and a camera of bytes reach policies, Q-functions and the learner by name."""

import gymnasium as gym
import numpy as np
import torch
from gymnasium.vector import SyncVectorEnv
from torch import nn

from qmp_collect import QMPCollector, TaskReplayBuffer

GOALS = ([0.8, 0.0], [0.0, 0.8])  # one task for each


class Reach(gym.Env):
    """A point in a square; the camera shows, in 8 x 8 pixels, where it is."""

    observation_space = gym.spaces.Dict(
        observation=gym.spaces.Box(-1, 1, (2,)),
        desired_goal=gym.spaces.Box(-1, 1, (2,)),
        camera=gym.spaces.Box(0, 255, (1, 8, 8), np.uint8),
    )
    action_space = gym.spaces.Box(-1, 1, (2,))

    def __init__(self, goal):
        self.goal = np.array(goal, np.float32)

    def _obs(self):
        camera = np.zeros((1, 8, 8), np.uint8)
        camera[0][tuple(np.clip((4 * self.place + 4).astype(int), 0, 7))] = 255
        return {"observation": self.place.copy(), "desired_goal": self.goal, "camera": camera}

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.place, self.steps = self.np_random.uniform(-0.2, 0.2, 2).astype(np.float32), 0
        return self._obs(), {}

    def step(self, action):
        self.place = np.clip(self.place + 0.2 * action, -1, 1).astype(np.float32)
        self.steps += 1
        distance = float(np.linalg.norm(self.place - self.goal))
        return self._obs(), -distance, distance < 0.2, self.steps == 20, {"success": distance < 0.2}


class Critic(nn.Module):
    def __init__(self):
        super().__init__()
        self.see = nn.Sequential(nn.Conv2d(1, 4, 4, stride=4), nn.ReLU(), nn.Flatten())
        self.head = nn.Sequential(nn.Linear(16 + 6, 32), nn.ReLU(), nn.Linear(32, 1))

    def forward(self, obs, actions):  # a dict of tensors: float32, bytes as numbers from 0 to 255
        parts = [self.see(obs["camera"] / 255), obs["observation"], obs["desired_goal"], actions]
        return self.head(torch.cat(parts, -1))


def policy(obs):  # the same dict, of arrays or tensors: this function takes either
    return 2 * (obs["desired_goal"] - obs["observation"]).clip(-0.5, 0.5)


torch.manual_seed(0)
envs = SyncVectorEnv([lambda goal=goal: Reach(goal) for goal in GOALS])
critics = nn.ModuleList(Critic() for _ in GOALS)
optimizer = torch.optim.Adam(critics.parameters(), lr=1e-3)
buffer = TaskReplayBuffer(5_000, len(GOALS), envs.single_observation_space, envs.single_action_space, seed=0)
collector = QMPCollector(envs, [policy] * len(GOALS), critics, buffer=buffer, seed=0)
collector.collect(n_step=220, random=True)
for _ in range(50):
    collector.collect(n_step=2 * len(GOALS))
    batch, losses = buffer.sample(64), []  # batch.obs["camera"]: (T, 64, 1, 8, 8)
    for t, critic in enumerate(critics):
        obs, next_obs = ({name: x[t] for name, x in parts.items()} for parts in (batch.obs, batch.next_obs))
        following = critic(next_obs, policy(next_obs)).detach()[:, 0]
        target = batch.rewards[t] + 0.9 * (1 - batch.terminations[t]) * following
        losses.append(((critic(obs, batch.actions[t])[:, 0] - target) ** 2).mean())
    optimizer.zero_grad()
    sum(losses).backward()
    optimizer.step()
print({name: tuple(x.shape) for name, x in batch.obs.items()}, " float32 cells a row:", buffer.row_width)
