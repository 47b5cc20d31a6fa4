"""The walker's model, start states, rewards and endings, against literal numbers and plain MuJoCo."""

from __future__ import annotations

import copy
import hashlib
import subprocess
import sys
import warnings
from functools import cache
from importlib.resources import as_file, files
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
from qmp_envs.walker import (
    DT,
    LEFT_COLOUR,
    RIGHT_COLOUR,
    TORSO_COLOUR,
    WalkerEnv,
    WalkerVectorEnv,
    judge,
    relabelled_rewards,
)

FORWARD, BACKWARD, BALANCE, CRAWL = range(4)
STANDING = np.array([0.0, 1.25, 0, 0, 0, 0, 0, 0, 0])
STAY = np.zeros(6)
# x, z, half sizes in x and z
OBSTACLES = {(8.0, 1.0, 6.0, 0.1), (-10.0, 1.0, 1.5, 0.1), (-5.0, 0.2, 0.1, 0.2)}


@cache
def gymnasiums_model() -> mujoco.MjModel:
    with as_file(files("gymnasium") / "envs/mujoco/assets/walker2d_v5.xml") as path:
        return mujoco.MjModel.from_xml_path(str(path))


def models() -> tuple[mujoco.MjModel, mujoco.MjModel]:
    """The model of the first three tasks and that of crawling."""
    engine = WalkerVectorEnv(num_envs=4)._engine
    assert engine.models[0] is engine.models[1] is engine.models[2]
    return engine.models[0], engine.models[3]


def placed(env: WalkerEnv, qpos: np.ndarray, qvel: np.ndarray | float = 0.0, elapsed: int = 0) -> WalkerEnv:
    """A freshly reset walker put somewhere."""
    env.reset(seed=0)
    state = env.get_state()
    state["physics"][0, 1:10] = qpos
    state["physics"][0, 10:19] = qvel
    state["elapsed"][0] = elapsed
    env.set_state(state)
    return env


# ---------------------------------------------------------------------- model


def test_task_set() -> None:
    task_set = qmp_envs.TASK_SETS["Walker4-v0"]
    assert task_set.task_names == ("forward", "backward", "balance", "crawl")
    assert (task_set.horizon, task_set.min_reward, task_set.domain_matrix) == (1000, 0.0, None)
    assert DT == 4 * models()[0].opt.timestep == 0.008


def test_model_is_gymnasiums_except_for_a_foot_and_obstacles() -> None:
    theirs = gymnasiums_model()
    for model in models():
        assert model.opt.timestep == 0.002
        assert model.opt.integrator == mujoco.mjtIntegrator.mjINT_RK4
        for name in ("body_pos", "body_mass", "body_inertia", "body_ipos", "jnt_range", "jnt_axis", "jnt_pos", "qpos0"):
            np.testing.assert_array_equal(getattr(model, name), getattr(theirs, name), err_msg=name)
        for name in ("dof_damping", "dof_armature", "actuator_gear", "actuator_ctrlrange", "jnt_solref", "jnt_solimp"):
            np.testing.assert_array_equal(getattr(model, name), getattr(theirs, name), err_msg=name)
        for body in range(1, 8):
            for a, b in zip(range(model.body_geomnum[body]), range(theirs.body_geomnum[body]), strict=True):
                a, b = a + model.body_geomadr[body], b + theirs.body_geomadr[body]
                friction = 0.9 if body != 7 else 1.9
                assert model.geom_friction[a].tolist() == [friction, 0.1, 0.1]
                for name in ("geom_size", "geom_pos", "geom_quat", "geom_contype", "geom_conaffinity", "geom_solref"):
                    np.testing.assert_array_equal(getattr(model, name)[a], getattr(theirs, name)[b], err_msg=name)
        assert model.geom("foot_geom").friction[0] == 0.9
        assert model.geom("foot_left_geom").friction[0] == 1.9
        assert model.geom("floor").friction.tolist() == [0.7, 0.1, 0.1]
        data = mujoco.MjData(model)
        mujoco.mj_forward(model, data)
        np.testing.assert_allclose(data.body("torso").xpos, [0, 0, 1.25], atol=1e-12)
        for side in ("", "_left"):
            np.testing.assert_allclose(data.body(f"thigh{side}").xpos, [0, 0, 1.05], atol=1e-12)
            np.testing.assert_allclose(data.body(f"leg{side}").xpos, [0, 0, 0.35], atol=1e-12)
            np.testing.assert_allclose(data.body(f"foot{side}").xpos, [0.2, 0, 0], atol=1e-12)


