"""A run's folder: made for one run alone, worked on by one process at a time, marked when the run is finished.

Several seeds that one process trains have a folder each, with all that a run of its own has, in one that is theirs
together: it has ``seeds.json``, which says which they are, the lock, and what belongs to all of them.
"""

from __future__ import annotations

import errno
import fcntl
import json
import os
import shutil
import socket
import time
from collections.abc import Iterator, Sequence
from fnmatch import fnmatch
from pathlib import Path
from types import TracebackType
from typing import Any

from qmp_collect.runs.checkpoint import atomic_file

__all__ = ["RunFolder", "checked_name", "finished", "folders_of_seeds", "json_object", "lock_of"]

NEXT = "checkpoint.next.npz"  # of a seed, while those of the others are not written yet
_SEEDS = "seeds.json"

_LONGEST = 200  # bytes; file systems take 255, of which temporary files and numbered names need a few

# What a run writes, and nothing else is ever removed.
_WRITTEN = (
    *("config.json", "provenance.jsonl", "metrics.jsonl", "events.out.tfevents.*", "replay", "diverged.npz"),
    *("policy.safetensors", "videos", "trajectories.npz", "wandb", "tracker.json", "lock.json", ".*.tmp"),
    *(_SEEDS, NEXT),
)

_LOOKS = 20  # tries, a hundredth of a second apart: whoever looks at a lock (`lock_of`) has it for an instant

_NO_LOCKS = (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP)  # what file systems without locks answer

# Locks of this process. A forked child has them too and would hold them after its parent was killed.
_held: set[int] = set()


def _let_go_in_child() -> None:
    for lock in _held:
        os.close(lock)
    _held.clear()


os.register_at_fork(after_in_child=_let_go_in_child)


def checked_name(name: str) -> str:
    """``name``, if a file or folder of that name stays where it is put.

    Raises:
        ValueError: It is empty, begins with a dot, has a path separator or a character that cannot be printed, or is
            too long.
    """
    if not name or name.startswith(".") or {"/", "\\"} & set(name) or not name.isprintable():
        raise ValueError(
            f"{name!r} cannot be the name of a file: expected printable characters without / and \\, not a dot first"
        )
    if len(os.fsencode(name)) > _LONGEST:
        raise ValueError(f"{name[:40]!r}... cannot be the name of a file: {len(name)} characters, at most {_LONGEST}")
    return name


def finished(path: Path) -> dict[str, Any] | None:
    """What ``done.json`` in a run's folder says: ``None`` for a run that is not finished."""
    return json_object(path / "done.json")


def folders_of_seeds(path: Path) -> list[Path]:
    """Of seeds that one process trains, the folder of each; of a run of its own, the one that it is."""
    return _folders_of_seeds(path) or [path]


def _folders_of_seeds(path: Path) -> list[Path]:
    seeds = (json_object(path / _SEEDS) or {}).get("seeds")
    if not isinstance(seeds, list) or not all(type(seed) is int for seed in seeds):
        return []
    return [path / f"seed{seed}" for seed in seeds]


