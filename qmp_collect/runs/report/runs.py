"""Reading run folders, and sorting runs into arms: live folders and what `benchmark/publish.py` packs alike."""

from __future__ import annotations

import gzip
import json
import re
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from qmp_collect.runs.folder import finished
from qmp_collect.runs.settings import OF_THE_STARTER

Floats = NDArray[np.float64]

MIXTURE = "qmp/mixture"
_CELL = re.compile(r"qmp/mixture/(\d+)/(\d+)")

# Settings that change neither what is learned nor what the measured numbers mean: runs that differ in them are one arm.
INCIDENTAL = frozenset(
    {
        *OF_THE_STARTER,
        "seed",
        "capture_video",
        "checkpoint_every",
        "eval_every",
        "eval_episodes",
        "eval_envs_per_task",
        "torch_threads",
        "torch_deterministic",
        "matmul_precision",
        "cuda",
        "compile",
        "cudagraphs",
    }
)

_METHODS = {
    "sac_qmp_separate": "No-Sharing",
    "sac_qmp_multihead": "Parameter-Sharing",
    "sac_shared": "Fully-Shared-Behaviors",
    "uds_qmp": "Data-Sharing",
    "pcgrad_qmp": "PCGrad",
    "mcal_qmp": "MCAL",
    "decaf": "DECAF",
    "dnc": "DnC",
}
_SWITCHES = {
    "qmp": "QMP",
    "own": "own",
    "uniform": "QMP-Uniform",
    "domain": "QMP-Domain",
    "softmax": "QMP-Softmax",
}


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
            ValueError: if the run never logged the tag.
        """
        points = {row["global_step"]: row[tag] for row in self.rows if tag in row}
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

    One in which there is none is returned as it is, for `load_run` to say what is missing.
    """
    found: list[Path] = []
    for path in paths:
        inside = sorted(config.parent for config in path.rglob("config.json")) if path.is_dir() else []
        found += [path] if (path / "config.json").is_file() else inside or [path]
    return list(dict.fromkeys(found))


def load_run(path: Path, prefixes: tuple[str, ...] = ("",)) -> Run:
    """Read a run folder, of a run still going on too.

    Args:
        prefixes: keep only tags that begin with one of these, and rows that have one: a run at the paper's size has
            hundreds of thousands of values.

    Raises:
        FileNotFoundError: if config.json or the metrics are not there.
        ValueError: if config.json is damaged.
    """
    packed = path / "metrics.jsonl.gz"
    content = gzip.decompress(packed.read_bytes()) if packed.exists() else (path / "metrics.jsonl").read_bytes()
    rows, last = [], 0
    for row in _objects(content, path):
        try:
            last = max(last, int(row["global_step"] + 0))
        except (LookupError, TypeError):
            print(f"{path}: skipped a row without its step", file=sys.stderr)
            continue
        kept = {tag: value for tag, value in row.items() if tag == "global_step" or tag.startswith(prefixes)}
        if len(kept) > 1:
            rows.append(kept)
    config = json.loads((path / "config.json").read_text(encoding="utf-8"))
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


def _objects(content: bytes, path: Path) -> list[dict[str, Any]]:
    """The objects of a JSONL file; what a kill cut off is left out, and said."""
    found = []
    for line in content.decode(errors="replace").splitlines():
        try:
            row = json.loads(line)
        except ValueError:
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


@dataclass(frozen=True)
class Arm:
    """Runs that differ in their seeds alone, and in what is `INCIDENTAL`.

    Attributes:
        label: what tells it from the other arms of its task set.
        settings: of its first run.
        runs: the finished ones, by seed.
        unfinished: the others.
    """

    label: str
    settings: dict[str, Any]
    runs: list[Run]
    unfinished: list[Run]

    def shown(self, metric: str) -> list[Run]:
        """The runs behind a mean curve: the finished ones, or those that there are while none is."""
        return [run for run in self.runs or self.unfinished if run.has(metric)]

    def with_metric(self, metric: str) -> list[Run]:
        """The finished runs that have a metric: those that count in every table."""
        return [run for run in self.runs if run.has(metric)]