def test_obstacles_are_there_but_only_crawlers_can_touch_them() -> None:
    for model, touchable in zip(models(), (False, True), strict=True):
        boxes = np.flatnonzero(model.geom_type == mujoco.mjtGeom.mjGEOM_BOX)
        found = {(*model.geom_pos[box][[0, 2]], *model.geom_size[box][[0, 2]]) for box in boxes}
        assert found == OBSTACLES
        assert (model.geom_pos[boxes, 1] == 0.0).all()
        assert (model.geom_size[boxes, 1] == 2.0).all()
        data = mujoco.MjData(model)
        for x, z, _, half_z in OBSTACLES:
            data.qpos[:] = STANDING
            data.qpos[:2] = x, z + half_z + 1.25 - 0.05  # The soles are 0.04 above the ground if the torso is at 1.25.
            mujoco.mj_forward(model, data)
            geoms = {geom for contact in data.contact for geom in (contact.geom1, contact.geom2)}
            assert bool(geoms & set(boxes.tolist())) == touchable


def test_physics_are_gymnasiums() -> None:
    theirs = gym.make("Walker2d-v5", terminate_when_unhealthy=False).unwrapped
    theirs.model.geom("foot_geom").friction[0] = 0.9  # type: ignore[attr-defined]
    theirs.reset(seed=0)
    env = placed(WalkerEnv("Walker4-v0", task=CRAWL), STANDING)
    theirs.set_state(STANDING, np.zeros(9))  # type: ignore[attr-defined]
    rng = np.random.default_rng(0)
    for step in range(40):
        action = rng.uniform(-1, 1, 6)
        expected = theirs.step(action)[0]
        observation, _, terminated, _, _ = env.step(action)
        np.testing.assert_allclose(observation, expected, atol=2e-6 * 1.3**step, err_msg=f"step {step}")
        if terminated:
            break
    assert step > 20


# ---------------------------------------------------------------------- rewards


@pytest.mark.parametrize(
    ("task", "velocity", "expected"),
    [
        # Standing straight: angle 0.1, alive 1, height 1.25 and so 0.15 off.
        (FORWARD, 3.0, 3 + 0.1 + 1 - 0.15),
        (FORWARD, 1.0, 1 + 0.1 + 1 - 0.15),
        (FORWARD, 4.0, 2 + 0.1 + 1 - 0.15),
        (FORWARD, -3.0, -3 + 0.1 + 1 - 0.15),
        (BACKWARD, -3.0, 3 + 0.1 + 1 - 0.15),
        (BACKWARD, 2.0, -2 + 0.1 + 1 - 0.15),
        (BACKWARD, -5.0, 1 + 0.1 + 1 - 0.15),
        (BALANCE, 0.0, 0.1 + 1 - 0.075),
        (BALANCE, -2.0, -2 + 0.1 + 1 - 0.075),
        (CRAWL, 3.0, 6 + 0.1 + 1),
        (CRAWL, 2.5, 5 + 0.1 + 1),
        (CRAWL, -1.0, -2 + 0.1 + 1),
    ],
)
def test_rewards_of_a_standing_walker_are_literal(task: int, velocity: float, expected: float) -> None:
    before = STANDING - [velocity * 0.008, 0, 0, 0, 0, 0, 0, 0, 0]
    rewards, failures = judge(np.array([task]), before[None], STANDING[None], STAY[None])
    assert rewards[0] == pytest.approx(expected, abs=1e-9)
    assert not failures[0]


