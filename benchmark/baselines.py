"""What the stacked networks are measured against: a network per policy and critic, and Python loops over them.

Acting has the structure of the QMP authors' code. The update comes as SAC is usually written and with every trick that
the stacked one has. Weights are copies of the stacked ones, so that both sides compute the same numbers.
"""

from __future__ import annotations

import copy
import math
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.distributions import Independent, Normal

from qmp_collect import Batch


class Policy(nn.Module):
    """One squashed Gaussian policy: a trunk of two layers, and a linear head each for mean and log std."""

    def __init__(self, fc1: nn.Linear, fc2: nn.Linear, mean: nn.Linear, log_std: nn.Linear) -> None:
        super().__init__()
        self.trunk = nn.Sequential(fc1, nn.ReLU(), fc2, nn.ReLU())
        self.mean, self.log_std = mean, log_std

    def forward(self, obs: Tensor) -> tuple[Tensor, Tensor]:
        """(M, O) -> mean and log std before the tanh, (M, A) each."""
        x = self.trunk(obs)
        return self.mean(x), self.log_std(x).clamp(-20, 2)

    def propose(self, obs: NDArray[np.float32]) -> tuple[NDArray[np.float32], ...]:
        """(M, O) -> sampled actions, mean actions and log stds, (M, A) each; NumPy on both sides."""
        with torch.no_grad():
            mean, log_std = self(torch.as_tensor(obs))
            gaussian = Independent(Normal(mean, log_std.exp()), 1)
            answers = torch.tanh(gaussian.sample()), torch.tanh(gaussian.mean), gaussian.stddev.log()
            return tuple(answer.numpy(force=True) for answer in answers)

    def sample(self, obs: Tensor) -> tuple[Tensor, Tensor]:
        """(M, O) -> reparametrized actions (M, A) and their log-probabilities (M,), by the script's formula."""
        mean, log_std = self(obs)
        noise = torch.randn_like(mean)
        x = mean + log_std.exp() * noise
        log_prob = -0.5 * noise.square() - log_std - 0.5 * math.log(2 * math.pi)
        log_prob -= 2 * (math.log(2) - x - F.softplus(-2 * x))
        return torch.tanh(x), log_prob.sum(-1)


class Critic(nn.Module):
    """One Q-function."""

    def __init__(self, fc1: nn.Linear, fc2: nn.Linear, out: nn.Linear) -> None:
        super().__init__()
        self.net = nn.Sequential(fc1, nn.ReLU(), fc2, nn.ReLU(), out)

    def forward(self, obs: Tensor, actions: Tensor) -> Tensor:
        """(M, O) and (M, A) -> (M,)."""
        values: Tensor = self.net(torch.cat([obs, actions], -1)).squeeze(-1)
        return values


def unstack(layer: nn.Module, count: int, in_dim: int) -> list[nn.Linear]:
    """The single layers of a stacked one: (count, B, in_dim) -> (count, B, out_dim)."""
    with torch.no_grad():
        # What a layer does to the unit vectors is its matrix, however it is stored.
        bias = layer(torch.zeros(count, 1, in_dim))
        weight = layer(torch.eye(in_dim).expand(count, -1, -1)) - bias
        linears = [nn.Linear(in_dim, weight.shape[2]) for _ in range(count)]
        for linear, w, b in zip(linears, weight, bias, strict=True):
            linear.weight.copy_(w.T)
            linear.bias.copy_(b[0])
    return linears


class SeparateNetworks:
    """Copies of the networks of sac_qmp_separate.py's ``Agent``, and acting as the QMP authors' code does it."""

    def __init__(self, agent: Any, obs_dim: int, action_dim: int) -> None:
        t, hidden, actor, qf = agent.num_tasks, agent.args.hidden_dim, agent.actor, agent.qf
        heads = [unstack(head, t, hidden) for head in (actor.fc_mean, actor.fc_logstd)]
        layers = zip(unstack(actor.fc1, t, obs_dim), unstack(actor.fc2, t, hidden), *heads, strict=True)
        self.policies = [Policy(*linears) for linears in layers]
        sizes = ((qf.fc1, obs_dim + action_dim), (qf.fc2, hidden), (qf.fc_q, hidden))
        layers = zip(*(unstack(layer, 2 * t, size) for layer, size in sizes), strict=True)
        critics = [Critic(*linears) for linears in layers]
        self.q1, self.q2 = critics[:t], critics[t:]

    def act(
        self, obs: NDArray[np.float32], task_ids: NDArray[np.int64]
    ) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
        """(N, O) -> actions (N, A) and who proposed them (N,).

        As in the authors' code, one environment after the other: each policy answers for its observation with a
        distribution, a sample and the parameters, both critics of its task see the means of all policies in one
        batch, and the first critic decides.
        """
        actions, behavior_ids = [], []
        for row, task in zip(obs, task_ids, strict=True):
            proposals = [policy.propose(row[None]) for policy in self.policies]
            repeated = torch.as_tensor(np.repeat(row[None], len(proposals), axis=0))
            means = torch.as_tensor(np.concatenate([mean for _, mean, _ in proposals]))
            with torch.no_grad():
                scores, _ = (q[task](repeated, means).numpy(force=True) for q in (self.q1, self.q2))
            best = int(np.argmax(scores))
            actions.append(proposals[best][0][0])
            behavior_ids.append(best)
        return np.stack(actions), np.array(behavior_ids)


