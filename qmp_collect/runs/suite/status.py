"""How far runs are, from their folders alone, in which anything may be damaged: that costs no other run its line."""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from qmp_collect.runs.folder import finished, folders_of_seeds, json_object, lock_of
from qmp_collect.runs.suite.manifest import Run

State = Literal["done", "running", "failed", "stale", "stopped", "waiting"]
STATES: tuple[State, ...] = ("done", "running", "failed", "stale", "stopped", "waiting")

_TAIL = 1 << 16  # bytes; holds many rows of metrics
_CHECKPOINTS = 20  # of a run whose command does not say


@dataclass(frozen=True)
class Standing:
    """How far one run is.

    Attributes:
        state: ``done``; ``running``, its folder is locked; ``failed``, ended with an error the last time; ``stale``,
            killed, its lock left behind; ``stopped`` after a checkpoint; or ``waiting``, without one.
        steps: env steps that are logged.
        total: env steps of the whole run, ``None`` while only its script knows.
        hours_left: estimated from its speed so far or, before the first round, from the hours it is expected to take.
        hours_to_checkpoint: the same until its next checkpoint.
        holder: what its lock says.
        failure: what was recorded of its last error.
    """

    run: Run
    state: State
    steps: int
    total: int | None
    hours_left: float
    hours_to_checkpoint: float
    holder: dict[str, Any] | None = None
    failure: dict[str, Any] | None = None

    @property
    def share(self) -> float:
        """Of the run, how much is made."""
        return 1.0 if self.state == "done" else min(self.steps / self.total, 1.0) if self.total else 0.0


def standing(run: Run) -> Standing:
    """How far this run is; several seeds that one process trains are as far as the first of them."""
    asked = _int(run.flag("--total-timesteps"))
    done = finished(run.dir)
    if done and asked in (None, done.get("total_timesteps")):
        steps, total = _count(done.get("global_step")), _count(done.get("total_timesteps"))
        return Standing(run, "done", steps or 0, total, 0.0, 0.0)
    first = folders_of_seeds(run.dir)[0]
    config = json_object(first / "config.json") or {}
    total = asked or _count(config.get("total_timesteps"))
    every = _count(config.get("checkpoint_every")) or _int(run.flag("--checkpoint-every"))
    steps, speed = _last(first / "metrics.jsonl")
    lock, failure = lock_of(run.dir), json_object(run.beside(".failed.json")) or None
    state: State = "waiting"
    if lock is not None and lock[1]:
        state = "running"
    elif failure:
        state = "failed"
    elif lock is not None:
        state = "stale"
    elif os.path.exists(run.dir / "checkpoint.npz"):  # Path.exists raises if it may not look
        state = "stopped"
    if not total:
        left, due = run.hours, run.hours / _CHECKPOINTS
    else:
        per_step = 1 / speed / 3600 if speed else run.hours / total
        every = every or max(total // _CHECKPOINTS, 1)
        left = max(total - steps, 0) * per_step
        due = max(min(total, (steps // every + 1) * every) - steps, 0) * per_step
    return Standing(run, state, steps, total, left, due, lock and lock[0], failure)


def table(standings: Sequence[Standing]) -> str:
    """A line for each run, and one for all."""
    width = max([len(each.run.name) for each in standings], default=0)
    lines = []
    for each in standings:
        total = "?" if each.total is None else f"{each.total:_}"
        left = "" if each.state == "done" else f"{each.hours_left:.2f} h left"
        lines.append(f"{each.run.name:{width}}  {each.state:7}  {each.steps:>11_} / {total:<11}  {left}{_why(each)}")
    return "\n".join([*lines, summary(standings)])


def summary(standings: Sequence[Standing]) -> str:
    """How many runs are in which state, and the hours left, of one core or GPU."""
    counts = Counter(each.state for each in standings)
    said = ", ".join(f"{counts[state]} {state}" for state in STATES if counts[state]) or "no runs"
    return f"{said}; {sum(each.hours_left for each in standings):.1f} h left"


def _why(each: Standing) -> str:
    if each.state in ("running", "stale") and each.holder:
        return f"  ({each.holder.get('host')}, process {each.holder.get('pid')}, since {each.holder.get('start')})"
    if each.state == "failed" and each.failure:
        last = [line for line in each.failure.get("log", ()) if line.strip()][-1:]
        return f"  (exit code {each.failure.get('code')}{''.join(f': {line.strip():.100}' for line in last)})"
    return ""


def _last(metrics: Path) -> tuple[int, float | None]:
    """The last step that is logged, and the last speed, in steps a second."""
    try:
        with open(metrics, "rb") as file:
            file.seek(max(file.seek(0, 2) - _TAIL, 0))
            lines = file.read().splitlines()
    except OSError:
        return 0, None
    step: int | None = None
    speed: float | None = None
    for line in reversed(lines):
        try:
            row = json.loads(line)
            step, found = _count(row["global_step"]) if step is None else step, row.get("time/sps")
        except (ValueError, LookupError, TypeError, AttributeError):
            continue  # cut off by a kill, or by the beginning of the tail
        if isinstance(found, int | float) and 0 < found < float("inf"):
            speed = float(found)
            break
    return step or 0, speed


def _count(value: Any) -> int | None:
    """What JSON held, if it is a number of steps."""
    return value if type(value) is int and value >= 0 else None


def _int(value: str | None) -> int | None:
    try:
        return int(value) if value is not None else None
    except ValueError:
        return None
