"""What a run shows while it runs: a bar that moves with every step of any kind, and lines for whoever has none."""

from __future__ import annotations

import io
import itertools
import re
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest

from qmp_collect.runs import console, progress

FLAGS = {
    "env-id": "Maze3", "total-timesteps": 120, "env-steps-per-round": 20, "gradient-steps-per-round": 4,
    "min-buffer-size": 20, "batch-size": 4, "hidden-dim": 4, "eval-every": 60, "eval-episodes": 1, "seed": 1,
    "matmul-precision": "highest",
}  # fmt: skip
WORDS = [word for flag, value in FLAGS.items() for word in (f"--{flag}", str(value))]


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_the_bar_moves_during_all_that_a_run_does(
    run_script: Callable[..., None], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two rounds of 60 env steps: 20 vector steps and 4 gradient steps each."""
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    monkeypatch.setattr(console, "_INTERVAL", -1.0)  # drawn whenever there is something to draw
    # A second later whenever it is looked at: a round's env steps take as long as its gradient steps, on any machine.
    monkeypatch.setattr(progress, "time", SimpleNamespace(perf_counter=map(float, itertools.count()).__next__))
    run_script("sac_qmp_separate", *WORDS, "--run-dir", str(tmp_path / "run"))
    bars = re.findall(
        r"(\d+)/120 \[\S+<(\S+), [^\]]+\](?:, success (\d\.\d\d))?(, evaluating \.\.\.)?\s*[\r\n]", terminal.getvalue()
    )
    positions = [int(position) for position, *_ in bars]
    assert positions == sorted(positions)
    assert len(set(positions)) >= 2 * (20 + 3)
    assert positions[-1] == 120
    # 600 looks at each of three evaluations, in which an episode is so long: what is known then, and what it does.
    evaluating = [(int(position), left, success) for position, left, success, phase in bars if phase]
    assert all(sum(place == position for position, *_ in evaluating) >= 600 for place in (0, 60, 120))
    assert {(left, success) for position, left, success in evaluating if position == 0} == {("?", "")}
    assert {left for position, left, _ in evaluating if position == 60} != {"?"}
    assert bars[-1][1:] == ("00:00", "0.00", "")


def test_without_a_terminal_there_are_lines(
    run_script: Callable[..., None], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    run_script("sac_qmp_separate", *WORDS, "--run-dir", str(tmp_path / "run"))
    said = capsys.readouterr()
    assert said.err == ""
    assert not re.search(r"[\r\x1b]", said.out)
    lines = said.out.splitlines()
    assert lines[0].startswith(f"{tmp_path / 'run'} on ")
    number = r"-?\d+\.\d+"
    assert re.fullmatch(rf"step 0 of 120: success {number}, return {number}", lines[1])
    assert re.fullmatch(rf"step 60 of 120: success {number}, return {number}, \d\d:\d\d left", lines[2])
    assert re.fullmatch(rf"step 120 of 120: success {number}, return {number}, 00:00 left", lines[3])
    assert lines[4] == "finished. success of each task's own policy, from step 0 to 120:"
    assert (tmp_path / "run" / "policy.safetensors").is_file()
    assert lines[-2].endswith(f"qmp plot {tmp_path / 'run'} --out {tmp_path / 'run' / 'success.png'}")
    assert lines[-1].removesuffix(" --mixture").endswith(f"qmp enjoy {tmp_path / 'run'} --gifs")
