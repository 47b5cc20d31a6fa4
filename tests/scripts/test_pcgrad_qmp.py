"""Gradient surgery against literal PCGrad, and the update against networks and backward passes of one task each."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import plain_networks as plain
import pytest
import torch
import torch.nn as nn
from plain_networks import LR, A, B, H, O, T
from script_files import load_script
from torch import Tensor

import qmp_collect

script = load_script("pcgrad_qmp")
multihead = load_script("sac_qmp_multihead")
float64 = pytest.mark.usefixtures("float64")


def make_agent(module: Any = script, **settings: Any) -> Any:
    torch.manual_seed(0)
    return module.Agent(module.Args(hidden_dim=H, learning_rate=LR, **settings), T, O, A, "cpu")


def literal_pcgrad(gradients: list[Tensor], order: Tensor) -> list[Tensor]:
    """Every gradient, projected on the normal planes of those that it conflicts with, one after the other."""
    projected = [g.clone() for g in gradients]
    for i, g_i in enumerate(projected):
        for j in order[i].tolist():
            product = torch.dot(g_i, gradients[j])
            if product < 0:
                g_i -= product / torch.dot(gradients[j], gradients[j]) * gradients[j]
    return projected


def pcgrad(gradients: Tensor, *order: list[int]) -> Tensor:
    """The script's answer as a vector, for one network."""
    weights = script.pcgrad((gradients @ gradients.T)[None], torch.tensor(order)[None])
    return weights[0] @ gradients


@float64
def test_two_tasks_by_hand() -> None:
    gradients = torch.tensor([[1.0, 0.0], [-1.0, 1.0]])
    # The product is -1 and the squares are 1 and 2: (1, 0) + (-1, 1) / 2 and (-1, 1) + (1, 0) / 1, of which the mean.
    assert pcgrad(gradients, [0, 1], [1, 0]).tolist() == [0.25, 0.75]
    # Without a conflict nothing happens but the mean, at right angles as well.
    assert pcgrad(torch.tensor([[1.0, 0.0], [1.0, 1.0]]), [0, 1], [1, 0]).tolist() == [1.0, 0.5]
    assert pcgrad(torch.tensor([[1.0, 0.0], [0.0, 1.0]]), [0, 1], [1, 0]).tolist() == [0.5, 0.5]


@float64
def test_three_tasks_by_hand() -> None:
    """Projections are on the original gradients, in the order of each task, and the order matters."""
    gradients = torch.tensor([[1.0, 0.0], [-1.0, 1.0], [0.0, -1.0]])
    # Task 0 meets 1 first: (1, 0) -> (1/2, 1/2), which conflicts with 2 -> (1/2, 0). Meeting 2 first, it is left alone:
    # (1, 0) -> (1/2, 1/2). Task 1: by 0 to (0, 1), then by 2 to (0, 0); the other way round too. Task 2 meets 1:
    # (0, -1) -> (-1/2, -1/2), and then 0 -> (0, -1/2); meeting 0 first, it stays (-1/2, -1/2).
    assert torch.allclose(3 * pcgrad(gradients, [0, 1, 2], [0, 1, 2], [1, 0, 2]), torch.tensor([0.5, -0.5]))
    assert torch.allclose(3 * pcgrad(gradients, [2, 1, 0], [2, 0, 1], [0, 1, 2]), torch.tensor([0.0, 0.0]))


@float64
def test_a_gradient_may_be_turned_against_itself_and_meets_itself_in_its_turn() -> None:
    def at(degrees: float) -> Tensor:
        angle = torch.deg2rad(torch.tensor(degrees))
        return torch.stack([angle.cos(), angle.sin()])

    # Task 0 at 0 degrees is turned to 60 by the one at 150, and then to 120 by the one at 210, to (-1, sqrt(3)) / 8:
    # against itself, so that meeting itself last takes off its first coordinate.
    gradients = torch.stack([at(0), at(150), at(210)])
    first, last = (pcgrad(gradients, order, [0, 2, 1], [0, 1, 2]) for order in ([0, 1, 2], [1, 2, 0]))
    torch.testing.assert_close(3 * (last - first), torch.tensor([1 / 8, 0.0]), rtol=0, atol=1e-12)


@float64
@pytest.mark.parametrize("num_tasks", [2, 3, 6])
def test_weights_of_gram_matrices_are_literal_projections(num_tasks: int) -> None:
    torch.manual_seed(num_tasks)
    for _ in range(20):
        gradients = torch.randn(2, num_tasks, 4) * torch.rand(2, num_tasks, 1) * 10
        gradients[0, 1] = 0.0  # a task without a gradient conflicts with nobody
        gram = gradients @ gradients.mT
        order = torch.rand_like(gram).argsort(-1)
        weights = script.pcgrad(gram, order)
        for net in range(2):
            expected = torch.stack(literal_pcgrad([*gradients[net]], order[net])).mean(0)
            torch.testing.assert_close(weights[net] @ gradients[net], expected, rtol=0, atol=1e-12)


