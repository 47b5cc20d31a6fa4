"""What is shipped: an sdist and a wheel that an index would take, the wheel working without the checkout."""

from __future__ import annotations

import email
import os
import re
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

import qmp_collect

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    """A folder with the sdist and a wheel made from it."""
    folder = tmp_path_factory.mktemp("dist")
    build = [sys.executable, "-m", "build", "--no-isolation", "--outdir", str(folder), str(ROOT)]
    done = subprocess.run(build, check=False, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return folder


@pytest.fixture(scope="module")
def installed(built, tmp_path_factory):
    """A folder with the wheel's files in it and nothing else."""
    folder = tmp_path_factory.mktemp("site")
    (wheel,) = built.glob("qmp_collect-*.whl")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(folder)
    return folder


@pytest.fixture(scope="module")
def shown(installed):
    """What an index would show as the project's page, in Markdown."""
    (metadata,) = installed.glob("qmp_collect-*.dist-info/METADATA")
    message = email.message_from_bytes(metadata.read_bytes())
    assert message["Description-Content-Type"] == "text/markdown"
    return message.get_payload(decode=True).decode()


def test_an_index_would_take_both(built):
    check = [sys.executable, "-m", "twine", "check", "--strict", *map(str, built.iterdir())]
    done = subprocess.run(check, check=False, capture_output=True, text=True)
    assert (done.returncode, done.stdout.count("PASSED")) == (0, 2), done.stdout


def test_the_sdist_holds_the_project_without_results_and_caches(built):
    (sdist,) = built.glob("qmp_collect-*.tar.gz")
    assert sdist.stat().st_size < 5e6  # most of it the documentation's pictures
    with tarfile.open(sdist) as archive:
        files = {name.partition("/")[2] for name in archive.getnames()}
    assert not [
        name for name in files if re.search(r"^benchmark/results|^runs|__pycache__|\.pyc$|/\.[\w]+_cache", name)
    ]
    listed = subprocess.run(["git", "-C", str(ROOT), "ls-files"], check=False, capture_output=True, text=True)
    if listed.returncode:  # this is an sdist itself
        pytest.skip("which files belong to the project is known in a checkout only")
    tracked = {name for name in listed.stdout.splitlines() if not name.startswith("benchmark/results/")}
    assert {name for name in tracked if (ROOT / name).exists()} <= files


def test_the_page_of_an_index_has_no_link_or_picture_that_leads_nowhere(shown):
    text = re.sub(r"```.*?```", "", shown, flags=re.DOTALL)
    targets = re.findall(r"\]\(([^)\s]*)\)|(?:src|href)=\"([^\"]*)\"|^\[[^\]]+\]:\s*(\S+)", text, flags=re.MULTILINE)
    assert [target for found in targets if not (target := "".join(found)).startswith("https://")] == []
    assert "`docs/start/own_agent.md`" in text  # what was a link into the repository says where to look
    blocks = r"```python\n.*?```"
    assert re.findall(blocks, shown, flags=re.DOTALL) == re.findall(blocks, README, flags=re.DOTALL)


def test_how_to_cite_it():
    yaml = pytest.importorskip("yaml")
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    assert {"cff-version", "message", "title", "authors"} <= citation.keys()  # what the format requires
    assert (citation["cff-version"], citation["title"]) == ("1.2.0", "QMPCollector")
    assert (citation["version"], citation["license"]) == (qmp_collect.__version__, "MIT")
    paper = citation["preferred-citation"]
    authors = " and ".join(f"{author['family-names']}, {author['given-names']}" for author in paper["authors"])
    assert re.findall(r"^  (?:author|year) +=.*$", README, flags=re.MULTILINE) == [
        f"  author    = {{{authors}}},",
        f"  year      = {{{paper['year']}}}",
    ]
    assert paper["title"] in README.replace("{", "").replace("}", "")


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
