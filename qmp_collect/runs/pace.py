"""How far a run is, and how long the rest of it takes, by what its steps have cost lately."""

from __future__ import annotations


class Cost:
    """Seconds that one of something takes: a mean of what was told, in which the last ones weigh most."""

    _KEPT = 0.8  # of the weight of everything before, whenever something is added

    def __init__(self) -> None:
        self._seconds = self._amount = 0.0

    def add(self, seconds: float, amount: float = 1.0) -> None:
        """So many took so long."""
        self._seconds = self._KEPT * self._seconds + seconds
        self._amount = self._KEPT * self._amount + amount

    @property
    def each(self) -> float | None:
        """``None`` before anything was added."""
        return self._seconds / self._amount if self._amount else None


class Pace:
    """The rounds of a run: env steps are collected, then gradient steps made for them; and evaluations in between.

    In what follows, ``now`` is the number of env steps made, ``first`` that at the start of the round, and ``due`` the
    share of the round's gradient steps that are left: 1 while its env steps are being collected.

    Args:
        total: env steps of the run.
        eval_every: env steps between evaluations, of which the last is at the end.
    """

    def __init__(self, total: int, eval_every: int) -> None:
        self._total, self._eval_every = total, eval_every
        self._collecting, self._learning, self._evaluating = Cost(), Cost(), Cost()

    def add_round(self, steps: int, collecting: float, learning: float | None) -> None:
        """A round of so many env steps took so many seconds; ``learning`` is ``None`` if it had no gradient steps."""
        self._collecting.add(collecting, steps)
        if learning is not None:
            self._learning.add(learning, steps)

    def add_evaluation(self, seconds: float) -> None:
        """An evaluation took so many seconds."""
        self._evaluating.add(seconds)

    def position(self, first: int, now: int, due: float) -> float:
        """Env steps that are done: those of the round count as far as its gradient steps are made, too.

        So it moves as time does, whatever the round is at.
        """
        collect, learn = self._collecting.each, self._learning.each
        share = 0.5 if not collect or learn is None else learn / (collect + learn)
        return min(now - due * share * (now - first), self._total)

    def left(self, first: int, now: int, due: float, evaluating: float | None = None) -> float | None:
        """Seconds that the rest takes; ``None`` until a round with gradient steps has shown what they cost.

        A run without any in its first twentieth is taken to have none.

        Args:
            evaluating: seconds since an evaluation began that is not over yet.
        """
        collect, learn = self._collecting.each, self._learning.each
        if learn is None and now >= 0.05 * self._total:
            learn = 0.0
        if collect is None or learn is None:
            return None
        rest = max(self._total - now, 0)
        seconds = rest * (collect + learn) + due * (now - first) * learn
        if (each := self._evaluating.each) is not None:
            seconds += -(-max(self._total - first, 0) // self._eval_every) * each
            if evaluating is not None:
                seconds += max(each - evaluating, 0.0)
        return seconds
