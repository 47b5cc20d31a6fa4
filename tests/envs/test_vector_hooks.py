"""What other task sets ask of the base: substeps, sensors, stages within an episode, one model per task."""

from __future__ import annotations

import pickle
import warnings
from typing import Any

import gymnasium as gym
import mujoco
import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env, data_equivalence
from gymnasium.vector import AutoresetMode, SyncVectorEnv

from qmp_envs import PhysicsVectorEnv, TaskSet
from qmp_envs.single import SingleEnv

RAILS = TaskSet(
    env_id="Rails-v0",
    task_names=("light", "heavy"),
    horizon=40,
    success_rule="the third gate was passed",
    min_reward=0.0,
    reward_version="gates",
    source="this test",
)


def rail(mass: float) -> mujoco.MjModel:
    return mujoco.MjModel.from_xml_string(f"""
<mujoco>
  <option timestep="0.01" gravity="0 0 0"/>
  <worldbody>
    <body name="cart">
      <joint name="rail" type="slide" axis="1 0 0" damping="1"/><geom size="0.1" mass="{mass}"/>
    </body>
  </worldbody>
  <actuator><motor joint="rail" gear="3"/></actuator>
  <sensor><framepos objtype="xbody" objname="cart"/></sensor>
</mujoco>""")


class RailsVectorEnv(PhysicsVectorEnv):
    """Gates 0.1 m apart have to be passed in turn; the sensed position is observed and judged."""

    frame_skip = 4
    info_types = {"success": bool, "gates": int}

    def __init__(self, env_id: str = "Rails-v0", num_envs: int = 1, **kwargs: Any) -> None:
        assert env_id == RAILS.env_id
        tasks = kwargs.get("task_ids") or np.arange(num_envs) % 2
        super().__init__(
            RAILS,
            [rail((1.0, 2.0)[task]) for task in tasks],
            gym.spaces.Box(-10.0, 10.0, (2,), np.float64),
            gym.spaces.Box(-2.0, 0.5, (1,), np.float64),
            num_envs=num_envs,
            **kwargs,
        )
        self._episode["gates"] = np.zeros(num_envs, dtype=np.int64)

    def _start(self, rows: np.ndarray) -> None:
        for i in rows:
            self._engine.qpos[i] = self.rngs[i].uniform(0.02, 0.05)

    def _judge(self) -> tuple[np.ndarray, np.ndarray, dict[str, np.ndarray]]:
        gates = self._episode["gates"]
        passed = self._engine.sensordata[:, 0] > 0.1 * (gates + 1)
        gates += passed
        success = gates >= 3
        return passed.astype(np.float64), success, {"success": success.copy(), "gates": gates.copy()}

    def _observe(self) -> np.ndarray:
        return np.column_stack((self._engine.sensordata[:, 0], self._episode["gates"]))


class RailsEnv(SingleEnv):
    metadata = {"render_modes": []}
    vector_class = RailsVectorEnv


@pytest.mark.parametrize("mode", list(AutoresetMode))
def test_staged_task_sets_equal_a_loop_over_single_environments(mode: AutoresetMode) -> None:
    loop = SyncVectorEnv([lambda i=i: RailsEnv("Rails-v0", task=i % 2) for i in range(4)], autoreset_mode=mode)
    envs = RailsVectorEnv(num_envs=4, autoreset_mode=mode)
    assert data_equivalence(envs.reset(seed=0), loop.reset(seed=0), exact=True)
    rng = np.random.default_rng(0)
    finished = 0
    for _ in range(150):
        actions = rng.uniform(-0.5, 2.0, (4, 1))
        ours, theirs = envs.step(actions), loop.step(actions)
        for a, b in zip(ours[:4], theirs[:4], strict=True):
            np.testing.assert_array_equal(a, b)
        assert ours[4].keys() == theirs[4].keys()
        np.testing.assert_array_equal(ours[4]["gates"], theirs[4]["gates"])
        if "final_info" in ours[4]:
            assert data_equivalence(ours[4]["final_info"], theirs[4]["final_info"], exact=True)
        done = ours[2] | ours[3]
        finished += int(ours[2].sum())
        if mode is AutoresetMode.DISABLED and done.any():
            envs.reset(options={"reset_mask": done})
            loop.reset(options={"reset_mask": done.copy()})
    assert finished > 5


def test_single_environment_passes_gymnasiums_check() -> None:
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*we recommend using a symmetric and normalized space.*")
        check_env(RailsEnv("Rails-v0"), skip_render_check=True)


def test_actions_are_clipped_to_the_space_and_held_for_all_substeps() -> None:
    envs = RailsVectorEnv(num_envs=2, task_ids=[0, 1])
    envs.reset(seed=0)
    state = envs.get_state()
    state["physics"][:, 1:] = 0.0
    envs.set_state(state)
    envs.step(np.array([[7.0], [-7.0]]))
    velocities = envs.get_state()["physics"][:, 2]
    expected = np.zeros(2)
    for _ in range(4):
        expected = (expected * [1, 2] + 0.01 * 3 * np.array([0.5, -2.0])) / (np.array([1, 2]) + 0.01)
    np.testing.assert_allclose(velocities, expected, rtol=1e-9)


def test_observations_after_a_reset_are_sensed_at_the_start() -> None:
    envs = RailsVectorEnv(num_envs=3)
    observations, _ = envs.reset(seed=0)
    np.testing.assert_allclose(observations[:, 0], envs.get_state()["physics"][:, 1], atol=1e-12)
    assert (observations[:, 0] > 0.01).all()


def test_episode_arrays_begin_at_zero_and_are_saved() -> None:
    envs = RailsVectorEnv(num_envs=2, autoreset_mode=AutoresetMode.SAME_STEP)
    envs.reset(seed=0)
    gates = []
    for _ in range(60):
        *_, infos = envs.step(np.full((2, 1), 0.5))
        gates.append(int(infos["gates"][0]))
        if gates[-1] == 2:
            break
    other = RailsVectorEnv(num_envs=2, autoreset_mode=AutoresetMode.SAME_STEP)
    other.set_state(envs.get_state())
    copied = pickle.loads(pickle.dumps(envs))
    for _ in range(60):
        results = [each.step(np.full((2, 1), 0.5)) for each in (envs, other, copied)]
        for a, b, c in zip(*(result[:4] for result in results), strict=True):
            np.testing.assert_array_equal(a, b)
            np.testing.assert_array_equal(a, c)
        gates.append(int(results[0][4]["gates"][0]))
    assert [gate for i, gate in enumerate(gates) if i == 0 or gate != gates[i - 1]][:5] == [0, 1, 2, 0, 1]


def test_single_info_has_plain_numbers() -> None:
    env = RailsEnv("Rails-v0", task=1)
    _, info = env.reset(seed=0)
    assert info == {"success": False, "gates": 0}
    *_, info = env.step(np.array([0.5]))
    assert (type(info["success"]), type(info["gates"])) == (bool, int)
