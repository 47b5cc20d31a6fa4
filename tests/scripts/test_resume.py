"""A run that was stopped or killed and then resumed is the run that was not, bit for bit."""

from __future__ import annotations

import itertools
import json
import multiprocessing
import os
import shlex
import signal
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from script_files import load_script, run_as_program

from qmp_collect.runs import StopSignal, load_checkpoint, training
from qmp_collect.runs.replay_files import load_run_state

# Everything that has a state is used: rings that wrap, held policies, a schedule, a learned entropy weight. Rounds of
# 18 steps end amid episodes, which have 20.
SETTINGS = {
    "env-id": "Maze3", "total-timesteps": 486, "env-steps-per-round": 18, "gradient-steps-per-round": 6,
    "min-buffer-size": 36, "buffer-size": 324, "batch-size": 8, "hidden-dim": 16, "warmup-rounds": 1,
    "horizon": 3, "own-probability": 0.3, "own-probability-final": 0.1, "eval-every": 324, "eval-episodes": 1,
    "checkpoint-every": 162, "torch-threads": 1, "distill-every": 144, "distill-steps": 3,
    "horizon-rule": "levy", "switch-margin": 0.1, "own-share-floor": 0.3,
    "helper": "script_files:left", "demonstration-rounds": 3, "clone-steps": 20,
}  # fmt: skip
ONE_TASK = {
    "env-id": "PointReach", "total-timesteps": 162, "buffer-size": 108, "eval-every": 108, "checkpoint-every": 54,
}  # fmt: skip
RunScript = Callable[..., None]
pytestmark = pytest.mark.usefixtures("short_episodes")

# What is killed are processes forked from one that has imported all that a script does, which takes longer than a run.
processes = multiprocessing.get_context("forkserver")
processes.set_forkserver_preload(["pytest", "torch.utils.tensorboard", "qmp_collect.runs.training", "qmp_envs.maze"])


def tiny(name: str) -> list[str]:
    """These settings, as far as a script has them."""
    known = vars(load_script(name).Args())
    settings = SETTINGS | (ONE_TASK if name == "point_reaching" else {})
    found = [f"--{flag}={value}" for flag, value in settings.items() if flag.replace("-", "_") in known]
    return found + [f"--{flag}" for flag in ("entropy-term", "switch-relative") if flag.replace("-", "_") in known]


def only_run(root: Path) -> Path:
    (run_dir,) = root.iterdir()
    return run_dir


def metrics(run_dir: Path) -> list[dict[str, Any]]:
    rows = map(json.loads, (run_dir / "metrics.jsonl").read_text().splitlines())
    return [{k: v for k, v in row.items() if k != "wall_time" and not k.startswith("time/")} for row in rows]


def differences(a: Any, b: Any, place: str = "") -> Iterator[str]:
    """Where two checkpoints differ, apart from measured times."""
    if place.endswith("_time") or "/time/" in place:
        return
    if isinstance(a, dict):
        assert a.keys() == b.keys(), place
        for key in a:
            yield from differences(a[key], b[key], f"{place}/{key}")
    elif isinstance(a, list | tuple):
        assert len(a) == len(b), place
        for index, (x, y) in enumerate(zip(a, b, strict=True)):
            yield from differences(x, y, f"{place}/{index}")
    elif not (torch.equal(a, b) if isinstance(a, torch.Tensor) else np.array_equal(a, b)):
        yield place


def assert_same(run_dir: Path, reference: Path) -> None:
    assert metrics(run_dir) == metrics(reference)
    a, b = (load_run_state(folder) for folder in (run_dir, reference))
    assert list(differences(a, b)) == []


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str, RunScript], Path]:
    """The run of a script that nothing disturbed, made once."""
    roots: dict[str, Path] = {}

    def run(name: str, run_script: RunScript) -> Path:
        if name not in roots:
            roots[name] = tmp_path_factory.mktemp(name)
            run_script(name, *tiny(name), "--run-dir-root", roots[name])
        return only_run(roots[name])

    return run