class PlainPCGrad:
    """A backward pass for each task and network, and vectors of all numbers that take part in the surgery."""

    def __init__(self, agent: Any) -> None:
        def net(stacked: Any, index: int, names: tuple[str, ...]) -> plain.PlainNet:
            def layer(name: str) -> tuple[Tensor, Tensor]:
                module = getattr(stacked, name)
                return module.weight[index], module.bias[index, 0]

            def heads(name: str) -> list[tuple[Tensor, Tensor]]:
                weight, bias = layer(name)
                return list(zip(weight.chunk(T, 1), bias.chunk(T), strict=True))

            return plain.PlainNet(map(layer, ("fc1", "fc2")), zip(*map(heads, names), strict=True))

        self.surgery = agent.args.surgery
        self.actor = net(agent.actor, 0, ("fc_mean", "fc_logstd"))
        self.q, self.q_target = (
            nn.ModuleList(net(n, i, ("fc_q",)) for i in (0, 1)) for n in (agent.qf, agent.qf_target)
        )
        self.log_alpha = nn.Parameter(agent.log_alpha.detach().clone())
        self.optimizers = {module: torch.optim.Adam(module.parameters(), lr=LR) for module in (self.q, self.actor)}
        self.a_optimizer = torch.optim.Adam([self.log_alpha], lr=LR)

    def backward(self, net: plain.PlainNet, losses: list[Tensor], order: Tensor) -> int:
        """Fill in a network's gradients; returns in how many ordered pairs of tasks they conflict."""
        parameters = list((net if self.surgery == "all" else net.trunk).parameters())
        vectors = []
        for loss in losses:
            found = torch.autograd.grad(loss, parameters, retain_graph=True, allow_unused=True)
            found = [torch.zeros_like(p) if g is None else g for p, g in zip(parameters, found, strict=True)]
            vectors.append(torch.cat([g.flatten() for g in found]))
        (sum(losses) / T).backward()  # for the heads
        merged = torch.stack(literal_pcgrad(vectors, order)).mean(0)
        for parameter, gradient in zip(parameters, merged.split([p.numel() for p in parameters]), strict=True):
            parameter.grad = gradient.view_as(parameter)
        return sum(bool(torch.dot(a, b) < 0) for a in vectors for b in vectors)

    def update(self, data: qmp_collect.Batch) -> tuple[int, int]:
        alphas, tasks = self.log_alpha.detach().exp(), range(T)
        batches = [plain.of_task(data, t) for t in tasks]
        self.zero_grad()
        noise, order = torch.randn(T, B, A), torch.rand(2, T, T).argsort(-1)
        targets = [plain.td_target(self.actor, self.q_target, batches[t], t, noise[t], alphas[t]) for t in tasks]
        q_conflicts = 0
        for critic, own_order in zip(self.q, order, strict=True):
            values = [plain.value(critic, batches[t].obs, batches[t].actions, t) for t in tasks]
            losses = [(values[t] - targets[t]).square().mean() for t in tasks]
            q_conflicts += self.backward(critic, losses, own_order)
        self.optimizers[self.q].step()

        self.zero_grad()
        noise = torch.randn(T, B, A)
        found = [plain.actor_loss(self.actor, self.q, batches[t].obs, t, noise[t], alphas[t]) for t in tasks]
        losses, log_probs = zip(*found, strict=True)
        actor_conflicts = self.backward(self.actor, list(losses), torch.rand(1, T, T).argsort(-1)[0])
        self.optimizers[self.actor].step()

        self.log_alpha.grad = -(torch.stack(log_probs).mean(-1) - A) / T
        self.a_optimizer.step()
        plain.follow(self.q_target, self.q)
        return q_conflicts, actor_conflicts

    def zero_grad(self) -> None:
        for optimizer in self.optimizers.values():
            optimizer.zero_grad()


