"""Statistics of training runs: intervals, comparisons, profiles.

The unit is one training run. The tasks of a multi-task run share networks, data or behaviour, so that their scores rise
and fall together; whatever is resampled here is resampled as whole runs. Drawing each task's score from another run, as
tools for independent tasks do, gives intervals that are far too narrow (`tests/runs/test_statistics.py` shows by how
much).

Scores are ``(R,)``, one number for each of ``R`` runs, or ``(R, T)`` with a column for each task.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from qmp_collect.extras import needs

with needs("report"):
    from scipy import integrate, stats

Floats = NDArray[np.float64]

Statistic = Callable[..., float]

CONFIDENCE = 0.95

_ROUNDING = 1e-9  # part of the largest number that runs must differ by to differ


class Interval(NamedTuple):
    """An estimate with its 95 % confidence interval."""

    estimate: float
    low: float
    high: float

    def excludes(self, value: float) -> bool:
        """Whether ``value`` lies outside."""
        return not self.low <= value <= self.high


def half_width(values: ArrayLike) -> Floats:
    """Half the width of the 95 % t interval of the mean over runs: ``(R, ...) -> (...)``, for ``R >= 2``."""
    runs = np.asarray(values, dtype=np.float64)
    if len(runs) < 2:
        raise ValueError(f"an interval needs 2 runs at least, got {len(runs)}")
    quantile = stats.t.ppf(0.5 + CONFIDENCE / 2, len(runs) - 1)
    half: Floats = quantile * np.sqrt(_moments(runs)[1] / len(runs))
    return half


def mean(values: ArrayLike) -> Interval:
    """Mean of ``(R,)`` runs with its t interval."""
    runs = _runs(values)
    return _around(float(_moments(runs)[0]), float(half_width(runs)))


def difference(a: ArrayLike, b: ArrayLike) -> Interval:
    """Mean of ``a`` less mean of ``b``, independent runs ``(R,)`` and ``(S,)``: Welch's t interval."""
    return pooled_difference([(a, b)])


def pooled_difference(pairs: Sequence[tuple[ArrayLike, ArrayLike]]) -> Interval:
    """Mean over ``M`` strata, methods say, of the difference of their two arms' means, ``(R,)`` and ``(S,)`` each.

    Welch's t interval with its degrees of freedom by Satterthwaite, over all ``2 M`` arms. Strata count alike, however
    many runs they have, and may differ in their means, spreads and effects: the estimate is about these strata, not
    about others that they would be drawn from. All runs are taken to be independent.
    """
    estimate, error, freedom = _pooled(pairs)
    return _around(estimate, float(stats.t.ppf(0.5 + CONFIDENCE / 2, freedom) * error) if error else 0.0)


def pooled_test(pairs: Sequence[tuple[ArrayLike, ArrayLike]]) -> float:
    """Two-sided p-value of no `pooled_difference`, by the same t statistic: of one pair it is Welch's test.

    Where the runs do not vary it is 0 or 1.
    """
    estimate, error, freedom = _pooled(pairs)
    if not error:
        largest = max(float(np.abs(_runs(arm)).max()) for pair in pairs for arm in pair)
        return float(abs(estimate) <= _ROUNDING * largest)
    return float(2.0 * stats.t.sf(abs(estimate) / error, freedom))


def _pooled(pairs: Sequence[tuple[ArrayLike, ArrayLike]]) -> tuple[float, float, float]:
    """The pooled difference, its standard error and degrees of freedom."""
    if not pairs:
        raise ValueError("expected one pair of arms at least")
    first, second = ([_runs(arm) for arm in arms] for arms in zip(*pairs, strict=True))
    estimate = float(np.mean([_moments(a)[0] - _moments(b)[0] for a, b in zip(first, second, strict=True)]))
    every = [*first, *second]
    parts = np.array([_moments(runs)[1] / len(runs) for runs in every]) / len(pairs) ** 2
    if not parts.any():
        return estimate, 0.0, math.inf
    shares = parts / parts.max()  # which neither underflow nor overflow when they are squared
    freedom = shares.sum() ** 2 / (shares**2 / [len(runs) - 1 for runs in every]).sum()
    return estimate, float(np.sqrt(parts.sum())), float(freedom)


def permutation_test(pairs: Sequence[tuple[ArrayLike, ArrayLike]], permutations: int = 100_000, seed: int = 0) -> float:
    """Two-sided p-value of `pooled_difference`'s estimate if, within each stratum, the runs' arms are exchangeable.

    Labels are shuffled within each stratum by itself, among whole runs; the observed labels are one of the shuffles.
    Unlike the interval this asks nothing of the scores' distribution, and it tests more than equal means: that sharing,
    say, changes nothing at all.
    """
    rng = np.random.default_rng(seed)
    shuffled, observed = np.zeros(permutations), 0.0
    for a, b in pairs:
        first, second = (np.asarray(arm, dtype=np.float64) for arm in (a, b))
        every = np.tile(np.concatenate([first, second]), (permutations, 1))
        every = rng.permuted(every, axis=1)
        shuffled += every[:, : len(first)].mean(axis=1) - every[:, len(first) :].mean(axis=1)
        observed += first.mean() - second.mean()
    as_far = np.abs(shuffled) >= abs(observed) - 1e-9  # sums of the same numbers in another order are equal
    return float((1 + as_far.sum()) / (1 + permutations))


