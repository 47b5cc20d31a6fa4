"""The figures of point reaching are drawn from what is kept of the runs."""

from __future__ import annotations

import gzip
import importlib.util
import json
import sys
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("mujoco")
pytest.importorskip("tyro")
pytest.importorskip("matplotlib")

ROOT = Path(__file__).parents[2]


@pytest.fixture
def point_reach(monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT / "benchmark"))
    spec = importlib.util.spec_from_file_location("point_reach_figures", ROOT / "benchmark" / "point_reach.py")
    monkeypatch.setitem(sys.modules, spec.name, module := importlib.util.module_from_spec(spec))
    spec.loader.exec_module(module)
    return module


def keep(point_reach, folder: Path, way: str, rate: float, seed: int, level: float) -> None:
    run = folder / point_reach.name(way, rate, seed)
    run.mkdir(parents=True)
    (run / "config.json").write_text("{}")
    rows = [
        {"global_step": step, "charts/return": level + seed, "eval/return": level - 1, "charts/success": 0.5}
        for step in range(100, 1100, 100)
    ]
    (run / "metrics.jsonl.gz").write_bytes(gzip.compress("".join(json.dumps(r) + "\n" for r in rows).encode()))
    steps = np.random.default_rng(seed).random((40, 2, 2)).astype(np.float16)
    helpers = np.zeros(40, np.int8) if way == "sac" else np.arange(40, dtype=np.int8) % 4
    np.savez_compressed(run / "trajectories.npz", steps=steps, behavior_ids=helpers)


def test_table_and_figures(point_reach, tmp_path, capsys):
    for rate in point_reach.RATES:
        for level, way in enumerate(point_reach.WAYS):
            for seed in (1, 2, 3):
                keep(point_reach, tmp_path / "runs", way, rate, seed, 10.0 * level)
    point_reach.main(point_reach.Args(seeds=(1, 2, 3), runs=tmp_path / "runs", docs=tmp_path / "docs"))
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 1 + 2 * 3
    assert "2.00 ± 1.00" in lines[1]  # seeds 1, 2, 3
    assert "-1.00 ± 0.00" in lines[1]
    assert "22.00 ± 1.00" in lines[3]
    assert {file.name for file in (tmp_path / "docs").iterdir()} == {
        "point_reach_trajectories.png",
        "point_reach_returns.png",
    }


def test_a_run_leaves_what_the_figures_need(point_reach, tmp_path, monkeypatch):
    """The command of a run, and which of its files stay."""
    asked = []

    def run(command, **settings):
        asked.append(command)
        run_dir = Path(command[command.index("--run-dir-root") + 1]) / "a run"
        run_dir.mkdir()
        config = {"exp_name": "point_reaching", "seed": 7, "total_timesteps": 100, "run_dir_root": str(run_dir.parent)}
        (run_dir / "config.json").write_text(json.dumps(config))
        (run_dir / "metrics.jsonl").write_text('{"global_step": 100, "eval/return": -1.0}\n')
        (run_dir / "provenance.jsonl").write_text('{"commit": "0123abc", "modified": false, "command": "python"}\n')
        (run_dir / "trajectories.npz").write_bytes(b"...")
        (run_dir / "checkpoint.npz").write_bytes(b"...")

    monkeypatch.setattr(point_reach.subprocess, "run", run)
    point_reach.make("relevant", 1e-5, 7, ["--total-timesteps", "100"], tmp_path)
    (kept,) = tmp_path.iterdir()
    assert kept.name == "relevant_policy_lr_1e-05_seed7"
    assert {file.name for file in kept.iterdir()} == {
        "config.json",
        "metrics.jsonl.gz",
        "provenance.jsonl",
        "trajectories.npz",
    }
    assert "--helpers relevant --policy-learning-rate 1e-05 --seed 7" in " ".join(map(str, asked[0]))
