"""RunLogger: literal rows on disk, nothing lost in a crash, resuming drops what is repeated."""

from __future__ import annotations

import json
import math
import signal
import subprocess
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace

import numpy as np
import pytest

from qmp_collect.runs.logger import RunLogger
from qmp_collect.runs.provenance import provenance


def read(run_dir):
    lines = (run_dir / "metrics.jsonl").read_text().splitlines()
    return [json.loads(line) for line in lines]


def without_time(rows):
    return [{tag: value for tag, value in row.items() if tag != "wall_time"} for row in rows]


def plain(run_dir, config=None, **options):
    return RunLogger(run_dir, config or {}, tensorboard=False, **options)


def test_rows_and_config_on_disk(tmp_path):
    config = {
        "env_id": "Maze10",
        "seed": 1,
        "folder": Path("a/b"),
        "probs": np.eye(2),
        "rate": np.float32(0.5),
    }
    with plain(tmp_path / "run", config) as logger:
        logger.log(10, {"charts/return": 1, "losses/q": np.float32(0.5)})
        logger.log(20, {})
        rows = read(tmp_path / "run")  # on disk before close
    assert without_time(rows) == [
        {"global_step": 10, "charts/return": 1.0, "losses/q": 0.5},
        {"global_step": 20},
    ]
    assert rows[0]["wall_time"] <= rows[1]["wall_time"]
    assert json.loads((tmp_path / "run" / "config.json").read_text()) == {
        "env_id": "Maze10",
        "seed": 1,
        "folder": "a/b",
        "probs": [[1.0, 0.0], [0.0, 1.0]],
        "rate": 0.5,
    }
    assert sorted(entry.name for entry in (tmp_path / "run").iterdir()) == [
        "config.json",
        "metrics.jsonl",
        "provenance.jsonl",
    ]


def test_every_start_adds_its_provenance(tmp_path, monkeypatch):
    for argv in (["train.py", "--env-id", "Maze 10"], ["train.py", "--resume", "x"]):
        monkeypatch.setattr("sys.argv", argv)
        plain(tmp_path, {"env_id": "Maze 10", "resume": None}, resume_rows=0).close()
    first, second = map(json.loads, (tmp_path / "provenance.jsonl").read_text().splitlines())
    assert first["command"] == "python train.py --env-id 'Maze 10'"
    assert second["command"] == "python train.py --resume x"
    assert first["versions"]["numpy"] == np.__version__
    assert first["cores"] >= 1


@pytest.mark.parametrize(
    ("argv", "command"),
    [
        (["/home/me/secret/train.py", "--run-dir-root", "/home/me/x/runs/"], "python train.py --run-dir-root runs"),
        (["train.py", "--run-dir-root=/home/me/runs", "--seed=3"], "python train.py --run-dir-root=runs --seed=3"),
        (["train.py", "--resume", "../me/runs/NAME", "--no-cuda"], "python train.py --resume NAME --no-cuda"),
        (["train.py", "--seed", "-3", "--api-key", "hunter2", "more"], "python train.py --seed -3"),
        (["train.py", "hunter2", "--token=hunter2", "--seed", "3"], "python train.py --seed 3"),
        (["train.py", "--wandb-entity", "me", "--wandb_project_name=mine", "--seed", "3"], "python train.py --seed 3"),
        (["C:\\Users\\me\\train.py", "--run_dir_root", "C:\\Users\\me"], "python train.py --run_dir_root me"),
        (["-c"], "python -c"),
    ],
)
def test_what_was_typed_stays_private(argv, command, monkeypatch):
    monkeypatch.setattr("sys.argv", argv)
    monkeypatch.setenv("WANDB_API_KEY", "hunter2")
    names = ("run_dir_root", "resume", "cuda", "seed", "wandb_entity", "wandb_project_name")
    report = provenance(names)
    assert report["command"] == command
    assert "hunter2" not in json.dumps(report)
    assert str(Path.home()) not in json.dumps(report)


def test_a_start_after_one_whose_line_was_cut_off(tmp_path):
    (tmp_path / "provenance.jsonl").write_text('{"command": "pyth')
    plain(tmp_path).close()
    first, second = (tmp_path / "provenance.jsonl").read_text().splitlines()
    assert first == '{"command": "pyth'
    assert json.loads(second)["cores"] >= 1