@dataclass(frozen=True)
class Study:
    """All runs of one task set.

    Attributes:
        env_id: the task set.
        arms: its arms, those of own policies first.
        excluded: runs that are in no arm, each with the reason.
    """

    env_id: str
    arms: list[Arm]
    excluded: list[tuple[Run, str]]

    @property
    def runs(self) -> list[Run]:
        """Every run that is in an arm."""
        return [run for arm in self.arms for run in (*arm.runs, *arm.unfinished)]

    def reference(self, arm: Arm) -> Arm:
        """What an arm is compared with: itself without sharing if that was run, else the first arm."""
        rest = _without_switch(arm)
        same = [other for other in self.arms if _own(other.settings) and _without_switch(other) == rest]
        return (same or self.arms)[0]

    def tasks(self, metric: str) -> list[str]:
        """Names of the tasks that any run logged a metric for."""
        return list(dict.fromkeys(task for run in self.runs for task in run.tasks(metric)))


def studies(runs: Sequence[Run]) -> list[Study]:
    """Runs by task set, sorted into arms."""
    return [_study(env_id, [run for run in runs if run.env_id == env_id]) for env_id in _seen(r.env_id for r in runs)]


def _study(env_id: str, runs: list[Run]) -> Study:
    keys = varied(runs)
    groups: dict[tuple[str, ...], list[Run]] = {}
    for run in sorted(runs, key=lambda run: not _own(run.config)):
        groups.setdefault(tuple(setting_text(run.config.get(key)) for key in keys), []).append(run)
    texts = labels([members[0].config for members in groups.values()], keys)
    arms, excluded = [], []
    for label, members in zip(texts, groups.values(), strict=True):
        best: dict[str, Run] = {}
        for run in sorted(members, key=lambda run: (not run.finished, -run.last_step)):
            seed = setting_text(run.seed)
            if seed in best:
                excluded.append((run, f"the same settings and seed as {best[seed].path.name}, which got further"))
            else:
                best[seed] = run
        kept = sorted(best.values(), key=_by_seed)
        arms.append(Arm(label, kept[0].config, [r for r in kept if r.finished], [r for r in kept if not r.finished]))
    return Study(env_id, arms, excluded)


def varied(runs: Sequence[Run]) -> list[str]:
    """Settings that tell arms apart: those with two values among the runs that have them. Newer versions have more."""
    keys = _seen(key for run in runs for key in run.config if key not in INCIDENTAL)
    return [key for key in keys if len({setting_text(run.config[key]) for run in runs if key in run.config}) > 1]


def labels(settings: Sequence[dict[str, Any]], keys: Sequence[str]) -> list[str]:
    """A short text for each of several settings, different wherever they are in ``keys``.

    Script and switch have names, as in the paper. Further settings are named as far as the arms would not be told apart
    without, and where most arms share a value only the others say it.
    """
    keys = sorted(keys, key=lambda key: {"exp_name": 0, "switch": 1}.get(key, 2))
    values = {key: [setting_text(config.get(key)) for config in settings] for key in keys}
    telling: list[str] = []
    for key in keys:
        if _count(values, [*telling, key]) > _count(values, telling):
            telling.append(key)
    usual = {key: max(set(values[key]), key=values[key].count) for key in telling}
    usual = {key: value for key, value in usual.items() if 2 * values[key].count(value) > len(settings)}
    texts = []
    for config in settings:
        parts = [_name(config, "exp_name" in telling)]
        for key in telling:
            if key not in ("exp_name", "switch") and setting_text(config.get(key)) != usual.get(key):
                parts.append(f"{key.replace('_', ' ')} {setting_text(config.get(key))}")
        texts.append(", ".join(parts))
    return texts


def _name(config: dict[str, Any], with_method: bool) -> str:
    """Method and switch: "QMP", or "Parameter-Sharing + QMP" where there are several methods."""
    exp_name, switch = str(config.get("exp_name", "run")), config.get("switch")
    method = _METHODS.get(exp_name, exp_name)
    name = _SWITCHES.get(str(switch), str(switch))
    if switch is None:
        return method
    if not with_method:
        return name
    return method if switch == "own" else f"{method} + {name}"


def _count(values: dict[str, list[str]], keys: list[str]) -> int:
    """Groups that the values of ``keys`` make."""
    return len(set(zip(*(values[key] for key in keys), strict=True))) if keys else 1


def _own(config: dict[str, Any]) -> bool:
    return config.get("switch") == "own"


def _without_switch(arm: Arm) -> dict[str, Any]:
    return {key: value for key, value in arm.settings.items() if key not in INCIDENTAL and key != "switch"}


def _by_seed(run: Run) -> tuple[bool, Any, str]:
    number = isinstance(run.seed, int)
    return not number, run.seed if number else 0, setting_text(run.seed)


def setting_text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)


def _seen(items: Iterable[str]) -> list[str]:
    return list(dict.fromkeys(items))
