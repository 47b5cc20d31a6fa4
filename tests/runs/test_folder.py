"""A run's folder: made once, worked on by one process, named so that it stays where it is put."""

from __future__ import annotations

import fcntl
import json
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from qmp_collect.runs.folder import RunFolder, checked_name, finished, lock_of

HOLDS = """
import sys
from qmp_collect.runs.folder import RunFolder
folder = RunFolder.reopen(sys.argv[1])
print("has it", flush=True)
"""


def holder(path: Path, then: str = "sys.stdin.read()") -> subprocess.Popen[str]:
    """Another process that has reopened the folder, and then does so."""
    process = subprocess.Popen(
        [sys.executable, "-c", f"{HOLDS}\n{then}", str(path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "has it\n"
    return process


def test_folders_are_made_never_guessed(tmp_path: Path) -> None:
    made = [RunFolder.create(tmp_path / "runs", "a__1") for _ in range(3)]
    assert [folder.path.name for folder in made] == ["a__1", "a__1__2", "a__1__3"]
    assert json.loads((made[0].path / "lock.json").read_text()).keys() == {"host", "pid", "start"}


@pytest.mark.parametrize(
    "name", ["", ".", "..", "../x", "a/b", "a\\b", "a\nb", "a\0b", "\x1b[2Ja", ".hidden", "x" * 300, "é" * 101]
)
def test_names_that_leave_the_folder(name: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="cannot be the name of a file"):
        RunFolder.create(tmp_path / "runs", name)
    assert not (tmp_path / "runs").exists()


def test_paths_that_nothing_can_be_told_of(tmp_path: Path) -> None:
    root = tmp_path / "\udcff"  # a byte that is no UTF-8
    with pytest.raises(ValueError, match=r"\\udcff' is no UTF-8, which TensorBoard's files need"):
        RunFolder.create(root, "run")
    assert not root.exists()
    root.mkdir()
    with pytest.raises(ValueError, match="is no UTF-8"):
        RunFolder.reopen(root)
    assert not list(root.iterdir())


def test_names_that_stay() -> None:
    assert [checked_name(name) for name in ("Maze10-v0__sac__1", "pick and place", "é" * 100)]


def test_a_folder_that_a_process_works_on_is_refused(tmp_path: Path) -> None:
    first = RunFolder.create(tmp_path, "run")
    lock = json.loads((first.path / "lock.json").read_text())
    assert (lock["host"], lock["pid"]) == (socket.gethostname(), os.getpid())
    with pytest.raises(
        ValueError, match=f"process {os.getpid()} on {socket.gethostname()} has worked on this run since"
    ):
        RunFolder.reopen(first.path)
    assert json.loads((first.path / "lock.json").read_text()) == lock
    first.release()
    first.release()
    assert not (first.path / "lock.json").exists()
    with holder(first.path) as other:
        with pytest.raises(ValueError, match=f"process {other.pid} on"):
            RunFolder.reopen(first.path)
        other.kill()
    again = RunFolder.reopen(first.path)
    assert again.broken is not None
    assert again.broken["pid"] == other.pid
    again.release()
    assert RunFolder.reopen(first.path).broken is None


def test_children_do_not_hold_the_lock_of_a_parent_that_was_killed(tmp_path: Path) -> None:
    RunFolder.create(tmp_path, "run").release()
    # The parent speaks when its child does: before the child has run at all, it still holds what it inherited.
    fork = (
        "import os, time; there, here = os.pipe(); pid = os.fork(); pid or (os.write(here, b'.'), time.sleep(1000)); "
        "os.read(there, 1); print(pid, flush=True); sys.stdin.read()"
    )
    with holder(tmp_path / "run", fork) as parent:
        assert parent.stdout is not None
        child = int(parent.stdout.readline())
        try:
            with pytest.raises(ValueError, match="has worked on this run"):
                RunFolder.reopen(tmp_path / "run")
            parent.kill()
            parent.wait()
            RunFolder.reopen(tmp_path / "run").release()
        finally:
            os.kill(child, signal.SIGKILL)


def test_the_end_of_a_child_does_not_release_the_lock_of_its_parent(tmp_path: Path) -> None:
    RunFolder.create(tmp_path, "run").release()
    fork = (
        "import os; pid = os.fork(); pid or os._exit(0); os.waitpid(pid, 0); print(pid, flush=True); sys.stdin.read()"
    )
    with holder(tmp_path / "run", fork) as parent:
        assert parent.stdout is not None
        parent.stdout.readline()
        with pytest.raises(ValueError, match="has worked on this run"):
            RunFolder.reopen(tmp_path / "run")
        parent.kill()


@pytest.mark.parametrize("content", [b"", b"oops", b"[1]", b"\xff\xfe"])
def test_a_lock_that_says_nothing(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "lock.json").write_bytes(content)
    assert RunFolder.reopen(tmp_path).broken in (None, {})


def test_file_systems_without_locks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def flock(lock: int, how: int) -> None:
        raise OSError(95, "Operation not supported")

    monkeypatch.setattr("fcntl.flock", flock)
    first = RunFolder.create(tmp_path, "run")
    with pytest.raises(ValueError, match=rf"stop it first \(or remove {first.path / 'lock.json'}"):
        RunFolder.reopen(first.path)
    first.release()
    RunFolder.reopen(first.path)


@pytest.mark.parametrize("name", ["lock.json", "provenance.jsonl", "videos", "replay/rows-000001.f4"])
def test_links_to_elsewhere(name: str, tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.write_text("precious")
    run = tmp_path / "run"
    (run / name).parent.mkdir(parents=True)
    (run / "wandb").mkdir()
    (run / "wandb" / "latest-run").symlink_to("run-1")  # its own, and not for us to judge
    RunFolder.reopen(run).release()
    (run / name).symlink_to(outside)
    with pytest.raises(ValueError, match=f"has links to elsewhere, which a run would write through: .*{name}"):
        RunFolder.reopen(run)
    assert outside.read_text() == "precious"


def test_what_a_killed_process_left(tmp_path: Path) -> None:
    (tmp_path / ".checkpoint.npz.0badcafe-1-00000000.tmp").write_bytes(b"half")
    (tmp_path / "notes.tmp").write_bytes(b"mine")
    with RunFolder.reopen(tmp_path):
        assert sorted(file.name for file in tmp_path.iterdir()) == ["lock.json", "notes.tmp"]


def test_finished(tmp_path: Path) -> None:
    folder = RunFolder.create(tmp_path, "run")
    assert finished(folder.path) is None
    folder.finish(global_step=30, total_timesteps=20)
    assert finished(folder.path) == {"global_step": 30, "total_timesteps": 20}
    assert [file.name for file in folder.path.iterdir()] == ["done.json"]
    for damaged in ("", "[1]", "oops"):
        (folder.path / "done.json").write_text(damaged)
        assert finished(folder.path) is None


def test_a_look_at_the_lock(tmp_path: Path) -> None:
    assert lock_of(tmp_path) is None
    folder = RunFolder.reopen(tmp_path)
    assert lock_of(tmp_path) == (json.loads((tmp_path / "lock.json").read_text()), True)
    folder.release()
    assert lock_of(tmp_path) is None
    with holder(tmp_path) as other:
        assert lock_of(tmp_path) == (json.loads((tmp_path / "lock.json").read_text()), True)
        other.kill()
    left = lock_of(tmp_path)
    assert left is not None
    assert (left[0]["pid"], left[1]) == (other.pid, False)
    (tmp_path / "lock.json").write_text("")  # somebody is just taking it
    assert lock_of(tmp_path) is None


def test_who_looks_at_a_lock_keeps_nobody_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    RunFolder.reopen(tmp_path).release()
    (tmp_path / "lock.json").write_text('{"pid": 1}\n')
    look = os.open(tmp_path / "lock.json", os.O_RDONLY)
    fcntl.flock(look, fcntl.LOCK_SH)
    monkeypatch.setattr("time.sleep", lambda _: os.close(look))  # it is over a moment later
    RunFolder.reopen(tmp_path).release()


def test_a_folder_that_gets_a_run_meanwhile(tmp_path: Path) -> None:
    for name in ("checkpoint.npz", "done.json"):
        (tmp_path / name).write_text("")
        with pytest.raises(ValueError, match="another process has worked on this run meanwhile"):
            RunFolder.claim(tmp_path)
        (tmp_path / name).unlink()
    RunFolder.claim(tmp_path).release()
    assert list(tmp_path.iterdir()) == []