@pytest.fixture
def git(tmp_path, monkeypatch):
    """``git(folder, *words)``, and no checkout around the test's own folders."""
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))

    def run(folder, *words):
        identity = ["-c", "user.name=a", "-c", "user.email=a@b"]
        return subprocess.run(
            ["git", "-C", str(folder), *identity, *words], check=True, capture_output=True, text=True
        ).stdout.strip()

    return run


def commit(git, folder, **files):
    """A new checkout with these files in a commit, which is returned."""
    folder.mkdir()
    git(folder, "init", "-q")
    for name, content in files.items():
        (folder / f"{name}.py").write_text(content)
    git(folder, "add", ".")
    git(folder, "commit", "-qm", "one")
    return git(folder, "rev-parse", "HEAD")


def made_from():
    report = provenance()
    return report["commit"], report["modified"]


def test_provenance_names_the_commit_of_the_program_and_none_outside_a_checkout(git, tmp_path, monkeypatch):
    program = tmp_path / "elsewhere.py"
    program.write_text("1")
    monkeypatch.setattr("sys.argv", [str(program)])
    assert made_from() == (None, None)
    here = commit(git, tmp_path / "a", train="1")
    monkeypatch.setattr("sys.argv", [str(tmp_path / "a/train.py")])
    assert made_from() == (here, False)
    (tmp_path / "a/notes.txt").write_text("of no consequence")
    assert made_from() == (here, False)
    (tmp_path / "a/train.py").write_text("2")
    assert made_from() == (here, True)


def test_a_program_that_is_in_no_commit_is_not_that_commit(git, tmp_path, monkeypatch):
    here = commit(git, tmp_path / "a", train="1")
    (tmp_path / "a/new.py").write_text("1")
    monkeypatch.setattr("sys.argv", [str(tmp_path / "a/new.py")])
    assert made_from() == (here, True)
    (tmp_path / "a/.git/info/exclude").write_text("new.py\n")  # as .gitignore does with an environment
    assert made_from() == (None, None)


def test_variables_of_git_name_no_other_checkout(git, tmp_path, monkeypatch):
    here = commit(git, tmp_path / "a", train="1")
    commit(git, tmp_path / "b", other="2")
    monkeypatch.setattr("sys.argv", [str(tmp_path / "a/train.py")])
    monkeypatch.setenv("GIT_DIR", str(tmp_path / "b/.git"))
    assert made_from() == (here, False)


def test_packages_from_another_checkout_than_the_program_are_named(git, tmp_path, monkeypatch):
    here = commit(git, tmp_path / "a", train="1", qmp_collect="1", qmp_envs="1")
    there = commit(git, tmp_path / "b", qmp_collect="2")
    (tmp_path / "installed.py").write_text("3")

    def loaded(**files):
        for name, file in files.items():
            monkeypatch.setitem(sys.modules, name, SimpleNamespace(__file__=str(tmp_path / file)))
        return provenance()

    monkeypatch.setattr("sys.argv", [str(tmp_path / "a/train.py")])
    assert "packages" not in loaded(qmp_collect="a/qmp_collect.py", qmp_envs="a/qmp_envs.py")
    report = loaded(qmp_collect="b/qmp_collect.py", qmp_envs="installed.py")
    assert (report["commit"], report["modified"]) == (here, False)
    assert report["packages"] == {
        "qmp_collect": {"commit": there, "modified": False},
        "qmp_envs": {"commit": None, "modified": None},
    }
    (tmp_path / "b/qmp_collect.py").write_text("3")
    assert provenance()["packages"]["qmp_collect"]["modified"] is True


def test_values_that_are_not_finite_survive(tmp_path):
    with plain(tmp_path) as logger:
        logger.log(1, {"a": math.nan, "b": math.inf, "c": -math.inf})
    (row,) = read(tmp_path)
    assert math.isnan(row["a"])
    assert (row["b"], row["c"]) == (math.inf, -math.inf)


@pytest.mark.parametrize("tag", ["global_step", "wall_time"])
def test_tags_of_the_logger_itself_are_refused(tag, tmp_path):
    with plain(tmp_path) as logger, pytest.raises(ValueError, match=f"tag '{tag}'"):
        logger.log(1, {tag: 3})
    assert read(tmp_path) == []


def test_a_config_that_json_cannot_hold_is_refused(tmp_path):
    with pytest.raises(TypeError, match=r"config: .* got set"):
        plain(tmp_path, {"bad": {1}})


