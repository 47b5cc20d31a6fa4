"""A run is itself and nobody else's: its folder, its settings, its end, over every resume."""

from __future__ import annotations

import contextlib
import fcntl
import functools
import json
import os
import shutil
import struct
import subprocess
import sys
import termios
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch
from script_files import SCRIPTS
from test_resume import metrics, only_run

import qmp_envs
from qmp_collect.runs import StopSignal, load_checkpoint, member, save_checkpoint, saved, training
from qmp_collect.runs.folder import RunFolder

SETTINGS = {
    "env-steps-per-round": 20, "gradient-steps-per-round": 2, "min-buffer-size": 20, "batch-size": 4, "hidden-dim": 8,
    "eval-episodes": 1, "eval-every": 60, "checkpoint-every": 60, "total-timesteps": 180, "env-id": "Maze3",
    "torch-threads": 1,
}  # fmt: skip
TINY = [word for flag, value in SETTINGS.items() for word in (f"--{flag}", str(value))]
RunScript = Callable[..., None]
NAME = "sac_qmp_separate"


@pytest.fixture
def short_episodes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gym, "make_vec", functools.partial(gym.make_vec, max_episode_steps=4))
    monkeypatch.setattr(gym, "make", functools.partial(gym.make, max_episode_steps=4))


