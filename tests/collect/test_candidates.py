"""Which candidates may act, when they are trusted, and for how long: literal cases.

Random programs against a scalar model of all of this together: ``tests/benchmark/test_collector_programs.py``.
"""

from __future__ import annotations

import pickle
from typing import Any, ClassVar

import gymnasium as gym
import numpy as np
import pytest
import torch
from collect_envs import BOX, CountingEnv, Recorder, SnapshotVectorEnv, endless, make_envs
from hypothesis import given, settings
from hypothesis import strategies as st

from qmp_collect import (
    AtMost,
    Candidates,
    FixedSwitch,
    JumpStart,
    LevyHorizon,
    OwnPolicy,
    OwnShareFloor,
    Proposal,
    QMPCollector,
    QSwitch,
    SoftmaxQSwitch,
    SuccessGate,
    UniformHorizon,
    UniformSwitch,
    Until,
    UntilOwnIsBetter,
    all_of,
    check_callables,
    lcb,
)
from qmp_collect.spread import Spread


def constant(value: float) -> Any:
    return lambda obs: np.full((len(obs), 2), value, np.float32)


def asked_never(obs):
    raise AssertionError("this policy must not be asked")


def first(obs, actions):
    """A Q-function: the first number of the action."""
    return actions[:, 0]


def behaviors(collector: QMPCollector, sink: Recorder, n_step: int) -> list[int]:
    collector.collect(n_step=n_step)
    return sink.column("behavior_ids")[-n_step:].tolist()


def collector_of(policies, q_functions=(first,), envs=None, task_ids=(0,), **options):
    sink = Recorder()
    envs = envs or endless(len(task_ids), vector=SnapshotVectorEnv)
    settings = {"task_ids": task_ids, "buffer": sink, "seed": 0, **options}
    return QMPCollector(envs, policies, list(q_functions), **settings), sink


HALF, MORE, MOST = constant(0.5), constant(0.625), constant(1.0)


# ---- trust ----


@pytest.mark.parametrize(("margin", "acts"), [(0.0, 1), (0.1, 1), (0.125, 0), (0.2, 0)])
def test_another_policy_must_beat_the_own_one_by_the_margin(margin, acts):
    """The other's score is higher by 0.125; what only equals the margin does not suffice."""
    assert behaviors(*collector_of([HALF, MORE], switch=QSwitch(margin=margin)), 3) == [acts] * 3


def test_a_margin_does_not_change_what_a_decision_gains():
    collector, _ = collector_of([HALF, MORE], switch=QSwitch(margin=0.0625))
    assert collector.collect(n_step=4).q_gap.tolist() == [0.125]


def test_hysteresis_keeps_who_acts_until_an_episode_ends():
    """Policy 1 is better by 0.25 at even steps, policy 0 at odd ones; episodes have 4 steps."""

    def q(obs, actions):
        return np.where((obs[:, 2] % 2 == 0) == (actions[:, 0] > 0.5), 0.25, 0.0)

    def run(hysteresis):
        envs = make_envs({"lengths": (4,)})
        return behaviors(*collector_of([HALF, MORE], [q], envs, switch=QSwitch(hysteresis=hysteresis)), 8)

    assert run(0.0) == [1, 0, 1, 0] * 2
    assert run(0.5) == [1, 1, 1, 1] * 2


def test_a_softmax_sees_raised_scores():
    """With a margin of 100 temperatures nobody else ever acts."""
    assert behaviors(*collector_of([HALF, MORE], switch=SoftmaxQSwitch(0.01, margin=1.0)), 50) == [0] * 50


@settings(deadline=None, max_examples=30)
@given(st.lists(st.lists(st.floats(-50, 50, width=16), max_size=3), min_size=1, max_size=30))
def test_the_spread_is_a_fading_standard_deviation(steps):
    spread, weights, values = Spread.nothing(2), np.zeros(0), np.zeros(0)
    for rows in steps:
        spread = spread.seen(np.ones(len(rows), np.int64), np.array(rows, np.float32))
        if rows:
            weights = np.append(weights * 0.99, np.full(len(rows), 0.01 / len(rows)))
            values = np.append(values, rows)
    expected = np.sqrt(np.cov(values, aweights=weights, ddof=0)) if len(values) > 1 else 0.0
    np.testing.assert_allclose(spread.std(), [0.0, expected], rtol=1e-5, atol=1e-4)


def test_a_relative_margin_means_the_same_at_any_scale():
    """Own scores alternate between 0 and 2 (times the scale), so their spread is 1; the other's are higher by 0.5."""

    def run(margin, scale):
        def q(obs, actions):
            return scale * (2.0 * (obs[:, 2] % 2) + 4.0 * (actions[:, 0] - 0.5))

        return behaviors(*collector_of([HALF, MORE], [q], switch=QSwitch(margin=margin, relative=True)), 60)[-20:]

    for scale in (1.0, 1000.0):
        assert run(0.4, scale) == [1] * 20
        assert run(0.6, scale) == [0] * 20


