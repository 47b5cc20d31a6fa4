"""What the adapters share, and the sink for libraries that have none."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any
from weakref import WeakKeyDictionary

import numpy as np
from numpy.typing import NDArray

from qmp_collect.transitions import Transitions

__all__ = ["FunctionSink", "OnlyOne"]


class FunctionSink:
    """Stores transitions by a function: ``FunctionSink(lambda t: memory.add_samples(rewards=t.rewards, ...))``.

    Args:
        store: Called with the M new `Transitions` of a vector step, whose arrays are its to keep.
    """

    def __init__(self, store: Callable[[Transitions], object]) -> None:
        if not callable(store):
            raise TypeError(f"expected a function that stores Transitions, got {type(store).__name__}")
        self._store = store

    def add(self, transitions: Transitions) -> None:
        """Hand M transitions to the function."""
        self._store(transitions)


class OnlyOne:
    """Holds a stream of ids to the first that came.

    Args:
        refusal: Said of another id, with ``{got}`` and ``{first}`` in it.
    """

    def __init__(self, refusal: str) -> None:
        self._refusal = refusal
        self._first: int | None = None

    def of(self, buffer: Any) -> OnlyOne:
        """The one of ``buffer``, for however many sinks there are around it: this one, if it has none."""
        return _of_buffer.setdefault(buffer, self)

    def check(self, ids: NDArray[np.int64]) -> None:
        """`ValueError` unless all ``ids`` are the first one ever given."""
        if len(ids) == 0:
            return
        first = int(ids[0]) if self._first is None else self._first
        other = ids[ids != first]
        if len(other):
            raise ValueError(self._refusal.format(got=other[0], first=first))
        self._first = first


_of_buffer: WeakKeyDictionary[Any, OnlyOne] = WeakKeyDictionary()
