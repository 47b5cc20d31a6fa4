"""``--num-seeds S``: S runs in one process, each of which is the run that it would be alone."""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from test_resume import differences, metrics, only_run

from qmp_collect import Batch, TaskReplayBuffer
from qmp_collect.runs import StopSignal, load_checkpoint, saved_seeds, training
from qmp_collect.runs.policy import build_agent, load_policy
from qmp_collect.runs.replay_files import load_run_state
from qmp_collect.runs.report.arms import studies
from qmp_collect.runs.report.runs import find_runs, load_run
from qmp_collect.runs.suite.manifest import Run
from qmp_collect.runs.suite.process import slim
from qmp_collect.runs.suite.status import standing

NAME, SEEDS = "sac_qmp_separate", (4, 5, 6)
NAMES = [NAME, "sac_qmp_multihead"]
OTHERS = ["sac_shared", "mcal_qmp", "pcgrad_qmp", "uds_qmp", "decaf", "dnc"]
SETTINGS = {
    "env-id": "Maze3", "env-steps-per-round": 20, "gradient-steps-per-round": 3, "min-buffer-size": 40,
    "buffer-size": 50, "batch-size": 6, "hidden-dim": 8, "learning-rate": 1e-2, "envs-per-task": 2,
    "total-timesteps": 360, "eval-every": 180, "eval-episodes": 2, "checkpoint-every": 120, "torch-threads": 1,
}  # fmt: skip
SHARING = {"warmup-rounds": 1, "own-probability": 0.3, "own-probability-final": 0.1, "horizon": 3, "own-fraction": 0.5}
SWITCH = ["--switch-margin=0.1", "--entropy-term", "--switch-relative"]


def tiny(name: str) -> list[str]:
    """Short runs of a script, with what it has beside the method itself."""
    shares = name not in ("sac_shared", "dnc")
    own = {"dnc": ["--distill-steps=3", "--distill-every=90"]}.get(name, SWITCH if name in NAMES else [])
    return [f"--{flag}={value}" for flag, value in (SETTINGS | (SHARING if shares else {})).items()] + own


TINY = tiny(NAME)
THREE = [*TINY, "--seed", SEEDS[0], "--num-seeds", len(SEEDS)]
RunScript = Callable[..., None]
pytestmark = pytest.mark.usefixtures("short_episodes")