# ---- ensembles ----

PAIR = {"first": [3.0, 0.0], "mean": [2.0, 2.5], "min": [1.0, 0.0], "lcb": [1.0, 0.0], "max": [3.0, 5.0]}
REDUCE = {"lcb": lcb(1), "max": lambda values: values.max(axis=0)}


@pytest.mark.parametrize("form", ["list", "column", "batched", "discrete", "discrete batched"])
@pytest.mark.parametrize("reduce", PAIR)
def test_an_ensemble_becomes_one_score(reduce, form):
    """Of two critics, the first gives the candidates 3 and 0, the second 1 and 5."""
    seen: list[Candidates] = []

    class Looks:
        needs_scores, scoring = True, QSwitch(reduce=REDUCE.get(reduce, reduce))

        def choose(self, candidates):
            seen.append(candidates)
            return candidates.scores.argmax(axis=1)

    table = np.array([[3.0, 0.0], [1.0, 5.0]])

    def q(obs, *actions):
        if "discrete" in form:
            return np.repeat(table[:, None], len(obs), axis=1)
        index = (actions[0][..., 0] > 0.5).astype(int)
        return table[:, index][..., None] if form == "column" else table[:, index]

    discrete = gym.spaces.Discrete(2)
    envs = endless(2, action_space=discrete if "discrete" in form else BOX)
    policies: Any = [lambda obs: np.zeros(len(obs), int), lambda obs: np.ones(len(obs), int)]
    policies = policies if "discrete" in form else [HALF, MORE]
    sink = Recorder()
    batched = "batched" in form
    collector = QMPCollector(
        envs,
        (lambda obs: np.stack([p(obs) for p in policies], axis=1)) if batched else policies,
        (lambda obs, *rest: q(obs, *rest[:-1])) if batched else [q],
        task_ids=[0, 0],
        num_tasks=1,
        buffer=sink,
        switch=Looks(),
    )
    collector.collect(n_step=2)
    np.testing.assert_array_equal(seen[0].scores, [PAIR[reduce]] * 2)
    np.testing.assert_array_equal(seen[0].ensemble, np.repeat(table[:, None], 2, axis=1))
    assert sink.column("behavior_ids").tolist() == [int(np.argmax(PAIR[reduce]))] * 2


def test_an_ensemble_is_not_taken_for_something_else():
    twins = lambda obs, actions: np.stack([actions[:, 0], actions[:, 1]])  # noqa: E731
    with pytest.raises(ValueError, match=r'these are the values of 2 critics.*QSwitch\(reduce="min"\)'):
        collector_of([HALF, MORE], [twins])[0].collect(n_step=1)
    with pytest.raises(ValueError, match=r"q_functions\[0\] returned shape \(2,\), expected \('E', 2\)"):
        collector_of([HALF, MORE], switch=QSwitch(reduce="min"))[0].collect(n_step=1)
    wrong = QSwitch(reduce=lambda values: values[0, 0])
    with pytest.raises(ValueError, match=r"reduce must return one score a candidate, shape \(1, 2\), got \(2,\)"):
        collector_of([HALF, MORE], [twins], switch=wrong)[0].collect(n_step=1)
    pair = lambda obs, actions: (actions[:, 0], actions[:, 1])  # noqa: E731
    with pytest.raises(TypeError, match=r"shape \('E', 2\), got tuple: stack the values"):
        collector_of([HALF, MORE], [pair], switch=QSwitch(reduce="min"))[0].collect(n_step=1)
    with pytest.raises(ValueError, match="reduce must be one of"):
        QSwitch(reduce="max")  # type: ignore[arg-type]
    space = gym.spaces.Box(-1, 1, (4,), np.float32)
    check_callables([HALF, MORE], [twins, twins], space, BOX, num_tasks=2, reduce="min")


def test_a_function_that_reduces_may_sort_in_place_and_return_any_numbers():
    seen: list[Candidates] = []

    class Looks:
        needs_scores, scoring = True, QSwitch(reduce=lambda values: (values.sort(axis=0), values[0] > 0.55)[1])

        def choose(self, candidates):
            seen.append(candidates)
            return candidates.scores.argmax(axis=1)

    twins = lambda obs, actions: np.stack([actions[:, 0] + 1, actions[:, 0]])  # noqa: E731
    collector, sink = collector_of([HALF, MORE], [twins], switch=Looks())
    assert behaviors(collector, sink, 1) == [1]
    assert seen[0].ensemble.tolist() == [[[1.5, 1.625]], [[0.5, 0.625]]]
    assert collector.stats().q_gap.tolist() == [1.0]


