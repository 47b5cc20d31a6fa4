"""max_episode_steps, whoever is told it: gymnasium.make wraps, gymnasium.make_vec and the classes pass it on."""

from __future__ import annotations

from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.vector import SyncVectorEnv
from gymnasium.wrappers import TimeLimit, TransformObservation

import qmp_envs
from qmp_envs import TASK_SETS, PointReachEnv


def episode(env: Any) -> tuple[int, bool, bool, bool]:
    """Length, terminated, truncated, success of an episode without actions."""
    env.reset(seed=0)
    steps = 0
    while True:
        *_, terminated, truncated, info = env.step(np.zeros(env.action_space.shape, np.float32))
        steps += 1
        if terminated or truncated:
            return steps, terminated, truncated, info["success"]


@pytest.mark.parametrize("limit", [3, 27])
@pytest.mark.parametrize("env_id", ["PointReach-v0", "Maze3-v0", "MetaWorldCDS-v0", "MetaWorldMT10-v0"])
def test_of_make(env_id: str, limit: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Below the horizon or above it, which is 20 here."""
    single = gym.make(env_id, max_episode_steps=limit)
    monkeypatch.setattr(single.unwrapped, "_limit", 20)
    assert episode(single)[:3] == (limit, False, True)
    assert episode(gym.make(env_id, max_episode_steps=limit)) == episode(
        getattr(qmp_envs, qmp_envs._SETS[env_id][2])(env_id, max_episode_steps=limit)
    )


def test_success_at_the_end_is_success_at_the_limit() -> None:
    assert episode(gym.make("Walker4-v0", task=2, max_episode_steps=3)) == (3, False, True, True)
    assert episode(qmp_envs.WalkerEnv("Walker4-v0", task=2, max_episode_steps=3)) == (3, False, True, True)


def test_without_a_limit_it_is_the_horizon() -> None:
    assert TASK_SETS["PointReach-v0"].horizon == 20
    for env in (
        gym.make("PointReach-v0"),
        gym.make("PointReach-v0", max_episode_steps=-1),
        PointReachEnv("PointReach-v0"),
    ):
        assert episode(env)[0] == 20


def test_of_a_wrapper_anywhere_and_only_while_it_is_there() -> None:
    inner = PointReachEnv("PointReach-v0")
    space = inner.observation_space
    wrapped = TransformObservation(TimeLimit(TransformObservation(inner, abs, space), 31), abs, space)
    assert episode(wrapped)[0] == 31
    assert episode(inner)[0] == 20
    envs = SyncVectorEnv([lambda limit=limit: gym.make("PointReach-v0", max_episode_steps=limit) for limit in (2, 30)])
    envs.reset(seed=0)
    truncated = [envs.step(np.zeros((2, 2), np.float32))[3].tolist() for _ in range(30)]
    assert [row[1] for row in truncated] == [False] * 29 + [True]
    assert [row[0] for row in truncated] == [i % 3 == 1 for i in range(30)]


def test_of_make_vec() -> None:
    envs = gym.make_vec("PointReach-v0", num_envs=1, max_episode_steps=30)
    envs.reset(seed=0)
    assert [bool(envs.step(np.zeros((1, 2)))[3]) for _ in range(30)] == [False] * 29 + [True]


@pytest.mark.parametrize("env_id", ["PointReach-v0", "MetaWorldMT10-v0"])
def test_what_is_no_limit(env_id: str) -> None:
    with pytest.raises(ValueError, match="max_episode_steps must be at least 1, got 0"):
        gym.make_vec(env_id, num_envs=1, max_episode_steps=0)
    with pytest.raises(TypeError, match="integer"):
        gym.make_vec(env_id, num_envs=1, max_episode_steps=2.5)
