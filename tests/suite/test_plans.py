"""What the plans are, and how they are written down."""

from __future__ import annotations

import importlib.util
import json
import math
import re
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest
from fake_runs import fake_run, suite

from qmp_collect.runs.settings import num_seeds
from qmp_collect.runs.suite.manifest import Run, dump, load
from qmp_collect.runs.suite.plans import PLANS
from qmp_collect.runs.suite.status import standing, table

ROOT = Path(__file__).parents[2]
REACHER = "--env-id Reacher5 --torch-threads 1"
QUICK = (
    "--env-id Maze3 --total-timesteps 360000 --hidden-dim 128 --batch-size 66 --learning-rate 1e-3 "
    "--envs-per-task 4 --eval-every 18000 --checkpoint-every 360000 --torch-threads 1"
)
QUICK_SAC = (
    "--total-timesteps 80000 --hidden-dim 128 --batch-size 128 --learning-rate 1e-3 --envs-per-task 4 "
    "--eval-every 4000 --checkpoint-every 20000 --torch-threads 1"
)
FIVE, FOUR = [11, 12, 13, 14, 15], [5, 6, 7, 8]
TABLE_4 = "--env-steps-per-round 1000 --gradient-steps-per-round 100"

# The protocol's table, plan by plan: every arm's script and flags, and the seeds.
PROTOCOL = {
    "i": ([f"sac_qmp_separate {REACHER} --switch {switch}" for switch in ("own", "qmp")], FIVE),
    "ii": ([f"sac_qmp_separate {REACHER} {TABLE_4} --switch {switch}" for switch in ("own", "qmp")], FIVE),
    "iii": (
        [
            f"sac_qmp_separate {REACHER} --switch uniform",
            f"sac_qmp_separate {REACHER} --switch domain",
            f"sac_qmp_separate {REACHER} --switch-critic-of proposer --switch qmp",
        ],
        FIVE,
    ),
    "iv": ([f"sac_qmp_multihead {REACHER} --switch {switch}" for switch in ("own", "qmp")], FIVE),
    "vi": (
        [
            f"sac_qmp_separate {REACHER} --horizon 10 --switch qmp",
            f"dnc {REACHER} --no-distill --kl-coefficient 1e-3",
        ],
        FIVE,
    ),
    "vii": (
        [f"sac_qmp_separate --env-id Maze3 --torch-threads 1 --horizon {h} --switch qmp" for h in (1, 5, 10, 25, 50)],
        FIVE,
    ),
    "viii": ([f"sac_qmp_separate {REACHER} --switch-critic-of next --switch qmp"], FIVE),
    "ix": (
        [
            f"sac_qmp_separate {QUICK}{flags} --switch qmp"
            for flags in (
                "",
                " --switch-margin 0.1 --switch-relative",
                " --switch-margin 0.5 --switch-relative",
                " --switch-hysteresis 0.1 --switch-relative",
                " --success-gate 0.3",
                " --own-share-floor 0.5",
                " --horizon 10",
                " --horizon 19 --horizon-rule uniform",
                " --horizon 100 --horizon-rule levy",
                " --horizon 25 --horizon-rule until-own",
            )
        ],
        FIVE,
    ),
    "x": (
        [
            f"sac_qmp_helper {QUICK_SAC} --env-id MetaWorld{task_and_helper}{flags}"
            for task_and_helper in ("Push --helper noisy", "DoorOpen --helper slow", "DrawerOpen --helper first-phase")
            for flags in (
                " --switch own",
                " --switch qmp",
                " --switch uniform",
                " --switch-margin 0.1 --switch-relative --switch qmp",
                " --demonstration-rounds 16 --clone-steps 2000 --switch own",
            )
        ],
        FIVE,
    ),
}


def command(run: Run) -> tuple[str, int]:
    """Script and flags, and the seed."""
    words = " ".join(run.argv).removeprefix("cleanrl_scripts/").replace(".py ", " ")
    return re.sub(r" --seed \d+", "", words), int(run.flag("--seed") or 0)


@pytest.mark.parametrize("name", PROTOCOL)
def test_plans_of_the_protocol(name: str) -> None:
    arms, seeds = PROTOCOL[name]
    found = [command(run) for run in PLANS[name].runs("runs")]
    assert sorted(found) == sorted((arm, seed) for arm in arms for seed in seeds)
    assert [seed for _, seed in found] == [seed for seed in seeds for _ in arms]  # in order
    assert {run.device for run in PLANS[name].runs("runs")} == {"cpu"}


