"""Who acts: warm-up, mask, own probability, switch and commitment, one decision per vector step."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple, cast

import numpy as np
from numpy.typing import NDArray

from qmp_collect.amount import integer
from qmp_collect.backends import to_numpy
from qmp_collect.callables import Answer, Callables, is_zero
from qmp_collect.commitment import Commitment
from qmp_collect.highest import Highest
from qmp_collect.masks import Allowed, CandidateMask, Masks
from qmp_collect.proposal import broken_actions
from qmp_collect.raised_by import RaisedBy
from qmp_collect.records import leaves
from qmp_collect.spread import Spread
from qmp_collect.states import check_like
from qmp_collect.switch import AnySwitch, Candidates, Ids, OwnPolicy, QScored, QSwitch, ask, check_switch, scoring_of

Schedule = Callable[[int], float]
Gaps = tuple[Ids, NDArray[np.floating[Any]]]  # tasks that asked the switch, Q_i(chosen) - Q_i(own)


class Decision(NamedTuple):
    """An `act` that waits for its `observe`: until then it changes nothing that is counted or held."""

    obs: NDArray[Any]
    actions: NDArray[Any]
    behavior_ids: Ids
    hold_left: NDArray[np.int64]
    held_for: NDArray[np.int64]  # steps since the choice, with this one
    gaps: Gaps | None = None
    spread: Spread | tuple[Spread | None, ...] | None = None  # of several groups, one for each

    @staticmethod
    def by_nobody(obs: NDArray[Any], actions: NDArray[Any]) -> Decision:
        """Actions that no policy chose."""
        none = np.zeros(len(obs), np.int64)
        return Decision(obs, actions, np.full(len(obs), -1), none, none)


class Turn(NamedTuple):
    """Where a mixture stands before the callables are asked."""

    by_own: NDArray[np.bool_]  # (N,) rows in which the own policy acts without a question
    allowed: Allowed | None
    deciding: NDArray[np.bool_]
    asking: NDArray[np.bool_]
    unknown: bool  # how wide a mask has to be: nobody knows before a batched callable's first answer
    score: bool
    asked: NDArray[np.bool_] | None  # (K,) policies of a list that must answer
    only_highest: bool  # every row asks, and takes the highest score as it is


class Mixture:
    """Decides which policy acts in each sub-environment of a group; `QMPCollector` documents the arguments.

    Args:
        task_ids: ``(N,)`` within the group: a row's own policy is that of its task.
        num_tasks: of the group.
        env_ids, first_task: what the rows and the group's first task are called in errors.
    """

    def __init__(
        self,
        callables: Callables,
        switch: AnySwitch,
        task_ids: Ids,
        *,
        num_tasks: int,
        horizon: int | Commitment,
        candidate_mask: CandidateMask | None,
        own_probability: float | Schedule,
        warmup_steps: int,
        rng: np.random.Generator,
        env_ids: Ids | None = None,
        first_task: int = 0,
    ) -> None:
        check_switch("switch", switch)
        if isinstance(horizon, type):
            raise TypeError(f"horizon is the class {horizon.__name__}, expected an object: {horizon.__name__}(...)")
        if not callable(own_probability):
            own_probability = _probability("own_probability", own_probability)
        self._commitment = cast(Commitment, horizon) if hasattr(horizon, "lengths") else None
        self._longest = integer("horizon", horizon if self._commitment is None else self._commitment.longest)
        self._releases = self._commitment is not None and self._commitment.releases
        self._seen = self._commitment is not None or hasattr(switch, "choose")  # by somebody who is shown candidates
        self._callables = callables
        self._switch = switch
        self.scoring = scoring_of(switch)
        self._only_own = isinstance(switch, OwnPolicy)
        self._only_highest = (  # a subclass may choose otherwise
            type(switch) is QSwitch
            and not (switch.adjusts or switch.reduce is not None)
            and is_zero(switch.entropy_weight)
            and self._commitment is None
            and candidate_mask is None
        )
        if self.scoring is None and self._commitment is not None and self._commitment.needs_scores:
            self.scoring = None if self._only_own else QScored()
        self.means = isinstance(switch, OwnPolicy) and switch.means
        self._masks = None if candidate_mask is None else Masks(candidate_mask, task_ids, num_tasks, callables.outside)
        if self._masks is not None and callables.num_policies is not None:
            self._masks.check_width(callables.num_policies)  # now, not after the warm-up
        self._task_ids = self._own = task_ids
        self._rows = np.arange(len(task_ids))
        self._env_ids, self._first_task = self._rows if env_ids is None else env_ids, first_task
        self._own_probability = own_probability
        self._warmup_steps = integer("warmup_steps", warmup_steps, at_least=0)
        self._rng = rng
        self._held = np.full(len(task_ids), -1)  # who acted in the episode's last step, and holds the horizon
        self._hold_left = np.zeros(len(task_ids), np.int64)  # steps that it still has
        self._held_for = np.zeros(len(task_ids), np.int64)  # steps that it has acted for since it was chosen
        self._streak = np.zeros(len(task_ids), np.int64)  # on end, however often it was chosen
        self._counts = self._seen or (self._masks is not None and self._masks.counts)
        relative = self.scoring is not None and self.scoring.adjusts and self.scoring.relative
        self._spread = Spread.nothing(num_tasks) if relative else None

    @staticmethod
    def policies_in(state: Mapping[str, Any]) -> int:
        """How many policies there must at least be for a `state_dict`."""
        return int(state["held"].max()) + 1

    @property
    def scores(self) -> bool:
        """Whether Q-functions are ever asked."""
        return self.scoring is not None

    def commit(self, decision: Decision) -> None:
        """The decision was executed: its choices hold from now on."""
        if self._counts:
            on = np.where(decision.behavior_ids == self._held, self._streak, 0) + 1
            self._streak = np.where(decision.behavior_ids >= 0, on, 0)
        self._held, self._hold_left = decision.behavior_ids.copy(), decision.hold_left
        self._held_for = decision.held_for
        self._spread = cast("Spread | None", decision.spread) or self._spread

    def stepped(self, task_ids: Ids, behavior_ids: Ids) -> None:
        """``(M,)`` transitions were stored."""
        if self._masks is not None:
            self._masks.stepped(task_ids, behavior_ids)

    def ended(self, task_ids: Ids, successes: NDArray[np.bool_], success_known: bool) -> None:
        """``(E,)`` episodes ended."""
        if self._masks is not None:
            self._masks.ended(task_ids, successes, success_known)

    def forget(self, rows: NDArray[np.bool_]) -> None:
        """New episodes begin in ``rows``: held choices end."""
        self._held[rows], self._hold_left[rows], self._held_for[rows], self._streak[rows] = -1, 0, 0, 0

    def check_tasks(self, tasks: Sequence[int] | None) -> None:
        """What `add_policy` would not take: `TypeError` or `ValueError`."""
        if tasks is None:
            return
        if self._masks is None or not self._masks.has_matrix:
            raise ValueError(
                f"tasks={tasks!r} says in which tasks the policy may act, which only a candidate_mask with a matrix "
                "can keep to: pass one to the collector (of ones, if all that is there may act), or leave tasks out"
            )
        num_tasks = self._masks.num_tasks
        for task in tasks:
            if isinstance(task, bool | np.bool_) or integer("each of tasks", task, at_least=0) >= num_tasks:
                raise ValueError(f"tasks must be task ids from 0 to {num_tasks - 1}, got {tasks!r}")

    def add_policy(self, tasks: Sequence[int] | None) -> None:
        """There is one more candidate, which may act in ``tasks``."""
        if self._masks is not None:
            self._masks.add_policy(tasks)

    def state_dict(self) -> dict[str, Any]:
        """Held policies, what gates and relative margins remember, and random state."""
        state: dict[str, Any] = {
            "held": self._held.copy(),
            "hold_left": self._hold_left.copy(),
            "held_for": self._held_for.copy(),
            "streak": self._streak.copy(),
            "rng": self._rng.bit_generator.state,
        }
        if self._masks is not None and (gates := self._masks.state_dict()):
            state["gates"] = gates
        if self._spread is not None:
            state["spread"] = {name: moment.copy() for name, moment in self._spread._asdict().items()}
        return state

    def check_state(self, state: Mapping[str, Any]) -> None:
        """``ValueError`` if a `state_dict` is of other rows, of more policies than are here, or of a longer horizon."""
        state, own = _completed(state), self.state_dict()
        for name, what in (("gates", "gates in candidate_mask"), ("spread", "a relative margin or hysteresis")):
            if (name in state) != (name in own):
                saved, here = ("with", "without") if name in state else ("without", "with")
                raise ValueError(
                    f"state['mixture']: it was saved {saved} {what}, this collector is {here}: make it with the "
                    "settings that the state was saved with"
                )
        check_like("mixture", state, own)
        known, held, left = self._callables.num_policies, state["held"], state["hold_left"]
        if known is not None and held.max() >= known:
            raise ValueError(f"the state holds policy {held.max()}, but there are only {known} policies")
        if held.min() < -1 or left.min() < 0 or left.max() >= self._longest:
            raise ValueError(
                f"the state holds policies for {left.max()} more steps, expected fewer than the horizon {self._longest}"
            )

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue from a `state_dict` that passes `check_state`."""
        state = _completed(state)
        self._held, self._hold_left = state["held"].copy(), state["hold_left"].copy()
        self._held_for, self._streak = state["held_for"].copy(), state["streak"].copy()
        if self._masks is not None:
            self._masks.load_state_dict(state.get("gates", {}))
        if self._spread is not None:
            self._spread = Spread(**{name: moment.copy() for name, moment in state["spread"].items()})
        self._rng.bit_generator.state = state["rng"]

    def choose(
        self, obs: NDArray[Any], num_steps: int, recorded: NDArray[np.bool_], episode_steps: NDArray[np.int64]
    ) -> Decision:
        """Who acts, and how.

        Args:
            obs: ``(N, *O)``.
            num_steps: transitions stored so far.
            recorded: ``(N,)`` rows whose next step will be stored; of the others nothing is counted or complained of.
            episode_steps: ``(N,)`` steps that the running episodes have had.

        Raises:
            FloatingPointError: a task's own action, or its own Q-value, is not finite in a recorded row.
            ValueError: the switch, the horizon or the mask answers what it should not.
        """
        if (turn := self.begin(obs, num_steps)) is None:
            return self.own(obs, self._callables.own_actions(obs, self.means), num_steps, recorded)
        scoring = self.scoring if turn.score else None
        answer = self._callables.answer(obs, scoring, turn.asked, turn.only_highest)
        return self.decide(turn, answer, obs, num_steps, recorded, episode_steps)

    def begin(self, obs: NDArray[Any], num_steps: int) -> Turn | None:
        """The first half of `choose`: what to ask of the callables; ``None`` if only own policies act."""
        if self._only_own or num_steps < self._warmup_steps:
            return None
        known, by_own = self._callables.num_policies, self._draw_own(num_steps)
        unknown = self._masks is not None and known is None
        allowed, deciding, asking = self._turns(obs, by_own, None if unknown else known)
        score = self.scoring is not None and (self._releases or unknown or bool(asking.any()))
        asked = None
        if allowed is not None:
            asked = np.asarray(allowed.any(axis=0))
            asked[self._own] = True  # the last resort
        only_highest = self._only_highest and bool(asking.all())
        return Turn(by_own, allowed, deciding, asking, unknown, score, asked, only_highest)

    def own(self, obs: NDArray[Any], actions: NDArray[Any], num_steps: int, recorded: NDArray[np.bool_]) -> Decision:
        """The second half of `choose` where only own policies act: ``(N, *A)`` are their actions."""
        none = np.zeros_like(self._hold_left)
        return self._finite(Decision(obs, actions, self._own.copy(), none, none + 1), num_steps, recorded)

    def decide(
        self,
        turn: Turn,
        answer: Answer | Highest,
        obs: NDArray[Any],
        num_steps: int,
        recorded: NDArray[np.bool_],
        episode_steps: NDArray[np.int64],
    ) -> Decision:
        """The second half of `choose`: who acts, now that the callables have answered."""
        if isinstance(answer, Highest):
            return self._chosen(answer, obs, recorded)
        decision, broken = self._mix(turn, answer, obs, num_steps, recorded, episode_steps)
        return self._finite(decision, num_steps, recorded) if broken else decision

    def _chosen(self, chosen: Highest, obs: NDArray[Any], recorded: NDArray[np.bool_]) -> Decision:
        """What `_mix` makes of all candidates where every row asks and takes the highest score."""
        gain = chosen.scores - chosen.own_scores
        counted = recorded & np.isfinite(gain)
        hold_left = np.full_like(self._hold_left, self._longest - 1)
        gaps = self._task_ids[counted], gain[counted]
        return Decision(obs, chosen.actions, chosen.ids, hold_left, self._held_for, gaps)

    def _finite(self, decision: Decision, num_steps: int, recorded: NDArray[np.bool_]) -> Decision:
        if (broken := broken_actions(decision.actions) & recorded).any():
            row = int(broken.argmax())
            own, env = self._own[row], self._env_ids[row]
            raise FloatingPointError(
                f"policy {own} proposed {decision.actions[row].tolist()} for task {self._first_task + own} "
                f"(sub-environment {env}) at step {num_steps}: "
                f"{_culprit(decision.obs[row], 'its parameters are not finite')}"
            )
        return decision

    def _mix(
        self,
        turn: Turn,
        answer: Answer,
        obs: NDArray[Any],
        num_steps: int,
        recorded: NDArray[np.bool_],
        episode_steps: NDArray[np.int64],
    ) -> tuple[Decision, bool]:
        """What `decide` returns, and whether some of its actions may not be finite."""
        own, rows = self._own, self._rows
        by_own, allowed, deciding, asking, unknown = turn[:5]
        actions, scores, ensemble = answer
        if unknown:
            allowed, deciding, asking = self._turns(obs, by_own, actions.shape[1])

        looked = np.ones_like(asking) if self._releases else asking
        judged = looked & recorded
        if allowed is not None:
            judged &= allowed[rows, own]
        finite = scores is not None and bool(np.isfinite(scores).all())
        usable, own_scores, spread = self._usable(obs, actions, scores, finite, allowed, judged, num_steps)

        def candidates() -> Candidates:
            return Candidates(
                scores=usable.copy(),
                own=own.copy(),
                rng=self._rng,
                asking=asking.copy(),
                actions=actions.copy(),
                allowed=np.ones(usable.shape, np.bool_) if allowed is None else allowed.copy(),
                ensemble=None if ensemble is None else ensemble.copy(),
                obs=self._callables.outside(obs),
                task_ids=self._task_ids.copy(),
                previous=self._held.copy(),
                held=self._held_for.copy(),
                streak=self._streak.copy(),
                episode_steps=episode_steps.copy(),
                num_steps=num_steps,
            )

        if self._commitment is not None and self._releases and not deciding.all():
            with RaisedBy("horizon", self._commitment):
                deciding = deciding | self._commitment.released(candidates())
            asking = self._asking(deciding, by_own, allowed)
        behavior_ids, gaps = np.where(deciding, own, self._held), None
        if asking.any():
            choice = self._switched(usable, allowed, asking, candidates)
            behavior_ids = np.where(asking, choice, behavior_ids)
            if scores is not None and own_scores is not None:
                gain = scores[rows, choice] - own_scores
                # Where own is masked there is nothing to compare with, and a caller's switch may choose a broken one.
                counted = (judged & asking if self._releases else judged) & np.isfinite(gain)
                gaps = self._task_ids[counted], gain[counted]
        hold_left = np.where(deciding, self._lengths(behavior_ids, deciding, candidates), self._hold_left) - 1
        held_for = np.where(deciding, 0, self._held_for) + 1 if self._seen else self._held_for
        executed = actions[rows, behavior_ids]
        # A broken candidate has no finite score, unless somebody's own `reduce` gave it one.
        sound = finite and ensemble is None
        some_broken = not sound and bool((broken := broken_actions(executed)).any())
        if some_broken and (lost := broken & (behavior_ids != own)).any():
            # A policy that is held, or was drawn unseen, and breaks here loses its turn to the own policy.
            behavior_ids = np.where(lost, own if allowed is None else _instead(own, actions, allowed), behavior_ids)
            hold_left, held_for = np.where(lost, 0, hold_left), np.where(lost, np.minimum(held_for, 1), held_for)
            executed = actions[rows, behavior_ids]
        return Decision(obs, executed, behavior_ids, hold_left, held_for, gaps, spread), some_broken

    def _draw_own(self, num_steps: int) -> NDArray[np.bool_]:
        probability = self._own_probability
        if callable(probability):
            with RaisedBy("own_probability", num_steps):
                drawn = probability(num_steps)
            probability = _probability(f"own_probability({num_steps})", drawn)
        if probability == 0.0:
            return np.zeros(len(self._own), np.bool_)
        return self._rng.random(len(self._own)) < probability

    def _turns(
        self, obs: NDArray[Any], by_own: NDArray[np.bool_], num_policies: int | None
    ) -> tuple[Allowed | None, NDArray[np.bool_], NDArray[np.bool_]]:
        """What the mask allows ``(N, K)``, and the rows that decide and that ask the switch, ``(N,)``."""
        allowed, deciding = None, self._hold_left == 0
        if self._masks is not None and num_policies is not None:
            allowed = self._masks.allowed(obs, self._own, num_policies, self._held, self._streak)
            deciding = deciding | ~allowed[self._rows, self._held]  # who may no longer act loses its turn
        return allowed, deciding, self._asking(deciding, by_own, allowed)

    def _asking(
        self, deciding: NDArray[np.bool_], by_own: NDArray[np.bool_], allowed: Allowed | None
    ) -> NDArray[np.bool_]:
        if allowed is None:
            return deciding & ~by_own
        return deciding & ~(by_own & allowed[self._rows, self._own])

    def _usable(
        self,
        obs: NDArray[Any],
        actions: NDArray[Any],
        scores: NDArray[Any] | None,
        finite: bool,
        allowed: Allowed | None,
        judged: NDArray[np.bool_],
        num_steps: int,
    ) -> tuple[NDArray[Any], NDArray[Any] | None, Spread | None]:
        """Scores as the switch sees them ``(N, K)``, the own ones ``(N,)``, and their spread if that is the unit.

        Of ``judged`` rows, ``(N,)``, the own score must be finite, as all are if ``finite`` says so; where it is not,
        the others only need something to compare.
        """
        own, own_scores, spread = self._own, None, None
        if scores is None:
            usable = np.zeros(actions.shape[:2])
        else:
            own_scores = scores[self._rows, own]
            usable = scores.copy()
            if not finite:
                self._check_own(obs, actions, own_scores, judged, num_steps)
                usable[~np.isfinite(scores)] = -np.inf  # another policy's broken candidate cannot win
                lost = ~np.isfinite(own_scores)  # in rows that nobody judges
                usable[lost, own[lost]] = 0.0
            if self._spread is not None:
                spread = self._spread.seen(self._task_ids[judged], own_scores[judged])
            if self.scoring is not None and self.scoring.adjusts:
                unit = 1.0 if spread is None else spread.std()[self._task_ids]
                self.scoring.adjust(usable, own, self._held, unit)
        if allowed is not None:
            usable[~allowed] = -np.inf
            nobody = ~(usable > -np.inf).any(axis=1)  # all that the mask leaves is broken
            allowed[nobody, own[nobody]], usable[nobody, own[nobody]] = True, 0.0
        return usable, own_scores, spread

    def _check_own(
        self,
        obs: NDArray[Any],
        actions: NDArray[Any],
        own_scores: NDArray[Any],
        judged: NDArray[np.bool_],
        num_steps: int,
    ) -> None:
        own, broken = self._own, judged & ~np.isfinite(own_scores)
        if broken.any():
            row = int(broken.argmax())
            task, env = self._first_task + own[row], self._env_ids[row]
            entropies = self.scoring is not None and not is_zero(self.scoring.entropy_weight)
            diverged = f"policy {own[row]} or its Q-function has diverged{', or its entropy term' if entropies else ''}"
            raise FloatingPointError(
                f"task {task}'s Q-function gives {own_scores[row]} for the action of its own policy, "
                f"{actions[row, own[row]].tolist()} (sub-environment {env}), at step {num_steps}: "
                f"{_culprit(obs[row], diverged)}. No other task's data is affected"
            )

    def _switched(
        self,
        scores: NDArray[Any],
        allowed: Allowed | None,
        asking: NDArray[np.bool_],
        candidates: Callable[[], Candidates],
    ) -> Ids:
        """The switch's answer ``(N,)``, checked: a caller's own switch may write to its inputs and may be wrong."""
        with RaisedBy("switch", self._switch):
            if hasattr(self._switch, "choose"):
                choice = to_numpy(ask(self._switch, candidates()))
            else:
                shown = scores if self._commitment is None else scores.copy()
                choice = to_numpy(self._switch(shown, self._own.copy(), self._rng))
        n, k = scores.shape
        integers, given = choice.shape == (n,) and choice.dtype.kind in "iu", choice
        if integers:
            # What it says of the others is of no meaning. One type: uint64 and int64 together are floats.
            choice = np.where(asking, choice.astype(np.int64, copy=False), self._own)
        if not integers or (choice.view(np.uint64) >= k).any():  # without a sign, less than 0 is more than anything
            raise ValueError(f"{self._switch!r} must return {n} policy indices from 0 to {k - 1}, got {given!r}")
        if allowed is not None and (forbidden := asking & ~allowed[self._rows, choice]).any():
            row = int(forbidden.argmax())
            raise ValueError(
                f"{self._switch!r} chose policy {choice[row]} for sub-environment {self._env_ids[row]}, which "
                "candidate_mask forbids there: what must not be chosen has a score of -inf"
            )
        return choice

    def _lengths(
        self, chosen: Ids, deciding: NDArray[np.bool_], candidates: Callable[[], Candidates]
    ) -> NDArray[np.int64] | int:
        """For how many steps every row's choice holds."""
        if self._commitment is None or not deciding.any():
            return self._longest
        with RaisedBy("horizon", self._commitment):
            lengths = np.asarray(self._commitment.lengths(candidates(), chosen.copy()))
        longest = self._longest
        if (
            lengths.shape != chosen.shape
            or lengths.dtype.kind not in "iu"
            or lengths.min() < 1
            or lengths.max() > longest
        ):
            raise ValueError(f"{self._commitment!r} must give {len(chosen)} lengths, 1 to {longest}, got {lengths!r}")
        return lengths.astype(np.int64, copy=False)


def _completed(state: Mapping[str, Any]) -> Mapping[str, Any]:
    """A state of before ``held_for`` or ``streak``, too: how long its policies have acted is not known then."""
    unknown = np.zeros_like(state["hold_left"])
    state = {"held_for": unknown, "streak": unknown, **state}
    return {name: part for name, part in state.items() if name != "gates" or part}  # masks without gates have nothing


def _instead(own: Ids, actions: NDArray[Any], allowed: Allowed) -> Ids:
    """Who acts where the choice is broken: the own policy or, where it is masked, the first that may and can."""
    able = allowed & ~broken_actions(actions, 2)
    use_own = allowed[np.arange(len(own)), own] | ~able.any(axis=1)
    return np.where(use_own, own, able.argmax(axis=1))


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
    finite = all(part.dtype.kind != "f" or np.isfinite(part).all() for _, part in leaves(obs))
    return otherwise if finite else f"the observation that it was given is not finite, {obs.tolist()}"
