"""`import qmp_collect` costs NumPy and Gymnasium, nothing else."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

OPTIONAL = ("torch", "jax", "mujoco", "tqdm", "wandb", "tensorboard", "tensordict", "matplotlib", "qmp_envs")


def modules_after(statement: str) -> set[str]:
    code = f"{statement}\nimport sys\nprint(*sys.modules)"
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=env, check=False)
    assert done.returncode == 0, done.stderr
    return set(done.stdout.split())


def test_import_loads_nothing_optional():
    loaded = modules_after("import qmp_collect")
    assert "qmp_collect.collector" in loaded
    assert loaded.isdisjoint(OPTIONAL)


def test_what_needs_torch_imports_it_when_it_is_named():
    pytest.importorskip("torch")
    assert "torch" in modules_after("import qmp_collect; qmp_collect.TaskReplayBuffer")


def test_every_public_name_exists():
    pytest.importorskip("torch")
    import qmp_collect

    assert len(set(qmp_collect.__all__)) == len(qmp_collect.__all__)
    for name in qmp_collect.__all__:
        assert getattr(qmp_collect, name) is not None
    with pytest.raises(AttributeError, match="no_such_name"):
        _ = qmp_collect.no_such_name
