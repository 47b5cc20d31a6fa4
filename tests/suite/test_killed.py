"""The smoke plan, with everything killed that can be: the runs are those that nothing disturbed."""

from __future__ import annotations

import json
import os
import runpy
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from fake_runs import suite, wait_until

from qmp_collect.runs.folder import lock_of
from qmp_collect.runs.suite.manifest import Run, dump
from qmp_collect.runs.suite.plans import PLANS
from qmp_collect.runs.suite.process import checkout
from qmp_collect.runs.suite.status import standing

# The script, but that it waits at step 150 while there is a file named "gate", and says so if it is not alone.
HELD = """
import fcntl, runpy, sys, time
from pathlib import Path
from qmp_collect.runs.training import TrainingRun

gate, sys.argv = Path(sys.argv[1]), sys.argv[2:]
unfinished, alone = TrainingRun.unfinished, []

def held(run):
    if not alone:
        alone.append(open(f"{run.dir}.alone", "a"))
        try:
            fcntl.flock(alone[0], fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            Path(f"{run.dir}.twice").touch()
    go_on = unfinished(run)
    while go_on and not run.stop and run.global_step >= 150 and gate.exists():
        time.sleep(0.01)
    return go_on and not run.stop

TrainingRun.unfinished = held
runpy.run_path(sys.argv[0], run_name="__main__")
"""


@pytest.fixture
def threads() -> Iterator[None]:
    precision, number = torch.get_float32_matmul_precision(), torch.get_num_threads()
    yield
    torch.set_float32_matmul_precision(precision)
    torch.set_num_threads(number)


def metrics(folder: Path) -> list[dict[str, Any]]:
    rows = map(json.loads, (folder / "metrics.jsonl").read_text().splitlines())
    return [{k: v for k, v in row.items() if k != "wall_time" and not k.startswith("time/")} for row in rows]


def test_stopped_and_killed_runs_and_a_killed_suite(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, threads: None
) -> None:
    (tmp_path / "held.py").write_text(HELD)
    (tmp_path / "runs").mkdir()
    root, planned = checkout(), PLANS["smoke"].runs(str(tmp_path / "runs"))[:2]
    gates = [Path(f"{run.dir}.gate") for run in planned]
    held = [
        replace(run, argv=(str(tmp_path / "held.py"), str(gate), str(root / run.argv[0]), *run.argv[1:]))
        for run, gate in zip(planned, gates, strict=True)
    ]
    stopped, killed = held
    (tmp_path / "m.jsonl").write_text(dump(held))
    words = suite("run", tmp_path / "m.jsonl", "--jobs", 2)

    def waits(run: Run) -> bool:
        return standing(run).state == "running" and standing(run).steps >= 150

    def send(run: Run, number: signal.Signals) -> None:
        lock = lock_of(run.dir)
        assert lock is not None
        os.kill(lock[0]["pid"], number)

    def starts(run: Run) -> int:
        return len((run.dir / "provenance.jsonl").read_text().splitlines())

    for gate in gates:
        gate.touch()
    driver = subprocess.Popen(words, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    wait_until(lambda: waits(stopped) and waits(killed))
    send(stopped, signal.SIGTERM)
    send(killed, signal.SIGKILL)
    wait_until(lambda: starts(stopped) == 2 and killed.beside(".failed.json").exists())
    driver.kill()
    driver.wait()
    wait_until(lambda: standing(stopped).state != "running")
    assert standing(stopped).state in ("stopped", "stale")  # the second, if it was too early to save
    assert standing(killed).state == "failed"

    for gate in gates:
        gate.unlink()
    again = subprocess.run(words, capture_output=True, text=True)
    assert again.returncode == 0, again.stdout + again.stderr
    assert [starts(run) for run in held] == [3, 2]
    assert not list((tmp_path / "runs").glob("*.twice"))
    for run in planned:
        unbroken = tmp_path / "unbroken" / run.name
        with monkeypatch.context() as patch:
            patch.setattr(sys, "argv", [*run.argv, "--run-dir", str(unbroken)])
            runpy.run_path(str(root / run.argv[0]), run_name="__main__")
        assert metrics(run.dir) == metrics(unbroken)
        assert (run.dir / "config.json").read_bytes() == (unbroken / "config.json").read_bytes()
