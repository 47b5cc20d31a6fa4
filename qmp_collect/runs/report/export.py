"""The numbers of a report as one long table (method, set, task, seed, metric, env_step, value), and its tables."""

from __future__ import annotations

import csv
import re
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from qmp_collect.runs.report.arms import Study
from qmp_collect.runs.report.runs import Run
from qmp_collect.runs.report.tables import Table

HEAD = ("method", "set", "task", "seed", "metric", "env_step", "value")
MEAN = "mean"  # stands for the mean over tasks

_EVALUATION = re.compile(r"eval/(?:(.+)/)?([^/]+)")

# 0.500 [-0.771, 1.771], and whatever is said of it; of one run there is an estimate alone
_INTERVAL = re.compile(r"([-+]?[\d.]+) \[(?:([-+]?[\d.]+), ([-+]?[\d.]+)|\d runs?)\].*")

Shown = tuple[str, Table]  # task set, and a table of it
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


def write_tables(shown: Sequence[Shown], folder: Path) -> None:
    """The tables of a page, each with the task set that it is of: ``tables.md`` and ``intervals.csv``.

    The latter has a line for each cell: its text, and where it is an interval the three numbers, as they are shown.
    """
    with open(folder / "intervals.csv", "w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(("set", "table", "row", "column", "estimate", "low", "high", "text"))
        for env_id, table in shown:
            for name, *cells in table.rows:
                for column, text in zip(table.head[1:], cells, strict=True):
                    match = _INTERVAL.fullmatch(text)
                    writer.writerow(
                        (env_id, table.title, name, column, *(match.groups() if match else ("",) * 3), text)
                    )
    texts = [f"## {env_id}, {t.title}\n\n{t.markdown()}\n\n{t.note}".rstrip() + "\n" for env_id, t in shown]
    (folder / "tables.md").write_text("\n".join(texts), encoding="utf-8")


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
