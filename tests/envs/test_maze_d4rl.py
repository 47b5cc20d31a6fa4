"""The maze against D4RL's own: its model generator and its step function, run on today's MuJoCo."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import mujoco
import numpy as np
import pytest

from qmp_envs.maze import LARGE, MAZES, MEDIUM, MazeVectorEnv, maze_xml


class Simulator:
    """What D4RL's maze asks of gym's old MujocoEnv."""

    def start(self, model: mujoco.MjModel, *, warm: bool) -> None:
        self.model, self.data = model, mujoco.MjData(model)
        self.sim = SimpleNamespace(data=self.data)
        self.frame_skip = 1
        self.warm = warm
        self.wall_steps = 0
        self.set_marker = lambda: None  # the goal's marker is for the eye only

    def set_state(self, qpos: np.ndarray, qvel: np.ndarray) -> None:
        self.data.qpos[:], self.data.qvel[:] = qpos, qvel
        mujoco.mj_forward(self.model, self.data)

    def do_simulation(self, ctrl: np.ndarray, frame_skip: int) -> None:
        self.data.ctrl[:] = ctrl
        if not self.warm:
            self.data.qacc_warmstart[:] = 0
        mujoco.mj_step(self.model, self.data, frame_skip)
        # One contact is the floor's.
        self.wall_steps += self.data.ncon > 1


@pytest.fixture(scope="module")
def d4rl() -> ModuleType:
    """D4RL's maze module, without the packages that it imports and that cannot be installed here."""
    try:
        files = importlib.metadata.files("d4rl") or []
    except importlib.metadata.PackageNotFoundError:
        pytest.skip("D4RL's generator is the oracle here: pip install --no-deps d4rl")
    root = next(Path(f.locate()).parent for f in files if f.name == "maze_model.py" and f.parent.name == "pointmaze")

    def module(name: str, **content: Any) -> ModuleType:
        made = ModuleType(name)
        made.__dict__.update(content)
        return made

    mujoco_env = module("gym.envs.mujoco.mujoco_env", MujocoEnv=Simulator)
    utils = module("gym.utils", EzPickle=type("EzPickle", (), {}))
    offline_env = module("d4rl.offline_env", OfflineEnv=type("OfflineEnv", (), {}))
    stand_ins = {
        "gym": module("gym", utils=utils),
        "gym.utils": utils,
        "gym.envs": module("gym.envs"),
        "gym.envs.mujoco": module("gym.envs.mujoco", mujoco_env=mujoco_env),
        "d4rl": module("d4rl", offline_env=offline_env),
        "d4rl.offline_env": offline_env,
        "d4rl.pointmaze": module("d4rl.pointmaze"),
    }
    with pytest.MonkeyPatch.context() as patch:
        for name, stand_in in stand_ins.items():
            patch.setitem(sys.modules, name, stand_in)
        for name in ("dynamic_mjc", "maze_model"):
            spec = importlib.util.spec_from_file_location(f"d4rl.pointmaze.{name}", root / f"{name}.py")
            assert spec is not None
            assert spec.loader is not None
            loaded = importlib.util.module_from_spec(spec)
            patch.setitem(sys.modules, f"d4rl.pointmaze.{name}", loaded)
            spec.loader.exec_module(loaded)
    return loaded


def compiled(d4rl: ModuleType, maze: str) -> mujoco.MjModel:
    with d4rl.point_maze(maze).asfile() as file:
        return mujoco.MjModel.from_xml_string(file.read())