def test_the_comparison_and_four_more_seeds_of_it() -> None:
    first = [command(run)[0] for run in PLANS["comparison"].runs("runs")[:16]]
    assert first[:4] == [
        f"sac_qmp_separate {QUICK} --switch own",
        f"sac_qmp_separate {QUICK} --switch qmp",
        f"sac_qmp_multihead {QUICK} --warmup-rounds 10 --switch own",
        f"sac_qmp_multihead {QUICK} --warmup-rounds 10 --switch qmp",
    ]
    assert f"dnc {QUICK} --no-distill --kl-coefficient 1e-3" in first
    assert f"pcgrad_qmp {QUICK} --warmup-rounds 10 --compile --switch qmp" in first
    assert [command(run) for run in PLANS["v"].runs("runs")] == [(arm, seed) for seed in FOUR for arm in first]
    assert [command(run) for run in PLANS["comparison"].runs("runs")] == [
        (arm, seed) for seed in (1, 2, 3, 4) for arm in first
    ]


def test_the_plan_for_a_gpu() -> None:
    runs = PLANS["gpu"].runs("runs")
    assert {run.device for run in runs} == {"cuda"}
    assert all({"--cudagraphs", "--total-timesteps", "--checkpoint-every"} <= set(run.argv) for run in runs)
    sets = [(Path(run.argv[0]).stem, run.flag("--env-id"), run.flag("--switch"), run.flag("--horizon")) for run in runs]
    separate = "sac_qmp_separate"
    assert sets[:5] == [
        (separate, "Maze10", "own", None), (separate, "Maze10", "qmp", None), (separate, "Maze10", "qmp", "25"),
        ("sac_qmp_multihead", "Maze10", "own", None), ("sac_qmp_multihead", "Maze10", "qmp", None),
    ]  # fmt: skip
    assert sets[5:] == [
        (separate, env_id, switch, None)
        for env_id in ("Kitchen10", "MetaWorldMT10", "MetaWorldCDS", "Walker4")
        for switch in ("own", "qmp")
    ]
    assert {run.flag("--envs-per-task") for run in runs[:5]} == {"8"}


def test_seeds_side_by_side() -> None:
    runs = PLANS["iii"].runs("runs", together=True)
    words = [
        f"cleanrl_scripts/sac_qmp_separate.py {REACHER}{flags}" for flags in ("", "", " --switch-critic-of proposer")
    ]
    expected = [
        (f"{words[0]} --seed 11 --num-seeds 5 --switch uniform", "sac_qmp_separate_uniform_seeds11to15", 7.8),
        (f"{words[1]} --seed 11 --num-seeds 5 --switch domain", "sac_qmp_separate_domain_seeds11to15", 7.8),
        (f"{words[2]} --seed 11 --num-seeds 5 --switch qmp", "sac_qmp_separate_qmp_seeds11to15_proposer", 7.8),
    ]
    assert [(" ".join(run.argv), run.name, run.hours) for run in runs] == expected
    # Compiled ones come one by one, after those that can do it; one seed is a run of its own.
    of_v = [(run.argv[0], run.flag("--num-seeds"), run.flag("--seed")) for run in PLANS["v"].runs("r", together=True)]
    pcgrad = [("cleanrl_scripts/pcgrad_qmp.py", None, str(seed)) for seed in (5, 6, 7, 8) for _ in ("own", "qmp")]
    assert of_v[-8:] == pcgrad
    assert {(count, seed) for _, count, seed in of_v[:-8]} == {("4", "5")}
    assert len(of_v) == 14 + 8
    assert PLANS["i"].runs("runs", [3], together=True) == PLANS["i"].runs("runs", [3])
    with pytest.raises(ValueError, match="expected consecutive seeds, got 1, 3"):
        PLANS["i"].runs("runs", [1, 3], together=True)


@pytest.fixture(scope="module")
def scripts() -> dict[str, ModuleType]:
    found = {}
    for name in {Path(run.argv[0]).stem for plan in PLANS.values() for run in plan.runs("runs")}:
        spec = importlib.util.spec_from_file_location(f"_plan_{name}", ROOT / "cleanrl_scripts" / f"{name}.py")
        assert spec is not None
        assert spec.loader is not None
        found[name] = sys.modules[f"_plan_{name}"] = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(found[name])
    return found