def test_a_lower_bound_is_a_value():
    switch = QSwitch(reduce=lcb(0.5))
    assert pickle.loads(pickle.dumps(switch)) == switch == QSwitch(reduce=lcb(0.5)) != QSwitch(reduce=lcb(1.0))
    assert "reduce=lcb(0.5)" in repr(switch)
    with np.errstate(all="raise"):
        assert np.isnan(lcb(1.0)(np.array([[[np.inf]], [[0.0]]]))).all()


# ---- masks and gates ----


def test_a_matrix_says_who_may_act_in_which_task():
    policies = [HALF, constant(0.75), asked_never, MOST]
    allowed = [[True, True, False, False], [False, False, False, True]]
    collector, sink = collector_of(policies, [first, first], task_ids=[0, 1], candidate_mask=allowed)
    collector.collect(n_step=4)
    assert sink.column("behavior_ids").tolist() == [1, 3, 1, 3]


def test_a_row_without_candidates_falls_to_its_own_policy():
    collector, sink = collector_of([HALF, MORE, MOST], candidate_mask=[[False] * 3])
    assert behaviors(collector, sink, 3) == [0, 0, 0]
    broken = constant(np.nan)
    collector, sink = collector_of([HALF, broken], candidate_mask=[[False, True]])
    assert behaviors(collector, sink, 3) == [0, 0, 0]


def test_a_veto_of_the_own_policy_outweighs_its_probability():
    collector, sink = collector_of([HALF, MORE], own_probability=1.0, candidate_mask=[[False, True]])
    assert behaviors(collector, sink, 3) == [1, 1, 1]


def test_a_broken_choice_does_not_bring_back_a_masked_own_policy():
    """Policy 1 breaks from the third step on: policy 2 acts, drawn or held, and the own one never may."""
    breaks = lambda obs: np.where(obs[:, 2:3] < 2, 0.5, np.nan) * np.ones(2)  # noqa: E731
    mask, unseen = [[False, True, True]], FixedSwitch([[0.0, 1.0, 0.0]])
    for horizon in (1, 9):
        collector, sink = collector_of([HALF, breaks, MORE], candidate_mask=mask, switch=unseen, horizon=horizon)
        assert behaviors(collector, sink, 4) == [1, 1, 2, 2]


def test_a_commitment_ends_where_the_mask_says_so():
    """Policy 2 is best and holds for 10 steps, but may not act from the fourth step on."""

    def mask(obs, task_ids):
        return np.stack([obs[:, 2] >= 0, obs[:, 2] >= 0, obs[:, 2] < 3], axis=1)

    collector, sink = collector_of([HALF, MORE, MOST], candidate_mask=mask, horizon=10)
    assert behaviors(collector, sink, 5) == [2, 2, 2, 1, 1]


@pytest.mark.parametrize("switch", [UniformSwitch(), FixedSwitch([[0.0, 0.25, 0.25, 0.5]]), SoftmaxQSwitch(10.0)])
def test_switches_that_draw_never_draw_what_is_masked(switch):
    collector, sink = collector_of([HALF] * 4, switch=switch, candidate_mask=[[False, True, True, False]])
    counts = np.bincount(behaviors(collector, sink, 400), minlength=4)
    assert counts[[0, 3]].tolist() == [0, 0]
    assert counts.min(where=[False, True, True, False], initial=400) > 150  # a half each, at 5 standard deviations


def test_a_fixed_switch_whose_choices_are_all_masked_takes_any():
    switch = FixedSwitch([[1.0, 0.0, 0.0]])
    collector, sink = collector_of([HALF] * 3, switch=switch, candidate_mask=[[False, True, True]])
    assert set(behaviors(collector, sink, 100)) == {1, 2}


def test_a_switch_that_ignores_the_mask_is_told():
    switch = lambda scores, own, rng: np.full(len(own), 1)  # noqa: E731
    collector, _ = collector_of([HALF, MORE, MOST], switch=switch, candidate_mask=[[True, False, True]])
    with pytest.raises(ValueError, match="chose policy 1 for sub-environment 0, which candidate_mask forbids"):
        collector.collect(n_step=1)


@pytest.mark.parametrize(
    ("mask", "error", "said"),
    [
        ([[1, 0]], ValueError, r"booleans of shape \(1, K\).*got int64"),
        ([[True, False]] * 2, ValueError, r"booleans of shape \(1, K\), one row a task.*got bool of shape \(2, 2\)"),
        ([[True]], ValueError, r"shape \(1, 1\), but there are 2 policies"),
        (lambda obs, ids: np.ones((1, 3), bool), ValueError, r"booleans of shape \(1, 2\).*shape \(1, 3\)"),
        (lambda obs, ids: np.ones((1, 2)), ValueError, "got float64"),
        (SuccessGate, TypeError, "SuccessGate is a class"),
        (AtMost, TypeError, "AtMost is a class"),
        (all_of([[True, True]], [[True]]), ValueError, "two matrices of different shapes"),
    ],
)
def test_what_is_no_mask_is_refused(mask, error, said):
    with pytest.raises(error, match=said):
        collector_of([HALF, MORE], candidate_mask=mask)[0].collect(n_step=1)


