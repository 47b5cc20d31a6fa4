"""The arm against literal numbers of the original, and its rewards, stages and endings against plain loops."""

from __future__ import annotations

import json
import math
import subprocess
import sys
import warnings
from pathlib import Path
from typing import Any

import gymnasium as gym
import mujoco
import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env, data_equivalence
from gymnasium.vector import AutoresetMode, SyncVectorEnv
from hypothesis import given, settings
from hypothesis import strategies as st

import qmp_envs
from qmp_envs.reacher import (
    REACHERS,
    ReacherEnv,
    ReacherVectorEnv,
    hand_positions,
    reacher_rewards,
    reacher_xml,
    relabelled_rewards,
)

PHYSICS = mujoco.mjtState.mjSTATE_FULLPHYSICS.value
A, B, C, D = (0.2, 0.3, 0.5), (0.3, 0.0, 0.3), (0.4, -0.3, 0.4), (0.4, 0.3, 0.2)
SEQUENCES = [(A, B, C), (A, B, D), (B, D, C), (B, C, A)]
ZERO = np.zeros(6, dtype=np.float32)
# Episodes that solve each task from seed 0, found by planning: benchmark/solvability/reacher.py.
SOLUTIONS = json.loads((Path(__file__).parents[2] / "benchmark" / "solvability" / "reacher.json").read_text())

# Measured on the original model: joint positions, hand position, torques that gravity asks for (to 4 decimals).
POSES: list[tuple[list[float], list[float], list[float] | None]] = [
    ([0, 0, 0, 0, -2.8, 0], [0.410000, 0.119189, 0.239430], [0, -10.7152, 0.0206, 0, 0.0168, 0.0193]),
    ([0, 0, 0, 0, -0.698132, 0], [0.439576, 0.089552, 0.197103], [0, -11.1669, -0.4312, 0, -0.3532, 0.0045]),
    ([0.5, 0, 0, 0, 0, 0], [0.331069, 0.273139, 0.184859], [0, -10.9186, -0.1828, 0, -0.1498, 0.0005]),
    ([0, -0.8, 0, 0, 0, 0], [0.535505, 0.080979, 0.589470], [0, -10.4998, -3.0201, 0.4039, -0.4292, 0.0029]),
    ([0, 0, 0.5, 0, 0, 0], [0.258450, 0.080979, 0.220623], [0, -8.9629, 1.7729, -0.2699, 0.0857, -0.0013]),
    ([0, 0, 0, 0.5, 0, 0], [0.453513, 0.066934, 0.184859], None),
    ([0, 0, 0, 0, 0.5, 0], [0.404589, 0.080088, 0.183588], None),
    ([0, 0, 0, 0, 0, 0.5], [0.421490, 0.080979, 0.184859], None),
    ([0.3, -0.6, 0.4, -0.2, 0.1, 0.5], [0.358242, 0.195254, 0.421160], [0, -9.6886, -0.8280, 0.1112, -0.1982, -0.0024]),
    (
        [-0.7, -0.5, 0.3, 0.4, 0.1, 0.5],
        [0.398631, -0.241942, 0.394205],
        [0, -10.5551, -1.1336, 0.0890, -0.2017, -0.0046],
    ),
]


@pytest.fixture(scope="module")
def model() -> mujoco.MjModel:
    return mujoco.MjModel.from_xml_string(reacher_xml())


def forward(model: mujoco.MjModel, qpos: Any) -> mujoco.MjData:
    data = mujoco.MjData(model)
    data.qpos[:] = qpos
    mujoco.mj_forward(model, data)
    return data


# ---------------------------------------------------------------------- the arm


@pytest.mark.parametrize(("qpos", "hand", "gravity"), POSES)
def test_hand_positions_and_gravity_torques_are_the_originals(
    model: mujoco.MjModel, qpos: list[float], hand: list[float], gravity: list[float] | None
) -> None:
    data = forward(model, qpos)
    np.testing.assert_allclose(data.body("hand").xpos, hand, atol=6e-7)
    np.testing.assert_allclose(hand_positions(np.array([qpos])), [hand], atol=6e-7)
    if gravity is not None:
        np.testing.assert_allclose(data.qfrc_bias, gravity, atol=6e-5)


