"""Groups of rows: several independent learners, such as seeds, behind one collector.

``task_ids`` say whose data a transition is, ``own_ids`` which candidate is the row's own. Rows in which the two differ
by the same number are a group: candidate ``k`` of a row is the own policy of task ``task_ids - own_ids + k``. So three
seeds of two tasks are six tasks with two candidates a row:

    task_ids  0 1  2 3  4 5
    own_ids   0 1  0 1  0 1        = task_ids % 2

Nothing crosses between groups: each has its own held choices, gates, moments, random numbers and count of steps. A
switch, a mask, a gate and a commitment are asked about one group at a time and see it as the only one: its rows, its
tasks as 0 to T - 1, its steps as ``num_steps``. Only the callables are asked about all rows at once.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, cast

import numpy as np
from numpy.typing import ArrayLike, NDArray

from qmp_collect.amount import integer
from qmp_collect.backends import to_numpy
from qmp_collect.callables import Answer, Callables
from qmp_collect.highest import Highest
from qmp_collect.mixture import Decision, Mixture
from qmp_collect.spread import Spread
from qmp_collect.states import check_like
from qmp_collect.switch import Ids

Rows = NDArray[np.int64] | slice
Seeds = int | Sequence[int | None] | None


def resolve_groups(task_ids: Ids, num_tasks: int, own_ids: ArrayLike | None) -> tuple[Ids, int]:
    """Each row's own candidate ``(N,)``, and the number of groups.

    Raises:
        ValueError: Not ``N`` integers, or not those of groups with equally many tasks, one after the other.
    """
    if own_ids is None:
        return task_ids, 1
    own = np.array(to_numpy(own_ids))
    if own.shape != task_ids.shape or own.dtype.kind not in "iu":
        raise ValueError(
            f"own_ids must be {len(task_ids)} integers, one per sub-environment, got {own.dtype} of shape {own.shape}"
        )
    own = own.astype(np.int64)
    first = np.unique(task_ids - own)
    size = num_tasks // len(first)
    if size * len(first) != num_tasks or (first != np.arange(len(first)) * size).any() or not _within(own, size):
        raise ValueError(
            f"own_ids are {own.tolist()} for task_ids {task_ids.tolist()} of {num_tasks} tasks: expected groups of "
            "equally many tasks, one after the other, each with a row at least. For S groups of T tasks, write "
            "task_ids = group * T + task and own_ids = task, with num_tasks = S * T"
        )
    return own, len(first)


def _within(own: Ids, size: int) -> bool:
    return bool(own.min() >= 0 and own.max() < size)


def rows_of_groups(task_ids: Ids, num_tasks: int, num_groups: int) -> list[Rows]:
    """The rows of each group: a slice where they lie side by side."""
    of_row, found = task_ids // (num_tasks // num_groups), list[Rows]()
    for group in range(num_groups):
        rows = np.flatnonzero(of_row == group)
        beside = len(rows) and rows[-1] - rows[0] + 1 == len(rows)
        found.append(slice(int(rows[0]), int(rows[-1]) + 1) if beside else rows)
    return found


def resolve_seeds(seed: Any, num_groups: int) -> list[int | None]:
    """The seed of each group, or of the one that there is; ``None`` for what the operating system draws.

    Raises:
        TypeError, ValueError: Not one non-negative integer for each.
    """
    if seed is None:
        return [None] * num_groups
    given = [seed] if np.ndim(seed) == 0 else list(seed)
    if len(given) != num_groups:
        raise ValueError(
            f"expected a seed for each of {num_groups} groups (own_ids), got {seed!r}: write seed=[1, 2, ...]"
            if num_groups > 1
            else f"expected one seed, got {seed!r}"
        )
    return [integer("seed", each, at_least=0) for each in given]


def seeds_of_rows(seed: Seeds, rows: Sequence[Rows], num_envs: int) -> Any:
    """What ``envs.reset`` is given: in each group, its seed for the first row, counted up from there."""
    if len(rows) == 1:
        return seed
    if seed is None:
        return None
    seeds = np.empty(num_envs, np.int64)
    for each, of_group in zip(cast(Any, seed), rows, strict=True):
        seeds[of_group] = each + np.arange(len(seeds[of_group]))
    return seeds.tolist()


def _part(answer: Answer | Highest, rows: Rows, score: bool) -> Answer | Highest:
    """What the callables answer to one group."""
    if isinstance(answer, Highest):
        return answer.of(rows)
    actions, scores, ensemble = answer
    if not score or scores is None:
        return actions[rows], None, None
    return actions[rows], scores[rows], None if ensemble is None else ensemble[:, rows]


class Groups:
    """Several groups' `Mixture` as one, with one question to the callables for all of them.

    Args:
        callables: Batched ones, which are asked about all rows.
        make: A group's mixture: its number and its rows' ``(M,)`` tasks within the group.
        task_ids: ``(N,)``.
        num_tasks: of all groups together.
    """

    def __init__(
        self,
        callables: Callables,
        make: Callable[[int, Ids, Rows], Mixture],
        task_ids: Ids,
        num_tasks: int,
        groups: int,
    ) -> None:
        self._callables, self._task_ids, self._size = callables, task_ids, num_tasks // groups
        self._rows = rows_of_groups(task_ids, num_tasks, groups)
        self._mixtures = [make(group, task_ids[rows] % self._size, rows) for group, rows in enumerate(self._rows)]
        self._num_steps = np.zeros(groups, np.int64)

    @property
    def scores(self) -> bool:
        """Whether Q-functions are ever asked."""
        return self._mixtures[0].scores

    def choose(
        self, obs: NDArray[Any], num_steps: int, recorded: NDArray[np.bool_], episode_steps: NDArray[np.int64]
    ) -> Decision:
        """See `Mixture.choose`; a group's schedules follow its own steps, whatever ``num_steps`` is."""
        del num_steps
        parts = list(zip(self._mixtures, self._rows, self._num_steps.tolist(), strict=True))
        turns = [mixture.begin(obs[rows], steps) for mixture, rows, steps in parts]
        mixing, first = [turn for turn in turns if turn is not None], self._mixtures[0]
        if not mixing:
            own = self._callables.own_actions(obs, first.means)
            decisions = [m.own(obs[rows], own[rows], steps, recorded[rows]) for m, rows, steps in parts]
            return self._joined(obs, decisions)
        scoring = first.scoring if any(turn.score for turn in mixing) else None
        only_highest = all(turn is not None and turn.only_highest for turn in turns)
        answer = self._callables.answer(obs, scoring, only_highest=only_highest)
        decisions = []
        for (mixture, rows, steps), turn in zip(parts, turns, strict=True):
            if turn is None:  # its warm-up lasts longer
                own = answer[0][rows][np.arange(len(obs[rows])), self._task_ids[rows] % self._size]
                decisions.append(mixture.own(obs[rows], own, steps, recorded[rows]))
                continue
            part = _part(answer, rows, turn.score)
            decisions.append(mixture.decide(turn, part, obs[rows], steps, recorded[rows], episode_steps[rows]))
        return self._joined(obs, decisions)

    def _joined(self, obs: NDArray[Any], decisions: list[Decision]) -> Decision:
        n, executed = len(self._task_ids), decisions[0].actions
        actions = np.empty((n, *executed.shape[1:]), executed.dtype)
        behavior_ids, hold_left, held_for = (np.empty(n, np.int64) for _ in range(3))
        gaps = []
        for group, (rows, part) in enumerate(zip(self._rows, decisions, strict=True)):
            actions[rows], behavior_ids[rows] = part.actions, part.behavior_ids
            hold_left[rows], held_for[rows] = part.hold_left, part.held_for
            if part.gaps is not None:
                gaps.append((part.gaps[0] + group * self._size, part.gaps[1]))
        joined = tuple(map(np.concatenate, zip(*gaps, strict=True))) if gaps else None
        spreads = tuple(cast("Spread | None", part.spread) for part in decisions)
        return Decision(obs, actions, behavior_ids, hold_left, held_for, cast(Any, joined), spreads)

    def commit(self, decision: Decision) -> None:
        """The decision was executed: its choices hold from now on."""
        spreads = cast("tuple[Spread | None, ...] | None", decision.spread) or (None,) * len(self._rows)
        for mixture, rows, spread in zip(self._mixtures, self._rows, spreads, strict=True):
            obs, actions, behavior_ids, hold_left, held_for = (array[rows] for array in cast(Any, decision)[:5])
            mixture.commit(Decision(obs, actions, behavior_ids, hold_left, held_for, spread=spread))

    def stepped(self, task_ids: Ids, behavior_ids: Ids) -> None:
        """``(M,)`` transitions were stored."""
        of_row = task_ids // self._size
        self._num_steps += np.bincount(of_row, minlength=len(self._rows))
        for group, mixture in enumerate(self._mixtures):
            if (mine := of_row == group).any():
                mixture.stepped(task_ids[mine] % self._size, behavior_ids[mine])

    def ended(self, task_ids: Ids, successes: NDArray[np.bool_], success_known: bool) -> None:
        """``(E,)`` episodes ended."""
        of_row = task_ids // self._size
        for group in np.unique(of_row).tolist():
            mine = of_row == group
            self._mixtures[group].ended(task_ids[mine] % self._size, successes[mine], success_known)

    def forget(self, rows: NDArray[np.bool_]) -> None:
        """New episodes begin in ``rows``: held choices end."""
        for mixture, mine in zip(self._mixtures, self._rows, strict=True):
            mixture.forget(rows[mine])

    def check_tasks(self, tasks: Sequence[int] | None) -> None:
        """See `Mixture.check_tasks`."""
        self._mixtures[0].check_tasks(tasks)

    def add_policy(self, tasks: Sequence[int] | None) -> None:
        """There is one more candidate in each group, which may act in ``tasks`` of it."""
        for mixture in self._mixtures:
            mixture.add_policy(tasks)

    def state_dict(self) -> dict[str, Any]:
        """That of each group's mixture, and its steps."""
        return {
            "num_steps": self._num_steps.copy(),
            "groups": {str(group): mixture.state_dict() for group, mixture in enumerate(self._mixtures)},
        }

    def check_state(self, state: Mapping[str, Any]) -> None:
        """See `Mixture.check_state`; ``ValueError`` for a state of another number of groups, too."""
        if "groups" not in state or len(state["groups"]) != len(self._mixtures):
            saved = len(state["groups"]) if "groups" in state else 1
            raise ValueError(f"the state is of {saved} groups (own_ids), expected {len(self._mixtures)}")
        check_like("num_steps", state["num_steps"], self._num_steps)
        for group, mixture in enumerate(self._mixtures):
            mixture.check_state(state["groups"][str(group)])

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue from a `state_dict` that passes `check_state`."""
        self._num_steps = state["num_steps"].copy()
        for group, mixture in enumerate(self._mixtures):
            mixture.load_state_dict(state["groups"][str(group)])

    @staticmethod
    def policies_in(state: Mapping[str, Any]) -> int:
        """See `Mixture.policies_in`."""
        return max(Mixture.policies_in(of_group) for of_group in state["groups"].values())
