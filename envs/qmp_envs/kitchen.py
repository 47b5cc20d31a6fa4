"""Franka kitchen: ten tasks with one part of a kitchen each, every door, knob and switch in both directions.

Physics: the model files of Gymnasium-Robotics, which are those of D4RL. Paper: section 6.1 and appendix D.5.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cache
from typing import Any, Literal, TypeAlias

import gymnasium as gym
import mujoco
import numpy as np
import numpy.typing as npt

from qmp_envs.arguments import Renderer
from qmp_envs.assets import delete, package_folder
from qmp_envs.cores import usable_cores
from qmp_envs.opengl import Scene
from qmp_envs.physics import PhysicsVectorEnv
from qmp_envs.pictures import picture_of
from qmp_envs.single import SingleEnv
from qmp_envs.sketch import Camera, Marker, Sketch
from qmp_envs.task_set import TaskSet
from qmp_envs.vector import Array, Rows

Floats: TypeAlias = npt.NDArray[np.float64]


@dataclass(frozen=True, kw_only=True)
class KitchenTask:
    """One part of the kitchen and where it shall go.

    Attributes:
        name: of the task.
        joints: positions of the part's joints in ``qpos``.
        start, goal: values of these joints (rad, m).
        threshold: the task is done where the joints' Euclidean distance to ``goal`` is below it.
        site: name of the model's site that counts as the position of the part.
    """

    name: str
    joints: tuple[int, ...]
    start: tuple[float, ...]
    goal: tuple[float, ...]
    threshold: float
    site: str


@dataclass(frozen=True, kw_only=True)
class KitchenTaskSet(TaskSet):
    """A task set of the kitchen: the facts of its T tasks."""

    tasks: tuple[KitchenTask, ...]


def _both_ways(
    name: str,
    ways: tuple[str, str],
    joints: tuple[int, ...],
    rest: tuple[float, ...],
    moved: tuple[float, ...],
    thresholds: tuple[float, float],
    site: str,
) -> tuple[KitchenTask, KitchenTask]:
    there, back = (f"{name}_{way}" for way in ways)
    return (
        KitchenTask(name=there, joints=joints, start=rest, goal=moved, threshold=thresholds[0], site=site),
        KitchenTask(name=back, joints=joints, start=moved, goal=rest, threshold=thresholds[1], site=site),
    )


_DOOR, _KNOB = ("open", "close"), ("on", "off")
_TASKS = (
    *_both_ways("slide_cabinet", _DOOR, (19,), (-4.65501369e-04,), (0.37,), (0.1, 0.1), "slide_site"),
    *_both_ways(
        "hinge_cabinet", _DOOR, (20, 21), (-6.44129196e-03, -1.77048263e-03), (0.0, 1.45), (0.1, 0.3), "hinge_site2"
    ),
    *_both_ways(
        "bottom_burner", _KNOB, (11, 12), (3.12877220e-05, -4.51199853e-05), (-0.88, -0.01), (0.3, 0.3), "knob2_site"
    ),
    *_both_ways(
        "top_burner", _KNOB, (15, 16), (6.28065475e-05, 4.04984708e-05), (-0.92, -0.01), (0.3, 0.3), "knob4_site"
    ),
    *_both_ways(
        "light_switch", _KNOB, (17, 18), (4.62730939e-04, -2.26906415e-04), (-0.69, -0.05), (0.3, 0.3), "light_site"
    ),
)
_HORIZON = 140
_MAX_PENALTY = 20.0

# id -> task set
KITCHENS: dict[str, KitchenTaskSet] = {
    "Kitchen10-v0": KitchenTaskSet(
        env_id="Kitchen10-v0",
        task_names=tuple(task.name for task in _TASKS),
        horizon=_HORIZON,
        success_rule="the part's joints are within the task's threshold (0.1 or 0.3) of its goal; terminates there",
        min_reward=-_MAX_PENALTY,
        reward_version="dense",
        source="tasks and reward: QMP reference code (MT_EASY); physics: Gymnasium-Robotics' Franka kitchen",
        episode_metrics={"part_distance": "last"},
        tasks=_TASKS,
    )
}

# Positions in qpos: arm 0-6, fingers 7-8, knobs and their burners 9-16, light switch and its block 17-18,
# slide door 19, left and right hinge door 20-21, microwave 22, kettle 23-29 (position, quaternion).
ROBOT = 9
_HOME = np.array(
    [
        *(1.48388023e-01, -1.76848573e00, 1.84390296e00, -2.47685760e00, 2.60252026e-01, 7.12533105e-01),
        *(1.59515394e00, 4.79267505e-02, 3.71350919e-02, -2.66279850e-04, -5.18043486e-05, 3.12877220e-05),
        *(-4.51199853e-05, -3.90842156e-06, -4.22629655e-05, 6.28065475e-05, 4.04984708e-05, 4.62730939e-04),
        *(-2.26906415e-04, -4.65501369e-04, -6.44129196e-03, -1.77048263e-03, 1.08009684e-03, -2.69397440e-01),
        *(3.50383255e-01, 1.61944683e00, 1.00618764e00, 4.06395120e-03, -6.62095997e-03, -2.68278933e-04),
    ]
)
# What noise_ratio multiplies.
_NOISE = np.repeat([0.1, 0.005, 0.0005, 0.005, 0.1, 0.005, 0.1, 0.005], [9, 2, 6, 3, 3, 3, 3, 1])
# The reference writes D4RL's goals over every task's own, also where they contradict it.
_D4RL_GOALS = {11: (-0.88, -0.01), 17: (-0.69, -0.05), 22: (-0.75, -0.23, 0.75, 1.62, 0.99, 0.0, 0.0, -0.06)}

SPEED = 2.0  # rad/s or m/s of an action of 1
_TARGET_LOW = np.array([-2.9, -1.8, -2.9, -3.1, -2.9, 0.0, -2.9, 0.0, 0.0])
_TARGET_HIGH = np.array([2.9, 1.8, 2.9, 0.0, 2.9, 3.8, 2.9, 0.04, 0.04])
NEAR = 0.08  # m, distance of hand and part at which there is nothing more to gain from reaching
_SITES = tuple(dict.fromkeys(task.site for task in _TASKS))
_FINGERS = ("panda0_leftfinger", "panda0_rightfinger")


def kitchen_spec() -> mujoco.MjSpec:
    """Gymnasium-Robotics' kitchen, as it is.

    Raises:
        ModuleNotFoundError: gymnasium-robotics is not installed.
    """
    package = package_folder("Kitchen10-v0", "gymnasium_robotics", "pip install gymnasium-robotics")
    folder = package / "envs" / "assets" / "kitchen_franka" / "kitchen_assets"
    return mujoco.MjSpec.from_file(str(folder / "kitchen_env_model.xml"))


@cache
def kitchen_model() -> mujoco.MjModel:
    """The kitchen without what physics does not see, and with sensors of the sites' and the fingers' positions."""
    spec = kitchen_spec()
    # Visual geoms and textures have no part in the physics, but make up 63 of the model's 64 MB.
    delete(spec, [geom for geom in spec.geoms if not geom.contype and not geom.conaffinity])
    used = {geom.meshname for geom in spec.geoms}
    delete(spec, [mesh for mesh in spec.meshes if mesh.name not in used])
    for geom in spec.geoms:
        geom.material = ""
    delete(spec, [*spec.materials, *spec.textures])
    for name in _SITES:
        _add_position(spec, mujoco.mjtObj.mjOBJ_SITE, name)
    for name in _FINGERS:
        _add_position(spec, mujoco.mjtObj.mjOBJ_XBODY, name)
    return spec.compile()


def _add_position(spec: mujoco.MjSpec, kind: mujoco.mjtObj, name: str) -> None:
    spec.add_sensor(type=mujoco.mjtSensor.mjSENS_FRAMEPOS, objtype=kind, objname=name)


_CAMERA = Camera(lookat=(-0.2, 0.5, 2.1), distance=2.3, azimuth=68.0, elevation=-30.0)
_PART = (0.13, 0.62, 0.38, 1.0)


@cache
def _picture(renderer: Renderer) -> tuple[mujoco.MjModel, Sketch | Scene]:
    """The kitchen as it looks, with the same joints as `kitchen_model`."""
    spec = kitchen_spec()
    if renderer == "mujoco":
        model = spec.compile()
        return model, picture_of(model, renderer)
    # The arm's visual meshes have 130 000 triangles; what it collides with looks the same at this size.
    fine = [geom for geom in spec.geoms if geom.meshname.endswith("_viz") and geom.meshname != "finger_viz"]
    delete(spec, fine)
    model = spec.compile()
    meshes = (model.geom_type == mujoco.mjtGeom.mjGEOM_MESH) & (model.geom_group == 3)
    model.geom_rgba[meshes] = 0.95, 0.99, 0.92, 1.0
    model.geom_group[meshes] = 0
    return model, picture_of(model, renderer, (0, 1))


@cache
def _hand_distances() -> tuple[float, ...]:
    """Distance of each task's part to the hand's ``end_effector`` site at the start."""
    model = kitchen_model()
    data = mujoco.MjData(model)
    distances = []
    for task in _TASKS:
        data.qpos[:] = _start_of(task)
        mujoco.mj_kinematics(model, data)
        offset = data.site(task.site).xpos - data.site("end_effector").xpos
        distances.append(float(np.linalg.norm(offset)))
    return tuple(distances)


def _start_of(task: KitchenTask) -> Floats:
    qpos = _HOME.copy()
    qpos[list(task.joints)] = task.start
    return qpos


def _goal_of(task: KitchenTask, kind: str) -> Floats:
    goal = np.zeros_like(_HOME)
    goal[list(task.joints)] = task.goal
    if kind == "reference":
        for first, values in _D4RL_GOALS.items():
            goal[first : first + len(values)] = values
    return goal


def _tolerance(distance: Floats, bound: Floats | float, margin: Floats) -> Floats:
    """1 up to ``bound``, then a Gaussian that has fallen to 0.1 at ``margin`` beyond it."""
    beyond: Floats = np.maximum(distance - bound, 0.0) / margin
    return 0.1 ** (beyond * beyond)


class KitchenVectorEnv(PhysicsVectorEnv):
    """N Franka arms in N kitchens.

    Observation (60,) float32: 9 joint positions of the robot (7 arm, 2 fingers), 21 of the kitchen, both with
    fresh uniform noise at each step, then the goal: 30 joint positions, zero but for the task's part. No
    velocities. Action (9,): desired joint velocities in units of 2 rad/s (fingers: 2 m/s). The servos' targets
    are the *observed* positions plus 0.08 s of these velocities, clipped to the joints' ranges. A step is 0.08 s.

    Dense reward: 20 (0.4 in_place + 0.6 reach - 1), from -20 to 0. ``in_place`` falls with the distance of the
    part's joints to their goal, ``reach`` with the distance of the part to the middle of the fingers. Success
    terminates the episode and pays 20 * 140 instead. Reward and success are free of observation noise.
    Paper: appendix D.5. ``infos`` hold ``success`` and ``part_distance`` of the part's joints to their goal.

    Args:
        env_id: which task set, a key of `KITCHENS`.
        num_envs: N.
        reward: "dense", or "sparse": 1 for success and 0 elsewhere.
        goal: "task", or "reference": the goals of D4RL's own tasks are written over every task's goal, as in
            the reference, so that tasks 4, 5, 8 and 9 show one and the same goal. Reward and success are
            those of the task either way.
        noise_ratio: factor on the observation noise, whose amplitude is then 0.1 rad for the robot.
        nthread: native physics threads; default one per core, as a step of one kitchen takes milliseconds.
        kwargs: see `PhysicsVectorEnv`.

    Raises:
        ModuleNotFoundError: gymnasium-robotics is not installed.
    """

    metadata = {**PhysicsVectorEnv.metadata, "render_fps": 12}
    renderers = ("numpy", "mujoco")
    info_types = {"success": bool, "part_distance": float}
    frame_skip = 40
    task_set: KitchenTaskSet

    def __init__(
        self,
        env_id: str = "Kitchen10-v0",
        num_envs: int = 1,
        *,
        reward: Literal["dense", "sparse"] = "dense",
        goal: Literal["task", "reference"] = "task",
        noise_ratio: float = 0.1,
        nthread: int | None = None,
        **kwargs: Any,
    ) -> None:
        if env_id not in KITCHENS:
            raise ValueError(f"env_id must be one of {list(KITCHENS)}, got {env_id!r}")
        if reward not in ("dense", "sparse"):
            raise ValueError(f"reward must be 'dense' or 'sparse', got {reward!r}")
        if goal not in ("task", "reference"):
            raise ValueError(f"goal must be 'task' or 'reference', got {goal!r}")
        if not noise_ratio >= 0:
            raise ValueError(f"noise_ratio must not be negative, got {noise_ratio}")
        task_set = KITCHENS[env_id]
        if reward == "sparse":
            task_set = replace(task_set, min_reward=0.0, reward_version="sparse")
        super().__init__(
            task_set,
            kitchen_model(),
            gym.spaces.Box(-8.0, 8.0, (2 * _HOME.size,), np.float32),
            gym.spaces.Box(-1.0, 1.0, (ROBOT,), np.float32),
            num_envs=num_envs,
            nthread=_threads(num_envs) if nthread is None else nthread,
            **kwargs,
        )
        self._sparse = reward == "sparse"
        self._noise = noise_ratio * _NOISE
        tasks = [task_set.tasks[i] for i in self.task_ids]
        self._starts = np.stack([_start_of(task) for task in tasks])
        self._goals = np.stack([_goal_of(task, "task") for task in tasks])
        self._shown_goals = np.stack([_goal_of(task, goal) for task in tasks])
        self._parts = np.zeros((num_envs, _HOME.size))
        for i, task in enumerate(tasks):
            self._parts[i, list(task.joints)] = 1.0
        self._thresholds = np.array([task.threshold for task in tasks])
        self._sites = np.array([_SITES.index(task.site) for task in tasks])
        self._rows = np.arange(num_envs)
        # The distances, at the start, beyond those that are good enough.
        self._part_margins = np.abs(self._part_distances(self._starts) - self._thresholds)
        self._hand_margins = np.abs(np.array(_hand_distances())[self.task_ids] - NEAR)
        # What is observed and what the servos' targets start from: `qpos` plus noise.
        self._episode["reading"] = np.zeros((num_envs, _HOME.size))

    def _start(self, rows: Rows) -> None:
        self._engine.qpos[rows] = self._starts[rows]
        self._read(rows)

    def _read(self, rows: Rows) -> None:
        for i in rows:
            noise = self._noise * self.rngs[i].uniform(-1.0, 1.0, _HOME.size)
            self._episode["reading"][i] = self._engine.qpos[i] + noise

    def _apply(self, actions: Array) -> None:
        seconds = self.frame_skip * self._engine.models[0].opt.timestep
        velocities = SPEED * np.clip(actions, self._action_low, self._action_high)
        targets = self._episode["reading"][:, :ROBOT] + seconds * velocities
        self._engine.control[...] = np.clip(targets, _TARGET_LOW, _TARGET_HIGH)[:, None]

    def _part_distances(self, qpos: Floats) -> Floats:
        distances: Floats = np.linalg.norm((qpos - self._goals) * self._parts, axis=1)
        return distances

    def _judge(self) -> tuple[Floats, npt.NDArray[np.bool_], dict[str, Array]]:
        # A row that is about to be reset makes a meaningless step: its generator must not notice.
        self._read(np.flatnonzero(~self._finished))
        part_distances = self._part_distances(self._engine.qpos)
        success = part_distances < self._thresholds
        if self._sparse:
            rewards = success.astype(np.float64)
        else:
            # Joints are the current ones; positions, from sensors, are those of one physics step (2 ms) before.
            positions = self._engine.sensordata.reshape(self.num_envs, -1, 3)
            offsets = positions[self._rows, self._sites] - positions[:, len(_SITES) :].mean(axis=1)
            in_place = _tolerance(part_distances, self._thresholds, self._part_margins)
            reach = _tolerance(np.linalg.norm(offsets, axis=1), NEAR, self._hand_margins)
            rewards = _MAX_PENALTY * (0.4 * in_place + 0.6 * reach - 1.0)
            # As much as the rest of the longest episode could have cost.
            rewards[success] = _MAX_PENALTY * _HORIZON
        return rewards, success, {"success": success.copy(), "part_distance": part_distances}

    def _observe(self) -> Array:
        return np.hstack((self._episode["reading"], self._shown_goals), dtype=np.float32)

    def _draw(self, index: int) -> npt.NDArray[np.uint8]:
        model, picture = _picture(self.renderer)
        data = mujoco.MjData(model)
        data.qpos[:] = self._engine.qpos[index]
        mujoco.mj_kinematics(model, data)
        mujoco.mj_camlight(model, data)
        part = Marker(data.site(_SITES[self._sites[index]]).xpos, 0.03, _PART)
        return picture.draw(data, _CAMERA, [part])


class KitchenEnv(SingleEnv):
    """One kitchen task: ``KitchenEnv("Kitchen10-v0", task=3)``. See `KitchenVectorEnv`."""

    metadata = {"render_modes": ["rgb_array"], "render_fps": 12}
    vector_class = KitchenVectorEnv


def _threads(num_envs: int) -> int:
    """Threads that pay for ``num_envs`` kitchens: one per core this process may use, none for a single kitchen."""
    threads = min(num_envs, usable_cores())
    return 0 if threads == 1 else threads