@pytest.fixture
def in_float64(float64: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """All but the replay buffers' rows."""

    def converted(sample: Callable[..., Batch]) -> Callable[..., Batch]:
        def drawn(*args: Any, **settings: Any) -> Batch:
            batch = sample(*args, **settings)
            return Batch(*(part.double() if part.is_floating_point() else part for part in batch))

        return drawn

    for name in ("sample", "sample_joint"):
        monkeypatch.setattr(TaskReplayBuffer, name, converted(getattr(TaskReplayBuffer, name)))


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """The folder of three seeds that nothing disturbed, made once."""
    roots = {name: tmp_path_factory.mktemp(name) for name in NAMES}

    def made(run_script: RunScript, name: str = NAME) -> Path:
        if not any(roots[name].iterdir()):
            run_script(name, *THREE, "--run-dir-root", roots[name])
        return only_run(roots[name])

    return made


def code_of(run_script: RunScript, *arguments: object, name: str = NAME) -> object:
    with pytest.raises(SystemExit) as ended:
        run_script(name, *arguments)
    return ended.value.code


def config(run_dir: Path) -> Any:
    return json.loads((run_dir / "config.json").read_text())


@pytest.mark.usefixtures("in_float64")
@pytest.mark.parametrize("name", NAMES + OTHERS)
def test_each_seed_leaves_what_a_run_of_its_own_leaves(name: str, run_script: RunScript, tmp_path: Path) -> None:
    together = tmp_path / "together"
    run_script(name, *tiny(name), "--seed", SEEDS[0], "--num-seeds", len(SEEDS), "--run-dir", together)
    assert json.loads((together / "done.json").read_text()) == {"global_step": 360, "total_timesteps": 360}
    assert files(together) == {"checkpoint.npz", "done.json", "seeds.json", *(f"seed{seed}" for seed in SEEDS)}
    for seed in SEEDS[::2]:
        member, alone = together / f"seed{seed}", tmp_path / str(seed)
        run_script(name, *tiny(name), "--seed", seed, "--run-dir", alone)
        assert config(member) == config(alone)
        assert files(member) == files(alone)
        rows, expected = metrics(member), metrics(alone)
        assert [list(row) for row in rows] == [list(row) for row in expected]
        assert len(rows) == 6 + 3  # rounds, and evaluations
        for row, own in zip(rows, expected, strict=True):
            for tag, value in own.items():
                np.testing.assert_allclose(row[tag], value, rtol=1e-6, atol=1e-9, err_msg=tag)
        a, b = (load_run_state(folder) for folder in (member, alone))
        assert a["collector"]["num_steps"] == b["collector"]["num_steps"] == 360
        assert torch.equal(a["buffer"]["generator"], b["buffer"]["generator"])
        torch.testing.assert_close(a["buffer"]["rows"], b["buffer"]["rows"], rtol=1e-5, atol=1e-6)
        torch.testing.assert_close(a["agent"]["qf"], b["agent"]["qf"], rtol=1e-6, atol=1e-9)
        a, b = (load_file(folder / "policy.safetensors") for folder in (member, alone))
        torch.testing.assert_close(a, b, rtol=1e-6, atol=1e-9)


def files(folder: Path) -> set[str]:
    """What lies in it, but for TensorBoard's events."""
    return {entry.name for entry in folder.iterdir() if not entry.name.startswith("events")}


class Killed(Exception):  # noqa: N818
    """Here the process dies."""


def dying(method: Callable[..., Any], calls: int) -> Callable[..., Any]:
    """It goes well so many times."""
    count = itertools.count()

    def call(*args: Any) -> Any:
        if next(count) == calls:
            raise Killed
        return method(*args)

    return call


@pytest.mark.parametrize("script", NAMES)
def test_killed_at_the_worst_moments(
    script: str,
    finished: Callable[..., Path],
    run_script: RunScript,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """With some seeds saved and others not, and amid a round: what goes on is one state, that of the last save."""
    command, run_dir = [*THREE, "--run-dir", tmp_path / "run"], tmp_path / "run"
    # When the second seed of the first save is written, the file of all in the second one, and when the second seed's
    # file of that is to get its name: then the save was made, and is completed.
    for module, name, calls, saves in (
        (saved_seeds, "save_finite", 1, None),
        (saved_seeds, "save_checkpoint", 1, 1),
        (saved_seeds.os, "replace", 1, 2),
    ):
        with monkeypatch.context() as patch:
            if name == "replace":  # of whole saves alone; others are made with it, too
                patch.setattr(
                    saved_seeds, "os", type("Os", (), {"replace": staticmethod(dying(module.replace, calls))})
                )
            else:
                patch.setattr(module, name, dying(getattr(module, name), calls))
            with pytest.raises(Killed):
                run_script(script, *command)
        assert (run_dir / "checkpoint.npz").exists() == (saves is not None)
        if saves is not None:
            assert load_checkpoint(run_dir / "checkpoint.npz")["run"] == {"seeds": [*SEEDS], "save": saves}
            with pytest.raises(SystemExit, match=r"one of the seeds 4, 5, 6, which .* go on only together: resume"):
                run_script(script, "--resume", run_dir / "seed4")
    assert [(run_dir / f"seed{seed}" / "checkpoint.next.npz").exists() for seed in SEEDS] == [False, True, True]
    left = iter([False] * 23)
    with monkeypatch.context() as patch:
        patch.setattr(StopSignal, "__bool__", lambda stop: next(left, True))
        assert code_of(run_script, "--resume", run_dir, name=script) == 75
    progress = load_checkpoint(run_dir / "seed5" / "checkpoint.npz")["run"]
    assert progress["interrupted"] or progress["updates_due"]
    run_script(script, "--resume", run_dir)
    reference = finished(run_script, script)
    for seed in SEEDS:
        own, expected = run_dir / f"seed{seed}", reference / f"seed{seed}"
        assert metrics(own) == metrics(expected)
        a, b = (load_run_state(folder) for folder in (own, expected))
        assert set(differences(a, b)) == {"/run/save"}
        a, b = (load_file(folder / "policy.safetensors") for folder in (own, expected))
        assert list(differences(a, b)) == []
        assert not (own / "checkpoint.next.npz").exists()
    a, b = (load_checkpoint(folder / "checkpoint.npz") for folder in (run_dir, reference))
    assert set(differences(a, b)) == {"/run/save"}


def test_what_reads_runs_sees_as_many(finished: Callable[..., Path], run_script: RunScript) -> None:
    folder = finished(run_script)
    members = [folder / f"seed{seed}" for seed in SEEDS]
    assert find_runs([folder]) == find_runs([folder.parent]) == members
    (study,) = studies([load_run(member) for member in members])
    assert [[run.seed for run in arm.runs] for arm in study.arms] == [[*SEEDS]]
    assert load_policy(members[1]).settings == config(members[1])
    saved = load_checkpoint(members[1] / "checkpoint.npz")
    build_agent(saved["run"]["script"], saved["run"]["settings"], torch.device("cpu")).load_state_dict(saved["agent"])
    with pytest.raises(FileNotFoundError, match=r"it is the folder of several seeds: expected one of theirs.*seed4"):
        load_policy(folder)
    command = json.loads((members[1] / "provenance.jsonl").read_text())["command"]
    assert "--seed 4 --num-seeds 3" in command
    run = Run("three", str(folder), (NAME,), "cpu", 1.0)
    assert (standing(run).state, standing(run).steps, standing(run).total) == ("done", 360, 360)
    assert code_of(run_script, "--resume", folder) == 0


def test_a_seed_that_diverges(run_script: RunScript, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    end_round = training.TrainingRun.end_round

    def diverging(run: training.TrainingRun, losses: dict[str, torch.Tensor]) -> None:
        if run.global_step == 240:
            run._agent.log_alpha.data[3 + 1] = np.nan
        end_round(run, losses)

    run_dir = tmp_path / "run"
    with monkeypatch.context() as patch:
        patch.setattr(training.TrainingRun, "end_round", diverging)
        with pytest.raises(FloatingPointError, match=r"step 240: seed 5: \['agent'\]\['log_alpha'\] is not finite"):
            run_script(NAME, *THREE, "--eval-every", 360, "--run-dir", run_dir)
    assert [(run_dir / f"seed{seed}" / "diverged.npz").exists() for seed in SEEDS] == [False, True, False]
    run = Run("three", str(run_dir), (NAME, "--total-timesteps", "360"), "cpu", 1.0)
    assert (standing(run).state, standing(run).steps) == ("stopped", 240)
    assert load_checkpoint(run_dir / "seed4" / "checkpoint.npz")["collector"]["num_steps"] == 120
    run_script(NAME, "--resume", run_dir)  # this time it does not diverge
    slim(run)
    assert not list(run_dir.rglob("checkpoint.npz")) + list(run_dir.rglob("replay"))
    assert code_of(run_script, *THREE, "--eval-every", 360, "--run-dir", run_dir) == 0


@pytest.mark.parametrize("name", NAMES)
def test_environments_of_one_seed_that_diverge(
    name: str, finished: Callable[..., Path], run_script: RunScript, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After every round its simulations' clocks are NaN, which ends their episodes: other seeds leave the same bits."""
    made: list[Any] = []
    shortened, end_round = gym.make_vec, training.TrainingRun.end_round

    def make_vec(*args: Any, **settings: Any) -> Any:
        made.append(shortened(*args, **settings).unwrapped)
        return made[-1]

    def poisoned(run: training.TrainingRun, losses: dict[str, torch.Tensor]) -> None:
        end_round(run, losses)
        made[1]._engine.state[6:12, 0] = np.nan  # the clocks of three tasks' simulations, two each

    run_dir = tmp_path / "run"
    with monkeypatch.context() as patch:
        patch.setattr(gym, "make_vec", make_vec)
        patch.setattr(training.TrainingRun, "end_round", poisoned)
        run_script(name, *THREE, "--run-dir", run_dir)
    reference = finished(run_script, name)
    diverged = {seed: sum(row.get("charts/diverged", 0) for row in metrics(run_dir / f"seed{seed}")) for seed in SEEDS}
    assert [seed for seed, share in diverged.items() if share] == [5]
    for seed in SEEDS:
        own, expected = run_dir / f"seed{seed}", reference / f"seed{seed}"
        assert (metrics(own) == metrics(expected)) == (seed != 5)
        parts = {path.split("/")[1] for path in differences(load_run_state(own), load_run_state(expected))}
        assert parts >= {"agent", "buffer"} if seed == 5 else parts == set()


def test_what_is_refused(
    finished: Callable[..., Path], run_script: RunScript, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = ["--run-dir-root", tmp_path]
    assert "not together with --compile" in str(code_of(run_script, *THREE, *root, "--compile"))
    assert "beyond 4294967295" in str(code_of(run_script, *THREE, *root, "--seed", 2**32 - 2))
    assert "--num-seeds 0: expected a number from 1" in str(code_of(run_script, *THREE, *root, "--num-seeds", 0))
    folder = finished(run_script)
    assert "num_seeds cannot be changed" in str(code_of(run_script, "--resume", folder, "--num-seeds", 2))
    said = str(code_of(run_script, *TINY, "--seed", 4, "--run-dir", folder))
    assert f"{folder}: it holds a run with num_seeds 3 and now 1" in said
    (tmp_path / "seed4").mkdir()
    (tmp_path / "seed4" / "thesis.tex").write_text("precious")
    assert "has what no run writes: seed4" in str(code_of(run_script, *THREE, "--run-dir", tmp_path))
