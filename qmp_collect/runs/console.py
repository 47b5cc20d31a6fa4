"""What a run says on the terminal, which may go away before the run does, or never have been there."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from qmp_collect.extras import needs

with needs("train"):
    from tqdm import tqdm


class Console:
    """A progress bar, and lines above it. A terminal that is gone, or a pipe that nobody reads, ends no run.

    Args:
        total: steps of the run, or whatever ``unit`` says.
        initial: of these, those that were made before.
    """

    def __init__(self, total: float, initial: float, unit: str = "step") -> None:
        self._bar: tqdm[None] | None = None
        with _quietly():
            # None: unless it is a terminal; without any standard error there is nothing to ask.
            disable = True if sys.stderr is None else None
            self._bar = tqdm(total=total, initial=initial, unit=unit, disable=disable)

    def advance(self, step: float, shown: Mapping[str, object]) -> None:
        """Put the bar at ``step``, with these values behind it."""
        with _quietly():
            if self._bar is not None:
                self._bar.update(step - self._bar.n)
                self._bar.set_postfix(shown)

    def close(self) -> None:
        """Leave the bar as it is."""
        with _quietly():
            if self._bar is not None:
                self._bar.close()


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
