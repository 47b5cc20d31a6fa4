"""A collector's books: how much it has stored since construction, and the statistics of its calls."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from qmp_collect.states import check_like
from qmp_collect.stats import CollectStats, Tally
from qmp_collect.switch import Ids

_OF_EPISODES = ("returns", "lens", "successes", "episode_task_ids")
_ANY_SHAPE = (*_OF_EPISODES, "metrics", "behavior_counts")  # they grow


class Ledger:
    """Counters, and two tallies: of the stretch that is being collected, and of what came before it.

    Args:
        metrics: what is measured of episodes; ``None``: whatever the first statistics to be absorbed have.

    Attributes:
        num_steps, num_episodes: stored transitions and finished episodes since construction, never cleared.
    """

    def __init__(self, num_tasks: int, num_policies: int, metrics: Iterable[str] | None, num_groups: int = 1) -> None:
        self._form = num_tasks, num_policies, tuple(metrics or ()), num_groups
        self._told = self._known = metrics is not None  # what is measured of episodes
        self.num_steps = self.num_episodes = 0
        self.clear(num_policies)

    def clear(self, num_policies: int) -> None:
        """Forget the statistics; as many policies are known by now."""
        self._form = self._form[0], num_policies, *self._form[2:]
        self._past, self._now = Tally(*self._form), Tally(*self._form)

    def begin(self, num_policies: int, resume: bool = False) -> None:
        """A new stretch begins, or the last one goes on; as many policies are known by now."""
        self._form = self._form[0], num_policies, *self._form[2:]
        if resume:
            self._now.sums["unfinished"] = 0
            return
        self._past.absorb(self._now.stats())
        self._now = Tally(*self._form)

    def add(self, **sums: float) -> None:
        """Add to fields of `CollectStats` that are sums."""
        for name, value in sums.items():
            self._now.sums[name] += value

    def add_steps(self, task_ids: Ids, behavior_ids: Ids, num_policies: int) -> None:
        """``(M,)`` stored transitions."""
        self.num_steps += len(task_ids)
        self._now.add_steps(task_ids, behavior_ids, num_policies)

    def add_decisions(self, task_ids: Ids, gaps: NDArray[np.floating[Any]]) -> None:
        """See `Tally`."""
        self._now.add_decisions(task_ids, gaps)

    def add_episodes(self, episodes: Mapping[str, Any], task_ids: Ids, success_known: bool) -> None:
        """Episodes that just ended, of ``(E,)`` tasks."""
        self.num_episodes += len(task_ids)
        self.add(success_known=len(task_ids) * success_known)
        self._now.add_episodes({**episodes, "episode_task_ids": task_ids})

    def check(self, stats: CollectStats) -> None:
        """`ValueError` unless `absorb` will take them."""
        if not self._known:
            self._measure(stats.metrics)
        self._now.check(stats)

    def absorb(self, stats: CollectStats) -> None:
        """Steps and episodes that were collected elsewhere, as a part of the present stretch."""
        self.check(stats)
        self.num_steps += stats.n_collected_steps
        self.num_episodes += stats.n_collected_episodes
        self._now.absorb(stats)

    def stretch(self) -> CollectStats:
        """Statistics of the present stretch."""
        return self._now.stats()

    def total(self) -> CollectStats:
        """Statistics since they were last cleared."""
        return self._past.stats() + self._now.stats()

    def state_dict(self) -> dict[str, Any]:
        """Counters, and the statistics of the present stretch and of those before it."""
        return {
            "num_steps": self.num_steps,
            "num_episodes": self.num_episodes,
            "stats": {name: _saved(tally.stats()) for name, tally in self._tallies().items()},
        }

    def check_state(self, state: Mapping[str, Any]) -> None:
        """`ValueError` unless it is of as many tasks and of the same metrics."""
        num_tasks = len(np.atleast_1d(state["stats"]["past"]["steps_per_task"]))
        if num_tasks != self._form[0]:
            raise ValueError(f"the state is of {num_tasks} tasks, this collector has {self._form[0]}")
        for name in ("num_steps", "num_episodes"):
            check_like(name, state[name], getattr(self, name))
        check_like("stats", dict.fromkeys(state["stats"]), dict.fromkeys(self._tallies()))
        empty = _saved(CollectStats.empty(*self._form[:2], self._metrics_in(state), self._form[3]))
        for name, stats in state["stats"].items():
            _check_stats(f"stats.{name}", stats, empty)

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue from a `state_dict` that passes `check_state`."""
        self._form = *self._form[:2], self._metrics_in(state), self._form[3]
        self._known = self._told or bool(self._form[2] or state["num_steps"])
        self.clear(self._form[1])
        self.num_steps, self.num_episodes = int(state["num_steps"]), int(state["num_episodes"])
        for name, tally in self._tallies().items():
            tally.absorb(CollectStats(**copy.deepcopy(state["stats"][name]), num_groups=self._form[3]))

    def _measure(self, metrics: Iterable[str]) -> None:
        """Now it is known what is measured of episodes, of which there was none before."""
        self._form, self._known = (*self._form[:2], tuple(metrics), self._form[3]), True
        none = {name: np.zeros(0) for name in self._form[2]}
        before = [replace(tally.stats(), metrics=none) for tally in self._tallies().values()]
        self._past, self._now = Tally(*self._form), Tally(*self._form)
        for tally, stats in zip(self._tallies().values(), before, strict=True):
            tally.absorb(stats)

    def _metrics_in(self, state: Mapping[str, Any]) -> tuple[str, ...]:
        return self._form[2] if self._told else tuple(state["stats"]["past"]["metrics"])

    def _tallies(self) -> dict[str, Tally]:
        return {"past": self._past, "stretch": self._now}


def _saved(stats: CollectStats) -> dict[str, Any]:
    """What grows; the groups are the collector's."""
    return {name: copy.deepcopy(value) for name, value in vars(stats).items() if name != "num_groups"}


def _check_stats(where: str, stats: Mapping[str, Any], empty: Mapping[str, Any]) -> None:
    """`ValueError` unless they are fields of `CollectStats` of these tasks and metrics, with a column per episode."""
    growing = dict.fromkeys(_ANY_SHAPE)
    check_like(where, {**stats, **growing}, {**empty, **growing})
    check_like(f"{where}.metrics", dict.fromkeys(stats["metrics"]), dict.fromkeys(empty["metrics"]))
    columns = [(name, stats[name], empty[name]) for name in _OF_EPISODES]
    columns += [(name, stats["metrics"][name], column) for name, column in empty["metrics"].items()]
    for name, column, like in columns:
        found = getattr(column, "shape", None), getattr(column, "dtype", None)
        if found != (np.shape(stats["returns"])[:1], like.dtype) or len(column.shape) != 1:
            raise ValueError(f"state['{where}.{name}']: expected {like.dtype} with one entry per episode, got {found}")
    counts = stats["behavior_counts"]
    rows = empty["behavior_counts"].shape[:1]
    if np.shape(counts)[:1] != rows or np.ndim(counts) != 2 or counts.dtype != np.int64:
        raise ValueError(f"state['{where}.behavior_counts']: expected int64 of {rows[0]} rows, got {counts!r}")
