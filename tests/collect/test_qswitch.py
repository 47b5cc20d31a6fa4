"""Which policy acts: every form of the callables against a scalar brute force, and the switches against literals."""

from __future__ import annotations

import gymnasium as gym
import numpy as np
import pytest
from collect_envs import FIELDS, Recorder, endless, make_envs, policy, q_function
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from qmp_collect import FixedSwitch, Proposal, QMPCollector, QSwitch, SoftmaxQSwitch, UniformSwitch

WIDE = gym.spaces.Box(-100.0, 100.0, (1,), np.float64)
REACHER_DOMAIN = np.array(
    [
        [2 / 3, 1 / 3, 0, 0, 0],
        [1 / 3, 2 / 3, 0, 0, 0],
        [0, 0, 5 / 6, 1 / 6, 0],
        [0, 0, 1 / 6, 5 / 6, 0],
        [0, 0, 0, 0, 1],
    ]
)


# ---- random networks: list, batched, numpy, torch, all against one scalar loop ----


class Networks:
    """K policies (a mean head and a sample head) and T critics, two layers each, as stacked float64 weights."""

    def __init__(self, num_policies: int, num_tasks: int, seed: int) -> None:
        rng = np.random.default_rng(seed)
        self.body, self.mean, self.sample = (
            rng.normal(size=(num_policies, *shape)) for shape in ((4, 8), (8, 2), (8, 2))
        )
        self.q1, self.q2 = rng.normal(size=(num_tasks, 6, 16)), rng.normal(size=(num_tasks, 16))

    @staticmethod
    def unit(x):
        """Into the Box [0, 1]."""
        return x.tanh() / 2 + 0.5 if hasattr(x, "tanh") else np.tanh(x) / 2 + 0.5

    @staticmethod
    def double(obs):
        """Torch callables that are no modules are given PyTorch's default dtype."""
        return obs if isinstance(obs, np.ndarray) else obs.double()

    def as_torch(self) -> Networks:
        import torch

        copy = object.__new__(Networks)
        for name, value in vars(self).items():
            setattr(copy, name, torch.as_tensor(value))
        return copy

    def heads(self, obs, k):
        """(mean, sample) of policy k, each (M, 2)."""
        hidden = self.unit(self.double(obs) @ self.body[k])
        return self.unit(hidden @ self.mean[k]), self.unit(hidden @ self.sample[k])

    def score(self, obs, action, t):
        """(M,) or a scalar."""
        cat = np.concatenate if isinstance(obs, np.ndarray) else __import__("torch").cat
        return self.unit(cat([self.double(obs), action], -1) @ self.q1[t]) @ self.q2[t]

    def listed(self, proposes):
        def policy_of(k):
            def act(obs):
                mean, sample = self.heads(obs, k)
                return Proposal(sample, means=mean) if proposes == "mean" else sample

            return act

        policies = [policy_of(k) for k in range(len(self.body))]

        def q_of(t):
            # Odd critics answer (M, 1), as a network's last layer does.
            shape = (-1, 1) if t % 2 else (-1,)
            return lambda obs, actions: self.score(obs, actions, t).reshape(shape)

        return policies, [q_of(t) for t in range(len(self.q2))]

    def batched(self, proposes):
        stack = np.stack if isinstance(self.body, np.ndarray) else __import__("torch").stack

        def policies(obs):
            means, samples = (
                stack(heads, 1) for heads in zip(*(self.heads(obs, k) for k in range(len(self.body))), strict=True)
            )
            return Proposal(samples, means=means) if proposes == "mean" else samples

        def qs(obs, actions, task_ids):
            assert actions.shape == (len(obs), len(self.body), 2)
            assert task_ids.shape == (len(obs),)
            rows = [
                stack([self.score(obs[i], actions[i, k], int(t)) for k in range(len(self.body))])
                for i, t in enumerate(task_ids)
            ]
            return stack(rows)

        return policies, qs

    def by_hand(self, obs, task, proposes):
        """(behaviour id, executed action) for one state."""
        heads = [self.heads(obs[None], k) for k in range(len(self.body))]
        scores = [float(self.score(obs[None], m if proposes == "mean" else s, task)[0]) for m, s in heads]
        best = task if scores[task] == max(scores) else int(np.argmax(scores))
        return best, heads[best][1][0]