def test_masses_and_inertias_are_the_originals(model: mujoco.MjModel) -> None:
    assert model.body_mass.sum() == pytest.approx(4.990241, abs=1e-6)
    assert model.body_mass.sum() - model.body("base").mass[0] == pytest.approx(4.202737, abs=1e-6)
    data, inertia = forward(model, model.qpos0), np.zeros((6, 6))
    mujoco.mj_fullM(model, inertia, data.qM)
    np.testing.assert_allclose(
        np.diag(inertia), [0.442679, 0.463016, 0.092124, 0.027619, 0.014825, 0.010640], atol=6e-7
    )


def test_joints_motors_and_options(model: mujoco.MjModel) -> None:
    np.testing.assert_array_equal(model.qpos0, [0, 0, 0, 0, -2.8, 0])
    bounds = [(-0.8, 0.8), (-1.5, 0.7), *[(-0.698132, 0.698132)] * 4]
    np.testing.assert_allclose(model.jnt_range, bounds)
    assert model.jnt_limited.all()
    assert model.actuator_gear[:, 0].tolist() == [5, 10, 10, 10, 10, 10]
    assert (model.actuator_ctrlrange == [-1, 1]).all()
    assert (model.dof_damping == 0.5).all()
    assert (model.dof_armature == 0.01).all()
    assert (model.opt.timestep, model.opt.iterations, model.opt.integrator) == (0.01, 10, 0)
    assert model.opt.gravity.tolist() == [0, 0, -9.8]
    np.testing.assert_allclose(
        [math.dist(POSES[0][1], goal) for goal in (A, B, C, D)], [0.380381, 0.173133, 0.449002, 0.185330], atol=2e-6
    )


@settings(max_examples=50, deadline=None)
@given(st.lists(st.floats(-3, 3), min_size=6, max_size=6))
def test_hand_positions_equal_mujocos_kinematics(qpos: list[float]) -> None:
    data = forward(qmp_envs.reacher._model(), qpos)
    np.testing.assert_allclose(hand_positions(np.array([qpos]))[0], data.body("hand").xpos, atol=1e-9)


def test_links_touch_the_ground_and_nothing_else(model: mujoco.MjModel) -> None:
    rng = np.random.default_rng(0)
    touched = set()
    for _ in range(300):
        data = forward(model, rng.uniform(*model.jnt_range.T))
        bodies = model.geom_bodyid[data.contact.geom]
        assert (bodies.min(axis=1, initial=9) == 0).all()
        touched |= set(bodies.max(axis=1, initial=0).tolist())
    assert len(touched) > 2


def test_arm_falls_as_the_original_does() -> None:
    env = ReacherEnv("Reacher5-v0", 0)
    env.reset(seed=0)
    fifth = [env.step(ZERO)[0][4] for _ in range(4)]
    # Joint 5 starts 2.1 rad outside its limits, and motor 2 cannot carry the arm.
    np.testing.assert_allclose(fifth, [-1.41, -0.88, -0.73, -0.70], atol=0.012)
    assert hand_positions(env.get_state()["physics"][:, 1:7])[0, 2] == pytest.approx(0.10, abs=0.01)


# ---------------------------------------------------------------------- tasks and starts


def test_task_set() -> None:
    task_set = REACHERS["Reacher5-v0"]
    assert qmp_envs.TASK_SETS["Reacher5-v0"] is task_set
    assert (task_set.num_tasks, task_set.horizon, task_set.min_reward) == (5, 200, -5.0)
    t = 1 / 3
    s = 1 / 6
    np.testing.assert_allclose(
        task_set.domain_matrix,
        [[2 * t, t, 0, 0, 0], [t, 2 * t, 0, 0, 0], [0, 0, 5 * s, s, 0], [0, 0, s, 5 * s, 0], [0, 0, 0, 0, 1]],
    )
    assert ReacherEnv("Reacher5-v0").task_set.reward_version == "reference"
    assert ReacherEnv("Reacher5-v0", reward="paper").task_set.reward_version == "paper"


def test_starts(model: mujoco.MjModel) -> None:
    envs = ReacherVectorEnv(num_envs=400)
    observations, infos = envs.reset(seed=0)
    noise = observations[:, :6] - np.array([0, 0, 0, 0, -2.8, 0], dtype=np.float32)
    assert 0.0098 < np.abs(noise).max() <= 0.01 + 1e-6
    assert 0.00098 < np.abs(observations[:, 6:12]).max() <= 0.001 + 1e-7
    # Uniform: deviation 1 / sqrt(3) of the bound.
    np.testing.assert_allclose(noise.std(axis=0), 0.01 / np.sqrt(3), rtol=0.1)
    np.testing.assert_allclose(observations[:, 6:12].std(axis=0), 0.001 / np.sqrt(3), rtol=0.1)
    assert (observations[:, 12:] == [1, 0, 0]).all()
    assert not any(infos[key].any() for key in ("success", "hit", "any_hit", "stages", "hit_fraction"))
    state = envs.get_state()
    for i in range(10):
        subgoals = state["episode"]["subgoals"][i, :3]
        if i % 5 < 4:
            np.testing.assert_array_equal(subgoals, SEQUENCES[i % 5])
        else:
            hand = forward(model, state["physics"][i, 1:7]).body("hand").xpos
            np.testing.assert_allclose(subgoals, [hand] * 3, atol=1e-9)


