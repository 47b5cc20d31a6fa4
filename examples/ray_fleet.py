"""Collection on other machines: hosts collect, this process learns. It runs as it is; with Ray, `RayFleet` for `LocalFleet`.

A learner of two tasks by deterministic policy gradients, in short. What matters is what crosses over: weights one way,
parts the other, and a checkpoint from which both sides go on.
"""

import copy
import tempfile
from pathlib import Path

import gymnasium as gym
import torch
import torch.nn as nn

from qmp_collect import QMPCollector, TaskReplayBuffer, evaluate
from qmp_collect.fleet import LocalFleet
from qmp_collect.runs import load_checkpoint, save_checkpoint

T, HOSTS, ROUNDS, N_STEP = 2, 2, 6, 400  # Pendulum twice: two seeds stand in for two tasks


class Learner(nn.Module):
    def __init__(self):
        super().__init__()
        self.actors = nn.ModuleList(nn.Sequential(nn.Linear(3, 64), nn.ReLU(), nn.Linear(64, 1)) for _ in range(T))
        self.critics = nn.ModuleList(nn.Sequential(nn.Linear(4, 64), nn.ReLU(), nn.Linear(64, 1)) for _ in range(T))

    def policy(self, task, noise=0.3):
        def act(obs):
            mean = self.actors[task](obs)
            return 2 * torch.tanh(mean + noise * torch.randn_like(mean))  # of the generator that the fleet seeds

        return act

    def q_function(self, task):
        return lambda obs, actions: self.critics[task](torch.cat([obs, actions], -1))


def make_envs():
    return gym.make_vec("Pendulum-v1", num_envs=T)


def make_collector(shard):
    """Runs on each host: its own environments, and copies of the networks that are filled by what is published."""
    learner = Learner()
    policies, q_functions = [[make(t) for t in range(T)] for make in (learner.policy, learner.q_function)]
    collector = QMPCollector(make_envs(), policies, q_functions, backend="torch", buffer=shard.buffer, seed=shard.seed)
    return collector, learner.load_state_dict


def update(learner, target, optimizers, batch):
    """One step of all tasks on fields (T, B, ...)."""
    pi, q = optimizers
    losses = []
    for t in range(T):
        obs, actions, next_obs = batch.obs[t], batch.actions[t], batch.next_obs[t]
        with torch.no_grad():
            following = target.q_function(t)(next_obs, target.policy(t, noise=0.0)(next_obs)).squeeze(-1)
            wanted = batch.rewards[t] + 0.95 * (1 - batch.terminations[t]) * following
        losses.append((learner.q_function(t)(obs, actions).squeeze(-1) - wanted).square().mean())
    q.zero_grad()
    sum(losses).backward()
    q.step()
    pi.zero_grad()
    sum(-learner.q_function(t)(batch.obs[t], learner.policy(t, 0.0)(batch.obs[t])).mean() for t in range(T)).backward()
    pi.step()
    with torch.no_grad():
        for ours, theirs in zip(target.parameters(), learner.parameters(), strict=True):
            ours.lerp_(theirs, 0.02)


torch.manual_seed(0)
envs = make_envs()
learner = Learner()
target = copy.deepcopy(learner)
optimizers = [torch.optim.Adam(part.parameters(), 1e-3) for part in (learner.actors, learner.critics)]
buffer = TaskReplayBuffer(10_000, T, envs.single_observation_space, envs.single_action_space, seed=0)
checkpoint = Path(tempfile.mkdtemp()) / "checkpoint.npz"

with LocalFleet(make_collector, HOSTS, seed=0) as fleet:  # RayFleet(make_collector, HOSTS, seed=0): on other machines
    for version in range(ROUNDS):
        fleet.publish(version, learner.state_dict())
        for part in fleet.collect(N_STEP):
            buffer.add(part.transitions)
            print(f"host {part.host} part {part.sequence} with weights {part.version}, {part.staleness} behind")
        for _ in range(N_STEP // 4):
            update(learner, target, optimizers, buffer.sample(64))
        save_checkpoint(checkpoint, {"fleet": fleet.state_dict(), "learner": learner.state_dict()})

# What a killed learner begins with: each host goes on where its last part ended.
saved = load_checkpoint(checkpoint)
learner.load_state_dict(saved["learner"])
with LocalFleet(make_collector, HOSTS, seed=0) as resumed:
    resumed.load_state_dict(saved["fleet"])
    resumed.publish(ROUNDS, learner.state_dict())
    parts = list(resumed.collect(N_STEP))
stats = evaluate(envs, [learner.policy(t, noise=0.0) for t in range(T)], backend="torch", seed=1)
print("returns of the mean policies:", stats.returns.round())
