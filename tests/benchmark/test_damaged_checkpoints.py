"""Six flips and every hostile kind: all as documented."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.mark.skipif(sys.platform != "linux", reason="memory is measured by Linux's /proc")
def test_damaged_checkpoints_are_refused_and_nothing_else_happens(tmp_path: Path) -> None:
    script = ROOT / "benchmark" / "reliability" / "damaged_checkpoints.py"
    done = subprocess.run(
        [sys.executable, script, "--damages", "6", "--out", tmp_path / "result.json"], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout + done.stderr
    result = json.loads((tmp_path / "result.json").read_text())
    assert result["kinds"]["undamaged"]["outcomes"] == {"identical": 1}
    assert result["kinds"]["zeros that were compressed"]["outcomes"] == {"refused": 1}
    assert result["kinds"]["moments of another shape"]["outcomes"] == {"refused": 1}