parents = ["sac_qmp_separate", "sac_qmp_multihead"]
names = pytest.mark.parametrize("name", parents)
METHODS = ["uds_qmp", "decaf", "dnc", "sac_shared", "pcgrad_qmp", "mcal_qmp", "point_reaching", "sac_qmp_helper"]


# How often the loop asks in vain whether to stop, and amid what the run then ends: an evaluation of 20 steps, rounds
# of 18 and their gradient steps, which begin in the second round (with one replay buffer for all tasks in the first).
STOPS = [
    *[("sac_qmp_separate", *stop) for stop in ((0, ""), (5, ""), (30, "steps"), (50, "steps"), (62, "updates"))],
    *[("sac_qmp_helper", *stop) for stop in ((50, "steps"), (101, "updates"))],
    *[("sac_qmp_multihead", *stop) for stop in ((0, ""), (5, ""), (30, "steps"), (50, "updates"), (70, "steps"))],
    *[(name, *stop) for name in ("uds_qmp", "decaf", "dnc", "mcal_qmp") for stop in ((50, "steps"), (62, "updates"))],
    *[(name, *stop) for name in ("sac_shared", "pcgrad_qmp") for stop in ((30, "steps"), (50, "updates"))],
    *[("point_reaching", *stop) for stop in ((5, ""), (30, "steps"), (62, "updates"))],
]


