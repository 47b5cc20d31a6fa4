"""uds_qmp.py: which transitions are handed over, under which rewards, and that the rest is SAC on them."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from script_files import load_script
from test_update_math import A, B, O, PlainSAC, T, batch, difference, make_agent, noise  # noqa: F401
from torch import Tensor

import qmp_collect
import qmp_envs
from qmp_collect import Batch

uds = load_script("uds_qmp")
MAZE = qmp_envs.TASK_SETS["Maze3-v0"]


def maze_buffer(count: int = 40) -> qmp_collect.TaskReplayBuffer:
    """Random transitions of Maze3's tasks; ``obs[0]`` tells the task, ``obs[1]`` the number, and all fields differ."""
    rng, rows = np.random.default_rng(0), np.arange(3 * count)
    obs = rng.normal(size=(3 * count, 4))
    obs[:, 0], obs[:, 1] = rows % 3, rows
    spaces = (qmp_envs.MazeVectorEnv("Maze3-v0").single_observation_space, uds.gym.spaces.Box(-1, 1, (2,)))
    buffer = qmp_collect.TaskReplayBuffer(count, 3, *spaces, seed=0)
    buffer.add(
        qmp_collect.Transitions(
            obs=obs,
            actions=rng.uniform(-1, 1, (3 * count, 2)),
            rewards=rng.normal(size=3 * count),
            next_obs=rng.uniform(0, 6, (3 * count, 4)),
            terminations=rows % 2 == 0,
            truncations=np.zeros(3 * count, np.bool_),
            task_ids=rows % 3,
            behavior_ids=rows % 3,
            env_ids=rows % 3,
        )
    )
    return buffer


def shared_replay(buffer: Any, task_set: Any = MAZE, **settings: Any) -> Any:
    return uds.SharedReplay(uds.Args(**settings), buffer, task_set, torch.device("cpu"))


def test_composition_of_a_batch(monkeypatch: pytest.MonkeyPatch) -> None:
    """Seven own transitions, then three of each other task in their order, no drawn transition used twice."""
    buffer = maze_buffer()
    drawn = buffer.sample(7 + 2 * 3)
    monkeypatch.setattr(buffer, "sample", lambda size, own_fraction: {(13, 0.25): drawn}[size, own_fraction])
    data = shared_replay(buffer, batch_size=7, own_fraction=0.25).sample()
    first, second = slice(7, 10), slice(10, 13)
    # Receiving task: where its rows come from. A task's first share goes to the first of the others.
    sources = {0: [(1, first), (2, first)], 1: [(0, first), (2, second)], 2: [(0, second), (1, second)]}
    for name, field, taken in zip(Batch._fields, data, drawn, strict=True):
        for task, shares in sources.items():
            expected = torch.cat([taken[task, :7]] + [taken[giver, rows] for giver, rows in shares])
            if name == "rewards":
                expected[7:] = -1.0
            assert torch.equal(field[task], expected), (name, task)
    assert data.task_ids[:, 7:].tolist() == [[1, 1, 1, 2, 2, 2], [0, 0, 0, 2, 2, 2], [0, 0, 0, 1, 1, 1]]
    assert torch.equal(data.obs[..., 0], data.task_ids.to(torch.float32))


def test_rewards_of_the_receiving_task() -> None:
    """CDS on Maze3, goals (5, 3), (1, 2) and (4, 1): exp(-distance of where the step led) - 1."""
    data = shared_replay(maze_buffer(), batch_size=8, relabel="task").sample()
    goals = torch.tensor([[5.0, 3.0], [1.0, 2.0], [4.0, 1.0]])
    distance = (data.next_obs[..., :2] - goals[:, None]).norm(dim=-1)
    assert data.rewards.shape == (3, 16)
    torch.testing.assert_close(data.rewards[:, 8:], torch.exp(-distance[:, 8:]) - 1, rtol=0, atol=1e-6)
    # Own rewards are those that were stored, here random numbers.
    assert (data.rewards[:, :8] - torch.exp(-distance[:, :8]) + 1).abs().min() > 1e-6


def test_terminations_of_shared_transitions() -> None:
    numbers = {}
    for share in (True, False):
        data = shared_replay(maze_buffer(), batch_size=8, share_terminations=share).sample()
        even = (data.obs[..., 1] % 2 == 0).float()
        assert torch.equal(data.terminations[:, :8], even[:, :8])
        assert torch.equal(data.terminations[:, 8:], even[:, 8:] * share)
        numbers[share] = even[:, 8:].sum()
    assert numbers[True] > 0


