"""Replay on disk that grows with the run: each checkpoint adds the rows that came since the last one."""

from __future__ import annotations

import io
import os
import re
import zlib
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import IO, Any

import numpy as np
import torch
from numpy.typing import NDArray

from qmp_collect.replay import TaskReplayBuffer
from qmp_collect.runs.checkpoint import atomic_file, load_checkpoint, regular_file
from qmp_collect.runs.forms import check_form

__all__ = ["ReplayFiles", "load_run_state", "read_rows"]

FOLDER = "replay"  # of a run's folder
_NAME = re.compile(r"rows-\d{6,}\.f4|\.rows-\d{6,}\.f4\.[0-9a-f]{8}-\d+-[0-9a-f]+\.tmp")
_CHUNK = 1 << 20


class ReplayFiles:
    """The state of a `TaskReplayBuffer` whose rows lie in files beside the checkpoint, each written once.

    ``state_dict()`` writes the rows that came since the last one into a new file of ``FOLDER`` and returns what a
    checkpoint holds: the rest of the buffer's state, and of each file that it needs a number, a checksum, and which
    transitions of each task it has. The file is on the disk before the checkpoint that names it, and `remove_unused`,
    to be called when that checkpoint is on the disk, removes those that it no longer needs: at any moment all that
    belongs to the last checkpoint is there. A file is a row after the other, little-endian float32, task by task.

    Args:
        folder: of this run alone; made when the first file is written.
        buffer: the one that is kept.
    """

    def __init__(self, folder: Path, buffer: TaskReplayBuffer) -> None:
        self.folder, self.buffer = folder, buffer
        self._files = _no_files(buffer.num_tasks)

    def state_dict(self) -> dict[str, Any]:
        """Write what is new, and return the state for a checkpoint; it stays small whatever the buffer holds.

        Raises:
            OSError: the rows could not be written; the next call writes them.
        """
        added, files = self.buffer.added, self._files
        oldest = np.maximum(added - self.buffer.capacity, 0)
        first = np.maximum(files["end"][-1] if len(files["end"]) else np.zeros_like(added), oldest)
        if (first < added).any():
            number = int(files["number"].max(initial=-1)) + 1
            checksum = self._write(number, first, added)
            new = {"number": [number], "checksum": [checksum], "first": first[None], "end": added[None]}
            files = {name: np.concatenate([files[name], np.asarray(new[name], np.int64)]) for name in files}
        needed = (files["end"] > np.maximum(files["first"], oldest)).any(1)
        self._files = {name: values[needed] for name, values in files.items()}
        return {
            **self.buffer.state_dict(rows=False),
            "row_width": self.buffer.row_width,
            "files": {name: values.copy() for name, values in self._files.items()},
        }

    def check_state(self, state: Mapping[str, Any]) -> None:
        """Whether `load_state_dict` will take ``state``: reads all files once, and changes nothing.

        Raises:
            ValueError: naming the file that is missing or damaged, or what is wrong with the state.
        """
        if not isinstance(state, Mapping) or not {"files", "row_width"} <= state.keys():
            raise ValueError("expected the state of a replay buffer whose rows are in files")
        if "known_from" not in state:
            raise ValueError(
                "the files are of an older version, whose rows do not say who acted: a buffer of its own takes what "
                "load_run_state reads, a run cannot go on with them"
            )
        self.buffer.check_state(_without_files(state))
        if (width := state["row_width"]) != self.buffer.row_width:
            raise ValueError(f"expected rows of {self.buffer.row_width} numbers, got {width}")
        _check_files(self.folder, state)

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue from a `state_dict` that passes `check_state`. No copy of all rows is made."""
        files = state["files"]
        for index, (first, end) in enumerate(zip(files["first"], files["end"], strict=True)):
            with _open(self.folder, state, index) as file:
                # The oldest of a file may have been overwritten since: what came later is written later.
                for target in self.buffer.spans(first, end):
                    target.copy_(torch.from_numpy(_read_rows(file, *target.shape)))
        self.buffer.load_state_dict(_without_files(state))
        self._files = {name: values.copy() for name, values in files.items()}

    def remove_unused(self) -> None:
        """Remove the files that the last `state_dict` did not name, and what killed processes left; no other file."""
        if not self.folder.is_dir() or self.folder.is_symlink():
            return
        used = {_name(number) for number in self._files["number"].tolist()}
        for name in os.listdir(self.folder):
            if _NAME.fullmatch(name) and name not in used:
                with suppress(OSError):
                    (self.folder / name).unlink()

    def _write(self, number: int, first: NDArray[np.int64], end: NDArray[np.int64]) -> int:
        if self.folder.is_symlink():
            raise OSError(f"{self.folder} is a link; expected a folder of the run")
        checksum = 0
        with atomic_file(self.folder / _name(number)) as file:
            for rows in self.buffer.spans(first, end):
                content = rows.cpu().numpy().astype("<f4", copy=False).data.cast("B")
                checksum = zlib.crc32(content, checksum)
                file.write(content)
        return checksum


def read_rows(folder: str | os.PathLike[str], state: Mapping[str, Any]) -> NDArray[np.float32]:
    """All rows that a checkpoint's state of a `ReplayFiles` stands for, as ``TaskReplayBuffer.state_dict()["rows"]``.

    Args:
        folder: where the files are.
        state: what ``load_checkpoint`` gives for the buffer.

    Raises:
        ValueError: a file is missing or damaged.
    """
    _check_files(Path(folder), state)
    capacity, width, files = state["capacity"], state["row_width"], state["files"]
    sizes = np.minimum(state["added"], capacity)
    starts = np.cumsum(sizes) - sizes
    rows = np.empty((int(sizes.sum()), width), np.float32)
    for index, (first, end) in enumerate(zip(files["first"], files["end"], strict=True)):
        with _open(Path(folder), state, index) as file:
            for start, number, last in zip(starts, first, end, strict=True):
                rows[start + np.arange(number, last) % capacity] = _read_rows(file, last - number, width)
    return rows


def load_run_state(run_dir: str | os.PathLike[str]) -> dict[str, Any]:
    """The last checkpoint of a run's folder, with replay as ``TaskReplayBuffer.state_dict()`` gives it, in memory.

    Raises:
        FileNotFoundError: there is no checkpoint.
        ValueError: the checkpoint or a file of the replay is damaged.
    """
    tree: dict[str, Any] = load_checkpoint(Path(run_dir) / "checkpoint.npz")
    for name, state in tree.items():
        if isinstance(state, Mapping) and {"files", "row_width"} <= state.keys():
            rows = torch.from_numpy(read_rows(Path(run_dir) / FOLDER, state))
            tree[name] = {**_without_files(state), "rows": rows}
    return tree


def _no_files(num_tasks: int) -> dict[str, NDArray[np.int64]]:
    """Of each file, in the order of writing: number, checksum, and per task the range of transitions it has."""
    none, ranges = np.zeros(0, np.int64), np.zeros((0, num_tasks), np.int64)
    return {"number": none, "checksum": none, "first": ranges, "end": ranges}


def _name(number: int) -> str:
    return f"rows-{number:06d}.f4"


def _without_files(state: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in state.items() if name not in ("files", "row_width")}


def _check_ranges(state: Mapping[str, Any]) -> None:
    """Together the files have every transition that is still stored."""
    added, capacity, files = state["added"], state["capacity"], state["files"]
    check_form({name: values[:0] for name, values in files.items()}, _no_files(len(added)), "files")
    first, end, count = files["first"], files["end"], len(files["number"])
    if any(len(values) != count for values in files.values()):
        raise ValueError(f"files: expected {count} entries in each array")
    oldest = np.maximum(added - capacity, 0)
    before = np.concatenate([np.zeros_like(end[:1]), end[:-1]])
    sound = (first >= before) & (first <= end) & (end - first <= capacity) & (first <= np.maximum(before, oldest))
    if not sound.all() or ((end[-1] if count else 0) != added).any() or (files["number"] < 0).any():
        raise ValueError("files: their ranges do not cover the transitions that are stored")


def _check_files(folder: Path, state: Mapping[str, Any]) -> None:
    """Every file is there, and every byte of it counts: reads them all."""
    _check_ranges(state)
    files = state["files"]
    for index, (number, expected) in enumerate(zip(files["number"].tolist(), files["checksum"].tolist(), strict=True)):
        checksum = 0
        with _open(folder, state, index) as file:
            while chunk := file.read(_CHUNK):
                checksum = zlib.crc32(chunk, checksum)
        if checksum != expected:
            raise ValueError(f"{folder / _name(number)} is damaged: its checksum is another")


def _open(folder: Path, state: Mapping[str, Any], index: int) -> IO[bytes]:
    files = state["files"]
    path = folder / _name(int(files["number"][index]))
    expected = 4 * state["row_width"] * int((files["end"][index] - files["first"][index]).sum())
    try:
        file = io.BufferedReader(regular_file(path))
    except OSError as error:
        raise ValueError(f"{path} cannot be read, but the checkpoint needs its rows: {error}") from error
    if (size := os.fstat(file.fileno()).st_size) != expected:
        file.close()
        raise ValueError(f"{path} is damaged: expected {expected} bytes, got {size}")
    return file


def _read_rows(file: IO[bytes], count: int, width: int) -> NDArray[np.float32]:
    rows = np.empty((count, width), "<f4")
    if rows.size:
        file.readinto(rows.data.cast("B"))  # type: ignore[attr-defined]
    return rows.astype(np.float32, copy=False)
