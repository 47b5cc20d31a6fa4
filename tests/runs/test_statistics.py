"""Statistics of runs, against literal values, scipy's tests and simulations with a known truth."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from qmp_collect.runs.report.statistics import (
    Interval,
    area_under_curve,
    bootstrap,
    difference,
    half_width,
    holm,
    interquartile_mean,
    mean,
    mean_test,
    paired_difference,
    performance_profile,
    permutation_test,
    pooled_difference,
    pooled_test,
    probability_of_improvement,
    steps_to,
)

A, B = [0.9, 1.0, 0.8, 1.0, 0.95], [0.7, 0.8, 0.2, 0.9]


def test_mean_of_two_runs():
    # t(0.975, 1) = 12.7062; standard error 1 / 2
    assert mean([0.0, 1.0]) == pytest.approx((0.5, 0.5 - 6.3531, 0.5 + 6.3531), abs=1e-4)
    assert half_width(np.array([[0.0, 2.0], [1.0, 2.0]])) == pytest.approx([6.3531, 0.0], abs=1e-4)


def test_intervals_are_those_of_scipy():
    welch = stats.ttest_ind(A, B, equal_var=False).confidence_interval(0.95)
    assert difference(A, B) == pytest.approx((np.mean(A) - np.mean(B), welch.low, welch.high))
    paired = stats.ttest_rel(A[:4], B).confidence_interval(0.95)
    assert paired_difference(A[:4], B)[1:] == pytest.approx((paired.low, paired.high))
    assert difference([1.0, 1.0], [0.0, 0.0]) == Interval(1.0, 1.0, 1.0)
    assert difference(A, B).excludes(-1.0)
    assert not difference(A, B).excludes(0.2)


def test_pooled_difference_by_hand():
    # Differences 1 and 3. Variances of the four means, 1, 1, 4 and 0, over 2 squared: 1.5 in all; by Satterthwaite
    # 1.5 squared over 0.25 squared, twice, and 1 squared, with a degree of freedom each: 2. t(0.975, 2) = 4.30265
    pooled = pooled_difference([([1.0, 3.0], [0.0, 2.0]), ([2.0, 6.0], [1.0, 1.0])])
    assert pooled == pytest.approx((2.0, 2.0 - 4.30265 * math.sqrt(1.5), 2.0 + 4.30265 * math.sqrt(1.5)), abs=1e-4)
    with pytest.raises(ValueError, match="one pair"):
        pooled_difference([])


def test_spreads_of_any_size_give_an_interval():
    """Its freedom depends on proportions alone: squares of 1e-120 would be 0."""
    wide = pooled_difference([([0.0, 0.0], [0.0, 4.0])])
    tiny = pooled_difference([([0.0, 0.0], [0.0, 4e-120])])
    assert tiny == pytest.approx(tuple(1e-120 * np.array(wide)), rel=1e-12, abs=0.0)


STRATA = st.lists(
    st.tuples(*[st.lists(st.floats(-10, 10), min_size=2, max_size=5)] * 2),
    min_size=1,
    max_size=4,
)


@given(STRATA, st.lists(st.floats(-5, 5), min_size=4, max_size=4), st.randoms())
def test_pooling_asks_neither_for_levels_nor_for_an_order(pairs, levels, random):
    """A method's own level, added to both of its arms, says nothing about what sharing does."""
    first = pooled_difference(pairs)
    moved = [tuple([x + level for x in arm] for arm in pair) for pair, level in zip(pairs, levels, strict=False)]
    random.shuffle(moved)
    assert pooled_difference(moved) == pytest.approx(first, abs=1e-6)
    swapped = pooled_difference([(b, a) for a, b in pairs])
    assert swapped == pytest.approx((-first.estimate, -first.high, -first.low), abs=1e-6)
    assert first.estimate == pytest.approx(np.mean([np.mean(a) - np.mean(b) for a, b in pairs]), abs=1e-9)
    assert pooled_difference(pairs[:1]) == difference(*pairs[0])


def test_the_pooled_interval_covers_where_methods_differ():
    """Six methods of four runs an arm, with levels, spreads and effects of their own; the mean effect is 0.1."""
    rng = np.random.default_rng(0)
    effects, spreads = np.array([0.4, 0.3, 0.0, -0.1, 0.0, 0.0]), np.array([0.3, 0.05, 0.2, 0.1, 0.3, 0.2])
    covered, trials = 0, 1000
    for _ in range(trials):
        runs = rng.normal(size=(6, 2, 4)) * spreads[:, None, None] + rng.uniform(size=(6, 1, 1))
        runs[:, 0] += effects[:, None]
        covered += not pooled_difference(list(runs)).excludes(0.1)
    assert 0.93 <= covered / trials <= 0.98