def json_object(path: Path) -> dict[str, Any] | None:
    """What a file holds, ``None`` if there is none or it is no JSON object."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return content if isinstance(content, dict) else None


def lock_of(path: Path) -> tuple[dict[str, Any], bool] | None:
    """What the lock of a run's folder says of its holder, and whether it is held: left behind, if not.

    Returns:
        ``None`` if there is no lock, or if somebody is just taking it. A lock of which the file system cannot say
        whether it is held counts as held.
    """
    try:
        lock = os.open(path / "lock.json", os.O_RDONLY | os.O_NOFOLLOW)
    except OSError:
        return None
    try:
        if not (content := os.read(lock, 4096)):
            return None
        try:
            fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except OSError:
            return _holder(content), True
        # Its holder may have released it since it was read.
        return (_holder(content), False) if os.fstat(lock).st_nlink else None
    finally:
        os.close(lock)


class RunFolder:
    """The folder of a run, locked for this process until `release` or its end, however it ends.

    The lock is the operating system's, on ``lock.json``, which says who holds it: host, pid, start time. A file that
    nobody holds any more was left by a process that was killed. Needs a POSIX system.

    Attributes:
        path: the folder.
        broken: the former holder, if the lock was left behind.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.broken: dict[str, Any] | None = None
        self._lock: int | None = None
        self._take_lock()

    @staticmethod
    def create(root: str | os.PathLike[str], name: str) -> RunFolder:
        """A new folder ``root/name``, or ``root/name__2`` and so on: never one that is there already.

        Raises:
            ValueError: ``name`` would leave ``root``, see `checked_name`; ``root`` cannot be written as UTF-8.
            OSError: It cannot be made.
        """
        checked_name(name)
        _check_encoding(Path(root))
        os.makedirs(root, exist_ok=True)
        path, number = Path(root, name), 1
        while True:
            try:
                path.mkdir()
            except FileExistsError:
                number += 1
                path = Path(root, f"{name}__{number}")
            else:
                return RunFolder(path)

    @staticmethod
    def claim(path: str | os.PathLike[str]) -> RunFolder:
        """This very folder for a run that starts, made if need be.

        What is left there of a start that never reached a checkpoint is removed.

        Raises:
            ValueError: A process works on it, it has a checkpoint, is finished, has links to elsewhere, or has anything
                that no run writes; nothing is removed then.
            OSError: It cannot be made.
        """
        path = Path(path)
        _check_encoding(path)
        path.mkdir(parents=True, exist_ok=True)
        _check_unstarted(path)
        folder = RunFolder.reopen(path)
        try:
            _check_unstarted(path)  # nobody else changes it from here on
            for entry in sorted(
                path.iterdir(), key=Path.is_file
            ):  # what says which folders are a run's goes after them
                if entry.is_dir():
                    shutil.rmtree(entry)
                elif entry.name != "lock.json":
                    entry.unlink()
        except BaseException:
            folder.release()
            raise
        return folder

    @staticmethod
    def reopen(path: str | os.PathLike[str]) -> RunFolder:
        """The folder of an earlier run. What a killed process was writing when it died is removed.

        Raises:
            ValueError: A process works on the run, the folder has links to elsewhere, or a path that is not UTF-8.
        """
        path = Path(path)
        _check_encoding(path)
        if links := [entry for entry in _own_files(path) if entry.is_symlink()]:
            raise ValueError(f"{path} has links to elsewhere, which a run would write through: {links[0]}")
        folder = RunFolder(path)
        for left in path.glob(".*.tmp"):
            left.unlink(missing_ok=True)
        return folder

    def claim_seeds(self, seeds: Sequence[int]) -> list[RunFolder]:
        """A folder in this one for each of these seeds, for runs that start.

        Raises:
            ValueError, OSError: As of `claim`.
        """
        with atomic_file(self.path / _SEEDS) as file:
            file.write((json.dumps({"seeds": list(seeds)}) + "\n").encode())
        return [RunFolder.claim(path) for path in _folders_of_seeds(self.path)]

    def reopen_seeds(self) -> list[RunFolder]:
        """The folders of the seeds in this one.

        Raises:
            ValueError, OSError: As of `reopen`.
        """
        return [RunFolder.reopen(path) for path in _folders_of_seeds(self.path)]

    def reopened_for_more(self) -> None:
        """The run is no longer finished."""
        (self.path / "done.json").unlink(missing_ok=True)

    def slim(self) -> None:
        """Remove what only a run that goes on needs: the checkpoint and the replay, most of what lies in the folder."""
        for path in (*_folders_of_seeds(self.path), self.path):
            (path / "checkpoint.npz").unlink(missing_ok=True)
            shutil.rmtree(path / "replay", ignore_errors=True)

    def finish(self, **facts: Any) -> None:
        """Mark the run as finished, when everything else is written, and release it."""
        with atomic_file(self.path / "done.json") as file:
            file.write((json.dumps(facts) + "\n").encode())
        self.release()

    def release(self) -> None:
        """Let other processes work on the run. Releasing twice is fine."""
        if self._lock is None:
            return
        (self.path / "lock.json").unlink(missing_ok=True)
        _held.discard(self._lock)
        os.close(self._lock)
        self._lock = None

    def __enter__(self) -> RunFolder:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.release()

    def _take_lock(self) -> None:
        file = self.path / "lock.json"
        lock = _locked(file)
        if lock is None:
            holder = _holder(file.read_bytes()) if file.exists() else {}
            raise ValueError(
                f"{self.path}: process {holder.get('pid')} on {holder.get('host')} has worked on this run since "
                f"{holder.get('start')}: stop it first (or remove {file}, if it no longer exists)"
            )
        if left := os.read(lock, 4096):
            self.broken = _holder(left)
        start = time.strftime("%Y-%m-%dT%H:%M:%S%z")
        os.ftruncate(lock, 0)
        os.pwrite(
            lock, (json.dumps({"host": socket.gethostname(), "pid": os.getpid(), "start": start}) + "\n").encode(), 0
        )
        self._lock = lock
        _held.add(lock)


def _check_encoding(path: Path) -> None:
    """``ValueError`` for bytes that no JSON file, terminal or TensorBoard can be told."""
    try:
        os.fspath(path.absolute()).encode()
    except UnicodeEncodeError:
        raise ValueError(
            f"{os.fspath(path)!a} is no UTF-8, which TensorBoard's files need: choose another path"
        ) from None


def _locked(file: Path) -> int | None:
    """A descriptor that holds the lock on the file of this name; ``None`` if another process has it, or may have it."""
    looks = 0
    while True:
        lock = os.open(file, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o644)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if os.path.samestat(os.fstat(lock), file.stat()):
                return lock
        except FileNotFoundError:
            pass  # the former holder removed it between open and flock
        except BlockingIOError:
            os.close(lock)
            if (looks := looks + 1) == _LOOKS:
                return None
            time.sleep(0.01)
            continue
        except OSError as error:
            if error.errno in _NO_LOCKS and not os.fstat(lock).st_size:
                return lock  # nobody seems to be there, and nothing better can be had
            os.close(lock)
            if error.errno in _NO_LOCKS:
                return None
            raise
        os.close(lock)


def _check_unstarted(path: Path) -> None:
    """Raise a ValueError if a run's folder has anything that one without a checkpoint does not have."""
    seeds = [folder for folder in _folders_of_seeds(path) if folder.is_dir() and not folder.is_symlink()]
    for folder in seeds:
        _check_unstarted(folder)
    names = (*_WRITTEN, *(folder.name for folder in seeds))
    others = sorted(entry.name for entry in path.iterdir() if not any(fnmatch(entry.name, name) for name in names))
    if {"checkpoint.npz", "done.json"} & set(others):
        raise ValueError(f"{path}: another process has worked on this run meanwhile: run the same command again")
    if others:
        raise ValueError(f"{path} has what no run writes: {', '.join(others)[:200]}. A run needs a folder of its own")


def _own_files(path: Path) -> Iterator[Path]:
    """What a run may write, folders before what is in them; Weights & Biases keeps links of its own."""
    for entry in sorted(path.iterdir()):
        yield entry
        if entry.name != "wandb" and entry.is_dir() and not entry.is_symlink():
            yield from _own_files(entry)


def _holder(content: bytes) -> dict[str, Any]:
    """What a lock says, of which nothing is certain."""
    try:
        holder = json.loads(content)
    except ValueError:
        return {}
    return holder if isinstance(holder, dict) else {}
