"""Mixture switches: which policy acts.

A switch is a pure NumPy function of the scores; who computes the scores, and from what, is the collector's business.

| switch | chosen policy in state ``s`` of task ``i`` | source |
|---|---|---|
| ``QSwitch`` | ``argmax_j Q_i(s, a_j)`` | QMP, section 4.2 |
| ``SoftmaxQSwitch`` | ``j ~ softmax_j(Q_i(s, a_j) / temperature)`` | appendix G.1 |
| ``UniformSwitch`` | ``j ~ Uniform`` | section 7.4 |
| ``FixedSwitch`` | ``j ~ probs[i]`` (QMP-Domain) | section 7.4, appendix D.1 |
| ``OwnPolicy`` | ``j = i`` (no behaviour sharing) | the baseline |
| ``JumpStart`` | a guide, then ``i`` or another switch's choice | Jump-Start RL (Uchendu et al., 2023) |

One's own switch is a function of three arguments (`Switch`) or, if it looks at more than scores, an object with
``choose(candidates)`` (`CandidateSwitch`).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal, Protocol, TypeAlias

import numpy as np
from numpy.typing import ArrayLike, NDArray

from qmp_collect.amount import number
from qmp_collect.backends import to_numpy
from qmp_collect.raised_by import RaisedBy

Ids = NDArray[np.int64]
Floats = NDArray[np.floating[Any]]
Score = Literal["auto", "mean", "sample"]
EntropyWeight = float | Floats | Callable[[], ArrayLike]
Reduce: TypeAlias = Literal["first", "mean", "min"] | Callable[[Floats], ArrayLike]


@dataclass(frozen=True, eq=False)
class Candidates:
    """All that is known when somebody must act: ``N`` sub-environments, ``K`` candidates each.

    The arrays are copies, the caller's to keep or to write to.

    Attributes:
        scores: ``(N, K)`` as the switch's settings have them, with ``margin`` and ``hysteresis``; zeros if it needs
            none. ``-inf`` marks a candidate that must not be chosen.
        own: ``(N,)`` index of each row's own policy.
        rng: the collector's generator for switches; what it draws is saved and restored with the collector.
        asking: ``(N,)`` rows that a policy must be chosen for. What is chosen for the others does not matter.
        actions: ``(N, K, *A)`` the candidate actions, those that would be executed.
        allowed: ``(N, K)`` what ``candidate_mask`` leaves.
        ensemble: ``(E, N, K)`` the scores of every critic where ``reduce`` is set, else ``None``.
        obs: ``(N, *O)``.
        task_ids: ``(N,)``.
        previous: ``(N,)`` the policy that acted in the episode's last step; -1 at its beginning or for random actions.
        held: ``(N,)`` steps that it has acted for since it was chosen.
        streak: ``(N,)`` steps on end that it has acted for in the episode, however often it was chosen; 0 for nobody.
        episode_steps: ``(N,)`` steps of the episode so far.
        num_steps: transitions that the collector has stored, summed over tasks.
    """

    scores: Floats
    own: Ids
    rng: np.random.Generator
    asking: NDArray[np.bool_]
    actions: NDArray[Any]
    allowed: NDArray[np.bool_]
    ensemble: Floats | None
    obs: NDArray[Any]
    task_ids: Ids
    previous: Ids
    held: NDArray[np.int64]
    streak: NDArray[np.int64]
    episode_steps: NDArray[np.int64]
    num_steps: int


class Switch(Protocol):
    """What the collector asks of a switch; any object with this call signature will do.

    ``scores`` is ``(N, K)``: row ``n`` holds the Q-values, under the row's own task, of the ``K`` candidates. A
    candidate of ``-inf`` is broken, or ``candidate_mask`` forbids it: it must never be chosen. At least one is finite,
    and without a mask the row's own is. A switch whose ``needs_scores`` is ``False`` receives zeros (``-inf`` where
    forbidden) and spares the Q-function calls. ``own`` is ``(N,)``, the index of each row's own policy (its task id).
    Returns ``(N,)`` integer policy indices.
    """

    @property
    def needs_scores(self) -> bool: ...

    def __call__(self, scores: Floats, own: Ids, rng: np.random.Generator, /) -> Ids: ...


class CandidateSwitch(Protocol):
    """A switch that looks at more than scores; any object with this method will do.

    ``choose`` returns ``(N,)`` integer policy indices. ``needs_scores`` is as for `Switch`. Scores are made as
    ``QSwitch()`` has them, or as an attribute ``scoring``, such as ``QSwitch(margin=0.1)``, says.
    """

    @property
    def needs_scores(self) -> bool: ...

    def choose(self, candidates: Candidates, /) -> Ids: ...


AnySwitch: TypeAlias = Switch | CandidateSwitch


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
        reduce: the Q-functions return the values of an ensemble, ``(E, ...)``, and this makes one score of them:
            ``"first"``, ``"mean"``, ``"min"``, ``lcb(k)`` or any function ``(E, N, K) -> (N, K)``. Default: they
            return one value.
        margin: what another policy's score must exceed the own one's by (own scores are raised by it): protection
            against a critic that is wrong early.
        hysteresis: what a score must exceed that of the policy that acted last by (its scores are raised by it):
            protection against switching at every step.
        relative: ``margin`` and ``hysteresis`` are in units of the spread of the task's own scores, their running
            standard deviation, so that they mean the same at any scale of rewards.
    """

    needs_scores: ClassVar[bool] = True
    score: Score = "auto"
    samples: int = 1
    entropy_weight: EntropyWeight = 0.0
    reduce: Reduce | None = None
    margin: float = 0.0
    hysteresis: float = 0.0
    relative: bool = False

    def __post_init__(self) -> None:
        if self.score not in ("auto", "mean", "sample"):
            raise ValueError(f'score must be "auto", "mean" or "sample", got {self.score!r}')
        if self.samples < 1:
            raise ValueError(f"samples must be at least 1, got {self.samples}")
        if self.samples > 1 and self.score == "mean":
            raise ValueError(f'samples={self.samples} averages over sampled actions: use score="sample" or "auto"')
        if self.reduce is not None and self.reduce not in _REDUCTIONS and not callable(self.reduce):
            raise ValueError(f"reduce must be one of {list(_REDUCTIONS)} or a function, got {self.reduce!r}")
        for name in ("margin", "hysteresis"):
            if not 0 <= number(name, getattr(self, name)) < np.inf:
                raise ValueError(f"{name} must be a finite number, at least 0, got {getattr(self, name)}")

    @property
    def adjusts(self) -> bool:
        """Whether scores are raised at all."""
        return self.margin > 0 or self.hysteresis > 0

    def adjust(self, scores: Floats, own: Ids, previous: Ids, unit: Floats | float = 1.0) -> None:
        """Raise ``(N, K)`` scores in place: ``previous`` is -1 where nobody acted before, ``unit`` is ``(N,)`` or 1."""
        rows = np.arange(len(scores))
        unit = np.broadcast_to(unit, len(scores))
        scores[rows, own] += self.margin * unit
        acted = np.flatnonzero(previous >= 0)
        scores[acted, previous[acted]] += self.hysteresis * unit[acted]

    def reduced(self, values: Floats) -> Floats:
        """One score for each candidate, ``(E, N, K) -> (N, K)``.

        Raises:
            ValueError: ``reduce`` is a function that returns another shape.
        """
        if isinstance(self.reduce, str):
            return _REDUCTIONS[self.reduce](values)
        assert self.reduce is not None
        with RaisedBy("reduce", self.reduce):
            scores = to_numpy(self.reduce(values.copy()))  # a caller's function may sort in place
        if scores.shape != values.shape[1:]:
            raise ValueError(
                f"reduce must return one score a candidate, shape {values.shape[1:]}, got {scores.shape} of values "
                f"{values.shape}"
            )
        return scores.astype(np.result_type(scores, np.float32), copy=False)  # ranks, too, are compared and subtracted