def test_a_policy_lends_once_its_own_task_succeeds():
    """Success at step e % 4 of episode e: in task 0 of four steps always, in task 1 of two steps in half of them."""
    envs = make_envs({"lengths": (4,)}, {"lengths": (2,)})
    better = [lambda obs, actions: actions[:, 0], lambda obs, actions: -actions[:, 0]]  # each prefers the other

    def run(gate, steps=48):
        collector, sink = collector_of([HALF, MORE], better, envs, (0, 1), candidate_mask=gate)
        collector.collect(n_step=steps)
        foreign = sink.column("behavior_ids") != sink.column("task_ids")
        return foreign[sink.column("task_ids") == 0], foreign[sink.column("task_ids") == 1]

    in_0, in_1 = run(SuccessGate(0.6, episodes=4))
    assert in_0.tolist() == [False] * 2 + [True] * 6 + [False] * 16  # 1, 2 of 2, 2 of 3 and then 2 of the last 4
    assert in_1.tolist() == [False] * 4 + [True] * 20  # task 0 has one episode, a success, after four steps
    in_0, in_1 = run(SuccessGate(0.4, episodes=4))
    assert in_0.any()
    assert in_1.any()


def test_a_gate_of_successes_needs_flags():
    class Silent(CountingEnv):
        def step(self, action):
            return (*super().step(action)[:4], {})

        def reset(self, *, seed=None, options=None):
            return super().reset(seed=seed)[0], {}

    envs = gym.vector.SyncVectorEnv([lambda: Silent(lengths=(2,))], autoreset_mode="SameStep")
    collector, _ = collector_of([HALF, MORE], envs=envs, candidate_mask=SuccessGate())
    with pytest.raises(ValueError, match="SuccessGate: an episode ended and infos never held a success flag"):
        collector.collect(n_step=5)


def test_a_share_of_successes_that_equals_the_threshold_does_not_suffice():
    """29 of 100 are 0.29, and 0.29 * 100 is less than 29."""
    memory = SuccessGate(0.29, episodes=100).start(1)
    memory.ended(np.zeros(100, np.int64), np.arange(100) < 29, True)
    assert memory.lends(2).tolist() == [[False, True]]


def test_a_mask_of_tensors():
    requires_grad = lambda obs, ids: torch.tensor([[1.0, -1.0]], requires_grad=True).sigmoid() > 0.5  # noqa: E731
    assert behaviors(*collector_of([HALF, MORE], candidate_mask=requires_grad), 1) == [0]
    assert behaviors(*collector_of([HALF, MORE], candidate_mask=torch.tensor([[True, False]])), 1) == [0]


def test_a_matrix_of_another_width_is_refused_before_the_warm_up():
    with pytest.raises(ValueError, match=r"shape \(1, 3\), but there are 2 policies"):
        collector_of([HALF, MORE], candidate_mask=[[True] * 3], warmup_steps=1000)


@pytest.mark.parametrize("lends", [[True, True], np.ones((1, 2)), np.ones((1, 3), bool)])
def test_a_gate_of_the_callers_is_checked(lends):
    class Gate:
        arrays: ClassVar[dict[str, Any]] = {}
        start = stepped = lambda self, *seen: self

        def lends(self, num_policies):
            return lends

    with pytest.raises(ValueError, match=r"lends\(2\) must return booleans of shape \(1, 2\), one a task and policy"):
        collector_of([HALF, MORE], candidate_mask=Gate())[0].collect(n_step=1)


@pytest.mark.parametrize("share", [0.25, 0.5, 0.9])
def test_the_own_policy_keeps_its_share(share):
    collector, sink = collector_of([HALF, MORE], candidate_mask=OwnShareFloor(share, steps=100))
    own = np.array(behaviors(collector, sink, 2000)) == 0
    assert own[:5].tolist() == [False] * 5  # it begins at 1: the other one may act at once
    assert abs(own[1000:].mean() - share) < 0.02