# ---------------------------------------------------------------------- rewards


def scalar_reward(task: int, d: float, before: int, after: int, a: Any, v: Any, acc: Any, kind: str) -> float:
    """The formulas once more, for one step."""
    effort = 0.01 * sum(x * x for x in a) + 0.001 * sum(map(abs, v)) / 6 + 0.00001 * sum(map(abs, acc)) / 6
    if kind == "paper":
        bonus = 1.0 if after > before else 0.0
        return [-d - effort + bonus, -d - effort + bonus - 2, -d - effort + bonus, bonus, -d - effort + bonus][task]
    stage = -0.4 * max(3 - after, 0)
    jump = 200.0 if after > before else 0.0
    return [-d + stage - effort, -d + jump - effort - 2, -d + stage - effort, stage - effort, -d - effort][task]


numbers = st.lists(st.floats(-50, 50), min_size=6, max_size=6)


@settings(max_examples=100, deadline=None)
@given(
    st.lists(
        st.tuples(
            st.integers(0, 4),
            st.floats(0, 2),
            st.integers(0, 2),
            st.booleans(),
            st.lists(st.floats(-1, 1), min_size=6, max_size=6),
            numbers,
            numbers,
        ),
        min_size=1,
        max_size=8,
    ),
    st.sampled_from(["reference", "paper"]),
)
def test_rewards_equal_the_scalar_formulas(rows: list[Any], kind: Any) -> None:
    tasks, distances, before, reached, actions, speeds, accelerations = map(np.array, zip(*rows, strict=True))
    got = reacher_rewards(tasks, distances, before, before + reached, actions, speeds, accelerations, kind)
    expected = [scalar_reward(t, d, s, s + r, a, v, q, kind) for t, d, s, r, a, v, q in rows]
    np.testing.assert_allclose(got, expected, atol=1e-9)


def test_rewards_are_literal() -> None:
    task, action, still = np.arange(5), np.full((5, 6), 0.5), np.zeros((5, 6))
    effort = 0.015
    for stage, hit, kind, expected in (
        (0, 0, "reference", [-0.3 - 1.2, -0.3 - 2, -0.3 - 1.2, -1.2, -0.3]),
        (1, 0, "reference", [-0.3 - 0.8, -0.3 - 2, -0.3 - 0.8, -0.8, -0.3]),
        (1, 1, "reference", [-0.3 - 0.4, 200 - 0.3 - 2, -0.3 - 0.4, -0.4, -0.3]),
        (2, 1, "reference", [-0.3, 200 - 0.3 - 2, -0.3, 0, -0.3]),
        (1, 0, "paper", [-0.3, -2.3, -0.3, effort, -0.3]),
        (2, 1, "paper", [0.7, -1.3, 0.7, 1 + effort, 0.7]),
    ):
        before = np.full(5, stage)
        got = reacher_rewards(task, np.full(5, 0.3), before, before + hit, action, still, still, kind)  # type: ignore[arg-type]
        np.testing.assert_allclose(got, np.array(expected) - effort, atol=1e-12)


def plain_episode(model: mujoco.MjModel, env: ReacherEnv, actions: Any, kind: str) -> list[Any]:
    """An episode of ``env`` (just reset) once more, with plain ``mj_step`` and loops."""
    task, data = env.task, mujoco.MjData(model)
    mujoco.mj_setState(model, data, env.get_state()["physics"][0], PHYSICS)
    mujoco.mj_forward(model, data)
    goals = SEQUENCES[task] if task < 4 else (data.body("hand").xpos.copy(),) * 3
    stage = hits = 0
    steps: list[Any] = []
    for count, action in enumerate(actions, start=1):
        data.ctrl[:] = action
        for _ in range(4):
            mujoco.mj_step(model, data)
        d = math.dist(data.body("hand").xpos, goals[stage])  # as mj_step leaves it: one physics step old
        before, hit = stage, d < 0.05
        hits += hit
        stage = hits // 30 if task == 4 else before + hit
        reward = scalar_reward(task, d, before, stage, action, data.qvel, data.qacc, kind)
        observation = [*data.qpos, *data.qvel, *(float(before == s) for s in range(3))]
        info = {"success": stage == 3, "hit": hit, "any_hit": hits > 0, "stages": stage, "hit_fraction": hits / count}
        steps.append((observation, reward, stage == 3, count == 200 and stage < 3, info))
        if stage == 3:
            break
    return steps


