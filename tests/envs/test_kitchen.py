"""The kitchen's tasks, physics, rewards and endings, as literal numbers."""

from __future__ import annotations

import importlib.util
import pickle
import subprocess
import sys
import warnings
from pathlib import Path
from types import ModuleType
from typing import Any

import gymnasium as gym
import mujoco
import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env
from hypothesis import given, settings
from hypothesis import strategies as st

import qmp_envs
from qmp_envs.kitchen import KITCHENS, KitchenEnv, KitchenVectorEnv, kitchen_model, kitchen_spec

ROOT = Path(__file__).parents[2]
TASK_SET = KITCHENS["Kitchen10-v0"]
# name, joints, start, goal, threshold, position of the part and its distances to the hand's site and the fingers
TASKS: list[tuple[Any, ...]] = [
    ("slide_cabinet_open", (19,), (-4.65501369e-04,), (0.37,), 0.1, (-0.1085, 0.6070, 2.6000), 0.8210, 0.8490),
    ("slide_cabinet_close", (19,), (0.37,), (-4.65501369e-04,), 0.1, (0.2620, 0.6070, 2.6000), 1.0251, 1.0470),
    (
        *("hinge_cabinet_open", (20, 21), (-6.44129196e-03, -1.77048263e-03), (0.0, 1.45), 0.1),
        *((-0.5262, 0.5825, 2.6000), 0.7450, 0.7755),
    ),
    (
        *("hinge_cabinet_close", (20, 21), (0.0, 1.45), (-6.44129196e-03, -1.77048263e-03), 0.3),
        *((-0.1333, 0.3948, 2.6000), 0.7045, 0.7241),
    ),
    (
        *("bottom_burner_on", (11, 12), (3.12877220e-05, -4.51199853e-05), (-0.88, -0.01), 0.3),
        *((-0.2560, 0.6399, 2.2264), 0.5858, 0.6261),
    ),
    (
        *("bottom_burner_off", (11, 12), (-0.88, -0.01), (3.12877220e-05, -4.51199853e-05), 0.3),
        *((-0.2560, 0.6399, 2.2264), 0.5858, 0.6261),
    ),
    (
        *("top_burner_on", (15, 16), (6.28065475e-05, 4.04984708e-05), (-0.92, -0.01), 0.3),
        *((-0.2560, 0.6399, 2.3404), 0.6342, 0.6719),
    ),
    (
        *("top_burner_off", (15, 16), (-0.92, -0.01), (6.28065475e-05, 4.04984708e-05), 0.3),
        *((-0.2560, 0.6399, 2.3404), 0.6342, 0.6719),
    ),
    (
        *("light_switch_on", (17, 18), (4.62730939e-04, -2.26906415e-04), (-0.69, -0.05), 0.3),
        *((-0.3685, 0.6157, 2.2800), 0.5622, 0.6029),
    ),
    (
        *("light_switch_off", (17, 18), (-0.69, -0.05), (4.62730939e-04, -2.26906415e-04), 0.3),
        *((-0.4234, 0.6128, 2.2800), 0.5561, 0.5972),
    ),
]
SITES = ["slide_site", "hinge_site2", "knob2_site", "knob4_site", "light_site"]
HOME = np.array(
    [
        *(1.48388023e-01, -1.76848573e00, 1.84390296e00, -2.47685760e00, 2.60252026e-01, 7.12533105e-01),
        *(1.59515394e00, 4.79267505e-02, 3.71350919e-02, -2.66279850e-04, -5.18043486e-05, 3.12877220e-05),
        *(-4.51199853e-05, -3.90842156e-06, -4.22629655e-05, 6.28065475e-05, 4.04984708e-05, 4.62730939e-04),
        *(-2.26906415e-04, -4.65501369e-04, -6.44129196e-03, -1.77048263e-03, 1.08009684e-03, -2.69397440e-01),
        *(3.50383255e-01, 1.61944683e00, 1.00618764e00, 4.06395120e-03, -6.62095997e-03, -2.68278933e-04),
    ]
)
# Half-widths of the observation noise.
NOISE = np.array([0.01] * 9 + [0.0005] * 2 + [0.00005] * 6 + [0.0005] * 3 + [0.01] * 3)
NOISE = np.concatenate((NOISE, [0.0005] * 3, [0.01] * 3, [0.0005]))
LOW = np.array([-2.9, -1.8, -2.9, -3.1, -2.9, 0.0, -2.9, 0.0, 0.0])
HIGH = np.array([2.9, 1.8, 2.9, 0.0, 2.9, 3.8, 2.9, 0.04, 0.04])
STAY = np.zeros(9, dtype=np.float32)