def test_gates_go_on_where_they_were():
    gates = all_of(OwnShareFloor(0.5, steps=20), SuccessGate(0.3))

    def fresh():
        envs = make_envs({"lengths": (4,)}, {"lengths": (3,)}, vector=SnapshotVectorEnv)
        return collector_of(
            [HALF, MORE], [first, first], envs, (0, 1), candidate_mask=gates, horizon=UniformHorizon(1, 4)
        )

    whole, whole_sink = fresh()
    whole.collect(n_step=100)
    part, part_sink = fresh()
    part.collect(n_step=50)
    rest, rest_sink = fresh()
    rest.load_state_dict(part.state_dict())
    rest.collect(n_step=50)
    both = [*part_sink.column("behavior_ids"), *rest_sink.column("behavior_ids")]
    assert both == whole_sink.column("behavior_ids").tolist()
    ungated, _ = collector_of([HALF, MORE], [first, first], make_envs({}, {}, vector=SnapshotVectorEnv), (0, 1))
    with pytest.raises(ValueError, match="saved with gates in candidate_mask, this collector is without"):
        ungated.load_state_dict(part.state_dict())


def test_nobody_else_acts_for_too_long():
    """Policy 2 is best, then 1; the mask ends its commitments, and an episode's end its count."""

    def run(policies, mask, **options):
        return behaviors(*collector_of(policies, candidate_mask=mask, **options), 9)

    assert run([HALF, MORE, MOST], AtMost(3)) == [2, 2, 2, 1, 2, 2, 2, 1, 2]
    assert run([HALF, MORE, MOST], AtMost(3, of=[2])) == [2, 2, 2, 1, 2, 2, 2, 1, 2]
    assert run([HALF, MORE, MOST], AtMost(3, of=[0, 1])) == [2] * 9
    assert run([HALF, MORE], AtMost(3), horizon=2) == [1, 1, 1, 0, 0, 1, 1, 1, 0]
    assert run([MOST, HALF], AtMost(1)) == [0] * 9
    assert run([HALF, MORE, MOST], all_of(AtMost(3), AtMost(2), [[True, False, True]])) == [2, 2, 0] * 3
    assert run([HALF, MORE, MOST], all_of([[False, False, True]], AtMost(2))) == [2, 2, 0] * 3  # somebody has to
    assert run([HALF, MORE], AtMost(3), envs=make_envs({"lengths": (2, 5)})) == [1, 1, 1, 1, 1, 0, 1, 1, 1]
    assert run([HALF, MORE], AtMost(2), warmup_steps=3) == [0, 0, 0, 1, 1, 0, 1, 1, 0]


@pytest.mark.parametrize("mode", ["NextStep", "SameStep"])
def test_streaks_as_a_loop_over_rows_counts_them(mode):
    """What a predicate is shown, beside a count of what is stored; saved and restored in between."""
    counts: dict[int, list[int]] = {0: [-1, 0], 1: [-1, 0]}  # who acted last, for how many steps on end
    wrong: list[Any] = []

    def step(transitions):
        for env, who, *ends in zip(*(getattr(transitions, name).tolist() for name in FIELDS), strict=True):
            last, streak = counts[env]
            counts[env] = [-1, 0] if any(ends) else [who, streak + 1 if who == last else 1]
            if counts[env][1] > 3 and who != env:
                wrong.append(("for too long", env, who))

    def seen(candidates):
        for env, pair in enumerate(zip(candidates.previous.tolist(), candidates.streak.tolist(), strict=True)):
            if list(pair) != counts[env]:
                wrong.append((candidates.num_steps, env, pair, counts[env]))
        return candidates.held >= 2

    def fresh():
        envs = make_envs({"lengths": (9, 5)}, {"lengths": (7,)}, vector=SnapshotVectorEnv, mode=mode)
        return collector_of(
            [HALF, MORE, MOST],
            [first, first],
            envs,
            (0, 1),
            switch=SoftmaxQSwitch(1.0),
            horizon=Until(seen, cap=4),
            candidate_mask=AtMost(3),
            own_probability=0.1,
            on_step=step,
        )[0]

    collector = fresh()
    for _ in range(4):
        collector.collect(n_step=50)
        collector, state = fresh(), collector.state_dict()
        collector.load_state_dict(state)
    assert wrong == []


FIELDS = ("env_ids", "behavior_ids", "terminations", "truncations")

# ---- commitments ----


def runs_of(ids: list[int]) -> list[int]:
    """Lengths of the stretches of equal numbers."""
    borders = [0, *(np.flatnonzero(np.diff(ids)) + 1).tolist(), len(ids)]
    return np.diff(borders).tolist()


class Alternates:
    """Never the policy that acted last: stretches are commitments."""

    needs_scores = False

    def choose(self, candidates):
        return np.where(candidates.previous == 0, 1, 0)


