"""The didactic example: what it proposes, what it learns, what it writes."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from script_files import load_script

from qmp_collect import Batch

script, parent = load_script("point_reaching"), load_script("sac_qmp_separate")
RunScript = Callable[..., None]
N, B, H = 7, 16, 24
STEPS = {"relevant": ((0, 1), (1, 0), (1, 1)), "diverse": ((0, 1), (1, 0), (-1, -1))}


def make_agent(module: Any = script, **settings: Any) -> Any:
    torch.manual_seed(0)
    return module.Agent(module.Args(hidden_dim=H, learning_rate=1e-2, **settings), 1, 2, 2, "cpu")


def run(run_script: RunScript, root: Path, *flags: object) -> tuple[Path, list[dict[str, Any]]]:
    quick = ("--run-dir-root", root, "--torch-threads", 1, "--hidden-dim", 32, "--batch-size", 32)
    run_script("point_reaching", *quick, *flags)
    (run_dir,) = root.iterdir()
    return run_dir, [json.loads(line) for line in (run_dir / "metrics.jsonl").read_text().splitlines()]


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize("helpers", STEPS)
def test_the_own_policy_and_three_fixed_gaussians_propose(helpers: str, monkeypatch: pytest.MonkeyPatch) -> None:
    agent = make_agent(helpers=helpers, helper_std=0.4)
    drawn: list[torch.Tensor] = []
    monkeypatch.setattr(torch, "randn_like", lambda x: drawn.append(torch.randn(x.shape)) or drawn[-1])
    obs = torch.rand(N, 2)
    with torch.no_grad():
        actions, means, entropies = agent.policies(obs)
        mean, log_std = agent.actor(obs[None])
    own_noise, helper_noise = drawn
    assert actions.shape == means.shape == (N, 4, 2)
    assert entropies is None
    assert torch.equal(actions[:, 0], torch.tanh(mean + log_std.exp() * own_noise)[0])
    assert torch.equal(means[:, 0], agent.mean_policy(obs, torch.zeros(N, dtype=torch.long)))
    for row in range(N):
        for helper, direction in enumerate(STEPS[helpers]):
            assert means[row, 1 + helper].tolist() == list(direction)
            for axis in range(2):
                expected = direction[axis] + 0.4 * helper_noise[helper, row, axis].item()
                assert actions[row, 1 + helper, axis].item() == pytest.approx(min(max(expected, -1), 1), abs=1e-15)
    assert actions.abs().max() == 1.0


@pytest.mark.usefixtures("float64")
def test_the_first_critic_scores_every_candidate() -> None:
    agent, obs, candidates = make_agent(), torch.rand(N, 2), torch.rand(N, 4, 2) * 2 - 1
    with torch.no_grad():
        values = agent.q_functions(obs, candidates, torch.zeros(N, dtype=torch.long))
        for row in range(N):
            for k in range(4):
                x = torch.cat([obs[row], candidates[row, k]])
                for layer in (agent.qf.fc1, agent.qf.fc2, agent.qf.fc_q):
                    x = x @ layer.weight[0] + layer.bias[0, 0]
                    x = torch.relu(x) if layer is not agent.qf.fc_q else x
                assert values[row, k].item() == pytest.approx(x.item(), abs=1e-12)


@pytest.mark.usefixtures("float64")
def test_learning_is_the_parents_with_another_rate_for_the_policy() -> None:
    """The parent is checked against a plain SAC; the helpers take no part."""
    agent, sac = make_agent(policy_learning_rate=2e-3), make_agent(parent)
    for group in sac.actor_optimizer.param_groups:
        group["lr"] = 2e-3
    for step in range(5):
        data = Batch(
            obs=torch.rand(1, B, 2), actions=torch.rand(1, B, 2) * 2 - 1, rewards=-torch.rand(1, B),
            next_obs=torch.rand(1, B, 2), terminations=(torch.arange(B)[None] % 3 == step % 3).double(),
            task_ids=torch.zeros(1, B, dtype=torch.long), behavior_ids=torch.zeros(1, B, dtype=torch.long),
        )  # fmt: skip
        for learner in (agent, sac):
            torch.manual_seed(step)
            learner.update(data)
    for net in ("actor", "qf", "qf_target"):
        for a, b in zip(getattr(agent, net).parameters(), getattr(sac, net).parameters(), strict=True):
            assert torch.equal(a, b)
    assert torch.equal(agent.log_alpha, sac.log_alpha)
    assert agent.helper_means.tolist() == [list(direction) for direction in STEPS["diverse"]]
    assert not agent.helper_means.requires_grad


def test_trajectories_are_all_of_training(run_script: RunScript, tmp_path: Path) -> None:
    run_dir, rows = run(run_script, tmp_path, "--total-timesteps", 300, "--own-probability", 0.5)
    with np.load(run_dir / "trajectories.npz") as kept:
        steps, policies = kept["steps"].astype(float), kept["behavior_ids"]
    assert steps.shape == (300, 2, 2)
    episodes = steps.reshape(15, 20, 2, 2)
    assert (episodes[:, 0, 0] == 0).all()
    assert (episodes[:, 1:, 0] == episodes[:, :-1, 1]).all()
    assert np.abs(episodes[..., 1, :] - episodes[..., 0, :]).max() <= 0.1 + 1e-3
    assert len(np.unique(policies)) > 1
    rounds = [row for row in rows if "time/sps" in row]
    for number, row in enumerate(rounds):
        shares = np.bincount(policies[100 * number : 100 * (number + 1)], minlength=4) / 100
        assert row["qmp/own_fraction/0"] == pytest.approx(shares[0])
    since = 0
    for row in rows:
        if "qmp/mixture" in row:
            part = policies[since : row["global_step"]]
            assert row["qmp/mixture"][0] == pytest.approx(np.bincount(part, minlength=4) / len(part), abs=1e-4)
            since = row["global_step"]
    assert since == 300


def test_the_relevant_helper_reaches_the_goal_at_once(run_script: RunScript, tmp_path: Path) -> None:
    """Figures 4 and 5 in small: up-right gets there within 14 steps or so, the walk of a new policy never does."""
    ends = {}
    for number, way in enumerate(("--switch own", "--helpers relevant")):
        _, rows = run(run_script, tmp_path / str(number), *way.split(), "--total-timesteps", 600)
        ends[way] = [row for row in rows if "charts/return" in row][-2:]
    assert all(row["charts/return"] < -15 and row["charts/success"] == 0 for row in ends["--switch own"])
    assert all(row["charts/return"] > -8 and row["charts/success"] > 0.5 for row in ends["--helpers relevant"])


@pytest.mark.parametrize(
    "flags", ["--capture-video", "--horizon 5 --warmup-rounds 1 --envs-per-task 2 --env-id PointReach --helper-std 0"]
)
def test_flags(flags: str, run_script: RunScript, tmp_path: Path) -> None:
    run_dir, rows = run(run_script, tmp_path, *flags.split(), "--total-timesteps", 300)
    assert [row["global_step"] for row in rows if "time/sps" in row] == [100, 200, 300]
    assert {"losses/qf_loss", "qmp/foreign_fraction", "qmp/q_gap/0"} < rows[-2].keys()
    assert (run_dir / "videos" / "top_right.gif").exists() == ("--capture-video" in flags)
    assert run_dir.name.startswith("PointReach-v0__point_reaching__qmp__1__")


def test_only_its_own_environment(run_script: RunScript, tmp_path: Path) -> None:
    with pytest.raises(SystemExit, match="expected one of PointReach-v0"):
        run(run_script, tmp_path, "--env-id", "Maze3")