@pytest.fixture(scope="module")
def made_once(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("runs")


@pytest.fixture
def run_dir(made_once: Path, run_script: RunScript, tmp_path: Path, short_episodes: None) -> Path:
    """Of a finished run: a copy of one that is made once."""
    if not list(made_once.iterdir()):
        run_script(NAME, *TINY, "--run-dir-root", made_once)
    finished = only_run(made_once)
    return Path(shutil.copytree(finished, tmp_path / "runs" / finished.name))


def content(folder: Path) -> dict[str, bytes]:
    return {str(file.relative_to(folder)): file.read_bytes() for file in folder.rglob("*") if file.is_file()}


def code_of(run_script: RunScript, *arguments: object) -> object:
    with pytest.raises(SystemExit) as ended:
        run_script(NAME, *arguments)
    return ended.value.code


def test_a_finished_run_is_left_alone(
    run_dir: Path, run_script: RunScript, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    assert json.loads((run_dir / "done.json").read_text()) == {"global_step": 180, "total_timesteps": 180}
    assert not (run_dir / "lock.json").exists()
    before = content(run_dir)
    assert code_of(run_script, "--resume", run_dir) == 0
    assert f"{run_dir} is finished: nothing to do" in capsys.readouterr().out
    assert content(run_dir) == before
    run_script(NAME, "--resume", run_dir, "--total-timesteps", 240)
    assert json.loads((run_dir / "done.json").read_text()) == {"global_step": 240, "total_timesteps": 240}


def test_a_run_that_grows_is_unfinished_until_it_has_grown(
    run_dir: Path, run_script: RunScript, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(StopSignal, "__bool__", lambda stop: True)
        assert code_of(run_script, "--resume", run_dir, "--total-timesteps", 240) == 75
    assert not (run_dir / "done.json").exists()
    run_script(NAME, "--resume", run_dir)
    assert json.loads((run_dir / "done.json").read_text())["global_step"] == 240


def test_done_is_written_after_the_videos(
    run_script: RunScript, tmp_path: Path, short_episodes: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    save_task = member.save_task

    def fails(policy: Any, *args: Any, **kwargs: Any) -> None:
        if policy.global_step == 180:
            raise RuntimeError("no pictures today")
        save_task(policy, *args, **kwargs)

    with monkeypatch.context() as patch:
        patch.setattr(member, "save_task", fails)
        with pytest.raises(RuntimeError, match="no pictures"):
            run_script(NAME, *TINY, "--capture-video", "--run-dir-root", tmp_path)
    assert not (only_run(tmp_path) / "done.json").exists()
    run_script(NAME, "--resume", only_run(tmp_path))
    assert len(list(only_run(tmp_path).glob("videos/*.gif"))) == 3
    assert (only_run(tmp_path) / "done.json").exists()


def test_films_of_a_running_run_reach_tensorboard_and_change_nothing(
    run_dir: Path, run_script: RunScript, tmp_path: Path
) -> None:
    accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    run_script(NAME, *TINY, "--capture-video", "--run-dir-root", tmp_path / "filmed")
    filmed = only_run(tmp_path / "filmed")
    events = accumulator.EventAccumulator(str(filmed), size_guidance={"images": 0}).Reload()
    for name in qmp_envs.TASK_SETS["Maze3-v0"].task_names:
        films = events.Images(f"videos/{name}")
        assert [film.step for film in films] == [60, 120, 180]
        assert films[-1].encoded_image_string == (filmed / "videos" / f"{name}.gif").read_bytes()
    assert metrics(filmed) == metrics(run_dir)


def test_a_run_that_goes_on_elsewhere_is_not_resumed(run_dir: Path, run_script: RunScript) -> None:
    before = content(run_dir)
    with RunFolder.reopen(run_dir):
        assert "has worked on this run since" in str(code_of(run_script, "--resume", run_dir, "--total-timesteps", 240))
    assert content(run_dir) == before


def test_a_lock_left_behind_is_broken_with_a_message(
    run_dir: Path, run_script: RunScript, capsys: pytest.CaptureFixture[str]
) -> None:
    (run_dir / "lock.json").write_text('{"host": "node7", "pid": 4242, "start": "2026-01-01T00:00:00+0000"}\n')
    run_script(NAME, "--resume", run_dir, "--total-timesteps", 240)
    assert "process 4242 on node7 left its lock behind, which is broken" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("setting", "value"),
    [("seed", 7), ("switch", "own"), ("learning_rate", 1.0), ("horizon", 5), ("gamma", 0.5), ("eval_every", 1)],
)
def test_settings_that_are_not_those_of_the_checkpoint(
    setting: str, value: object, run_dir: Path, run_script: RunScript
) -> None:
    config = json.loads((run_dir / "config.json").read_text())
    (run_dir / "config.json").write_text(json.dumps(config | {setting: value}))
    before = content(run_dir)
    said = str(code_of(run_script, "--resume", run_dir, "--total-timesteps", 240))
    assert f"config.json was changed since the checkpoint was saved, with {setting} {config[setting]} and now" in said
    assert content(run_dir) == before


@pytest.mark.parametrize(
    ("config", "said"),
    [
        ("", "is damaged"),
        ("[" * 100_000, "is damaged"),
        ('{"seed": 1', "is damaged"),
        ("[1]", "expected an object, got list"),
        ({"seed": "1"}, "seed is '1', expected <class 'int'>"),
        ({"seed": True}, "seed is True"),
        ({"gamma": None}, "gamma is None"),
        ({"switch": "anything"}, "switch is 'anything'"),
        ({"total_timesteps": 1e9}, "total_timesteps is 1000000000.0"),
        ({"env_id": "evil_module:Maze3-v0"}, "env_id is 'evil_module:Maze3-v0', expected one of"),
        ({"track": True}, r"another script or version, differing in \['track'\]"),
    ],
)
def test_a_config_that_is_damaged_or_hostile(config: object, said: str, run_dir: Path, run_script: RunScript) -> None:
    own = json.loads((run_dir / "config.json").read_text())
    (run_dir / "config.json").write_text(config if isinstance(config, str) else json.dumps(own | dict(config)))  # type: ignore[call-overload]
    with pytest.raises(SystemExit, match=said):
        run_script(NAME, "--resume", run_dir, "--total-timesteps", 240)


def test_whether_and_to_whom_it_is_uploaded_is_the_resumers_to_say(
    run_dir: Path, run_script: RunScript, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    config = json.loads((run_dir / "config.json").read_text())
    assert not config.keys() & {"track", "tracker", "wandb_entity", "wandb_project_name", "run_dir_root", "resume"}
    started = []
    make = member.RunLogger

    def noted(*args: object, **options: object) -> member.RunLogger:
        started.append({name: options[name] for name in ("track", "wandb_project", "wandb_entity")})
        return make(*args, **options | {"track": False})  # type: ignore[arg-type]

    monkeypatch.setattr(member, "RunLogger", noted)
    (run_dir / "tracker.json").write_text(json.dumps({"id": "0" * 32}))
    run_script(NAME, "--resume", run_dir, "--total-timesteps", 240)
    assert "was tracked before; this part of it is not, without --track or --tracker" in capsys.readouterr().out
    run_script(NAME, "--resume", run_dir, "--total-timesteps", 300, "--track", "--wandb-entity", "me")
    assert started == [
        {"track": False, "wandb_project": "qmp", "wandb_entity": None},
        {"track": "wandb", "wandb_project": "qmp", "wandb_entity": "me"},
    ]


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (("--tracker", "no_such_tracker"), "--tracker no_such_tracker: there is no such module, neither installed nor"),
        (("--tracker", "json"), r"--tracker json: expected a module with the functions .* without init and log and fi"),
    ],
)
def test_a_tracker_is_refused_before_anything_begins(
    flags: tuple[str, str], said: str, tmp_path: Path, run_script: RunScript
) -> None:
    with pytest.raises(SystemExit, match=said):
        run_script(NAME, "--run-dir", tmp_path / "run", "--total-timesteps", 240, *flags)
    assert not (tmp_path / "run").exists()


def test_checkpoints_of_earlier_versions(run_dir: Path, run_script: RunScript) -> None:
    tree = load_checkpoint(run_dir / "checkpoint.npz")
    del tree["run"]["settings"]
    save_checkpoint(run_dir / "checkpoint.npz", tree)
    with pytest.raises(
        SystemExit, match="its checkpoint is of an older version, which kept no settings; start it anew"
    ):
        run_script(NAME, "--resume", run_dir, "--total-timesteps", 240)


def test_a_lost_history_leaves_the_run_as_it_was(run_dir: Path, run_script: RunScript) -> None:
    (run_dir / "metrics.jsonl").unlink()
    before = content(run_dir)
    with pytest.raises(SystemExit, match="holds 0 rows, but the checkpoint was saved after"):
        run_script(NAME, "--resume", run_dir, "--total-timesteps", 240)
    assert content(run_dir) == before


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_the_last_finite_checkpoint_survives(
    bad: float, run_script: RunScript, tmp_path: Path, short_episodes: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    end_round = training.TrainingRun.end_round

    def diverging(run: training.TrainingRun, losses: dict[str, torch.Tensor]) -> None:
        if run.global_step == 120:
            with torch.no_grad():
                run._saved.parts["agent"].actor.fc1.weight[1] = bad  # type: ignore[attr-defined]
        end_round(run, losses)

    with monkeypatch.context() as patch:
        patch.setattr(training.TrainingRun, "end_round", diverging)
        with pytest.raises(FloatingPointError, match=r"step 120: \['agent'\]\['actor'\]\['fc1.weight'\] is not finite"):
            run_script(NAME, *TINY, "--switch", "own", "--eval-every", 180, "--run-dir-root", tmp_path)
    run_dir = only_run(tmp_path)
    assert load_checkpoint(run_dir / "checkpoint.npz")["collector"]["num_steps"] == 60
    assert not load_checkpoint(run_dir / "diverged.npz")["agent"]["actor"]["fc1.weight"][1].isfinite().any()
    run_script(NAME, "--resume", run_dir)  # this time it does not diverge
    assert [row["global_step"] for row in metrics(run_dir)] == [0, 60, 120, 180, 180]


def test_rows_reach_the_disk_before_the_checkpoint_that_counts_them(
    run_script: RunScript, tmp_path: Path, short_episodes: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    events, sync, save = [], member.RunLogger.sync, saved.save_checkpoint

    def noted_sync(logger: member.RunLogger) -> None:
        sync(logger)
        events.append(("rows", logger.rows))

    def noted_save(path: Path, tree: dict[str, dict[str, object]]) -> None:
        events.append(("checkpoint", tree["run"]["rows"]))
        save(path, tree)

    monkeypatch.setattr(member.RunLogger, "sync", noted_sync)
    monkeypatch.setattr(saved, "save_checkpoint", noted_save)
    run_script(NAME, *TINY, "--run-dir-root", tmp_path)
    assert events[0::2] == [("rows", count) for _, count in events[1::2]]
    assert {what for what, _ in events[1::2]} == {"checkpoint"}
    assert len(events) >= 6


@pytest.mark.parametrize("clock", ["stands", "goes back"])
def test_clocks(
    clock: str, run_script: RunScript, tmp_path: Path, short_episodes: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    seconds = iter(range(10**9, 0, -1))
    read = (lambda: 1e9) if clock == "stands" else (lambda: float(next(seconds)))
    monkeypatch.setattr(training, "time", SimpleNamespace(time=read, perf_counter=read))
    run_script(NAME, *TINY, "--run-dir-root", tmp_path)
    rounds = [row for row in metrics(only_run(tmp_path)) if "losses/qf_loss" in row]
    assert [row["global_step"] for row in rounds] == [60, 120, 180]


@pytest.mark.parametrize("name", ["../x", "a/b", "a\nb", "x" * 300])
def test_names_that_leave_the_folder(name: str, run_script: RunScript, tmp_path: Path) -> None:
    with pytest.raises(SystemExit, match="cannot be the name of a file"):
        run_script(NAME, *TINY, "--exp-name", name, "--run-dir-root", tmp_path / "runs")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("names", "said"), [(["../a"], "cannot be the name of a file"), (["a", "a"], "two tasks have the same name")]
)
def test_names_of_tasks(names: list[str], said: str) -> None:
    with pytest.raises(SystemExit, match=said):
        training.TrainingRun(training.RunArgs(), names)


def test_a_run_takes_denormal_numbers_for_0() -> None:
    denormal = torch.tensor([1e-39])
    assert (denormal / 2).item() > 0
    training.TrainingRun(training.RunArgs(), ["a"])
    assert (denormal / 2).item() == 0


def test_a_root_that_cannot_be(run_script: RunScript, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    for root in (tmp_path / "file", tmp_path / ("x" * 300)):
        assert "the run's folder" in str(code_of(run_script, *TINY, "--run-dir-root", root))


def test_runs_of_neighbouring_seeds_share_no_episodes(
    run_script: RunScript, tmp_path: Path, short_episodes: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Sub-environment i is seeded with seed + i: nine of twelve were those of another run with three seeds more."""
    reset, seeds = qmp_envs.MazeVectorEnv.reset, []

    def spied(envs: Any, *, seed: Any = None, options: Any = None) -> Any:
        if seed is not None:
            seeds.extend(range(seed, seed + envs.num_envs))
        return reset(envs, seed=seed, options=options)

    monkeypatch.setattr(qmp_envs.MazeVectorEnv, "reset", spied)
    for seed in (1, 4):
        run_script(NAME, *TINY, "--seed", seed, "--envs-per-task", 4, "--run-dir-root", tmp_path)
    assert len(seeds) == len(set(seeds)) == 2 * (12 + 4 * 3)  # training, and an evaluation of 3 at steps 0, 60, ...


def test_two_runs_of_one_second(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(training, "time", SimpleNamespace(time=lambda: 1.7e9))
    args = [training.RunArgs(run_dir_root=str(tmp_path), eval_episodes=episodes) for episodes in (3, 7)]
    runs = [training.TrainingRun(one, ["a"]) for one in args]
    assert list(tmp_path.iterdir()) == []  # a run that fails before it starts leaves no folder
    assert [run.dir.name for run in runs] == ["Maze10-v0__run__1__1700000000", "Maze10-v0__run__1__1700000000__2"]
    for run in runs:
        run._folder.release()


def test_diverging_simulations_end_no_run(
    run_script: RunScript, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They would end it again after each resume, which is exact."""
    from qmp_envs.engine import Engine

    step = Engine.step

    def faked(engine: Engine) -> object:
        bad, now = step(engine), np.isclose(engine.state[:, 0] % 1, 0.1)  # a tenth of a second after each start
        return now if bad is None else now | bad

    monkeypatch.setattr(Engine, "step", faked)
    run_script(NAME, *TINY, "--capture-video", "--run-dir-root", tmp_path)
    rows = [row for row in metrics(only_run(tmp_path)) if "charts/diverged" in row]
    assert {row["charts/diverged"] for row in rows} == {1.0}
    assert (only_run(tmp_path) / "done.json").exists()


def test_the_terminal_of_a_run_closes(tmp_path: Path) -> None:
    """SIGHUP comes, and whatever is written from then on is an error: the checkpoint is saved all the same."""
    terminal, its_end = os.openpty()
    fcntl.ioctl(its_end, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 80, 0, 0))  # wide enough for a progress bar
    os.set_blocking(terminal, False)
    lead = """
import fcntl, os, sys, termios
os.setsid()
fcntl.ioctl(0, termios.TIOCSCTTY, 0)
os.execv(sys.argv[1], sys.argv[1:])
"""
    words = [*TINY, "--total-timesteps", "600000", "--checkpoint-every", "600000", "--eval-every", "600000"]
    script = [sys.executable, str(SCRIPTS / f"{NAME}.py"), *words, "--run-dir-root", str(tmp_path)]
    run = subprocess.Popen([sys.executable, "-c", lead, *script], stdin=its_end, stdout=its_end, stderr=its_end)
    os.close(its_end)
    while not any("losses/qf_loss" in file.read_text() for file in tmp_path.glob("*/metrics.jsonl")):
        with contextlib.suppress(BlockingIOError):
            os.read(terminal, 1 << 16)
        time.sleep(0.01)
    os.close(terminal)
    assert run.wait() == 75
    step = load_checkpoint(only_run(tmp_path) / "checkpoint.npz")["collector"]["num_steps"]
    assert 0 < step < 600_000


# ------------------------------------------------------------------ --run-dir: the run's own folder


@pytest.fixture
def own(tmp_path: Path, short_episodes: None) -> Path:
    return tmp_path / "deep" / "own"


@pytest.fixture
def finished(own: Path, run_dir: Path) -> Path:
    """A finished run in a folder of its own, which is the same as one beneath a root (see the next test)."""
    return Path(shutil.copytree(run_dir, own))


def test_the_same_command_starts_continues_and_leaves_alone(
    own: Path, run_dir: Path, run_script: RunScript, capsys: pytest.CaptureFixture[str]
) -> None:
    left = iter([False] * 40)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(StopSignal, "__bool__", lambda stop: next(left, True))
        assert code_of(run_script, *TINY, "--run-dir", own) == 75
    assert (own / "checkpoint.npz").exists()
    run_script(NAME, *TINY, "--run-dir", own)
    assert metrics(own) == metrics(run_dir)
    config = json.loads((own / "config.json").read_text())
    assert config == json.loads((run_dir / "config.json").read_text())
    before = content(own)
    assert code_of(run_script, *TINY, "--run-dir", own) == 0
    assert f"{own} is finished: nothing to do" in capsys.readouterr().out
    assert content(own) == before
    run_script(NAME, *TINY, "--run-dir", own, "--total-timesteps", 240)
    assert json.loads((own / "done.json").read_text())["global_step"] == 240
    assert code_of(run_script, *TINY, "--run-dir", own, "--total-timesteps", 240) == 0
    assert "is at step 240 already" in str(code_of(run_script, *TINY, "--run-dir", own))


def test_what_the_run_was_left_to_decide_it_has_decided(own: Path, run_script: RunScript) -> None:
    flags = ["--eval-every", 0, "--checkpoint-every", 0, "--distill-every", 0, "--distill-steps", 2, "--run-dir", own]
    run_script("dnc", *TINY, *flags)
    decided = {name: json.loads((own / "config.json").read_text())[name] for name in ("eval_every", "distill_every")}
    assert decided == {"eval_every": 1, "distill_every": 17}
    run_script("dnc", *TINY, *flags, "--total-timesteps", 360)
    assert {name: json.loads((own / "config.json").read_text())[name] for name in decided} == decided


@pytest.mark.parametrize("done", [False, True])
def test_another_run_is_not_continued(done: bool, finished: Path, run_script: RunScript) -> None:
    if not done:
        (finished / "done.json").unlink()
    before = content(finished)
    flags = [*TINY, "--run-dir", finished, "--seed", 2, "--learning-rate", 0.1, "--eval-every", 90]
    said = str(code_of(run_script, *flags))
    differing = "seed 1 and now 2, eval_every 60 and now 90, learning_rate 0.0003 and"
    assert f"{finished}: it holds a run with {differing}" in said
    with pytest.raises(SystemExit, match="a run of another script or version, differing in"):
        run_script("sac_shared", *TINY, "--run-dir", finished)
    assert content(finished) == before


def test_what_a_start_left_that_reached_no_checkpoint(finished: Path, run_script: RunScript) -> None:
    expected = metrics(finished)
    for name in ("checkpoint.npz", "done.json"):
        (finished / name).unlink()
    (finished / "metrics.jsonl").write_text('{"global_step": 9}\n')
    (finished / ".checkpoint.npz.0badcafe-1-00000000.tmp").write_bytes(b"half")
    (finished / "lock.json").write_text('{"host": "node7", "pid": 4242, "start": "2026-01-01T00:00:00+0000"}\n')
    run_script(NAME, *TINY, "--run-dir", finished)
    assert metrics(finished) == expected
    assert len((finished / "provenance.jsonl").read_text().splitlines()) == 1
    assert len(list(finished.glob("events.out.tfevents.*"))) == 1
    assert not list(finished.glob(".*.tmp"))


@pytest.mark.parametrize("checkpoint", [False, True])
def test_a_folder_that_another_process_has(checkpoint: bool, finished: Path, run_script: RunScript) -> None:
    (finished / "done.json").unlink()
    if not checkpoint:
        (finished / "checkpoint.npz").unlink()
    with RunFolder.reopen(finished):
        before = content(finished)
        assert "has worked on this run since" in str(code_of(run_script, *TINY, "--run-dir", finished))
        assert content(finished) == before


def test_a_folder_of_something_else(own: Path, run_script: RunScript) -> None:
    own.mkdir(parents=True)
    (own / "config.json").write_text("precious")
    (own / "thesis.tex").write_text("precious")
    (own / ".thesis.tex.tmp").write_text("precious")
    before = content(own)
    assert "has what no run writes: thesis.tex. A run needs a folder of its own" in str(
        code_of(run_script, *TINY, "--run-dir", own)
    )
    assert content(own) == before


def test_a_finished_run_without_checkpoint(finished: Path, run_script: RunScript) -> None:
    """Its results are kept and its replay is not: it is finished all the same, and not begun again."""
    (finished / "checkpoint.npz").unlink()
    before = content(finished)
    assert code_of(run_script, *TINY, "--run-dir", finished) == 0
    said = str(code_of(run_script, *TINY, "--run-dir", finished, "--total-timesteps", 240))
    assert "a run of 180 steps, finished and without a checkpoint, which cannot become one of 240" in said
    assert content(finished) == before


@pytest.mark.parametrize("flag", ["--resume", "--run-dir"])
def test_a_folder_that_cannot_be_looked_into_is_said_in_a_line(flag: str, run_script: RunScript) -> None:
    folder = 300 * "a"  # as where there is no permission, which root cannot lack
    with pytest.raises(SystemExit, match=f"^{flag} {folder}: File name too long$"):
        run_script(NAME, *TINY, flag, folder)


def test_resume_and_run_dir_are_two_ways(own: Path, run_script: RunScript) -> None:
    said = str(code_of(run_script, "--resume", own, "--run_dir", own))
    assert "give one of them" in said
    assert not own.exists()