def test_uniform_lengths():
    collector, sink = collector_of([HALF, MORE], switch=Alternates(), horizon=UniformHorizon(2, 4))
    lengths = runs_of(behaviors(collector, sink, 3000))[:-1]
    counts = np.bincount(lengths, minlength=5)
    assert counts[:2].tolist() == [0, 0]
    assert len(counts) == 5
    assert np.abs(counts[2:] / len(lengths) - 1 / 3).max() < 0.08  # 5 standard deviations of 1000 draws


def test_levy_lengths():
    """Probabilities of 1, 2, 3 and 4 steps as 1, 1/4, 1/9 and 1/16: 144, 36, 16 and 9 of 205."""
    collector, sink = collector_of([HALF, MORE], switch=Alternates(), horizon=LevyHorizon(2.0, cap=4))
    lengths = runs_of(behaviors(collector, sink, 2000))[:-1]
    counts = np.bincount(lengths, minlength=5)
    assert len(counts) == 5
    np.testing.assert_allclose(counts[1:] / len(lengths), np.array([144, 36, 16, 9]) / 205, atol=0.05)


def test_until_the_own_candidate_is_better():
    """Policy 1 is better before step 3 and from step 6 on."""

    def q(obs, actions):
        late = (obs[:, 2] >= 3) & (obs[:, 2] < 6)
        return np.where(late, -actions[:, 0], actions[:, 0])

    collector, sink = collector_of([HALF, MORE], [q], horizon=UntilOwnIsBetter())
    assert behaviors(collector, sink, 10) == [1, 1, 1, 0, 0, 0, 1, 1, 1, 1]
    uniform = {"switch": Alternates(), "horizon": UntilOwnIsBetter(cap=4)}  # it is the other's turn after each own step
    assert behaviors(*collector_of([HALF, MORE], [q], **uniform), 12) == [0, 1, 1, 0, 1, 0, 1, 1, 1, 1, 0, 1]


def test_until_somebody_says_so():
    collector, sink = collector_of([HALF, MORE], switch=Alternates(), horizon=Until(lambda c: c.obs[:, 2] % 4 == 0))
    assert behaviors(collector, sink, 10) == [0, 0, 0, 0, 1, 1, 1, 1, 0, 0]
    held = collector_of([HALF, MORE], switch=Alternates(), horizon=Until(lambda c: c.held >= 2, cap=9))
    assert behaviors(*held, 6) == [0, 0, 1, 1, 0, 0]
    wrong, _ = collector_of([HALF, MORE], horizon=Until(lambda c: [1.0]))
    with pytest.raises(ValueError, match=r"the predicate must return 1 booleans.*got float64"):
        wrong.collect(n_step=2)


@pytest.mark.parametrize(
    ("make", "error", "said"),
    [
        (lambda: UniformHorizon(3, 2), ValueError, "high must be at least 3, got 2"),
        (lambda: LevyHorizon(0.0), ValueError, "exponent must be a positive number"),
        (lambda: Until(lambda c: c.held > 3, cap=0), ValueError, "cap must be positive"),
        (lambda: collector_of([HALF], horizon=LevyHorizon), TypeError, "horizon is the class LevyHorizon"),
        (lambda: collector_of([HALF], horizon=1.5), TypeError, "horizon must be an integer"),
        (lambda: JumpStart(1, 2, then=QSwitch), TypeError, "then must be a switch such as"),
        (lambda: QSwitch(margin=[0.1]), TypeError, r"margin must be a number, got \[0.1\]"),
        (lambda: QSwitch(margin=-1.0), ValueError, "margin must be a finite number, at least 0"),
        (lambda: QSwitch(hysteresis=np.inf), ValueError, "hysteresis must be a finite number"),
        (lambda: lcb(-1.0), ValueError, "k must be a finite number"),
        (lambda: SuccessGate(1.5), ValueError, r"share of successes in \[0, 1\]"),
        (lambda: OwnShareFloor(0.0), ValueError, "above 0"),
    ],
)
def test_settings_that_cannot_be_meant(make, error, said):
    with pytest.raises(error, match=said):
        make()


def test_a_commitment_of_the_callers_is_checked():
    class Wrong:
        releases = needs_scores = False
        longest = 3

        def lengths(self, candidates, chosen):
            return np.array([4])

    with pytest.raises(ValueError, match="must give 1 lengths, 1 to 3, got"):
        collector_of([HALF, MORE], horizon=Wrong())[0].collect(n_step=1)


def test_unsigned_answers_stay_integers():
    """Beside int64, uint64 makes floats of both."""

    class Twice:
        releases = needs_scores = False
        longest = 3

        def lengths(self, candidates, chosen):
            return np.array([2], np.uint64)

    switch = lambda scores, own, rng: np.array([1], np.uint64)  # noqa: E731
    collector, sink = collector_of([HALF, MORE], switch=switch, horizon=Twice())
    assert behaviors(collector, sink, 3) == [1, 1, 1]
    assert collector.state_dict()["mixture"]["hold_left"].dtype == np.int64


