"""What the collector hands on: one record of new transitions, and the protocol of whatever receives it."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

__all__ = ["TransitionSink", "Transitions"]


@dataclass(frozen=True, eq=False)
class Transitions:
    """M transitions of one vector step (or of any other batch), as numpy arrays with one row per transition.

    Attributes:
        obs: ``(M, *O)`` observations the actions were chosen in.
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
    """Anything that stores transitions: a replay buffer, a writer, a test's recorder."""

    def add(self, transitions: Transitions, /) -> None:
        """Take M new transitions. The arrays are the sink's to keep: nobody writes to them afterwards."""


def store(sinks: TransitionSink | list[TransitionSink] | None, transitions: Transitions) -> None:
    """Hand a vector step's transitions, if there are any, to one sink for all tasks or to a list of one per task."""
    if isinstance(sinks, list):
        for task in np.unique(transitions.task_ids):
            sinks[task].add(transitions[transitions.task_ids == task])
    elif sinks is not None and len(transitions):
        sinks.add(transitions)