@pytest.mark.parametrize("name", PLANS)
def test_scripts_understand_their_commands(name: str, scripts: dict[str, ModuleType]) -> None:
    runs = PLANS[name].runs("runs", seeds=(3,))
    assert len({run.name for run in runs}) == len(runs)
    for run in runs:
        script = Path(run.argv[0]).stem
        args = scripts[script].parse_args([*run.argv[1:], "--run-dir", "/nowhere"])
        assert (args.seed, args.torch_threads, args.run_dir) == (3, 1, "/nowhere")
        assert run.name.startswith("_".join(filter(None, (script, getattr(args, "switch", "")))) + "_seed3")
    for run in PLANS[name].runs("runs", seeds=(3, 4), together=True):
        args = scripts[Path(run.argv[0]).stem].parse_args([*run.argv[1:], "--run-dir", "/nowhere"])
        assert (args.seed, num_seeds(args)) in ([(3, 2)] if "--num-seeds" in run.argv else [(3, 1), (4, 1)])
        assert not (num_seeds(args) > 1 and args.compile)


def test_manifests(tmp_path: Path) -> None:
    runs = PLANS["smoke"].runs("runs/smoke")
    assert len(runs) == 6
    (tmp_path / "deep").mkdir()
    manifest = tmp_path / "deep" / "smoke.jsonl"
    manifest.write_text(dump(runs) + "\n")
    found = load(manifest)
    assert [run.argv for run in found] == [run.argv for run in runs]
    assert found[0].dir == tmp_path / "deep" / "runs" / "smoke" / "point_reaching_own_seed1"
    assert found[0].beside(".log") == tmp_path / "deep" / "runs" / "smoke" / "point_reaching_own_seed1.log"
    assert json.loads(manifest.read_text().splitlines()[0]) == {
        "name": "point_reaching_own_seed1",
        "run_dir": "runs/smoke/point_reaching_own_seed1",
        "argv": list(runs[0].argv),
        "device": "cpu",
        "hours": 0.002,
    }


RUN = {"name": "a", "run_dir": "runs/a", "argv": ["x.py"], "device": "cpu", "hours": 1.0}


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("oops", "line 2 is no run"),
        ("[1]", "expected an object with name, run_dir, argv, device, hours"),
        ({**RUN, "more": 1}, "expected an object with"),
        ({**RUN, "name": "../a"}, "cannot be the name of a file"),
        ({**RUN, "name": 3}, "expected name and run_dir to be words"),
        ({**RUN, "argv": "x.py"}, "argv is 'x.py', expected a list of words"),
        ({**RUN, "argv": []}, "expected a list of words"),
        ({**RUN, "argv": ["x.py", 3]}, "expected a list of words"),
        ({**RUN, "device": "tpu"}, "device is 'tpu', expected one of cpu, cuda"),
        ({**RUN, "hours": 0}, "hours is 0, expected a positive number"),
        ({**RUN, "hours": "1"}, "hours is '1'"),
        (RUN, "two runs have the name a"),
        ({**RUN, "name": "b"}, "two runs have the run_dir .*runs/a: a and b"),
        ({**RUN, "name": "b", "run_dir": "."}, "run_dir is '.', expected a folder with a name, such as 'b'"),
        ({**RUN, "name": "b", "run_dir": "runs/.."}, "run_dir is 'runs/..', expected a folder with a name"),
        ({**RUN, "name": "b", "run_dir": "runs/b/../a"}, "two runs have the run_dir .*runs/b/../a: a and b"),
        ({**RUN, "name": "b", "run_dir": "runs/a/b"}, "the run_dir of b lies in that of a"),
        ({**RUN, "name": "b", "run_dir": "runs"}, "the run_dir of a lies in that of b"),
        ({**RUN, "name": "b", "argv": ["x.py", "--run-dir", "c"]}, "argv has --run-dir: the folder is said by run_dir"),
        ({**RUN, "name": "b", "argv": ["x.py", "--resume=c"]}, "argv has --resume"),
    ],
)
def test_lines_that_are_no_runs(line: object, said: str, tmp_path: Path) -> None:
    manifest = tmp_path / "m.jsonl"
    manifest.write_text(json.dumps(RUN) + "\n" + (line if isinstance(line, str) else json.dumps(line)) + "\n")
    with pytest.raises(ValueError, match=said):
        load(manifest)