def test_no_sharing_needs_no_scores_whatever_the_horizon():
    options = {"task_ids": [0, 0], "num_tasks": 1, "switch": OwnPolicy(), "horizon": UntilOwnIsBetter()}
    assert QMPCollector(endless(2), [HALF, MORE], None, **options).collect(n_step=2).mixture.tolist() == [[1.0, 0.0]]


# ---- switches that see more ----


def test_what_a_switch_sees():
    seen: list[Candidates] = []

    class Looks:
        needs_scores = True

        def choose(self, candidates):
            seen.append(candidates)
            candidates.obs[:] = candidates.scores[:] = np.nan  # its own copies
            return np.array([1, 1])

    envs = make_envs({"lengths": (2,)}, {"lengths": (9,)})
    collector, sink = collector_of([HALF, MORE], [first, first], envs, (0, 1), switch=Looks())
    collector.collect(n_step=6)
    last = seen[2]
    assert last.own.tolist() == [0, 1]
    assert last.task_ids.tolist() == [0, 1]
    assert last.previous.tolist() == [-1, 1]  # the first row's episode has just begun
    assert last.held.tolist() == [0, 1]
    assert last.streak.tolist() == [0, 2]
    assert last.episode_steps.tolist() == [0, 2]
    assert last.num_steps == 4
    assert last.actions[:, :, 0].tolist() == [[0.5, 0.625]] * 2
    assert last.allowed.all()
    assert last.ensemble is None
    assert not np.isnan(sink.column("obs")).any()


def test_what_is_chosen_where_nobody_asks_does_not_matter():
    class OnlyWhereAsked:
        needs_scores = False

        def choose(self, candidates):
            return np.where(candidates.asking, 1, -7)

    options = {"switch": OnlyWhereAsked(), "own_probability": 0.5, "task_ids": [0, 0, 0]}
    acted = behaviors(*collector_of([HALF, MORE], **options), 60)
    assert set(acted) == {0, 1}


