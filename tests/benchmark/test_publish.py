"""What of a run is committed."""

from __future__ import annotations

import gzip
import json
import sys
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("tyro")
sys.path.insert(0, str(Path(__file__).parents[2] / "benchmark"))
from publish import publish


def write(folder: Path, last: int = 100, **provenance: Any) -> Path:
    folder.mkdir()
    config = {
        "track": True,
        "wandb_entity": "me",
        "exp_name": "sac",
        "switch": "qmp",
        "seed": 3,
        "total_timesteps": 100,
        "run_dir_root": "/home/me/runs",
    }
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "metrics.jsonl").write_text(f'{{"global_step": {last}}}\n')
    start = {
        "command": "python /home/me/sac.py --run-dir-root /home/me/runs --token hunter2",
        "modified": False,
        **provenance,
    }
    (folder / "provenance.jsonl").write_text(json.dumps(start) + "\n")
    (folder / "checkpoint.npz").write_bytes(b"large")
    return folder


def test_a_finished_run(tmp_path: Path) -> None:
    target = publish(write(tmp_path / "run"), tmp_path / "results", "_h10")
    assert target.name == "sac_qmp_seed3_h10"
    assert sorted(file.name for file in target.iterdir()) == ["config.json", "metrics.jsonl.gz", "provenance.jsonl"]
    assert gzip.decompress((target / "metrics.jsonl.gz").read_bytes()) == b'{"global_step": 100}\n'
    text = (target / "config.json").read_text() + (target / "provenance.jsonl").read_text()
    assert "/home/me" not in text
    assert "hunter2" not in text
    assert "wandb" not in text
    assert json.loads((target / "provenance.jsonl").read_text())["command"] == "python sac.py --run-dir-root runs"


def test_neither_unfinished_nor_from_modified_files(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="ends at step 60 of 100"):
        publish(write(tmp_path / "short", last=60), tmp_path)
    with pytest.raises(ValueError, match="modified files"):
        publish(write(tmp_path / "modified", modified=True), tmp_path)
