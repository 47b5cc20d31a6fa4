"""Reading run folders: live ones and what `benchmark/publish.py` packs alike."""

from __future__ import annotations

import gzip
import json
import math
import os
import re
import sys
import zlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from qmp_collect.runs.folder import finished

Floats = NDArray[np.float64]

MIXTURE = "qmp/mixture"
_CELL = re.compile(r"qmp/mixture/(\d+)/(\d+)")


@dataclass(frozen=True)
class Run:
    """One run folder's content.

    Attributes:
        path: the folder.
        config: its settings.
        rows: of ``metrics.jsonl``, as dicts.
        last_step: env steps of the last row, 0 before the first.
        starts: of ``provenance.jsonl``, one for each start of the run.
        done: what ``done.json`` says, `None` where there is none.
    """

    path: Path
    config: dict[str, Any]
    rows: list[dict[str, Any]]
    last_step: int = 0
    starts: list[dict[str, Any]] = field(default_factory=list)
    done: dict[str, Any] | None = None

    @property
    def env_id(self) -> str:
        """The task set."""
        return str(self.config.get("env_id", ""))

    @property
    def seed(self) -> Any:
        """The seed, `None` if the settings have none."""
        return self.config.get("seed")

    @property
    def length(self) -> int | None:
        """Env steps that the finished run has, `None` if the settings do not say."""
        total = self.config.get("total_timesteps")
        return total if isinstance(total, int) else None

    @property
    def finished(self) -> bool:
        """Whether it has come to its end: it says so, or, published without ``done.json``, it has all its steps."""
        return self.done is not None or (self.length is not None and self.last_step >= self.length)

    @cached_property
    def tags(self) -> dict[str, None]:
        """Everything that the run ever logged, in the order of its first appearance."""
        return dict.fromkeys(tag for row in self.rows for tag in row if tag not in ("global_step", "wall_time"))

    def has(self, tag: str) -> bool:
        """Whether the run ever logged the tag."""
        return tag in self.tags

    def series(self, tag: str) -> tuple[Floats, Floats]:
        """Steps, increasing, and values of a tag, both ``(P,)``. Of several values at one step the last counts.

        Raises:
            ValueError: if the run never logged the tag, or no number.
        """
        points = {row["global_step"]: row[tag] for row in self.rows if _is_number(row.get(tag))}
        if not points:
            raise ValueError(f"{self.path} has no values of {tag!r}; it logged {sorted(self.tags)}")
        steps = sorted(points)
        return np.array(steps, float), np.array([points[step] for step in steps], float)

    def tasks(self, metric: str) -> list[str]:
        """Names of the tasks that a metric such as ``eval/success`` was logged for, in the order of the tasks."""
        group, _, name = metric.rpartition("/")
        pattern = re.compile(f"{re.escape(group)}/(.+)/{re.escape(name)}")
        return [match[1] for tag in self.tags if (match := pattern.fullmatch(tag))]

    @cached_property
    def mixtures(self) -> tuple[Floats, Floats]:
        """Steps ``(P,)`` and mixtures ``(P, T, K)``, whole or, as older logs have it, with a tag for each cell.

        Raises:
            ValueError: if the run logged none.
        """
        if self.has(MIXTURE):
            points = {row["global_step"]: row[MIXTURE] for row in self.rows if MIXTURE in row}
            if len({(len(matrix), len(matrix[0])) for matrix in points.values()}) > 1:
                raise ValueError(f"{self.path} logged {MIXTURE} in different sizes")
            steps = sorted(points)
            return np.array(steps, float), np.array([points[step] for step in steps], float)
        matches = {tag: match for tag in self.tags if (match := _CELL.fullmatch(tag))}
        cells = {tag: (int(match[1]), int(match[2])) for tag, match in matches.items()}
        if not cells:
            raise ValueError(f"{self.path} logged no {MIXTURE}: it has not been evaluated after its first step")
        rows = {row["global_step"]: row for row in self.rows if row.keys() & cells.keys()}
        steps = sorted(rows)
        values = np.full((len(steps), *(np.max(list(cells.values()), axis=0) + 1)), np.nan)
        for place, step in enumerate(steps):
            for tag, cell in cells.items():
                values[place][cell] = rows[step].get(tag, np.nan)
        return np.array(steps, float), values


def find_runs(paths: Iterable[Path]) -> list[Path]:
    """Run folders among and under ``paths``, each once: a folder without ``config.json`` stands for those inside it.

    One in which there is none, or into which nobody may look, is returned as it is, for `load_run` to say what is
    missing. Files are left out: the suite puts some beside the folders.
    """
    found: list[Path] = []
    for path in paths:
        if os.path.isfile(path):
            continue
        inside = sorted(config.parent for config in path.rglob("config.json")) if os.path.isdir(path) else []
        found += [path] if os.path.isfile(path / "config.json") else inside or [path]
    return list(dict.fromkeys(found))


