"""The Q-switch's choice where the scores lie: what is chosen, stored, counted and complained of is as on the host.

Without a GPU, tensors on the CPU are taken for an accelerator's.
"""

from __future__ import annotations

from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch
from collect_envs import FIELDS, Recorder, make_envs
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays
from torch._subclasses.fake_tensor import FakeTensorMode

import qmp_collect.highest
from qmp_collect import Proposal, QMPCollector, QSwitch, SoftmaxQSwitch, UntilOwnIsBetter, callables
from qmp_collect.highest import Highest, better_there, choose, highest

T, K = 3, 4
TASK_IDS = np.array([0, 1, 2, 0, 1, 2])
ACCELERATORS = ["taken for one", *(["cuda"] if torch.cuda.is_available() else [])]


@st.composite
def asked(draw: st.DrawFn) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Scores with many ties, own candidates, and actions of any shape."""
    n, k = draw(array_shapes(min_dims=2, max_dims=2, max_side=6))
    scores = draw(arrays(np.float32, (n, k), elements=st.sampled_from([-1.5, -0.0, 0.0, 2.0, 1e30])))
    own = draw(arrays(np.int64, n, elements=st.integers(0, k - 1)))
    shape = draw(st.sampled_from([(), (1,), (3,), (2, 2)]))
    return scores, own, np.arange(n * k * np.prod(shape, dtype=int), dtype=np.float32).reshape(n, k, *shape)


@given(asked())
@settings(deadline=None)
def test_is_what_the_switch_chooses(drawn: tuple[np.ndarray, np.ndarray, np.ndarray]) -> None:
    scores, own, actions = drawn
    chosen = highest(*map(torch.tensor, (actions, scores, own)))
    assert chosen is not None
    rows, expected = np.arange(len(own)), QSwitch()(scores, own, np.random.default_rng())
    assert chosen.ids.tolist() == expected.tolist()
    assert np.array_equal(chosen.actions, actions[rows, expected])
    assert np.array_equal(chosen.scores, scores[rows, expected])
    assert np.array_equal(chosen.own_scores, scores[rows, own])


@pytest.mark.parametrize("number", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("where", ["scores", "actions", "both"])
def test_leaves_to_others_what_is_not_finite(number: float, where: str) -> None:
    scores, actions, own = torch.zeros(2, 3), torch.zeros(2, 3, 2), torch.tensor([0, 1])
    assert highest(actions, scores, own) is not None
    if where != "actions":
        scores[1, 2] = number
    if where != "scores":
        actions[0, 2, 1] = -number
    assert highest(actions, scores, own) is None


@pytest.mark.parametrize(
    ("dtype", "expected"),
    [(torch.float16, np.float32), (torch.bfloat16, np.float32), (torch.float64, np.float64), (torch.int64, np.float64)],
)
def test_scores_are_of_the_type_that_they_have_on_the_host(dtype: torch.dtype, expected: type) -> None:
    chosen = highest(torch.zeros(1, 2, 3), torch.tensor([[1, 2]], dtype=dtype), torch.tensor([0]))
    assert chosen is not None
    assert chosen.scores.dtype == chosen.own_scores.dtype == expected
    assert (chosen.scores.tolist(), chosen.own_scores.tolist()) == ([2.0], [1.0])


@pytest.mark.parametrize("dtype", [torch.float16, torch.float32])
def test_sums_that_their_type_cannot_hold_are_finite(dtype: torch.dtype) -> None:
    largest = torch.finfo(dtype).max
    chosen = highest(torch.full((2, 3, 2), largest, dtype=dtype), torch.full((2, 3), largest), torch.tensor([0, 1]))
    assert chosen is not None
    assert chosen.actions.tolist() == [[largest, largest]] * 2


def test_nothing_leaves_the_device() -> None:
    with FakeTensorMode():  # raises where devices are mixed, and needs none
        actions, scores = torch.empty(6, 4, 2, device="cuda"), torch.empty(6, 4, device="cuda")
        own = torch.empty(6, device="cuda", dtype=torch.int64)
        parts = choose(actions, scores, own)
        assert [part.device.type for part in parts] == ["cuda"] * 5
        assert [tuple(part.shape) for part in parts] == [(6, 2), (6,), (6,), (6,), ()]


def test_is_made_where_there_is_an_accelerator_and_much_to_choose_from() -> None:
    def arrays(n: int, actions: str, scores: str, own: str) -> tuple[torch.Tensor, ...]:
        return (
            torch.empty(n, 16, 3, device=actions),
            torch.empty(n, 16, device=scores),
            torch.empty(n, device=own, dtype=torch.int64),
        )

    with FakeTensorMode():
        assert better_there(*arrays(256, "cuda", "cuda", "cuda"))  # 2 ** 14 numbers
        assert not better_there(*arrays(255, "cuda", "cuda", "cuda"))
        assert not better_there(*arrays(256, "cpu", "cpu", "cpu"))
        assert not better_there(*arrays(256, "cuda", "cpu", "cuda"))
        assert not better_there(*arrays(256, "cuda", "cuda", "cuda:1"))
    assert not better_there(*map(np.zeros, [(256, 16, 3), (256, 16), 256]))


class Learner:
    """Batched callables whose answers are exact; ``broken`` ones are not finite after some questions."""

    def __init__(self, broken: str | None = None) -> None:
        self.broken, self.questions = broken, 0

    def policies(self, obs: torch.Tensor) -> Proposal:
        k = torch.arange(K, device=obs.device)
        means = torch.floor(16 * torch.sin(obs[:, None, 3:] * 5 + obs[:, None, 2:3] + k[:, None]).abs()) / 16
        means = means.repeat(1, 1, 2)
        self.questions += 1
        if self.questions > 4 and self.broken == "a candidate":
            means[1, 3] = float("nan")
        return Proposal(1 - means, means=means)

    def q_functions(self, obs: torch.Tensor, actions: torch.Tensor, task_ids: torch.Tensor) -> torch.Tensor:
        values = torch.floor(8 * torch.sin(actions.sum(-1) * (task_ids[:, None] + 1) + 7 * obs[:, None, 3])) / 8
        if self.questions > 4 and self.broken == "an own value":
            values[4, 1] = float("inf")
        return values


def collector_of(sink: Any, device: str, learner: Learner | None = None, **arguments: Any) -> QMPCollector:
    learner = learner or Learner()
    envs = make_envs(*[{"env_id": i, "lengths": (3 + i % 2, 5)} for i in range(len(TASK_IDS))])
    given = {"policies": learner.policies, "q_functions": learner.q_functions, "task_ids": TASK_IDS, "seed": 3}
    given |= {"backend": "torch", "device": device, "buffer": sink, **arguments}
    return QMPCollector(envs, **given)


@pytest.fixture(params=ACCELERATORS)
def device(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    if request.param == "cuda":
        monkeypatch.setattr(qmp_collect.highest, "MANY", 0)
        return "cuda"
    monkeypatch.setattr(callables, "better_there", lambda *arrays: all(map(torch.is_tensor, arrays)))
    return "cpu"


@pytest.fixture
def chosen_there(monkeypatch: pytest.MonkeyPatch) -> list[bool]:
    """For every decision that was asked of the device, whether it decided."""
    decided: list[bool] = []

    def asked(*arrays: Any) -> Highest | None:
        answer = highest(*arrays)
        decided.append(answer is not None)
        return answer

    monkeypatch.setattr(callables, "highest", asked)
    return decided


GROUPS = {"task_ids": [0, 1, 2, 3, 4, 5], "own_ids": [0, 1, 2] * 2, "num_tasks": 6, "seed": [3, 4]}
SETTINGS: dict[str, dict[str, Any]] = {
    "default": {},
    "samples": {"switch": QSwitch(score="sample")},
    "two samples": {"switch": QSwitch(samples=2)},
    "horizon": {"horizon": 3},
    "own probability": {"own_probability": 0.2},
    "warm-up": {"warmup_steps": 20},
    "groups": GROUPS,
    "groups that ask at different steps": GROUPS | {"own_probability": 0.1},
    "a candidate": {"learner": "a candidate"},
}


def seen_by(envs: gym.vector.VectorEnv[Any, Any, Any], monkeypatch: pytest.MonkeyPatch) -> list[np.ndarray]:
    """The actions that they will have been given, those of steps that are not stored included."""
    seen: list[np.ndarray] = []
    step = envs.step

    def seeing(actions: np.ndarray) -> Any:
        seen.append(actions.copy())
        return step(actions)

    monkeypatch.setattr(envs, "step", seeing)
    return seen


@pytest.mark.parametrize("name", SETTINGS)
def test_collects_the_same(name: str, device: str, chosen_there: list[bool], monkeypatch: pytest.MonkeyPatch) -> None:
    there, here = Recorder(), Recorder()
    stats, executed = [], dict[Recorder, list[np.ndarray]]()
    for sink in (there, here):
        arguments = dict(SETTINGS[name])
        learner = Learner(arguments.pop("learner", None))
        collector = collector_of(sink, device, learner, **arguments)
        executed[sink] = seen_by(collector.envs, monkeypatch)
        stats.append(collector.collect(n_step=120) + collector.collect(n_episode=2))
        monkeypatch.setattr(callables, "better_there", lambda *arrays: False)
    assert len(chosen_there) >= 3
    assert all(chosen_there) == (name != "a candidate")
    assert any(chosen_there)
    for field in FIELDS:
        np.testing.assert_array_equal(there.column(field), here.column(field), err_msg=field)
    np.testing.assert_array_equal(executed[there], executed[here])  # those beyond the last episode, too
    for field, expected in vars(stats[1]).items():
        if not field.endswith("_time"):
            np.testing.assert_equal(getattr(stats[0], field), expected, err_msg=field)
    assert np.ptp(there.column("behavior_ids")) >= 2  # somebody else acts, too


@pytest.mark.parametrize(
    "arguments",
    [
        {"switch": QSwitch(margin=0.1)},
        {"switch": QSwitch(hysteresis=0.1)},
        {"switch": SoftmaxQSwitch(1.0)},
        {"switch": type("Own", (QSwitch,), {})()},
        {"candidate_mask": np.ones((T, K), bool)},
        {"horizon": UntilOwnIsBetter(cap=3)},
    ],
    ids=["margin", "hysteresis", "softmax", "subclass", "mask", "commitment"],
)
def test_other_choices_are_made_on_the_host(arguments: dict[str, Any], device: str, chosen_there: list[bool]) -> None:
    collector_of(None, device, **arguments).collect(n_step=30)
    assert chosen_there == []


def test_ensembles_entropies_and_lists_are_for_the_host(device: str, chosen_there: list[bool]) -> None:
    learner = Learner()

    def with_entropies(obs: torch.Tensor) -> Proposal:
        proposal = learner.policies(obs)
        return Proposal(proposal.actions, entropies=proposal.actions.sum(-1))

    def twins(obs: torch.Tensor, actions: torch.Tensor, task_ids: torch.Tensor) -> torch.Tensor:
        return torch.stack([learner.q_functions(obs, actions, task_ids)] * 2)

    for arguments in (
        {"policies": with_entropies, "switch": QSwitch(entropy_weight=0.5)},
        {"q_functions": twins, "switch": QSwitch(reduce="min")},
        {"q_functions": [lambda obs, actions: actions.sum(-1)] * T},
    ):
        collector_of(None, device, **arguments).collect(n_step=30)
    assert chosen_there == []


def test_discrete_actions_are_chosen_on_the_host(device: str, chosen_there: list[bool]) -> None:
    envs = make_envs(*[{"action_space": gym.spaces.Discrete(5)}] * 3)
    collector = QMPCollector(
        envs,
        lambda obs: torch.arange(3, device=obs.device).repeat(len(obs), 1),
        lambda obs, task_ids: torch.arange(5.0, device=obs.device).repeat(len(obs), 1),
        task_ids=[0, 1, 2],
        num_tasks=3,
        backend="torch",
        device=device,
    )
    assert collector.collect(n_step=6).behavior_counts.sum(0).tolist() == [0, 0, 6]
    assert chosen_there == []


def test_an_own_value_that_is_not_finite_is_complained_of(device: str) -> None:
    collector = collector_of(None, device, Learner("an own value"))
    with pytest.raises(FloatingPointError, match=r"task 1's Q-function gives inf .*\(sub-environment 4\), at step 24"):
        collector.collect(n_step=120)
