"""What a stretch of collection amounted to: steps, episodes, who acted, and where the time went."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
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
        behavior_counts: ``(T, K)`` steps in task ``i`` that policy ``j`` acted in; random actions do not count.
        decisions: ``(T,)`` times that the switch compared Q-values.
        q_gap_sum: ``(T,)`` sum over those of ``Q_i(chosen) - Q_i(own)``, as scored.
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

    def per_task(self, values: NDArray[Any]) -> NDArray[np.float64]:
        """``(T,)`` means of a per-episode array such as ``returns``; ``nan`` for tasks without an episode."""
        num_tasks = len(self.steps_per_task)
        return _mean(
            np.bincount(self.episode_task_ids, weights=values, minlength=num_tasks),
            np.bincount(self.episode_task_ids, minlength=num_tasks),
        )

    def scalars(self, task_names: Sequence[str] | None = None) -> dict[str, float]:
        """Numbers for a logger, by tag. What has no value yet (an average over no episode) is left out.

        ``charts/*`` average over tasks, each task counting the same; ``tasks/<name>/*`` are one task's;
        ``qmp/mixture/<i>/<j>`` is the fraction of task ``i``'s steps in which policy ``j`` acted.
        """
        num_tasks = len(self.steps_per_task)
        names = [str(t) for t in range(num_tasks)] if task_names is None else list(task_names)
        if len(names) != num_tasks:
            raise ValueError(f"expected {num_tasks} task names, one per task, got {len(names)}: {names}")

        episodic = {"return": self.returns, "length": self.lens, "success": self.successes}
        per_task = {name: self.per_task(values) for name, values in episodic.items()}
        found = {f"charts/{name}": _nanmean(values) for name, values in per_task.items()}
        for name, values in per_task.items():
            found |= {f"tasks/{names[t]}/{name}": float(values[t]) for t in range(num_tasks)}
        found |= {f"qmp/mixture/{i}/{j}": float(p) for (i, j), p in np.ndenumerate(self.mixture)}
        found |= {f"qmp/q_gap/{t}": float(gap) for t, gap in enumerate(self.q_gap)}
        own = np.arange(min(self.behavior_counts.shape))
        found["qmp/foreign_fraction"] = 1.0 - _nanmean(self.mixture[own, own])
        return {tag: value for tag, value in found.items() if not np.isnan(value)}

    def __add__(self, other: CollectStats) -> CollectStats:
        if not isinstance(other, CollectStats):
            return NotImplemented
        joined = ("returns", "lens", "successes", "episode_task_ids")
        merged: dict[str, Any] = {}
        for field in fields(self):
            a, b = getattr(self, field.name), getattr(other, field.name)
            if field.name == "behavior_counts":
                a, b = _same_width(a, b)
            merged[field.name] = np.concatenate([a, b]) if field.name in joined else a + b
        return CollectStats(**merged)

    @staticmethod
    def empty(num_tasks: int, num_policies: int) -> CollectStats:
        """Statistics of nothing, the neutral element of ``+``."""
        return CollectStats(
            steps_per_task=np.zeros(num_tasks, np.int64),
            returns=np.zeros(0),
            lens=np.zeros(0, np.int64),
            successes=np.zeros(0, np.bool_),
            episode_task_ids=np.zeros(0, np.int64),
            behavior_counts=np.zeros((num_tasks, num_policies), np.int64),
            decisions=np.zeros(num_tasks, np.int64),
            q_gap_sum=np.zeros(num_tasks),
        )


class Tally:
    """Accumulates `CollectStats`: a few array additions per vector step."""

    def __init__(self, num_tasks: int, num_policies: int) -> None:
        self._num_tasks = num_tasks
        self._steps = np.zeros(num_tasks, np.int64)
        self._counts = np.zeros((num_tasks, num_policies), np.int64)
        self._decisions = np.zeros(num_tasks, np.int64)
        self._gap_sum = np.zeros(num_tasks)
        self._episodes: list[tuple[NDArray[Any], ...]] = []
        self.act_time = self.env_time = self.store_time = 0.0

    def add_steps(self, task_ids: NDArray[np.int64], behavior_ids: NDArray[np.int64], num_policies: int) -> None:
        """``(M,)`` each; a behaviour of -1 is a random action."""
        t = self._num_tasks
        self._steps += np.bincount(task_ids, minlength=t)
        if num_policies > self._counts.shape[1]:
            self._counts, _ = _same_width(self._counts, np.empty((t, num_policies), np.int64))
        width = self._counts.shape[1]
        cells = (task_ids * width + behavior_ids)[behavior_ids >= 0]
        self._counts += np.bincount(cells, minlength=t * width).reshape(t, width)

    def add_decisions(self, task_ids: NDArray[np.int64], gaps: NDArray[np.floating[Any]]) -> None:
        """``(M,)`` each: ``Q_i(chosen) - Q_i(own)``."""
        self._decisions += np.bincount(task_ids, minlength=self._num_tasks)
        self._gap_sum += np.bincount(task_ids, weights=gaps, minlength=self._num_tasks)

    def add_episodes(
        self,
        returns: NDArray[np.float64],
        lens: NDArray[np.int64],
        successes: NDArray[np.bool_],
        task_ids: NDArray[np.int64],
    ) -> None:
        """``(E,)`` each, episodes that just ended."""
        self._episodes.append((returns, lens, successes, task_ids))

    def absorb(self, stats: CollectStats) -> None:
        """Add a finished stretch; costs as much as that stretch has episodes, however many there were before."""
        self._steps += stats.steps_per_task
        self._counts, counts = _same_width(self._counts, stats.behavior_counts)
        self._counts = self._counts + counts
        self._decisions += stats.decisions
        self._gap_sum += stats.q_gap_sum
        if len(stats.returns):
            self._episodes.append((stats.returns, stats.lens, stats.successes, stats.episode_task_ids))
        self.act_time += stats.act_time
        self.env_time += stats.env_time
        self.store_time += stats.store_time

    def stats(self) -> CollectStats:
        """A snapshot."""
        empty = CollectStats.empty(*self._counts.shape)
        columns = zip(
            (empty.returns, empty.lens, empty.successes, empty.episode_task_ids), *self._episodes, strict=True
        )
        returns, lens, successes, task_ids = (np.concatenate(column) for column in columns)
        return CollectStats(
            steps_per_task=self._steps.copy(),
            returns=returns,
            lens=lens,
            successes=successes,
            episode_task_ids=task_ids,
            behavior_counts=self._counts.copy(),
            decisions=self._decisions.copy(),
            q_gap_sum=self._gap_sum.copy(),
            act_time=self.act_time,
            env_time=self.env_time,
            store_time=self.store_time,
        )


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
