"""Command lines: numbers that can be meant, and the line that started a run with --resume added to it."""

from __future__ import annotations

import dataclasses
import json
import math
import re
import runpy
import sys
from pathlib import Path
from typing import Any, get_args, get_type_hints

import pytest
from script_files import SCRIPTS, load_script

from qmp_collect.runs.__main__ import main
from qmp_collect.runs.named import NAMED
from qmp_collect.runs.ranges import RANGES, check_ranges
from qmp_collect.runs.settings import of_the_run

NAMES = sorted(path.stem for path in SCRIPTS.glob("*.py"))
every_script = pytest.mark.parametrize("name", NAMES)


def numbers(args_class: type[Any]) -> set[str]:
    """The fields that hold a number."""
    hints = get_type_hints(args_class)
    kinds = {field.name: {hints[field.name], *get_args(hints[field.name])} for field in dataclasses.fields(args_class)}
    return {name for name, kind in kinds.items() if kind & {int, float}}


def test_every_number_of_every_script_has_a_range() -> None:
    assert set().union(*(numbers(load_script(name).Args) for name in NAMES)) == RANGES.keys()


@every_script
def test_presets_lie_in_their_ranges(name: str) -> None:
    module = load_script(name)
    for env_id in {"point_reaching": ["PointReach"]}.get(name, module.PRESETS if hasattr(module, "PRESETS") else []):
        check_ranges(vars(module.parse_args(["--env-id", env_id])))


@pytest.mark.parametrize(
    ("setting", "accepted", "refused", "expected"),
    [
        ("gradient_steps_per_round", (1, 10**9), (0, -1), "a number from 1"),
        ("total_timesteps", (1, 10**12), (0, -7, 10**12 + 1), "a number from 1 to 1000000000000"),
        ("envs_per_task", (1, 100_000), (0, 100_001), "a number from 1 to 100000"),
        ("warmup_rounds", (0,), (-1,), "a number from 0"),
        ("torch_threads", (0,), (-1,), "a number from 0"),
        ("learning_rate", (1e-9, 2.0), (0.0, -1.0, math.nan, math.inf), "a number above 0"),
        ("gamma", (0.0, 1.0), (-0.1, 1.01, math.nan), "a number from 0 to 1"),
        ("own_probability_final", (None, 1.0), (3.0, math.nan), "a number from 0 to 1"),
        ("own_fraction", (None, 0.0), (-0.1,), "a number from 0 to 1"),
        ("seed", (0, 2**32 - 1), (-1, 2**32), "a number from 0 to 4294967295"),
        ("target_entropy_scale", (-3.0, 0.0), (math.nan, -math.inf), "a finite number"),
        ("exp_name", ("run",), (), ""),
    ],
)
def test_ranges(setting: str, accepted: tuple[Any, ...], refused: tuple[Any, ...], expected: str) -> None:
    for value in accepted:
        check_ranges({setting: value})
    for value in refused:
        with pytest.raises(ValueError) as error:  # noqa: PT011
            check_ranges({setting: value})
        assert str(error.value) == f"--{setting.replace('_', '-')} {value}: expected {expected}"


@every_script
def test_a_number_that_cannot_be_meant_is_refused_first_of_all(name: str, tmp_path: Path) -> None:
    """Gradient steps to be made counted down from -1 for ever."""
    root = tmp_path / "runs"
    with pytest.raises(SystemExit, match=r"^--gradient-steps-per-round -1: expected a number from 1$"):
        load_script(name).parse_args(["--run-dir-root", str(root), "--gradient-steps-per-round", "-1"])
    assert not root.exists()


@pytest.mark.parametrize("name", NAMED)
def test_a_run_that_has_a_name_is_its_script_with_its_flags(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever is said besides comes later and wins; a run that is resumed has its settings already."""
    run = NAMED[name]
    args = load_script(run.script).parse_args(run.flags.split())
    assert args.total_timesteps >= 10 * args.env_steps_per_round
    started: list[list[str]] = []
    monkeypatch.setattr(runpy, "run_path", lambda path, run_name: started.append(sys.argv))
    monkeypatch.setattr(sys, "argv", ["qmp"])
    for said in (["--seed", "7"], ["--resume", "runs/X"], ["--resume=runs/X"]):
        main(["train", name, *said])
    path = str(SCRIPTS / f"{run.script}.py")
    assert started == [
        [path, *run.flags.split(), "--seed", "7"], [path, "--resume", "runs/X"], [path, "--resume=runs/X"]
    ]  # fmt: skip


def test_make_run_is_a_run_that_has_a_name() -> None:
    (name,) = re.findall(r"^RUN \?= (\w+)$", (SCRIPTS.parent / "Makefile").read_text(), flags=re.MULTILINE)
    assert name in NAMED


@pytest.fixture
def begun(tmp_path: Path) -> Path:
    """The folder of a run that was begun by ``--env-id Maze3 --seed 4``."""
    args = load_script("sac_qmp_separate").parse_args(["--env-id", "Maze3", "--seed", "4"])
    (tmp_path / "config.json").write_text(json.dumps(of_the_run(args)))
    (tmp_path / "checkpoint.npz").touch()
    return tmp_path


@pytest.mark.parametrize("env_id", ["Maze3", "Maze3-v0"])
def test_the_line_that_started_a_run_resumes_it(begun: Path, env_id: str) -> None:
    args = load_script("sac_qmp_separate").parse_args(["--env-id", env_id, "--seed", "4", "--resume", str(begun)])
    assert (args.env_id, args.seed, args.total_timesteps) == ("Maze3-v0", 4, 3_600_000)


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (["--env-id", "Maze10"], "env_id cannot be changed"),
        (["--env-id", "Nowhere"], "--env-id Nowhere: expected one of"),
        (["--env-id", "maze10"], r"--env-id maze10: did you mean Maze10\? expected one of"),
        (["--seed", "5"], "seed cannot be changed"),
        (["--total-timesteps", "0"], "--total-timesteps 0: expected a number from 1"),
    ],
)
def test_a_line_of_another_run_does_not(begun: Path, flags: list[str], said: str) -> None:
    with pytest.raises(SystemExit, match=said):
        load_script("sac_qmp_separate").parse_args(["--resume", str(begun), *flags])


def test_a_config_with_a_number_that_cannot_be_meant(begun: Path) -> None:
    config = json.loads((begun / "config.json").read_text())
    (begun / "config.json").write_text(json.dumps(config | {"gradient_steps_per_round": -1}))
    with pytest.raises(SystemExit, match="--gradient-steps-per-round -1: expected"):
        load_script("sac_qmp_separate").parse_args(["--resume", str(begun)])
