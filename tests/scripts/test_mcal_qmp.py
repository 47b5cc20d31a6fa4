"""MCAL's updates against plain networks, one task after the other; how often what is updated; its settings."""

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
from qmp_collect.runs import load_checkpoint

script = load_script("mcal_qmp")
float64 = pytest.mark.usefixtures("float64")
critics = pytest.mark.parametrize("critic", ["mn", "mh"])


def make_agent(**settings: Any) -> Any:
    torch.manual_seed(0)
    return script.Agent(script.Args(hidden_dim=H, learning_rate=LR, **settings), T, O, A, "cpu")


class PlainMCAL:
    """One policy; for each task a pair of critics, which are networks or heads of networks."""

    def __init__(self, agent: Any) -> None:
        def layer(stacked: Any, name: str, index: int) -> tuple[Tensor, Tensor]:
            module = getattr(stacked, name)
            return module.weight[index], module.bias[index, 0]

        def net(stacked: Any, trunk: int, heads: list[list[tuple[Tensor, Tensor]]]) -> plain.PlainNet:
            return plain.PlainNet((layer(stacked, name, trunk) for name in ("fc1", "fc2")), heads)

        def q_networks(stacked: Any) -> nn.ModuleList:
            """First those of the first critics, then those of the second ones."""
            heads = [[layer(stacked, "fc_q", index)] for index in range(2 * T)]
            if agent.args.critic == "mn":
                return nn.ModuleList(net(stacked, index, [head]) for index, head in enumerate(heads))
            return nn.ModuleList(net(stacked, twin, heads[twin * T : (twin + 1) * T]) for twin in (0, 1))

        names = ("fc_mean", "fc_logstd")
        self.actor = net(agent.actor, 0, [[layer(agent.actor, name, t) for name in names] for t in range(T)])
        self.q, self.q_target = q_networks(agent.qf), q_networks(agent.qf_target)
        self.log_alpha = nn.Parameter(agent.log_alpha.detach().clone())
        parts = (self.q.parameters(), self.actor.parameters(), [self.log_alpha])
        self.q_optimizer, self.actor_optimizer, self.a_optimizer = (torch.optim.Adam(part, lr=LR) for part in parts)

    def twins(self, networks: nn.ModuleList, task: int) -> list[Any]:
        half = len(networks) // 2
        return [networks[task % half], networks[half + task % half]]

    def update_critics(self, data: qmp_collect.Batch, noise: Tensor) -> None:
        alpha = self.log_alpha.detach().exp()
        self.q_optimizer.zero_grad()
        for t in range(T):
            own = plain.of_task(data, t)
            target = plain.td_target(self.actor, self.twins(self.q_target, t), own, t, noise[t], alpha)
            for critic in self.twins(self.q, t):
                (plain.value(critic, own.obs, own.actions, t) - target).square().mean().backward()
        self.q_optimizer.step()
        plain.follow(self.q_target, self.q)

    def update_actor(self, obs: Tensor, noise: Tensor) -> None:
        alpha = self.log_alpha.detach().exp()
        found = [plain.actor_loss(self.actor, self.twins(self.q, t), obs[t], t, noise[t], alpha) for t in range(T)]
        self.actor_optimizer.zero_grad()
        (sum(loss for loss, _ in found) / T).backward()
        self.actor_optimizer.step()
        self.a_optimizer.zero_grad()
        (-self.log_alpha * (torch.cat([log_prob for _, log_prob in found]) - A)).mean().backward()
        self.a_optimizer.step()


@float64
@critics
def test_updates_are_those_of_plain_networks(critic: str) -> None:
    agent = make_agent(critic=critic)
    literal = PlainMCAL(agent)
    assert agent.log_alpha.numel() == 1
    assert len(literal.q) == {"mn": 2 * T, "mh": 2}[critic]
    for seed in range(6):
        data, observations = plain.task_batches(), torch.randn(T, T, B, O)
        torch.manual_seed(seed)
        losses = agent.update_critics(data)
        for obs in observations:
            losses |= agent.update_actor(obs)
        torch.manual_seed(seed)
        literal.update_critics(data, torch.randn(T, B, A))
        for obs in observations:
            literal.update_actor(obs, torch.randn(T, B, A))
    assert {name: tuple(loss.shape) for name, loss in losses.items()} == {
        "qf_loss": (T,), "qf_value": (T,), "actor_loss": (T,), "alpha_loss": (1, 1), "alpha": (1, 1), "entropy": (T,),
    }  # fmt: skip
    again = PlainMCAL(agent)
    for part in ("actor", "q", "q_target"):
        assert plain.difference(getattr(literal, part), getattr(again, part)) < 1e-12
    torch.testing.assert_close(agent.log_alpha, literal.log_alpha, rtol=0, atol=1e-12)


