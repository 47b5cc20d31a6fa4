"""Who acts: warm-up, own probability, horizon and switch, one decision per vector step."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from qmp_collect.amount import integer
from qmp_collect.callables import Callables, is_zero
from qmp_collect.states import check_like
from qmp_collect.switch import Ids, OwnPolicy, QScored, Switch

Schedule = Callable[[int], float]
Gaps = tuple[Ids, NDArray[np.floating[Any]]]  # tasks that asked the switch, Q_i(chosen) - Q_i(own)


class Decision(NamedTuple):
    """An `act` that waits for its `observe`: until then it changes nothing that is counted or held."""

    obs: NDArray[Any]
    actions: NDArray[Any]
    behavior_ids: Ids
    hold_left: NDArray[np.int64]
    gaps: Gaps | None = None

    @staticmethod
    def by_nobody(obs: NDArray[Any], actions: NDArray[Any]) -> Decision:
        """Actions that no policy chose."""
        return Decision(obs, actions, np.full(len(obs), -1), np.zeros(len(obs), np.int64))


class Mixture:
    """Decides which policy acts in each sub-environment; `QMPCollector` documents the arguments."""

    def __init__(
        self,
        callables: Callables,
        switch: Switch,
        task_ids: Ids,
        *,
        horizon: int,
        own_probability: float | Schedule,
        warmup_steps: int,
        rng: np.random.Generator,
    ) -> None:
        if isinstance(switch, type) or not callable(switch):
            raise TypeError(f"switch must be a switch such as QSwitch() or OwnPolicy(), got {switch!r}")
        horizon, warmup_steps = integer("horizon", horizon), integer("warmup_steps", warmup_steps, at_least=0)
        if not callable(own_probability):
            own_probability = _probability("own_probability", own_probability)
        self._callables = callables
        self._switch = switch
        self._scoring = scoring_of(switch)
        self._only_own = isinstance(switch, OwnPolicy)
        self._means = isinstance(switch, OwnPolicy) and switch.means
        self._task_ids = task_ids
        self._rows = np.arange(len(task_ids))
        self._horizon = horizon
        self._own_probability = own_probability
        self._warmup_steps = warmup_steps
        self._rng = rng
        self._held = task_ids.copy()  # the policy that holds the horizon
        self._hold_left = np.zeros(len(task_ids), np.int64)  # steps that it still has

    def commit(self, decision: Decision) -> None:
        """The decision was executed: its choices hold from now on."""
        self._held, self._hold_left = decision.behavior_ids.copy(), decision.hold_left

    def forget(self, rows: NDArray[np.bool_]) -> None:
        """New episodes begin in ``rows``: held choices end."""
        self._hold_left[rows] = 0

    def state_dict(self) -> dict[str, Any]:
        """Held policies and random state."""
        return {"held": self._held.copy(), "hold_left": self._hold_left.copy(), "rng": self._rng.bit_generator.state}

    def check_state(self, state: dict[str, Any]) -> None:
        """``ValueError`` if a `state_dict` is of other rows, of more policies than are here, or of a longer horizon."""
        check_like("mixture", state, self.state_dict())
        known, held, left = self._callables.num_policies, state["held"], state["hold_left"]
        if known is not None and held.max() >= known:
            raise ValueError(f"the state holds policy {held.max()}, but there are only {known} policies")
        if held.min() < -1 or left.min() < 0 or left.max() >= self._horizon:
            raise ValueError(
                f"the state holds policies for {left.max()} more steps, expected fewer than the horizon {self._horizon}"
            )

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from a `state_dict` that passes `check_state`."""
        self._held, self._hold_left = state["held"].copy(), state["hold_left"].copy()
        self._rng.bit_generator.state = state["rng"]

    def choose(self, obs: NDArray[Any], num_steps: int, recorded: NDArray[np.bool_]) -> Decision:
        """Who acts, and how.

        Args:
            obs: ``(N, *O)``.
            num_steps: transitions stored so far.
            recorded: ``(N,)`` rows whose next step will be stored; of the others nothing is counted or complained of.

        Raises:
            FloatingPointError: a task's own action, or its own Q-value, is not finite in a recorded row.
        """
        own = self._task_ids
        gaps = None
        if self._only_own or num_steps < self._warmup_steps:
            actions, behavior_ids = self._callables.own_actions(obs, self._means), own.copy()
            hold_left = np.zeros_like(self._hold_left)
        else:
            deciding = self._hold_left == 0
            asking = deciding & ~self._draw_own(num_steps)
            candidates, scores = self._callables.candidates(obs, self._scoring if asking.any() else None)
            behavior_ids = np.where(deciding, own, self._held)
            if asking.any():
                choice, gaps = self._ask(obs, candidates, scores, asking, num_steps, recorded)
                behavior_ids = np.where(asking, choice, behavior_ids)
            actions = candidates[self._rows, behavior_ids]
            hold_left = np.where(deciding, self._horizon, self._hold_left) - 1
            if (lost := _broken(actions) & (behavior_ids != own)).any():
                # A policy that is held, or was drawn unseen, and breaks here loses its turn to the own policy.
                behavior_ids, hold_left = np.where(lost, own, behavior_ids), np.where(lost, 0, hold_left)
                actions = candidates[self._rows, behavior_ids]
        if (broken := _broken(actions) & recorded).any():
            env = int(broken.argmax())
            raise FloatingPointError(
                f"policy {own[env]} proposed {actions[env].tolist()} for task {own[env]} (sub-environment {env}) at "
                f"step {num_steps}: {_culprit(obs[env], 'its parameters are not finite')}"
            )
        return Decision(obs, actions, behavior_ids, hold_left, gaps)

    def _draw_own(self, num_steps: int) -> NDArray[np.bool_]:
        probability = self._own_probability
        if callable(probability):
            probability = _probability(f"own_probability({num_steps})", probability(num_steps))
        if probability == 0.0:
            return np.zeros(len(self._task_ids), np.bool_)
        return self._rng.random(len(self._task_ids)) < probability

    def _ask(
        self,
        obs: NDArray[Any],
        candidates: NDArray[Any],
        scores: NDArray[Any] | None,
        asking: NDArray[np.bool_],
        num_steps: int,
        recorded: NDArray[np.bool_],
    ) -> tuple[Ids, Gaps | None]:
        """The switch's choice for every row ``(N,)``, for rows that are not asking too, and what it gains."""
        own = self._task_ids
        if scores is None:
            return self._switched(np.zeros(candidates.shape[:2])), None
        counted = asking & recorded
        own_scores = scores[self._rows, own]
        broken = counted & ~np.isfinite(own_scores)
        if broken.any():
            env = int(broken.argmax())
            entropies = self._scoring is not None and not is_zero(self._scoring.entropy_weight)
            diverged = f"policy {own[env]} or its Q-function has diverged{', or its entropy term' if entropies else ''}"
            raise FloatingPointError(
                f"task {own[env]}'s Q-function gives {own_scores[env]} for the action of its own policy, "
                f"{candidates[env, own[env]].tolist()} (sub-environment {env}), at step {num_steps}: "
                f"{_culprit(obs[env], diverged)}. No other task's data is affected"
            )
        # Another policy's broken candidate cannot win. Rows without a say only need something to compare.
        usable = np.where(np.isfinite(scores), scores, -np.inf)
        if not counted.all():
            usable[~counted, own[~counted]] = 0.0
        choice = self._switched(usable)
        gaps = scores[self._rows, choice] - own_scores
        counted &= np.isfinite(gaps)  # a caller's own switch may choose what it should not
        return choice, (own[counted], gaps[counted])

    def _switched(self, scores: NDArray[Any]) -> Ids:
        """The switch's answer ``(N,)``, checked: a caller's own switch may write to its inputs and may be wrong."""
        choice = np.asarray(self._switch(scores, self._task_ids.copy(), self._rng))
        n, k = scores.shape
        if choice.shape != (n,) or choice.dtype.kind not in "iu" or choice.min() < 0 or choice.max() >= k:
            raise ValueError(f"{self._switch!r} must return {n} policy indices from 0 to {k - 1}, got {choice!r}")
        return choice