def test_what_cannot_be() -> None:
    with pytest.raises(SystemExit, match="rewards of Maze10-v0 cannot be recomputed, take --relabel min"):
        shared_replay(maze_buffer(), uds.qmp_envs.TaskSet(**facts(), relabel=None), relabel="task")
    with pytest.raises(SystemExit, match=r"--sharing-quantile 80: expected a fraction"):
        shared_replay(maze_buffer(), sharing_quantile=80)


def facts() -> dict[str, Any]:
    return {name: getattr(MAZE, name) for name in ("task_names", "horizon", "success_rule", "min_reward")} | {
        "env_id": "Maze10-v0",
        "reward_version": "",
        "source": "",
    }


@pytest.mark.parametrize(
    ("quantile", "taken"),
    [
        (0.0, [True, True, True, True]),  # everything
        (0.39, [True, True, False, True]),  # above 1, the smallest own value
        (0.4, [False, True, False, True]),  # strictly above 2, the second smallest
        (1.0, [False, False, False, True]),  # above 5, the largest
    ],
)
def test_threshold_by_hand(quantile: float, taken: list[bool]) -> None:
    own, foreign = [3.0, 1.0, 2.0, 5.0, 4.0], [2.0, 2.1, 1.0, 9.0]
    agent = make_agent(uds, batch_size=5, sharing_quantile=quantile)
    weights = agent.weights(torch.tensor([own + foreign] * T))
    count = 5 + sum(taken)
    expected = [1 / count] * 5 + [t / count for t in taken]
    torch.testing.assert_close(weights, torch.tensor([expected] * T))
    assert torch.equal(weights > 0, torch.tensor([[True] * 5 + taken] * T))


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize("quantile", [0.0, 0.6])
def test_stacked_update_is_a_loop_over_sacs_on_what_they_take(quantile: float, noise: list[Tensor]) -> None:  # noqa: F811
    agent = make_agent(uds, batch_size=B, sharing_quantile=quantile)
    sacs = [PlainSAC(agent, t, (t, T + t), 1) for t in range(T)]
    numbers = set()
    for _ in range(4):
        data = batch(T, 2 * B)
        noise.clear()
        losses = agent.update(data)
        for t, sac in enumerate(sacs):
            with torch.no_grad():
                values = sac.value(sac.q[0], data.obs[t], data.actions[t], [0] * 2 * B).tolist()
            threshold = [-math.inf, *sorted(values[:B])][int(B * quantile)]
            rows = [row for row in range(2 * B) if row < B or values[row] > threshold]
            sac.update(Batch(*(field[t, rows] for field in data)), [0] * len(rows), [n[t, rows] for n in noise])
            assert losses["shared"][t] == len(rows) - B
            numbers.add(len(rows) - B)
    assert all(loss.shape == (T,) for loss in losses.values())
    assert len(numbers) > 1 if quantile else numbers == {B}
    for t, sac in enumerate(sacs):
        assert difference(sac, PlainSAC(agent, t, (t, T + t), 1)) < 1e-12


@pytest.mark.usefixtures("float64")
def test_logged_means_are_over_what_is_taken() -> None:
    agent, data = make_agent(uds, batch_size=B, sharing_quantile=0.6), batch(T, 2 * B)
    with torch.no_grad():
        values = agent.qf(data.obs, data.actions)
    expected = [values[:, t, agent.weights(values[0])[t] > 0].mean() for t in range(T)]
    torch.testing.assert_close(agent.update(data)["qf_value"].detach(), torch.stack(expected))


def test_one_task_has_nobody_to_share_with() -> None:
    buffer = qmp_collect.TaskReplayBuffer(9, 1, uds.gym.spaces.Box(-1, 1, (O,)), uds.gym.spaces.Box(-1, 1, (A,)))
    row = np.zeros((1, O)), np.zeros((1, A)), np.ones(1), np.zeros((1, O)), *2 * (np.zeros(1, np.bool_),)
    buffer.add(qmp_collect.Transitions(*row, *3 * (np.zeros(1, np.int64),)))
    task_set = uds.qmp_envs.TaskSet(**facts() | {"task_names": ("only",)})
    data = shared_replay(buffer, task_set, batch_size=4).sample()
    assert data.rewards.tolist() == [[1.0] * 4]
    losses = uds.Agent(uds.Args(batch_size=4, hidden_dim=8), 1, O, A, "cpu").update(data)
    assert all(torch.isfinite(loss).all() for loss in losses.values())


def test_command_line() -> None:
    args = uds.parse_args(["--env-id", "Maze3"])
    assert (args.relabel, args.sharing_quantile, args.share_terminations, args.switch) == ("min", 0.8, True, "qmp")
    assert uds.PRESETS == load_script("sac_qmp_separate").PRESETS
