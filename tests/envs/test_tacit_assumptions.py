"""What the environments assume of Gymnasium and of MuJoCo: an upgrade that changes it fails here first."""

from __future__ import annotations

import copy
import pickle
from typing import Any

import gymnasium as gym
import mujoco
import mujoco.rollout
import numpy as np
import pytest
from gymnasium.utils import seeding
from gymnasium.vector import AutoresetMode, SyncVectorEnv

STATE = mujoco.mjtState.mjSTATE_FULLPHYSICS.value
CONTROL = mujoco.mjtState.mjSTATE_CTRL.value


# ---------------------------------------------------------------------- Gymnasium


class Counter(gym.Env[np.ndarray, int]):
    """Observes how many steps the episode is old; ends after ``length`` of them; reports its last action."""

    observation_space = gym.spaces.Box(-1, 100, (1,), np.float64)
    action_space = gym.spaces.Discrete(100)

    def __init__(self, length: int) -> None:
        self.length = length

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[np.ndarray, dict[str, Any]]:
        super().reset(seed=seed)
        self.age = 0
        return np.array([0.0]), {"success": False}

    def step(self, action: int) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        self.age += 1
        done = self.age >= self.length
        return np.array([float(self.age)]), 1.0, done, False, {"success": done}


def counters(mode: AutoresetMode) -> SyncVectorEnv:
    envs = SyncVectorEnv([lambda: Counter(2), lambda: Counter(3)], autoreset_mode=mode)
    envs.reset(seed=5)
    return envs


def test_next_step_spends_a_step_on_the_reset() -> None:
    envs = counters(AutoresetMode.NEXT_STEP)
    steps = [envs.step(np.zeros(2, dtype=int)) for _ in range(4)]
    assert [s[0][:, 0].tolist() for s in steps] == [[1, 1], [2, 2], [0, 3], [1, 0]]
    assert [s[1].tolist() for s in steps] == [[1, 1], [1, 1], [0, 1], [1, 0]]
    assert [s[2].tolist() for s in steps] == [[False, False], [True, False], [False, True], [False, False]]
    assert [s[4]["_success"].all() for s in steps] == [True] * 4


def test_same_step_hands_over_the_end_in_infos() -> None:
    envs = counters(AutoresetMode.SAME_STEP)
    envs.step(np.zeros(2, dtype=int))
    observations, rewards, terminations, _, infos = envs.step(np.zeros(2, dtype=int))
    assert observations[:, 0].tolist() == [0, 2]
    assert rewards.tolist() == [1, 1]
    assert terminations.tolist() == [True, False]
    assert infos.keys() == {
        "final_obs",
        "_final_obs",
        "final_info",
        "_final_info",
        "success",
        "_success",
    }
    assert infos["final_obs"].dtype == object
    assert infos["final_obs"][0].tolist() == [2]
    assert infos["final_obs"][1] is None
    assert infos["_final_obs"].tolist() == infos["_final_info"].tolist() == [True, False]
    assert infos["final_info"]["success"].tolist() == [True, False]
    assert infos["final_info"]["_success"].tolist() == [True, False]
    assert infos["success"].tolist() == [False, False]


def test_disabled_refuses_to_step_a_finished_environment() -> None:
    envs = counters(AutoresetMode.DISABLED)
    envs.step(np.zeros(2, dtype=int))
    envs.step(np.zeros(2, dtype=int))
    with pytest.raises(AssertionError):
        envs.step(np.zeros(2, dtype=int))
    options = {"reset_mask": np.array([True, False])}
    observations, _ = envs.reset(options=options)
    assert observations[:, 0].tolist() == [0, 2]
    assert options == {}  # the mask is taken out of the caller's dictionary: make a new one for each call


def test_an_integer_seed_counts_up() -> None:
    envs = counters(AutoresetMode.NEXT_STEP)
    assert envs.np_random_seed == (5, 6)


