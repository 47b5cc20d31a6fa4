"""Every kind of run, from the command line to its files, on a budget of seconds."""

from __future__ import annotations

import functools
import itertools
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch

from qmp_collect.runs.replay_files import load_run_state

SETTINGS = {
    "env-id": "Maze3", "total-timesteps": 180, "env-steps-per-round": 20, "gradient-steps-per-round": 3,
    "min-buffer-size": 24, "batch-size": 24, "hidden-dim": 16, "eval-every": 180, "eval-episodes": 1,
    "torch-threads": 1,
}  # fmt: skip
TINY = [word for flag, value in SETTINGS.items() for word in (f"--{flag}", str(value))]
RunScript = Callable[..., None]
pytestmark = pytest.mark.usefixtures("short_episodes")
parents = ["sac_qmp_separate", "sac_qmp_multihead"]
scripts = pytest.mark.parametrize("name", parents)
methods = pytest.mark.parametrize("name", [*parents, "uds_qmp", "decaf", "dnc", "sac_shared", "pcgrad_qmp", "mcal_qmp"])
JOINT = ("sac_qmp_multihead", "sac_shared", "pcgrad_qmp")  # with one replay buffer for all tasks
ONE_ALPHA = ("sac_shared", "mcal_qmp")


def run(run_script: RunScript, root: Path, name: str, *flags: str) -> tuple[Path, list[dict[str, Any]]]:
    run_script(name, *TINY, "--run-dir-root", root, *flags)
    (run_dir,) = root.iterdir()
    return run_dir, [json.loads(line) for line in (run_dir / "metrics.jsonl").read_text().splitlines()]


ABLATIONS = [
    "--switch own",
    "--switch uniform --horizon 7",
    "--switch softmax --switch-temperature 0.1 --switch-score sample",
    "--switch qmp --switch-samples 3 --switch-critic min",
    "--entropy-term --envs-per-task 2 --target-entropy-scale 0.5 --own-fraction 0.5",
    "--own-probability 0.7 --own-probability-final 0 --warmup-rounds 1",
    "--matmul-precision highest --no-torch-deterministic --no-cuda",
]


@pytest.mark.parametrize(
    ("name", "flags"),
    [
        *itertools.product(parents, ABLATIONS),
        ("uds_qmp", "--switch own --relabel task --sharing-quantile 0"),
        ("uds_qmp", "--horizon 7 --own-probability 0.7 --own-probability-final 0 --no-share-terminations"),
        ("decaf", "--switch qmp --horizon 7 --own-probability 0.7 --own-probability-final 0 --warmup-rounds 1"),
        ("dnc", "--envs-per-task 2 --distill-every 60 --distill-steps 2 --kl-coefficient 0.1"),
        ("sac_shared", "--envs-per-task 2 --target-entropy-scale 0.5"),
        ("pcgrad_qmp", "--switch own --surgery all"),
        ("pcgrad_qmp", "--horizon 7 --own-probability 0.7 --own-probability-final 0 --warmup-rounds 1"),
        ("mcal_qmp", "--switch own --critic mh"),
        ("mcal_qmp", "--critic mn --horizon 7 --own-probability 0.7 --own-probability-final 0 --warmup-rounds 1"),
    ],
)
def test_flags(name: str, flags: str, run_script: RunScript, tmp_path: Path) -> None:
    run_dir, rows = run(run_script, tmp_path, name, *flags.split())
    steps = [row["global_step"] for row in rows if "time/sps" in row]
    assert steps == [60, 120, 180]
    # Learning starts when the buffers hold enough: 24 transitions of each task, or of all.
    assert ["losses/qf_loss" in row for row in rows if "time/sps" in row] == [name in JOINT, True, True]
    assert all(np.isfinite(value).all() for row in rows for value in row.values())
    assert (run_dir / "checkpoint.npz").exists()
    assert list(run_dir.glob("events.out.tfevents.*"))