@pytest.mark.parametrize("kind", ["reference", "paper"])
@pytest.mark.parametrize("task", range(5))
def test_solved_episodes_equal_plain_simulation(model: mujoco.MjModel, task: int, kind: Any) -> None:
    env = ReacherEnv("Reacher5-v0", task, reward=kind)
    env.reset(seed=SOLUTIONS[task]["seed"])
    steps = plain_episode(model, env, SOLUTIONS[task]["actions"], kind)
    assert len(steps) == len(SOLUTIONS[task]["actions"]) == SOLUTIONS[task]["steps"]
    total = 0.0
    for action, expected in zip(SOLUTIONS[task]["actions"], steps, strict=True):
        observation, reward, terminated, truncated, info = env.step(np.array(action))
        np.testing.assert_allclose(observation, expected[0], rtol=1e-5, atol=1e-5)
        assert reward == pytest.approx(expected[1], abs=1e-6)
        assert (terminated, truncated, info) == expected[2:]
        total += reward
    # Every task can be solved.
    assert terminated
    assert info["success"]
    if kind == "reference":
        assert total == pytest.approx(SOLUTIONS[task]["return"], abs=0.01)


@settings(max_examples=15, deadline=None)
@given(seed=st.integers(0, 2**31), kind=st.sampled_from(["reference", "paper"]), scale=st.floats(0.1, 1))
def test_random_episodes_equal_plain_simulation(seed: int, kind: Any, scale: float) -> None:
    actions = np.random.default_rng(seed).uniform(-scale, scale, (30, 5, 6))
    envs = ReacherVectorEnv(num_envs=5, reward=kind)
    envs.reset(seed=seed)
    singles = [ReacherEnv("Reacher5-v0", i) for i in range(5)]
    for i, env in enumerate(singles):
        env.reset(seed=seed + i)
    plain = [plain_episode(qmp_envs.reacher._model(), env, actions[:, i], kind) for i, env in enumerate(singles)]
    for t, action in enumerate(actions):
        observations, rewards, _, _, infos = envs.step(action)
        np.testing.assert_allclose(observations, [p[t][0] for p in plain], rtol=1e-4, atol=1e-4)
        np.testing.assert_allclose(rewards, [p[t][1] for p in plain], atol=1e-5)
        for key in envs.info_types:
            np.testing.assert_array_equal(infos[key], [p[t][4][key] for p in plain])
        assert (rewards > envs.task_set.min_reward).all()


@pytest.mark.parametrize("kind", ["reference", "paper"])
@pytest.mark.parametrize("task", range(5))
def test_relabelling_with_the_own_task_gives_the_own_rewards(task: int, kind: Any) -> None:
    env = ReacherEnv("Reacher5-v0", task, reward=kind)
    env.reset(seed=SOLUTIONS[task]["seed"])
    actions = np.array(SOLUTIONS[task]["actions"])
    observations, rewards, _, _, infos = zip(*(env.step(action) for action in actions), strict=True)
    relabelled = relabelled_rewards(np.zeros(0), actions, np.array(observations), np.full(len(actions), task), kind)
    excess = relabelled - rewards
    if task == 4:
        # Its target carries start noise (1 cm at most), and its stages are not those of other tasks.
        excess += np.diff([0, *(info["stages"] for info in infos)]) if kind == "paper" else 0
        np.testing.assert_allclose(excess[5:], 0, atol=0.02)
    else:
        # What is left is the penalty on accelerations.
        assert (excess > -1e-5).all()
        assert excess[5:].max() < 0.01