def test_generators_are_numpys_and_restorable() -> None:
    rng, _ = seeding.np_random(3)
    assert isinstance(rng, np.random.Generator)
    saved = rng.bit_generator.state
    drawn = rng.normal(size=3)
    other, _ = seeding.np_random(99)
    other.bit_generator.state = saved
    np.testing.assert_array_equal(other.normal(size=3), drawn)


def test_time_limit_reports_both_endings_at_once() -> None:
    env = gym.wrappers.TimeLimit(Counter(2), 2)  # why the environments truncate by themselves
    env.reset()
    env.step(0)
    assert env.step(0)[2:4] == (True, True)


def test_make_needs_its_own_entry_point() -> None:
    try:
        gym.register(id="OnlyVector-v0", vector_entry_point="qmp_envs.maze:MazeVectorEnv")
        with pytest.raises(gym.error.Error, match="entry_point is not specified"):
            gym.make("OnlyVector-v0")
        assert gym.make_vec("OnlyVector-v0", num_envs=2).num_envs == 2
    finally:
        gym.registry.pop("OnlyVector-v0", None)


def test_make_vec_hands_the_time_limit_to_the_vector_environment() -> None:
    try:
        gym.register(id="Limited-v0", vector_entry_point="qmp_envs.maze:MazeVectorEnv", max_episode_steps=9)
        assert gym.make_vec("Limited-v0", num_envs=1).max_episode_steps == 9  # type: ignore[attr-defined]
    finally:
        gym.registry.pop("Limited-v0", None)


# ---------------------------------------------------------------------- MuJoCo

SLIDER = mujoco.MjModel.from_xml_string("""
<mujoco>
  <option timestep="0.01" gravity="0 0 0"/>
  <worldbody>
    <body name="box">
      <joint name="x" type="slide" axis="1 0 0" damping="1"/>
      <joint name="z" type="slide" axis="0 0 1" limited="true" range="-0.1 0.1"/>
      <geom size="0.1"/>
    </body>
    <body name="target" mocap="true" pos="1 2 3"/>
  </worldbody>
  <actuator><motor joint="x" ctrllimited="true" ctrlrange="-1 1"/><motor joint="z"/></actuator>
  <sensor><jointpos joint="x"/><framepos objtype="xbody" objname="target"/></sensor>
</mujoco>""")


