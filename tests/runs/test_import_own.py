"""``--import MODULE``: task sets of one's own become known before ``--env-id`` is looked for."""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass

import gymnasium as gym
import pytest

from qmp_collect.runs import settings

KNOWN = ["Maze3-v0"]


@dataclass
class Args(settings.RunArgs):
    env_id: str = "Maze3-v0"


@pytest.fixture
def my_tasks(tmp_path, monkeypatch):
    """A module in the current folder, found by nothing else, that adds an id."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [path for path in sys.path if path not in ("", str(tmp_path))])
    monkeypatch.setattr(settings, "REGISTRY", list(KNOWN), raising=False)
    (tmp_path / "my_tasks.py").write_text("from qmp_collect.runs import settings\nsettings.REGISTRY += ['Mine-v0']\n")
    (tmp_path / "broken.py").write_text("import no_such_library\n")
    yield settings.REGISTRY
    for name in ("my_tasks", "broken"):
        sys.modules.pop(name, None)


def test_an_id_of_an_imported_module_is_known(my_tasks):
    with pytest.raises(SystemExit, match=r"--env-id Mine: expected one of Maze3-v0; or --import the module"):
        settings.parse_args(Args, {}, my_tasks, ["--env-id", "Mine"])
    args = settings.parse_args(Args, {}, my_tasks, ["--import", "my_tasks", "--env-id", "Mine"])
    assert (args.env_id, args.import_) == ("Mine-v0", "my_tasks")
    assert "import_" not in settings.of_the_run(args)


def test_an_id_that_only_gymnasium_knows(my_tasks, tmp_path):
    (tmp_path / "plain.py").write_text("import gymnasium\ngymnasium.register('Plain-v0', 'nowhere:Nothing')\n")
    try:
        with pytest.raises(SystemExit, match=r"Plain-v0 is registered with Gymnasium alone.*qmp_envs\.register\("):
            settings.parse_args(Args, {}, my_tasks, ["--import", "plain", "--env-id", "Plain"])
    finally:
        gym.registry.pop("Plain-v0", None)
        sys.modules.pop("plain", None)


def test_a_resumed_run_is_told_again(my_tasks, tmp_path):
    """A run's folder has no code imported: that is for its user to say."""
    saved = settings.of_the_run(Args(env_id="Mine-v0"))
    (tmp_path / "config.json").write_text(json.dumps(saved))
    (tmp_path / "checkpoint.npz").write_bytes(b"")
    with pytest.raises(SystemExit, match="env_id is 'Mine-v0', expected one of Maze3-v0"):
        settings.parse_args(Args, {}, my_tasks, ["--resume", str(tmp_path)])
    args = settings.parse_args(Args, {}, my_tasks, ["--resume", str(tmp_path), "--import", "my_tasks"])
    assert args.env_id == "Mine-v0"


def test_modules_that_are_not_there(my_tasks):
    for name in ("nowhere", "my_tasks.inner", "my_tasks.py"):
        with pytest.raises(SystemExit, match=rf"--import {name}: there is no such module, neither installed nor in"):
            settings.parse_args(Args, {}, my_tasks, ["--import", name])
    with pytest.raises(ModuleNotFoundError, match="no_such_library"):
        settings.parse_args(Args, {}, my_tasks, ["--import", "broken"])
