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

LAST = {"global_step": 100, "eval/success": 0.5}


def write(
    folder: Path, last: dict[str, float] = LAST, settings: dict[str, Any] | None = None, **provenance: Any
) -> Path:
    folder.mkdir()
    config = {
        "track": True,
        "wandb_entity": "me",
        "exp_name": "sac",
        "switch": "qmp",
        "seed": 3,
        "total_timesteps": 100,
        "run_dir_root": "/home/me/runs",
        **(settings or {}),
    }
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "metrics.jsonl").write_text(json.dumps(last) + "\n")
    start = {
        "command": "python /home/me/sac.py --run-dir-root /home/me/runs --token hunter2",
        "commit": "0123abc",
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
    assert gzip.decompress((target / "metrics.jsonl.gz").read_bytes()) == json.dumps(LAST).encode() + b"\n"
    text = (target / "config.json").read_text() + (target / "provenance.jsonl").read_text()
    assert "/home/me" not in text
    assert "hunter2" not in text
    assert "wandb" not in text
    assert json.loads((target / "provenance.jsonl").read_text())["command"] == "python sac.py --run-dir-root runs"


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"last": {"global_step": 60, "eval/success": 0.5}}, "ends at step 60 of 100"),
        ({"last": {"global_step": 100, "charts/success": 0.5}}, "does not end with the evaluation of its last step"),
        ({"modified": True}, "modified files"),
        ({"packages": {"qmp_collect": {"commit": "1", "modified": True}}}, "modified files"),
        ({"commit": None, "modified": None}, "outside a checkout"),
        ({"settings": {"exp_name": "../elsewhere"}}, "cannot be the name of a file"),
    ],
)
def test_what_is_refused(settings: dict[str, Any], said: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=said):
        publish(write(tmp_path / "run", **settings), tmp_path / "results")
    assert not (tmp_path / "results").exists()


def test_a_package_that_was_installed_has_a_version_instead_of_a_commit(tmp_path: Path) -> None:
    packages = {"qmp_collect": {"commit": None, "modified": None}}
    publish(write(tmp_path / "run", packages=packages), tmp_path / "results")


def test_no_run_takes_the_place_of_another(tmp_path: Path) -> None:
    """Two task sets, or two commits, of one script, switch and seed had one folder, and the later one won."""
    to = tmp_path / "results"
    publish(write(tmp_path / "first", settings={"env_id": "Maze3-v0"}), to)
    others = write(tmp_path / "set", settings={"env_id": "Maze10-v0"}), write(tmp_path / "commit", commit="4567def")
    for other in others:
        with pytest.raises(ValueError, match="holds another run"):
            publish(other, to)
    assert json.loads((to / "sac_qmp_seed3/config.json").read_text())["env_id"] == "Maze3-v0"
    assert publish(others[0], to, "_maze10").name == "sac_qmp_seed3_maze10"


def test_a_run_that_was_made_longer_takes_its_own_place(tmp_path: Path) -> None:
    publish(write(tmp_path / "run"), tmp_path / "results")
    longer = {"global_step": 200, "eval/success": 1.0}
    target = publish(write(tmp_path / "longer", longer, {"total_timesteps": 200}), tmp_path / "results")
    assert gzip.decompress((target / "metrics.jsonl.gz").read_bytes()) == json.dumps(longer).encode() + b"\n"
    with pytest.raises(
        ValueError, match=r"holds 200 steps of this run, .*run 100 that do not go on from there: an older"
    ):
        publish(tmp_path / "run", tmp_path / "results")
    assert gzip.decompress((target / "metrics.jsonl.gz").read_bytes()) == json.dumps(longer).encode() + b"\n"
