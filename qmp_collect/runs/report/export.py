"""A report for other programs: its numbers as one long table, its tables as text, and what these tables measure."""

from __future__ import annotations

import csv
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np

from qmp_collect.runs.palette import policy_name
from qmp_collect.runs.report.arms import Study
from qmp_collect.runs.report.runs import Floats, Run
from qmp_collect.runs.report.tables import Measured, Table, Tested

INTERVALS = ("set", "table", "row", "runs", "column", "estimate", "low", "high")
HEAD = ("method", "set", "task", "seed", "metric", "env_step", "value")
MIXTURE = ("method", "set", "seed", "env_step", "task", "policy", "fraction")
HYPOTHESES = ("set", "metric", "hypothesis", "runs", "difference", "low", "high", "p", "p_holm", "verdict")
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


def write_mixture(studies: Sequence[Study], path: Path) -> None:
    """Which part of each task's steps each policy had, cell by cell, whenever a run in the arms logged it."""
    with open(path, "w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(MIXTURE)
        for study in studies:
            for label, run in ((arm.label, run) for arm in study.arms for run in (*arm.runs, *arm.unfinished)):
                steps, mixtures, tasks = _mixture(run)
                policies = [policy_name(j, tasks) for j in range(mixtures.shape[2])]
                for step, matrix in zip(steps, mixtures, strict=True):
                    for i, j in np.argwhere(np.isfinite(matrix)):
                        cell = (int(step), tasks[i], policies[j], round(float(matrix[i, j]), 6))
                        writer.writerow((label, study.env_id, _seed(run), *cell))


def write_hypotheses(results: Mapping[str, tuple[str, Sequence[Tested]]], path: Path) -> None:
    """Of each task set the metric, and what was found of each hypothesis; cells are empty while runs are too few."""
    with open(path, "w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(HYPOTHESES)
        for env_id, (metric, every) in results.items():
            for one in every:
                numbers = ["" if math.isnan(x) else x for x in (*one.difference, one.p, one.p_holm)]
                writer.writerow((env_id, metric, one.hypothesis, one.runs, *numbers, one.verdict))


def write_tables(tables: Mapping[str, Sequence[Table]], path: Path, title: str) -> None:
    """The tables of each task set, as Markdown."""
    parts = [f"# {title}"]
    for env_id, every in tables.items():
        parts.append(f"## {env_id}")
        for table in every:
            parts += [f"### {table.title}", table.markdown(), *filter(None, [table.note])]
    path.write_text("\n\n".join(parts) + "\n", encoding="utf-8")


def _rows(run: Run, study: Study) -> Iterator[tuple[str, str, str, str, int, float]]:
    for tag in run.tags:
        if match := _EVALUATION.fullmatch(tag):
            for step, value in zip(*run.series(tag), strict=True):
                yield study.env_id, match[1] or MEAN, _seed(run), f"eval/{match[2]}", int(step), float(value)
    steps, mixtures, tasks = _mixture(run)
    for task, name in enumerate(tasks):
        for step, share in zip(steps, 1.0 - mixtures[:, task, task], strict=True):
            if np.isfinite(share):
                yield study.env_id, name, _seed(run), "qmp/foreign_fraction", int(step), round(float(share), 6)


def _mixture(run: Run) -> tuple[Floats, Floats, list[str]]:
    """Steps ``(P,)``, mixtures ``(P, T, K)`` and ``T`` names of tasks, or their numbers; empty if none was logged."""
    try:
        steps, mixtures = run.mixtures
    except ValueError:
        return np.zeros(0), np.zeros((0, 0, 0)), []
    names = next((names for tag in run.tags if (names := run.tasks(tag))), [])
    num_tasks = mixtures.shape[1]
    return steps, mixtures, names if len(names) == num_tasks else [str(task) for task in range(num_tasks)]


def _seed(run: Run) -> str:
    return "" if run.seed is None else str(run.seed)
