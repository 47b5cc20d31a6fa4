"""Statistics of runs, against literal values, scipy's tests and simulations with a known truth."""

from __future__ import annotations

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
    paired_difference,
    performance_profile,
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
    rows = rng.integers(runs, size=(400, runs, tasks))
    drawn = np.sort(scores[rows, np.arange(tasks)].reshape(400, -1), axis=1)
    cut = drawn.shape[1] // 4
    low, high = np.quantile(drawn[:, cut : drawn.shape[1] - cut].mean(axis=1), [0.025, 0.975])
    return float(low), float(high)


def test_resampling_tasks_by_themselves_covers_too_rarely():
    """Ten runs of five tasks whose scores share most of their noise; the true interquartile mean is 0 by symmetry."""
    rng = np.random.default_rng(0)
    whole, apart, trials = 0, 0, 300
    for trial in range(trials):
        common, own = rng.normal(size=(10, 1)), rng.normal(size=(10, 5))
        scores = np.sqrt(0.8) * common + np.sqrt(0.2) * own
        interval = bootstrap(interquartile_mean, scores, resamples=400, seed=trial)
        whole += not interval.excludes(0.0)
        low, high = task_by_task(scores, rng)
        apart += low <= 0.0 <= high
    assert whole / trials >= 0.85  # nominally 0.95; ten runs are few
    assert apart / trials <= 0.75
