"""One run as a process: how it is started, and what its end means."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Literal

from qmp_collect.runs.checkpoint import atomic_file
from qmp_collect.runs.folder import RunFolder, finished
from qmp_collect.runs.stop import SAVED, STOP_SIGNALS
from qmp_collect.runs.suite.manifest import Run
from qmp_collect.runs.suite.status import standing

Outcome = Literal["done", "stopped", "failed", "elsewhere"]

# The C library then asks the kernel for large memory pages: gradient steps on a CPU take a little less and stay the
# same bit for bit (`benchmark/large_pages.py`). Anywhere but under Linux with glibc it is no more than a name.
LARGE_PAGES = {"GLIBC_TUNABLES": "glibc.malloc.hugetlb=1"}

_LAUNCH = Path(__file__).with_name("launch.py")
_LAST_LINES = 20  # of a log, kept of a failure
_TAIL = 1 << 14
_IN_VAIN = 3  # stops in succession after which a run that gets no further has failed


def checkout() -> Path:
    """The folder that scripts are found from: the current one, or the one that this package lies in.

    Raises:
        SystemExit: Neither has ``cleanrl_scripts``.
    """
    for folder in (Path.cwd(), Path(__file__).resolve().parents[3]):
        if (folder / "cleanrl_scripts").is_dir():
            return folder
    raise SystemExit(f"{Path.cwd()} has no cleanrl_scripts: run this in a checkout of the project")


class Process:
    """A run that is being made. Its output goes to a log beside its folder.

    Args:
        run: which.
        root: the checkout, whose scripts and packages it uses.
        cores: to which it is bound; empty for all that there are.
        nice: by how much it gives way to other processes.
    """

    def __init__(self, run: Run, root: Path, *, cores: Sequence[int] = (), nice: int = 0) -> None:
        self.run = run
        self._failed, self._log = run.beside(".failed.json"), run.beside(".log")
        self._log.parent.mkdir(parents=True, exist_ok=True)
        self._failed.unlink(missing_ok=True)
        of_run = {"OMP_NUM_THREADS": str(len(cores) or _allowed()), "PYTHONPATH": _python_path(root)}
        environment = LARGE_PAGES | os.environ | of_run
        if run.device == "cpu":
            environment["CUDA_VISIBLE_DEVICES"] = ""
        words = [str(os.getpid()), str(nice), ",".join(map(str, cores))]
        words += [sys.executable, str(root / run.script), *run.argv[1:], "--run-dir", str(run.dir.resolve())]
        with open(self._log, "ab") as log:
            self._begin = log.tell()
            # In a session of its own, or Ctrl-C would reach it as often as it reaches the executor.
            self._process = subprocess.Popen(
                [sys.executable, str(_LAUNCH), *words],
                cwd=root, env=environment, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True,
            )  # fmt: skip
        self.pid = self._process.pid

    def stop(self) -> None:
        """Ask it to save and end."""
        self._process.terminate()

    def wait(self) -> None:
        """Return when it has ended. For signal handlers too, amid `outcome`: takes no lock of `subprocess`."""
        with suppress(ChildProcessError):
            os.waitid(os.P_PID, self.pid, os.WEXITED | os.WNOWAIT)

    def outcome(self) -> Outcome | None:
        """What its end means, ``None`` before that: a failure is recorded beside its folder, for whoever asks.

        A run that another process works on is that one's to make (``"elsewhere"``).
        """
        code = self._process.poll()
        if code is None:
            return None
        if code == SAVED or -code in STOP_SIGNALS:
            return "stopped"
        state = standing(self.run).state  # whatever the code: another process may have had the run meanwhile
        if state == "done":
            return "done"
        if state == "running":
            return "elsewhere"
        self.record_failure(code)
        return "failed"

    def record_failure(self, code: int, why: str | None = None) -> None:
        """Keep the exit code and the last lines of the log, if there is place for them: a full disk may be why."""
        lines = [why] if why else self.last_lines()
        record = {"code": code, "time": time.strftime("%Y-%m-%dT%H:%M:%S%z"), "log": lines}
        with suppress(OSError), atomic_file(self._failed) as file:
            file.write((json.dumps(record) + "\n").encode())

    def last_lines(self) -> list[str]:
        """Of what it has said since its start."""
        with open(self._log, "rb") as log:
            log.seek(max(self._begin, log.seek(0, 2) - _TAIL))
            return log.read().decode(errors="replace").splitlines()[-_LAST_LINES:]


class Patience:
    """Counts how often in succession a run was stopped without a step between."""

    def __init__(self) -> None:
        self._steps, self._times = -1, 0

    def ends(self, process: Process, steps: int) -> bool:
        """Whether this stop, after so many steps of the run, is one too many, which is recorded as a failure then."""
        self._times = self._times + 1 if steps == self._steps else 1
        self._steps = steps
        if self._times < _IN_VAIN:
            return False
        process.record_failure(SAVED, f"stopped {_IN_VAIN} times at step {steps}, without a step between")
        return True


def slim(run: Run) -> str | None:
    """Remove the checkpoint and the replay of a run that is finished, which cannot be made longer then.

    Returns:
        What there is to say where that cannot be done: they are kept then, and the run is no less finished.
    """
    if finished(run.dir) is not None and (run.dir / "checkpoint.npz").exists():
        try:
            with RunFolder.reopen(run.dir) as folder:
                folder.slim()
        except (OSError, ValueError) as error:
            return f"{run.name}: its checkpoint and replay are kept: {error}"
    return None


def _allowed() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _python_path(root: Path) -> str:
    """The checkout's own packages come first, wherever others are installed."""
    return os.pathsep.join(filter(None, [str(root), str(root / "envs"), os.environ.get("PYTHONPATH", "")]))
