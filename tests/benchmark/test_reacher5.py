"""What `benchmark/reacher5.py` says of runs whose answers are known."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("tyro")
pytest.importorskip("scipy")
sys.path.insert(0, str(Path(__file__).parents[2] / "benchmark"))
import reacher5

from qmp_collect.runs.report.runs import Run

STEPS = range(0, 2_000_001, 20_000)


def run_of(seed: int, last: float, at_half: float = 0.5, late: float = 0.1) -> Run:
    """A run of five tasks: others act in 0.3 of each task's steps, from 0.4 M on in ``late``, policy 4 never."""
    rows = []
    for step in STEPS:
        value = at_half if step == 500_000 else last if step > 1_800_000 else 0.2
        others = 0.3 if step <= 400_000 else late
        mixture = np.full((5, 5), others / 3)
        mixture[:, 4] = 0
        mixture[4, :4] = others / 4
        mixture[3, :3] *= 2  # the sparse task has twice as much of them
        np.fill_diagonal(mixture, 0)
        mixture += np.diag(1 - mixture.sum(1))
        rows.append({"global_step": step, "eval/any_hit": value, "eval/success": 0.0, "qmp/mixture": mixture.tolist()})
    return Run(Path(f"seed{seed}"), {"seed": seed, "total_timesteps": 2_000_000}, rows, 2_000_000)


def test_predictions() -> None:
    qmp = reacher5.Arm([run_of(11, 1.0, 0.9), run_of(12, 0.98, 0.95), run_of(13, 0.99, 0.7, late=0.35)])
    own = reacher5.Arm([run_of(11, 0.8), run_of(12, 0.7), run_of(13, 0.9)])
    assert qmp.last.tolist() == pytest.approx([1.0, 0.98, 0.99])
    said = [row[1:] for row in reacher5.predictions({"QMP": qmp, "own policy": own}).rows]
    assert said[0][0] == "0.800 [0.552, 1.048]"  # 4.303 * 0.1 / sqrt(3) on either side
    assert said[1][0] == "0.990 [0.965, 1.015]"
    assert said[2][0].startswith("0.190 [-0.055, 0.435], better in 1.00 of pairs")
    assert said[3][0].startswith("0.90, 0.95, 0.70: 0.850 [")
    assert said[4] == ["fewer than two runs: QMP-Uniform", ""]
    assert said[5] == ["fewer than two runs: wrong critic", ""]
    assert [seed[:6] for seed in said[6][0].split("; ")] == ["11 yes", "12 yes", "13 no "]
    assert [seed.split(" (")[0] for seed in said[7][0].split("; ")] == [f"{n} yes, yes" for n in (11, 12, 13)]
    p, holm = map(float, said[2][1].split(", "))
    assert holm == pytest.approx(min(8 * p, 1), abs=1e-3)  # the smallest of the family, which has eight members


def test_table() -> None:
    (row,) = reacher5.table({"own policy": reacher5.Arm([run_of(11, 0.8, at_half=0.6), run_of(12, 0.95)])}).rows
    assert row[0] == "own policy"
    assert row[1].startswith("0.60, 0.50: 0.550 [")
    assert row[2].startswith("0.80, 0.95: 0.875 [")
    assert row[-2].startswith("0.875 [0.800, 0.950]")
    assert row[-1] == "never, 1.82 M"


def test_gains() -> None:
    arms = {label: reacher5.Arm([run_of(11, last), run_of(12, last)]) for label, last in (("QMP", 0.9), ("x", 0.7))}
    ((label, half, last, *_),) = reacher5.gains(arms).rows
    assert (label, half, last) == (
        "x", "0.000 [0.000, 0.000], better in 0.50 of pairs", "0.200 [0.200, 0.200], better in 1.00 of pairs"
    )  # fmt: skip