def test_scripts_and_task_sets_of_runs_that_are_to_be_made(tmp_path: Path) -> None:
    """They were noticed when the run was started, hours into a suite."""
    manifest = tmp_path / "m.jsonl"

    def write(*argv: str) -> None:
        manifest.write_text("\n" + json.dumps({**RUN, "argv": argv}))

    for argv, said in (
        (["sac_seperate"], "line 2 is no run: there is no script .*sac_seperate.py: did you mean sac_qmp_separate?"),
        ([str(tmp_path / "mine.py")], "there is no script .*mine.py:"),
        (["dnc", "--env-id", "Maze4"], "line 2 is no run: --env-id Maze4: did you mean Maze"),
    ):
        write(*argv)
        with pytest.raises(ValueError, match=said):
            load(manifest, ROOT)
        assert len(load(manifest)) == 1  # its status can be asked for all the same
    (tmp_path / "mine.py").write_text("")
    for argv in (
        ["dnc", "--env-id=Maze3"],
        ["dnc", "--import", "mine", "--env-id", "Mine4"],
        [str(tmp_path / "mine.py")],
    ):
        write(*argv)
        assert len(load(manifest, ROOT)) == 1


@pytest.mark.parametrize(
    ("file", "content", "expected"),
    [
        ("done.json", {"global_step": None, "total_timesteps": "5"}, ("done", 0, None)),
        ("config.json", {"total_timesteps": "x", "checkpoint_every": 5}, ("waiting", 0, None)),
        ("config.json", {"total_timesteps": 10, "checkpoint_every": "5"}, ("waiting", 0, 10)),
        ("config.json", {"total_timesteps": -10}, ("waiting", 0, None)),
        ("metrics.jsonl", {"global_step": 5, "time/sps": "x"}, ("waiting", 5, None)),
        ("metrics.jsonl", {"global_step": 5, "time/sps": math.nan}, ("waiting", 5, None)),
        ("metrics.jsonl", {"global_step": math.inf, "time/sps": 1.0}, ("waiting", 0, None)),
        ("lock.json", [1], ("stale", 0, None)),
    ],
)
def test_a_damaged_folder_costs_no_other_run_its_line(
    file: str, content: object, expected: tuple[str, int, int | None], tmp_path: Path
) -> None:
    """One such file ended `status`, and the suite itself."""
    (tmp_path / file).write_text(json.dumps(content) + "\n")
    found = standing(Run("a", str(tmp_path), ("x.py",), "cpu", 1.0))
    assert (found.state, found.steps, found.total) == expected
    assert math.isfinite(found.hours_left)
    assert table([found]).count("\n") == 1


def test_a_folder_that_nobody_may_look_into_costs_no_other_run_its_line(tmp_path: Path) -> None:
    """As another user's; for a name that is too long the system has an error as well, whoever asks."""
    found = standing(Run("a", str(tmp_path / ("x" * 300)), ("x.py",), "cpu", 1.0))
    assert (found.state, found.steps, found.hours_left) == ("waiting", 0, 1.0)


def test_a_script_is_named_or_lies_somewhere() -> None:
    for word, path in (("dnc", "cleanrl_scripts/dnc.py"), ("mine/dnc.py", "mine/dnc.py"), ("/x/y.py", "/x/y.py")):
        assert Run("a", "runs/a", (word,), "cpu", 1.0).script == Path(path)


def test_flags_of_a_command(tmp_path: Path) -> None:
    argv = ("x.py", "--seed", "1", "--total_timesteps=3", "--compile", "--seed", "2")
    run = Run("a", "runs/a", argv, "cpu", 1.0)
    assert [run.flag(name) for name in ("--seed", "--total-timesteps", "--gamma")] == ["2", "3", None]


def test_the_command_line_prints_a_plan_and_brings_no_torch(tmp_path: Path) -> None:
    printed = subprocess.run(
        suite("plan", "i", "--seeds", 21, 22, "--root", "elsewhere"), capture_output=True, text=True, check=True
    ).stdout
    assert printed == dump(PLANS["i"].runs("elsewhere", (21, 22)))
    assert len(printed.splitlines()) == 4
    failed = subprocess.run(suite("plan", "xl"), capture_output=True, text=True)
    assert failed.returncode == 1
    assert (
        failed.stderr
        == "plan xl: expected one of smoke, i, ii, iii, iv, v, vi, vii, viii, ix, x, comparison, gpu, gpu_reacher\n"
    )
    program = "import sys, qmp_collect.runs.suite.__main__; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", program], check=True)


def test_a_fake_run_is_one_of_a_manifest(tmp_path: Path) -> None:
    (tmp_path / "m.jsonl").write_text(dump([fake_run(tmp_path, "a", total_timesteps=3)]))
    assert load(tmp_path / "m.jsonl")[0].flag("--total-timesteps") == "3"