_REDUCTIONS: dict[str, Callable[[Floats], Floats]] = {
    "first": lambda values: values[0],
    "mean": lambda values: values.mean(axis=0),
    "min": lambda values: values.min(axis=0),
}


def lcb(k: float) -> Callable[[Floats], Floats]:
    """For ``reduce``: the lower confidence bound ``mean - k * std`` over the ensemble's members.

    Raises:
        ValueError: ``k`` is negative, or not finite.
    """
    if not 0 <= number("k", k) < np.inf:
        raise ValueError(f"k must be a finite number, at least 0, got {k}")
    return _LowerBound(k)


@dataclass(frozen=True)
class _LowerBound:
    """A function that can be compared, printed and pickled."""

    k: float

    def __call__(self, values: Floats) -> Floats:
        with np.errstate(invalid="ignore"):  # a candidate of infinite values scores nan, which never wins
            bound: Floats = values.mean(axis=0) - self.k * values.std(axis=0)
        return bound

    def __repr__(self) -> str:
        return f"lcb({self.k})"


@dataclass(frozen=True)
class QSwitch(QScored):
    """The Q-switch of QMP: the candidate with the highest score acts, ties go to the own policy (section 4.2).

    Args:
        score, samples, entropy_weight: what is scored, see `QScored`.
        reduce: how an ensemble of critics gives one score: ``"first"``, ``"mean"``, ``"min"``, ``lcb(k)``, a function.
        margin: what another policy's score must exceed the own one's by.
        hysteresis: what a score must exceed that of the policy that acted last by.
        relative: both are in units of the running standard deviation of the task's own scores.
    """

    def __call__(self, scores: Floats, own: Ids, rng: np.random.Generator) -> Ids:
        best = scores.argmax(axis=1)
        rows = np.arange(len(scores))
        return np.where(scores[rows, own] >= scores[rows, best], own, best)