@pytest.mark.parametrize("proposes", ["mean", "sample"])
@pytest.mark.parametrize("backend", ["numpy", "torch"])
@pytest.mark.parametrize("form", ["listed", "batched"])
@pytest.mark.parametrize(
    ("num_envs", "num_tasks", "num_policies"),
    [(1, 1, 1), (1, 1, 3), (2, 2, 2), (3, 3, 5), (6, 2, 4), (7, 3, 3), (10, 10, 10), (50, 50, 50)],
    ids=str,
)
def test_every_form_is_the_brute_force_q_switch(num_envs, num_tasks, num_policies, form, backend, proposes):
    if backend == "torch":
        pytest.importorskip("torch")
    nets = Networks(num_policies, num_tasks, seed=num_envs)
    policies, qs = getattr(nets.as_torch() if backend == "torch" else nets, form)(proposes)
    task_ids = np.random.default_rng(1).permutation(np.arange(num_envs) % num_tasks)
    sink = Recorder()
    collector = QMPCollector(
        endless(num_envs), policies, qs, task_ids=task_ids, num_tasks=num_tasks, buffer=sink, backend=backend
    )
    collector.reset(seed=11)
    collector.collect(n_step=3 * num_envs)

    rows = sink.columns()
    chosen, executed = zip(
        *(nets.by_hand(o, t, proposes) for o, t in zip(rows["obs"], rows["task_ids"], strict=True)), strict=True
    )
    np.testing.assert_array_equal(rows["task_ids"], np.tile(task_ids, 3))
    np.testing.assert_array_equal(rows["behavior_ids"], chosen)
    np.testing.assert_allclose(rows["actions"], executed, rtol=1e-6)
    if num_policies >= 10:
        assert len(set(chosen)) > 1, "the networks are meant to disagree"


@pytest.mark.parametrize("backend", ["numpy", "torch"])
@pytest.mark.parametrize("form", ["listed", "batched"])
@pytest.mark.parametrize("start", [0, 3, -2])
def test_discrete_actions_gather_their_own_q_column(form, backend, start):
    space = gym.spaces.Discrete(5, start=start)
    task_ids = np.array([2, 0, 1, 1])
    policies, qs = [policy(k, space) for k in range(4)], [q_function(t, space) for t in range(3)]
    scalar_policies, scalar_qs = policies, qs
    if backend == "torch":
        torch = pytest.importorskip("torch")

        def wrap(f):
            return lambda obs: torch.as_tensor(f(obs.numpy()))

        policies, qs = [wrap(p) for p in policies], [wrap(q) for q in qs]
        stack = torch.stack
    else:
        stack = np.stack
    if form == "batched":
        lists = policies, qs

        def policies(obs):
            return stack([p(obs) for p in lists[0]], 1)

        def qs(obs, *_task_ids):
            return stack([lists[1][t](obs[i : i + 1])[0] for i, t in enumerate(task_ids)])

    sink = Recorder()
    collector = QMPCollector(
        endless(4, action_space=space), policies, qs, task_ids=task_ids, num_tasks=3, buffer=sink, backend=backend
    )
    collector.reset(seed=5)
    collector.collect(n_step=40)
    rows = sink.columns()
    proposals = np.stack([p(rows["obs"]) for p in scalar_policies], 1)
    tables = np.stack([scalar_qs[t](o[None])[0] for o, t in zip(rows["obs"], rows["task_ids"], strict=True)])
    scores = np.take_along_axis(tables, proposals - start, 1)
    own = np.take_along_axis(scores, rows["task_ids"][:, None], 1)[:, 0]
    chosen = np.where(own == scores.max(1), rows["task_ids"], scores.argmax(1))
    np.testing.assert_array_equal(rows["behavior_ids"], chosen)
    np.testing.assert_array_equal(rows["actions"], np.take_along_axis(proposals, chosen[:, None], 1)[:, 0])
    assert rows["actions"].min() >= start
    assert len(set(chosen.tolist())) > 1


