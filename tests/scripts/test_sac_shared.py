"""One SAC for all tasks: its update against a plain one, what it may not know, how it scales, its settings."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import plain_networks as plain
import pytest
import torch
import torch.nn as nn
from plain_networks import LR, A, B, H, O, T
from script_files import load_script
from torch import Tensor

import qmp_collect
from qmp_collect.runs.replay_files import load_run_state

script = load_script("sac_shared")


def make_agent() -> script.Agent:
    torch.manual_seed(0)
    return script.Agent(script.Args(hidden_dim=H, learning_rate=LR), O, A, "cpu")


def mixed_batch() -> qmp_collect.Batch:
    return qmp_collect.Batch(*(field.flatten(0, 1) for field in plain.task_batches()))


class PlainSAC:
    """SAC, in which there are no tasks: all is task 0."""

    def __init__(self, agent: script.Agent) -> None:
        def net(stacked: nn.Module, index: int, names: tuple[str, ...]) -> plain.PlainNet:
            trunk, heads = (
                [(getattr(stacked, name).weight[index], getattr(stacked, name).bias[index]) for name in part]
                for part in (("fc1", "fc2"), names)
            )
            return plain.PlainNet(trunk, [heads])

        self.actor = net(agent.actor, 0, ("fc_mean", "fc_logstd"))
        self.q, self.q_target = (
            nn.ModuleList(net(twins, index, ("fc_q",)) for index in (0, 1)) for twins in (agent.qf, agent.qf_target)
        )
        self.log_alpha = nn.Parameter(agent.log_alpha.detach().clone())
        parts = (self.q.parameters(), self.actor.parameters(), [self.log_alpha])
        self.q_optimizer, self.actor_optimizer, self.a_optimizer = (torch.optim.Adam(part, lr=LR) for part in parts)

    def update(self, data: qmp_collect.Batch, next_noise: Tensor, noise: Tensor) -> None:
        alpha = self.log_alpha.detach().exp()
        target = plain.td_target(self.actor, self.q_target, data, 0, next_noise, alpha)
        self.q_optimizer.zero_grad()
        for critic in self.q:
            (plain.value(critic, data.obs, data.actions, 0) - target).square().mean().backward()
        self.q_optimizer.step()
        loss, log_prob = plain.actor_loss(self.actor, self.q, data.obs, 0, noise, alpha)
        self.actor_optimizer.zero_grad()
        loss.backward()
        self.actor_optimizer.step()
        self.a_optimizer.zero_grad()
        (-self.log_alpha * (log_prob - A)).mean().backward()
        self.a_optimizer.step()
        plain.follow(self.q_target, self.q)


@pytest.mark.usefixtures("float64")
def test_update_is_a_plain_sac() -> None:
    agent = make_agent()
    sac = PlainSAC(agent)
    for seed in range(10):
        data = mixed_batch()
        torch.manual_seed(seed)
        losses = agent.update(data)
        torch.manual_seed(seed)
        sac.update(data, torch.randn(T * B, A), torch.randn(T * B, A))
    assert all(loss.shape == (1, 1) for loss in losses.values())
    again = PlainSAC(agent)
    for part in ("actor", "q", "q_target"):
        assert plain.difference(getattr(sac, part), getattr(again, part)) < 1e-12
    torch.testing.assert_close(agent.log_alpha, sac.log_alpha, rtol=0, atol=1e-12)


def test_nothing_depends_on_the_task() -> None:
    agents, data = (make_agent(), make_agent()), mixed_batch()
    obs = torch.randn(1, O).expand(T, O)
    for agent, ids in zip(agents, (data.task_ids, torch.zeros_like(data.task_ids)), strict=True):
        torch.manual_seed(1)
        agent.update(data._replace(task_ids=ids))
    assert plain.difference(agents[0].actor, agents[1].actor) == 0
    with torch.no_grad():
        assert len(agents[0].mean_policy(obs, torch.arange(T)).unique(dim=0)) == 1
        torch.manual_seed(2)
        actions = agents[0].own_policy(obs, torch.arange(T))
        torch.manual_seed(2)
        assert torch.equal(actions, agents[0].own_policy(obs, torch.zeros(T, dtype=torch.int64)))


@pytest.mark.usefixtures("short_episodes")
def test_gradient_steps_are_as_many_as_those_of_separate_agents(
    run_script: Callable[..., None], tmp_path: Path
) -> None:
    run_script(
        "sac_shared", "--env-id", "Maze3", "--total-timesteps", 450, "--env-steps-per-round", 50, "--eval-episodes", 1,
        "--gradient-steps-per-round", 5, "--min-buffer-size", 300, "--batch-size", 8, "--hidden-dim", 16,
        "--buffer-size", 330, "--torch-threads", 1, "--run-dir-root", tmp_path,
    )  # fmt: skip
    (run_dir,) = tmp_path.iterdir()
    saved = load_run_state(run_dir)
    # Two of three rounds, in each five for every task; 330 transitions of all tasks together are kept.
    assert int(saved["agent"]["q_optimizer"]["state"][0]["step"]) == 2 * 5 * T
    assert len(saved["buffer"]["rows"]) == 330


# Min buffer, env steps and gradient steps per round, batch, hidden, learning rate, run length in thousands
TABLE = {
    "Reacher5": (10_000, 200, 200, 32, 600, 3e-4, 2_000),
    "Maze10": (3_000, 600, 100, 256, 834, 3e-4, 12_000),
    "MetaWorldCDS": (5_000, 500, 50, 256, 512, 1e-3, 10_000),
    "MetaWorldMT10": (5_000, 500, 50, 2560, 512, 1e-3, 40_000),
    "Walker4": (10_000, 1000, 1500, 256, 512, 3e-4, 8_000),
    "Kitchen10": (2_000, 200, 50, 1280, 512, 3e-4, 5_000),
    "MetaWorldMT50": (1_500, 500, 50, 1280, 400, 3e-4, 30_000),
}


@pytest.mark.parametrize("env_id", TABLE)
def test_preset(env_id: str) -> None:
    args = script.Args(**script.PRESETS[env_id])
    found = (
        args.min_buffer_size, args.env_steps_per_round, args.gradient_steps_per_round, args.batch_size,
        args.hidden_dim, args.learning_rate, args.total_timesteps // 1_000,
    )  # fmt: skip
    assert found == TABLE[env_id]
