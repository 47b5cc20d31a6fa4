"""Collection on other machines: hosts collect, this process learns. As it is, without Ray: see the two lines below.

The learner is a plain actor-critic of two tasks. What matters is what crosses over: weights one way, parts the other,
and a checkpoint from which both sides go on.
"""

import gymnasium as gym
import torch
import torch.nn as nn

from qmp_collect import QMPCollector, TaskReplayBuffer
from qmp_collect.fleet import LocalFleet as Fleet  # in this process, to try it
from qmp_collect.runs import load_checkpoint, save_checkpoint

# from qmp_collect.fleet import RayFleet as Fleet  # in processes of their own, on all machines of a Ray cluster
T, HOSTS, N_STEP = 2, 2, 200


class Learner(nn.Module):
    def __init__(self):
        super().__init__()
        self.actors = nn.ModuleList(nn.Sequential(nn.Linear(3, 64), nn.ReLU(), nn.Linear(64, 1)) for _ in range(T))
        self.critics = nn.ModuleList(nn.Sequential(nn.Linear(4, 64), nn.ReLU(), nn.Linear(64, 1)) for _ in range(T))

    def policy(self, task, noise=0.3):
        def act(obs):
            x = self.actors[task](obs)
            return 2 * torch.tanh(x + noise * torch.randn_like(x))  # from the generator that the fleet seeds

        return act

    def q_function(self, task):
        return lambda obs, actions: self.critics[task](torch.cat([obs, actions], -1)).squeeze(-1)

    def losses(self, obs, actions, rewards, next_obs, task):
        policy, q = self.policy(task, noise=0.0), self.q_function(task)
        target = rewards + 0.95 * q(next_obs, policy(next_obs)).detach()
        return (q(obs, actions) - target).square().mean(), -q(obs, policy(obs)).mean()


def make_collector(shard):
    """On each host: environments of its own, and networks that are filled with what is published."""
    envs, copy = gym.make_vec("Pendulum-v1", num_envs=T), Learner()
    callables = [copy.policy(t) for t in range(T)], [copy.q_function(t) for t in range(T)]
    collector = QMPCollector(envs, *callables, backend="torch", buffer=shard.buffer, seed=shard.seed)
    return collector, copy.load_state_dict


if __name__ == "__main__":
    torch.manual_seed(0)
    learner, envs = Learner(), gym.make("Pendulum-v1")
    actors, critics = (torch.optim.Adam(part.parameters(), 1e-3) for part in (learner.actors, learner.critics))
    buffer = TaskReplayBuffer(5_000, T, envs.observation_space, envs.action_space, seed=0)
    for start in (0, 3):  # as if the learner had been killed after its third round
        with Fleet(make_collector, HOSTS, seed=0) as fleet:
            if start:
                fleet.load_state_dict(load_checkpoint("fleet.npz"))  # and the learner and the buffer, in earnest
            for version in range(start, start + 3):
                fleet.publish(version, learner.state_dict())
                for part in fleet.collect(N_STEP):
                    buffer.add(part.transitions)
                    print(f"host {part.host}, part {part.sequence}: weights {part.version}, {part.staleness} behind")
                for _ in range(30):
                    batch = buffer.sample(64)
                    rows = [(batch.obs[t], batch.actions[t], batch.rewards[t], batch.next_obs[t], t) for t in range(T)]
                    for which, optimizer in enumerate((critics, actors)):
                        optimizer.zero_grad()
                        sum(learner.losses(*row)[which] for row in rows).backward()
                        optimizer.step()
                save_checkpoint("fleet.npz", fleet.state_dict())
