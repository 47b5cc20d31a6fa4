"""Mixture switches: which policy acts.

A switch is a pure NumPy function of the scores; who computes the scores, and from what, is the collector's business.

| switch | chosen policy in state ``s`` of task ``i`` | source |
|---|---|---|
| ``QSwitch`` | ``argmax_j Q_i(s, a_j)`` | QMP, section 4.2 |
| ``SoftmaxQSwitch`` | ``j ~ softmax_j(Q_i(s, a_j) / temperature)`` | appendix G.1 |
| ``UniformSwitch`` | ``j ~ Uniform`` | section 7.4 |
| ``FixedSwitch`` | ``j ~ probs[i]`` (QMP-Domain) | section 7.4, appendix D.1 |
| ``OwnPolicy`` | ``j = i`` (no behaviour sharing) | the baseline |
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal, Protocol

import numpy as np
from numpy.typing import ArrayLike, NDArray

Ids = NDArray[np.int64]
Floats = NDArray[np.floating[Any]]
Score = Literal["auto", "mean", "sample"]
EntropyWeight = float | Floats | Callable[[], ArrayLike]


class Switch(Protocol):
    """What the collector asks of a switch; any object with this call signature will do.

    ``scores`` is ``(M, K)``: row ``m`` holds the Q-values, under the row's own task, of the ``K`` candidates. The
    row's own candidate is finite; any other may be ``-inf``, which must never be chosen. A switch whose
    ``needs_scores`` is ``False`` receives zeros and spares the Q-function calls. ``own`` is ``(M,)``, the index of
    each row's own policy (its task id). Returns ``(M,)`` integer policy indices.
    """

    @property
    def needs_scores(self) -> bool: ...

    def __call__(self, scores: Floats, own: Ids, rng: np.random.Generator, /) -> Ids: ...


@dataclass(frozen=True, kw_only=True)
class QScored:
    """What the switches that look at Q-values share: how a candidate is scored.

    Args:
        score: ``"mean"`` scores ``Proposal.means`` (the paper's rule, section 4.2), ``"sample"`` scores the sampled
            actions, ``"auto"`` scores the means where the policies give them and the samples elsewhere.
        samples: above 1, a candidate's score is the mean Q over that many sampled actions (expected-Q, appendix
            G.2); a further, fresh sample is executed. Implies ``"sample"``.
        entropy_weight: adds ``entropy_weight * Proposal.entropies`` to the scores (equation 3), with ``samples`` above
            1 their mean over those samples. A number, a ``(T,)`` array indexed by the acting task, or a function that
            returns either (a temperature that is being learned).
    """

    needs_scores: ClassVar[bool] = True
    score: Score = "auto"
    samples: int = 1
    entropy_weight: EntropyWeight = 0.0

    def __post_init__(self) -> None:
        if self.score not in ("auto", "mean", "sample"):
            raise ValueError(f'score must be "auto", "mean" or "sample", got {self.score!r}')
        if self.samples < 1:
            raise ValueError(f"samples must be at least 1, got {self.samples}")
        if self.samples > 1 and self.score == "mean":
            raise ValueError(f'samples={self.samples} averages over sampled actions: use score="sample" or "auto"')


@dataclass(frozen=True)
class QSwitch(QScored):
    """The Q-switch of QMP: the candidate with the highest score acts, ties go to the own policy (section 4.2)."""

    def __call__(self, scores: Floats, own: Ids, rng: np.random.Generator) -> Ids:
        best = scores.argmax(axis=1)
        rows = np.arange(len(scores))
        return np.where(scores[rows, own] >= scores[rows, best], own, best)


@dataclass(frozen=True)
class SoftmaxQSwitch(QScored):
    """Sample the acting policy from ``softmax(scores / temperature)`` (appendix G.1, figure 16a)."""

    temperature: float = field(kw_only=False)

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.temperature > 0:
            raise ValueError(
                f"temperature must be positive, got {self.temperature}: QSwitch() is the limit of a temperature of 0"
            )

    def __call__(self, scores: Floats, own: Ids, rng: np.random.Generator) -> Ids:
        scores = scores.astype(np.float64)
        below = scores - scores.max(axis=1, keepdims=True)
        with np.errstate(divide="ignore", over="ignore", invalid="ignore"):
            weights = np.where(below == 0.0, 1.0, np.where(np.isfinite(scores), np.exp(below / self.temperature), 0.0))
        return _sample_rows(weights, rng)


@dataclass(frozen=True)
class UniformSwitch:
    """Every policy is equally likely, at every decision (QMP-Uniform, section 7.4)."""

    needs_scores: ClassVar[bool] = False

    def __call__(self, scores: Floats, own: Ids, rng: np.random.Generator) -> Ids:
        return rng.integers(scores.shape[1], size=len(own))


class FixedSwitch:
    """Sample the acting policy of task ``i`` from row ``i`` of a fixed matrix (QMP-Domain, section 7.4).

    Args:
        probs: ``(T, K)``, rows sum to 1.
    """

    needs_scores: ClassVar[bool] = False

    def __init__(self, probs: ArrayLike) -> None:
        self.probs = np.array(probs, dtype=np.float64)
        if self.probs.ndim != 2:
            raise ValueError(f"probs must have shape (num_tasks, num_policies), got {self.probs.shape}")
        bad = ~(np.isclose(self.probs.sum(axis=1), 1.0) & (self.probs >= 0).all(axis=1))
        if bad.any():
            row = int(bad.argmax())
            raise ValueError(
                f"every row of probs must be non-negative and sum to 1; row {row} is {self.probs[row].tolist()} "
                f"with sum {self.probs[row].sum()}"
            )

    def __call__(self, scores: Floats, own: Ids, rng: np.random.Generator) -> Ids:
        if self.probs.shape[1] != scores.shape[1] or own.max() >= len(self.probs):
            raise ValueError(
                f"probs has shape {self.probs.shape}, but there are {scores.shape[1]} policies and task "
                f"{own.max()} is asked for: give one row per task and one column per policy"
            )
        return _sample_rows(self.probs[own], rng)

    def __repr__(self) -> str:
        return f"FixedSwitch({self.probs.tolist()})"


@dataclass(frozen=True)
class OwnPolicy:
    """No sharing: every task acts with its own policy. Q-functions are never called, no random number is drawn.

    Args:
        means: Execute `Proposal.means` of policies that give them, as an evaluation does, and not the samples.
    """

    means: bool = False

    needs_scores: ClassVar[bool] = False

    def __call__(self, scores: Floats, own: Ids, rng: np.random.Generator) -> Ids:
        return own


def _sample_rows(weights: Floats, rng: np.random.Generator) -> Ids:
    """One index per row, in proportion to the row's weights.

    One uniform number per row, by inverse CDF: what a row draws does not depend on any other row's weights, and an
    index of zero weight is never drawn.
    """
    cumulative = weights.cumsum(axis=1)
    threshold = rng.random(len(weights)) * cumulative[:, -1]
    ids: Ids = (cumulative > threshold[:, None]).argmax(axis=1)
    return ids
