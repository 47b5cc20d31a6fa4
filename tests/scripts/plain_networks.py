"""Networks and losses of one task at a time, written with ``nn.Linear``: what stacked ones have to equal."""

from __future__ import annotations

from collections.abc import Iterable

import torch
import torch.nn as nn
import torch.nn.functional as F  # noqa: N812
from torch import Tensor

from qmp_collect import Batch

T, O, A, B, H = 3, 5, 2, 8, 24  # noqa: E741
LR, GAMMA, TAU = 1e-2, 0.99, 0.005


def linear(weight: Tensor, bias: Tensor) -> nn.Linear:
    layer = nn.Linear(*weight.shape)
    layer.weight.data, layer.bias.data = weight.detach().T.clone(), bias.detach().flatten().clone()
    return layer


class PlainNet(nn.Module):
    """Two hidden layers and, for each task or once for all, one or more linear heads; from weights and biases."""

    def __init__(self, trunk: Iterable[tuple[Tensor, Tensor]], heads: Iterable[Iterable[tuple[Tensor, Tensor]]]):
        super().__init__()
        self.trunk = nn.ModuleList(linear(*layer) for layer in trunk)
        self.heads = nn.ModuleList(nn.ModuleList(linear(*head) for head in task) for task in heads)

    def forward(self, x: Tensor, task: int) -> list[Tensor]:
        for layer in self.trunk:
            x = F.relu(layer(x))
        return [head(x) for head in self.heads[task % len(self.heads)]]


def sample(actor: PlainNet, obs: Tensor, task: int, noise: Tensor) -> tuple[Tensor, Tensor]:
    """Action and log-probability of a Gaussian squashed by a tanh."""
    mean, log_std = actor(obs, task)
    std = log_std.clamp(-20, 2).exp()
    pre_tanh = mean + std * noise
    action = torch.tanh(pre_tanh)
    log_prob = torch.distributions.Normal(mean, std).log_prob(pre_tanh) - torch.log1p(-action.square())
    return action, log_prob.sum(-1)


def value(critic: PlainNet, obs: Tensor, actions: Tensor, task: int) -> Tensor:
    return critic(torch.cat([obs, actions], -1), task)[0].squeeze(-1)


def td_target(
    actor: PlainNet, targets: Iterable[PlainNet], data: Batch, task: int, noise: Tensor, alpha: Tensor
) -> Tensor:
    """Of one task's batch."""
    with torch.no_grad():
        next_actions, next_log_prob = sample(actor, data.next_obs, task, noise)
        q1, q2 = (value(critic, data.next_obs, next_actions, task) for critic in targets)
        return data.rewards + GAMMA * (1 - data.terminations) * (torch.minimum(q1, q2) - alpha * next_log_prob)


def actor_loss(
    actor: PlainNet, critics: Iterable[PlainNet], obs: Tensor, task: int, noise: Tensor, alpha: Tensor
) -> tuple[Tensor, Tensor]:
    """Of one task's batch, and the log-probabilities."""
    actions, log_prob = sample(actor, obs, task, noise)
    q1, q2 = (value(critic, obs, actions, task) for critic in critics)
    return (alpha * log_prob - torch.minimum(q1, q2)).mean(), log_prob.detach()


def follow(targets: nn.Module, sources: nn.Module) -> None:
    for target, source in zip(targets.parameters(), sources.parameters(), strict=True):
        target.data = (1 - TAU) * target.data + TAU * source.data


def task_batches(batch_size: int = B) -> Batch:
    """A batch of each task, fields (T, B, ...)."""
    shape = (T, batch_size)
    return Batch(
        obs=torch.randn(*shape, O),
        actions=torch.rand(*shape, A) * 2 - 1,
        rewards=torch.randn(shape),
        next_obs=torch.randn(*shape, O),
        terminations=(torch.rand(shape) < 0.2).to(torch.get_default_dtype()),
        task_ids=torch.arange(T)[:, None].expand(shape),
        behavior_ids=torch.arange(T)[:, None].expand(shape),
    )


def of_task(data: Batch, task: int) -> Batch:
    return Batch(*(field[task] for field in data))


def difference(a: nn.Module, b: nn.Module) -> float:
    pairs = zip(a.parameters(), b.parameters(), strict=True)
    return max((x - y).abs().max().item() for x, y in pairs)