def test_small_terms_are_literal() -> None:
    def reward(task: int, after: np.ndarray, action: np.ndarray = STAY, before: np.ndarray = STANDING) -> float:
        return float(judge(np.array([task]), before[None], after[None], action[None])[0][0])

    still = reward(FORWARD, STANDING)
    # 1 and 4 times 0.25 for the motors.
    assert reward(FORWARD, STANDING, np.array([1, 0.5, -0.5, 0.5, 0, -0.5])) - still == pytest.approx(-0.002)
    # The right ankle turned by 0.016 rad and the left by -0.008: 3 rad/s. The frame of the right foot is then
    # 0.2 sin(0.016) + 0.1 - 0.1 cos(0.016) lower, and the left one higher by about half of that.
    turned = STANDING.copy()
    turned[5], turned[8] = -0.016, 0.008
    higher = 0.2 * np.sin(0.008) - 0.1 * (np.cos(0.008) - 1)
    lower = 0.2 * np.sin(-0.008) - 0.1 * (np.cos(0.008) - 1)
    feet = [0.2 * np.sin(a) - 0.1 * (np.cos(a) - 1) for a in (-0.016, 0.008)]
    assert (higher > 0) == (lower < 0)
    assert reward(FORWARD, turned) - still == pytest.approx(-0.03 + max(feet), abs=1e-9)
    assert reward(BALANCE, turned) - reward(BALANCE, STANDING) == pytest.approx(0.5 * max(feet), abs=1e-9)
    assert reward(CRAWL, turned) - reward(CRAWL, STANDING) == pytest.approx(-0.03, abs=1e-9)
    # The other joints' speeds cost nothing.
    other = STANDING.copy()
    other[[3, 4]] = -0.3, 0.3
    assert reward(CRAWL, other) == pytest.approx(reward(CRAWL, STANDING), abs=1e-9)


def depth_in_a_ceiling(data: mujoco.MjData) -> float:
    """How far the walker's capsules reach into a ceiling, by points 1 mm apart; negative: how far they are off."""
    depths = []
    for geom in range(data.model.ngeom):
        if data.model.geom_type[geom] == mujoco.mjtGeom.mjGEOM_CAPSULE:
            radius, half_length, _ = data.model.geom_size[geom]
            axis = data.geom_xmat[geom].reshape(3, 3)[:, 2]
            points = data.geom_xpos[geom] + np.linspace(-half_length, half_length, 501)[:, None] * axis
            for x, z, half_x, half_z in ((8.0, 1.0, 6.0, 0.1), (-10.0, 1.0, 1.5, 0.1)):
                beside = np.maximum(abs(points[:, 0] - x) - half_x, 0)
                above = np.maximum(abs(points[:, 2] - z) - half_z, 0)
                depths.append(radius - np.sqrt(beside**2 + above**2).min())
    return max(depths)


def scalar_judgement(
    task: int, before: np.ndarray, after: np.ndarray, action: np.ndarray, data: mujoco.MjData
) -> tuple[float, bool, float]:
    """Reward and failure of one step, written out, from heights that MuJoCo computes; then the depth in a ceiling."""
    mujoco.mj_resetData(data.model, data)
    data.qpos[:] = after
    mujoco.mj_kinematics(data.model, data)
    v = (after[0] - before[0]) / 0.008
    ankles = (abs(after[5] - before[5]) + abs(after[8] - before[8])) / 0.008
    h = data.body("torso").xpos[2] - max(data.body("foot").xpos[2], data.body("foot_left").xpos[2])
    energy = sum(float(a) ** 2 for a in action)
    angle = 0.1 * np.cos(after[2])
    if task == FORWARD:
        reward = (3 - abs(v - 3)) + angle - abs(1.1 - h) + 1 - 0.01 * ankles - 0.001 * energy
        return reward, after[1] < 0.8, 0.0
    if task == BACKWARD:
        reward = (3 - abs(-v - 3)) + angle - abs(1.1 - h) + 1 - 0.01 * ankles - 0.001 * energy
        return reward, after[1] < 0.8, 0.0
    if task == BALANCE:
        return -abs(v) + angle - 0.5 * abs(1.1 - h) + 1 - 0.001 * energy, after[1] < 0.8, 0.0
    reward = 2 * (3 - abs(v - 3)) + angle + 1 - 0.01 * ankles - 0.001 * energy
    depth = depth_in_a_ceiling(data)
    return (reward - 10 if depth > 0 else reward), after[1] < 0.3 or depth > 0, depth


def random_poses(rng: np.random.Generator, rows: int) -> np.ndarray:
    qpos = rng.uniform(-2.6, 0.8, (rows, 9))
    qpos[:, 0] = rng.choice([0.0, 2.0, 8.0, 14.0, -8.5, -11.5], rows) + rng.uniform(-1.5, 1.5, rows)
    qpos[:, 1] = rng.uniform(0.2, 2.2, rows)
    qpos[:, 2] = rng.uniform(-2, 2, rows)
    return qpos


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 2**31))
def test_batched_rewards_equal_a_scalar_computation(seed: int) -> None:
    rng = np.random.default_rng(seed)
    task_ids = rng.integers(0, 4, 16)
    after = random_poses(rng, 16)
    before = after + rng.normal(0, 0.03, after.shape)
    actions = rng.uniform(-1, 1, (16, 6))
    rewards, failures = judge(task_ids, before, after, actions)
    assert rewards.dtype == np.float64
    data = mujoco.MjData(models()[1])
    for i, task in enumerate(task_ids):
        reward, failure, depth = scalar_judgement(int(task), before[i], after[i], actions[i], data)
        if task != CRAWL or abs(depth) > 1e-5:  # The sampled points are that much off, at most.
            assert (rewards[i], failures[i]) == (pytest.approx(reward, abs=1e-9), failure)