def test_permutations_are_those_within_each_method():
    """Against all 6 x 6 relabellings of two methods with two runs an arm, counted one by one."""
    pairs = [([4.0, 7.0], [1.0, 5.0]), ([0.3, 0.9], [0.2, 0.5])]
    gaps = []
    for first in itertools.combinations(range(4), 2):
        for second in itertools.combinations(range(4), 2):
            gap = 0.0
            for (a, b), chosen in zip(pairs, (first, second), strict=True):
                every = [*a, *b]
                rest = [every[i] for i in range(4) if i not in chosen]
                gap += np.mean([every[i] for i in chosen]) - np.mean(rest)
            gaps.append(gap)
    exact = np.mean(np.abs(gaps) >= gaps[0] - 1e-9)
    assert permutation_test(pairs, 20_000) == pytest.approx(exact, abs=0.02)
    # methods whose levels differ a lot: shuffling across them would hide that QMP is better in each of them
    apart = [([1.1, 1.2, 1.3], [0.1, 0.2, 0.3]), ([101.1, 101.2, 101.3], [100.1, 100.2, 100.3])]
    assert permutation_test(apart, 20_000) == pytest.approx(2 / 20**2, abs=0.004)
    assert permutation_test([([1.0, 1.0], [1.0, 1.0])], 100) == 1.0


def test_p_values_are_those_of_scipy():
    assert pooled_test([(A, B)]) == pytest.approx(stats.ttest_ind(A, B, equal_var=False).pvalue)
    assert mean_test(A, 0.8) == pytest.approx(stats.ttest_1samp(A, 0.8).pvalue)
    assert [pooled_test([([1.0, 1.0], [x, x])]) for x in (1.0, 0.0)] == [1.0, 0.0]
    assert [mean_test([1.0, 1.0], x) for x in (1.0, 0.5)] == [1.0, 0.0]
    # of test_pooled_difference_by_hand: t = 2 / sqrt(1.5) with two degrees of freedom, p = 1 - t / sqrt(2 + t^2)
    assert pooled_test([([1.0, 3.0], [0.0, 2.0]), ([2.0, 6.0], [1.0, 1.0])]) == pytest.approx(1 - math.sqrt(4 / 7))


def test_runs_that_do_not_vary_are_not_made_to_by_rounding():
    """The mean of 0.1, three times, is 0.10000000000000002."""
    for n, x in itertools.product(range(2, 21), (0.01, 0.1, 0.57, 0.9, 0.95, 1234.5, -3e-7)):
        runs = [x] * n
        assert mean(runs) == (x, x, x)
        assert mean_test(runs, x) == mean_test([*runs[1:], x * (1 + 1e-15)], x) == 1.0
        assert mean_test(runs, x + abs(x) / 10) == 0.0
        assert pooled_test([(runs, [x] * 7)]) == pooled_test([(runs, [2 * x] * 3), ([2 * x] * 5, runs)]) == 1.0
        assert pooled_test([(runs, [1.1 * x] * 2)]) == 0.0
        assert difference(runs, [x] * 7) == (0.0, 0.0, 0.0)
        low, high = np.linspace(0.1, 0.9, n), np.linspace(0.1, 0.9, n) + x
        assert paired_difference(high, low) == pytest.approx((x, x, x))
        assert len(set(paired_difference(low * 3, low * 0.3 / 0.1))) == 1


@pytest.mark.parametrize(
    ("runs", "quantile"), [(2, 12.706), (5, 2.776), (10, 2.262), (11, 2.228), (12, 2.201), (20, 2.093), (30, 2.045)]
)
def test_half_width_is_students_at_any_number_of_runs(runs, quantile):
    """At eleven runs the normal's 1.96 would make intervals 12 % too narrow."""
    values = np.arange(runs, dtype=np.float64)
    deviation = math.sqrt(runs * (runs + 1) / 12)  # of 0, 1, ..., sample standard deviation
    assert half_width(values) == pytest.approx(quantile * deviation / math.sqrt(runs), rel=2e-4)


@pytest.mark.parametrize("call", [mean, lambda x: difference(A, x), lambda x: paired_difference(A, x)])
@pytest.mark.parametrize("runs", [[1.0], [[1.0, 2.0]]])
def test_too_few_runs(call, runs):
    with pytest.raises(ValueError, match="2 runs or more, got an array of shape"):
        call(runs)
    with pytest.raises(ValueError, match="as many runs on both sides, got 5 and 4"):
        paired_difference(A, B)


