"""The scripts train on every task set, and a run that was stopped there goes on as if it had not been."""

from __future__ import annotations

import functools
from collections.abc import Callable
from pathlib import Path

import gymnasium as gym
import pytest
from test_resume import assert_same, metrics, only_run

SETTINGS = {
    "env-steps-per-round": 3, "gradient-steps-per-round": 2, "min-buffer-size": 3, "buffer-size": 1000, "batch-size": 4,
    "hidden-dim": 8, "eval-episodes": 1, "eval-envs-per-task": 1, "torch-threads": 1,
}  # fmt: skip
TINY = [word for flag, value in SETTINGS.items() for word in (f"--{flag}", str(value))]
SETS = {
    "PointReach": 1, "Reacher5": 5, "Walker4": 4, "Kitchen10": 10, "MetaWorldCDS": 4, "MetaWorldMT10": 10,
}  # fmt: skip
RUNS = [(name, env_id) for name in ("sac_qmp_separate", "sac_qmp_multihead") for env_id in SETS]
NEEDS = {"Kitchen": "gymnasium_robotics", "Meta": "metaworld"}
RunScript = Callable[..., None]


@pytest.mark.parametrize(("name", "env_id"), RUNS)
def test_train_stop_resume(
    name: str, env_id: str, run_script: RunScript, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for prefix, module in NEEDS.items():
        if env_id.startswith(prefix):
            pytest.importorskip(module)
    # Short episodes: a run has a few of them in a few steps. Not one ends where the first part of a run does.
    monkeypatch.setattr(gym, "make_vec", functools.partial(gym.make_vec, max_episode_steps=4))
    short, long = 6 * SETS[env_id], 9 * SETS[env_id]
    flags = [*TINY, "--env-id", env_id, "--eval-every", short, "--checkpoint-every", long, "--own-probability", 0.5]
    run_script(name, *flags, "--total-timesteps", long, "--run-dir-root", tmp_path / "whole")
    run_script(name, *flags, "--total-timesteps", short, "--run-dir-root", tmp_path / "parts")
    run_dir = only_run(tmp_path / "parts")
    run_script(name, "--resume", run_dir, "--total-timesteps", long)
    assert_same(run_dir, only_run(tmp_path / "whole"))


def test_fifty_tasks(run_script: RunScript, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Made and trained on once: making them is most of it, and saving and resuming they share with MT10's ten."""
    pytest.importorskip("metaworld")
    monkeypatch.setattr(gym, "make_vec", functools.partial(gym.make_vec, max_episode_steps=4))
    flags = ["--env-id", "MetaWorldMT50", "--total-timesteps", 300, "--eval-every", 300, "--own-probability", 0.5]
    run_script("sac_qmp_multihead", *TINY, *flags, "--run-dir-root", tmp_path)
    rows = metrics(only_run(tmp_path))
    assert [row["global_step"] for row in rows] == [0, 150, 300, 300]
    assert len(rows[-1]["qmp/mixture"]) == 50
