"""`TaskSet.relabel` gives the rewards that the environment itself would have given."""

from __future__ import annotations

import gymnasium as gym
import numpy as np
import pytest

import qmp_envs


@pytest.mark.parametrize("sparse", [False, True])
@pytest.mark.parametrize("env_id", ["Maze3-v0", "Maze10-v0"])
def test_maze_rewards_are_those_of_the_environment(env_id: str, sparse: bool) -> None:
    """The same transitions under every task: vector environments of one task each, from the same states."""
    task_set = qmp_envs.TASK_SETS[env_id]
    tasks, n = task_set.num_tasks, 16
    rng = np.random.default_rng(0)
    envs = [
        qmp_envs.MazeVectorEnv(env_id, n, task_ids=[task] * n, reward="sparse" if sparse else "dense")
        for task in range(tasks)
    ]
    relabel = envs[0].task_set.relabel
    assert relabel is not None
    for env in envs:
        env.reset(seed=0)
    # Near goals and elsewhere, so that both sides of the sparse reward are seen.
    goals = np.array(task_set.goals)[rng.integers(tasks, size=n)]
    positions = goals + rng.uniform(-1.0, 1.0, (n, 2)) * np.linspace(0.1, 1.0, n)[:, None]
    actions = rng.uniform(-1, 1, (n, 2)).astype(np.float32)
    earned = []
    for env in envs:
        env._engine.qpos[:], env._engine.qvel[:] = positions, 0.0
        obs = env._observe()
        next_obs, rewards, *_ = env.step(actions)
        earned.append(rewards)
    for task, expected in enumerate(earned):
        found = relabel(obs, actions, next_obs, np.full(n, task))
        assert found.shape == (n,)
        np.testing.assert_allclose(found, expected, rtol=0, atol=1e-6)
    mixed = np.arange(n) % tasks
    np.testing.assert_allclose(
        relabel(obs, actions, next_obs, mixed), np.array(earned)[mixed, np.arange(n)], rtol=0, atol=1e-6
    )
    if sparse:
        assert 0 < np.mean(earned) < 1


def test_maze_reward_by_hand() -> None:
    relabel = qmp_envs.TASK_SETS["Maze3-v0"].relabel
    assert relabel is not None
    # Goals (5, 3), (1, 2), (4, 1); from (4, 5) they are sqrt(5), sqrt(18) and 4 away. Only where the step led counts.
    obs, next_obs = np.zeros((3, 4), np.float32), np.tile(np.float32([4, 5, 9, 9]), (3, 1))
    rewards = relabel(obs, np.ones((3, 2), np.float32), next_obs, np.arange(3))
    assert rewards == pytest.approx([0.1068779 - 1, 0.0143696 - 1, 0.0183156 - 1], abs=1e-6)


def test_rewards_stay_above_the_smallest_one() -> None:
    task_set = qmp_envs.TASK_SETS["Maze3-v0"]
    assert task_set.relabel is not None
    envs = gym.make_vec("Maze3-v0", num_envs=3)
    envs.reset(seed=0)
    next_obs, rewards, *_ = envs.step(envs.action_space.sample())
    assert (rewards > task_set.min_reward).all()
    assert (task_set.relabel(next_obs, next_obs[:, :2], next_obs, np.arange(3)) > task_set.min_reward).all()


@pytest.mark.parametrize(("env_id", "tolerance"), [("Reacher5-v0", 0.02), ("Walker4-v0", 0.2)])
def test_rewards_of_the_own_task_are_those_that_were_earned(env_id: str, tolerance: float) -> None:
    """But for what a transition does not show: accelerations and the noise of a start there, the mean velocity here."""
    task_set = qmp_envs.TASK_SETS[env_id]
    envs = gym.make_vec(env_id, num_envs=task_set.num_tasks, autoreset_mode=gym.vector.AutoresetMode.SAME_STEP)
    tasks = np.arange(task_set.num_tasks)
    assert task_set.relabel is not None
    obs, _ = envs.reset(seed=0)
    envs.action_space.seed(0)
    for step in range(20):
        actions = envs.action_space.sample()
        next_obs, rewards, terminations, _, _ = envs.step(actions)
        if step >= 5:  # the joint that starts outside its limits is back
            found = task_set.relabel(obs, actions, next_obs, tasks)
            np.testing.assert_allclose(found[~terminations], rewards[~terminations], rtol=0, atol=tolerance)
        obs = next_obs
    envs.close()


def test_the_papers_reward_is_relabelled_as_such() -> None:
    envs = [qmp_envs.ReacherVectorEnv("Reacher5-v0", 1, reward=reward) for reward in ("reference", "paper")]
    obs = np.zeros((1, 15), np.float32)
    obs[0, 12] = 1.0
    reference, paper = (env.task_set.relabel(obs, np.zeros((1, 6)), obs, np.array([0])) for env in envs)
    assert paper - reference == pytest.approx(0.4 * 3)  # three stages missing, and nothing completed