def mean_test(values: ArrayLike, mean: float) -> float:
    """Two-sided p-value of this mean of ``(R,)`` runs, Student's. Where the runs do not vary it is 0 or 1."""
    runs = _runs(values)
    if _moments(runs)[1] == 0.0:
        return float(abs(runs[0] - mean) <= _ROUNDING * abs(mean))
    return float(stats.ttest_1samp(runs, mean).pvalue)


def paired_difference(a: ArrayLike, b: ArrayLike) -> Interval:
    """Mean of ``a - b`` for runs that belong together in pairs, ``(R,)`` each."""
    first, second = _runs(a), _runs(b)
    if len(first) != len(second):
        raise ValueError(f"pairs need as many runs on both sides, got {len(first)} and {len(second)}")
    differences = first - second
    differences[np.abs(differences) <= _ROUNDING * np.maximum(np.abs(first), np.abs(second))] = 0.0
    return mean(differences)


def interquartile_mean(values: ArrayLike) -> float:
    """Mean of the middle half of all scores, ``(R,)`` or ``(R, T)``."""
    scores = np.sort(np.asarray(values, dtype=np.float64), axis=None)
    cut = len(scores) // 4
    return float(scores[cut : len(scores) - cut].mean())


def bootstrap(statistic: Statistic, *samples: ArrayLike, resamples: int = 10_000, seed: int = 0) -> Interval:
    """A statistic of one or more arms with its percentile interval.

    Whole runs are drawn, with replacement, from each arm by itself. With five runs an arm such an interval covers less
    often than it says (about 85 % of the time), which no resampling can mend: show every run beside it.

    Args:
        statistic: of the arms' scores.
        samples: an arm's scores each, ``(R, ...)``.
        seed: of the draws, so that a report says the same twice.
    """
    arms = [np.asarray(sample, dtype=np.float64) for sample in samples]
    rng = np.random.default_rng(seed)
    draws = [statistic(*(arm[rng.integers(len(arm), size=len(arm))] for arm in arms)) for _ in range(resamples)]
    low, high = np.quantile(draws, [0.5 - CONFIDENCE / 2, 0.5 + CONFIDENCE / 2])
    return Interval(float(statistic(*arms)), float(low), float(high))


def probability_of_improvement(a: ArrayLike, b: ArrayLike) -> float:
    """How often a run of ``a`` beats one of ``b``, over all pairs; ties count half.

    Scores ``(R, T)`` are compared task by task, and the tasks averaged.
    """
    first, second = (np.asarray(x, dtype=np.float64).reshape(len(np.asarray(x)), -1) for x in (a, b))
    wins = np.sign(first[:, None] - second[None])
    return float((wins + 1).mean() / 2)


def performance_profile(values: ArrayLike, thresholds: ArrayLike) -> Floats:
    """Share of all scores that are above each of ``(P,)`` thresholds: ``(P,)``."""
    scores = np.asarray(values, dtype=np.float64).ravel()
    profile: Floats = (scores[None] > np.asarray(thresholds)[:, None]).mean(axis=1)
    return profile


def area_under_curve(steps: ArrayLike, values: ArrayLike) -> Floats:
    """Mean height of curves ``(..., P)`` over ``(P,)`` steps (trapezoidal)."""
    x = np.asarray(steps, dtype=np.float64)
    area: Floats = integrate.trapezoid(np.asarray(values, dtype=np.float64), x) / (x[-1] - x[0])
    return area


def steps_to(steps: ArrayLike, values: ArrayLike, threshold: float, consecutive: int = 2) -> float:
    """The first of ``(P,)`` steps from which a curve has so many points in a row at ``threshold`` or above, or inf."""
    above = np.asarray(values, dtype=np.float64) >= threshold
    if len(above) < consecutive:
        return float("inf")
    starts = np.lib.stride_tricks.sliding_window_view(above, consecutive).all(axis=1)
    return float(np.asarray(steps)[int(starts.argmax())]) if starts.any() else float("inf")


def holm(p_values: ArrayLike) -> Floats:
    """Holm's adjusted p-values of ``(H,)`` hypotheses: those below 0.05 are rejected at a family-wise 5 %."""
    p = np.asarray(p_values, dtype=np.float64)
    order = np.argsort(p)
    steps = np.maximum.accumulate(p[order] * np.arange(len(p), 0, -1))
    adjusted = np.empty_like(p)
    adjusted[order] = np.minimum(steps, 1.0)
    return adjusted


def _runs(values: ArrayLike) -> Floats:
    runs = np.asarray(values, dtype=np.float64)
    if runs.ndim != 1 or len(runs) < 2:
        raise ValueError(f"expected one score for each of 2 runs or more, got an array of shape {runs.shape}")
    return runs


def _moments(runs: Floats) -> tuple[Floats, Floats]:
    """Mean and variance over runs, ``(R, ...) -> (...)``. Of runs that rounding alone tells apart, exactly 0."""
    equal = np.ptp(runs, axis=0) <= _ROUNDING * np.abs(runs).max(axis=0)
    return np.where(equal, runs[0], runs.mean(axis=0)), np.where(equal, 0.0, runs.var(axis=0, ddof=1))


def _around(estimate: float, half: float) -> Interval:
    return Interval(estimate, estimate - half, estimate + half)
