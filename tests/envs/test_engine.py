"""The physics seam against plain ``mj_step``: substeps, sensors, mocap bodies, several models, threads."""

from __future__ import annotations

import pickle

import mujoco
import numpy as np
import pytest

from qmp_envs.engine import CLOCK_START, CONTROL, Engine

STATE = mujoco.mjtState.mjSTATE_FULLPHYSICS.value
MOCAP = CONTROL | mujoco.mjtState.mjSTATE_MOCAP_POS.value


def arm(length: float = 0.5, extra: str = "", target: str = "1 0 1") -> mujoco.MjModel:
    """Two hinges with a sensed tip, and a mocap target that is sensed too."""
    return mujoco.MjModel.from_xml_string(f"""
<mujoco>
  <compiler angle="radian"/>
  <option timestep="0.01"/>
  <worldbody>
    <body name="upper">
      <joint type="hinge" axis="0 1 0" damping="0.5" ref="0.3"/>
      <geom type="capsule" fromto="0 0 0 {length} 0 0" size="0.05"/>
      <body name="lower" pos="{length} 0 0">
        <joint name="elbow" type="hinge" axis="0 1 0" damping="0.5"/>
        <geom type="capsule" fromto="0 0 0 0.5 0 0" size="0.05" contype="0"/>
        <site name="tip" pos="0.5 0 0"/>
      </body>
    </body>
    <body name="target" mocap="true" pos="{target}"/>
    {extra}
  </worldbody>
  <actuator><motor joint="elbow" gear="5"/></actuator>
  <sensor><framepos objtype="site" objname="tip"/><framepos objtype="xbody" objname="target"/></sensor>
</mujoco>""")


def plain(model: mujoco.MjModel, state: np.ndarray, controls: np.ndarray, spec: int) -> tuple[np.ndarray, np.ndarray]:
    """Final state and sensors of plain stepping with the constraint solver started from zero."""
    data = mujoco.MjData(model)
    mujoco.mj_setState(model, data, state, STATE)
    for control in controls:
        mujoco.mj_setState(model, data, control, spec)
        mujoco.mj_step(model, data)
    final = np.empty_like(state)
    mujoco.mj_getState(model, data, final, STATE)
    return final, data.sensordata.copy()


@pytest.mark.parametrize("nthread", [0, 2])
@pytest.mark.parametrize("spec", [CONTROL, MOCAP], ids=["control", "mocap"])
@pytest.mark.parametrize("own_models", [False, True])
def test_steps_as_plain_mujoco(nthread: int, spec: int, own_models: bool) -> None:
    rng = np.random.default_rng(0)
    models = [arm(0.3 + 0.1 * i) for i in range(5)] if own_models else [arm()] * 5
    engine = Engine(models if own_models else models[0], 5, frame_skip=4, control_spec=spec, nthread=nthread)
    assert engine.control.shape == (5, 4, 1 if spec == CONTROL else 4)
    engine.restart(np.arange(5))
    engine.qpos[...] += rng.uniform(-1, 1, engine.qpos.shape)
    for _ in range(10):
        engine.control[...] = rng.uniform(-1, 1, engine.control.shape)
        expected = [
            plain(model, state, control, spec)
            for model, state, control in zip(models, engine.state.copy(), engine.control, strict=True)
        ]
        assert engine.step() is None
        for i, (state, sensors) in enumerate(expected):
            np.testing.assert_allclose(engine.state[i], state, rtol=0, atol=1e-9)
            np.testing.assert_allclose(engine.sensordata[i], sensors, rtol=0, atol=1e-9)
    np.testing.assert_allclose(engine.state[:, 0], CLOCK_START + 0.4)
    engine.close()


def test_restart_and_sense_describe_the_reference_pose() -> None:
    engine = Engine(arm(), 3, frame_skip=2)
    engine.restart(np.arange(3))
    engine.control[...] = 1.0
    engine.step()
    moved = engine.state.copy()
    engine.restart(np.array([1]))
    np.testing.assert_array_equal(engine.state[1], [CLOCK_START, 0.3, 0, 0, 0])
    np.testing.assert_array_equal(engine.state[[0, 2]], moved[[0, 2]])
    kept = engine.sensordata.copy()
    engine.sense(np.array([1]))
    np.testing.assert_allclose(engine.sensordata[1], [1, 0, 0, 1, 0, 1], atol=1e-12)
    np.testing.assert_array_equal(engine.sensordata[[0, 2]], kept[[0, 2]])
    np.testing.assert_array_equal(engine.state[[0, 2]], moved[[0, 2]])


