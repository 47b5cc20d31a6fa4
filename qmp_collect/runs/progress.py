"""How far a run is, as it shows it: a bar that moves as time does, with the time that is left and the last numbers."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import NamedTuple

from qmp_collect.runs.console import Console
from qmp_collect.runs.pace import Pace


class Place(NamedTuple):
    """Where a run is: env steps made, gradient steps left in the round, and whether an evaluation is due."""

    step: int
    updates_due: int
    evaluating: bool


class Progress:
    """The progress bar of a run, whose rounds are env steps, then gradient steps; and evaluations in between.

    Args:
        total: env steps of the run.
        eval_every: env steps between evaluations.
        place: where the run is, whenever it is asked.

    Attributes:
        shown: what stands behind the bar, by name.
    """

    def __init__(self, total: int, eval_every: int, place: Callable[[], Place]) -> None:
        self.shown: dict[str, object] = {}
        self._place, self._pace = place, Pace(total, eval_every)
        self._first, self._updates, self._collecting = place().step, 0, 0.0  # of the round
        self._console = Console(total, self._first, timed=True)
        self._began = time.perf_counter()

    def close(self) -> None:
        """Leave the bar as it is."""
        self._console.close()

    def move(self) -> None:
        """Draw the bar if it has stood still for long enough; asked with every step of any kind."""
        if self._console.due():
            self.draw()

    def draw(self) -> None:
        """Show where the run is now."""
        shown = self.shown | ({"evaluating": "..."} if self._place().evaluating else {})
        self._console.advance(round(self._pace.position(*self._in_round())), shown, self.left())

    def left(self) -> float | None:
        """Seconds until the end, as far as anybody knows."""
        evaluating = time.perf_counter() - self._began if self._place().evaluating else None
        return self._pace.left(*self._in_round(), evaluating)

    def begin(self) -> None:
        """A round or an evaluation begins, or a round goes on."""
        self._began = time.perf_counter()

    def evaluated(self) -> None:
        """What began was an evaluation, and has ended."""
        self._pace.add_evaluation(time.perf_counter() - self._began)

    def collected(self) -> None:
        """The round has its env steps."""
        now = time.perf_counter()
        self._collecting, self._began = now - self._began, now

    def updating(self) -> None:
        """A gradient step is made; the first of a round tells how many it has."""
        self._updates = self._updates or self._place().updates_due

    def end_round(self) -> float:
        """The round has its gradient steps, too. Seconds that they took."""
        seconds, step = time.perf_counter() - self._began, self._place().step
        self._pace.add_round(step - self._first, self._collecting, seconds if self._updates else None)
        self._first, self._updates = step, 0
        return seconds

    def _in_round(self) -> tuple[int, int, float]:
        """What `Pace` counts with: steps at the round's start and now, and the share of its gradient steps left."""
        step, updates_due, _ = self._place()
        due = updates_due / self._updates if updates_due and self._updates else 1.0
        return self._first, step, due