def test_ceiling_contacts_of_mujoco_are_found() -> None:
    model = models()[1]
    data = mujoco.MjData(model)
    poses = random_poses(np.random.default_rng(0), 1000)
    hits = judge(np.full(1000, CRAWL), poses, poses, np.zeros((1000, 6)))[1] & (poses[:, 1] > 0.3)
    found = 0
    for qpos, hit in zip(poses, hits, strict=True):
        data.qpos[:] = qpos
        mujoco.mj_kinematics(model, data)
        mujoco.mj_collision(model, data)
        distances = [
            contact.dist
            for contact in data.contact
            for geom in (contact.geom1, contact.geom2)
            if model.geom_type[geom] == mujoco.mjtGeom.mjGEOM_BOX and model.geom_pos[geom, 2] == 1.0
        ]
        # MuJoCo sees no contact where a capsule's axis goes right through a thin box, so that the reverse is not true.
        assert hit or qpos[1] < 0.3 or min(distances, default=1.0) > -1e-6, qpos
        found += bool(distances)
    assert found > 100


def test_ceilings_are_hit_from_all_sides() -> None:
    # Upright, the walker's axis is vertical from 1.45 down to 0.1, with a radius of 0.05 at most heights.
    for x, z, hit in (
        (2.0 - 0.051, 1.25, False),
        (2.0 - 0.049, 1.25, True),
        (8.0, 1.25, True),
        (8.0, 1.9, True),  # A leg goes right through it.
        (13.7, 1.25, True),
        (14.051, 1.25, False),
        (-8.449, 1.25, False),
        (-10.0, 1.25, True),
        (8.0, 2.311, False),  # The soles are 0.04 above the ground if the torso is 1.25 above it.
        (8.0, 2.309, True),
        (8.0, 0.649, False),
        (8.0, 0.651, True),
    ):
        qpos = STANDING.copy()
        qpos[:2] = x, z
        if z < 1.0:
            qpos[[3, 6]] = -1.5  # The legs are level.
        rows = np.tile(qpos, (4, 1))
        rewards, failures = judge(np.arange(4), rows, rows, np.zeros((4, 6)))
        assert failures.tolist() == [z < 0.8, z < 0.8, z < 0.8, hit], (x, z)
        assert rewards[CRAWL] == pytest.approx(1.1 - 10 * hit), (x, z)


# ---------------------------------------------------------------------- episodes


def test_observation_layout_and_bounds() -> None:
    env = placed(WalkerEnv("Walker4-v0"), STANDING + 0.01 * np.arange(9))
    state = env.get_state()
    assert env.observation_space.shape == (17,)
    np.testing.assert_array_equal(env.observation_space.high, np.array([np.inf] * 8 + [10.0] * 9, dtype=np.float32))
    state["physics"][0, 1] = 7.0
    state["physics"][0, 10:19] = [-50, 1, 2, 3, 4, 5, 6, 7, 50]
    env.set_state(state)
    observation, reward, terminated, truncated, info = env.step(STAY)
    physics = env.get_state()["physics"][0]
    np.testing.assert_array_equal(observation[:8], physics[2:10].astype(np.float32))
    np.testing.assert_array_equal(observation[8:], physics[10:19].clip(-10, 10).astype(np.float32))
    assert observation[8] == -10.0
    assert np.abs(physics[10:19]).max() > 10
    assert observation.dtype == np.float32
    assert info["x_position"] == physics[1]
    assert info["x_velocity"] == (physics[1] - 7.0) / 0.008
    assert {key: type(value) for key, value in info.items()} == {
        "success": bool,
        "x_position": float,
        "x_velocity": float,
    }
    assert (type(reward), terminated, truncated) == (float, False, False)


