"""What a learner, a script or a report needs to know of a multi-task environment besides its spaces."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, TypeAlias, get_args

import numpy as np
import numpy.typing as npt

Array: TypeAlias = npt.NDArray[Any]
Reduction: TypeAlias = Literal["any", "last", "mean", "max"]
Relabel: TypeAlias = Callable[[Array, Array, Array, Array], npt.NDArray[np.float64]]


@dataclass(frozen=True, kw_only=True)
class TaskSet:
    """Immutable facts of one task set. Task ``t`` is position ``t`` of `task_names` everywhere.

    Attributes:
        env_id: Gymnasium id, version included.
        task_names: T names, usable as parts of file names and logging tags.
        horizon: control steps after which an episode is truncated.
        success_rule: in words, when ``infos["success"]`` is true.
        min_reward: the label that UDS gives to other tasks' transitions: a lower bound of the reward, but for
            Walker4, whose rewards have none.
        reward_version: names the reward function, so that logged returns can be compared.
        source: where tasks, physics and reward come from.
        domain_matrix: T rows of T probabilities of the hand-made mixture QMP-Domain (row: task that collects,
            column: policy that acts), or None where no such mixture is defined.
        episode_metrics: what else is worth reporting of an episode besides return, length and success: key in
            ``infos`` -> how the steps' values become the episode's.
        relabel: ``relabel(obs (M, *O), actions (M, *A), next_obs (M, *O), task_ids (M,)) -> rewards (M,)``, what M
            transitions of any tasks would have earned in ``task_ids``, for data sharing (CDS); or None where the
            transitions do not tell. Episodes may end elsewhere in another task: it says nothing of terminations.

    Raises:
        ValueError: names that repeat, a horizon below 1, an unknown reduction, or ``domain_matrix`` rows that are no
            distributions.
    """

    env_id: str
    task_names: tuple[str, ...]
    horizon: int
    success_rule: str
    min_reward: float
    reward_version: str
    source: str
    domain_matrix: tuple[tuple[float, ...], ...] | None = None
    episode_metrics: Mapping[str, Reduction] = field(default_factory=dict, hash=False)
    relabel: Relabel | None = None

    def __post_init__(self) -> None:
        if not self.task_names or len(set(self.task_names)) != len(self.task_names):
            raise ValueError(f"task_names must be non-empty and distinct, got {self.task_names}")
        if self.horizon < 1:
            raise ValueError(f"horizon must be at least 1 step, got {self.horizon}")
        for key, reduction in self.episode_metrics.items():
            if reduction not in get_args(Reduction):
                raise ValueError(f"episode_metrics[{key!r}] must be one of {get_args(Reduction)}, got {reduction!r}")
        if self.domain_matrix is None:
            return
        if len(self.domain_matrix) != self.num_tasks:
            raise ValueError(f"domain_matrix needs {self.num_tasks} rows, got {len(self.domain_matrix)}")
        for task, row in enumerate(self.domain_matrix):
            if len(row) != self.num_tasks or min(row) < 0 or abs(sum(row) - 1) > 1e-9:
                raise ValueError(
                    f"domain_matrix[{task}] must hold {self.num_tasks} probabilities that sum to 1, got {row}"
                )

    @property
    def num_tasks(self) -> int:
        """T, the number of tasks."""
        return len(self.task_names)


class OfTaskSet:
    """What vector environments of every kind say of their task set.

    Attributes:
        task_set: its facts.
    """

    task_set: TaskSet

    @property
    def task_names(self) -> tuple[str, ...]:
        """Names of the T tasks."""
        return self.task_set.task_names

    @property
    def num_tasks(self) -> int:
        """T, the number of tasks, whether or not each has a sub-environment here."""
        return self.task_set.num_tasks
