"""Runs as the jobs of a Slurm array, through submitit (extra ``suite``)."""

from __future__ import annotations

import math
import os
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from qmp_collect.extras import needs
from qmp_collect.runs.suite.manifest import Run
from qmp_collect.runs.suite.process import Outcome, Patience, Process, slim
from qmp_collect.runs.suite.status import standing

if TYPE_CHECKING:
    from submitit.helpers import DelayedSubmission

_TICK = 0.2  # seconds
_OURS = {"array", "cpus-per-task", "error", "gpus-per-node", "job-name", "mem", "nodes", "ntasks-per-node", "open-mode"}
_OURS |= {"account", "output", "partition", "requeue", "signal", "time"}


@dataclass
class Slurm:
    """What a job asks for. Every job makes one run, and is requeued until the run is finished."""

    partition: str | None = None
    """where (Slurm's default)"""
    account: str | None = None
    """on whose account"""
    timeout_minutes: int = 0
    """time limit of a job; when it is near, the run saves and the job is requeued (0: half more than is expected)"""
    save_seconds: int = 120
    """how long before the time limit"""
    cores: int = 1
    """cores of a run"""
    mem_gb: float = 8.0
    """memory of a run"""
    max_requeues: int = 100
    """after so many time limits a job is given up"""
    flags: tuple[str, ...] = ()
    """what else sbatch is told, as on its command line without dashes: qos=long constraint=a100 exclusive"""

    def additional(self) -> dict[str, str | bool]:
        """The further flags by name.

        Raises:
            SystemExit: One is of those that the suite says itself.
        """
        given = {name.lstrip("-"): value if equals else True for name, equals, value in map(_parted, self.flags)}
        if said := given.keys() & _OURS:
            raise SystemExit(f"--slurm.flags {min(said)}: the suite says that itself, in settings of its own if any")
        return given


def _parted(flag: str) -> tuple[str, str, str]:
    return flag.partition("=")


class Job:
    """What is pickled: where the run lies and what its command is. Its state is in its folder alone."""

    def __init__(self, run: Run, root: Path, *, slim: bool = False) -> None:
        self.run, self.root, self.slim = run, root, slim
        self._process: Process | None = None

    def __call__(self) -> Outcome:
        """Make the run, or the rest of it: ``"done"``, or ``"elsewhere"`` if another process works on it.

        Raises:
            RuntimeError: It failed.
        """
        patience, outcome = Patience(), None
        while outcome in (None, "stopped"):
            self._process = process = Process(self.run, self.root)
            while (outcome := process.outcome()) is None:
                time.sleep(_TICK)
            if outcome == "stopped" and patience.ends(process, standing(self.run).steps):
                outcome = "failed"
        if outcome == "failed":
            raise RuntimeError("\n".join([f"{self.run.name} failed, its log ends with", *process.last_lines()]))
        if outcome == "done" and self.slim and (kept := slim(self.run)):
            print(kept)  # into the job's log
        return outcome

    def checkpoint(self) -> DelayedSubmission:
        """What submitit calls when the job has to end: the run saves, and the same job is to be queued again."""
        from submitit.helpers import DelayedSubmission

        if self._process is not None:
            self._process.stop()
            self._process.wait()
        return DelayedSubmission(self)

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_process": None}


def submit(
    runs: Sequence[Run],
    root: Path,
    folder: Path,
    *,
    cluster: Literal["slurm", "local"] = "slurm",
    jobs: int = 256,
    slim: bool = False,
    settings: Slurm | None = None,
) -> list[Any]:
    """Submit all runs that are not finished as one array.

    Args:
        runs: what to make.
        root: the checkout, on a file system that all nodes share, as the runs' folders must be.
        folder: for submitit's scripts, jobs and logs; shared likewise.
        cluster: "local" is submitit's own imitation of a cluster.
        jobs: runs at a time.
        slim: remove checkpoint and replay of a run when it is finished.
        settings: what a job asks for.

    Returns:
        submitit's jobs.

    Raises:
        ModuleNotFoundError: submitit is not installed.
        SystemExit: This is no machine of a cluster.
    """
    with needs("suite"):
        from submitit import AutoExecutor
    settings = settings or Slurm()
    left = [run for run in runs if standing(run).state != "done"]
    if not left:
        return []
    minutes = settings.timeout_minutes or math.ceil(90 * max(run.hours for run in left)) + 5
    try:
        executor = AutoExecutor(folder, cluster=cluster, slurm_max_num_timeout=settings.max_requeues)
    except RuntimeError as error:  # there is no srun
        raise SystemExit(f"--executor slurm: {error}. Submit from a machine of the cluster, its login node") from error
    executor.update_parameters(
        name=folder.stem,
        timeout_min=minutes,
        cpus_per_task=settings.cores,
        mem_gb=settings.mem_gb,
        gpus_per_node=1 if any(run.device == "cuda" for run in left) else None,
        slurm_partition=settings.partition,
        slurm_account=settings.account,
        slurm_array_parallelism=jobs,
        slurm_signal_delay_s=settings.save_seconds,
        slurm_additional_parameters={"requeue": True, **settings.additional()},
    )
    here = [replace(run, run_dir=os.path.abspath(run.run_dir)) for run in left]
    submitted: list[Any] = executor.submit_array([Job(run, root, slim=slim) for run in here])
    return submitted