def test_sensors_are_one_substep_old_after_a_step_and_current_after_sense() -> None:
    engine = Engine(arm(), 1, frame_skip=3)
    engine.restart(np.arange(1))
    engine.control[...] = 1.0
    engine.step()
    stale = engine.sensordata.copy()
    data = mujoco.MjData(engine.models[0])
    mujoco.mj_setState(engine.models[0], data, engine.state[0], STATE)
    mujoco.mj_forward(engine.models[0], data)
    assert np.abs(stale[0] - data.sensordata).max() > 1e-4
    engine.sense(np.arange(1))
    np.testing.assert_allclose(engine.sensordata[0], data.sensordata, atol=1e-12)


def test_sense_uses_the_controls_and_the_model_of_each_row() -> None:
    engine = Engine([arm(), arm(target="7 8 9")], 2)
    engine.restart(np.arange(2))
    engine.step()
    engine.sense(np.array([1, 0]))
    assert engine.sensordata[:, 3:].tolist() == [[1, 0, 1], [7, 8, 9]]
    engine = Engine(arm(), 2, control_spec=MOCAP)
    engine.restart(np.arange(2))
    engine.control[:, :, 1:] = [[[4, 5, 6]], [[7, 8, 9]]]
    engine.sense(np.arange(2))
    assert engine.sensordata[:, 3:].tolist() == [[4, 5, 6], [7, 8, 9]]


def test_evaluate_describes_one_simulation_and_changes_none() -> None:
    engine = Engine([arm(), arm(0.7)], 2, frame_skip=3)
    engine.restart(np.arange(2))
    engine.control[...] = 1.0
    engine.step()
    states, sensors = engine.state.copy(), engine.sensordata.copy()
    for i in (1, 0):
        data = engine.evaluate(i)
        np.testing.assert_array_equal(data.qpos, engine.qpos[i])
        engine.sense(np.array([i]))
        np.testing.assert_allclose(data.site("tip").xpos, engine.sensordata[i, :3], atol=1e-12)
    assert np.abs(sensors - engine.sensordata).max() > 1e-4
    np.testing.assert_array_equal(engine.state, states)


def test_a_control_step_that_stops_early_counts_as_diverged(tmp_path: object, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(str(tmp_path))
    engine = Engine(arm(), 2, frame_skip=4)
    engine.restart(np.arange(2))
    engine.control[0, 1] = np.nan
    diverged = engine.step()
    assert diverged is not None
    assert diverged.tolist() == [True, False]


@pytest.mark.parametrize("frame_skip", [1, 4])
@pytest.mark.parametrize("value", [np.nan, 1e12])
def test_divergence_is_seen_in_the_first_step(
    frame_skip: int, value: float, tmp_path: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(str(tmp_path))
    engine = Engine(arm(), 3, frame_skip=frame_skip)
    engine.restart(np.arange(3))
    engine.qvel[1, 0] = value
    diverged = engine.step()
    assert diverged is not None
    assert diverged.tolist() == [False, True, False]
    engine.restart(np.array([1]))
    assert engine.step() is None


def test_pickled_engine_steps_on_and_owns_its_arrays() -> None:
    engine = Engine([arm(0.4), arm(0.6)], 2, frame_skip=2, nthread=1)
    engine.restart(np.arange(2))
    engine.control[...] = 0.5
    engine.step()
    other = pickle.loads(pickle.dumps(engine))
    for _ in range(3):
        engine.step()
        other.step()
    np.testing.assert_array_equal(engine.state, other.state)
    np.testing.assert_array_equal(engine.sensordata, other.sensordata)
    other.qpos[...] = 9.0
    assert (other.state[:, 1:3] == 9.0).all()
    assert not (engine.state == 9.0).any()


def test_wrong_arguments() -> None:
    with pytest.raises(ValueError, match=r"one model or one per sub-environment \(3\), got 2"):
        Engine([arm(), arm()], 3)
    with pytest.raises(
        ValueError, match=r"sub-environments 0 and 1 differ in \{.*'ngeom': \(2, 3\).*compile them from one"
    ):
        Engine([arm(), arm(extra='<geom size="0.1" pos="5 5 5"/>')], 2)
    with pytest.raises(ValueError, match="nthread must be 0"):
        Engine(arm(), 1, nthread=-1)


def test_runs_one_simulation_alone() -> None:
    rng = np.random.default_rng(0)
    engine = Engine([arm(0.3), arm(0.4), arm(0.5)], 3, frame_skip=4, control_spec=MOCAP)
    engine.restart(np.arange(3))
    before = engine.state.copy()
    controls = rng.uniform(-1, 1, (7, 4))
    engine.run(1, controls)
    expected, _ = plain(engine.models[1], before[1], controls, MOCAP)
    np.testing.assert_allclose(engine.state[1], expected, atol=1e-12)
    assert engine.state[1, 0] == pytest.approx(CLOCK_START + 0.07)
    np.testing.assert_array_equal(engine.state[[0, 2]], before[[0, 2]])