class SAC:
    """One task's SAC with the script's update: the same losses in the same order.

    ``tuned``: fused Adam, target networks updated by one call, no weight gradients of the critics in the actor's step.
    """

    def __init__(self, actor: Policy, q1: Critic, q2: Critic, args: Any, action_dim: int, tuned: bool) -> None:
        self.tuned = tuned
        self.actor, self.q1, self.q2 = actor, q1, q2
        self.q1_target, self.q2_target = (copy.deepcopy(q).requires_grad_(False) for q in (q1, q2))
        self.gamma, self.tau = args.gamma, args.tau
        self.log_alpha = torch.zeros(1, requires_grad=True)
        self.target_entropy = -action_dim * args.target_entropy_scale
        self.q_parameters: list[Tensor] = [*q1.parameters(), *q2.parameters()]
        self.target_parameters: list[Tensor] = [*self.q1_target.parameters(), *self.q2_target.parameters()]
        self.actor_parameters = list(actor.parameters())
        self.q_optimizer, self.actor_optimizer, self.a_optimizer = (
            torch.optim.Adam(parameters, lr=args.learning_rate, fused=tuned)
            for parameters in (self.q_parameters, self.actor_parameters, [self.log_alpha])
        )

    def update(self, data: Batch) -> Tensor:
        """One gradient step on fields (B, ...). Returns the mean Q-value, for comparison with the script's."""
        alpha = self.log_alpha.detach().exp()
        with torch.no_grad():
            next_actions, next_log_prob = self.actor.sample(data.next_obs)
            next_q = torch.minimum(
                self.q1_target(data.next_obs, next_actions), self.q2_target(data.next_obs, next_actions)
            )
            target = data.rewards + (1 - data.terminations) * self.gamma * (next_q - alpha * next_log_prob)

        values = self.q1(data.obs, data.actions), self.q2(data.obs, data.actions)
        q_loss = sum((value - target).square().mean() for value in values)
        self.q_optimizer.zero_grad()
        q_loss.backward()
        self.q_optimizer.step()

        actions, log_prob = self.actor.sample(data.obs)
        q = torch.minimum(self.q1(data.obs, actions), self.q2(data.obs, actions))
        actor_loss = (alpha * log_prob - q).mean()
        self.actor_optimizer.zero_grad()
        actor_loss.backward(inputs=self.actor_parameters if self.tuned else None)
        self.actor_optimizer.step()

        alpha_loss = (self.log_alpha * (-log_prob.detach().mean() - self.target_entropy)).sum()
        self.a_optimizer.zero_grad()
        alpha_loss.backward()
        self.a_optimizer.step()

        with torch.no_grad():
            if self.tuned:
                torch._foreach_lerp_(self.target_parameters, self.q_parameters, self.tau)
            else:
                for target_parameter, parameter in zip(self.target_parameters, self.q_parameters, strict=True):
                    target_parameter.copy_(self.tau * parameter + (1 - self.tau) * target_parameter)
        return torch.stack(values).detach().mean()


class SeparateSACs:
    """T separate SACs, updated one after the other."""

    def __init__(self, networks: SeparateNetworks, args: Any, action_dim: int, tuned: bool) -> None:
        members = zip(networks.policies, networks.q1, networks.q2, strict=True)
        self.sacs = [SAC(*member, args, action_dim, tuned) for member in copy.deepcopy(list(members))]

    def update(self, data: Batch) -> Tensor:
        """One gradient step of each task, fields (T, B, ...). Returns the mean Q-values (T,)."""
        values = [sac.update(Batch(*(field[task] for field in data))) for task, sac in enumerate(self.sacs)]
        return torch.stack(values)
