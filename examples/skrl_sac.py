"""skrl: two SAC agents. `FunctionSink` stores by a function of yours, here into memories made with `num_envs=1`."""

import gymnasium as gym
import torch
from skrl.agents.torch.sac import SAC
from skrl.memories.torch import RandomMemory
from skrl.models.torch import DeterministicMixin, GaussianMixin, Model
from torch import nn

from qmp_collect import Proposal, QMPCollector
from qmp_collect.adapters import FunctionSink

torch.manual_seed(1)
envs = gym.vector.SyncVectorEnv([lambda g=g: gym.make("Pendulum-v1", g=g) for g in (9.81, 5.0)])
spaces = {"observation_space": envs.single_observation_space, "action_space": envs.single_action_space, "device": "cpu"}


class Actor(GaussianMixin, Model):
    def __init__(self):
        Model.__init__(self, **spaces)
        GaussianMixin.__init__(self, clip_actions=True, min_log_std=-5, max_log_std=0)
        self.net = nn.Sequential(nn.Linear(3, 64), nn.ReLU(), nn.Linear(64, 1))
        self.log_std = nn.Parameter(torch.zeros(1))

    def compute(self, inputs, role):
        return 2 * torch.tanh(self.net(inputs["observations"])), {"log_std": self.log_std}


class Critic(DeterministicMixin, Model):
    def __init__(self):
        Model.__init__(self, **spaces)
        DeterministicMixin.__init__(self)
        self.net = nn.Sequential(nn.Linear(4, 64), nn.ReLU(), nn.Linear(64, 1))

    def compute(self, inputs, role):
        return self.net(torch.cat([inputs["observations"], inputs["taken_actions"]], -1)), {}


def make_agent():
    critics = {f"{kind}critic_{i}": Critic() for kind in ("", "target_") for i in (1, 2)}
    agent = SAC(models={"policy": Actor(), **critics}, memory=RandomMemory(memory_size=10_000, num_envs=1), **spaces)
    agent.init()
    return agent


def policy(agent):
    def act(obs):
        actions, extra = agent.policy.act({"observations": obs}, role="policy")
        return Proposal(actions, means=extra["mean_actions"])

    return act


def q_function(agent):
    return lambda obs, a: agent.critic_1.act({"observations": obs, "taken_actions": a}, role="critic_1")[0]


def sink(agent):
    def store(t):
        rows = {"observations": t.obs, "next_observations": t.next_obs, "actions": t.actions}
        rows |= {"rewards": t.rewards[:, None], "terminated": t.terminations[:, None]}
        agent.memory.add_samples(**{name: torch.as_tensor(values) for name, values in rows.items()})

    return FunctionSink(store)


agents = [make_agent() for _ in range(2)]
policies, q_functions = [policy(agent) for agent in agents], [q_function(agent) for agent in agents]
collector = QMPCollector(envs, policies, q_functions, buffer=[sink(a) for a in agents], backend="torch", seed=1)
collector.collect(n_step=400, random=True)
for step in range(40):
    collector.collect(n_step=20)
    for agent in agents:
        agent.update(timestep=step, timesteps=40)
print("who acted (row: task, column: policy):", collector.stats().mixture.round(2), sep="\n")