def test_interquartile_mean():
    assert interquartile_mean([0, 1, 2, 3, 4, 5, 6, 100]) == 3.5
    assert interquartile_mean([[0, 1], [2, 3], [4, 5], [6, 100]]) == 3.5


def test_probability_of_improvement():
    assert probability_of_improvement([1, 2], [0, 1]) == (1 + 0.5 + 1 + 1) / 4
    assert probability_of_improvement([[1, 0], [1, 0]], [[0, 1], [0, 1]]) == 0.5
    assert probability_of_improvement([1], [1]) == 0.5


@given(st.lists(st.floats(0, 1), min_size=1, max_size=6), st.lists(st.floats(0, 1), min_size=1, max_size=6))
def test_improvement_and_its_opposite_add_up(a, b):
    assert probability_of_improvement(a, b) + probability_of_improvement(b, a) == pytest.approx(1.0)


def test_performance_profile():
    assert performance_profile([[0.1, 0.5], [0.5, 0.9]], [0.0, 0.5, 0.9]).tolist() == [1.0, 0.25, 0.0]


def test_curves():
    steps = [0, 10, 30]
    assert area_under_curve(steps, [0.0, 1.0, 1.0]) == pytest.approx((5 + 20) / 30)
    assert area_under_curve(steps, [[0.0, 1.0, 1.0], [1.0, 1.0, 1.0]]) == pytest.approx([25 / 30, 1.0])
    assert steps_to([0, 1, 2, 3, 4], [0, 0.9, 0.8, 0.9, 0.95], 0.9) == 3
    assert steps_to([0, 1, 2, 3, 4], [0, 0.9, 0.8, 0.9, 0.95], 0.9, consecutive=1) == 1
    assert steps_to([0, 1], [0.0, 1.0], 0.9) == math.inf
    assert steps_to([0], [1.0], 0.9) == math.inf


def test_holm_by_hand():
    assert holm([0.01, 0.04, 0.03, 0.005]).tolist() == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.9, 0.8]).tolist() == [1.0, 1.0]


@given(st.lists(st.floats(0, 1), min_size=1, max_size=8))
def test_holm_keeps_the_order_and_never_helps(p):
    adjusted = holm(p)
    assert (adjusted >= np.asarray(p) - 1e-12).all()
    assert (adjusted <= 1).all()
    assert (np.diff(adjusted[np.argsort(p, kind="stable")]) >= -1e-12).all()


def test_bootstrap_draws_whole_runs_and_repeats_itself():
    scores = np.repeat(np.arange(4.0)[:, None], 3, axis=1)  # the tasks of a run agree
    seen = []

    def spread_within_runs(sample):
        seen.append(float(np.ptp(sample, axis=1).max()))
        return interquartile_mean(sample)

    first = bootstrap(spread_within_runs, scores, resamples=200)
    assert max(seen) == 0.0
    assert first == bootstrap(interquartile_mean, scores, resamples=200)
    assert first.estimate == 1.5
    assert bootstrap(probability_of_improvement, [1, 1], [0, 0], resamples=20) == Interval(1.0, 1.0, 1.0)


def task_by_task(scores: np.ndarray, rng: np.random.Generator) -> tuple[float, float]:
    """The interval of tools that take tasks to be independent: each task's score is drawn from another run."""
    runs, tasks = scores.shape
    rows = rng.integers(runs, size=(200, runs, tasks))
    drawn = np.sort(scores[rows, np.arange(tasks)].reshape(200, -1), axis=1)
    cut = drawn.shape[1] // 4
    low, high = np.quantile(drawn[:, cut : drawn.shape[1] - cut].mean(axis=1), [0.025, 0.975])
    return float(low), float(high)


def test_resampling_tasks_by_themselves_covers_too_rarely():
    """Ten runs of five tasks whose scores share most of their noise; the true interquartile mean is 0 by symmetry."""
    rng = np.random.default_rng(0)
    whole, apart, trials = 0, 0, 150
    for trial in range(trials):
        common, own = rng.normal(size=(10, 1)), rng.normal(size=(10, 5))
        scores = np.sqrt(0.8) * common + np.sqrt(0.2) * own
        interval = bootstrap(interquartile_mean, scores, resamples=200, seed=trial)
        whole += not interval.excludes(0.0)
        low, high = task_by_task(scores, rng)
        apart += low <= 0.0 <= high
    assert whole / trials >= 0.85  # nominally 0.95; ten runs are few
    assert apart / trials <= 0.75