def test_permuting_the_sub_envs_permutes_the_results():
    """Several envs per task; the order of the envs is a name and nothing more."""
    settings_, tasks = [{"lengths": (n,), "env_id": n} for n in (4, 3, 5, 2, 6)], np.array([1, 0, 1, 2, 0])
    orders = [np.arange(5), np.array([3, 0, 4, 1, 2])]
    results = []
    for order in orders:
        sink = Recorder()
        collector = QMPCollector(
            make_envs(*[settings_[i] for i in order]),
            [policy(k) for k in range(3)],
            [q_function(t) for t in range(3)],
            task_ids=tasks[order],
            buffer=sink,
        )
        collector.reset(seed=[100 + int(i) for i in order])
        collector.collect(n_step=60)
        results.append(sink)
    for place, i in enumerate(orders[1]):
        ours, theirs = results[1].of_env(place), results[0].of_env(i)
        for field in set(FIELDS) - {"env_ids"}:
            np.testing.assert_array_equal(ours[field], theirs[field], err_msg=field)


# ---- score tables: batched callables that propose action k and score it as a table says ----


def drive(scores, task_ids, *, actions=None, means=None, entropies=None, **kwargs):
    """Run one vector step per table in `scores` (S, N, K); returns (behaviour ids (S, N), the sink, the collector)."""
    scores = np.asarray(scores, float)
    steps, num_envs, num_policies = scores.shape
    sink, tables = Recorder(), iter(scores)

    def policies(obs):
        ks = np.broadcast_to(np.arange(num_policies, dtype=float)[:, None], (len(obs), num_policies, 1))
        spread = None if entropies is None else np.broadcast_to(np.asarray(entropies, float), (len(obs), num_policies))
        return ks if spread is None else Proposal(ks, entropies=spread)

    collector = QMPCollector(
        endless(num_envs, action_space=WIDE),
        policies,
        lambda obs, actions, task_ids: next(tables),
        task_ids=task_ids,
        num_tasks=max(task_ids) + 1,
        buffer=sink,
        seed=0,
        **kwargs,
    )
    collector.reset(seed=0)
    collector.collect(n_step=steps * num_envs)
    ids = sink.column("behavior_ids").reshape(steps, num_envs)
    np.testing.assert_array_equal(sink.column("actions").reshape(steps, num_envs), ids)
    return ids, sink, collector


nan, inf = np.nan, np.inf


@pytest.mark.parametrize(
    ("scores", "own", "chosen"),
    [
        ([1.0, 1.0, 1.0], 1, 1),
        ([2.0, 1.0, 2.0], 2, 2),
        ([2.0, 1.0, 2.0], 0, 0),
        ([-0.0, 0.0, 0.0], 1, 1),
        ([2.0, 1.0, 2.0], 1, 0),
        ([0.0, 1.0, 2.0, 3.0], 0, 3),
        ([nan, 1.0, 0.0], 1, 1),
        ([inf, 1.0, 0.0], 1, 1),
        ([-inf, 1.0, 0.0], 1, 1),
        ([nan, -9.0, -8.0], 1, 2),
        ([inf, -9.0, nan], 1, 1),
        ([inf, -9.0, -8.0, nan], 1, 2),
        ([-1e308, -1e308, -1e307], 0, 2),
    ],
    ids=str,
)
def test_argmax_with_ties_to_the_own_policy_and_non_finite_losers(scores, own, chosen):
    filler = [0.0] * len(scores)  # two more tasks around the one under test, so that a row mix-up shows
    filler[0] = -1.0
    table = [[scores, filler, filler]]
    tasks = [own, 1, 2] if own != 0 else [0, 1, 2]
    ids, _, _ = drive(table, tasks)
    assert ids[0].tolist() == [chosen, 1, 2]