def rolled(
    states: np.ndarray, controls: np.ndarray, *, nthread: int = 0, spec: int = CONTROL
) -> tuple[np.ndarray, np.ndarray]:
    """States and sensors after each step: (N, steps, ...) of N simulations."""
    num, steps = controls.shape[:2]
    out, sensors = np.zeros((num, steps, states.shape[1])), np.zeros((num, steps, SLIDER.nsensordata))
    rollout = mujoco.rollout.Rollout(nthread=nthread)
    data = [mujoco.MjData(SLIDER) for _ in range(max(1, nthread))]
    rollout.rollout(
        [SLIDER] * num,
        data,
        states,
        controls,
        control_spec=spec,
        skip_checks=True,
        nstep=steps,
        state=out,
        sensordata=sensors,
        chunk_size=-(-num // max(1, nthread)),
    )
    rollout.close()
    return out, sensors


def started(num: int) -> np.ndarray:
    """Time 1, x and z, their velocities."""
    states = np.random.default_rng(0).uniform(-0.3, 0.3, (num, 5))
    states[:, 0] = 1.0
    return states


def test_full_physics_is_time_positions_velocities() -> None:
    assert mujoco.mj_stateSize(SLIDER, STATE) == 5
    data = mujoco.MjData(SLIDER)
    data.time, data.qpos[:], data.qvel[:] = 7.0, (1.0, 2.0), (3.0, 4.0)
    state = np.empty(5)
    mujoco.mj_getState(SLIDER, data, state, STATE)
    assert state.tolist() == [7, 1, 2, 3, 4]


def test_rollout_is_mj_step_with_a_cold_solver() -> None:
    states = started(6)
    controls = np.random.default_rng(1).uniform(-1, 1, (6, 5, 2))
    out, sensors = rolled(states, controls)
    for i in range(6):
        data = mujoco.MjData(SLIDER)
        mujoco.mj_setState(SLIDER, data, states[i], STATE)
        for t in range(5):
            data.ctrl[:] = controls[i, t]
            mujoco.mj_step(SLIDER, data)  # cold in the first step, like each rollout call
            np.testing.assert_array_equal(out[i, t, 1:3], data.qpos)
            np.testing.assert_array_equal(out[i, t, 3:], data.qvel)
            np.testing.assert_array_equal(sensors[i, t], data.sensordata)


def test_threads_do_not_change_results() -> None:
    states, controls = started(7), np.random.default_rng(1).uniform(-1, 1, (7, 3, 2))
    for a, b in zip(rolled(states, controls), rolled(states, controls, nthread=2), strict=True):
        np.testing.assert_array_equal(a, b)


def test_calls_remember_nothing() -> None:
    states, controls = started(4), np.random.default_rng(1).uniform(-1, 1, (4, 6, 2))
    first, _ = rolled(states, controls[:, :3])
    once, _ = rolled(np.ascontiguousarray(first[:, -1]), controls[:, 3:])
    twice, _ = rolled(np.ascontiguousarray(first[:, -1]), controls[:, 3:])
    np.testing.assert_array_equal(once, twice)


def test_sensors_describe_the_state_before_the_step() -> None:
    states = started(3)
    out, sensors = rolled(states, np.zeros((3, 2, 2)))
    np.testing.assert_array_equal(sensors[:, 0, 0], states[:, 1])
    np.testing.assert_array_equal(sensors[:, 1, 0], out[:, 0, 1])


def test_what_the_control_leaves_out_is_reset_to_the_model() -> None:
    states = started(2)
    both = CONTROL | mujoco.mjtState.mjSTATE_MOCAP_POS.value
    controls = np.tile([0.0, 0.0, 4.0, 5.0, 6.0], (2, 1, 1))  # controls first, then mocap positions
    _, sensors = rolled(states, controls, spec=both)
    assert sensors[0, 0, 1:].tolist() == [4, 5, 6]
    _, sensors = rolled(states, np.zeros((2, 1, 2)))
    assert sensors[0, 0, 1:].tolist() == [1, 2, 3]


@pytest.mark.parametrize("bad", [np.nan, np.inf, 1e11])
def test_divergence_only_shows_in_the_clock(bad: float, tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    states = started(2)
    states[0, 1] = bad
    out, _ = rolled(states, np.zeros((2, 3, 2)))
    assert np.isfinite(out).all()
    assert (out[0, :, 0] < 0.05).all()
    np.testing.assert_allclose(out[1, :, 0], [1.01, 1.02, 1.03])


def test_nan_controls_are_silently_zeroed(tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    states = started(1)
    controls = np.ones((1, 1, 2))
    controls[0, 0, 0] = np.nan
    out, _ = rolled(states, controls)
    zeroed, _ = rolled(states, np.zeros((1, 1, 2)))
    np.testing.assert_array_equal(out, zeroed)


def test_a_closed_pool_raises() -> None:
    rollout = mujoco.rollout.Rollout(nthread=0)
    assert rollout.rollout_ is not None
    rollout.close()
    assert rollout.rollout_ is None
    with pytest.raises(RuntimeError):
        rollout.rollout([SLIDER], [mujoco.MjData(SLIDER)], started(1), np.zeros((1, 1, 2)))


def test_models_survive_pickling_and_copying() -> None:

    for other in (pickle.loads(pickle.dumps(SLIDER)), copy.deepcopy(SLIDER)):
        np.testing.assert_array_equal(other.qpos0, SLIDER.qpos0)
        np.testing.assert_array_equal(other.geom_size, SLIDER.geom_size)