def test_starts_are_noise_and_then_random_actions() -> None:
    envs = WalkerVectorEnv(num_envs=4)
    observations, _ = envs.reset(seed=5)
    for task, steps in enumerate((5, 5, 10, 5)):
        rng = np.random.default_rng(5 + task)
        data = mujoco.MjData(model := models()[task == CRAWL])
        data.qpos[:] = STANDING + rng.uniform(-0.01, 0.01, 9)
        data.qvel[:] = rng.uniform(-0.01, 0.01, 9)
        for action in rng.uniform(-1, 1, (steps, 6)):
            data.ctrl[:] = action
            mujoco.mj_step(model, data, 4)
        np.testing.assert_allclose(observations[task, :8], data.qpos[1:], atol=1e-6)
        np.testing.assert_allclose(observations[task, 8:], data.qvel.clip(-10, 10), atol=1e-4)


def test_no_start_fails_or_succeeds() -> None:
    envs = WalkerVectorEnv(num_envs=200)
    observations, _ = envs.reset(seed=0)
    assert observations[:, 0].min() > 1.0
    for action in np.random.default_rng(0).uniform(-1, 1, (3, 200, 6)):
        _, _, terminations, truncations, infos = envs.step(action)
        assert not (terminations | truncations | infos["success"]).any()


@pytest.mark.parametrize(
    ("task", "height", "fails"), [(0, 0.82, False), (0, 0.78, True), (1, 0.78, True), (2, 0.78, True)]
)
def test_falling_terminates(task: int, height: float, fails: bool) -> None:
    qpos = STANDING.copy()
    qpos[1] = height
    qpos[[3, 4, 6, 7]] = -1.2, -1.2, -1.2, -1.2
    _, _, terminated, truncated, info = placed(WalkerEnv("Walker4-v0", task=task), qpos).step(STAY)
    assert (terminated, truncated, info["success"]) == (fails, False, False)


def test_crawlers_may_be_low_but_not_touch_the_ceiling() -> None:
    env = WalkerEnv("Walker4-v0", task=CRAWL)
    qpos = STANDING.copy()
    qpos[:3] = 4.0, 0.75, -1.5
    qpos[[3, 4, 6, 7]] = -2.0, -1.0, -2.0, -1.0
    _, reward, terminated, _, _ = placed(env, qpos).step(STAY)
    assert not terminated
    assert reward > -5
    qpos[1:3] = 0.7, 0.0
    _, reward, terminated, truncated, info = placed(env, qpos).step(STAY)
    assert (terminated, truncated, info["success"]) == (True, False, False)
    assert reward < -5
    low = qpos.copy()
    low[:3] = -3.0, 0.32, -1.5
    low[3:] = 0.0
    assert not placed(env, low).step(STAY)[2]
    low[1] = 0.28
    assert placed(env, low).step(STAY)[2]


def test_the_horizon_truncates_and_being_up_is_success() -> None:
    for task in range(4):
        env = WalkerEnv("Walker4-v0", task=task)
        assert placed(env, STANDING, elapsed=998).step(STAY)[2:4] == (False, False)
        _, _, terminated, truncated, info = env.step(STAY)
        assert (terminated, truncated, info["success"]) == (False, True, True)
        fallen = STANDING.copy()
        fallen[1] = 0.2
        fallen[2] = 1.5
        _, _, terminated, truncated, info = placed(env, fallen, elapsed=999).step(STAY)
        assert (terminated, truncated, info["success"]) == (True, False, False)


@pytest.mark.parametrize("force_probability", [0.0, 0.5])
@pytest.mark.parametrize("mode", list(AutoresetMode))
def test_everything_is_as_in_a_loop_over_single_environments(mode: AutoresetMode, force_probability: float) -> None:
    options: dict[str, Any] = {"max_episode_steps": 40, "force_probability": force_probability}
    loop = SyncVectorEnv(
        [lambda i=i: WalkerEnv("Walker4-v0", task=i % 4, **options) for i in range(5)], autoreset_mode=mode
    )
    envs = WalkerVectorEnv(num_envs=5, autoreset_mode=mode, **options)
    # (Gymnasium writes the first infos of a loop into zeros, too.)
    np.testing.assert_array_equal(envs.reset(seed=0)[0], loop.reset(seed=0)[0])
    rng = np.random.default_rng(0)
    endings = np.zeros(2, dtype=int)
    for step in range(100):
        actions = rng.uniform(-1, 1, (5, 6)).astype(np.float32)
        if step == 45:
            saved = envs.get_state()
            envs = WalkerVectorEnv(num_envs=5, autoreset_mode=mode, **options)
            envs.set_state(saved)
        ours, theirs = envs.step(actions), loop.step(actions)
        for a, b in zip(ours[:4], theirs[:4], strict=True):
            np.testing.assert_array_equal(a, b, err_msg=f"step {step}")
        for key in ("success", "x_position", "x_velocity"):
            np.testing.assert_array_equal(ours[4][key], theirs[4][key], err_msg=f"step {step}")
        if "final_info" in theirs[4]:
            assert data_equivalence(ours[4]["final_info"], theirs[4]["final_info"], exact=True)
        done = ours[2] | ours[3]
        endings += ours[2].sum(), ours[3].sum()
        if mode is AutoresetMode.DISABLED and done.any():
            envs.reset(options={"reset_mask": done})
            loop.reset(options={"reset_mask": done.copy()})
    assert (endings > 1).all()