@settings(max_examples=200, deadline=None, derandomize=True, database=None)
@given(
    hnp.arrays(
        np.float64,
        hnp.array_shapes(min_dims=2, max_dims=2, max_side=6),
        elements=st.sampled_from([-2.0, -1.0, 0.0, 1.0, 1.0 + 2**-52]),
    ),
    st.randoms(use_true_random=False),
)
def test_the_switch_alone_is_argmax_with_ties_to_own(scores, random):
    own = np.array([random.randrange(scores.shape[1]) for _ in scores])
    ids = QSwitch()(scores, own, np.random.default_rng(0))
    assert ids.shape == own.shape
    assert np.issubdtype(ids.dtype, np.integer)
    for row, o, chosen in zip(scores, own, ids, strict=True):
        best = [k for k, score in enumerate(row) if score == max(row)]
        assert chosen == (o if o in best else best[0])


def test_q_gap_and_behavior_counts_are_literal():
    """Task 0 gains 3 and 0 over two steps of two envs, then 1 and 0; task 1 never leaves its own policy."""
    scores = [
        [[1.0, 4.0, 0.0], [5.0, 5.0, 5.0], [2.0, 7.0, nan]],
        [[0.0, -1.0, 1.0], [0.0, 0.0, 0.0], [3.0, 9.0, 9.0]],
    ]
    ids, _, collector = drive(scores, [0, 0, 1])
    assert ids.tolist() == [[1, 0, 1], [2, 0, 1]]
    stats = collector.stats()
    np.testing.assert_array_equal(stats.behavior_counts, [[2, 1, 1], [0, 2, 0]])
    np.testing.assert_allclose(stats.q_gap, [(3 + 0 + 1 + 0) / 4, 0.0])
    np.testing.assert_allclose(stats.mixture, [[0.5, 0.25, 0.25], [0, 1, 0]])


@pytest.mark.parametrize(
    ("switch", "chosen"),
    [
        (QSwitch(), [0, 1]),
        (QSwitch(entropy_weight=0.5), [0, 1]),
        (QSwitch(entropy_weight=1.0), [2, 2]),
        (QSwitch(entropy_weight=np.array([0.0, 1.0])), [0, 2]),
        (QSwitch(entropy_weight=np.array([1.0, 0.0])), [2, 1]),
        (QSwitch(entropy_weight=lambda: 1.0), [2, 2]),
        (QSwitch(entropy_weight=lambda: np.array([1.0, 0.0])), [2, 1]),
    ],
)
def test_entropy_weight_adds_alpha_times_entropy(switch, chosen):
    """Policy 2 is worse by 1 in both tasks and more random by 1.5."""
    ids, _, _ = drive([[[1.0, 0.5, 0.0], [0.5, 1.0, 0.0]]], [0, 1], entropies=[0.0, 0.0, 1.5], switch=switch)
    assert ids[0].tolist() == chosen


def test_a_callable_entropy_weight_is_read_at_every_step():
    weights = iter([0.0, 1.0, 0.0])
    table = [[[1.0, 0.5, 0.0]]] * 3
    ids, _, _ = drive(table, [0], entropies=[0.0, 0.0, 1.5], switch=QSwitch(entropy_weight=lambda: next(weights)))
    assert ids[:, 0].tolist() == [0, 2, 0]


@pytest.mark.parametrize(
    ("score", "has_means", "chosen"),
    [("auto", True, 0), ("mean", True, 0), ("sample", True, 2), ("auto", False, 2), ("sample", False, 2)],
)
@pytest.mark.parametrize("form", ["listed", "batched"])
def test_what_is_scored_and_what_is_executed(form, score, has_means, chosen):
    """Policy k samples k and has the mean -k; Q is the action, so means and samples disagree about who is best.

    Whatever is scored, the chosen policy's *sample* is executed.
    """

    def propose(obs, ks):
        samples = np.broadcast_to(np.asarray(ks, float)[..., None], (len(obs), *np.shape(ks), 1))
        return Proposal(samples, means=-samples) if has_means else samples

    if form == "listed":
        policies = [lambda obs, k=k: propose(obs, k) for k in range(3)]
        qs = [lambda obs, actions: actions[:, 0]] * 2
    else:

        def policies(obs):
            return propose(obs, [0, 1, 2])

        def qs(obs, actions, task_ids):
            return actions[..., 0]

    sink = Recorder()
    collector = QMPCollector(
        endless(2, action_space=WIDE),
        policies,
        qs,
        num_tasks=2,
        task_ids=[0, 1],
        buffer=sink,
        switch=QSwitch(score=score),
    )
    collector.reset(seed=0)
    collector.collect(n_step=2)
    # 0 is the largest mean and 2 the largest sample.
    assert sink.column("behavior_ids").tolist() == [chosen, chosen]
    assert sink.column("actions")[:, 0].tolist() == [chosen, chosen]


