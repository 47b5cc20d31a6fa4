"""What a stretch of collection amounted to: steps, episodes, who acted, and where the time went."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from copy import copy
from dataclasses import dataclass, field, fields
from typing import Any

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, eq=False)
class CollectStats:
    """Statistics of a stretch of collection. ``a + b`` is the two stretches together.

    Attributes:
        steps_per_task: ``(T,)`` stored transitions.
        returns: ``(E,)`` undiscounted returns of the episodes that ended, in the order in which they ended.
        lens: ``(E,)`` their lengths in steps.
        successes: ``(E,)`` whether any step of the episode was a success.
        episode_task_ids: ``(E,)`` their tasks.
        metrics: by name, ``(E,)`` what else was measured of them; see `qmp_collect.episodes`.
        behavior_counts: ``(T, K)`` steps in task ``i`` that policy ``j`` acted in; random actions do not count.
        decisions: ``(T,)`` times that the switch compared Q-values.
        q_gap_sum: ``(T,)`` sum over those of ``Q_i(chosen) - Q_i(own)``, as scored.
        success_known: of the episodes, how many ended after the environment had reported a success flag at all. Where
            it is 0, nobody knows whether ``successes`` are failures, and averages of them are left out.
        unfinished: calls of ``collect`` that ``stop`` ended before they had collected enough.
        num_groups: groups of rows (``own_ids``) that the tasks belong to, ``T / num_groups`` to each, in order.
        act_time, env_time, store_time: seconds spent asking callables, stepping environments, storing. ``collect``
            fills them; a caller's own loop leaves ``env_time`` at 0.
    """

    steps_per_task: NDArray[np.int64]
    returns: NDArray[np.float64]
    lens: NDArray[np.int64]
    successes: NDArray[np.bool_]
    episode_task_ids: NDArray[np.int64]
    behavior_counts: NDArray[np.int64]
    decisions: NDArray[np.int64]
    q_gap_sum: NDArray[np.float64]
    metrics: Mapping[str, NDArray[np.float64]] = field(default_factory=dict)
    success_known: int = 0
    unfinished: int = 0
    num_groups: int = 1
    act_time: float = 0.0
    env_time: float = 0.0
    store_time: float = 0.0

    @property
    def n_collected_steps(self) -> int:
        """Stored transitions, summed over tasks."""
        return int(self.steps_per_task.sum())

    @property
    def n_collected_episodes(self) -> int:
        """Episodes that ended, summed over tasks."""
        return len(self.returns)

    @property
    def collect_time(self) -> float:
        """Seconds, all three parts."""
        return self.act_time + self.env_time + self.store_time

    @property
    def q_gap(self) -> NDArray[np.float64]:
        """``(T,)`` mean of ``Q_i(chosen) - Q_i(own)`` over the switch's decisions; ``nan`` where it made none."""
        return _mean(self.q_gap_sum, self.decisions)

    @property
    def mixture(self) -> NDArray[np.float64]:
        """``(T, K)`` fraction of task ``i``'s steps in which policy ``j`` acted; ``nan`` rows for tasks without any."""
        return _mean(self.behavior_counts, self.behavior_counts.sum(axis=1, keepdims=True))

    @property
    def own_fraction(self) -> NDArray[np.float64]:
        """``(T,)`` fraction of task ``i``'s steps in which its own policy acted; ``nan`` for tasks without any."""
        tasks = np.arange(len(self.steps_per_task))
        return self.mixture[tasks, tasks % (len(tasks) // self.num_groups)]

    def __str__(self) -> str:
        """One line; the arrays are in the fields."""
        num_tasks, others = len(self.steps_per_task), 1.0 - self.own_fraction
        parts = [f"{name} {_nanmean(values):.4g}" for name, values in self.episode_means().items()]
        means = f"; means over tasks: {', '.join(parts)}" if self.n_collected_episodes else ""
        acted = f"; others' policies acted in {_nanmean(others):.0%}" if self.behavior_counts.any() else ""
        counts = f"{self.n_collected_steps} steps and {self.n_collected_episodes} episodes of {num_tasks} tasks"
        return f"CollectStats({counts}{means}{acted})"

    def by_group(self) -> tuple[CollectStats, ...]:
        """The statistics of each group, its tasks numbered from 0. Of the seconds, each has an equal part."""
        size = len(self.steps_per_task) // self.num_groups
        return (self,) if self.num_groups == 1 else tuple(self._group(g, size) for g in range(self.num_groups))

    def _group(self, group: int, size: int) -> CollectStats:
        tasks, episodes = slice(group * size, (group + 1) * size), self.episode_task_ids // size == group
        of_tasks = {name: getattr(self, name)[tasks].copy() for name in _OF_TASKS}
        of_episodes = {name: getattr(self, name)[episodes] for name in _OF_EPISODES if name != "metrics"}
        seconds = {name: getattr(self, name) / self.num_groups for name in _SECONDS}
        of_episodes["episode_task_ids"] -= group * size
        return CollectStats(
            **of_tasks,
            **of_episodes,
            **seconds,
            metrics={name: values[episodes] for name, values in self.metrics.items()},
            success_known=min(self.success_known, int(episodes.sum())),
            unfinished=self.unfinished,
        )

    def per_task(self, values: NDArray[Any]) -> NDArray[np.float64]:
        """``(T,)`` means of a per-episode array such as ``returns``; ``nan`` for tasks without an episode."""
        num_tasks = len(self.steps_per_task)
        return _mean(
            np.bincount(self.episode_task_ids, weights=values, minlength=num_tasks),
            np.bincount(self.episode_task_ids, minlength=num_tasks),
        )

    def episode_means(self) -> dict[str, NDArray[np.float64]]:
        """``(T,)`` means over episodes of return, length, success (if there are flags) and every metric, by name."""
        success = {"success": self.successes} if self.success_known or not len(self.successes) else {}
        values = {"return": self.returns, "length": self.lens, **success, **self.metrics}
        return {name: self.per_task(of_episodes) for name, of_episodes in values.items()}

    def scalars(self, task_names: Sequence[str] | None = None) -> dict[str, float]:
        """Numbers for a logger, by tag. What has no value (an average over no episode, unknown success) is left out.

        ``charts/*`` average over tasks, each task counting the same; ``tasks/<name>/*`` are one task's;
        ``qmp/own_fraction/<i>`` is the fraction of task ``i``'s steps in which its own policy acted. The whole
        `mixture`, ``T * K`` numbers, is not among them.

        Raises:
            ValueError: not ``T`` names, or a name twice.
        """
        num_tasks = len(self.steps_per_task)
        names = [str(t) for t in range(num_tasks)] if task_names is None else list(task_names)
        if len(names) != num_tasks:
            raise ValueError(f"expected {num_tasks} task names, one per task, got {len(names)}: {names}")
        if len(set(names)) != num_tasks:
            raise ValueError(f"expected a name of its own for every task, got {names}")

        per_task = self.episode_means()
        found = {f"charts/{name}": _nanmean(values) for name, values in per_task.items()}
        for name, values in per_task.items():
            found |= {f"tasks/{names[t]}/{name}": float(values[t]) for t in range(num_tasks)}
        found |= {f"qmp/q_gap/{t}": float(gap) for t, gap in enumerate(self.q_gap)}
        own = self.own_fraction
        found |= {f"qmp/own_fraction/{t}": float(fraction) for t, fraction in enumerate(own)}
        found["qmp/foreign_fraction"] = 1.0 - _nanmean(own)
        return {tag: value for tag, value in found.items() if not np.isnan(value)}

    def __add__(self, other: CollectStats) -> CollectStats:
        if not isinstance(other, CollectStats):
            return NotImplemented
        num_tasks, num_policies = self.behavior_counts.shape
        tally = Tally(num_tasks, num_policies, self.metrics, self.num_groups)
        tally.absorb(self)
        tally.absorb(other)
        return tally.stats()

    @staticmethod
    def empty(num_tasks: int, num_policies: int, metrics: Iterable[str] = (), num_groups: int = 1) -> CollectStats:
        """Statistics of nothing, the neutral element of ``+`` for statistics with these ``metrics`` and groups."""
        return CollectStats(
            steps_per_task=np.zeros(num_tasks, np.int64),
            returns=np.zeros(0),
            lens=np.zeros(0, np.int64),
            successes=np.zeros(0, np.bool_),
            episode_task_ids=np.zeros(0, np.int64),
            metrics={name: np.zeros(0) for name in metrics},
            behavior_counts=np.zeros((num_tasks, num_policies), np.int64),
            decisions=np.zeros(num_tasks, np.int64),
            q_gap_sum=np.zeros(num_tasks),
            num_groups=num_groups,
        )


# Fields with an entry for each episode are joined; all others are summed.
_OF_EPISODES = ("returns", "lens", "successes", "episode_task_ids", "metrics")
_SUMMED = tuple(field.name for field in fields(CollectStats) if field.name not in (*_OF_EPISODES, "num_groups"))
_OF_TASKS = ("steps_per_task", "behavior_counts", "decisions", "q_gap_sum")
_SECONDS = ("act_time", "env_time", "store_time")


class Tally:
    """Accumulates `CollectStats`: a few array additions per vector step.

    Attributes:
        sums: running sums of the fields of `CollectStats` that are sums, by name.
    """

    def __init__(self, num_tasks: int, num_policies: int, metrics: Iterable[str] = (), num_groups: int = 1) -> None:
        empty = CollectStats.empty(num_tasks, num_policies, metrics, num_groups)
        self._num_tasks, self._num_groups = num_tasks, num_groups
        self.sums: dict[str, Any] = {name: getattr(empty, name) for name in _SUMMED}
        self._episodes = [_of_episodes(empty)]

    def add_steps(self, task_ids: NDArray[np.int64], behavior_ids: NDArray[np.int64], num_policies: int) -> None:
        """``(M,)`` each; a behaviour of -1 is a random action."""
        t, counts = self._num_tasks, self.sums["behavior_counts"]
        width = max(num_policies, counts.shape[1])
        cells = (task_ids * width + behavior_ids)[behavior_ids >= 0]
        self._add("steps_per_task", np.bincount(task_ids, minlength=t))
        self._add("behavior_counts", np.bincount(cells, minlength=t * width).reshape(t, width))

    def add_decisions(self, task_ids: NDArray[np.int64], gaps: NDArray[np.floating[Any]]) -> None:
        """``(M,)`` each: ``Q_i(chosen) - Q_i(own)``."""
        self._add("decisions", np.bincount(task_ids, minlength=self._num_tasks))
        self._add("q_gap_sum", np.bincount(task_ids, weights=gaps, minlength=self._num_tasks))

    def add_episodes(self, episodes: Mapping[str, Any]) -> None:
        """Episodes that just ended: the fields of `CollectStats` that have an entry for each of them."""
        self._episodes.append(dict(episodes))

    def check(self, stats: CollectStats) -> None:
        """`ValueError` for statistics of other tasks, of other groups, or with other metrics."""
        if len(stats.steps_per_task) != self._num_tasks:
            raise ValueError(
                f"these statistics are of {self._num_tasks} tasks, those to be added of {len(stats.steps_per_task)}"
            )
        if stats.num_groups != self._num_groups:
            raise ValueError(
                f"these statistics are of {self._num_groups} groups, those to be added of {stats.num_groups}"
            )
        expected, got = sorted(self._episodes[0]["metrics"]), sorted(stats.metrics)
        if expected != got:
            raise ValueError(f"these statistics have the metrics {expected}, those to be added have {got}")

    def absorb(self, stats: CollectStats) -> None:
        """Add a finished stretch; costs as much as that stretch has episodes, however many there were before.

        Raises:
            ValueError: See `check`.
        """
        self.check(stats)
        for name in _SUMMED:
            self._add(name, getattr(stats, name))
        if stats.n_collected_episodes:
            self._episodes.append(_of_episodes(stats))

    def stats(self) -> CollectStats:
        """A snapshot."""
        found: dict[str, Any] = {name: copy(value) for name, value in self.sums.items()}
        for name in _OF_EPISODES:
            column = [episodes[name] for episodes in self._episodes]
            if name == "metrics":
                found[name] = {key: np.concatenate([part[key] for part in column]) for key in column[0]}
            else:
                found[name] = np.concatenate(column)
        return CollectStats(**found, num_groups=self._num_groups)

    def _add(self, name: str, value: Any) -> None:
        total = self.sums[name]
        if np.shape(value) != np.shape(total):  # more policies are known to one than to the other
            total, value = _same_width(total, value)
        self.sums[name] = total + value


def _of_episodes(stats: CollectStats) -> dict[str, Any]:
    return {name: getattr(stats, name) for name in _OF_EPISODES}


def _same_width(a: NDArray[Any], b: NDArray[Any]) -> tuple[NDArray[Any], NDArray[Any]]:
    """Both with as many columns as the wider one: more policies may be known to one than to the other."""
    width = max(a.shape[1], b.shape[1])
    return tuple(np.pad(x, ((0, 0), (0, width - x.shape[1]))) for x in (a, b))  # type: ignore[return-value]


def _mean(total: NDArray[Any], count: NDArray[Any]) -> NDArray[np.float64]:
    """``total / count``, ``nan`` where there is nothing to average."""
    with np.errstate(invalid="ignore"):
        mean: NDArray[np.float64] = np.true_divide(total, count)  # 0 / 0
    return mean


def _nanmean(values: NDArray[np.float64]) -> float:
    return float(np.nanmean(values)) if not np.isnan(values).all() else float("nan")
