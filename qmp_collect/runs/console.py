"""What a run says on the terminal, which may go away before the run does, or never have been there."""

from __future__ import annotations

import math
import os
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from qmp_collect.extras import needs

with needs("train"):
    from tqdm import tqdm


class _Bar(tqdm):  # type: ignore[misc]
    """tqdm's, with a time left that it is told: its own takes all steps to cost what those before did."""

    left: float | None = None

    @property
    def format_dict(self) -> dict[str, Any]:
        left = "?" if self.left is None else self.format_interval(self.left)
        return {**super().format_dict, "left": left}


_FORMAT = "{percentage:3.0f}%|{bar}| {n_fmt}/{total_fmt} [{elapsed}<{left}, {rate_fmt}]{postfix}"
_INTERVAL = 0.1  # seconds between two pictures of the bar


class Console:
    """A progress bar, and lines above it. A terminal that is gone, or a pipe that nobody reads, ends no run.

    Args:
        total: steps of the run, or whatever ``unit`` says.
        initial: of these, those that were made before.
        timed: whether `advance` is told the time left. Otherwise it follows from the mean of the steps before.
    """

    def __init__(self, total: float, initial: float, unit: str = "step", timed: bool = False) -> None:
        self._bar: _Bar | None = None
        self._drawn = -math.inf
        with _quietly():
            # None: unless it is a terminal; without any standard error there is nothing to ask.
            disable = True if sys.stderr is None else None
            bar_format = _FORMAT if timed else None
            self._bar = _Bar(
                total=total, initial=initial, unit=unit, disable=disable, dynamic_ncols=True, bar_format=bar_format
            )

    def due(self) -> bool:
        """Whether there is a bar, and it has stood still for long enough to be worth moving. Cheap to ask."""
        return self._bar is not None and not self._bar.disable and time.perf_counter() - self._drawn > _INTERVAL

    def advance(self, step: float, shown: Mapping[str, object], left: float | None = None) -> None:
        """Put the bar at ``step``, with these values behind it, and before them the seconds ``left``."""
        self._drawn = time.perf_counter()
        with _quietly():
            if self._bar is not None:
                self._bar.n, self._bar.left = step, left
                self._bar.set_postfix_str(", ".join(f"{name} {value}" for name, value in shown.items()))

    def close(self) -> None:
        """Leave the bar as it is."""
        with _quietly():
            if self._bar is not None:
                self._bar.close()


def duration(seconds: float) -> str:
    """As the bar shows a time: ``04:51``, ``1:04:51``."""
    return str(tqdm.format_interval(seconds))


def say(text: str) -> None:
    """A line on standard output, if there is one, above the progress bar. What it cannot show is escaped."""
    if sys.stdout is None:  # the program was started without
        return
    encoding = getattr(sys.stdout, "encoding", None) or "utf-8"
    with _quietly():
        tqdm.write(text.encode(encoding, "backslashreplace").decode(encoding))
        sys.stdout.flush()


@contextmanager
def _quietly() -> Iterator[None]:
    """What nobody can read any more is dropped, what is still waiting in buffers too: it would fail again at exit."""
    try:
        yield
    except OSError:
        nowhere = os.open(os.devnull, os.O_WRONLY)
        for stream in (sys.stdout, sys.stderr):
            try:
                stream.flush()
            except OSError:
                os.dup2(nowhere, stream.fileno())
        os.close(nowhere)
