"""``--hosts H``: a run that collects on a fleet, here one in this process, and goes on exactly after a stop."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import gymnasium as gym
import pytest
from test_resume import differences, metrics

from qmp_collect.fleet import LocalFleet
from qmp_collect.runs import StopSignal, training
from qmp_collect.runs.replay_files import load_run_state

SETTINGS = {
    "env-id": "Maze3", "env-steps-per-round": 20, "gradient-steps-per-round": 3, "min-buffer-size": 40,
    "batch-size": 6, "hidden-dim": 8, "envs-per-task": 2, "total-timesteps": 480, "eval-every": 240,
    "eval-episodes": 1, "checkpoint-every": 120, "torch-threads": 1, "warmup-rounds": 1, "hosts": 2,
    "own-probability": 0.6, "own-probability-final": 0.0,
}  # fmt: skip
TINY = [f"--{flag}={value}" for flag, value in SETTINGS.items()]
RunScript = Callable[..., None]
pytestmark = pytest.mark.usefixtures("short_episodes")


@pytest.fixture(autouse=True)
def local(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(training, "RayFleet", LocalFleet)


@pytest.mark.parametrize("name", ["sac_qmp_separate", "sac_qmp_multihead"])
def test_it_trains_on_what_hosts_collect_and_goes_on_exactly(
    name: str, run_script: RunScript, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole, stopped = tmp_path / "whole", tmp_path / "stopped"
    make_vec, made = gym.make_vec, []
    with monkeypatch.context() as patch:
        patch.setattr(gym, "make_vec", lambda *args, **settings: made.append(settings) or make_vec(*args, **settings))
        run_script(name, *TINY, "--run-dir", whole)
    assert [settings["num_envs"] for settings in made] == [3, 6, 6]  # to evaluate, and those of the hosts
    state = load_run_state(whole)
    hosts = state["collector"]["fleet"]["hosts"]
    assert {host: saved["sequence"] for host, saved in hosts.items()} == {"0": 8, "1": 8}  # a part of each round
    # 30 steps of a round's 60 are each host's, in vector steps of 6; the first 30 are its warm-up.
    assert {host: saved["state"]["num_steps"] for host, saved in hosts.items()} == {"0": 240, "1": 240}
    assert state["buffer"]["added"].tolist() == [160, 160, 160]
    rows = [row for row in metrics(whole) if "qmp/foreign_fraction" in row]
    assert rows[0]["qmp/foreign_fraction"] == 0.0 < rows[-1]["qmp/foreign_fraction"]
    assert json.loads((whole / "done.json").read_text()) == {"global_step": 480, "total_timesteps": 480}

    left = iter([False] * 40)
    with monkeypatch.context() as patch:
        patch.setattr(StopSignal, "__bool__", lambda stop: next(left, True))
        with pytest.raises(SystemExit) as ended:
            run_script(name, *TINY, "--run-dir", stopped)
    assert ended.value.code == 75
    assert 0 < load_run_state(stopped)["collector"]["num_steps"] < 480
    run_script(name, "--resume", stopped)
    assert metrics(stopped) == metrics(whole)
    assert list(differences(load_run_state(stopped), state)) == []


def test_seeds_side_by_side_have_no_hosts(run_script: RunScript, tmp_path: Path) -> None:
    with pytest.raises(SystemExit, match="--hosts 2: not together with --num-seeds"):
        run_script("sac_qmp_separate", *TINY, "--num-seeds", 2, "--run-dir-root", tmp_path)


def test_there_is_no_ray(run_script: RunScript, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()
    monkeypatch.setitem(__import__("sys").modules, "ray", None)
    with pytest.raises((ModuleNotFoundError, SystemExit), match=r"pip install .*qmp-collect\[ray\]"):
        run_script("sac_qmp_separate", *TINY, "--run-dir-root", tmp_path)
