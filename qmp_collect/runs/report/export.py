"""A report for other programs: its numbers as one long table, its tables as text, and what these tables measure."""

from __future__ import annotations

import csv
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np

from qmp_collect.runs.report.arms import Study
from qmp_collect.runs.report.runs import Run
from qmp_collect.runs.report.tables import Measured, Table

INTERVALS = ("set", "table", "row", "runs", "column", "estimate", "low", "high")
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


def write_intervals(tables: Mapping[str, Sequence[Table]], path: Path) -> None:
    """Every estimate in the tables of each task set, unrounded, with its interval where there is one."""
    with open(path, "w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(INTERVALS)
        for env_id, table in ((env_id, table) for env_id, every in tables.items() for table in every):
            for row in table.rows:
                runs = row[table.head.index("runs")]
                for column, cell in zip(table.head, row, strict=True):
                    if isinstance(cell, Measured):
                        numbers = ["" if math.isnan(x) else x for x in cell.value]
                        writer.writerow((env_id, table.title, row[0], runs, column, *numbers))


def write_tables(tables: Mapping[str, Sequence[Table]], path: Path, title: str) -> None:
    """The tables of each task set, as Markdown."""
    parts = [f"# {title}"]
    for env_id, every in tables.items():
        parts.append(f"## {env_id}")
        for table in every:
            parts += [f"### {table.title}", table.markdown(), *filter(None, [table.note])]
    path.write_text("\n\n".join(parts) + "\n", encoding="utf-8")


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
