"""What the collector hands on: one record of new transitions, and the protocol of whatever receives it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from qmp_collect.raised_by import RaisedBy

__all__ = ["TransitionSink", "Transitions"]


@dataclass(frozen=True, eq=False)
class Transitions:
    """M transitions of one vector step (or of any other batch), as numpy arrays with one row per transition.

    Attributes:
        obs: ``(M, *O)`` observations the actions were chosen in. Of a Dict or Tuple space, records ``(M,)`` whose
            parts are ``obs["name"]``, ``obs["0"]``, ``(M, *shape)``; all as nested dicts: `qmp_collect.as_dict`.
        actions: ``(M, *A)`` actions as executed in the environment.
        rewards: ``(M,)`` float32 or float64.
        next_obs: ``(M, *O)`` true successors, never the observation of a reset.
        terminations: ``(M,)`` bool; only these cut the bootstrap.
        truncations: ``(M,)`` bool; the time limit, the bootstrap goes on.
        task_ids: ``(M,)`` int64 in ``0..T-1``: the task whose data this is.
        behavior_ids: ``(M,)`` int64 in ``0..K-1``: the policy that acted; -1 for a random action.
        env_ids: ``(M,)`` int64 in ``0..N-1``: the sub-environment.
    """

    obs: NDArray[Any]
    actions: NDArray[Any]
    rewards: NDArray[np.floating[Any]]
    next_obs: NDArray[Any]
    terminations: NDArray[np.bool_]
    truncations: NDArray[np.bool_]
    task_ids: NDArray[np.int64]
    behavior_ids: NDArray[np.int64]
    env_ids: NDArray[np.int64]

    def __len__(self) -> int:
        """Number of transitions M."""
        return len(self.task_ids)

    def __getitem__(self, rows: Any) -> Transitions:
        """The transitions of ``rows``: a mask ``(M,)``, indices or a slice."""
        return Transitions(*(getattr(self, field.name)[rows] for field in fields(self)))


class TransitionSink(Protocol):
    """Anything that stores transitions: a replay buffer, a writer, a test's recorder.

    A sink to which a call is dear, whatever the number of rows, says so by an attribute ``block_size``: within
    `QMPCollector.collect` its rows come in blocks, of about so many, and the rest when ``collect`` returns or fails.
    """

    def add(self, transitions: Transitions, /) -> None:
        """Take M new transitions. The arrays are the sink's to keep: nobody writes to them afterwards."""


def joined(parts: Sequence[Transitions]) -> Transitions:
    """Several batches, one at least, as one, in their order."""
    columns = ([getattr(rows, field.name) for rows in parts] for field in fields(Transitions))
    return Transitions(*map(np.concatenate, columns))


class Sinks:
    """Hands transitions to one sink for all tasks or to a list of one per task: at once, or in blocks.

    Args:
        sinks: blocks are made if all of them ask for some, as large as the smallest wish, over all tasks.
    """

    def __init__(self, sinks: TransitionSink | list[TransitionSink] | None) -> None:
        self._sinks = sinks
        every = sinks if isinstance(sinks, list) else [] if sinks is None else [sinks]
        self._block_size = min((int(getattr(sink, "block_size", 1)) for sink in every), default=1)
        self._holding = False
        self._held: list[Transitions] = []
        self._rows = 0  # held

    def add(self, transitions: Transitions) -> None:
        """Hand on a vector step's transitions, or hold them until there are enough."""
        if not self._holding:
            self._hand_on(transitions)
            return
        self._held.append(transitions)
        self._rows += len(transitions)
        if self._rows >= self._block_size:
            self._hand_on_held()

    def hold(self) -> None:
        """From now on until `release`, blocks are made for sinks that ask for them."""
        self._holding = self._block_size > 1

    def release(self) -> None:
        """Hand on whatever is held."""
        self._holding = False
        if self._held:
            self._hand_on_held()

    def _hand_on_held(self) -> None:
        held, self._held, self._rows = self._held, [], 0
        self._hand_on(joined(held))

    def _hand_on(self, transitions: Transitions) -> None:
        if isinstance(self._sinks, list):
            for task in np.unique(transitions.task_ids):
                with RaisedBy(f"buffer[{task}]"):
                    self._sinks[task].add(transitions[transitions.task_ids == task])
        elif self._sinks is not None and len(transitions):
            with RaisedBy("buffer"):
                self._sinks.add(transitions)
