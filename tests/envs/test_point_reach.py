"""Point reaching: literal rewards, the box, what solves it, and that the base serves it without physics."""

from __future__ import annotations

import pickle
import warnings

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env, data_equivalence
from gymnasium.vector import AutoresetMode, SyncVectorEnv
from hypothesis import given, settings
from hypothesis import strategies as st

import qmp_envs
from qmp_envs.point_reach import AGENT_COLOUR, GOAL_COLOUR, START_COLOUR, PointReachEnv, PointReachVectorEnv


def walk(env: PointReachEnv, *actions: tuple[float, float]) -> tuple[np.ndarray, float, bool, bool, dict[str, bool]]:
    env.reset(seed=0)
    for action in actions:
        step = env.step(np.array(action))
    return step


def test_task_set() -> None:
    task_set = qmp_envs.TASK_SETS["PointReach-v0"]
    assert (task_set.num_tasks, task_set.horizon, task_set.min_reward) == (1, 20, -1.0)


def test_starts_are_the_corner() -> None:
    envs = PointReachVectorEnv(num_envs=3)
    observations, infos = envs.reset(seed=0)
    assert observations.tolist() == [[0, 0]] * 3
    assert observations.dtype == np.float32
    assert infos["success"].tolist() == [False] * 3
    assert envs.single_observation_space == gym.spaces.Box(0, 1, (2,), np.float32)
    assert envs.single_action_space == gym.spaces.Box(-1, 1, (2,), np.float32)


@pytest.mark.parametrize(
    ("actions", "position", "reward"),
    [
        ([(0, 0)], (0, 0), -1.0),
        ([(-1, -1)], (0, 0), -1.0),
        ([(1, 1)], (1, 1), -0.9),
        ([(5, 0.5)], (1, 0.5), -np.sqrt((81 + 90.25) / 200)),
        ([(1, 0)] * 12, (10, 0), -np.sqrt(0.5)),
        ([(1, 1)] * 10, (10, 10), 0.0),
        ([(1, 1)] * 10 + [(0.5, -0.25)], (10, 9.75), -0.25 / np.sqrt(200)),
    ],
)
def test_steps_and_rewards_are_literal(
    actions: list[tuple[float, float]], position: tuple[float, float], reward: float
) -> None:
    observation, got, terminated, _, _ = walk(PointReachEnv("PointReach-v0"), *actions)
    np.testing.assert_allclose(observation, np.array(position) / 10, rtol=1e-6)
    assert got == pytest.approx(reward, abs=1e-12)
    assert not terminated


@pytest.mark.parametrize(("offset", "success"), [((0.5, 0.0), True), ((0.51, 0.0), False), ((0.3, 0.39), True)])
def test_success_radius_is_half_inclusive(offset: tuple[float, float], success: bool) -> None:
    actions = [*[(1, 1)] * 10, (-offset[0], -offset[1])]
    _, _, terminated, truncated, info = walk(PointReachEnv("PointReach-v0"), *actions)
    assert (terminated, truncated, info["success"]) == (False, False, success)
    assert type(info["success"]) is bool


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 2**31), scale=st.floats(0.1, 3.0))
def test_batches_equal_a_scalar_computation(seed: int, scale: float) -> None:
    actions = np.random.default_rng(seed).normal(0.3, scale, (20, 4, 2))
    envs = PointReachVectorEnv(num_envs=4)
    envs.reset(seed=0)
    positions = [[0.0, 0.0] for _ in range(4)]
    for step, action in enumerate(actions, start=1):
        observations, rewards, terminations, truncations, infos = envs.step(action)
        for i, position in enumerate(positions):
            for axis in (0, 1):
                position[axis] = min(max(position[axis] + min(max(action[i, axis], -1.0), 1.0), 0.0), 10.0)
            distance = ((10 - position[0]) ** 2 + (10 - position[1]) ** 2) ** 0.5
            assert rewards[i] == pytest.approx(-distance / 200**0.5, abs=1e-12)
            assert infos["success"][i] == (distance <= 0.5)
            np.testing.assert_allclose(observations[i], [p / 10 for p in position], rtol=1e-6)
        assert envs.observation_space.contains(observations)
        assert not terminations.any()
        assert truncations.tolist() == [step == 20] * 4