@pytest.mark.parametrize(("name", "layout"), [("LARGE_MAZE", LARGE), ("MEDIUM_MAZE", MEDIUM)])
def test_layouts_and_models_are_the_same(d4rl: ModuleType, name: str, layout: tuple[str, ...]) -> None:
    theirs_text = getattr(d4rl, name)
    assert tuple(theirs_text.replace("O", ".").replace("G", ".").split("\\")) == layout
    theirs, ours = compiled(d4rl, theirs_text), mujoco.MjModel.from_xml_string(maze_xml(layout))
    fields = """body_mass body_inertia body_pos jnt_type jnt_axis jnt_limited dof_damping dof_armature qpos0
        geom_type geom_pos geom_size geom_friction geom_margin geom_gap geom_condim geom_contype
        geom_conaffinity geom_solref geom_solimp
        actuator_gear actuator_ctrlrange actuator_ctrllimited actuator_gainprm actuator_biasprm"""
    for field in fields.split():
        np.testing.assert_array_equal(getattr(ours, field), getattr(theirs, field), err_msg=field)
    options = """timestep gravity iterations integrator solver cone tolerance disableflags"""
    for field in options.split():
        np.testing.assert_array_equal(getattr(ours.opt, field), getattr(theirs.opt, field), err_msg=field)


# The batched engine starts its constraint solver from zero in every step. If plain MuJoCo does so too, nothing
# may differ in 600 steps. If it starts from its last solution, the results differ by less than the solver's
# tolerance, which grows where a ball bounces off an edge: that comparison is made step by step.
@pytest.mark.parametrize("warm", [False, True], ids=["cold", "warm"])
@pytest.mark.parametrize(("name", "env_id"), [("LARGE_MAZE", "Maze10-v0"), ("MEDIUM_MAZE", "Maze3-v0")])
def test_trajectories_are_the_same(d4rl: ModuleType, name: str, env_id: str, warm: bool) -> None:
    num_envs, horizon = 15, 600
    envs = MazeVectorEnv(env_id, num_envs, max_episode_steps=horizon + 1)
    rng = np.random.default_rng(0)
    envs.reset(seed=0)
    model = compiled(d4rl, getattr(d4rl, name))
    references = []
    for i in range(num_envs):
        reference = d4rl.MazeEnv.__new__(d4rl.MazeEnv)
        reference.start(model, warm=warm)
        reference.reward_type = "dense"
        reference.set_target(np.array(MAZES[env_id].goals[envs.task_ids[i]], dtype=float))
        reference.set_state(*np.split(envs.get_state()["physics"][i, 1:], 2))
        references.append(reference)

    actions = np.zeros((num_envs, 2), dtype=np.float32)
    running = np.ones(num_envs, dtype=bool)
    compared = 0
    for step in range(horizon):
        # Forces held for a while drive the balls into walls and beyond the speed limit; some exceed the box.
        change = rng.random(num_envs) < 1 / 20
        actions[change] = rng.uniform(-1.5, 1.5, (change.sum(), 2))
        rows = np.flatnonzero(running)
        if warm:
            states = envs.get_state()["physics"][:, 1:]
            for i in rows:
                references[i].set_state(*np.split(states[i], 2))
        observations, rewards, terminations, _, infos = envs.step(actions)
        physics = envs.get_state()["physics"][rows, 1:]
        steps = [references[i].step(actions[i]) for i in rows]
        expected = np.array([observation for observation, *_ in steps])
        where = f"sub-environments {rows}, step {step}"
        np.testing.assert_allclose(physics, expected, rtol=0, atol=1e-9, err_msg=where)
        np.testing.assert_array_equal(observations[rows], physics.astype(np.float32))
        np.testing.assert_allclose(rewards[rows], [reward - 1 for _, reward, *_ in steps], rtol=0, atol=1e-9)
        near = np.linalg.norm(expected[:, :2] - [references[i].get_target() for i in rows], axis=1) <= 0.5
        np.testing.assert_array_equal(terminations[rows], near)
        np.testing.assert_array_equal(infos["success"][rows], near)
        compared += len(rows)
        running &= ~terminations
        if not running.any():
            break
    assert compared > 0.7 * num_envs * horizon
    assert sum(reference.wall_steps > 20 for reference in references) > 0.7 * num_envs