def start_of(task: int) -> np.ndarray:
    qpos = HOME.copy()
    qpos[list(TASKS[task][1])] = TASKS[task][2]
    return qpos


def single(task: int = 0, **kwargs: Any) -> KitchenEnv:
    return KitchenEnv("Kitchen10-v0", task, **kwargs)


def placed(env: KitchenEnv, **joints: float) -> KitchenEnv:
    """A freshly reset kitchen with joints, ``q19=0.2``, set to other values."""
    env.reset(seed=0)
    state = env.get_state()
    for name, value in joints.items():
        state["physics"][0, 1 + int(name[1:])] = value
    env.set_state(state)
    return env


def scalar_reward(task: int, model: mujoco.MjModel, qpos: np.ndarray, before: np.ndarray) -> tuple[float, bool]:
    """The dense reward of one state, with positions from the physics step ``before``, from the model's bodies."""
    _, joints, start, goal, threshold, _, _, _ = TASKS[task]
    data = mujoco.MjData(model)

    def gaussian(x: float, bound: float, margin: float) -> float:
        return 1.0 if x <= bound else float(0.1 ** (((x - bound) / margin) ** 2))

    def positions(q: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        data.qpos[:] = q
        mujoco.mj_kinematics(model, data)
        fingers = (data.body("panda0_leftfinger").xpos + data.body("panda0_rightfinger").xpos) / 2
        site = data.site(SITES[(0, 0, 1, 1, 2, 2, 3, 3, 4, 4)[task]]).xpos
        return site.copy(), fingers, data.site("end_effector").xpos.copy()

    part, _, hand = positions(start_of(task))
    hand_margin = abs(float(np.linalg.norm(part - hand)) - 0.08)
    part_margin = abs(float(np.linalg.norm(np.subtract(start, goal))) - threshold)
    distance = float(np.linalg.norm([qpos[j] - g for j, g in zip(joints, goal, strict=True)]))
    if distance < threshold:
        return 2800.0, True
    part, fingers, _ = positions(before)
    reach = gaussian(float(np.linalg.norm(part - fingers)), 0.08, hand_margin)
    in_place = gaussian(distance, threshold, part_margin)
    return 20 * (0.4 * in_place + 0.6 * reach - 1), False


# ---------------------------------------------------------------------- tasks and starts


def test_task_set() -> None:
    assert qmp_envs.TASK_SETS["Kitchen10-v0"] is TASK_SET
    assert TASK_SET.task_names == tuple(task[0] for task in TASKS)
    assert (TASK_SET.horizon, TASK_SET.min_reward, TASK_SET.reward_version) == (140, -20.0, "dense")
    for task, (name, joints, start, goal, threshold, *_) in zip(TASK_SET.tasks, TASKS, strict=True):
        assert (task.name, task.joints, task.start, task.goal) == (name, joints, start, goal)
        assert task.threshold == threshold


def test_start_states_are_literal() -> None:
    envs = KitchenVectorEnv(num_envs=10, noise_ratio=0.0)
    observations, infos = envs.reset(seed=0)
    for task, (name, joints, _, goal, _, _, _, _) in enumerate(TASKS):
        np.testing.assert_array_equal(observations[task, :30], start_of(task).astype(np.float32), err_msg=name)
        shown = np.zeros(30, dtype=np.float32)
        shown[list(joints)] = goal
        np.testing.assert_array_equal(observations[task, 30:], shown, err_msg=name)
    np.testing.assert_array_equal(envs._engine.qvel, 0.0)
    assert not infos["success"].any()
    assert observations.dtype == np.float32
    assert envs.observation_space.contains(observations)


@pytest.mark.parametrize("task", range(10))
def test_positions_at_the_start_are_literal(task: int) -> None:
    *_, place, to_hand, to_fingers = TASKS[task]
    data = mujoco.MjData(kitchen_model())
    data.qpos[:] = start_of(task)
    mujoco.mj_forward(kitchen_model(), data)
    hand, fingers = data.site("end_effector").xpos, data.sensordata.reshape(7, 3)[5:].mean(axis=0)
    part = data.sensordata.reshape(7, 3)[(0, 0, 1, 1, 2, 2, 3, 3, 4, 4)[task]]
    np.testing.assert_allclose(hand, (-0.4319, 0.1189, 2.0246), atol=5.1e-5)
    np.testing.assert_allclose(fingers, (-0.4298, 0.0741, 2.0224), atol=5.1e-5)
    np.testing.assert_allclose(part, place, atol=5.1e-5)
    assert np.linalg.norm(part - hand) == pytest.approx(to_hand, abs=5.1e-5)
    assert np.linalg.norm(part - fingers) == pytest.approx(to_fingers, abs=5.1e-5)


def test_reference_goals_overwrite_the_tasks() -> None:
    shown = KitchenVectorEnv(num_envs=10, goal="reference", noise_ratio=0.0).reset(seed=0)[0][:, 30:]
    fixed = np.zeros(30, dtype=np.float32)
    fixed[[11, 12, 17, 18, 22]] = -0.88, -0.01, -0.69, -0.05, -0.75
    fixed[23:] = -0.23, 0.75, 1.62, 0.99, 0.0, 0.0, -0.06
    for task in (4, 5, 8, 9):
        np.testing.assert_array_equal(shown[task], fixed)
    fixed[[15, 16]] = -0.92, -0.01
    np.testing.assert_array_equal(shown[6], fixed)


def test_observation_noise() -> None:
    envs = KitchenVectorEnv(num_envs=200, task_ids=[4] * 200)
    observations, _ = envs.reset(seed=0)
    share = np.abs(observations[:, :30] - start_of(4)) / NOISE
    # Uniform: the largest of 200 is near the bound, the mean at the half. float32 rounds by 1e-7.
    assert (share.max(axis=0) < 1.01).all()
    assert (share.max(axis=0) > 0.9).all()
    np.testing.assert_allclose(share.mean(axis=0), 0.5, atol=0.1)
    assert len(np.unique(observations[:, 0])) == 200


def test_noise_is_fresh_at_every_step_and_moves_no_part() -> None:
    noisy, still = single(task=0), single(task=0, noise_ratio=0.0)
    first, second = noisy.reset(seed=0)[0], noisy.step(STAY)[0]
    still.reset(seed=0)
    exact = still.step(STAY)[0]
    assert (np.abs(second - exact)[9:30] <= NOISE[9:] + 1e-4).all()
    assert abs((first - second)[22]) > 1e-5  # the microwave's reading moves, nobody has touched it


# ---------------------------------------------------------------------- physics and control


def test_stripping_the_model_leaves_physics_alone() -> None:
    full, small = kitchen_spec().compile(), kitchen_model()
    assert small.ngeom < full.ngeom / 1.5
    assert (small.nq, small.nv, small.nu, small.opt.timestep) == (30, 29, 9, 0.002)
    rng = np.random.default_rng(0)
    datas = [mujoco.MjData(full), mujoco.MjData(small)]
    for data in datas:
        data.qpos[:] = start_of(2)
    for _ in range(4):
        control = datas[0].qpos[:9] + rng.uniform(-0.16, 0.16, 9)
        for model, data in zip((full, small), datas, strict=True):
            data.ctrl[:] = control
            mujoco.mj_step(model, data, nstep=40)
        np.testing.assert_array_equal(datas[0].qpos, datas[1].qpos)


def test_control_law() -> None:
    # A plain simulation: targets are 0.08 s at 2 rad/s off the last observation, clipped; 40 steps of 2 ms.
    env = single(task=6)
    observation = env.reset(seed=5)[0].astype(np.float64)
    model = kitchen_model()
    data = mujoco.MjData(model)
    data.qpos[:] = start_of(6)
    rng = np.random.default_rng(1)
    for _ in range(4):
        action = rng.uniform(-1.5, 1.5, 9)
        target = observation[:9] + 0.16 * np.clip(action, -1, 1)
        data.ctrl[:] = np.clip(target, LOW, HIGH)
        data.qacc_warmstart[:] = 0.0
        mujoco.mj_step(model, data, nstep=40)
        observation = env.step(action)[0].astype(np.float64)
        # The environment adds to the reading in float64, this test to the observation in float32.
        np.testing.assert_allclose(env.get_state()["physics"][0, 1:31], data.qpos, atol=1e-5)


def test_fingers_close_and_arm_turns() -> None:
    env = single(noise_ratio=0.0)
    first = env.reset(seed=0)[0]
    for _ in range(5):
        observation = env.step(np.array([1, 0, 0, 0, 0, 0, 0, -1, -1]))[0]
    assert observation[0] > first[0] + 0.2
    assert (observation[7:9] < 0.005).all()


def test_threads_change_nothing() -> None:
    actions = np.random.default_rng(0).uniform(-1, 1, (4, 3, 9))
    results = []
    for nthread in (0, 2):
        envs = KitchenVectorEnv(num_envs=3, task_ids=[1, 5, 9], nthread=nthread)
        envs.reset(seed=3)
        results.append([envs.step(action)[:2] for action in actions])
        envs.close()
    for (obs, rewards), (other_obs, other_rewards) in zip(*results, strict=True):
        np.testing.assert_array_equal(obs, other_obs)
        np.testing.assert_array_equal(rewards, other_rewards)


# ---------------------------------------------------------------------- reward, success, endings


@settings(max_examples=12, deadline=None)
@given(seed=st.integers(0, 2**31))
def test_rewards_equal_a_scalar_computation(seed: int) -> None:
    rng = np.random.default_rng(seed)
    envs = KitchenVectorEnv(num_envs=10)
    envs.reset(seed=seed)
    state = envs.get_state()
    for task, (_, joints, start, goal, *_) in enumerate(TASKS):
        share = rng.uniform(0, 1.2)
        values = np.array(start) + share * np.subtract(goal, start)
        state["physics"][task, 1 + np.array(joints)] = values
        state["physics"][task, 1:8] += rng.uniform(-0.5, 0.5, 7)
    # A hand in a cabinet would be pushed out within one step of 2 ms. Judge without stepping instead.
    envs.set_state(state)
    envs._engine.sense(np.arange(10))
    rewards, terminations, outcome = envs._judge()
    for task in range(10):
        qpos = state["physics"][task, 1:31]
        expected, reached = scalar_reward(task, kitchen_model(), qpos, qpos)
        assert rewards[task] == pytest.approx(expected, abs=1e-9)
        assert (terminations[task], outcome["success"][task]) == (reached, reached)
        assert -20 < rewards[task] <= 0 or reached


def test_reward_of_a_step_looks_at_the_right_moment() -> None:
    # Joints are read after the last of the 40 physics steps, positions before it.
    env = single(task=8, noise_ratio=0.0)
    observation, _ = env.reset(seed=0)
    action = np.random.default_rng(0).uniform(-1, 1, 9)
    data = mujoco.MjData(kitchen_model())
    data.qpos[:] = start_of(8)
    data.ctrl[:] = np.clip(observation[:9] + 0.16 * action, LOW, HIGH)
    mujoco.mj_step(kitchen_model(), data, nstep=39)
    before = data.qpos.copy()
    mujoco.mj_step(kitchen_model(), data)
    reward = env.step(action)[1]
    expected, _ = scalar_reward(8, kitchen_model(), data.qpos, before)
    assert reward == pytest.approx(expected, abs=1e-6)


def test_rewards_at_the_start_are_literal() -> None:
    # in_place = 0.1 at its margin. reach = 0.1 ** (((d - 0.08) / (h - 0.08)) ** 2), d and h of the table above.
    envs = KitchenVectorEnv(num_envs=10)
    envs.reset(seed=0)
    expected = [-18.1950, -18.1228, -18.2332, -18.1638, -18.3806, -18.3806, -18.3320, -18.3320, -18.3997, -18.4074]
    np.testing.assert_allclose(envs._judge()[0], expected, atol=2e-3)


@pytest.mark.parametrize(
    ("task", "inside", "outside"),
    [
        (0, {"q19": 0.2705}, {"q19": 0.2695}),  # 0.37 - 0.1
        (1, {"q19": 0.0990}, {"q19": 0.1000}),  # 0.1 - 0.00047
        (2, {"q20": 0.0, "q21": 1.355}, {"q20": 0.0, "q21": 1.345}),  # 1.45 - 0.1
        (3, {"q20": 0.0, "q21": 0.29}, {"q20": 0.0, "q21": 0.305}),  # 0.3 - 0.0018
        (4, {"q11": -0.5852, "q12": -0.00336}, {"q11": -0.575, "q12": -0.00330}),  # -0.88 + 0.3
        (9, {"q17": -0.295, "q18": -0.0211}, {"q17": -0.302, "q18": -0.0216}),  # 0.0005 - 0.3
    ],
)
def test_thresholds_are_literal(task: int, inside: dict[str, float], outside: dict[str, float]) -> None:
    env = single(task=task)
    _, reward, terminated, truncated, info = placed(env, **inside).step(STAY)
    near = info.pop("part_distance")
    assert (reward, terminated, truncated, info) == (2800.0, True, False, {"success": True})
    _, reward, terminated, _, info = placed(env, **outside).step(STAY)
    assert -20 < reward < 0
    assert info.pop("part_distance") > near
    assert (terminated, info) == (False, {"success": False})


def test_sparse_reward() -> None:
    env = single(task=0, reward="sparse")
    assert placed(env, q19=0.3).step(STAY)[1:3] == (1.0, True)
    assert placed(env, q19=0.1).step(STAY)[1:3] == (0.0, False)
    assert (env.task_set.min_reward, env.task_set.reward_version) == (0.0, "sparse")
    assert single().task_set.min_reward == -20.0


def test_horizon_truncates_and_success_in_the_last_step_terminates() -> None:
    env = single(task=0, max_episode_steps=2)
    env.reset(seed=0)
    assert env.step(STAY)[2:4] == (False, False)
    assert env.step(STAY)[2:4] == (False, True)
    env.reset(seed=0)
    env.step(STAY)
    state = env.get_state()
    state["physics"][0, 1 + 19] = 0.37
    env.set_state(state)
    assert env.step(STAY)[1:4] == (2800.0, True, False)


# ---------------------------------------------------------------------- Gymnasium, seeds, state


@pytest.mark.parametrize("task", range(10))
def test_every_task_passes_gymnasiums_check(task: int) -> None:
    env = gym.make("Kitchen10-v0", task=task, render_mode="rgb_array")
    assert isinstance(env.unwrapped, KitchenEnv)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        check_env(env.unwrapped, skip_render_check=task > 0)


def test_make_vec() -> None:
    envs = gym.make_vec("Kitchen10-v0", num_envs=12)
    assert isinstance(envs, KitchenVectorEnv)
    assert envs.task_ids.tolist() == [*range(10), 0, 1]
    assert envs.single_observation_space == gym.spaces.Box(-8, 8, (60,), np.float32)
    assert envs.single_action_space == gym.spaces.Box(-1, 1, (9,), np.float32)


def test_seeds_reproduce_episodes_also_in_another_process() -> None:
    program = (
        "import numpy as np, qmp_envs\n"
        "envs = qmp_envs.KitchenVectorEnv(num_envs=3, task_ids=[0, 4, 9])\n"
        "envs.reset(seed=11)\n"
        "for k in range(3): obs, *_ = envs.step(np.full((3, 9), 0.3 * k))\n"
        "print(obs.tobytes().hex())\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    envs = KitchenVectorEnv(num_envs=3, task_ids=[0, 4, 9])
    envs.reset(seed=11)
    for k in range(3):
        observations, *_ = envs.step(np.full((3, 9), 0.3 * k))
    assert done.stdout == observations.tobytes().hex() + "\n"


def test_state_resumes_bit_exactly_through_a_success() -> None:
    envs = KitchenVectorEnv(num_envs=2, task_ids=[0, 8], autoreset_mode="SameStep", max_episode_steps=5)
    other = pickle.loads(pickle.dumps(KitchenVectorEnv(num_envs=2, task_ids=[0, 8], max_episode_steps=5)))
    other.autoreset_mode = envs.autoreset_mode
    envs.reset(seed=0)
    actions = np.random.default_rng(2).uniform(-1, 1, (8, 2, 9))
    for action in actions[:2]:
        envs.step(action)
    state = envs.get_state()
    state["physics"][0, 1 + 19] = 0.37
    envs.set_state(state)
    other.set_state(pickle.loads(pickle.dumps(state)))
    for step, action in enumerate(actions[2:]):
        one, two = envs.step(action), other.step(action)
        for left, right in zip(one[:4], two[:4], strict=True):
            np.testing.assert_array_equal(left, right)
        if step == 0:
            assert one[1][0] == 2800.0
            assert one[4]["final_info"]["success"].tolist() == [True, False]
            np.testing.assert_allclose(one[0][0, 19], 0.0, atol=2e-3)
    np.testing.assert_array_equal(envs.get_state()["physics"], other.get_state()["physics"])


def test_autoreset_modes_give_the_same_noise() -> None:
    observations = []
    for mode in ("SameStep", "NextStep"):
        envs = KitchenVectorEnv(num_envs=2, task_ids=[3, 7], autoreset_mode=mode, max_episode_steps=2)
        envs.reset(seed=4)
        for _ in range(2 if mode == "SameStep" else 3):
            obs, *_ = envs.step(np.zeros((2, 9)))
        observations.append(obs)
    np.testing.assert_array_equal(*observations)


def test_partial_reset_leaves_the_others_alone() -> None:
    envs = KitchenVectorEnv(num_envs=2, task_ids=[3, 7], autoreset_mode="Disabled")
    first, _ = envs.reset(seed=0)
    second, _ = envs.reset(options={"reset_mask": np.array([True, False])})
    np.testing.assert_array_equal(first[1], second[1])
    assert (first[0, :9] != second[0, :9]).all()


def test_infos_and_arrays_are_fresh() -> None:
    envs = KitchenVectorEnv(num_envs=1)
    kept = envs.reset(seed=0)
    copies = pickle.loads(pickle.dumps(kept))
    envs.step(np.ones((1, 9)))
    np.testing.assert_array_equal(kept[0], copies[0])
    np.testing.assert_array_equal(kept[1]["success"], copies[1]["success"])


def test_wrong_arguments_say_what_was_expected() -> None:
    with pytest.raises(ValueError, match=r"env_id must be one of \['Kitchen10-v0'\], got 'Kitchen9-v0'"):
        KitchenVectorEnv("Kitchen9-v0")
    with pytest.raises(ValueError, match="reward must be 'dense' or 'sparse', got 'shaped'"):
        KitchenVectorEnv(reward="shaped")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="goal must be 'task' or 'reference', got 'mine'"):
        KitchenVectorEnv(goal="mine")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="noise_ratio must not be negative, got -1"):
        KitchenVectorEnv(noise_ratio=-1)
    with pytest.raises(ValueError, match=r"task is 10, but Kitchen10-v0 has tasks 0 to 9"):
        single(task=10)


