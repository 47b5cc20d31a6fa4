"""What the collector hands on: one record of new transitions, and the protocol of whatever receives it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from qmp_collect.amount import integer
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
        """Take M new transitions. The arrays are the sink's to keep: nobody writes to them afterwards.

        Whoever raises has stored none of them and not written to them: the same block comes again, first of all, at the
        next call of the collector.
        """


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
        sizes = [
            integer(f"block_size of sink {index} of buffer", getattr(sink, "block_size", 1))
            for index, sink in enumerate(every)
        ]
        self._block_size = min(sizes, default=1)
        self._holding = False
        self._held: list[Transitions] = []
        self._rows = 0  # held, while holding

    def add(self, transitions: Transitions) -> None:
        """Hand on a vector step's transitions, or hold them until `release`."""
        if self._holding:
            self._held.append(transitions)
            self._rows += len(transitions)
            return
        self._hand_on_held()
        self._hand_on(transitions)

    def hold(self) -> None:
        """From now on until `release`, blocks are made for sinks that ask for them."""
        self._hand_on_held()
        self._holding, self._rows = self._block_size > 1, 0

    def hand_on_block(self) -> None:
        """Hand on what is held if it is enough. Whoever calls this has counted it."""
        if self._holding and self._rows >= self._block_size:
            self._holding = False  # a sink that raises is not asked again at once, by `release`
            self._hand_on_held()
            self._holding, self._rows = True, 0

    def release(self) -> None:
        """Hand on whatever is held."""
        if self._holding:
            self._holding = False
            self._hand_on_held()

    def check_stored(self) -> None:
        """`RuntimeError` if a state of now would count transitions that are stored nowhere."""
        if self._held:
            raise RuntimeError(
                f"{sum(map(len, self._held))} transitions are counted, but not stored: the buffer raised when it was "
                "given them, or their block is not full yet. Save the state after the next collect, which hands them "
                "on first"
            )

    def forget(self) -> None:
        """Drop what is held: it belongs to another past."""
        self._held = []

    def _hand_on_held(self) -> None:
        if not self._held:
            return
        rows = joined(self._held)
        per_task = isinstance(self._sinks, list)
        self._held = [rows[rows.task_ids == task] for task in np.unique(rows.task_ids)] if per_task else [rows]
        while self._held:  # of a sink each
            self._hand_on(self._held[0])
            del self._held[0]

    def _hand_on(self, transitions: Transitions) -> None:
        if isinstance(self._sinks, list):
            for task in np.unique(transitions.task_ids):
                with RaisedBy(f"buffer[{task}]"):
                    self._sinks[task].add(transitions[transitions.task_ids == task])
        elif self._sinks is not None and len(transitions):
            with RaisedBy("buffer"):
                self._sinks.add(transitions)