def test_matrices_are_lists_of_rows(tmp_path):
    with plain(tmp_path) as logger:
        logger.log(1, {"a": 1}, {"m": np.array([[1 / 3, 2 / 3], [0.0, 1.0]])})
        with pytest.raises(ValueError, match="tag 'wall_time'"):
            logger.log(1, {}, {"wall_time": np.eye(2)})
    assert without_time(read(tmp_path)) == [{"global_step": 1, "a": 1.0, "m": [[0.3333, 0.6667], [0.0, 1.0]]}]


def test_an_earlier_run_is_not_written_over(tmp_path):
    plain(tmp_path).close()
    with pytest.raises(FileExistsError, match="pass resume_rows"):
        plain(tmp_path)


def test_resuming_drops_later_rows_and_goes_on(tmp_path):
    with plain(tmp_path, {"steps": 40}) as logger:
        for step in (10, 20, 20, 30):
            logger.log(step, {"value": step})
    with plain(tmp_path, {"steps": 60}, resume_rows=3) as logger:
        assert without_time(read(tmp_path)) == [{"global_step": s, "value": s} for s in (10, 20, 20)]
        logger.log(30, {"value": 31})
    assert without_time(read(tmp_path)) == [
        {"global_step": 10, "value": 10.0},
        {"global_step": 20, "value": 20.0},
        {"global_step": 20, "value": 20.0},
        {"global_step": 30, "value": 31.0},
    ]
    assert json.loads((tmp_path / "config.json").read_text()) == {"steps": 60}


def test_resuming_drops_a_row_that_was_cut_off(tmp_path):
    with plain(tmp_path) as logger:
        logger.log(1, {"value": 1})
    with open(tmp_path / "metrics.jsonl", "a") as file:
        file.write('{"global_step": 2, "val')
    with plain(tmp_path, resume_rows=1) as logger:
        logger.log(6, {"value": 6})
    assert without_time(read(tmp_path)) == [
        {"global_step": 1, "value": 1.0},
        {"global_step": 6, "value": 6.0},
    ]


def test_a_lost_history_is_said(tmp_path):
    with plain(tmp_path) as logger:
        logger.log(1, {"value": 1})
        assert logger.rows == 1
    metrics = tmp_path / "metrics.jsonl"
    with pytest.raises(ValueError, match="holds 1 rows, but the checkpoint was saved after 2"):
        plain(tmp_path, resume_rows=2)
    assert len(read(tmp_path)) == 1
    metrics.write_text("oops\n")
    with pytest.raises(ValueError, match="row 1 is no row of metrics"):
        plain(tmp_path, resume_rows=1)
    metrics.unlink()
    with pytest.raises(ValueError, match="holds 0 rows"):
        plain(tmp_path, resume_rows=1)


def test_resuming_in_an_empty_folder_starts_a_file(tmp_path):
    with plain(tmp_path, resume_rows=0) as logger:
        logger.log(1, {})
    assert without_time(read(tmp_path)) == [{"global_step": 1}]