def test_missing_assets_name_the_command(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ModuleNotFoundError, match="pip install gymnasium-robotics"):
        kitchen_spec()


def test_gymnasium_robotics_is_not_imported() -> None:
    program = "import sys, qmp_envs; qmp_envs.KitchenVectorEnv(); print('gymnasium_robotics' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout == "False\n"


# ---------------------------------------------------------------------- pictures, solutions


def test_pictures_show_the_part() -> None:
    envs = KitchenVectorEnv(num_envs=2, task_ids=[0, 1], render_mode="rgb_array")
    envs.reset(seed=0)
    frames = envs.render()
    assert frames is not None
    centres = []
    for frame in frames:
        assert (frame.shape, frame.dtype) == ((400, 400, 3), np.uint8)
        green = (frame[..., 1] > 1.5 * frame[..., 0].astype(int)) & (frame[..., 1] > 80)
        assert 20 < green.sum() < 1000
        centres.append(np.argwhere(green).mean(axis=0))
    assert centres[1][1] > centres[0][1] + 30  # the open door's handle is further to the right


def solver() -> ModuleType:
    spec = importlib.util.spec_from_file_location("solve_kitchen", ROOT / "benchmark" / "solvability" / "kitchen.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # where dataclasses look up annotations
    spec.loader.exec_module(module)
    return module


def test_a_scripted_policy_solves_every_task() -> None:
    policies = [solver().ScriptedPolicy(task) for task in range(10)]
    envs = KitchenVectorEnv(num_envs=10)
    observations, _ = envs.reset(seed=0)
    solved = np.zeros(10, dtype=np.bool_)
    for _ in range(100):
        actions = np.stack([policy(row) for policy, row in zip(policies, observations, strict=True)])
        observations, rewards, terminations, _, infos = envs.step(actions)
        assert (rewards[infos["success"]] == 2800.0).all()
        np.testing.assert_array_equal(infos["success"], terminations)
        solved |= infos["success"]
        if solved.all():
            break
    assert solved.all(), [name for name, done in zip(TASK_SET.task_names, solved, strict=True) if not done]