def _probability(name: str, value: Any) -> float:
    try:
        probability = float(value)
    except (TypeError, ValueError):
        raise TypeError(f"{name} must be a number in [0, 1], got {value!r}") from None
    if not 0.0 <= probability <= 1.0:
        raise ValueError(f"{name} must lie in [0, 1], got {probability}")
    return probability


def _culprit(obs: NDArray[Any], otherwise: str) -> str:
    """Who is to blame for numbers that are not finite."""
    finite = obs.dtype.kind != "f" or np.isfinite(obs).all()
    return otherwise if finite else f"the observation that it was given is not finite, {obs.tolist()}"


def _broken(actions: NDArray[Any]) -> NDArray[np.bool_]:
    """Which rows of ``(N, *A)`` actions are not finite."""
    if actions.dtype.kind != "f" or (finite := np.isfinite(actions)).all():
        return np.zeros(len(actions), np.bool_)
    broken: NDArray[np.bool_] = ~finite.reshape(len(actions), -1).all(axis=1)
    return broken


def scoring_of(switch: Switch) -> QScored | None:
    """How to score for a switch: by its own settings, by the defaults for a caller's own switch, or not at all."""
    if isinstance(switch, QScored):
        return switch
    return QScored() if getattr(switch, "needs_scores", True) else None
