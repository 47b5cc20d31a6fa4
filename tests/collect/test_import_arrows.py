"""`import qmp_collect` costs NumPy and Gymnasium, nothing else."""

from __future__ import annotations

import ast
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

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


def test_runs_brings_no_torch_and_no_task_sets():
    assert modules_after("import qmp_collect.runs").isdisjoint(OPTIONAL)


def imported_by(path: Path) -> set[str]:
    """Dotted names of the modules that a file imports, wherever in it."""
    names = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            names |= {str(node.module)} | {f"{node.module}.{alias.name}" for alias in node.names}
    return names


def within(names: set[str], package: str) -> set[str]:
    return {name for name in names if name == package or name.startswith(package + ".")}


@pytest.mark.parametrize(
    ("folder", "forbidden"),
    [
        ("qmp_collect", ("qmp_collect.runs", "qmp_envs", "cleanrl_scripts")),
        ("qmp_collect/runs", ("cleanrl_scripts",)),
        ("envs/qmp_envs", ("qmp_collect", "torch", "cleanrl_scripts")),
    ],
)
def test_arrows_point_one_way(folder, forbidden):
    files = sorted((ROOT / folder).rglob("*.py"))
    assert len(files) > 5
    for file in files:
        if folder == "qmp_collect" and "runs" in file.parts:
            continue
        for package in forbidden:
            assert within(imported_by(file), package) == set(), file.name


def test_moved_names_say_where_to_look():
    import qmp_collect

    with pytest.raises(AttributeError, match=r"write `from qmp_collect\.runs import RunLogger`"):
        _ = qmp_collect.RunLogger
    with pytest.raises(ImportError, match=r"cannot import name 'save_checkpoint'"):
        from qmp_collect import save_checkpoint  # noqa: F401
    moved = subprocess.run([sys.executable, "-m", "qmp_collect.plot"], capture_output=True, text=True, check=False)
    assert "python -m qmp_collect.runs.plot" in moved.stderr


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
