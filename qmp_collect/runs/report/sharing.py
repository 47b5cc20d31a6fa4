"""Who acted for whom: the behaviour mixtures of an arm's runs over training."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from qmp_collect.runs.report.arms import Arm, Study
from qmp_collect.runs.report.runs import mixture_over_training
from qmp_collect.runs.report.tables import Table, interval

Floats = NDArray[np.float64]

WINDOWS = 40  # parts of training that a mixture is averaged in
TENTHS = 10


def mixtures(arm: Arm, windows: int) -> tuple[Floats, Floats] | None:
    """Borders ``(W + 1,)`` and mixtures ``(R, W, T, K)`` over training; `None` without a run that logged any.

    An arm of which no run is finished is shown up to where its shortest run is.
    """
    runs = []
    for run in arm.runs or arm.unfinished:
        try:
            runs.append((run, run.mixtures[0]))
        except ValueError:
            continue
    if not runs:
        return None
    ends = [float(steps[-1]) for _, steps in runs]
    end, logged = min(ends), min(int((steps <= min(ends)).sum()) for _, steps in runs)
    borders = np.linspace(0.0, end, min(windows, logged) + 1)
    inside = [mixture_over_training(run, np.append(borders, np.inf))[:-1] for run, _ in runs]
    return borders, np.stack(inside)


def shares(arm: Arm) -> bool:
    """Whether any policy ever acted in a task of another."""
    found = mixtures(arm, 1)
    if found is None:
        return False
    matrix = mean_over_runs(found[1])[0]
    return bool(np.nansum(matrix) - np.nansum(np.diagonal(matrix)) > 1e-6)


def average_contribution(arm: Arm) -> Floats | None:
    """Mean over training and runs of the share of task i's steps that policy j had, the diagonal zeroed: ``(T, K)``."""
    found = mixtures(arm, WINDOWS)
    if found is None:
        return None
    average = mean_over_runs(mean_over_runs(found[1]))  # over runs, then over windows
    np.fill_diagonal(average, 0.0)
    return average


def table(study: Study, tasks: Sequence[str]) -> Table:
    """Of each arm that shares: foreign actions in each task, early and late, and each policy's in the other tasks."""
    rows = []
    for arm in study.arms:
        found = mixtures(arm, TENTHS) if arm.runs and shares(arm) else None
        if found is None or len(found[0]) <= TENTHS:
            continue
        values = found[1]
        for task, name in enumerate(tasks):
            foreign = 1.0 - values[:, :, task, task]
            early, late = foreign[:, 1], foreign[:, -2:].mean(axis=1)
            elsewhere = np.delete(values[:, :, :, task], task, axis=2)
            rows.append(
                [
                    f"{arm.label}: {name}",
                    str(len(values)),
                    interval(early),
                    interval(late),
                    interval(late - early, signed=True),
                    interval(foreign.mean(axis=1)),
                    interval(elsewhere.mean(axis=(1, 2))) if len(tasks) > 1 else "",
                ]
            )
    return Table(
        "Share of steps in which another policy than the task's own acted",
        ["arm: task", "runs", "second tenth", "last fifth", "change", "whole run", "its policy in other tasks"],
        rows,
        "Of the run; mean over runs [95 % t interval; of the change, within runs]. The last column is the share of the "
        "other tasks' steps that this task's policy had, over the whole run.",
    )


def mean_over_runs(values: Floats) -> Floats:
    """``(R, ...) -> (...)``, of those runs that have a number; NaN, and no warning, where none has."""
    known = np.isfinite(values)
    sums, counts = np.where(known, values, 0.0).sum(axis=0), known.sum(axis=0)
    mean: Floats = np.divide(sums, counts, out=np.full(values.shape[1:], np.nan), where=counts > 0)
    return mean
