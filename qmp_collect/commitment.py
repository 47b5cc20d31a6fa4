"""For how long a chosen policy acts before the switch is asked again.

``QMPCollector(horizon=...)`` takes a number of steps or one of these. It holds the own policy as any other, and what is
chosen again goes on: a policy may act for longer than a commitment lasts. An episode's end ends every commitment, and
so does ``candidate_mask`` where it no longer allows the policy.

| horizon | the chosen policy acts | source |
|---|---|---|
| ``H`` | ``H`` steps | QMP, appendix E.6 |
| ``UniformHorizon(low, high)`` | a number of steps drawn anew at every choice | |
| ``LevyHorizon(exponent, cap)`` | as above, from a power law: many short flights, a few long ones | MT-Levy |
| ``UntilOwnIsBetter(cap)`` | until the own candidate scores higher | |
| ``Until(predicate, cap)`` | until the caller says so | |
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import ClassVar, Protocol

import numpy as np
from numpy.typing import ArrayLike, NDArray

from qmp_collect.amount import integer, number
from qmp_collect.backends import to_numpy
from qmp_collect.switch import Candidates, Floats, Ids


class Commitment(Protocol):
    """What the collector asks of a horizon that is no number; any object like it will do."""

    @property
    def releases(self) -> bool:
        """Whether `released` is asked before every step. Candidates are scored at every step, then."""
        ...

    @property
    def needs_scores(self) -> bool:
        """Whether it looks at scores, so that they are needed even if the switch needs none."""
        ...

    @property
    def longest(self) -> int:
        """The most steps that `lengths` ever returns."""
        ...

    def lengths(self, candidates: Candidates, chosen: Ids, /) -> Ids:
        """``(N,)`` steps, at least 1, for which each row's choice is to act."""
        ...

    def released(self, candidates: Candidates, /) -> NDArray[np.bool_]:
        """``(N,)`` rows that end their commitment now, before another step; of rows without one it does not matter."""
        ...


class _Drawn:
    """What commitments share that last for the number of steps drawn when they begin."""

    releases: ClassVar[bool] = False
    needs_scores: ClassVar[bool] = False

    def released(self, candidates: Candidates) -> NDArray[np.bool_]:
        return np.zeros(len(candidates.own), np.bool_)


@dataclass(frozen=True)
class UniformHorizon(_Drawn):
    """From ``low`` to ``high`` steps, both included, each equally likely."""

    low: int
    high: int

    def __post_init__(self) -> None:
        integer("low", self.low)
        integer("high", self.high, at_least=self.low)

    @property
    def longest(self) -> int:
        return self.high

    def lengths(self, candidates: Candidates, chosen: Ids) -> Ids:
        return candidates.rng.integers(self.low, self.high, size=len(chosen), endpoint=True)


@dataclass(frozen=True)
class LevyHorizon(_Drawn):
    """``n`` steps with a probability in proportion to ``n ** -exponent``, at most ``cap``."""

    exponent: float = 2.0
    cap: int = 100

    _cumulative: Floats = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        integer("cap", self.cap)
        if not 0 < number("exponent", self.exponent) < np.inf:
            raise ValueError(f"exponent must be a positive number, got {self.exponent}")
        weights = np.arange(1, self.cap + 1, dtype=np.float64) ** -self.exponent
        object.__setattr__(self, "_cumulative", weights.cumsum() / weights.sum())

    @property
    def longest(self) -> int:
        return self.cap

    def lengths(self, candidates: Candidates, chosen: Ids) -> Ids:
        steps = 1 + np.searchsorted(self._cumulative, candidates.rng.random(len(chosen)), side="right")
        return np.minimum(steps, self.cap)  # the last sum may round to less than 1


@dataclass(frozen=True)
class UntilOwnIsBetter:
    """Until the own candidate's score exceeds that of the policy that acts, or for ``cap`` steps.

    Where the own policy is chosen, the switch is asked again at the next step.

    Scores are what the switch sees, ``margin`` and ``hysteresis`` included. They are computed at every step, as with a
    horizon of 1.
    """

    cap: int = 1000

    releases: ClassVar[bool] = True
    needs_scores: ClassVar[bool] = True

    def __post_init__(self) -> None:
        integer("cap", self.cap)

    @property
    def longest(self) -> int:
        return self.cap

    def lengths(self, candidates: Candidates, chosen: Ids) -> Ids:
        return np.where(chosen == candidates.own, 1, self.cap)

    def released(self, candidates: Candidates) -> NDArray[np.bool_]:
        rows = np.arange(len(candidates.own))
        better: NDArray[np.bool_] = (
            candidates.scores[rows, candidates.own] > candidates.scores[rows, candidates.previous]
        )
        return better


@dataclass(frozen=True)
class Until:
    """Until ``predicate(candidates)``, ``(N,)`` booleans, says that a row's policy has done its part.

    Args:
        predicate: Asked before every step, with `Candidates`: ``previous`` holds the policies that act, ``held`` for
            how long they have. What it says of rows that are not committed is ignored.
        cap: Steps after which a commitment ends anyway.
    """

    predicate: Callable[[Candidates], ArrayLike]
    cap: int = 1000

    releases: ClassVar[bool] = True
    needs_scores: ClassVar[bool] = False

    def __post_init__(self) -> None:
        integer("cap", self.cap)

    @property
    def longest(self) -> int:
        return self.cap

    def lengths(self, candidates: Candidates, chosen: Ids) -> Ids:
        return np.full(len(chosen), self.cap)

    def released(self, candidates: Candidates) -> NDArray[np.bool_]:
        said = to_numpy(self.predicate(candidates))
        if said.shape != candidates.own.shape or said.dtype != np.bool_:
            raise ValueError(
                f"Until: the predicate must return {len(candidates.own)} booleans, one a sub-environment, got "
                f"{said.dtype} of shape {said.shape}"
            )
        return said
