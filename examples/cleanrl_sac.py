"""CleanRL's single-file SAC, one agent per task. The lines that QMP adds or changes are marked."""

import gymnasium as gym
import torch
import torch.nn.functional as F  # noqa: N812
from torch import nn

from qmp_collect import Proposal, QMPCollector, TaskReplayBuffer  # QMP

GRAVITY, GAMMA, ALPHA, TAU, STARTS = (9.81, 5.0), 0.99, 0.2, 0.005, 250
torch.manual_seed(1)
envs = gym.vector.SyncVectorEnv([lambda g=g: gym.make("Pendulum-v1", g=g) for g in GRAVITY])


def network(inputs, outputs):
    return nn.Sequential(nn.Linear(inputs, 64), nn.ReLU(), nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, outputs))


class Agent:
    def __init__(self):
        self.actor, self.qf, self.target = network(3, 2), network(4, 2), network(4, 2)  # both critics in one network
        self.target.load_state_dict(self.qf.state_dict())
        self.q_optimizer = torch.optim.Adam(self.qf.parameters(), 1e-3)
        self.actor_optimizer = torch.optim.Adam(self.actor.parameters(), 3e-4)

    def get_action(self, obs):
        mean, log_std = self.actor(obs).chunk(2, -1)
        normal = torch.distributions.Normal(mean, log_std.clamp(-5, 2).exp())
        x = normal.rsample()
        log_prob = normal.log_prob(x) - torch.log(2 * (1 - x.tanh() ** 2) + 1e-6)
        return 2 * x.tanh(), log_prob, 2 * mean.tanh()

    def update(self, obs, actions, rewards, next_obs, dones):
        with torch.no_grad():
            next_actions, log_prob, _ = self.get_action(next_obs)
            value = self.target(torch.cat([next_obs, next_actions], -1)).min(-1, keepdim=True)[0] - ALPHA * log_prob
            aim = rewards[:, None] + GAMMA * (1 - dones[:, None]) * value
        q_loss = F.mse_loss(self.qf(torch.cat([obs, actions], -1)), aim.expand(-1, 2))
        self.q_optimizer.zero_grad(), q_loss.backward(), self.q_optimizer.step()
        pi, log_prob, _ = self.get_action(obs)
        actor_loss = (ALPHA * log_prob - self.qf(torch.cat([obs, pi], -1)).min(-1, keepdim=True)[0]).mean()
        self.actor_optimizer.zero_grad(), actor_loss.backward(), self.actor_optimizer.step()
        for new, old in zip(self.qf.parameters(), self.target.parameters(), strict=True):
            old.data.lerp_(new.data, TAU)

    def propose(self, obs):  # QMP: a sample to execute, a mean to score
        actions, _, means = self.get_action(obs)
        return Proposal(actions, means)


agents = [Agent() for _ in GRAVITY]
q_functions = [lambda obs, actions, a=a: a.qf(torch.cat([obs, actions], -1))[:, 0] for a in agents]  # QMP
rb = TaskReplayBuffer(
    10_000, 2, envs.single_observation_space, envs.single_action_space, seed=1
)  # QMP: a ring per task
collector = QMPCollector(envs, [a.propose for a in agents], q_functions, buffer=rb, backend="torch", seed=1)  # QMP

obs, _ = collector.reset()  # QMP: envs.reset(seed=1)
for step in range(400):
    actions = collector.act(obs, random=step < STARTS)  # QMP: every agent its own environment's action
    obs, rewards, terminations, truncations, infos = envs.step(actions)
    collector.observe(obs, rewards, terminations, truncations, infos)  # QMP: rb.add(...), with true successors
    if step >= STARTS:
        data = rb.sample(64)
        for task, agent in enumerate(agents):
            agent.update(*(field[task] for field in data[:5]))
print("who acted (row: task, column: policy):", collector.stats().mixture.round(2), sep="\n")