def test_walking_towards_the_goal_succeeds_and_untrained_policies_do_not() -> None:
    rng = np.random.default_rng(0)
    goal_seeker, random, still = [], [], []
    envs = PointReachVectorEnv(num_envs=50)
    for successes, policy in (
        (goal_seeker, lambda observations: 10 * (1 - observations)),
        (random, lambda observations: rng.uniform(-1, 1, observations.shape)),
        (still, np.zeros_like),
    ):
        observations, _ = envs.reset(seed=0)
        for _ in range(20):
            observations, _, _, _, infos = envs.step(policy(observations))
            successes.append(infos["success"])
    assert np.argmax(goal_seeker, axis=0).tolist() == [9] * 50
    assert np.all(goal_seeker[9:])
    assert not np.any(random)
    assert not np.any(still)


@pytest.mark.parametrize("mode", list(AutoresetMode))
def test_everything_is_as_in_a_loop_over_single_environments(mode: AutoresetMode) -> None:
    loop = SyncVectorEnv([lambda: PointReachEnv("PointReach-v0")] * 3, autoreset_mode=mode)
    envs = PointReachVectorEnv(num_envs=3, autoreset_mode=mode)
    assert data_equivalence(envs.reset(seed=0), loop.reset(seed=0), exact=True)
    endings = 0
    for action in np.random.default_rng(0).uniform(-1, 1, (70, 3, 2)).astype(np.float32) + 0.5:
        ours, theirs = envs.step(action), loop.step(action)
        for a, b in zip(ours[:4], theirs[:4], strict=True):
            np.testing.assert_array_equal(a, b)
        assert ours[4].keys() == theirs[4].keys()
        done = ours[2] | ours[3]
        endings += int(done.sum())
        if "final_obs" in ours[4]:
            for a, b in zip(ours[4]["final_obs"], theirs[4]["final_obs"], strict=True):
                np.testing.assert_array_equal(a, b)
            assert data_equivalence(ours[4]["final_info"], theirs[4]["final_info"], exact=True)
        if mode is AutoresetMode.DISABLED and done.any():
            envs.reset(options={"reset_mask": done})
            loop.reset(options={"reset_mask": done.copy()})
    assert endings >= 9


def test_saved_environments_continue_exactly() -> None:
    envs = PointReachVectorEnv(num_envs=2, autoreset_mode=AutoresetMode.SAME_STEP)
    envs.reset(seed=0)
    actions = np.random.default_rng(0).uniform(-1, 1, (60, 2, 2)) + 0.3
    for action in actions[:13]:
        envs.step(action)
    other = PointReachVectorEnv(num_envs=2, autoreset_mode=AutoresetMode.SAME_STEP)
    other.set_state(pickle.loads(pickle.dumps(envs.get_state())))
    copied = pickle.loads(pickle.dumps(envs))
    for action in actions[13:]:
        steps = [each.step(action)[:4] for each in (envs, other, copied)]
        assert data_equivalence(steps[0], steps[1], exact=True)
        assert data_equivalence(steps[0], steps[2], exact=True)


def test_interface() -> None:
    env = gym.make("PointReach-v0", task=0, render_mode="rgb_array")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        check_env(env.unwrapped)
    assert isinstance(gym.make_vec("PointReach-v0", num_envs=2), PointReachVectorEnv)
    with pytest.raises(ValueError, match=r"env_id must be one of \['PointReach-v0'\], got 'PointReach-v1'"):
        PointReachVectorEnv("PointReach-v1")
    envs = PointReachVectorEnv(num_envs=2)
    with pytest.raises(RuntimeError, match="before the first reset"):
        envs.step(np.zeros((2, 2)))
    envs.reset(seed=0)
    with pytest.raises(ValueError, match=r"NaN: got .* for sub-environment 1 \(task 0 'top_right', step 1"):
        envs.step(np.array([[0, 0], [np.nan, 0]]))
    envs.close()


def test_pictures_show_start_goal_and_point() -> None:
    env = PointReachEnv("PointReach-v0", render_mode="rgb_array")
    walk(env, *[(1, 0.5)] * 4)
    frame = env.render()
    assert frame is not None
    assert (frame.dtype, frame.shape) == (np.uint8, (384, 384, 3))
    # A cell is 32 pixels wide, and so is the margin; up is up.
    for colour, (x, y) in ((AGENT_COLOUR, (4, 2)), (START_COLOUR, (0, 0)), (GOAL_COLOUR, (10, 10))):
        found = np.argwhere((frame == colour).all(axis=2))
        assert len(found) > 50
        np.testing.assert_allclose(found.mean(axis=0), [32 * (11 - y) - 0.5, 32 * (1 + x) - 0.5], atol=1.0)