@pytest.mark.parametrize(("high", "foreign_share"), [(0.9, 0.0), (1.2, 1.0)])
@pytest.mark.parametrize("with_means", [False, True])
def test_samples_average_q_over_sampled_actions(high, foreign_share, with_means):
    """Policy 1's samples score 0 and `high` in turn, their average lies at high / 2; the own policy scores 0.5.

    One sample per decision would choose policy 1 half of the time; its mean action, scoring 0, never.
    """
    turn = iter(range(10**6))

    def alternating(obs):
        samples = np.array([[high * (next(turn) % 2)] for _ in obs])
        return Proposal(samples, means=np.zeros_like(samples)) if with_means else samples

    def own(obs):
        samples = np.full((len(obs), 1), 0.5)
        return Proposal(samples, means=samples) if with_means else samples

    sink = Recorder()
    collector = QMPCollector(
        endless(1, action_space=WIDE),
        [own, alternating],
        [lambda obs, actions: actions[:, 0]],
        task_ids=[0],
        buffer=sink,
        switch=QSwitch(samples=10),
    )
    collector.reset(seed=0)
    collector.collect(n_step=20)
    assert sink.column("behavior_ids").mean() == foreign_share
    np.testing.assert_allclose(collector.stats().q_gap, [foreign_share * (high / 2 - 0.5)])
    allowed = {0.5} if foreign_share == 0 else {0.0, high}
    assert set(sink.column("actions")[:, 0].tolist()) <= allowed


def test_sampling_ten_actions_keeps_rows_apart():
    """Expected Q with several tasks and policies: the best expected score wins in every row."""
    nets = Networks(3, 2, seed=8)
    policies, qs = nets.listed("sample")
    sinks = []
    for switch in (QSwitch(), QSwitch(samples=4)):  # deterministic policies: four samples are one sample
        sinks.append(Recorder())
        collector = QMPCollector(
            endless(5), policies, qs, task_ids=[0, 1, 1, 0, 1], buffer=sinks[-1], switch=switch, backend="numpy"
        )
        collector.reset(seed=2)
        collector.collect(n_step=50)
    assert set(sinks[0].column("behavior_ids")) == {0, 1, 2}
    np.testing.assert_array_equal(sinks[0].column("behavior_ids"), sinks[1].column("behavior_ids"))


# ---- random switches ----


def frequencies(switch, scores, task_ids, *, num_policies=3):
    """Chosen policies of 20 vector steps, in which every sub-env decides for itself."""
    table = np.broadcast_to(np.zeros(num_policies) if scores is None else scores, (20, len(task_ids), num_policies))
    ids, _, _ = drive(table, task_ids, switch=switch)
    return ids.ravel()


def assert_frequencies(ids, probs):
    """Every share within four standard deviations of its literal probability, and impossible ones never drawn."""
    probs = np.asarray(probs, float)
    counts = np.bincount(ids, minlength=len(probs))
    assert len(counts) == len(probs)
    spread = np.sqrt(len(ids) * probs * (1 - probs))
    assert (np.abs(counts - len(ids) * probs) <= 4 * spread).all(), (counts / len(ids), probs)