def test_a_killed_process_loses_nothing(tmp_path):
    program = (
        "import os, signal, sys\n"
        "from qmp_collect.runs.logger import RunLogger\n"
        "logger = RunLogger(sys.argv[1], {}, tensorboard=False)\n"
        "for step in range(5): logger.log(step, {'value': step})\n"
        "os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    child = subprocess.run([sys.executable, "-c", program, tmp_path], check=False)
    assert child.returncode == -signal.SIGKILL
    assert [row["value"] for row in read(tmp_path)] == [0, 1, 2, 3, 4]


def test_tensorboard_has_the_scalars_the_image_and_forgets_what_resuming_drops(tmp_path):
    accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    with RunLogger(tmp_path, {"seed": 1}) as logger:
        for step in (10, 20, 30):
            logger.log(step, {"charts/value": step})
        logger.log_image(10, "maze", np.zeros((4, 6, 3), np.uint8))
    with RunLogger(tmp_path, {"seed": 1}, resume_rows=2) as logger:
        logger.log(40, {"charts/value": 41})
    events = accumulator.EventAccumulator(str(tmp_path)).Reload()
    seen = [(event.step, event.value) for event in events.Scalars("charts/value")]
    assert seen == [(10, 10.0), (20, 20.0), (40, 41.0)]
    (image,) = events.Images("maze")
    assert (image.step, image.height, image.width) == (10, 4, 6)
    assert "config/text_summary" in events.Tags()["tensors"]


def test_tensorboard_forgets_the_same_whatever_the_clock_says(tmp_path, monkeypatch):
    accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    clock = iter([2_000_000_000.0, 1_000_000_000.0, 1_000_000_000.0, 1_500_000_000.0])
    for start in range(4):  # forwards, an hour that comes twice, backwards: each start drops the last row
        now = next(clock)
        monkeypatch.setattr("time.time", lambda now=now: now)
        with RunLogger(tmp_path, {}, resume_rows=start) as logger:
            for step in (start, start + 1):
                logger.log(step, {"charts/value": 10 * start + step})
    events = accumulator.EventAccumulator(str(tmp_path)).Reload()
    seen = [(event.step, event.value) for event in events.Scalars("charts/value")]
    assert seen == [(row["global_step"], row["charts/value"]) for row in read(tmp_path)]
    assert seen == [(0, 0.0), (1, 11.0), (2, 22.0), (3, 33.0), (4, 34.0)]


@pytest.mark.parametrize("image", [np.zeros((4, 6), np.uint8), np.zeros((4, 6, 3))])
def test_images_of_another_kind_are_refused(image, tmp_path):
    with (
        plain(tmp_path) as logger,
        pytest.raises(ValueError, match=r"maze: expected a \(height, width, channels\)"),
    ):
        logger.log_image(1, "maze", image)


class RecordingWandb(ModuleType):
    """Stands for the wandb module: notes what it is asked for."""

    def __init__(self):
        super().__init__("wandb")
        self.calls = []

    def init(self, **options):
        self.calls.append(("init", options))
        return self

    def define_metric(self, name, step_metric):
        self.calls.append(("define_metric", name, step_metric))

    def log(self, values):
        self.calls.append(("log", values))

    def Image(self, array):  # noqa: N802 (their name)
        return ("image", array.shape)

    def Video(self, path):  # noqa: N802 (their name)
        return ("video", Path(path).read_bytes())

    def finish(self, exit_code=None):
        self.calls.append(("finish",) if exit_code is None else ("finish", exit_code))


def test_films_reach_tensorboard_and_wandb_as_they_are(tmp_path, monkeypatch):
    image = pytest.importorskip("PIL.Image")
    accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    wandb = RecordingWandb()
    monkeypatch.setitem(sys.modules, "wandb", wandb)
    frames = [image.new("RGB", (7, 300), color) for color in ("red", "blue")]
    frames[0].save(tmp_path / "film.gif", save_all=True, append_images=frames[1:])
    film = (tmp_path / "film.gif").read_bytes()
    with RunLogger(tmp_path / "run", {}, track=True) as logger:
        logger.log_video(20, "videos/maze", tmp_path / "film.gif")
        (tmp_path / "film.gif").write_bytes(b"GIT")
        with pytest.raises(
            ValueError, match=r"videos/maze: expected a GIF file, got .*film\.gif, which begins with b'GIT'"
        ):
            logger.log_video(30, "videos/maze", tmp_path / "film.gif")
    (shown,) = accumulator.EventAccumulator(str(tmp_path / "run")).Reload().Images("videos/maze")
    assert (shown.step, shown.width, shown.height, shown.encoded_image_string) == (20, 7, 300, film)
    assert wandb.calls[2:] == [("log", {"global_step": 20, "videos/maze": ("video", film)}), ("finish",)]


def test_tracking_sends_the_same_scalars_and_keeps_the_local_files(tmp_path, monkeypatch):
    wandb = RecordingWandb()
    monkeypatch.setitem(sys.modules, "wandb", wandb)
    options = {"track": True, "wandb_project": "qmp", "wandb_entity": "me", "run_name": "Maze10/sac:1"}
    with plain(tmp_path, {"seed": 1}, **options) as logger:
        logger.log(5, {"value": 2})
        logger.log_image(5, "maze", np.zeros((4, 6, 3), np.uint8))
    (name, started), *rest = wandb.calls
    assert name == "init"
    assert started == {
        "project": "qmp",
        "entity": "me",
        "name": "Maze10/sac:1",
        "config": {"seed": 1},
        "dir": str(tmp_path),
        "id": json.loads((tmp_path / "tracker.json").read_text())["id"],
        "resume": "allow",
    }
    assert rest == [
        ("define_metric", "*", "global_step"),
        ("log", {"global_step": 5, "value": 2.0}),
        ("log", {"global_step": 5, "maze": ("image", (4, 6, 3))}),
        ("finish",),
    ]
    assert without_time(read(tmp_path)) == [{"global_step": 5, "value": 2.0}]


def test_a_tracker_is_told_of_a_run_that_failed(tmp_path, monkeypatch):
    wandb = RecordingWandb()
    monkeypatch.setitem(sys.modules, "wandb", wandb)
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "my_tracker.py").write_text(PLAIN_TRACKER)  # knows of no exit codes
    for tracker in (True, "my_tracker"):
        with pytest.raises(ZeroDivisionError), plain(tmp_path / f"run{tracker}", track=tracker):
            raise ZeroDivisionError
    assert wandb.calls[-1] == ("finish", 1)
    assert sys.modules.pop("my_tracker").calls[-1] == ["finish"]


