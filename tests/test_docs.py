"""The documentation: its Python prints what it says, its commands parse, no public name is missing, it builds."""

from __future__ import annotations

import json
import os
import re
import runpy
import shlex
import subprocess
import sys
from collections.abc import Callable, Iterator
from functools import cache
from importlib import import_module
from importlib.util import find_spec, module_from_spec, spec_from_file_location
from pathlib import Path
from types import ModuleType

import gymnasium as gym
import pytest

import qmp_envs
from qmp_collect.runs.__main__ import MODULES
from qmp_collect.runs.named import NAMED

torch = pytest.importorskip("torch")
tyro = pytest.importorskip("tyro")
pytest.importorskip("mujoco")

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
PAGES = {path.relative_to(ROOT).as_posix(): path.read_text(encoding="utf-8") for path in sorted(DOCS.rglob("*.md"))}
README = {"README.md": (ROOT / "README.md").read_text(encoding="utf-8")}  # its Python: test_readme.py

EXAMPLES = {path.read_text(encoding="utf-8") for path in (ROOT / "examples").glob("*.py")}  # test_examples.py
BLOCK = re.compile(r"^```(\w+)\n(.*?)^```$", flags=re.DOTALL | re.MULTILINE)
END = "\x1e"  # printed after each block


def with_blocks(pages: dict[str, str], language: str) -> list[str]:
    blocks = ((name, block) for name, text in pages.items() for block in BLOCK.finditer(text))
    return list(dict.fromkeys(name for name, block in blocks if block[1] == language and block[2] not in EXAMPLES))


