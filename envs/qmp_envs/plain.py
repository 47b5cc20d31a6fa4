"""Task sets made of plain single environments, a constructor for each task."""

from __future__ import annotations

import operator
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, TypeAlias

import gymnasium as gym
import numpy as np
import numpy.typing as npt
from gymnasium.vector import AutoresetMode, SyncVectorEnv

from qmp_envs.arguments import OnDivergence, assign_tasks, checked_limit
from qmp_envs.task_set import OfTaskSet, Reduction, TaskSet

Constructor: TypeAlias = Callable[..., gym.Env[Any, Any]]


def make_single(
    task_set: TaskSet,
    constructors: Sequence[Constructor],
    task: int = 0,
    *,
    render_mode: str | None = None,
    max_episode_steps: int | None = None,
    on_divergence: OnDivergence = "raise",
) -> gym.Env[Any, Any]:
    """One task, truncated at the horizon.

    Args:
        task_set: facts of the set.
        constructors: of the tasks; given ``render_mode`` only if there is one.
        task: index of the task, 0 to T - 1.
        max_episode_steps: truncation after this many steps instead of the task set's horizon.
        on_divergence: what scripts ask of simulations; plain environments say by themselves that they end.
    """
    number = int(assign_tasks(task_set, 1, [operator.index(task)])[0])
    env = constructors[number]() if render_mode is None else constructors[number](render_mode=render_mode)
    return gym.wrappers.TimeLimit(env, checked_limit(max_episode_steps, task_set))


class PlainVectorEnv(OfTaskSet, SyncVectorEnv):
    """N single environments, one after the other in this process; sub-environment ``i`` has task ``i % T``.

    Args:
        task_set: facts of the set.
        constructors: of the tasks.
        num_envs: N.
        task_ids: (N,) task of each sub-environment.
        autoreset_mode: one of Gymnasium's three.
        kwargs: see `make_single`.
    """

    def __init__(
        self,
        task_set: TaskSet,
        constructors: Sequence[Constructor],
        num_envs: int = 1,
        *,
        task_ids: Sequence[int] | npt.NDArray[np.integer[Any]] | None = None,
        autoreset_mode: AutoresetMode | str = AutoresetMode.NEXT_STEP,
        **kwargs: Any,
    ) -> None:
        self.task_set = task_set
        self.task_ids = assign_tasks(task_set, num_envs, task_ids)
        env_fns = [partial(make_single, task_set, constructors, int(task), **kwargs) for task in self.task_ids]
        super().__init__(env_fns, autoreset_mode=AutoresetMode(autoreset_mode))

    @property
    def episode_metrics(self) -> Mapping[str, Reduction]:
        """What else than return, length and success to report of episodes: key in ``infos`` -> reduction."""
        return self.task_set.episode_metrics
