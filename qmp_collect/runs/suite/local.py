"""Runs side by side on this machine."""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path

from qmp_collect.runs.console import Console, say
from qmp_collect.runs.stop import SAVED, StopSignal
from qmp_collect.runs.suite.manifest import Run
from qmp_collect.runs.suite.process import Patience, Process, slim
from qmp_collect.runs.suite.status import Standing, standing, summary

_TICK = 0.1  # seconds between two looks at the runs
_LOOKS = 10  # ticks between two looks at how far they are


class LocalExecutor:
    """Makes runs as processes, in their order, a given number at a time, each on cores of its own.

    Finished runs are skipped, stopped and killed ones continued, those that another process works on left to it. A run
    that was stopped from outside is run again. SIGTERM, Ctrl-C and the like stop all runs, which save; so does, on
    Linux, the death of this process, however it dies.

    Args:
        runs: what to make.
        root: the checkout.
        jobs: runs at a time.
        budget_minutes: after so long all runs are stopped; none is started that would not come to a checkpoint before.
        nice: by how much they give way to other processes.
        slim: remove checkpoint and replay of a run when it is finished.
    """

    def __init__(
        self,
        runs: Sequence[Run],
        root: Path,
        *,
        jobs: int = 1,
        budget_minutes: float | None = None,
        nice: int = 0,
        slim: bool = False,
    ) -> None:
        if jobs < 1:
            raise ValueError(f"jobs is {jobs}, expected 1 or more")
        self.runs, self.root, self.nice, self.slim = list(runs), root, nice, slim
        self._end = None if budget_minutes is None else time.monotonic() + 60 * budget_minutes
        self._free = core_sets(jobs)
        self._working: dict[str, tuple[Process, tuple[int, ...]]] = {}
        self._standings: dict[str, Standing] = {}
        self._failed: set[str] = set()
        self._patience = {run.name: Patience() for run in self.runs}
        self._stopping = False

    def execute(self) -> int:
        """Make all runs.

        Returns:
            The exit code: 0 if all are finished, 1 if any failed, 75 if any is left to be continued.
        """
        for run in self.runs:
            self._look(run)
        console, ticks = self._console(), 0
        try:
            with StopSignal() as stop:
                while True:
                    if not self._stopping and (stop or self._over()):
                        self._stop_all()
                    ended, look = self._end_some(), ticks % _LOOKS == 0
                    if not self._stopping and (ended or look):
                        self._start_some()
                    if not self._working:
                        break
                    if look:
                        self._show(console)
                    ticks += 1
                    time.sleep(_TICK)
        finally:
            for process, _ in self._working.values():
                process.stop()
            self._show(console)
            console.close()
        standings = [standing(run) for run in self.runs]
        say(summary(standings))
        if self._failed:
            return 1
        return 0 if all(each.state == "done" for each in standings) else SAVED

    def _over(self) -> bool:
        return self._end is not None and time.monotonic() >= self._end

    def _stop_all(self) -> None:
        self._stopping = True
        if self._working:
            say(f"stopping {len(self._working)} runs, which save")
        for process, _ in self._working.values():
            process.stop()

    def _end_some(self) -> bool:
        """Take note of the runs that have ended. Whether there are any."""
        free = len(self._free)
        for name, (process, cores) in list(self._working.items()):
            outcome = process.outcome()
            if outcome is None:
                continue
            del self._working[name]
            self._free.append(cores)
            steps = self._look(process.run).steps
            if outcome == "stopped" and not self._stopping and self._patience[name].ends(process, steps):
                outcome = "failed"
            if outcome == "failed":
                self._failed.add(name)
            if outcome == "done" and self.slim and (kept := slim(process.run)):
                say(kept)
            why = "".join(f"\n    {line}" for line in process.last_lines()) if outcome == "failed" else ""
            say(f"{name}: {outcome} at step {steps}{why}")
        return len(self._free) > free

    def _start_some(self) -> None:
        for run in self.runs:
            if not self._free:
                return
            if self._startable(run):
                cores = self._free[0]
                try:
                    process = Process(run, self.root, cores=cores, nice=self.nice)
                except OSError as error:  # as where its folder cannot be: the others may do better
                    self._failed.add(run.name)
                    say(f"{run.name}: failed to start: {error}")
                    continue
                del self._free[0]
                self._working[run.name] = process, cores
                say(f"{run.name}: started on cores {','.join(map(str, cores)) or 'all'}")

    def _startable(self, run: Run) -> bool:
        if run.name in self._working or run.name in self._failed or self._standings[run.name].state == "done":
            return False
        now = self._look(run)
        if now.state in ("done", "running"):
            return False
        return self._end is None or time.monotonic() + 3600 * now.hours_to_checkpoint <= self._end

    def _look(self, run: Run) -> Standing:
        self._standings[run.name] = standing(run)
        return self._standings[run.name]

    def _console(self) -> Console:
        return Console(len(self.runs), self._made(), unit="run")

    def _made(self) -> float:
        """Runs, parts of them included."""
        return round(sum(each.share for each in self._standings.values()), 2)

    def _show(self, console: Console) -> None:
        for process, _ in self._working.values():
            self._look(process.run)
        shown = {"running": len(self._working)} | ({"failed": len(self._failed)} if self._failed else {})
        console.advance(self._made(), shown)


def core_sets(jobs: int) -> list[tuple[int, ...]]:
    """The allowed cores, divided into one set for each job; more jobs than cores share them."""
    if not hasattr(os, "sched_getaffinity"):
        return [()] * jobs
    cores = sorted(os.sched_getaffinity(0))
    if jobs > len(cores):
        return [(cores[job % len(cores)],) for job in range(jobs)]
    ends = [job * len(cores) // jobs for job in range(jobs + 1)]
    return [tuple(cores[first:end]) for first, end in pairwise(ends)]
