"""The numbers of a report as one long table: method, set, task, seed, metric, env_step, value."""

from __future__ import annotations

import csv
import re
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from qmp_collect.runs.report.arms import Study
from qmp_collect.runs.report.runs import Run

HEAD = ("method", "set", "task", "seed", "metric", "env_step", "value")
MEAN = "mean"  # stands for the mean over tasks

_EVALUATION = re.compile(r"eval/(?:(.+)/)?([^/]+)")

Row = tuple[str, str, str, str, str, int, float]


def write_csv(studies: Sequence[Study], path: Path) -> None:
    """All evaluations of the runs in the arms, and the share of foreign actions in each task between them."""
    with open(path, "w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(HEAD)
        for study in studies:
            for arm in study.arms:
                for run in (*arm.runs, *arm.unfinished):
                    writer.writerows((arm.label, *row) for row in _rows(run, study))


def _rows(run: Run, study: Study) -> Iterator[tuple[str, str, str, str, int, float]]:
    seed = "" if run.seed is None else str(run.seed)
    for tag in run.tags:
        if match := _EVALUATION.fullmatch(tag):
            for step, value in zip(*run.series(tag), strict=True):
                yield study.env_id, match[1] or MEAN, seed, f"eval/{match[2]}", int(step), float(value)
    try:
        steps, mixtures = run.mixtures
    except ValueError:
        return
    names = next((names for tag in run.tags if (names := run.tasks(tag))), [])
    for task in range(mixtures.shape[1]):
        name = names[task] if len(names) == mixtures.shape[1] else str(task)
        for step, share in zip(steps, 1.0 - mixtures[:, task, task], strict=True):
            if np.isfinite(share):
                yield study.env_id, name, seed, "qmp/foreign_fraction", int(step), round(float(share), 6)
