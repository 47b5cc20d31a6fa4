"""A transition's task is the task of the environment that made it, whoever vectorised the environments."""

from __future__ import annotations

from functools import partial
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.vector import AsyncVectorEnv, SyncVectorEnv
from gymnasium.wrappers.vector import RecordEpisodeStatistics

import qmp_envs  # noqa: F401
from qmp_collect import QMPCollector, Transitions


def collector(envs: Any, **kwargs: Any) -> QMPCollector:
    size = envs.single_action_space.shape
    policies = [lambda obs: np.zeros((len(obs), *size), np.float32)] * 3
    return QMPCollector(envs, policies, [lambda obs, actions: np.zeros(len(obs))] * 3, seed=0, **kwargs)


def labels(envs: Any, **kwargs: Any) -> list[int]:
    stored: list[Transitions] = []
    collector(envs, on_step=stored.append, **kwargs).collect(n_step=1)
    envs.close()
    return stored[0].task_ids.tolist()


def single(task: int) -> gym.Env[Any, Any]:
    return gym.make("Maze3-v0", task=task)


@pytest.mark.parametrize("vector_class", [SyncVectorEnv, AsyncVectorEnv])
@pytest.mark.parametrize("tasks", [[0, 1, 2], [2, 0, 1], [1, 1, 1], [2, 1]])
def test_of_environments_that_somebody_else_vectorised(vector_class: Any, tasks: list[int]) -> None:
    assert labels(vector_class([partial(single, task) for task in tasks])) == tasks


@pytest.mark.parametrize("mode", ["sync", "async", None, "vector_entry_point"])
def test_of_make_vec(mode: str | None) -> None:
    own = mode in ("sync", "async")
    make = partial(gym.make_vec, "Maze3-v0", num_envs=3, vectorization_mode=mode)
    assert labels(make(**({"task": 2} if own else {"task_ids": [2, 2, 2]}))) == [2, 2, 2]
    if not own:
        assert labels(make()) == [0, 1, 2]
        return
    for copies in (make(), RecordEpisodeStatistics(make())):
        with pytest.raises(ValueError, match=r"makes 3 copies of task 0: leave vectorization_mode out .* pass task="):
            collector(copies)
        copies.close()
    assert labels(make(), task_ids=[0, 0, 0]) == [0, 0, 0]  # as the caller says


def test_copies_of_the_only_task_are_meant() -> None:
    envs = gym.make_vec("PointReach-v0", num_envs=3, vectorization_mode="sync")
    one = QMPCollector(
        envs, [lambda obs: np.zeros((len(obs), 2), np.float32)], [lambda obs, actions: np.zeros(len(obs))], seed=0
    )
    assert one.task_ids.tolist() == [0, 0, 0]


def test_meta_world_in_gymnasiums_own_classes() -> None:
    envs = SyncVectorEnv([partial(gym.make, "MetaWorldMT10-v0", task=task) for task in (2, 0)])
    assert labels(envs, num_tasks=3) == [2, 0]


def test_sub_environments_without_a_task_are_numbered() -> None:
    assert labels(gym.make_vec("Pendulum-v1", num_envs=3)) == [0, 1, 2]
    assert labels(gym.make_vec("Pendulum-v1", num_envs=3, vectorization_mode="async")) == [0, 1, 2]
