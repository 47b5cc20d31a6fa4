"""How much each task's scores vary: the unit of relative margins."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from qmp_collect.switch import Ids

_KEPT = 0.99  # of what was seen before, at every step on which a task decides


class Spread(NamedTuple):
    """Running moments of the tasks' own scores, ``(T,)`` each, with exponentially fading weights."""

    weight: NDArray[np.float64]
    mean: NDArray[np.float64]
    square: NDArray[np.float64]

    @staticmethod
    def nothing(num_tasks: int) -> Spread:
        """Before any score was seen."""
        return Spread(*np.zeros((3, num_tasks)))

    def seen(self, task_ids: Ids, scores: NDArray[Any]) -> Spread:
        """With one more step, in which ``(M,)`` rows had these scores. A task without a row keeps what it has."""
        num_tasks = len(self.weight)
        count = np.bincount(task_ids, minlength=num_tasks)
        kept = np.where(count > 0, _KEPT, 1.0)
        sums = [np.bincount(task_ids, scores.astype(np.float64) ** power, num_tasks) for power in (0, 1, 2)]
        moments = [kept * old + (1.0 - kept) * new / np.maximum(count, 1) for old, new in zip(self, sums, strict=True)]
        return Spread(*moments)

    def std(self) -> NDArray[np.float64]:
        """``(T,)`` standard deviations, 0 for a task of which nothing was seen."""
        weight = np.where(self.weight > 0, self.weight, 1.0)
        variance = self.square / weight - (self.mean / weight) ** 2
        deviations: NDArray[np.float64] = np.sqrt(np.maximum(variance, 0.0))
        return deviations
