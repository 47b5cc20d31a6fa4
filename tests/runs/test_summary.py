"""What a run says at its end."""

from __future__ import annotations

import io
import json
import math
import sys
from pathlib import Path

import pytest

from qmp_collect.runs import summary as module
from qmp_collect.runs.summary import curve, summary, summary_of_seeds


def row(step: int, **values: float) -> str:
    return json.dumps({"global_step": step, **{f"eval/{name.replace('__', '/')}": v for name, v in values.items()}})


def test_what_was_learned_and_where_it_lies(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = [
        row(0, success=0.0, left__success=0.0, far_right__success=0.0, **{"return": -9.0}),
        json.dumps({"global_step": 50, "charts/success": 1.0}),
        row(100, success=0.5, left__success=1.0, far_right__success=0.0, **{"return": -8.0}),
        row(200, success=0.75, left__success=1.0, far_right__success=0.5, **{"return": -7.0}),
    ]
    (tmp_path / "my run").mkdir()
    (tmp_path / "my run" / "metrics.jsonl").write_text("\n".join(rows) + "\n")
    monkeypatch.setattr(module, "_qmp", lambda: ".venv/bin/qmp")
    monkeypatch.chdir(tmp_path)
    said = summary(Path("my run"), ["left", "far_right"])
    assert said == (
        "finished. success of each task's own policy, from step 0 to 200:\n"
        "  left           0.00 ->     1.00  ▁██\n"
        "  far_right      0.00 ->     0.50  ▁▁▅\n"
        "  mean of 2      0.00 ->     0.75  ▁▅▆\n"
        "run folder      'my run', the log in metrics.jsonl\n"
        "policy          'my run/policy.safetensors'\n"
        "learning curve  .venv/bin/qmp plot 'my run' --out 'my run/success.png'\n"
        "watch it        .venv/bin/qmp enjoy 'my run' --gifs"
    )


def test_a_run_that_was_better_before(tmp_path: Path) -> None:
    rows = [
        row(step, success=mean, task__success=mean, **{"return": 0.0}) for step, mean in ((0, 0.0), (5, 1.0), (9, 0.5))
    ]
    (tmp_path / "metrics.jsonl").write_text("\n".join(rows) + "\n")
    assert "\n  the best mean was 1.00, at step 5; the policy is that of the end\n" in summary(tmp_path, ["task"])


def test_who_acted(tmp_path: Path) -> None:
    (tmp_path / "metrics.jsonl").write_text(
        row(0, task__return=0.0, **{"return": 0.0})
        + "\n"
        + "".join(
            json.dumps({"global_step": step, "eval/return": 0.0, "eval/task/return": 0.0, "qmp/mixture": mixture})
            + "\n"
            for step, mixture in ((1, [[0.5, 0.25, 0.25], [0.5, 0.3, 0.2]]), (2, [[math.nan] * 3, [0.0, 0.9, 0.1]]))
        )
    )
    said = summary(tmp_path, ["task"], script=Path("my folder/my_sac.py"))
    assert "\n  others' policies acted in 60% of the first steps and 10% of the last\n" in said
    assert said.endswith("--gifs --mixture --script 'my folder/my_sac.py'")
    assert summary(tmp_path, ["task"], filmable=False).endswith(f"enjoy {tmp_path}")


def test_seeds_side_by_side(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_qmp", lambda: "qmp")
    monkeypatch.chdir(tmp_path)
    folders = {seed: Path("my runs", f"seed{seed}") for seed in (4, 12)}
    for seed, folder in folders.items():
        folder.mkdir(parents=True)
        rows = [row(0, success=0.0, **{"return": -9.0}), row(9, success=seed / 12, **{"return": -7.0})]
        (folder / "metrics.jsonl").write_text("\n".join(rows) + "\n")
    said = summary_of_seeds(folders, "my_tasks", Path("my_sac.py"))
    assert said == (
        "finished 2 seeds, each in a folder like that of a run of its own:\n"
        "  seed 4    success     0.00 ->     0.33  ▁▃  'my runs/seed4'\n"
        "  seed 12   success     0.00 ->     1.00  ▁█  'my runs/seed12'\n"
        "learning curve  qmp plot 'my runs' --out 'my runs/success.png'\n"
        "watch it        qmp enjoy 'my runs/seed4' --gifs --import my_tasks --script my_sac.py"
    )


def test_a_task_set_without_success(tmp_path: Path) -> None:
    rows = [row(0, walk__return=-10.0, **{"return": -10.0}), row(9, walk__return=30.0, **{"return": 30.0})]
    (tmp_path / "metrics.jsonl").write_text("\n".join(rows) + "\n")
    assert "  walk         -10.00 ->    30.00  ▁█\n" in summary(tmp_path, ["walk"])


def test_curves(monkeypatch: pytest.MonkeyPatch) -> None:
    assert curve([0.0, 0.5, 1.0], share=True) == "▁▅█"
    assert curve([3.0, 3.0], share=False) == "▁▁"
    assert curve([0.0, math.nan, 1.0], share=True) == "▁ █"
    assert curve([0.0] * 300 + [1.0] * 300, share=True) == "▁" * 15 + "█" * 15
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(io.BytesIO(), encoding="ascii"))
    assert curve([0.0, 1.0], share=True) == ""


def test_how_qmp_is_called(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    programs = tmp_path / "a venv" / "bin"
    programs.mkdir(parents=True)
    (programs / "qmp").touch(mode=0o755)
    monkeypatch.setattr(sys, "executable", str(programs / "python"))
    monkeypatch.chdir(tmp_path)
    assert module._qmp() == "'a venv/bin/qmp'"
    monkeypatch.setenv("PATH", str(programs))
    assert module._qmp() == "qmp"
    (programs / "qmp").unlink()
    assert module._qmp() == f"'{programs}/python' -m qmp_collect.runs"