def load_run(path: Path, prefixes: tuple[str, ...] = ("",)) -> Run:
    """Read a run folder, of a run still going on too.

    Args:
        prefixes: keep only tags that begin with one of these, and rows that have one: a run at the paper's size has
            hundreds of thousands of values.

    Raises:
        FileNotFoundError: if config.json or the metrics are not there.
        ValueError: if config.json is damaged, or packed metrics are.
    """
    rows, last, others = [], 0, 0
    for row in _objects(_metrics(path), path):
        step: Any = row.get("global_step")
        if not _is_number(step) or not math.isfinite(step):
            print(f"{path}: skipped a row without its step", file=sys.stderr)
            continue
        last = max(last, int(step))
        wanted = {tag: value for tag, value in row.items() if tag != "global_step" and tag.startswith(prefixes)}
        kept = {tag: value for tag, value in wanted.items() if _is_number(value) or _is_matrix(value)}
        others += len(wanted) - len(kept)
        if kept:
            rows.append({"global_step": step, **kept})
    if others:
        print(f"{path}: skipped {others} values that are no numbers", file=sys.stderr)
    try:
        config = json.loads((path / "config.json").read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path / 'config.json'} is damaged: {error}") from error
    if not isinstance(config, dict):
        raise ValueError(f"{path / 'config.json'}: expected an object, got {type(config).__name__}")
    starts = path / "provenance.jsonl"
    return Run(
        path=path,
        config=config,
        rows=rows,
        last_step=last,
        starts=_objects(starts.read_bytes(), path) if starts.exists() else [],
        done=finished(path),
    )


def _metrics(path: Path) -> bytes:
    packed = path / "metrics.jsonl.gz"
    if not packed.exists():
        return (path / "metrics.jsonl").read_bytes()
    try:
        return gzip.decompress(packed.read_bytes())
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise ValueError(f"{packed} is damaged: {error}") from error


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _is_matrix(value: Any) -> bool:
    """Rows of numbers, as many in each."""
    rows = isinstance(value, list) and bool(value) and all(isinstance(row, list) and row for row in value)
    return rows and len({len(row) for row in value}) == 1 and all(_is_number(v) for row in value for v in row)


def _objects(content: bytes, path: Path) -> list[dict[str, Any]]:
    """The objects of a JSONL file; what a kill cut off is left out, and said."""
    found = []
    for line in content.decode(errors="replace").splitlines():
        try:
            row = json.loads(line)
        except (ValueError, RecursionError):
            row = None
        if isinstance(row, dict):
            found.append(row)
        else:
            print(f"{path}: skipped a row that is cut off", file=sys.stderr)
    return found


def align(series: Sequence[tuple[Floats, Floats]]) -> tuple[Floats, Floats]:
    """Bring S series of steps and values to common steps ``(P,)`` and values ``(S, P)``.

    The steps are all that occur in the range that every series covers (an average never changes its members on the
    way); values between a series' own steps are interpolated linearly.

    Raises:
        ValueError: if no range is common.
    """
    first, last = max(steps[0] for steps, _ in series), min(steps[-1] for steps, _ in series)
    if first > last:
        raise ValueError(f"the runs have no steps in common: one starts at {first:.0f}, one ends at {last:.0f}")
    every = np.unique(np.concatenate([steps for steps, _ in series]))
    steps: Floats = every[(every >= first) & (every <= last)]
    return steps, np.stack([np.interp(steps, *one) for one in series])


def mixture_over_training(run: Run, borders: Floats) -> Floats:
    """Mean behaviour mixture ``(W, T, K)`` in the windows between ``W + 1`` steps; NaN where nothing was logged.

    Row i, column j of a matrix is the share of task i's steps that policy j collected.

    Raises:
        ValueError: if the run logged no ``qmp/mixture``.
    """
    steps, values = run.mixtures
    windows = len(borders) - 1
    # A row reports the steps before it, so one at a border belongs to the earlier window.
    window = np.clip(np.searchsorted(borders, steps) - 1, 0, windows - 1)
    known = np.isfinite(values)
    sums, counts = np.zeros((windows, *values.shape[1:])), np.zeros((windows, *values.shape[1:]))
    np.add.at(sums, window, np.where(known, values, 0.0))
    np.add.at(counts, window, known)
    return np.divide(sums, counts, out=np.full_like(sums, np.nan), where=counts > 0)