def test_the_id_that_others_know_a_run_by_is_its_own_and_stays(tmp_path, monkeypatch):
    wandb = RecordingWandb()
    monkeypatch.setitem(sys.modules, "wandb", wandb)
    for run_dir, rows in (("a/run", None), ("b/run", None), ("a/run", 0)):  # one name, two runs
        plain(tmp_path / run_dir, track=True, resume_rows=rows).close()
    a, b, again = (call[1]["id"] for call in wandb.calls if call[0] == "init")
    assert a == again != b
    for damaged in ("", "[]", '{"id": 3}', '{"id": "../../x"}'):
        (tmp_path / "a" / "run" / "tracker.json").write_text(damaged)
        with pytest.raises(ValueError, match=r"tracker\.json does not hold the id"):
            plain(tmp_path / "a" / "run", track=True, resume_rows=0)


def test_wandb_is_not_imported_without_track(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "wandb", None)  # importing it would raise ImportError
    with plain(tmp_path / "a") as logger:
        logger.log(1, {"value": 1})
    with pytest.raises(ImportError):
        plain(tmp_path / "b", track=True)


def test_wandb_works_offline(tmp_path, monkeypatch):
    pytest.importorskip("wandb")
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_SILENT", "true")
    with plain(tmp_path, {"seed": 1}, track=True, wandb_project="qmp") as logger:
        logger.log(5, {"value": 2})
        logger.log_image(5, "maze", np.zeros((4, 6, 3), np.uint8))
    with plain(tmp_path, {"seed": 1}, track=True, wandb_project="qmp", resume_rows=0) as logger:
        logger.log(5, {"value": 3})
    assert list((tmp_path / "wandb").glob("offline-run-*/*.wandb"))
    assert without_time(read(tmp_path)) == [{"global_step": 5, "value": 3.0}]


PLAIN_TRACKER = """
calls = []
def init(project, name, config, resume="never"): calls.append(["init", project, name, config, resume])
def log(values, step): calls.append(["log", values, step])
def finish(): calls.append(["finish"])
"""


def test_any_module_that_is_used_like_wandb_will_do(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "my_tracker.py").write_text(PLAIN_TRACKER)
    with plain(tmp_path / "run", {"seed": 1}, track="my_tracker", wandb_project="qmp") as logger:
        logger.log(5, {"value": 2})
        logger.log_image(5, "maze", np.zeros((4, 6, 3), np.uint8))  # it has no pictures
    assert sys.modules.pop("my_tracker").calls == [
        ["init", "qmp", "run", {"seed": 1}, "allow"],  # no id and no folder, of which it knows nothing
        ["log", {"value": 2.0}, 5],
        ["finish"],
    ]


def test_a_tracker_that_could_not_be_told_anything_is_refused(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "half_tracker.py").write_text("def init(**options): ...\nlog = 3\n")
    with pytest.raises(ModuleNotFoundError, match="nowhere: there is no such module, neither installed nor in"):
        plain(tmp_path / "a", track="nowhere")
    with pytest.raises(TypeError, match=r"half_tracker: expected a module with .* without log and finish$"):
        plain(tmp_path / "b", track="half_tracker")


def test_without_tensorboard_the_local_files_are_all_there_is(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "tensorboard", None)
    monkeypatch.delitem(sys.modules, "torch.utils.tensorboard", raising=False)
    with RunLogger(tmp_path / "run", {}) as logger:
        assert not logger.tensorboard
        logger.log(5, {"value": 2})
        logger.log_image(5, "maze", np.zeros((4, 6, 3), np.uint8))
    assert without_time(read(tmp_path / "run")) == [{"global_step": 5, "value": 2.0}]
    assert not list((tmp_path / "run").glob("events*"))
    with pytest.raises(ModuleNotFoundError, match=r"pip install 'qmp-collect\[train,tensorboard\]' brings it"):
        RunLogger(tmp_path / "other", {}, tensorboard=True)


def test_closing_twice_is_fine(tmp_path):
    logger = plain(tmp_path)
    logger.close()
    logger.close()
