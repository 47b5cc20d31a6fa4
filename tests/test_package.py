"""What is shipped: a wheel that works without the checkout."""

from __future__ import annotations

import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def installed(tmp_path_factory):
    """A folder with the wheel's files in it and nothing else."""
    folder = tmp_path_factory.mktemp("wheel")
    build = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(folder), str(ROOT)]
    subprocess.run(build, check=True, capture_output=True)
    (wheel,) = folder.glob("qmp_collect-*.whl")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(folder / "site")
    return folder / "site"


def run(program, folder):
    environment = os.environ | {"PYTHONPATH": str(folder)}
    return subprocess.run(
        [sys.executable, "-c", program], cwd=folder, env=environment, check=True, capture_output=True, text=True
    ).stdout


def test_the_wheel_holds_both_packages_their_types_and_nothing_else(installed):
    assert sorted(p.name for p in installed.iterdir() if not p.name.endswith(".dist-info")) == [
        "qmp_collect",
        "qmp_envs",
    ]
    for package in ("qmp_collect", "qmp_envs"):
        shipped = {p.relative_to(installed) for p in (installed / package).rglob("*") if p.is_file()}
        shipped = {p for p in shipped if p.parent != Path("qmp_collect/scripts")}
        source = ROOT / package if package == "qmp_collect" else ROOT / "envs" / package
        expected = {Path(package) / p.relative_to(source) for p in source.rglob("*") if "__pycache__" not in p.parts}
        assert shipped == {p for p in expected if p.suffix in (".py", ".typed", ".css")}
        assert Path(package, "py.typed") in shipped


def test_the_scripts_are_in_the_wheel_and_are_found_there(installed):
    program = (
        "from qmp_collect.runs.scripts import scripts; print(*(f'{name}={path}' for name, path in scripts().items()))"
    )
    found = dict(pair.split("=") for pair in run(program, installed).split())
    assert sorted(found) == sorted(path.stem for path in (ROOT / "cleanrl_scripts").glob("*.py"))
    for name, path in found.items():
        assert Path(path) == installed / "qmp_collect" / "scripts" / f"{name}.py"
        assert Path(path).read_bytes() == (ROOT / "cleanrl_scripts" / f"{name}.py").read_bytes()


def test_the_installed_packages_collect(installed):
    pytest.importorskip("mujoco")
    program = (
        "import gymnasium, numpy, qmp_collect, qmp_envs\n"
        "envs = gymnasium.make_vec('Maze3-v0', num_envs=3)\n"
        "policy = lambda obs: numpy.zeros((len(obs), 2), numpy.float32)\n"
        "q = lambda obs, actions: actions[:, 0]\n"
        "collector = qmp_collect.QMPCollector(envs, [policy] * 3, [q] * 3, seed=0)\n"
        "print(collector.collect(n_step=30).n_collected_steps, qmp_collect.__file__)\n"
    )
    steps, path = run(program, installed).split()
    assert steps == "30"
    assert Path(path).is_relative_to(installed)