@pytest.fixture
def workplace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A checkout with nothing but what a reader's commands refer to, as the current folder."""
    for name in ("benchmark", "cleanrl_scripts", "examples", "constraints.txt"):
        (tmp_path / name).symlink_to(ROOT / name)
    for path in ("runs/RUN_NAME/checkpoint.npz", ".venv/bin/activate"):
        (tmp_path / path).parent.mkdir(parents=True)
        (tmp_path / path).touch()
    square = next(block[2] for block in BLOCK.finditer(PAGES["docs/guides/task_set.md"]) if block[1] == "python")
    (tmp_path / "square.py").write_text(square, encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    registered, own = dict(gym.registry), dict(qmp_envs._OWN)
    precision, threads = torch.get_float32_matmul_precision(), torch.get_num_threads()
    yield tmp_path
    gym.registry.clear()
    gym.registry.update(registered)
    qmp_envs._OWN.clear()
    qmp_envs._OWN.update(own)
    sys.modules.pop("square", None)
    torch.set_float32_matmul_precision(precision)
    torch.set_num_threads(threads)


# ---------------------------------------------------------------------- Python


@pytest.mark.parametrize("name", with_blocks(PAGES, "python"))
def test_the_python_of_a_page_runs_as_a_file_and_prints_what_stands_below_it(name, workplace, capsys):
    text, program, expected = PAGES[name], "", []
    for block in BLOCK.finditer(text):
        if block[1] != "python" or block[2] in EXAMPLES:
            continue
        program += f"{block[2]}\nprint({END!r})\n"
        output = BLOCK.match(text, block.end() + 2)  # after an empty line
        expected.append(output[2] if output and output[1] == "text" else None)
    file = workplace / "page.py"
    file.write_text(program, encoding="utf-8")

    runpy.run_path(str(file), run_name="page")

    printed = capsys.readouterr().out.replace(f"{END}\n", END).split(END)[:-1]
    assert len(printed) == len(expected)
    for part, said in zip(printed, expected, strict=True):
        assert said is None or part == said


def test_a_script_trains_on_the_task_set_of_the_guide(workplace, monkeypatch, capsys):
    tiny = "--env-steps-per-round 40 --gradient-steps-per-round 2 --min-buffer-size 40 --batch-size 8 --hidden-dim 8"
    tiny += " --total-timesteps 320 --eval-every 320 --eval-episodes 1 --capture-video"
    words = f"script --import square --env-id Square4 {tiny}"
    monkeypatch.setattr(sys, "argv", words.split())

    runpy.run_path("cleanrl_scripts/sac_qmp_separate.py", run_name="__main__")

    (done,) = workplace.glob("runs/Square4-v0__*/done.json")
    assert json.loads(done.read_text())["global_step"] == 320
    assert sorted(path.name for path in done.parent.glob("videos/*"))[:1] == ["down.gif"]


# ---------------------------------------------------------------------- commands


@cache
def load(script: Path) -> ModuleType:
    """A program as a module; its main block does not run."""
    sys.path.insert(0, str(script.parent))  # for what stands beside it
    try:
        spec = spec_from_file_location(f"docs_{script.stem}", script)
        assert spec is not None
        assert spec.loader is not None
        sys.modules[spec.name] = module_from_spec(spec)
        spec.loader.exec_module(sys.modules[spec.name])
    finally:
        sys.path.remove(str(script.parent))
    return sys.modules[spec.name]


def parse_training(script: Path, words: list[str]) -> None:
    module = load(script)
    if "--resume" in words:  # a run that this script has made
        config = vars(module.Args())
        left_out = import_module("qmp_collect.runs.settings").OF_THE_STARTER
        saved = {key: value for key, value in config.items() if key not in left_out}
        Path(words[words.index("--resume") + 1], "config.json").write_text(json.dumps(saved))
    if "--help" in words:
        with pytest.raises(SystemExit, match=r"^0$"):
            module.parse_args(words)
    else:
        module.parse_args(words)


def parse_plot(words: list[str]) -> None:
    plot = import_module("qmp_collect.runs.plot")
    args = tyro.cli(plot.Args, args=words)
    for run_dir in args.run_dirs:
        if run_dir.parts[0] == "benchmark":
            assert args.mixture or len(plot.load_run(run_dir).series(args.metric)[0]) > 1


def check_python(words: list[str]) -> None:
    first, *rest = words
    if first == "-m" and rest[0] == "qmp_collect.runs.plot":
        parse_plot(rest[1:])
    elif first == "-m" and rest[0] == "qmp_collect.runs":
        check_qmp(rest[1:])
    elif first == "-m" and rest[0].startswith("qmp_collect."):
        is_package = (ROOT / rest[0].replace(".", "/")).is_dir()
        module = import_module(f"{rest[0]}.__main__" if is_package else rest[0])
        tyro.cli(module.Command if hasattr(module, "Command") else module.Args, args=rest[1:])
    elif first == "-m":
        assert find_spec(rest[0]) is not None
    elif first.startswith("cleanrl_scripts/"):
        parse_training(ROOT / first, rest)
    elif first.startswith("examples/"):
        assert Path(first).is_file()
        assert not rest
    elif first.startswith("benchmark/"):
        program = load(ROOT / first)
        if hasattr(program, "Args"):
            tyro.cli(program.Args, args=rest)
        else:
            assert not rest
    else:
        raise AssertionError(f"what is python {first}?")


def check_qmp(words: list[str]) -> None:
    command, *rest = words
    if command == "plot":
        parse_plot(rest)
    elif command == "train" and rest and rest[0] in NAMED:
        run = NAMED[rest[0]]
        parse_training(ROOT / "cleanrl_scripts" / f"{run.script}.py", [*run.flags.split(), *rest[1:]])
    elif command == "train" and rest:
        parse_training(ROOT / "cleanrl_scripts" / f"{rest[0]}.py", rest[1:])
    elif command in MODULES:
        tyro.cli(import_module(MODULES[command]).Args, args=rest)
    else:
        assert (command, rest) == ("train", [])


def check_pip(words: list[str]) -> None:
    project = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    (extras,) = re.findall(r"^\[project.optional-dependencies\]\n(.*?)^\[", project, flags=re.DOTALL | re.MULTILINE)
    assert words[0] == "install"
    for word in words:
        for names in re.findall(r"\[([\w,]+)\]$", word):
            assert set(names.split(",")) <= set(re.findall(r"^(\w+) = \[", extras, flags=re.MULTILINE))
    if "-c" in words:
        assert Path(words[words.index("-c") + 1]).exists()


def check_make(words: list[str]) -> None:
    targets = re.findall(r"^(\w[\w-]*):", (ROOT / "Makefile").read_text(), flags=re.MULTILINE)
    settings = dict(word.split("=", 1) for word in words if "=" in word)
    assert {word for word in words if "=" not in word} <= set(targets)
    assert settings.keys() <= {"RUN", "ARGS"}
    if "RUN" in settings:
        check_qmp(["train", settings["RUN"]])


def not_ours(words: list[str]) -> None:
    """Another program's business."""


COMMANDS: dict[str, Callable[[list[str]], None]] = {
    "python": check_python,
    "python3": check_python,
    "pip": check_pip,
    "make": check_make,
    "qmp": check_qmp,
    "srun": lambda words: COMMANDS[words[0]](words[1:]),
    **dict.fromkeys(("rm", "scontrol", "tensorboard", "wandb"), not_ours),
}


@pytest.fixture
def read_by_bash(workplace: Path) -> Callable[[str], list[list[str]]]:
    """The commands of a block as a shell understands it, loops and all: programs that only write down their words."""
    programs, record = workplace / "programs", workplace / "record"
    programs.mkdir()
    for name in COMMANDS:
        (programs / name).write_text(f'#!/bin/bash\nprintf "%q " {name} "$@" >> {record}\necho >> {record}\n')
        (programs / name).chmod(0o755)

    def read(block: str) -> list[list[str]]:
        record.write_text("")
        program = f"set -euo pipefail\n{block}"
        subprocess.run(["/bin/bash", "-c", program], env={"PATH": str(programs), "SLURM_JOB_ID": "1"}, check=True)
        return [shlex.split(line) for line in record.read_text().splitlines()]

    return read


@pytest.mark.parametrize("name", with_blocks(README | PAGES, "bash"))
def test_the_commands_of_a_page_are_understood(name, read_by_bash, capsys):
    checked = set()
    for language, block in BLOCK.findall((README | PAGES)[name]):
        if language != "bash":
            continue
        commands = read_by_bash(block)
        assert commands
        for program, *words in commands:
            without_numbers = tuple(word for word in (program, *words) if not word.isdecimal())
            if without_numbers not in checked:  # seeds of a loop
                COMMANDS[program](words)
                checked.add(without_numbers)


# ---------------------------------------------------------------------- the reference and the site


def public_names() -> list[str]:
    lazily_imported = ["qmp_collect.Batch", "qmp_collect.TaskReplayBuffer"]
    packages = ("qmp_collect", "qmp_collect.adapters", "qmp_collect.fleet", "qmp_collect.runs", "qmp_envs")
    return [f"{package}.{name}" for package in packages for name in import_module(package).__all__] + lazily_imported


@pytest.mark.parametrize("name", public_names())
def test_the_reference_has_every_public_name_once(name):
    entries = re.findall(
        r"^(?::::|##) (qmp_\S+)$",
        "\n".join(text for page, text in PAGES.items() if page.startswith("docs/reference/")),
        flags=re.MULTILINE,
    )
    assert entries.count(name) == 1


def test_the_site_builds_strictly_and_asks_nothing_of_the_network(tmp_path):
    for package in ("mkdocs", "material", "mkdocstrings_handlers.python"):
        pytest.importorskip(package)
    site = tmp_path / "site"
    environment = os.environ | {"PYTHONPATH": f"{ROOT}:{ROOT / 'envs'}", "NO_MKDOCS_2_WARNING": "1"}
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(site)]
    built = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    assert built.returncode == 0, built.stderr

    pages = {path: path.read_text(encoding="utf-8") for path in site.rglob("*.html")}
    assert len(pages) > len(PAGES)  # and the page that says 404
    for path, html in pages.items():
        assert not re.findall(r'<(?:link|script|img|iframe|source)\b[^>]*\b(?:href|src)="(?:https?:)?//', html), path
        # Markdown that this dialect of it does not see: a list without an empty line before it, a table in a paragraph
        assert not re.findall(r"<p>(?:[^<]|<(?!/p>))*\n(?:[-*|] |\d+\. )", html), path
    for sheet in site.rglob("*.css"):
        assert not re.search(r"url\([\"']?(?:https?:)?//", sheet.read_text(encoding="utf-8")), sheet
    entries = {entry for html in pages.values() for entry in re.findall(r'id="(qmp_[\w.]+)"', html)}
    assert {name for name in public_names() if name != "qmp_envs.TASK_SETS"} <= entries
