"""What a run saves: its parts, in one file, and the replay in files that grow."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import torch
from torch.utils._pytree import tree_flatten_with_path

from qmp_collect.collector import QMPCollector
from qmp_collect.fleet_collector import FleetCollector
from qmp_collect.replay import TaskReplayBuffer
from qmp_collect.runs.checkpoint import check_rng_state, load_checkpoint, rng_state, save_checkpoint, set_rng_state
from qmp_collect.runs.forms import check_state
from qmp_collect.runs.replay_files import FOLDER, ReplayFiles

FILE = "checkpoint.npz"
Collector = QMPCollector | FleetCollector


class Stateful(Protocol):
    """What a checkpoint can hold."""

    def state_dict(self) -> Any: ...

    def load_state_dict(self, state: Any) -> Any: ...


class SavedParts:
    """The parts of a run and the state of all random number generators, and ``checkpoint.npz``, which holds both.

    Args:
        folder: of the run.
        parts: by name; the collector is among them. Of replay buffers, only rows that are new are written.

    Attributes:
        parts: the same, replay buffers with their files.
    """

    def __init__(self, folder: Path, parts: Mapping[str, Stateful]) -> None:
        self._file = folder / FILE
        self.parts: dict[str, Any] = {
            name: ReplayFiles(folder / FOLDER, part) if isinstance(part, TaskReplayBuffer) else part
            for name, part in parts.items()
        }

    def save(self, runs: Sequence[Mapping[str, Any]]) -> None:
        """Write the parts and what there is to say of the run itself.

        Raises:
            FloatingPointError: A part that learns is not finite. It is kept beside the last checkpoint that was.
        """
        (run,) = runs
        tree = {name: part.state_dict() for name, part in self.parts.items()} | {"run": run, "rng": rng_state()}
        learned = [name for name, part in self.parts.items() if not isinstance(part, Collector | ReplayFiles)]
        save_finite(self._file, tree, learned)
        for part in self.parts.values():
            if isinstance(part, ReplayFiles):
                part.remove_unused()

    def read(self) -> list[dict[str, Any]]:
        """What was saved, by name, and ``run``; nothing is changed yet.

        Raises:
            OSError, ValueError: The file cannot be read, is damaged, or of a seed that goes on with others only.
        """
        saved = load_checkpoint(self._file)
        if seeds := saved["run"].get("seeds"):
            raise ValueError(
                f"it is one of the seeds {', '.join(map(str, seeds))}, which one process trained and which go on only "
                f"together: resume the folder that they are in, {self._file.parent.parent}"
            )
        return [saved]

    def restore(self, trees: Sequence[Mapping[str, Any]]) -> None:
        """Put everything back in place, if all of it fits.

        Raises:
            ValueError, TypeError, LookupError, AttributeError, RuntimeError: It is of other parts. A part's form is
                compared before any is changed; the collector compares its own, and comes first.
        """
        (saved,) = trees
        check_rng_state(saved["rng"])
        for name, part in self.parts.items():
            if not isinstance(part, Collector):
                check_state(part, saved[name], name)
        for name, part in self.parts.items():
            part.load_state_dict(saved[name])
        set_rng_state(saved["rng"])


def save_finite(file: Path, tree: Mapping[str, Any], learned: Iterable[str]) -> None:
    """Write a checkpoint, in which what was ``learned`` is finite.

    Raises:
        FloatingPointError: It is not. It is kept beside the last checkpoint.
    """
    if place := _not_finite({name: tree[name] for name in learned}):
        diverged = file.with_name("diverged.npz")
        save_checkpoint(diverged, tree)
        raise FloatingPointError(
            f"{place} is not finite: kept as {diverged.name}, while the checkpoint stays the last one that was finite. "
            "Resumed with the same settings, the run would diverge again"
        )
    save_checkpoint(file, tree)


def _not_finite(tree: Any) -> str | None:
    """Where the first tensor lies that holds a NaN or an infinity."""
    for path, leaf in tree_flatten_with_path(tree)[0]:
        if isinstance(leaf, torch.Tensor) and leaf.is_floating_point() and not leaf.isfinite().all():
            return "".join(str(key) for key in path)
    return None
