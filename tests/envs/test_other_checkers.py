"""Other libraries' checks of environments."""

from __future__ import annotations

import warnings
from typing import Any

import gymnasium as gym
import numpy as np
import pytest

import qmp_envs

SINGLE = [
    "PointReach-v0",
    "Maze3-v0",
    "Reacher5-v0",
    "Walker4-v0",
    "MetaWorldCDS-v0",
    "MetaWorldMT10-v0",
    "Kitchen10-v0",
]


@pytest.mark.parametrize("env_id", SINGLE)
def test_stable_baselines3_check_env_with_rendering(env_id: str) -> None:
    """It closes the environment before it steps on: closing stops threads, and only those of vector environments."""
    checker = pytest.importorskip("stable_baselines3.common.env_checker")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        checker.check_env(gym.make(env_id, render_mode="rgb_array"), skip_render_check=False)


@pytest.mark.parametrize("nthread", [0, 2])
def test_single_environments_step_on_after_close(nthread: int) -> None:
    envs: list[Any] = [qmp_envs.MazeEnv("Maze3-v0", nthread=nthread) for _ in range(2)]
    for env in envs:
        env.reset(seed=0)
        env.step(np.ones(2))
    envs[0].close()
    envs[0].close()
    np.testing.assert_array_equal(*(env.step(np.ones(2))[0] for env in envs))
    envs[0].close()