def test_jump_start():
    """The guide acts for the first steps of every episode, fewer as collection goes on."""
    envs = make_envs({"lengths": (4,)})
    switch = JumpStart(guide=2, steps=lambda num_steps: 3 - num_steps // 4)
    collector, sink = collector_of([MORE, MOST, HALF], [first], envs, switch=switch)
    assert behaviors(collector, sink, 16) == [2, 2, 2, 0, 2, 2, 0, 0, 2, 0, 0, 0, 0, 0, 0, 0]
    then = JumpStart(guide=[2], steps=1, then=QSwitch())
    assert behaviors(*collector_of([MORE, MOST, HALF], envs=make_envs({"lengths": (4,)}), switch=then), 4) == [
        2,
        1,
        1,
        1,
    ]
    vetoed = {"switch": JumpStart(2, 2), "candidate_mask": [[True, True, False]]}
    assert behaviors(*collector_of([MORE, MOST, HALF], envs=make_envs({"lengths": (4,)}), **vetoed), 4) == [0] * 4
    never_own = {"switch": JumpStart(2, 2), "candidate_mask": [[False, True, True]]}
    assert behaviors(*collector_of([MORE, MOST, HALF], envs=make_envs({"lengths": (4,)}), **never_own), 4) == [
        2,
        2,
        1,
        1,
    ]
    with pytest.raises(ValueError, match=r"shape \(1,\), but there is a task 1: give one index, or one for each task"):
        collector_of([HALF, MORE], [first] * 2, task_ids=[0, 1], switch=JumpStart([1], 2))[0].collect(n_step=1)
    assert JumpStart(1, 2, then=lambda scores, own, rng: own).needs_scores
    with pytest.raises(ValueError, match="guide is 3, expected policy indices from 0 to 2"):
        collector_of([MORE, MOST, HALF], switch=JumpStart(3, 2))[0].collect(n_step=1)


# ---- helpers beside Gaussians ----


def test_a_policy_without_means_is_its_own_mean():
    """The own policy's mean scores 0.5 and its samples 1, the helper's only action 0.625."""
    gaussian = lambda obs: Proposal(MOST(obs), means=HALF(obs), entropies=np.ones(len(obs)))  # noqa: E731
    collector, sink = collector_of([gaussian, MORE])
    assert behaviors(collector, sink, 3) == [1, 1, 1]
    assert sink.column("actions")[:, 0].tolist() == [0.625] * 3


# ---- more policies ----


def test_a_policy_more():
    collector, sink = collector_of([HALF, MORE], candidate_mask=[[True, True]])
    assert behaviors(collector, sink, 2) == [1, 1]
    collector.add_policy(MOST)
    collector.add_policy(constant(2.0), tasks=[])
    assert collector.num_policies == 4
    assert behaviors(collector, sink, 2) == [2, 2]
    assert collector.stats().behavior_counts.tolist() == [[0, 2, 2, 0]]
    with pytest.raises(TypeError, match=r"policies\[4\] must be callable, got None"):
        collector.add_policy()


@pytest.mark.parametrize(
    ("tasks", "mask", "error", "said"),
    [
        ([1], [[True, True]], ValueError, "task ids from 0 to 0, got"),
        ([True], [[True, True]], ValueError, "task ids from 0 to 0, got"),
        ([-1], [[True, True]], ValueError, "each of tasks must be at least 0, got -1"),
        ([0.5], [[True, True]], TypeError, "each of tasks must be an integer, got 0.5"),
        ([0], None, ValueError, "which only a candidate_mask with a matrix can keep to"),
    ],
)
def test_tasks_that_cannot_be_meant_add_no_policy(tasks, mask, error, said):
    collector, sink = collector_of([HALF, MORE], candidate_mask=mask)
    with pytest.raises(error, match=said):
        collector.add_policy(MOST, tasks=tasks)
    assert behaviors(collector, sink, 2) == [1, 1]


def test_a_policy_more_where_there_are_none():
    def own(obs, ids):
        return np.zeros((len(obs), 2), np.float32)

    collector = QMPCollector(endless(1), None, None, task_ids=[0], own_policy=own, switch=OwnPolicy())
    with pytest.raises(TypeError, match="only own_policy acts: there are no candidates to add one to"):
        collector.add_policy(MOST)


def test_a_batched_callable_has_no_fewer_columns_than_the_state_that_was_loaded():
    def columns(*values):
        return lambda obs: np.broadcast_to(np.array(values, np.float32)[:, None], (len(obs), len(values), 2)).copy()

    collector, _ = collector_of(columns(0.5, 0.75, 1.0), num_tasks=1, horizon=9)
    collector.collect(n_step=2)
    fewer, _ = collector_of(columns(0.5, 0.75), num_tasks=1, horizon=9)
    fewer.load_state_dict(collector.state_dict())
    with pytest.raises(ValueError, match="expected at least 3, as many as the loaded state is of"):
        fewer.collect(n_step=1)


def test_masks_without_a_memory_come_and_go_between_states():
    plain, sink = collector_of([HALF, MORE])
    masked, masked_sink = collector_of([HALF, MORE], candidate_mask=[[True, False]])
    plain.collect(n_step=2)
    masked.load_state_dict(plain.state_dict())
    assert behaviors(masked, masked_sink, 2) == [0, 0]
    plain.load_state_dict(masked.state_dict())
    assert behaviors(plain, sink, 2) == [1, 1]


def test_a_batched_callable_with_a_column_more():
    width = [2]

    def policies(obs):
        values = np.array([0.5, 0.625, 1.0], np.float32)[: width[0]]
        return np.broadcast_to(values[None, :, None], (len(obs), width[0], 2)).copy()

    collector, sink = collector_of(policies, [lambda obs, actions: actions[:, 0]], num_tasks=1)
    assert behaviors(collector, sink, 1) == [1]
    with pytest.raises(TypeError, match="let it return one more candidate, and call add_policy"):
        collector.add_policy(MOST)
    width[0] = 3
    collector.add_policy()
    assert behaviors(collector, sink, 1) == [2]


def test_a_state_goes_into_more_policies_but_not_into_fewer():
    collector, _ = collector_of([HALF, MORE], horizon=3)
    collector.collect(n_step=4)
    state = collector.state_dict()
    more, sink = collector_of([HALF, MORE, MOST], horizon=3)
    more.load_state_dict(state)
    assert behaviors(more, sink, 5) == [1, 1, 2, 2, 2]  # the commitment goes on
    assert more.stats().behavior_counts.tolist() == [[0, 6, 3]]
    fewer, _ = collector_of([HALF])
    with pytest.raises(
        ValueError, match="the state is of 2 policies, this collector has 1: it may have more, not fewer"
    ):
        fewer.load_state_dict(state)


def test_states_of_before_there_was_held_for_load():
    collector, _ = collector_of([HALF, MORE], horizon=3)
    collector.collect(n_step=4)
    state = collector.state_dict()
    del state["mixture"]["held_for"], state["mixture"]["streak"], state["num_policies"]
    other, sink = collector_of([HALF, MORE], horizon=3)
    other.load_state_dict(state)
    assert behaviors(other, sink, 2) == [1, 1]


def test_no_sharing_asks_no_mask():
    def mask(obs, task_ids):
        raise AssertionError("only own policies act")

    collector, sink = collector_of([HALF, MORE], switch=OwnPolicy(), candidate_mask=mask)
    assert behaviors(collector, sink, 2) == [0, 0]