@methods
def test_metrics_and_files(name: str, run_script: RunScript, tmp_path: Path) -> None:
    run_dir, rows = run(run_script, tmp_path, name, *(["--distill-steps", "2"] if name == "dnc" else []))
    names = ("5_6_to_5_3", "5_6_to_1_2", "5_6_to_4_1")
    evaluations = [row for row in rows if "eval/success" in row]
    assert [row["global_step"] for row in evaluations] == [0, 180]
    assert {f"eval/{task}/{what}" for task in names for what in ("success", "return")} < evaluations[0].keys()
    last = rows[-2]
    for tag in ("qf_loss", "qf_value", "actor_loss", "alpha_loss", "alpha", "entropy"):
        assert f"losses/{tag}" in last
    assert all((f"tasks/{task}/alpha" in last) == (name not in ONE_ALPHA) for task in names)
    assert {f"time/{part}" for part in ("act", "env", "store", "update", "sps")} < last.keys()
    mixture = np.array(evaluations[-1]["qmp/mixture"])
    assert mixture.shape == (3, 3)
    assert mixture.sum(axis=1) == pytest.approx(1.0, abs=1e-3)
    own = [last[f"qmp/own_fraction/{i}"] for i in range(3)]
    assert last["qmp/foreign_fraction"] == pytest.approx(1 - np.mean(own))
    drawn = [last[f"tasks/{task}/own_share"] for task in names]
    assert 0 <= min(drawn) <= max(drawn) <= 1
    assert last["replay/own_share"] == pytest.approx(np.mean(drawn))
    config = json.loads((run_dir / "config.json").read_text())
    assert (config["env_id"], config["total_timesteps"]) == ("Maze3-v0", 180)
    assert "resume" not in config
    switch = {"decaf": "own__", "dnc": "", "sac_shared": ""}.get(name, "qmp__")
    assert run_dir.name.startswith(f"Maze3-v0__{name}__{switch}1__")


@pytest.mark.parametrize(
    ("name", "flags", "others"),
    [
        *((name, "--switch own", "--warmup-rounds 1000") for name in [*parents, "pcgrad_qmp", "mcal_qmp"]),
        *((name, "--eval-every 180", "--eval-every 40 --eval-episodes 4 --eval-envs-per-task 2") for name in parents),
    ],
)
def test_changes_nothing_else(name: str, flags: str, others: str, run_script: RunScript, tmp_path: Path) -> None:
    """The same run under "own" as under a switch that is never asked, and however often it is evaluated."""
    states = []
    for number, given in enumerate((flags, others)):
        run_dir, _ = run(run_script, tmp_path / str(number), name, *given.split())
        states.append(load_run_state(run_dir))
    for net in ("actor", "qf", "qf_target"):
        a, b = (state["agent"][net] for state in states)
        assert all(torch.equal(a[key], b[key]) for key in a)
    assert torch.equal(states[0]["buffer"]["rows"], states[1]["buffer"]["rows"])


@scripts
def test_videos(name: str, run_script: RunScript, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gym, "make", functools.partial(gym.make, max_episode_steps=4))
    run_dir, _ = run(
        run_script, tmp_path, name, "--capture-video", "--total-timesteps", "60", "--min-buffer-size", "20"
    )
    videos = sorted((run_dir / "videos").iterdir())
    assert [video.name for video in videos] == ["5_6_to_1_2.gif", "5_6_to_4_1.gif", "5_6_to_5_3.gif"]
    assert all(video.read_bytes()[:6] == b"GIF89a" for video in videos)


@scripts
def test_cuda_graphs_need_a_gpu(name: str, run_script: RunScript, tmp_path: Path) -> None:
    with pytest.raises(SystemExit, match="needs a CUDA device"):
        run(run_script, tmp_path, name, "--cudagraphs", "--no-cuda")


def test_evaluation_episodes_are_shared_out_evenly(run_script: RunScript, tmp_path: Path) -> None:
    with pytest.raises(SystemExit, match="2 must divide 3"):
        run(run_script, tmp_path, "sac_qmp_separate", "--eval-episodes", "3", "--eval-envs-per-task", "2")
