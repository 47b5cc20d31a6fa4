"""Which candidates may act: ``QMPCollector(candidate_mask=...)``.

| candidate_mask | allowed in a row of task ``i`` |
|---|---|
| ``(T, K)`` booleans | row ``i`` of the matrix |
| ``mask(obs (N, *O), task_ids (N,)) -> (N, K)`` booleans | what the function says of the row |
| ``SuccessGate(above)`` | the own policy, and those of tasks that recently succeeded often enough |
| ``OwnShareFloor(share)`` | only the own policy, while it acts less than its share |
| ``AtMost(steps)`` | whoever has not just acted for so many steps on end; the own policy always |
| ``all_of(...)`` | what each of several masks allows |

A candidate that is not allowed is never chosen, and a commitment to it ends. A row in which nothing is allowed, or only
what is broken, falls to its own policy. Policies of a list that nobody may choose are not asked, but for the own ones.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import ArrayLike, NDArray

from qmp_collect.amount import integer, number
from qmp_collect.backends import to_numpy
from qmp_collect.raised_by import RaisedBy
from qmp_collect.switch import Ids

Allowed = NDArray[np.bool_]
MaskFunction = Callable[[NDArray[Any], Ids], ArrayLike]


class Gate(Protocol):
    """A mask with a memory: what is written down here are its settings, `start` gives a collector its memory."""

    def start(self, num_tasks: int) -> Memory: ...


class Memory(Protocol):
    """What a gate has seen, and what follows from it. Its arrays are saved with the collector.

    All of them, in their shapes, are there from `Gate.start` on: saved ones are loaded into those.
    """

    arrays: dict[str, NDArray[Any]]

    def stepped(self, task_ids: Ids, behavior_ids: Ids) -> None:
        """``(M,)`` stored transitions."""
        ...

    def ended(self, task_ids: Ids, successes: NDArray[np.bool_], success_known: bool) -> None:
        """``(E,)`` episodes that ended."""
        ...

    def lends(self, num_policies: int) -> Allowed:
        """``(T, K)``: whether policy ``j`` may act in task ``i``, for ``j != i``."""
        ...


@dataclass(frozen=True)
class SuccessGate:
    """A task's policy acts in other tasks only while its own task succeeds: a policy that cannot do its own job has
    little to lend, and a critic that overrates it can do no harm.

    Candidates beyond the tasks' own policies are not affected.

    Args:
        above: The share of successes among the task's recent training episodes must exceed this.
        episodes: How many episodes are recent. A task without any does not lend.
    """

    above: float = 0.0
    episodes: int = 20

    def __post_init__(self) -> None:
        integer("episodes", self.episodes)
        if not 0.0 <= number("above", self.above) <= 1.0:
            raise ValueError(f"above must be a share of successes in [0, 1], got {self.above}")

    def start(self, num_tasks: int) -> Memory:
        return _Successes(self, num_tasks)


class _Successes:
    def __init__(self, gate: SuccessGate, num_tasks: int) -> None:
        self._gate = gate
        self.arrays = {
            "successes": np.zeros((num_tasks, gate.episodes), np.bool_),  # a ring for each task
            "episodes": np.zeros(num_tasks, np.int64),
        }

    def stepped(self, task_ids: Ids, behavior_ids: Ids) -> None:
        pass

    def ended(self, task_ids: Ids, successes: NDArray[np.bool_], success_known: bool) -> None:
        if not success_known:
            raise ValueError("SuccessGate: an episode ended and infos never held a success flag (see success_key)")
        earlier = np.tril(task_ids[:, None] == task_ids, -1).sum(axis=1)  # episodes of the same task in this step
        places = (self.arrays["episodes"][task_ids] + earlier) % self._gate.episodes
        self.arrays["successes"][task_ids, places] = successes
        np.add.at(self.arrays["episodes"], task_ids, 1)

    def lends(self, num_policies: int) -> Allowed:
        known = np.minimum(self.arrays["episodes"], self._gate.episodes)
        lends = np.ones((len(known), num_policies), np.bool_)
        # A quotient, as 0.29 * 100 is not 29.
        lends[:, : len(known)] = self.arrays["successes"].sum(axis=1) / np.maximum(known, 1) > self._gate.above
        return lends


@dataclass(frozen=True)
class OwnShareFloor:
    """Nobody else acts in a task while its own policy acts less than ``share`` of its recent steps: a learner needs
    data of its own to correct what its critic believes of it.

    Args:
        share: Above 0, at most 1.
        steps: How far back recent steps reach: an exponential average with this time constant, in steps of the task.
    """

    share: float
    steps: int = 1000

    def __post_init__(self) -> None:
        integer("steps", self.steps)
        if not 0.0 < number("share", self.share) <= 1.0:
            raise ValueError(f"share must be above 0, which were no floor, and at most 1, got {self.share}")

    def start(self, num_tasks: int) -> Memory:
        return _OwnShares(self, num_tasks)


class _OwnShares:
    def __init__(self, gate: OwnShareFloor, num_tasks: int) -> None:
        self._gate = gate
        self.arrays = {"own_share": np.ones(num_tasks)}

    def stepped(self, task_ids: Ids, behavior_ids: Ids) -> None:
        shares = self.arrays["own_share"]
        acted = behavior_ids >= 0
        steps = np.bincount(task_ids[acted], minlength=len(shares))
        own = np.bincount(task_ids[acted & (behavior_ids == task_ids)], minlength=len(shares))
        kept = (1.0 - 1.0 / self._gate.steps) ** steps
        shares *= kept
        shares += (1.0 - kept) * own / np.maximum(steps, 1)

    def ended(self, task_ids: Ids, successes: NDArray[np.bool_], success_known: bool) -> None:
        pass

    def lends(self, num_policies: int) -> Allowed:
        enough = self.arrays["own_share"] >= self._gate.share
        return np.repeat(enough[:, None], num_policies, axis=1)


@dataclass(frozen=True)
class AtMost:
    """Another task's policy, or a helper, acts for at most ``steps`` steps on end, however often it is chosen again.

    Then somebody else acts, the own policy or a third one, for at least one step. It ends commitments that last longer.
    Every episode counts anew. The own policy has no limit.

    Args:
        steps: At least 1.
        of: Policy indices that the limit is for, such as a helper's. Default: all but the row's own.
    """

    steps: int
    of: Sequence[int] | None = None

    def __post_init__(self) -> None:
        integer("steps", self.steps)
        for policy in self.of or ():
            integer("each of `of`", policy, at_least=0)

    def over(self, own: Ids, previous: Ids, streak: NDArray[np.int64]) -> NDArray[np.bool_]:
        """``(N,)`` rows in which who acted last, for ``streak`` steps, is at the limit."""
        limited: NDArray[np.bool_] = (streak >= self.steps) & (previous >= 0) & (previous != own)
        return limited if self.of is None else limited & np.isin(previous, np.asarray(self.of, np.int64))


@dataclass(frozen=True)
class AllOf:
    """See `all_of`."""

    masks: tuple[Any, ...]


def all_of(*masks: CandidateMask) -> AllOf:
    """Several masks as one: a candidate may act where all of them allow it."""
    return AllOf(masks)


CandidateMask = ArrayLike | MaskFunction | Gate | AtMost | AllOf


class Masks:
    """A collector's masks: what they allow together, and their memory.

    Raises:
        TypeError: Something is no mask.
        ValueError: A matrix that is not ``(T, K)`` booleans.
    """

    def __init__(
        self,
        mask: CandidateMask,
        task_ids: Ids,
        num_tasks: int,
        outside: Callable[[NDArray[Any]], Any] = np.array,  # rows as a caller knows observations, copies
    ) -> None:
        self._task_ids, self.num_tasks, self._outside = task_ids, num_tasks, outside
        self._matrix: Allowed | None = None
        self._functions: list[MaskFunction] = []
        self._memories: list[Memory] = []
        self._limits: list[AtMost] = []
        self._add(mask)

    def check_width(self, num_policies: int) -> None:
        """``ValueError`` if there is a matrix, and it is of another number of policies."""
        if self._matrix is not None and self._matrix.shape[1] != num_policies:
            raise ValueError(
                f"candidate_mask has shape {self._matrix.shape}, but there are {num_policies} policies: give one "
                "column for each, and one row a task"
            )

    def allowed(
        self, obs: NDArray[Any], own: Ids, num_policies: int, previous: Ids, streak: NDArray[np.int64]
    ) -> Allowed:
        """``(N, K)``; at least one candidate of every row.

        Args:
            previous: ``(N,)`` who acted in the step before, and ``streak`` for how many on end.

        Raises:
            ValueError: A function returns another shape, or no booleans; the matrix is of another number of policies.
        """
        rows = np.arange(len(own))
        self.check_width(num_policies)
        allowed = np.ones((len(own), num_policies), np.bool_) if self._matrix is None else self._matrix[self._task_ids]
        for function in self._functions:
            with RaisedBy("candidate_mask", function):
                said = to_numpy(function(self._outside(obs), self._task_ids.copy()))
            if said.shape != allowed.shape or said.dtype != np.bool_:
                raise ValueError(
                    f"candidate_mask must return booleans of shape {allowed.shape}, one a sub-environment and policy, "
                    f"got {said.dtype} of shape {said.shape}"
                )
            allowed &= said
        for memory in self._memories:
            with RaisedBy("candidate_mask", memory):
                said = np.asarray(memory.lends(num_policies))
            if said.shape != (self.num_tasks, num_policies) or said.dtype != np.bool_:
                raise ValueError(
                    f"candidate_mask: a gate's lends({num_policies}) must return booleans of shape "
                    f"{(self.num_tasks, num_policies)}, one a task and policy, got {said.dtype} of shape {said.shape}"
                )
            lends = said[self._task_ids]
            lends[rows, own] = True
            allowed &= lends
        for limit in self._limits:
            over = limit.over(own, previous, streak)
            allowed[rows[over], previous[over]] = False
        nobody = ~allowed.any(axis=1)
        allowed[rows[nobody], own[nobody]] = True
        return allowed

    @property
    def counts(self) -> bool:
        """Whether ``streak`` matters."""
        return bool(self._limits)

    @property
    def has_matrix(self) -> bool:
        """Whether policies are allowed task by task."""
        return self._matrix is not None

    def add_policy(self, tasks: Sequence[int] | None) -> None:
        """One more column: allowed in ``tasks``, by default in all."""
        if self._matrix is not None:
            column = np.zeros((len(self._matrix), 1), np.bool_)
            column[slice(None) if tasks is None else list(tasks)] = True
            self._matrix = np.concatenate([self._matrix, column], axis=1)

    def stepped(self, task_ids: Ids, behavior_ids: Ids) -> None:
        """``(M,)`` stored transitions."""
        for memory in self._memories:
            memory.stepped(task_ids, behavior_ids)

    def ended(self, task_ids: Ids, successes: NDArray[np.bool_], success_known: bool) -> None:
        """``(E,)`` episodes that ended."""
        for memory in self._memories:
            memory.ended(task_ids, successes, success_known)

    def state_dict(self) -> dict[str, dict[str, NDArray[Any]]]:
        """The gates' memory, by their place among the masks."""
        return {
            str(i): {name: array.copy() for name, array in memory.arrays.items()}
            for i, memory in enumerate(self._memories)
        }

    def load_state_dict(self, state: Mapping[str, Mapping[str, NDArray[Any]]]) -> None:
        """Continue from a `state_dict` of the same form."""
        for i, memory in enumerate(self._memories):
            memory.arrays = {name: array.copy() for name, array in state[str(i)].items()}

    def _add(self, mask: Any) -> None:
        if isinstance(mask, AllOf):
            for each in mask.masks:
                self._add(each)
        elif isinstance(mask, type):
            raise TypeError(f"candidate_mask: {mask.__name__} is a class, expected an object: {mask.__name__}(...)")
        elif isinstance(mask, AtMost):
            self._limits.append(mask)
        elif hasattr(mask, "start"):
            self._memories.append(mask.start(self.num_tasks))
        elif callable(mask):
            self._functions.append(mask)
        else:
            matrix = to_numpy(mask)
            if matrix.dtype != np.bool_ or matrix.ndim != 2 or len(matrix) != self.num_tasks:
                raise ValueError(
                    f"candidate_mask must be booleans of shape ({self.num_tasks}, K), one row a task, a function "
                    f"(obs, task_ids) -> (N, K), or a gate; got {matrix.dtype} of shape {matrix.shape}"
                )
            if self._matrix is not None and self._matrix.shape != matrix.shape:
                raise ValueError(
                    f"candidate_mask: two matrices of different shapes, {self._matrix.shape} and {matrix.shape}"
                )
            self._matrix = matrix.copy() if self._matrix is None else self._matrix & matrix
