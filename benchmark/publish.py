"""Copies finished runs to where they are committed.

    python benchmark/publish.py runs/* --to benchmark/results/maze3

Each becomes a folder SCRIPT_SWITCH_seedN with ``config.json``, ``provenance.jsonl`` and ``metrics.jsonl.gz``, all that
the figures and tables need. Checkpoints, events and videos stay behind, and so do the paths of this machine.
"""

from __future__ import annotations

import gzip
import json
import shlex
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import tyro

from qmp_collect.runs.folder import checked_name
from qmp_collect.runs.provenance import OF_THE_STARTER, published
from qmp_collect.runs.report.runs import find_runs

_MAY_GROW = {"total_timesteps": None}


@dataclass
class Args:
    """Copy finished runs."""

    run_dirs: tyro.conf.Positional[tuple[Path, ...]]
    """folders of runs, or folders of them"""
    to: Path
    """folder that gets a folder for each of them"""
    suffix: str = ""
    """end of the new folders' names, for runs that differ in more than script, switch and seed"""


def publish(run_dir: Path, to: Path, suffix: str = "") -> Path:
    """Copy one run.

    Raises:
        ValueError: if the run is not finished, was made from files that are in no commit, or would take the place of
            another run or of a longer version of its own.
    """
    config = json.loads((run_dir / "config.json").read_text(encoding="utf-8"))
    metrics = (run_dir / "metrics.jsonl").read_bytes()
    starts = [json.loads(line) for line in (run_dir / "provenance.jsonl").read_text(encoding="utf-8").splitlines()]
    last = json.loads(metrics.splitlines()[-1])
    if last["global_step"] < config["total_timesteps"]:
        raise ValueError(
            f"{run_dir} ends at step {last['global_step']} of {config['total_timesteps']}: resume it first"
        )
    if not any(tag.startswith("eval/") for tag in last):
        raise ValueError(f"{run_dir} does not end with the evaluation of its last step: resume it first")
    made_from = [part for start in starts for part in (start, *start.get("packages", {}).values())]
    if any(part["modified"] for part in made_from):
        raise ValueError(f"{run_dir} was made from modified files: commit them and run it again")
    if any(start["commit"] is None for start in starts):
        raise ValueError(f"{run_dir} was made by a script outside a checkout: nobody could find it again")
    target = to / checked_name(
        "_".join(filter(None, (config["exp_name"], config.get("switch")))) + f"_seed{config['seed']}{suffix}"
    )
    for start in starts:
        start["command"] = published(shlex.split(start["command"]), (*config, *OF_THE_STARTER))
    config = {name: value for name, value in config.items() if name not in OF_THE_STARTER}
    if target.exists():
        there, steps, starts_there = _identity(target)
        if there != config | _MAY_GROW or starts_there[0] != starts[0]:
            raise ValueError(f"{target} holds another run than {run_dir}: name the new one apart with --suffix")
        if steps > config["total_timesteps"] or starts[: len(starts_there)] != starts_there:
            raise ValueError(
                f"{target} holds {steps} steps of this run, {run_dir} {config['total_timesteps']} that do not go on "
                "from there: an older copy?"
            )
    target.mkdir(parents=True, exist_ok=True)
    (target / "config.json").write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
    (target / "provenance.jsonl").write_text("".join(json.dumps(s) + "\n" for s in starts), encoding="utf-8")
    # without a time of its own, packing the same rows twice gives the same bytes
    (target / "metrics.jsonl.gz").write_bytes(gzip.compress(metrics, mtime=0))
    return target


def _identity(target: Path) -> tuple[dict[str, Any], int, list[dict[str, Any]]]:
    """Of a run that is there already: what its own later, longer versions share, its length, and its starts."""
    config = json.loads((target / "config.json").read_text(encoding="utf-8"))
    starts = (target / "provenance.jsonl").read_text(encoding="utf-8").splitlines()
    return config | _MAY_GROW, config["total_timesteps"], [json.loads(start) for start in starts]


if __name__ == "__main__":
    args = tyro.cli(Args)
    for folder in find_runs(args.run_dirs):
        print(publish(folder, args.to, args.suffix))
