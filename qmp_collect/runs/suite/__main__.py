"""``python -m qmp_collect.runs.suite plan | run | status | report``: a suite of runs from the command line."""

from __future__ import annotations

import os
import sys
from dataclasses import dataclass, field, replace
from importlib import import_module
from pathlib import Path
from typing import Annotated, Literal

from qmp_collect.extras import needs
from qmp_collect.runs.folder import folders_of_seeds
from qmp_collect.runs.suite.local import LocalExecutor
from qmp_collect.runs.suite.manifest import Device, Run, dump, load
from qmp_collect.runs.suite.plans import PLANS
from qmp_collect.runs.suite.process import checkout
from qmp_collect.runs.suite.slurm import Slurm, submit
from qmp_collect.runs.suite.status import standing, table

with needs("suite"):
    import tyro


@dataclass
class Plan:
    """Print the manifest of a plan, a run a line: name, folder, command, device, hours that it is expected to take."""

    name: tyro.conf.Positional[str]
    """which plan: smoke, i to x of the protocol, comparison, gpu, gpu_reacher"""
    seeds: tuple[int, ...] = ()
    """its seeds, instead of the plan's own"""
    together: bool = False
    """all seeds of an arm side by side in one process, where the script can (--num-seeds): fewer hours in all"""
    root: str | None = None
    """folder of the runs' folders, relative to where the manifest will lie (runs/NAME)"""

    def main(self) -> int:
        if self.name not in PLANS:
            raise SystemExit(f"plan {self.name}: expected one of {', '.join(PLANS)}")
        try:
            runs = PLANS[self.name].runs(self.root or f"runs/{self.name}", self.seeds, together=self.together)
        except ValueError as error:
            raise SystemExit(f"plan {self.name}: {error}") from error
        print(dump(runs), end="")
        return 0


@dataclass
class Make:
    """Make the runs of a manifest: skips the finished ones, continues those that were stopped or killed.

    Exit code 0: all are finished. 1: some failed. 75: some are left, run it again.
    """

    manifest: tyro.conf.Positional[Path]
    """which runs"""
    executor: Literal["local", "slurm", "submitit-local"] = "local"
    """on this machine; as jobs of a Slurm cluster, which are submitted and left to it; or on submitit's imitation of
    one, which begins all of them at once"""
    jobs: int = 1
    """runs at a time"""
    device: Device | None = None
    """what all of them train on, instead of what the manifest says"""
    budget_minutes: float | None = None
    """local: stop all runs after so long, and start none that would not come to a checkpoint before"""
    nice: int = 0
    """local: by how much they give way to other processes"""
    slim: bool = False
    """of a finished run keep no checkpoint and no replay: its folder is small, and it cannot be made longer"""
    slurm: Slurm = field(default_factory=Slurm)

    def main(self) -> int:
        root = checkout()
        runs = _load(self.manifest, root)
        if self.device is not None:
            runs = [replace(run, device=self.device) for run in runs]
        if self.executor == "local":
            options = {"budget_minutes": self.budget_minutes, "nice": self.nice, "slim": self.slim}
            return LocalExecutor(runs, root, jobs=self.jobs, **options).execute()  # type: ignore[arg-type]
        cluster: Literal["slurm", "local"] = "slurm" if self.executor == "slurm" else "local"
        folder = self.manifest.resolve().with_suffix(".submitit")
        jobs = submit(runs, root, folder, cluster=cluster, jobs=self.jobs, slim=self.slim, settings=self.slurm)
        print(f"{len(jobs)} jobs submitted, logs in {folder}")
        return 0


@dataclass
class Status:
    """Print how far the runs of a manifest are."""

    manifest: tyro.conf.Positional[Path]
    """which runs"""

    def main(self) -> int:
        print(table([standing(run) for run in _load(self.manifest)]))
        return 0


@dataclass
class Report:
    """Write a page about the runs of a manifest that have begun."""

    manifest: tyro.conf.Positional[Path]
    """which runs"""
    out: Path
    """folder of the page"""

    def main(self) -> int:
        folders = [folder for run in _load(self.manifest) for folder in folders_of_seeds(run.dir)]
        begun = [folder for folder in folders if os.path.exists(folder / "metrics.jsonl")]
        if not begun:
            raise SystemExit(f"{self.manifest}: none of its runs has begun")
        try:
            print(import_module("qmp_collect.runs.report.page").write_report(begun, self.out))
        except ValueError as error:
            raise SystemExit(f"{self.manifest}: {error}") from error
        return 0


def _load(manifest: Path, root: Path | None = None) -> list[Run]:
    try:
        return load(manifest, root)
    except (OSError, ValueError) as error:
        raise SystemExit(str(error)) from error


Command = (
    Annotated[Plan, tyro.conf.subcommand("plan")]
    | Annotated[Make, tyro.conf.subcommand("run")]
    | Annotated[Status, tyro.conf.subcommand("status")]
    | Annotated[Report, tyro.conf.subcommand("report")]
)


def main(argv: list[str] | None = None) -> int:
    """The command line; returns the exit code."""
    command: Plan | Make | Status | Report = tyro.cli(Command, args=argv, description=__doc__)
    return command.main()


if __name__ == "__main__":
    sys.exit(main())
