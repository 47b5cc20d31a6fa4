"""Task sets are immutable and consistent."""

from __future__ import annotations

import dataclasses
from typing import Any

import gymnasium as gym
import pytest

import qmp_envs
from qmp_envs import TaskSet

FACTS: dict[str, Any] = {
    "env_id": "Any-v0",
    "task_names": ("a", "b"),
    "horizon": 10,
    "success_rule": "at the goal",
    "min_reward": -1.0,
    "reward_version": "dense",
    "source": "here",
}


@pytest.mark.parametrize("env_id", qmp_envs.TASK_SETS)
def test_every_task_set_is_complete(env_id: str) -> None:
    task_set = qmp_envs.TASK_SETS[env_id]
    assert task_set.env_id == env_id
    assert task_set.num_tasks == len(task_set.task_names)
    assert all(name and all(c.isalnum() or c in "_-." for c in name) for name in task_set.task_names)
    assert task_set.success_rule
    assert task_set.source
    hash(task_set)
    with pytest.raises(dataclasses.FrozenInstanceError):
        task_set.horizon = 1  # type: ignore[misc]


def test_domain_matrix_holds_distributions() -> None:
    assert TaskSet(**FACTS, domain_matrix=((2 / 3, 1 / 3), (0.0, 1.0))).num_tasks == 2
    for matrix, complaint in {
        ((1.0, 0.0),): "domain_matrix needs 2 rows, got 1",
        ((1.0, 0.0), (0.5, 0.4)): r"domain_matrix\[1\] must hold 2 probabilities that sum to 1",
        ((1.5, -0.5), (0.0, 1.0)): r"domain_matrix\[0\]",
        ((1.0,), (0.0, 1.0)): r"domain_matrix\[0\]",
    }.items():
        with pytest.raises(ValueError, match=complaint):
            TaskSet(**FACTS, domain_matrix=matrix)


def test_wrong_facts() -> None:
    with pytest.raises(ValueError, match="task_names must be non-empty and distinct"):
        TaskSet(**{**FACTS, "task_names": ("a", "a")})
    with pytest.raises(ValueError, match="task_names must be non-empty and distinct"):
        TaskSet(**{**FACTS, "task_names": ()})
    with pytest.raises(ValueError, match="horizon must be at least 1 step, got 0"):
        TaskSet(**{**FACTS, "horizon": 0})


def test_unknown_reduction() -> None:
    with pytest.raises(ValueError, match=r"episode_metrics\['hit'\] must be one of .*, got 'sum'"):
        TaskSet(**FACTS, episode_metrics={"hit": "sum"})  # type: ignore[dict-item]


@pytest.mark.parametrize("env_id", qmp_envs.TASK_SETS)
def test_episode_metrics_are_reported_at_every_step(env_id: str) -> None:
    envs = gym.make_vec(env_id, num_envs=1)
    envs.reset(seed=0)
    infos = envs.step(envs.action_space.sample())[4]
    envs.close()
    assert dict(envs.unwrapped.episode_metrics) == qmp_envs.TASK_SETS[env_id].episode_metrics  # type: ignore[attr-defined]
    for key in qmp_envs.TASK_SETS[env_id].episode_metrics:
        assert infos[f"_{key}"].tolist() == [True], key