def test_relabelling_with_other_tasks_follows_the_formulas(model: mujoco.MjModel) -> None:
    rng = np.random.default_rng(0)
    batch = 60
    tasks, stages = rng.integers(0, 5, batch), rng.integers(0, 3, batch)
    qpos, qvel = rng.uniform(*model.jnt_range.T, (batch, 6)), rng.uniform(-4, 4, (batch, 6))
    # Some of them at a subgoal: where planned episodes of task 0 get to B, their second.
    env = ReacherEnv("Reacher5-v0", 0)
    env.reset(seed=SOLUTIONS[0]["seed"])
    outcomes = [env.step(np.array(action)) for action in SOLUTIONS[0]["actions"]]
    at_b = [outcome[0] for outcome in outcomes if outcome[4]["hit"]][1]
    qpos[:8], qvel[:8], stages[:8], tasks[:8] = at_b[:6], at_b[6:12], [1, 1, 0, 0, 1, 1, 0, 2], range(8)
    tasks[:8] %= 5
    actions = rng.uniform(-1, 1, (batch, 6))
    next_obs = np.hstack((qpos, qvel, np.eye(3)[stages])).astype(np.float32)
    got = relabelled_rewards(np.zeros_like(next_obs), actions, next_obs, tasks)
    hits = 0
    for i in range(batch):
        hand = forward(model, qpos[i] - 0.01 * qvel[i]).body("hand").xpos
        goal = SEQUENCES[tasks[i]][stages[i]] if tasks[i] < 4 else POSES[0][1]
        d = math.dist(hand, goal)
        after = stages[i] + (d < 0.05 and tasks[i] < 4)
        expected = scalar_reward(int(tasks[i]), d, int(stages[i]), int(after), actions[i], qvel[i], [0.0], "reference")
        assert got[i] == pytest.approx(expected, abs=1e-5)
        hits += d < 0.05 and tasks[i] < 4
    assert hits >= 4  # tasks 0 and 1 in stage 1, tasks 2 and 3 in stage 0


# ---------------------------------------------------------------------- stages and endings


def with_hits(env: ReacherEnv, hits: int) -> ReacherEnv:
    env.reset(seed=0)
    state = env.get_state()
    state["episode"]["hits"][0] = hits
    env.set_state(state)
    return env


def test_staying_takes_thirty_hits_per_stage_and_ends_after_ninety() -> None:
    env = ReacherEnv("Reacher5-v0", 4)
    # The first step of a falling arm is still within 5 cm of the start.
    for hits, stages, over in (
        (0, 0, False),
        (28, 0, False),
        (29, 1, False),
        (58, 1, False),
        (59, 2, False),
        (89, 3, True),
    ):
        observation, _, terminated, truncated, info = with_hits(env, hits).step(ZERO)
        assert (terminated, truncated, info["success"], info["stages"]) == (over, False, over, stages)
        assert info["hit"]
        assert observation[12:].argmax() == hits // 30  # the stage before this step


def test_other_tasks_advance_with_every_hit() -> None:
    for task in range(4):
        env = with_hits(ReacherEnv("Reacher5-v0", task), 2)
        state = env.get_state()
        hand = hand_positions(state["physics"][:, 1:7])[0]
        state["episode"]["subgoals"][0, 2] = hand
        env.set_state(state)
        observation, _, terminated, _, info = env.step(ZERO)
        assert (terminated, info["stages"], observation[12:].tolist()) == (True, 3, [0, 0, 1])


def test_truncation_at_the_horizon_is_no_termination() -> None:
    for task in (0, 4):
        env = ReacherEnv("Reacher5-v0", task)
        env.reset(seed=0)
        endings = [env.step(ZERO)[2:4] for _ in range(200)]
        assert endings == [(False, False)] * 199 + [(False, True)]


def test_untrained_policies_solve_nothing() -> None:
    envs = ReacherVectorEnv(num_envs=25)
    rng = np.random.default_rng(0)
    for scale in (0.0, 1.0):
        envs.reset(seed=0)
        for _ in range(200):
            _, _, terminations, _, infos = envs.step(rng.uniform(-scale, scale, (25, 6)))
            assert not terminations.any()
            assert not infos["success"].any()


# ---------------------------------------------------------------------- Gymnasium


@pytest.mark.parametrize("task", range(5))
def test_every_task_passes_gymnasiums_check(task: int) -> None:
    env = gym.make("Reacher5-v0", task=task, render_mode="rgb_array")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        # Velocities have no bound that holds in every case, and joint limits are soft.
        warnings.filterwarnings("ignore", message=".*A Box observation space m.* value is .*infinity.*")
        check_env(env.unwrapped, skip_render_check=task > 0)


