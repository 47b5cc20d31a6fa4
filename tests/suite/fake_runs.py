"""Runs of a script that trains nothing, takes no time, and keeps the contract of a run's folder."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from pathlib import Path

from qmp_collect.runs.suite.manifest import Run

# Counts to --total-timesteps. What --do says is executed before that.
SCRIPT = """
import fcntl, json, os, signal, sys, time
from pathlib import Path

options = dict(zip(sys.argv[1::2], sys.argv[2::2], strict=True))
folder = Path(options["--run-dir"])
folder.mkdir(exist_ok=True)
total = int(options.get("--total-timesteps", 3))
stop = []
signal.signal(signal.SIGTERM, lambda *_: stop.append(True))
lock = open(folder / "lock.json", "a")
try:
    fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
except BlockingIOError:
    sys.exit("it is locked")
lock.truncate(0)
print(json.dumps({"host": "here", "pid": os.getpid(), "start": "today"}), file=lock, flush=True)
checkpoint, metrics = folder / "checkpoint.npz", open(folder / "metrics.jsonl", "a")
step = int(checkpoint.read_text()) if checkpoint.exists() else 0
with open(folder.parent / "starts", "a") as starts:
    print(folder.name, step, file=starts)
exec(options.get("--do", ""))
while step < total and not stop:
    step += 1
    print(json.dumps({"global_step": step, "time/sps": 2.0}), file=metrics, flush=True)
checkpoint.write_text(str(step))
if not stop:
    (folder / "done.json").write_text(json.dumps({"global_step": step, "total_timesteps": total}))
(folder / "lock.json").unlink()
sys.exit(75 if stop else 0)
"""

UNTIL_STOPPED = "while not stop: time.sleep(0.01)"
FAILS = "print('one line'); sys.exit('it went wrong')"
GUARD = 300  # seconds, after which a test hangs


def fake_run(tmp_path: Path, name: str, do: str = "", hours: float = 0.001, **flags: int) -> Run:
    """A run of the script above in ``tmp_path / "runs" / name``."""
    script = tmp_path / "fake.py"
    script.write_text(SCRIPT)
    words = [word for flag, value in flags.items() for word in (f"--{flag.replace('_', '-')}", str(value))]
    words += ["--do", do] if do else []
    return Run(name, str(tmp_path / "runs" / name), (str(script), *words), "cpu", hours)


def starts(tmp_path: Path) -> list[str]:
    """``"NAME STEP"`` of every start, in their order."""
    file = tmp_path / "runs" / "starts"
    return file.read_text().splitlines() if file.exists() else []


def wait_until(condition: Callable[[], object]) -> None:
    """Return as soon as it holds."""
    end = time.monotonic() + GUARD
    while not condition():
        assert time.monotonic() < end, "hangs"
        time.sleep(0.03)


def suite(*words: object) -> list[str]:
    """The command line."""
    return [sys.executable, "-m", "qmp_collect.runs.suite", *map(str, words)]