@pytest.mark.parametrize(("name", "questions", "amid"), STOPS)
def test_stopped_anywhere(
    name: str,
    questions: int,
    amid: str,
    uninterrupted: Callable[[str, RunScript], Path],
    run_script: RunScript,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    root = tmp_path / "my runs"  # what is said can be typed all the same
    left = iter([False] * questions)
    with monkeypatch.context() as patch:
        patch.setattr(StopSignal, "__bool__", lambda stop: next(left, True))
        with pytest.raises(SystemExit) as ended:
            run_script(name, *tiny(name), "--run-dir-root", root)
    assert ended.value.code == 75  # not what a finished run ends with
    assert f"--resume {shlex.quote(str(only_run(root)))}\n" in capsys.readouterr().out
    run = load_checkpoint(only_run(root) / "checkpoint.npz")["run"]
    assert (run["updates_due"] > 0, run["interrupted"]) == (amid == "updates", amid == "steps")
    run_script(name, "--resume", only_run(root))
    assert_same(only_run(root), uninterrupted(name, run_script))


def test_stopped_while_it_begins_or_ends(
    uninterrupted: Callable[[str, RunScript], Path],
    run_script: RunScript,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """As when a tracker, whose network is slow, takes its time."""

    def stop(**_: object) -> None:
        os.kill(os.getpid(), signal.SIGUSR1)

    def nothing(*_: object, **__: object) -> None: ...

    tracker = SimpleNamespace(init=stop, log=nothing, finish=nothing)
    monkeypatch.setitem(sys.modules, "slow_tracker", tracker)  # type: ignore[arg-type]
    deaths: list[int] = []  # what a program would have died of
    former = signal.signal(signal.SIGUSR1, lambda number, _: deaths.append(number))
    try:
        flags = [*tiny("point_reaching"), "--tracker", "slow_tracker", "--run-dir", tmp_path / "run"]
        for _ in ("begun", "continued"):
            with pytest.raises(SystemExit, match=r"^75$"):
                run_script("point_reaching", *flags)
            assert load_checkpoint(tmp_path / "run" / "checkpoint.npz")["collector"]["num_steps"] == 0
        tracker.init, tracker.finish = nothing, stop
        run_script("point_reaching", *flags)
    finally:
        signal.signal(signal.SIGUSR1, former)
    assert not deaths
    assert (tmp_path / "run" / "done.json").exists()
    assert_same(tmp_path / "run", uninterrupted("point_reaching", run_script))


def run_to_be_killed(name: str, root: Path, sender: Any) -> None:
    """In a process of its own: a script that says when it is amid its fifth round, and waits there."""
    asked, after, fourth = StopSignal.__bool__, itertools.count(), 72 if name == "point_reaching" else 216

    def held(stop: StopSignal) -> bool:
        logged = any(f'"global_step": {fourth}' in file.read_text() for file in root.glob("*/metrics.jsonl"))
        if logged and next(after) == 7:
            sender.send("kill me")
            while not asked(stop):
                time.sleep(0.01)
        return asked(stop)

    StopSignal.__bool__ = held  # type: ignore[method-assign]
    run_as_program(name, *tiny(name), "--run-dir-root", root)


@pytest.mark.parametrize(
    ("name", "kill"),
    [
        *itertools.product(parents, [signal.SIGTERM, signal.SIGKILL]),
        *zip(METHODS, itertools.cycle([signal.SIGKILL, signal.SIGTERM]), strict=False),
    ],
)
def test_killed(
    name: str,
    kill: signal.Signals,
    uninterrupted: Callable[[str, RunScript], Path],
    run_script: RunScript,
    tmp_path: Path,
) -> None:
    receiver, sender = processes.Pipe(False)
    process = processes.Process(target=run_to_be_killed, args=(name, tmp_path, sender))
    process.start()
    sender.close()
    receiver.recv()
    assert process.pid is not None
    os.kill(process.pid, kill)
    process.join()
    assert process.exitcode == (75 if kill == signal.SIGTERM else -kill)
    run_script(name, "--resume", only_run(tmp_path))
    assert_same(only_run(tmp_path), uninterrupted(name, run_script))


@names
def test_a_finished_run_can_be_made_longer(name: str, run_script: RunScript, tmp_path: Path) -> None:
    # The schedule of own_probability is over the run's length: without it.
    constant = ["--own-probability-final", "None"]
    run_script(name, *tiny(name), *constant, "--run-dir-root", tmp_path / "long")
    run_script(name, *tiny(name), *constant, "--run-dir-root", tmp_path / "short", "--total-timesteps", 324)
    run_dir = only_run(tmp_path / "short")
    run_script(name, "--resume", run_dir, "--total-timesteps", 486)
    assert json.loads((run_dir / "config.json").read_text())["total_timesteps"] == 486
    assert_same(run_dir, only_run(tmp_path / "long"))
    with pytest.raises(SystemExit, match="seed cannot be changed"):
        run_script(name, "--resume", run_dir, "--seed", 7)


def test_a_round_is_logged_once_however_often_it_is_made(run_script: RunScript, tmp_path: Path) -> None:
    """Stopped between gradient steps, resumed, killed before the next checkpoint, resumed again."""
    flags = [*tiny("sac_qmp_separate"), "--checkpoint-every", "100000", "--run-dir-root", tmp_path]
    left = iter([False] * 62)  # as above
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(StopSignal, "__bool__", lambda stop: next(left, True))
        with pytest.raises(SystemExit):
            run_script("sac_qmp_separate", *flags)
    run_dir = only_run(tmp_path)
    unfinished, asked = training.TrainingRun.unfinished, iter([True])

    def killed_in_the_next_round(run: training.TrainingRun) -> bool:
        return next(asked) and unfinished(run)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(training.TrainingRun, "unfinished", killed_in_the_next_round)
        with pytest.raises((StopIteration, RuntimeError)):
            run_script("sac_qmp_separate", "--resume", run_dir)
    run_script("sac_qmp_separate", "--resume", run_dir)
    steps = [row["global_step"] for row in metrics(run_dir) if "eval/success" not in row]
    assert steps == list(range(54, 487, 54))


def test_what_cannot_be_resumed(uninterrupted: Callable[[str, RunScript], Path], run_script: RunScript) -> None:
    run_dir = uninterrupted("sac_qmp_separate", run_script)
    with pytest.raises(SystemExit, match=r"another script .*'switch_critic_of'\]; it is one of 'sac_qmp_separate'"):
        run_script("sac_qmp_multihead", "--resume", run_dir)
    with pytest.raises(SystemExit, match=r"another script or version, differing in \['critic'"):
        run_script("mcal_qmp", "--resume", run_dir)
    with pytest.raises(SystemExit, match="is at step 486 already"):
        run_script("sac_qmp_separate", "--resume", run_dir, "--total-timesteps", 216)