def test_make() -> None:
    env = gym.make("Reacher5-v0", task=2, reward="paper")
    assert isinstance(env.unwrapped, ReacherEnv)
    assert (env.unwrapped.task, env.unwrapped.task_set.reward_version) == (2, "paper")
    observation, info = env.reset(seed=0)
    assert (observation.shape, observation.dtype) == ((15,), np.float32)
    assert {key: type(value) for key, value in info.items()} == ReacherVectorEnv.info_types
    envs = gym.make_vec("Reacher5-v0", num_envs=7)
    assert isinstance(envs, ReacherVectorEnv)
    assert envs.task_ids.tolist() == [0, 1, 2, 3, 4, 0, 1]
    assert envs.metadata["render_fps"] == 25


@pytest.mark.parametrize("mode", list(AutoresetMode))
def test_vector_environment_equals_a_loop_over_single_ones(mode: AutoresetMode) -> None:
    kwargs: dict[str, Any] = {"max_episode_steps": 12}
    loop = SyncVectorEnv([lambda i=i: ReacherEnv("Reacher5-v0", i, **kwargs) for i in range(5)], autoreset_mode=mode)
    envs = ReacherVectorEnv(num_envs=5, autoreset_mode=mode, **kwargs)
    assert data_equivalence(envs.reset(seed=3), loop.reset(seed=3), exact=True)
    rng = np.random.default_rng(0)
    for _ in range(30):
        actions = rng.uniform(-1, 1, (5, 6)).astype(np.float32)
        ours, theirs = envs.step(actions), loop.step(actions)
        for a, b in zip(ours[:4], theirs[:4], strict=True):
            np.testing.assert_array_equal(a, b)
        for key in envs.info_types:
            np.testing.assert_array_equal(ours[4][key], theirs[4][key])
        done = ours[2] | ours[3]
        if mode is AutoresetMode.DISABLED and done.any():
            envs.reset(options={"reset_mask": done})
            loop.reset(options={"reset_mask": done.copy()})


def test_saved_environments_continue_exactly() -> None:
    envs, other = (ReacherVectorEnv(num_envs=5, autoreset_mode="SameStep", max_episode_steps=20) for _ in range(2))
    envs.reset(seed=0)
    rng = np.random.default_rng(0)
    for t in range(60):
        if t == 13:
            other.set_state(envs.get_state())
        actions = rng.uniform(-1, 1, (5, 6))
        ours = envs.step(actions)
        if t >= 13:
            assert data_equivalence(ours, other.step(actions), exact=True)


def test_two_processes_agree() -> None:
    program = (
        "import numpy as np, hashlib; from qmp_envs.reacher import ReacherVectorEnv\n"
        "envs = ReacherVectorEnv(num_envs=5); parts = [envs.reset(seed=4)[0]]; rng = np.random.default_rng(0)\n"
        "for _ in range(50): parts.extend(envs.step(rng.uniform(-1, 1, (5, 6)))[:2])\n"
        "print(hashlib.sha256(b''.join(p.tobytes() for p in parts)).hexdigest())"
    )
    runs = [
        subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True) for _ in range(2)
    ]
    assert len(runs[0].stdout) > 60
    assert runs[0].stdout == runs[1].stdout


def test_pictures_show_hand_and_current_subgoal() -> None:
    envs = ReacherVectorEnv(num_envs=5, render_mode="rgb_array")
    envs.reset(seed=0)
    frames = envs.render()
    assert frames is not None
    camera = qmp_envs.reacher._CAMERA
    for i, frame in enumerate(frames):
        values = frame.astype(float)
        for colour, point in ((0, POSES[0][1]), (1, (*SEQUENCES, (POSES[0][1],))[i][0])):
            dominant = values[..., colour] > 1.25 * np.delete(values, colour, axis=2).max(axis=2)
            if i == 4 and colour == 0:
                continue  # its hand is inside its target
            right, down = np.argwhere(dominant).mean(axis=0)[::-1]
            expected = camera.project(np.array(point))[:2]
            # The hand's frame is where it is flanged on.
            np.testing.assert_allclose((right, down), expected, atol=20 if colour == 0 else 8)
    np.testing.assert_array_equal(envs.render()[0], frames[0])  # type: ignore[index]


def test_wrong_arguments_say_what_was_expected() -> None:
    with pytest.raises(ValueError, match=r"env_id must be one of \['Reacher5-v0'\], got 'Reacher6-v0'"):
        ReacherVectorEnv("Reacher6-v0")
    with pytest.raises(ValueError, match=r"reward must be one of \['reference', 'paper'\], got 'dense'"):
        ReacherVectorEnv(reward="dense")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"task is 5, but Reacher5-v0 has tasks 0 to 4"):
        ReacherEnv("Reacher5-v0", 5)
