"""Runs side by side on this machine, and how far they are."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
from fake_runs import FAILS, UNTIL_STOPPED, fake_run, starts, suite, wait_until

from qmp_collect.runs.folder import RunFolder, lock_of
from qmp_collect.runs.suite import __main__ as command_line
from qmp_collect.runs.suite import local
from qmp_collect.runs.suite.local import LocalExecutor, core_sets
from qmp_collect.runs.suite.manifest import Run, dump
from qmp_collect.runs.suite.status import standing, summary, table


def execute(tmp_path: Path, *runs: Run, jobs: int = 1, **options: object) -> int:
    return LocalExecutor(runs, tmp_path, jobs=jobs, **options).execute()  # type: ignore[arg-type]


def test_runs_are_made_in_order_and_once(tmp_path: Path) -> None:
    runs = [fake_run(tmp_path, name, total_timesteps=4) for name in "cab"]
    assert execute(tmp_path, *runs) == 0
    assert starts(tmp_path) == ["c 0", "a 0", "b 0"]
    assert [standing(run).state for run in runs] == ["done"] * 3
    assert execute(tmp_path, *runs, fake_run(tmp_path, "d"), jobs=2) == 0
    assert starts(tmp_path) == ["c 0", "a 0", "b 0", "d 0"]
    longer = replace(runs[0], argv=(*runs[0].argv, "--total-timesteps", "6"))
    assert standing(longer).state == "stopped"
    assert execute(tmp_path, longer) == 0
    assert starts(tmp_path)[-1] == "c 4"
    assert standing(longer).steps == 6


def test_a_run_that_fails_is_recorded_and_the_others_go_on(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    runs = [fake_run(tmp_path, "bad", FAILS), fake_run(tmp_path, "good")]
    assert execute(tmp_path, *runs) == 1
    assert starts(tmp_path) == ["bad 0", "good 0"]
    record = json.loads((tmp_path / "runs" / "bad.failed.json").read_text())
    assert (record["code"], record["log"]) == (1, ["one line", "it went wrong"])
    said = capsys.readouterr().out
    assert "bad: failed at step 0\n    one line\n    it went wrong\n" in said
    assert "1 done, 1 failed" in said
    bad = standing(runs[0])
    assert bad.state == "failed"
    assert "(exit code 1: it went wrong)" in table([bad])
    assert execute(tmp_path, fake_run(tmp_path, "bad")) == 0  # what was wrong is mended
    assert not (tmp_path / "runs" / "bad.failed.json").exists()


def test_a_run_that_cannot_be_started_recorded_or_made_slim_stops_no_other(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "a file").touch()
    nowhere = replace(fake_run(tmp_path, "nowhere"), run_dir=str(tmp_path / "a file" / "nowhere"))
    in_the_way = "Path(folder.parent, 'unrecorded.failed.json').mkdir(); sys.exit('it went wrong')"
    linked = fake_run(tmp_path, "linked", "(folder / 'latest').symlink_to(folder.parent)")
    runs = [nowhere, fake_run(tmp_path, "unrecorded", in_the_way), linked, fake_run(tmp_path, "good")]
    assert execute(tmp_path, *runs, slim=True) == 1
    assert starts(tmp_path) == ["unrecorded 0", "linked 0", "good 0"]
    said = capsys.readouterr().out
    assert "nowhere: failed to start: [Errno " in said
    assert "unrecorded: failed at step 0\n    it went wrong\n" in said
    assert "linked: its checkpoint and replay are kept: " in said
    assert [standing(run).state for run in runs] == ["waiting", "stale", "done", "done"]
    assert (linked.dir / "checkpoint.npz").exists()
    assert not (runs[-1].dir / "checkpoint.npz").exists()


def test_what_ends_well_without_being_finished_has_failed(tmp_path: Path) -> None:
    assert execute(tmp_path, fake_run(tmp_path, "a", "sys.exit(0)")) == 1
    assert starts(tmp_path) == ["a 0"]


def test_a_run_that_is_finished_has_not_failed(tmp_path: Path) -> None:
    """As one that another process has finished before ours could begin."""
    ends = 'Path(folder / "done.json").write_text(json.dumps({"total_timesteps": 3})); (folder / "lock.json").unlink()'
    assert execute(tmp_path, fake_run(tmp_path, "a", f"{ends}; sys.exit('too late')", total_timesteps=3)) == 0
    assert execute(tmp_path, fake_run(tmp_path, "b", f"{ends}; sys.exit('too late')", total_timesteps=4)) == 1


def test_a_run_that_is_stopped_from_outside_is_run_again(tmp_path: Path) -> None:
    once = "if not step: step = 1; stop.append(True)"
    assert execute(tmp_path, fake_run(tmp_path, "a", once)) == 0
    assert starts(tmp_path) == ["a 0", "a 1"]


@pytest.mark.parametrize("do", ["stop.append(True)", "signal.signal(15, signal.SIG_DFL); os.kill(os.getpid(), 15)"])
def test_a_run_that_is_stopped_again_and_again_has_failed(do: str, tmp_path: Path) -> None:
    run = fake_run(tmp_path, "a", do)
    assert execute(tmp_path, run) == 1
    assert len(starts(tmp_path)) == 3
    record = json.loads((tmp_path / "runs" / "a.failed.json").read_text())
    assert record["log"] == ["stopped 3 times at step 0, without a step between"]


def test_a_run_that_another_process_works_on_is_left_to_it(tmp_path: Path) -> None:
    runs = [fake_run(tmp_path, "a"), fake_run(tmp_path, "b")]
    runs[0].dir.mkdir(parents=True)
    with RunFolder.reopen(runs[0].dir):
        assert standing(runs[0]).state == "running"
        assert execute(tmp_path, *runs) == 75
        assert starts(tmp_path) == ["b 0"]
        # It takes the run just before ours does.
        process = local.Process(runs[0], tmp_path)
        wait_until(lambda: process.outcome() is not None)
        assert process.outcome() == "elsewhere"
        assert process.last_lines() == ["it is locked"]
        assert not runs[0].beside(".failed.json").exists()
    assert execute(tmp_path, *runs) == 0


def test_a_killed_run_has_failed_and_is_continued_by_the_next_suite(tmp_path: Path) -> None:
    run = fake_run(tmp_path, "a", "checkpoint.write_text('2'); os.kill(os.getpid(), 9)")
    assert execute(tmp_path, run) == 1
    assert json.loads(run.beside(".failed.json").read_text())["code"] == -9
    assert standing(run).state == "failed"
    run.beside(".failed.json").unlink()
    assert standing(run).state == "stale"
    assert "(here, process " in table([standing(run)])
    assert execute(tmp_path, fake_run(tmp_path, "a")) == 0
    assert starts(tmp_path) == ["a 0", "a 2"]


def test_cores_are_shared_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {8, 2, 3, 5, 7})
    assert core_sets(1) == [(2, 3, 5, 7, 8)]
    assert core_sets(2) == [(2, 3), (5, 7, 8)]
    assert core_sets(5) == [(2,), (3,), (5,), (7,), (8,)]
    assert core_sets(7) == [(2,), (3,), (5,), (7,), (8,), (2,), (3,)]
    with pytest.raises(ValueError, match="jobs is 0, expected 1 or more"):
        LocalExecutor([], tmp_path, jobs=0)


def test_what_a_run_is_given(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    say = (
        "names = ('OMP_NUM_THREADS', 'CUDA_VISIBLE_DEVICES', 'PYTHONPATH'); "
        "print(json.dumps([sorted(os.sched_getaffinity(0)), os.nice(0), os.getcwd(), *map(os.environ.get, names)]))"
    )
    monkeypatch.setenv("PYTHONPATH", "before")
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    core, nice = min(os.sched_getaffinity(0)), os.nice(0)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {core})
    runs = [fake_run(tmp_path, "a", say), replace(fake_run(tmp_path, "b", say), device="cuda")]
    assert execute(tmp_path, *runs, nice=3) == 0
    found = [json.loads(run.beside(".log").read_text()) for run in runs]
    path = f"{tmp_path}:{tmp_path / 'envs'}:before"
    assert found[0] == [[core], min(nice + 3, 19), str(tmp_path), "1", "", path]
    assert found[1] == [[core], min(nice + 3, 19), str(tmp_path), "1", None, path]


def test_nothing_starts_that_would_not_reach_its_next_checkpoint(tmp_path: Path) -> None:
    flags = {"total_timesteps": 100, "checkpoint_every": 30}
    long, short = fake_run(tmp_path, "long", hours=1.0, **flags), fake_run(tmp_path, "short", hours=0.01, **flags)
    assert standing(long).hours_to_checkpoint == pytest.approx(0.3)
    assert execute(tmp_path, long, short, budget_minutes=17) == 75
    assert starts(tmp_path) == ["short 0"]
    assert execute(tmp_path, long, short, budget_minutes=0) == 75
    assert starts(tmp_path) == ["short 0"]
    # By its own history, 2 steps a second, it takes 10 seconds to step 60.
    long.dir.mkdir()
    rows = [{"global_step": 30, "time/sps": 9.0}, {"global_step": 40, "time/sps": 2.0}, {"global_step": 40}]
    (long.dir / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows) + '{"global_st')
    assert standing(long).hours_to_checkpoint == pytest.approx(20 / 2 / 3600)
    assert standing(long).hours_left == pytest.approx(60 / 2 / 3600)
    (long.dir / "config.json").write_text(json.dumps({"checkpoint_every": 100, "total_timesteps": 200}))
    assert standing(long).hours_to_checkpoint == pytest.approx(60 / 2 / 3600)  # its command says 100 in all
    unknown = fake_run(tmp_path, "unknown", hours=1.0)
    assert (standing(unknown).hours_to_checkpoint, standing(unknown).hours_left) == (0.05, 1.0)


def test_a_budget_that_is_used_up_stops_the_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run, other = fake_run(tmp_path, "a", f"step = 2\n{UNTIL_STOPPED}"), fake_run(tmp_path, "b")
    clock = [0.0]

    def sleep(seconds: float) -> None:
        clock[0] += 61 if lock_of(run.dir) else 0
        time.sleep(0.01)

    monkeypatch.setattr(local, "time", SimpleNamespace(monotonic=lambda: clock[0], sleep=sleep))
    assert execute(tmp_path, run, other, budget_minutes=1) == 75
    assert starts(tmp_path) == ["a 0"]
    assert (run.dir / "checkpoint.npz").read_text() == "2"
    assert (standing(run).state, standing(other).state) == ("stopped", "waiting")


def test_of_finished_runs_only_the_results_are_kept(tmp_path: Path) -> None:
    run = fake_run(tmp_path, "a", "(folder / 'replay').mkdir(); (folder / 'replay' / 'rows').write_text('much')")
    assert execute(tmp_path, run, slim=True) == 0
    assert sorted(file.name for file in run.dir.iterdir()) == ["done.json", "metrics.jsonl"]
    assert execute(tmp_path, run, slim=True) == 0
    assert starts(tmp_path) == ["a 0"]


def driver(tmp_path: Path, *runs: Run) -> subprocess.Popen[bytes]:
    """Another process that makes these runs, when both have begun."""
    (tmp_path / "m.jsonl").write_text(dump(runs))
    process = subprocess.Popen(suite("run", tmp_path / "m.jsonl", "--jobs", 2), stdout=subprocess.DEVNULL)
    wait_until(lambda: all(lock_of(run.dir) for run in runs))
    return process


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_who_stops_the_suite_stops_its_runs(number: signal.Signals, tmp_path: Path) -> None:
    runs = [fake_run(tmp_path, name, UNTIL_STOPPED) for name in "ab"]
    process = driver(tmp_path, *runs)
    process.send_signal(number)
    assert process.wait() == 75
    assert [standing(run).state for run in runs] == ["stopped", "stopped"]


def test_a_suite_that_is_killed_leaves_no_orphans(tmp_path: Path) -> None:
    runs = [fake_run(tmp_path, name, UNTIL_STOPPED) for name in "ab"]
    process = driver(tmp_path, *runs)
    process.kill()
    process.wait()
    wait_until(lambda: not any(lock_of(run.dir) for run in runs))
    assert [standing(run).state for run in runs] == ["stopped", "stopped"]


def test_the_command_line(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(command_line, "checkout", lambda: tmp_path)
    manifest, total = tmp_path / "m.jsonl", {"total_timesteps": 3}
    runs = [fake_run(tmp_path, "fine", **total), fake_run(tmp_path, "wrong", FAILS, **total)]
    manifest.write_text(dump(runs))
    assert command_line.main(["status", str(manifest)]) == 0
    assert "2 waiting; 0.0 h left" in capsys.readouterr().out
    with pytest.raises(SystemExit, match="none of its runs has begun"):
        command_line.main(["report", str(manifest), "--out", str(tmp_path / "page")])
    assert command_line.main(["run", str(manifest), "--executor", "local", "--device", "cuda"]) == 1
    capsys.readouterr()
    assert command_line.main(["status", str(manifest)]) == 0
    assert capsys.readouterr().out.splitlines() == [
        "fine   done               3 / 3            ",
        "wrong  failed             0 / 3            0.00 h left  (exit code 1: it went wrong)",
        "1 done, 1 failed; 0.0 h left",
    ]
    asked = []

    def write_report(run_dirs: list[Path], out: Path) -> Path:
        asked.append((run_dirs, out))
        return out / "index.html"

    page = SimpleNamespace(write_report=write_report)
    monkeypatch.setattr(command_line, "import_module", lambda name: {"qmp_collect.runs.report.page": page}[name])
    assert command_line.main(["report", str(manifest), "--out", str(tmp_path / "page")]) == 0
    assert asked == [([runs[0].dir, runs[1].dir], tmp_path / "page")]
    assert capsys.readouterr().out == f"{tmp_path / 'page' / 'index.html'}\n"
    manifest.write_text("oops\n")
    with pytest.raises(SystemExit, match="line 1 is no run"):
        command_line.main(["status", str(manifest)])
    with pytest.raises(SystemExit, match="No such file"):
        command_line.main(["status", str(tmp_path / "none.jsonl")])


def test_hundreds_of_finished_runs_start_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nor is any file of theirs read but the one that says so."""
    runs = [fake_run(tmp_path, str(number), total_timesteps=10) for number in range(500)]
    for run in runs:
        run.dir.mkdir(parents=True)
        (run.dir / "done.json").write_text('{"global_step": 10, "total_timesteps": 10}')
    monkeypatch.setattr("qmp_collect.runs.suite.status._last", None)
    monkeypatch.setattr(local, "Process", None)
    assert execute(tmp_path, *runs, jobs=4) == 0
    assert summary([standing(run) for run in runs]) == "500 done; 0.0 h left"
