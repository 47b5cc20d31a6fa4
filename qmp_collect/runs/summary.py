"""What a run says at its end: what was learned, where it lies, and how to look at it."""

from __future__ import annotations

import json
import shlex
import shutil
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from qmp_collect.runs.policy import FILE as POLICY_FILE

_LEVELS = "▁▂▃▄▅▆▇█"
_COLUMNS = 30


def summary(
    run_dir: Path,
    task_names: Sequence[str],
    module: str | None = None,
    script: Path | None = None,
    filmable: bool = True,
) -> str:
    """Of the finished run in this folder: each task's own policy, from the first evaluation to the last.

    Args:
        run_dir: of the run.
        task_names: of its tasks.
        module: that its task set needs imported.
        script: its file, if it is none of this installation's.
        filmable: whether its task set draws pictures.
    """
    evaluations = _evaluations(run_dir)
    first, last = evaluations[0], evaluations[-1]  # there is one of the last step, or the run is not finished
    name = "success" if "eval/success" in last else "return"
    tags = {task: f"eval/{task}/{name}" for task in task_names} | {f"mean of {len(task_names)}": f"eval/{name}"}
    width = max(map(len, tags))
    lines = [f"finished. {name} of each task's own policy, from step {first['global_step']} to {last['global_step']}:"]
    for row, tag in tags.items():
        values = [evaluation[tag] for evaluation in evaluations if tag in evaluation]
        lines.append(f"  {row:{width}}  {first[tag]:8.2f} -> {last[tag]:8.2f}  {curve(values, name == 'success')}")
    best = max(evaluations, key=lambda evaluation: evaluation.get(f"eval/{name}", -np.inf))
    if (mean := best[f"eval/{name}"]) > last[f"eval/{name}"]:
        lines.append(f"  the best mean was {mean:.2f}, at step {best['global_step']}; the policy is that of the end")
    shares = _others_shares(evaluations)
    if shared := any(shares):
        lines.append(f"  others' policies acted in {shares[0]:.0%} of the first steps and {shares[-1]:.0%} of the last")
    folder = shlex.quote(str(run_dir))
    return "\n".join(
        [
            *lines,
            f"run folder      {folder}, the log in metrics.jsonl",
            f"policy          {shlex.quote(str(run_dir / POLICY_FILE))}",
            *_next_steps(run_dir, run_dir, module, script, filmable, filmable and shared),
        ]
    )


def summary_of_seeds(
    folders: Mapping[int, Path], module: str | None = None, script: Path | None = None, filmable: bool = True
) -> str:
    """Of finished runs that were made side by side: a line for each seed.

    Args:
        folders: by seed.
        module, script, filmable: See `summary`.
    """
    lines, shared = [], False
    for seed, run_dir in folders.items():
        evaluations = _evaluations(run_dir)
        name = "success" if "eval/success" in evaluations[-1] else "return"
        values = [evaluation[f"eval/{name}"] for evaluation in evaluations if f"eval/{name}" in evaluation]
        shown = curve(values, name == "success")
        lines.append(
            f"  seed {seed:<4} {name} {values[0]:8.2f} -> {values[-1]:8.2f}  {shown}  {shlex.quote(str(run_dir))}"
        )
        shared |= any(_others_shares(evaluations))
    first = next(iter(folders.values()))
    return "\n".join(
        [
            f"finished {len(folders)} seeds, each in a folder like that of a run of its own:",
            *lines,
            *_next_steps(first.parent, first, module, script, filmable, filmable and shared),
        ]
    )


def _next_steps(
    of_all: Path, of_one: Path, module: str | None, script: Path | None, gifs: bool, mixture: bool
) -> Iterator[str]:
    """What to type now."""
    out = shlex.quote(str(of_all / "success.png"))
    yield f"learning curve  {_qmp()} plot {shlex.quote(str(of_all))} --out {out}"
    words = [_qmp(), "enjoy", shlex.quote(str(of_one)), *["--gifs"] * gifs, *["--mixture"] * mixture]
    words += ["--import", module] if module else []
    words += ["--script", shlex.quote(str(script))] if script else []
    yield f"watch it        {' '.join(words)}"


def others_share(mixture: Sequence[Sequence[float]]) -> float:
    """Of a ``(T, K)`` mixture: share of steps by others than the own policy, mean over the tasks with any steps."""
    return 1.0 - float(np.nanmean(np.array(mixture, dtype=np.float64).diagonal()))


def _others_shares(evaluations: Sequence[Mapping[str, Any]]) -> list[float]:
    """Of each evaluation before which somebody acted."""
    return [others_share(row["qmp/mixture"]) for row in evaluations if "qmp/mixture" in row]


def curve(values: Sequence[float], share: bool) -> str:
    """A learning curve in a few block characters; empty where standard output cannot show them.

    Args:
        values: at least one, in their order.
        share: they are parts of 1, and the curve's axis goes from 0 to 1. Otherwise it goes from the least to the most.
    """
    try:
        _LEVELS.encode(getattr(sys.stdout, "encoding", None) or "utf-8")
    except UnicodeEncodeError:
        return ""
    columns = min(_COLUMNS, len(values))
    means = np.array([np.mean(part) for part in np.array_split(values, columns)])
    low, high = (0.0, 1.0) if share else (means.min(), means.max())
    heights = (means - low) / (high - low or 1.0) * (len(_LEVELS) - 1)
    return "".join(_LEVELS[round(height)] if np.isfinite(height) else " " for height in heights)


def _evaluations(run_dir: Path) -> list[dict[str, Any]]:
    with open(run_dir / "metrics.jsonl", encoding="utf-8") as file:
        return [json.loads(line) for line in file if '"eval/return"' in line]


def _qmp() -> str:
    """How this Python's ``qmp`` is called from the current folder."""
    beside = Path(sys.executable).parent / "qmp"
    if not beside.exists():
        return f"{shlex.quote(sys.executable)} -m qmp_collect.runs"
    if shutil.which("qmp") == str(beside):
        return "qmp"
    return shlex.quote(str(beside.relative_to(Path.cwd()) if beside.is_relative_to(Path.cwd()) else beside))
