"""A learner and its helper: what the helper does, who proposes what, and what is cloned when."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from metaworld.policies import ENV_POLICY_MAP
from script_files import load_script

from qmp_collect import Batch
from qmp_collect.runs.replay_files import load_run_state
from qmp_collect.runs.seeds import stack_agents

script = load_script("sac_qmp_helper")
ONE = "MetaWorldPush-v0"


def make_agent(num_tasks: int = 1, obs_dim: int = 39, **settings: Any) -> Any:
    torch.manual_seed(0)
    args = script.Args(hidden_dim=8, learning_rate=1e-2, **settings)
    return script.Agent(args, num_tasks, obs_dim, 2 if obs_dim == 2 else 4, "cpu")


def states(hand: list[float], puck: list[float], goal: list[float]) -> np.ndarray:
    obs = np.zeros((1, 39), np.float32)
    obs[0, :3], obs[0, 4:7], obs[0, 36:] = hand, puck, goal
    return obs


FAR, NEAR = (
    ([0.0, 0.6, 0.2], [0.02, 0.65, 0.02], [0.1, 0.8, 0.02]),
    ([0.02, 0.65, 0.06], [0.02, 0.65, 0.02], [0.1, 0.8, 0.02]),
)


@pytest.mark.parametrize(
    ("name", "far", "near"),
    [  # The script's gain is 10 and its hand goes to 0.2 above the puck, 5 mm beside it; then to the goal.
        ("perfect", [0.15, 0.5, 0.2, 0.0], [0.8, 1.0, -0.4, 0.6]),
        ("slow", [0.03, 0.1, 0.04, 0.0], [0.16, 0.2, -0.08, 0.6]),
        ("noisy", [0.15, 0.5, 0.2, 0.0], [0.8, 1.0, -0.4, 0.6]),  # on average
        ("first-phase", [0.15, 0.5, 0.2, 0.0], [0.0, 0.0, 0.0, 0.0]),
    ],
)
def test_what_scripted_helpers_do(name: str, far: list[float], near: list[float]) -> None:
    helper = script.make_helper(script.Args(env_id=ONE, helper=name))
    obs = np.concatenate([states(*FAR), states(*NEAR)])
    before = obs.copy()
    np.testing.assert_allclose(helper(obs, np.array([0, 0])), [far, near], atol=1e-5)
    np.testing.assert_array_equal(obs, before)


def test_every_row_is_helped_by_its_own_tasks_script() -> None:
    obs = np.random.default_rng(0).uniform(0.0, 0.8, (20, 39)).astype(np.float32)
    agent = make_agent(10, env_id="MetaWorldMT10-v0", helper="perfect")
    actions, means, _ = agent.policies(torch.as_tensor(obs))
    assert actions.shape == means.shape == (20, 11, 4)
    names = script.qmp_envs.TASK_SETS["MetaWorldMT10-v0"].task_names
    for row, state in enumerate(obs):
        expected = ENV_POLICY_MAP[names[row % 10]]().get_action(state.astype(np.float64)).clip(-1, 1)
        assert torch.equal(actions[row, 10], torch.as_tensor(expected, dtype=torch.float32))
    own = agent.mean_policy(torch.as_tensor(obs), None)
    torch.testing.assert_close(means[torch.arange(20), torch.arange(20) % 10], own)


def test_noise_is_executed_and_the_mean_is_scored() -> None:
    actions, means, _ = make_agent(env_id=ONE, helper="noisy").policies(torch.as_tensor(states(*FAR)).repeat(4000, 1))
    assert means[:, 1].unique(dim=0).tolist() == [pytest.approx([0.15, 0.5, 0.2, 0.0], abs=1e-5)]
    noise = np.random.default_rng(0).standard_normal(10**6)
    expected = np.clip(0.2 + noise, -1, 1)
    assert actions[:, 1, 2].mean().item() == pytest.approx(expected.mean(), abs=0.05)
    assert actions[:, 1, 2].std().item() == pytest.approx(expected.std(), abs=0.05)


def test_the_first_critic_scores_every_candidate() -> None:
    agent, obs, candidates = make_agent(2, 2), torch.rand(4, 2), torch.rand(4, 3, 2) * 2 - 1
    values = agent.q_functions(obs, candidates, None)
    for row in range(4):
        every = agent.qf(obs[row].expand(2, 3, 2), candidates[row].expand(2, 3, 2))  # twins, tasks, candidates
        torch.testing.assert_close(values[row], every[0, row % 2])


def test_a_clone_does_what_it_has_seen_and_nothing_else_learns() -> None:
    agent, obs = make_agent(2, 2), torch.rand(2, 64, 2)
    wanted = torch.stack([0.8 * obs[0] - 0.4, 0.4 - 0.8 * obs[1]])  # each task something else
    rest = [parameter.clone() for parameter in (*agent.qf.parameters(), agent.log_alpha)]
    nothing = torch.zeros(2, 64)
    for _ in range(300):
        agent.clone(Batch(obs, wanted, nothing, obs, nothing, nothing, nothing))
    actions, _, means = agent.actor.get_action(obs)
    assert (means - wanted).abs().mean() < 0.1
    assert (actions - means).std() < 0.2  # what it explores is cloned, too
    assert all(map(torch.equal, rest, (*agent.qf.parameters(), agent.log_alpha)))


@pytest.mark.usefixtures("short_episodes")
def test_the_helper_demonstrates_alone_and_first(run_script: Callable[..., None], tmp_path: Path) -> None:
    flags = {
        "env-id": "PointReach", "helper": "script_files:left", "switch": "own", "demonstration-rounds": 2,
        "clone-steps": 7, "total-timesteps": 80, "env-steps-per-round": 20, "gradient-steps-per-round": 3,
        "min-buffer-size": 10, "batch-size": 8, "hidden-dim": 8, "eval-every": 40, "eval-episodes": 1,
    }  # fmt: skip
    run_script("sac_qmp_helper", *(f"--{flag}={value}" for flag, value in flags.items()), "--run-dir", tmp_path / "run")
    state = load_run_state(tmp_path / "run")
    rows = state["buffer"]["rows"][:80]
    assert rows[:, -1].tolist() == [1] * 40 + [0] * 40  # who acted; the demonstrations are in the replay
    assert rows[:40, 2:4].unique(dim=0).tolist() == [[-1.0, 0.0]]
    assert state["agent"]["cloned"] == 7
    logged = map(json.loads, (tmp_path / "run" / "metrics.jsonl").read_text().splitlines())
    assert [row["global_step"] for row in logged if "losses/qf_loss" in row] == [40, 60, 80]


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        ("--helper clumsy", "--helper clumsy: expected perfect, slow, noisy, first-phase or MODULE:FUNCTION"),
        ("--helper script_files:right", "--helper script_files:right: .*has no attribute 'right'"),
        ("--helper nowhere:left", "--helper nowhere:left: .*no such module"),
        ("--helper slow --env-id Maze3", "Meta-World has no script for Maze3-v0, give MODULE:FUNCTION"),
        ("--clone-steps 5", "--clone-steps 5: there is nothing to clone without --demonstration-rounds"),
        ("--demonstration-rounds 200", "--demonstration-rounds 200: the helper would act in the whole run"),
    ],
)
def test_what_is_refused(flags: str, said: str) -> None:
    with pytest.raises(SystemExit, match=said):
        script.parse_args(flags.split())


def test_a_helper_of_another_shape() -> None:
    with pytest.raises(ValueError, match=r"--helper script_files:left: expected actions \(3, 4\), got \(3, 2\)"):
        make_agent(helper="script_files:left").policies(torch.zeros(3, 39))


def test_seeds_side_by_side_are_agents_of_their_own(float64: None) -> None:
    """Two seeds beside a noisy helper: proposals of both, cloning and updates are those of each alone."""
    cpu, seeds, rows = torch.device("cpu"), (3, 8), 4
    args = script.Args(env_id=ONE, helper="noisy", hidden_dim=8, learning_rate=1e-2)
    agent = stack_agents(lambda count: script.Agent(args, 1, 39, 4, cpu, count), seeds, cpu)
    obs = torch.rand(2 * rows, 39, generator=torch.Generator().manual_seed(0))
    draw = torch.Generator().manual_seed(1)
    fields = [torch.rand(2, 6, *shape, generator=draw) for shape in ((39,), (4,), (), (39,), ())]
    ids = torch.zeros(2, 6, dtype=torch.int64)

    def answers(agent: Any, which: slice) -> list[torch.Tensor]:
        data = Batch(*(field[which] for field in fields), ids[which], ids[which])
        first = agent.policies(obs[rows * which.start : rows * which.stop])
        agent.clone(data)
        losses = agent.update(data)
        values = agent.q_functions(obs[rows * which.start : rows * which.stop], first.means, None)
        return [first.actions, first.means, values, *losses.values()]

    together = answers(agent, slice(0, 2))
    assert together[0].shape == (2 * rows, 2, 4)
    for place, seed in enumerate(seeds):
        torch.manual_seed(seed)
        alone = answers(script.Agent(args, 1, 39, 4, cpu), slice(place, place + 1))
        for mine, own in zip(together, alone, strict=True):
            part = mine[place * len(own) : (place + 1) * len(own)]
            torch.testing.assert_close(part, own, rtol=1e-9, atol=1e-11)