@float64
@pytest.mark.parametrize("surgery", ["trunk", "all"])
def test_update_is_a_backward_pass_for_each_task(surgery: str) -> None:
    agent = make_agent(surgery=surgery)
    literal = PlainPCGrad(agent)
    conflicts = 0.0
    for seed in range(10):
        data = plain.task_batches()
        torch.manual_seed(seed)
        losses = agent.update(data)
        torch.manual_seed(seed)
        q_conflicts, actor_conflicts = literal.update(data)
        assert losses["qf_conflicts"] == pytest.approx(q_conflicts / 12)
        assert losses["actor_conflicts"] == pytest.approx(actor_conflicts / 6)
        conflicts += q_conflicts + actor_conflicts
    assert conflicts > 10
    again = PlainPCGrad(agent)
    for part in ("actor", "q", "q_target"):
        assert plain.difference(getattr(literal, part), getattr(again, part)) < 1e-12
    torch.testing.assert_close(agent.log_alpha, literal.log_alpha, rtol=0, atol=1e-12)


@float64
def test_without_surgery_it_is_the_multihead_sac(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(script, "pcgrad", lambda gram, order: torch.full_like(gram[0], 1 / T).expand_as(gram)[:, 0])
    monkeypatch.setattr(torch, "rand_like", torch.zeros_like)  # orders take no random numbers
    agent, other = make_agent(), make_agent(multihead)
    for seed in range(5):
        data = plain.task_batches()
        torch.manual_seed(seed)
        losses = agent.update(data)
        torch.manual_seed(seed)
        expected = other.update(qmp_collect.Batch(*(field.flatten(0, 1) for field in data)))
        for name, value in expected.items():
            assert losses[name].mean().item() == pytest.approx(value.mean().item(), abs=1e-12)
    for part in ("actor", "qf", "qf_target"):
        assert plain.difference(getattr(agent, part), getattr(other, part)) < 1e-12


def test_every_task_of_every_network_has_a_random_order_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    orders: list[Tensor] = []
    original = script.pcgrad
    monkeypatch.setattr(script, "pcgrad", lambda gram, order: orders.append(order) or original(gram, order))
    agent = make_agent()
    for _ in range(8):
        losses = agent.update(plain.task_batches())
    assert {order.shape for order in orders} == {(2, T, T), (1, T, T)}
    rows = torch.cat([order.flatten(0, 1) for order in orders])
    assert (rows.sort(-1).values == torch.arange(T)).all()
    assert len(rows.unique(dim=0)) == 6
    assert {name: tuple(loss.shape) for name, loss in losses.items() if loss.shape != (T,)} == {
        "qf_conflicts": (1, 1), "actor_conflicts": (1, 1),
    }  # fmt: skip


def test_one_task_has_nobody_to_conflict_with() -> None:
    agent = script.Agent(script.Args(hidden_dim=H), 1, O, A, "cpu")
    losses = agent.update(qmp_collect.Batch(*(field[:1] for field in plain.task_batches())))
    assert losses["qf_conflicts"] == losses["actor_conflicts"] == 0
    assert all(parameter.grad.isfinite().all() for parameter in agent.actor.parameters())


@pytest.mark.usefixtures("short_episodes")
def test_every_task_has_the_same_share_of_a_batch(run_script: Callable[..., None], tmp_path: Path) -> None:
    shapes: list[tuple[int, ...]] = []
    sample = qmp_collect.TaskReplayBuffer.sample

    def recorded(self: qmp_collect.TaskReplayBuffer, batch_size: int, **settings: Any) -> qmp_collect.Batch:
        data = sample(self, batch_size, **settings)
        shapes.append(tuple(data.task_ids.shape))
        return data

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(qmp_collect.TaskReplayBuffer, "sample", recorded)
        run_script(
            "pcgrad_qmp", "--env-id", "Maze3", "--total-timesteps", 60, "--env-steps-per-round", 20,
            "--eval-episodes", 1, "--gradient-steps-per-round", 2, "--min-buffer-size", 60, "--batch-size", 8,
            "--hidden-dim", 16, "--torch-threads", 1, "--run-dir-root", tmp_path,
        )  # fmt: skip
    assert shapes == [(3, 2)] * 6  # 8 // 3 of each task; two steps for every task, as the parent makes


def test_answers_to_the_collector_are_those_of_the_multihead_sac() -> None:
    agent, other = make_agent(), make_agent(multihead)
    obs, candidates, ids = torch.randn(2 * T, O), torch.rand(2 * T, T, A), torch.arange(2 * T) % T
    with torch.no_grad():
        questions = {"policies": (obs,), "q_functions": (obs, candidates, ids), "own_policy": (obs, ids)}
        questions = {"policies": (obs,), "q_functions": (obs, candidates, ids), "own_policy": (obs, ids)}
        for name, arguments in {**questions, "mean_policy": (obs, ids)}.items():
            torch.manual_seed(1)
            found = getattr(agent, name)(*arguments)
            torch.manual_seed(1)
            expected = getattr(other, name)(*arguments)
            torch.testing.assert_close(found[:2], expected[:2])
    assert script.PRESETS == multihead.PRESETS