@dataclass(frozen=True)
class SoftmaxQSwitch(QScored):
    """Sample the acting policy from ``softmax(scores / temperature)`` (appendix G.1, figure 16a).

    Args:
        temperature: positive.
        score, samples, entropy_weight, reduce, margin, hysteresis, relative: as for `QSwitch`.
    """

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
        if (allowed := scores > -np.inf).all():
            return rng.integers(scores.shape[1], size=len(own))
        return _sample_rows(allowed.astype(np.float64), rng)


class FixedSwitch:
    """Sample the acting policy of task ``i`` from row ``i`` of a fixed matrix (QMP-Domain, section 7.4).

    Where candidates are masked, from what the mask leaves of the row; if nothing has a probability there, the allowed
    candidates are equally likely.

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
        weights = self.probs[own]
        if not (allowed := scores > -np.inf).all():
            weights = np.where(allowed, weights, 0.0)
            weights = np.where(weights.any(axis=1, keepdims=True), weights, allowed)
        return _sample_rows(weights, rng)

    def __repr__(self) -> str:
        return f"FixedSwitch({self.probs.tolist()})"


@dataclass(frozen=True)
class OwnPolicy:
    """No sharing: every task acts with its own policy. Q-functions are never called, no random number is drawn.

    No mask is asked either. Asked by another switch, as `JumpStart` does, it keeps to what the mask allows: where that
    is not the own policy, to the first one.

    Args:
        means: Execute `Proposal.means` of policies that give them, as an evaluation does, and not the samples.
    """

    means: bool = False

    needs_scores: ClassVar[bool] = False

    def __call__(self, scores: Floats, own: Ids, rng: np.random.Generator) -> Ids:
        allowed = scores > -np.inf
        return np.where(allowed[np.arange(len(own)), own], own, allowed.argmax(axis=1))


@dataclass(frozen=True)
class JumpStart:
    """A guide acts first, then the rest of the episode is the learner's (Jump-Start RL, Uchendu et al., ICML 2023).

    Args:
        guide: index of the guiding candidate, of all tasks or ``(T,)``.
        steps: steps of every episode in which it is chosen: a number, or a function of the collector's ``num_steps``
            that falls to 0, the curriculum. With a ``horizon`` above 1, its last commitment may reach beyond them.
        then: who chooses afterwards, and wherever the guide may not act.
    """

    guide: int | Sequence[int]
    steps: float | Callable[[int], float]
    then: AnySwitch = OwnPolicy()

    def __post_init__(self) -> None:
        check_switch("then", self.then)

    @property
    def needs_scores(self) -> bool:
        return getattr(self.then, "needs_scores", True)

    @property
    def scoring(self) -> QScored | None:
        """Candidates are scored as for the switch that follows."""
        return scoring_of(self.then)

    def choose(self, candidates: Candidates) -> Ids:
        steps = self.steps(candidates.num_steps) if callable(self.steps) else self.steps
        of_tasks, k = np.asarray(self.guide), candidates.scores.shape[1]
        if of_tasks.ndim > 1 or (of_tasks.ndim and len(of_tasks) <= candidates.task_ids.max()):
            raise ValueError(
                f"guide is {self.guide}, of shape {of_tasks.shape}, but there is a task {candidates.task_ids.max()}: "
                "give one index, or one for each task"
            )
        guides = of_tasks[candidates.task_ids] if of_tasks.ndim else np.full(len(candidates.own), of_tasks)
        if of_tasks.dtype.kind not in "iu" or guides.min() < 0 or guides.max() >= k:
            raise ValueError(f"guide is {self.guide}, expected policy indices from 0 to {k - 1}")
        usable = candidates.scores[np.arange(len(guides)), guides] > -np.inf
        return np.where((candidates.episode_steps < steps) & usable, guides, ask(self.then, candidates))


def check_switch(name: str, switch: Any) -> None:
    """`TypeError` if an argument of this name can be asked in neither way."""
    if isinstance(switch, type) or not (callable(switch) or hasattr(switch, "choose")):
        raise TypeError(f"{name} must be a switch such as QSwitch() or OwnPolicy(), got {switch!r}")


def ask(switch: AnySwitch, candidates: Candidates) -> Any:
    """A switch's answer, whichever way it is asked."""
    if hasattr(switch, "choose"):
        return switch.choose(candidates)
    return switch(candidates.scores, candidates.own, candidates.rng)


def scoring_of(switch: AnySwitch) -> QScored | None:
    """How to score for a switch: by its own settings, by the defaults for a caller's own switch, or not at all.

    A switch that asks another one can say how that one scores: an attribute ``scoring``.
    """
    if isinstance(switch, QScored):
        return switch
    if not getattr(switch, "needs_scores", True):
        return None
    scoring: QScored = getattr(switch, "scoring", None) or QScored()
    return scoring


def _sample_rows(weights: Floats, rng: np.random.Generator) -> Ids:
    """One index per row, in proportion to the row's weights.

    One uniform number per row, by inverse CDF: what a row draws does not depend on any other row's weights, and an
    index of zero weight is never drawn.
    """
    cumulative = weights.cumsum(axis=1)
    threshold = rng.random(len(weights)) * cumulative[:, -1]
    ids: Ids = (cumulative > threshold[:, None]).argmax(axis=1)
    return ids
