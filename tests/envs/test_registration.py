"""The ids in Gymnasium's registry, and Gymnasium's own checks of what they make."""

from __future__ import annotations

import pickle
import warnings
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env

import qmp_envs
from qmp_envs.maze import MAZES, MazeEnv, MazeVectorEnv

TASKS = [(env_id, task) for env_id, task_set in MAZES.items() for task in range(task_set.num_tasks)]


@pytest.mark.parametrize(("env_id", "task"), TASKS)
def test_every_task_passes_gymnasiums_check(env_id: str, task: int) -> None:
    env = gym.make(env_id, task=task, render_mode="rgb_array")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        # Velocities have no bound that holds in every case.
        warnings.filterwarnings("ignore", message=".*A Box observation space m.* value is .*infinity.*")
        check_env(env.unwrapped, skip_render_check=task > 0)


@pytest.mark.parametrize("env_id", MAZES)
def test_make(env_id: str) -> None:
    last = MAZES[env_id].num_tasks - 1
    env = gym.make(env_id, task=last)
    assert isinstance(env.unwrapped, MazeEnv)
    assert env.unwrapped.task == last
    assert env.unwrapped.task_set == qmp_envs.TASK_SETS[env_id] == MAZES[env_id]
    observation, info = env.reset(seed=0)
    assert np.abs(observation[:2] - MAZES[env_id].starts[last]).max() <= 0.1 + 1e-6
    assert info == {"success": False}
    *_, info = env.step(env.action_space.sample())
    assert info == {"success": False}
    assert type(info["success"]) is bool
    env.close()


def test_make_without_a_version() -> None:
    with pytest.warns(UserWarning, match="latest versioned environment `Maze10-v0`"):
        env = gym.make("Maze10", task=3)
    assert env.spec is not None
    assert (env.spec.id, env.unwrapped.task) == ("Maze10-v0", 3)  # type: ignore[attr-defined]
    with pytest.warns(UserWarning, match="latest versioned environment `Maze10-v0`"):
        assert gym.make_vec("Maze10", num_envs=4).num_envs == 4


@pytest.mark.parametrize("env_id", MAZES)
def test_make_vec(env_id: str) -> None:
    num_tasks = MAZES[env_id].num_tasks
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        envs = gym.make_vec(env_id, num_envs=2 * num_tasks, autoreset_mode=gym.vector.AutoresetMode.SAME_STEP)
    assert isinstance(envs, MazeVectorEnv)
    assert envs.task_ids.tolist() == 2 * list(range(num_tasks))
    assert envs.autoreset_mode is gym.vector.AutoresetMode.SAME_STEP
    observations, _ = envs.reset(seed=0)
    starts = np.array(MAZES[env_id].starts)[envs.task_ids]
    assert np.abs(observations[:, :2] - starts).max() <= 0.1 + 1e-6
    assert envs.observation_space.contains(observations)
    assert envs.spec is not None
    assert envs.spec.id == env_id
    envs.close()


def test_make_vec_passes_arguments_on() -> None:
    envs = gym.make_vec("Maze3-v0", num_envs=2, task_ids=[2, 1], max_episode_steps=4, reward="sparse", nthread=1)
    assert isinstance(envs, MazeVectorEnv)
    assert envs.task_ids.tolist() == [2, 1]
    assert envs.max_episode_steps == 4
    assert envs.task_set.reward_version == "sparse"


def test_gymnasiums_own_vector_environments_work_too() -> None:
    sync = gym.make_vec("Maze10-v0", num_envs=2, vectorization_mode="sync", task=5)
    native = gym.make_vec("Maze10-v0", num_envs=2, task_ids=[5, 5])
    np.testing.assert_array_equal(sync.reset(seed=3)[0], native.reset(seed=3)[0])


def test_specs_are_recreatable_and_carry_no_time_limit() -> None:
    env = gym.make("Maze10-v0", task=7)
    assert env.spec is not None
    assert env.spec.max_episode_steps is None
    spec = pickle.loads(pickle.dumps(env.spec))
    assert gym.make(spec).unwrapped.task == 7  # type: ignore[attr-defined]
    vector_spec = gym.make_vec("Maze10-v0", num_envs=3).spec
    assert vector_spec is not None
    assert gym.make_vec(vector_spec).num_envs == 3


def test_wrapped_environments_survive_pickling() -> None:
    env = gym.make("Maze10-v0", task=2)
    env.reset(seed=0)
    copy = pickle.loads(pickle.dumps(env))
    np.testing.assert_array_equal(copy.step(np.ones(2))[0], env.step(np.ones(2))[0])


def test_time_limit_of_the_environment_is_a_truncation() -> None:
    env = gym.make("Maze10-v0", task=0)
    env.reset(seed=0)
    endings: list[Any] = []
    while not endings or endings[-1] == (False, False):
        endings.append(env.step(np.zeros(2, dtype=np.float32))[2:4])
    assert len(endings) == 600
    assert endings[-1] == (False, True)