_TRACE = """
import hashlib, numpy as np, qmp_envs
envs = qmp_envs.WalkerVectorEnv(num_envs=4, autoreset_mode="SameStep", max_episode_steps=30)
digest = hashlib.sha256(envs.reset(seed=3)[0])
for action in np.random.default_rng(0).uniform(-1, 1, (60, 4, 6)):
    digest.update(b"".join(np.ascontiguousarray(x) for x in envs.step(action)[:4]))
"""


def test_two_processes_agree() -> None:
    theirs = subprocess.run(
        [sys.executable, "-c", _TRACE + "print(digest.hexdigest())"], capture_output=True, text=True
    )
    scope: dict[str, Any] = {"hashlib": hashlib}
    exec(_TRACE, scope)
    assert theirs.stdout.strip() == scope["digest"].hexdigest(), theirs.stderr


def standing_controller() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Linear-quadratic regulator about a pose with bent knees and level feet: pose, torques, gains (6, 18)."""
    model = copy.copy(models()[0])
    model.opt.integrator = mujoco.mjtIntegrator.mjINT_EULER  # Derivatives are not available with Runge-Kutta.
    data = mujoco.MjData(model)
    pose = np.array([0, 1.154, -0.3, -0.081, -0.6, 0.381, -0.081, -0.6, 0.381])
    forces = []
    for height in (heights := 1.154 + np.linspace(-0.003, 0.001, 200)):
        data.qpos[:] = pose
        data.qpos[1] = height
        data.qacc[:] = 0
        mujoco.mj_inverse(model, data)
        forces.append(data.qfrc_inverse.copy())
    best = np.abs(np.array(forces)[:, 1]).argmin()  # where the ground carries the weight
    pose[1], torques = heights[best], forces[best][3:] / 100
    mujoco.mj_resetData(model, data)
    data.qpos[:], data.ctrl[:] = pose, torques
    a, b = np.zeros((18, 18)), np.zeros((18, 6))
    mujoco.mjd_transitionFD(model, data, 1e-6, True, a, b, None, None)
    b = sum(np.linalg.matrix_power(a, k) for k in range(4)) @ b
    a = np.linalg.matrix_power(a, 4)
    cost = np.diag([0.3, 1, 20] + [1.0] * 6 + [0.1] * 9)
    value = cost
    for _ in range(3000):
        gains = np.linalg.solve(100 * np.eye(6) + b.T @ value @ b, b.T @ value @ a)
        value = cost + a.T @ value @ (a - b @ gains)
    return pose, torques, gains


def test_standing_still_succeeds_in_every_task() -> None:
    pose, torques, gains = standing_controller()
    envs = WalkerVectorEnv(num_envs=16, autoreset_mode=AutoresetMode.DISABLED)
    observations, infos = envs.reset(seed=0)
    running, successes, returns = np.ones(16, bool), np.zeros(16, bool), np.zeros(16)
    for _ in range(1000):
        state = np.column_stack((infos["x_position"], observations))
        actions = torques - (state - np.concatenate((pose, np.zeros(9)))) @ gains.T
        observations, rewards, terminations, truncations, infos = envs.step(actions)
        returns += rewards * running
        successes |= infos["success"] & running
        done = terminations | truncations
        running &= ~done
        if done.any():
            observations, _ = envs.reset(options={"reset_mask": done})
    assert not running.any()
    per_task = successes.reshape(-1, 4).mean(axis=0)
    # 0.88, 0.82, 0.62 and 0.84 of 50 episodes. The starts of balance are the roughest.
    assert (per_task > 0.3).all(), per_task
    # Unhurt but slow: the walkers' returns are 1 a step for being up, without what moving is worth.
    assert (returns[successes] < 1200).all()
    assert returns.reshape(-1, 4)[:, BALANCE].max() > 900


# ---------------------------------------------------------------------- relabelling


def test_any_task_can_judge_stored_transitions() -> None:
    envs = WalkerVectorEnv(num_envs=8, autoreset_mode=AutoresetMode.DISABLED)
    observations, _ = envs.reset(seed=0)
    rng = np.random.default_rng(0)
    data = mujoco.MjData(models()[1])
    for _ in range(8):
        actions = rng.uniform(-1, 1, (8, 6)).astype(np.float32)
        following, rewards, terminations, _, infos = envs.step(actions)
        # What a replay buffer holds: observations in single precision, and the two infos.
        x = infos["x_position"].astype(np.float32)
        x_before = x - DT * infos["x_velocity"]
        qpos, next_qpos = np.column_stack((x_before, observations[:, :8])), np.column_stack((x, following[:, :8]))
        own, failures = judge(envs.task_ids, qpos, next_qpos, actions)
        np.testing.assert_allclose(own, rewards, atol=1e-4)
        np.testing.assert_array_equal(failures, terminations)
        # What a scalar formula makes of single precision depends on NumPy's version.
        exact = [part.astype(np.float64) for part in (qpos, next_qpos, actions)]
        for task in range(4):
            other, _ = judge(np.full(8, task), *exact)
            expected = [scalar_judgement(task, *step, data)[0] for step in zip(*exact, strict=True)]
            np.testing.assert_allclose(other, expected, atol=1e-9)
        observations = following
        if terminations.any():
            break


def test_relabelling_by_observations_alone_is_nearly_exact() -> None:
    envs = WalkerVectorEnv(num_envs=40, autoreset_mode=AutoresetMode.DISABLED)
    observations, infos = envs.reset(seed=0)
    rng = np.random.default_rng(0)
    errors = []
    for step in range(25):
        if step % 5 == 0:
            actions = rng.uniform(-1, 1, (40, 6)).astype(np.float32)
        following, rewards, terminations, _, infos = envs.step(actions)
        relabelled = relabelled_rewards(observations, actions, following, envs.task_ids)
        # What the velocity's error leaves: its weight is 1, and 2 in crawling.
        mean = (observations[:, 8] + following[:, 8]) / 2
        allowed = np.abs(mean - infos["x_velocity"]) * np.where(envs.task_ids == CRAWL, 2, 1)
        assert (np.abs(relabelled - rewards) <= allowed + 1e-4).all()
        errors.append(relabelled - rewards)
        observations = following
        if terminations.any():
            break
    assert step > 8
    assert np.abs(errors).mean() < 0.05 < np.abs(rewards).mean()


# ---------------------------------------------------------------------- forces


def forces(envs: WalkerVectorEnv) -> np.ndarray:
    """(N, 8, 6) external forces in the last step, the same in all its physics steps."""
    control = envs._engine.control
    assert (control == control[:, :1]).all()
    return control[:, 0, 6:].reshape(-1, 8, 6).copy()


def test_no_forces_by_default() -> None:
    envs = WalkerVectorEnv(num_envs=4)
    envs.reset(seed=0)
    for _ in range(5):
        envs.step(np.ones((4, 6)))
        assert not forces(envs).any()


def test_forces_hit_one_body_for_one_step() -> None:
    envs = WalkerVectorEnv(num_envs=4, force_probability=(0.0, 1.0, 0.5, 1.0), autoreset_mode=AutoresetMode.DISABLED)
    envs.reset(seed=0)
    envs.step(np.zeros((4, 6)))
    assert not forces(envs).any()  # none in the first step
    state = envs.get_state()
    seen = []
    for _ in range(400):
        envs.step(np.zeros((4, 6)))
        seen.append(forces(envs))
        state["rng"] = envs.get_state()["rng"]
        envs.set_state(state)
    each = np.array(seen)
    bodies = each.any(axis=3)
    assert bodies.sum(axis=2).max() == 1
    assert not each[:, FORWARD].any()
    assert bodies[:, BACKWARD].all(axis=1).sum() == 0
    assert (bodies[:, BACKWARD].sum(axis=0) > 25).all()  # 400 pushes of 8 bodies, the world included
    assert bodies[:, BACKWARD].any(axis=1).all()
    assert 0.42 < bodies[:, BALANCE].any(axis=1).mean() < 0.58
    for task, limit in ((BACKWARD, 100), (BALANCE, 400), (CRAWL, 300)):
        assert 0.97 * limit < np.abs(each[:, task]).max() <= limit
        assert abs(each[:, task][bodies[:, task]].mean()) < 0.05 * limit


def test_forces_move_the_walker() -> None:
    pushed, free = (WalkerVectorEnv(num_envs=20, task_ids=20 * [BALANCE], force_probability=p) for p in (1.0, 0.0))
    pushed.reset(seed=0)
    free.reset(seed=0)
    for envs in (pushed, free):
        envs.step(np.zeros((20, 6)))
    following = [envs.step(np.zeros((20, 6)))[0] for envs in (pushed, free)]
    moved = np.abs(following[0] - following[1]).max(axis=1) > 1e-3
    # One in eight pushes the world.
    np.testing.assert_array_equal(moved, forces(pushed)[:, 1:].any(axis=(1, 2)))
    assert moved.sum() > 10


# ---------------------------------------------------------------------- interface


@pytest.mark.parametrize("task", range(4))
def test_every_task_passes_gymnasiums_check(task: int) -> None:
    env = gym.make("Walker4-v0", task=task, render_mode="rgb_array")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        warnings.filterwarnings("ignore", message=".*A Box observation space m.* value is .*infinity.*")
        check_env(env.unwrapped, skip_render_check=task > 0)


def test_make() -> None:
    env = gym.make("Walker4-v0", task=CRAWL)
    assert isinstance(env.unwrapped, WalkerEnv)
    assert env.spec is not None
    assert env.spec.max_episode_steps is None
    envs = gym.make_vec("Walker4-v0", num_envs=8, force_probability=0.1)
    assert isinstance(envs, WalkerVectorEnv)
    assert envs.task_ids.tolist() == [0, 1, 2, 3, 0, 1, 2, 3]
    assert envs.metadata["render_fps"] == 125


def test_wrong_arguments() -> None:
    with pytest.raises(ValueError, match=r"env_id must be one of \['Walker4-v0'\], got 'Walker5-v0'"):
        WalkerVectorEnv("Walker5-v0")
    for wrong in (-0.1, 1.5, (0.1, 0.2), np.nan):
        with pytest.raises(ValueError, match="force_probability must be one or 4 probabilities, got"):
            WalkerVectorEnv(force_probability=wrong)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"task is 4, but Walker4-v0 has tasks 0 to 3"):
        WalkerEnv("Walker4-v0", task=4)


def test_pictures_show_the_walker_where_it_is() -> None:
    envs = WalkerVectorEnv(num_envs=4, render_mode="rgb_array")
    envs.reset(seed=0)
    state = envs.get_state()
    state["physics"][:, 1:10] = STANDING
    state["physics"][:, 1] = 1.0
    state["physics"][:, 9] = -1.2  # the left ankle: a foot that points down
    state["physics"][:, 8] = -1.0
    envs.set_state(state)
    frames = envs.render()
    assert frames is not None
    for task, frame in enumerate(frames):
        assert (frame.dtype, frame.shape) == (np.uint8, (360, 480, 3))
        torso = np.argwhere((frame == TORSO_COLOUR).all(axis=2))
        # 160 pixels to the metre, the ground 1.95 m under the upper border, the walker in the middle.
        # The thigh hides the lower end of the torso.
        np.testing.assert_allclose(torso.mean(axis=0), [(1.95 - 1.29) * 160, 240], atol=4)
        right = np.argwhere((frame == RIGHT_COLOUR).all(axis=2))
        assert right[:, 0].max() == pytest.approx((1.95 - 0.04) * 160, abs=3)
        left = np.argwhere((frame == LEFT_COLOUR).all(axis=2))
        assert len(left) > 500
        # The left leg is bent by 1 rad at the knee, backwards, and the foot by 1.2 more: the toe is the hindmost point.
        toe = -0.5 * np.sin(1.0) + 0.2 * np.cos(2.2)
        assert left[:, 1].min() == pytest.approx(240 + (toe - 0.06) * 160, abs=3)
        # The ceiling begins a metre in front of the walker, 0.9 above the ground.
        ceiling = np.argwhere((frame == (66, 75, 92)).all(axis=2))
        if task == CRAWL:
            np.testing.assert_allclose(ceiling.min(axis=0), [(1.95 - 1.1) * 160, 400], atol=1.01)
            np.testing.assert_allclose(ceiling.max(axis=0), [(1.95 - 0.9) * 160 - 1, 479], atol=1.01)
        else:
            assert not len(ceiling)