@pytest.mark.parametrize(
    ("temperature", "scores", "probs"),
    [
        (1.0, [0.0, np.log(2), np.log(5)], [1 / 8, 2 / 8, 5 / 8]),
        (0.5, [0.0, np.log(2), np.log(5)], [1 / 30, 4 / 30, 25 / 30]),
        (2.0, [0.0, 2 * np.log(3), -inf], [1 / 4, 3 / 4, 0.0]),
        (1.0, [1e6, 1e6 + np.log(3), -1e6], [1 / 4, 3 / 4, 0.0]),
        (1e-3, [-2000.0, 1000.0, 999.0], [0.0, 1.0, 0.0]),
    ],
)
def test_softmax_frequencies(temperature, scores, probs):
    assert_frequencies(frequencies(SoftmaxQSwitch(temperature), scores, np.zeros(200, int)), probs)


def test_softmax_scores_rows_independently():
    scores = np.array([[0.0, 50.0, 0.0], [50.0, 0.0, 0.0], [0.0, 0.0, 50.0]])
    ids = SoftmaxQSwitch(1.0)(np.tile(scores, (100, 1)), np.zeros(300, int), np.random.default_rng(0))
    np.testing.assert_array_equal(ids, np.tile([1, 0, 2], 100))


def test_softmax_never_draws_a_non_finite_candidate():
    table = np.tile([[nan, 0.0, inf, -inf, 0.0]], (500, 1, 1))
    ids, _, _ = drive(table, [1], switch=SoftmaxQSwitch(1.0))
    assert set(ids[:, 0]) == {1, 4}


def test_uniform_frequencies():
    ids = frequencies(UniformSwitch(), None, np.arange(200) % 2, num_policies=4)
    assert_frequencies(ids[::2], [0.25] * 4)
    assert_frequencies(ids[1::2], [0.25] * 4)


def test_fixed_frequencies_are_the_rows_of_the_domain_matrix():
    ids = frequencies(FixedSwitch(REACHER_DOMAIN), None, np.arange(250) % 5, num_policies=5)
    for task, probs in enumerate(REACHER_DOMAIN):
        assert_frequencies(ids[task::5], probs)


def test_fixed_switch_draws_each_row_from_its_own_task():
    probs = np.array([[0.0, 1.0, 0.0], [0.0, 0.0, 1.0], [0.5, 0.0, 0.5]])
    ids, _, _ = drive(np.zeros((60, 3, 3)), [2, 0, 1], switch=FixedSwitch(probs))
    assert set(ids[:, 1]) == {1}
    assert set(ids[:, 2]) == {2}
    assert set(ids[:, 0]) == {0, 2}


@pytest.mark.parametrize("switch", [UniformSwitch(), FixedSwitch(np.full((2, 3), 1 / 3))], ids=["uniform", "fixed"])
def test_switches_without_scores_never_call_q(switch):
    def q(*_):
        raise AssertionError("asked for a score that nobody needs")

    assert not switch.needs_scores
    sink = Recorder()
    collector = QMPCollector(
        endless(2), [policy(k) for k in range(3)], [q, q], task_ids=[0, 1], buffer=sink, switch=switch, seed=0
    )
    collector.reset(seed=0)
    collector.collect(n_step=100)
    assert set(sink.column("behavior_ids")) == {0, 1, 2}
    rows = sink.columns()
    for k in range(3):
        where = rows["behavior_ids"] == k
        np.testing.assert_array_equal(rows["actions"][where], policy(k)(rows["obs"][where]))


def test_a_users_own_switch_is_given_scores_tasks_and_the_generator():
    """Any callable with `needs_scores` is a switch; it may pick the worst."""
    seen = []

    class Worst:
        needs_scores = True

        def __call__(self, scores, own, rng):
            seen.append((scores.copy(), own.copy(), rng))
            return scores.argmin(1)

    table = [[[3.0, 1.0, 2.0], [0.0, 5.0, 4.0]]]
    ids, _, _ = drive(table, [0, 1], switch=Worst())
    assert ids[0].tolist() == [1, 0]
    scores, own, rng = seen[0]
    np.testing.assert_array_equal(scores, table[0])
    assert own.tolist() == [0, 1]
    assert isinstance(rng, np.random.Generator)