@float64
@critics
def test_answers_to_the_collector(critic: str) -> None:
    """Row i has task i mod T; every row is asked about by itself."""
    agent, n = make_agent(critic=critic), 2 * T
    literal = PlainMCAL(agent)
    obs, candidates, ids = torch.randn(n, O), torch.rand(n, T, A) * 2 - 1, torch.arange(n) % T
    with torch.no_grad():
        torch.manual_seed(1)
        values, proposal = agent.q_functions(obs, candidates, ids), agent.policies(obs)
        own, mean = agent.own_policy(obs, ids), agent.mean_policy(obs, ids)
        torch.manual_seed(1)
        noise, own_noise = torch.randn(T, n, A), torch.randn(T, n // T, A)
        assert proposal.entropies is None
        for i in range(n):
            row, task = obs[i : i + 1], i % T
            close(values[i], plain.value(literal.twins(literal.q, task)[0], row.expand(T, O), candidates[i], task))
            close(own[i], plain.sample(literal.actor, row, task, own_noise[task, i // T])[0][0])
            close(mean[i], torch.tanh(literal.actor(row, task)[0][0]))
            for j in range(T):
                close(proposal.actions[i, j], plain.sample(literal.actor, row, j, noise[j, i])[0][0])
                close(proposal.means[i, j], torch.tanh(literal.actor(row, j)[0][0]))


def close(found: Tensor, expected: Tensor) -> None:
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-12)


@critics
def test_critics_have_networks_or_heads_of_their_own(critic: str) -> None:
    """A batch that only task 0 learns from moves, beside its own heads, everybody's trunk or its own."""
    agent = make_agent(critic=critic)
    data = plain.task_batches()
    agent.qf(data.obs, data.actions)[:, 0].sum().backward()
    moved = [[bool(weight.any()) for weight in layer.weight.grad] for layer in agent.qf.children()]
    own = [True, *[False] * (T - 1)] * 2
    assert moved == [own, own, own] if critic == "mn" else [[True, True], [True, True], own]


@pytest.mark.usefixtures("short_episodes")
def test_update_counts(run_script: Callable[..., None], tmp_path: Path) -> None:
    """Of five gradient steps of each task's critics, three rounds long; the policy makes three times as many."""
    batches: list[int] = []
    sample = qmp_collect.TaskReplayBuffer.sample

    def recorded(self: qmp_collect.TaskReplayBuffer, batch_size: int, **settings: Any) -> qmp_collect.Batch:
        batches.append(batch_size)
        return sample(self, batch_size, **settings)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(qmp_collect.TaskReplayBuffer, "sample", recorded)
        run_script(
            "mcal_qmp", "--env-id", "Maze3", "--total-timesteps", 450, "--env-steps-per-round", 50,
            "--eval-episodes", 1, "--gradient-steps-per-round", 5, "--min-buffer-size", 50, "--batch-size", 8,
            "--hidden-dim", 16, "--torch-threads", 1, "--run-dir-root", tmp_path,
        )  # fmt: skip
    assert batches == [8, 2, 2, 2] * 15  # the policy's batches have 8 // 3 observations of each task
    (run_dir,) = tmp_path.iterdir()
    agent = load_checkpoint(run_dir / "checkpoint.npz")["agent"]
    names = ("q_optimizer", "actor_optimizer", "a_optimizer")
    assert [int(agent[name]["state"][0]["step"]) for name in names] == [15, 45, 45]


def test_settings() -> None:
    assert script.PRESETS == load_script("sac_qmp_separate").PRESETS
    assert (script.Args().critic, script.Args().switch, script.Args().hidden_dim) == ("mn", "qmp", 256)
