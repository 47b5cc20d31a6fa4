"""Meta-World CDS: a Sawyer arm opens and closes a door and a drawer that stand in one scene.

Assets and rewards are Meta-World's. Paper: section 6.1 and appendix D.3.
"""

from __future__ import annotations

import importlib.util
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple, TypeAlias

import gymnasium as gym
import mujoco
import numpy as np
import numpy.typing as npt

from qmp_envs.engine import CONTROL
from qmp_envs.single import SingleEnv
from qmp_envs.sketch import Camera, Marker, Sketch
from qmp_envs.task_set import TaskSet
from qmp_envs.vector import Array, PhysicsVectorEnv, Rows

Point: TypeAlias = tuple[float, float, float]
Floats: TypeAlias = npt.NDArray[np.float64]

SUBSTEPS = 5  # of 2.5 ms
STRIDE = 0.01  # m that the hand's target moves under an action of 1
TARGET_BOX = np.array([(-0.5, 0.4, 0.05), (0.5, 1.0, 0.5)])  # where the hand's target may be
DRAWER_HOME, DOOR_HOME = (0.4, 0.9, 0.0), (-0.1, 0.9, 0.15)  # where the object stands that is not the task's
_SLIDE, _HINGE = 9, 10  # joints of drawer and door
_GRIP = np.array([0.0, -0.16, 0.0])  # drawer handle, from the drawer's own frame
# what textured materials look like without their textures
_TINTS = {"table_wood": (0.82, 0.68, 0.5, 1.0), "wall_metal": (0.62, 0.63, 0.66, 1.0)}
_CAMERA = Camera(lookat=(0.03, 0.68, 0.1), distance=1.5, azimuth=138.0, elevation=-33.0)
_GREEN = (0.15, 0.6, 0.38)
REACH = 2.0  # no part of arm, door or drawer gets farther from the arm's base


class _Task(NamedTuple):
    """One task: where its object stands (a box) and starts, and where its handle shall go."""

    name: str
    door: bool
    hand: Point  # start of the hand's target
    low: Point  # of the object's body ...
    high: Point  # ... drawn uniformly
    joint: float  # rad of the hinge (0: closed, -2: open), or m of the slide (0: closed, -0.16: open)
    goal: Point  # of the handle, relative to the object's body
    radius: float  # of success


_HAND = (0.0, 0.6, 0.2)
_DOORS = ((-0.1, 0.85, 0.15), (0.0, 0.95, 0.15))
_DRAWERS = ((0.3, 0.9, 0.0), (0.4, 0.9, 0.0))
_TASKS = (
    _Task("door-open", True, _HAND, *_DOORS, 0.0, (-0.3, -0.45, 0.0), 0.08),
    # This hand starts outside the box of its target; the first action brings the target back into the box.
    _Task("door-close", True, (-0.6, 0.6, 0.2), *_DOORS, -1.5708, (0.2, -0.2, 0.0), 0.08),
    _Task("drawer-open", False, _HAND, *_DRAWERS, 0.0, (0.0, -0.36, 0.09), 0.03),
    _Task("drawer-close", False, _HAND, *_DRAWERS, -0.15, (0.0, -0.16, 0.09), 0.065),
)

_TASK_NAMES = tuple(task.name for task in _TASKS)

# id -> task set
CDS: dict[str, TaskSet] = {
    "MetaWorldCDS-v0": TaskSet(
        env_id="MetaWorldCDS-v0",
        task_names=_TASK_NAMES,
        horizon=500,
        success_rule=(
            "the handle is within 0.08 m (door-close), 0.03 m (drawer-open) or 0.065 m (drawer-close) of its goal, "
            "for door-open within 0.08 m in x alone; the episode goes on"
        ),
        min_reward=0.0,
        reward_version="metaworld-v2",
        source="scene, placements and goals: QMP reference code; assets: Meta-World 3.1.1; reward: Meta-World V2",
    )
}


def cds_spec() -> mujoco.MjSpec:
    """The scene: Meta-World's drawer scene and the door of its door scene.

    Door and drawer are mocap bodies, so that each sub-environment places them by its control vector. Sensors, in
    this order: positions of hand, drawer, door handle, right and left fingertip (3 numbers each), orientation of
    the door handle (w, x, y, z).

    Raises:
        ModuleNotFoundError: Meta-World is not installed.
    """
    # Importing Meta-World would register its environments and take longer than compiling the scene.
    package = importlib.util.find_spec("metaworld")
    if package is None or not package.submodule_search_locations:
        raise ModuleNotFoundError(
            "MetaWorldCDS-v0 is built from Meta-World's assets, which are not installed: "
            "run  pip install metaworld==3.1.1",
            name="metaworld",
        )
    scenes = Path(package.submodule_search_locations[0]) / "assets" / "sawyer_xyz"
    spec = mujoco.MjSpec.from_file(str(scenes / "sawyer_drawer.xml"))
    door_scene = mujoco.MjSpec.from_file(str(scenes / "sawyer_door_pull.xml"))
    door = spec.worldbody.add_frame().attach_body(door_scene.body("door"), "door/", "")
    drawer = spec.body("drawer")
    for body, home in ((drawer, DRAWER_HOME), (door, DOOR_HOME)):
        body.mocap = True
        body.pos = home
    spec.body("mocap").quat = (1.0, 0.0, 1.0, 0.0)
    # Meta-World overwrites the compiled weld of target and hand: no offset, torque scale 5.
    spec.equalities[0].data[:] = (0.0, 0.0, 0.0, 0.0, 0.0, 0.0, -1.0, 0.0, 0.0, 0.0, 5.0)
    frame_pos, frame_quat = mujoco.mjtSensor.mjSENS_FRAMEPOS, mujoco.mjtSensor.mjSENS_FRAMEQUAT
    for sensor, kind, name in (
        (frame_pos, mujoco.mjtObj.mjOBJ_XBODY, "hand"),
        (frame_pos, mujoco.mjtObj.mjOBJ_XBODY, "drawer_link"),
        (frame_pos, mujoco.mjtObj.mjOBJ_GEOM, "door/handle"),
        (frame_pos, mujoco.mjtObj.mjOBJ_SITE, "rightEndEffector"),
        (frame_pos, mujoco.mjtObj.mjOBJ_SITE, "leftEndEffector"),
        (frame_quat, mujoco.mjtObj.mjOBJ_GEOM, "door/handle"),
    ):
        spec.add_sensor(type=sensor, objtype=kind, objname=name)
    _strip(spec)
    return spec


def _strip(spec: mujoco.MjSpec) -> None:
    """Drop textures, and the meshes that came with the door's scene: two thirds of the compiled model."""
    for geom in spec.geoms:
        if geom.material:
            geom.rgba = _TINTS.get(geom.material, spec.material(geom.material).rgba)
            geom.material = ""
    used = {geom.meshname for geom in spec.geoms}
    unused = [mesh for mesh in spec.meshes if mesh.name not in used]
    for element in (*unused, *spec.materials, *spec.textures):
        element.delete()


@cache
def _model() -> mujoco.MjModel:
    return cds_spec().compile()


@cache
def _sketch() -> Sketch:
    return Sketch(_model())


@cache
def _reset_hand(hand: Point) -> tuple[Floats, Floats, Floats]:
    """Meta-World's start of an episode: qpos, qvel and fingertip centre after 250 steps towards ``hand``.

    Nothing is touched on the way, so the outcome does not depend on where door and drawer stand.
    """
    model = _model()
    data = mujoco.MjData(model)
    data.mocap_pos[0] = hand
    data.ctrl[:] = (-1.0, 1.0)
    mujoco.mj_step(model, data, 50 * SUBSTEPS)
    # As in Meta-World the fingertips are those before the last step.
    return data.qpos.copy(), data.qvel.copy(), (data.sensordata[9:12] + data.sensordata[12:15]) / 2


# ---------------------------------------------------------------------- rewards

# Each is Meta-World's V2 reward for M rows. Positions are (M, 3), everything else (M,); rewards lie in [0, 10].
# ``error`` is the handle's distance from its goal, ``effort`` in [-1, 1] closes the gripper.

_SHUT = np.array([0.0, 0.2, 0.0])  # the handle at the start of drawer-open, from the goal
_WEIGHTS = np.array([3.0, 3.0, 1.0])
_BEHIND_HANDLE = np.array([0.0, 0.03, -0.01])
_FUNNEL = np.array([-0.05, 0.0])
_TINY = 1e-9
_LOG_TENTH = float(np.log(0.1))
_SUNK = float(np.exp(-10.0))  # where the funnel's floor reaches 0
_DOOR_CLOSE_MARGIN = float(np.hypot(0.2, 0.2))  # from the door's body to the goal
# Meta-World's handle point is 5 cm above the one of this scene. The start is taken from there nonetheless.
_PULLED_OUT = np.array([0.0, -0.16, 0.05])  # from the goal
_DRAWER_CLOSE_MARGIN = float(np.hypot(0.16, 0.05)) - 0.05


def _length(vectors: Floats) -> Floats:
    lengths: Floats = np.sqrt(np.einsum("ij,ij->i", vectors, vectors))
    return lengths


def _long_tail(distance: Floats, radius: float, margin: Floats | float) -> Floats:
    """1 up to ``radius``, then falling, 0.1 at ``radius + margin``."""
    excess: Floats = np.maximum(distance - radius, 0.0) / margin
    return 1.0 / (1.0 + 9.0 * excess * excess)


def _gaussian(distance: Floats, radius: float, margin: Floats | float) -> Floats:
    """1 up to ``radius``, then falling, 0.1 at ``radius + margin``, faster than `_long_tail` beyond."""
    excess: Floats = np.maximum(distance - radius, 0.0) / margin
    value: Floats = np.exp(_LOG_TENTH * excess * excess)
    return value


def _hamacher(a: Floats, b: Floats) -> Floats:
    """Hamacher product, a smooth "and" of numbers in [0, 1]."""
    both = a * b
    product: Floats = both / np.maximum(a + b - both, _TINY)
    return product


def door_open_reward(hand: Floats, handle: Floats, error: Floats, angle: Floats, effort: Floats) -> Floats:
    """Come down behind the handle, fingers closed, and swing the door. ``error`` is in x alone, ``angle`` in rad."""
    offset = hand - handle
    # A funnel keeps the hand above the handle until it is near: its floor is 0 up to 0.12 m from the axis.
    beyond = _length(offset[:, :2] - _FUNNEL) - 0.12
    floor = 0.4 + 0.04 * np.log(np.maximum(beyond, _SUNK))
    above = _long_tail(floor - hand[:, 2], 0.01, np.maximum(floor / 2.0, _TINY))
    near = _long_tail(_length(offset - _BEHIND_HANDLE), 0.06, 0.5)
    grasp = _hamacher(_hamacher(above, near), (effort + 1.0) / 2.0)
    # fully open from 0.5 rad before 2/3 pi to there
    opened = 0.2 * (angle < -np.pi / 90) + 0.8 * _long_tail(np.abs(angle + (2 * np.pi / 3 - 0.25)), 0.25, np.pi / 3)
    return np.where(error <= 0.08, 10.0, 2.0 * grasp + 8.0 * opened)


def door_close_reward(tip: Floats, handle: Floats, goal: Floats, error: Floats, hand_start: Floats) -> Floats:
    """Bring handle and fingertips' centre to the goal. ``hand_start`` (3,): where the hand starts."""
    in_place = _gaussian(error, 0.05, _DOOR_CLOSE_MARGIN)
    reach = _gaussian(_length(tip - goal), 0.0125, _length(handle - hand_start) + 0.1)
    return np.where(error < 0.05, 10.0, 3.0 * reach + 6.0 * in_place)


def drawer_open_reward(hand: Floats, handle: Floats, goal: Floats, error: Floats, tip_start: Floats) -> Floats:
    """Bring the hand to the handle, above all in x and y, and pull. ``tip_start`` (3,): where the fingertips start."""
    start = _length((goal + _SHUT - tip_start) * _WEIGHTS)
    caged = _long_tail(_length((handle - hand) * _WEIGHTS), 0.01, start)
    return 5.0 * (caged + _long_tail(error, 0.02, 0.2))


def drawer_close_reward(
    tip: Floats, handle: Floats, goal: Floats, error: Floats, tip_start: Floats, effort: Floats
) -> Floats:
    """Bring closed fingertips to the handle and push. ``tip_start`` (3,): where the fingertips start."""
    in_place = _long_tail(error, 0.05, _DRAWER_CLOSE_MARGIN)
    reach = _gaussian(_length(handle - tip), 0.005, np.abs(_length(goal + _PULLED_OUT - tip_start) - 0.005))
    rewards = 10.0 * _hamacher(_hamacher(reach, np.maximum(effort, 0.0)), in_place)
    return np.where(error <= 0.065, 10.0, rewards)


# ---------------------------------------------------------------------- environments


class MetaWorldCDSVectorEnv(PhysicsVectorEnv):
    """N Sawyer arms, each before a door and a drawer, one of which is its task's.

    Observation (21,) float32, metres, the task not included:

    ====== ==========================================================================
    0-2    hand
    3      opening of the gripper, 0 (shut) to 1
    4-6    drawer handle
    7-10   orientation of the drawer, constant (w, x, y, z)
    11-13  door handle
    14-17  orientation of the door handle (x, y, z, w), largest component positive
    18-20  goal of the handle
    ====== ==========================================================================

    Action (4,): shift of the hand's target in x, y, z by 0.01 m, and closing effort of the gripper. Reward: Meta-World
    V2, 0 to 10. Success does not end the episode. A step is 0.0125 s; positions are those 2.5 ms before its end.
    Paper: appendix D.3.

    Args:
        env_id: which task set, a key of `CDS`.
        num_envs: N.
        kwargs: see `PhysicsVectorEnv`.

    Raises:
        ModuleNotFoundError: Meta-World, which brings the assets, is not installed.
    """

    metadata = {**PhysicsVectorEnv.metadata, "render_fps": 80}
    frame_skip = SUBSTEPS
    # two gripper servos; positions of the hand's target, the drawer and the door
    control_spec = CONTROL | mujoco.mjtState.mjSTATE_MOCAP_POS.value

    def __init__(self, env_id: str = "MetaWorldCDS-v0", num_envs: int = 1, **kwargs: Any) -> None:
        if env_id not in CDS:
            raise ValueError(f"env_id must be one of {list(CDS)}, got {env_id!r}")
        goals = np.array([(np.add(task.low, task.goal), np.add(task.high, task.goal)) for task in _TASKS])
        high = np.concatenate(
            ((REACH,) * 3, (1.0,), (REACH,) * 3, (1.0,) * 4, (REACH,) * 3, (1.0,) * 4, goals[:, 1].max(0))
        )
        low = np.concatenate((-high[:3], (0.0,), -high[4:18], goals[:, 0].min(0)))
        super().__init__(
            CDS[env_id],
            _model(),
            gym.spaces.Box(low.astype(np.float32), high.astype(np.float32)),
            gym.spaces.Box(-1.0, 1.0, (4,), np.float32),
            num_envs=num_envs,
            **kwargs,
        )
        self._is_door = np.array([task.door for task in _TASKS])[self.task_ids]
        self._radii = np.array([task.radius for task in _TASKS])[self.task_ids]
        self._along_x = self.task_ids == _TASK_NAMES.index("door-open")
        self._hand_start = np.array(_TASKS[_TASK_NAMES.index("door-close")].hand)
        self._tip_start = _reset_hand(_HAND)[2]  # of both drawer tasks
        self._effort = np.zeros(num_envs)
        # positions of the hand's target, the drawer and the door
        self._episode["mocap"] = np.zeros((num_envs, 9))
        self._episode["goal"] = np.zeros((num_envs, 3))

    def _start(self, rows: Rows) -> None:
        engine, mocap, goal = self._engine, self._episode["mocap"], self._episode["goal"]
        for i in rows:
            task = _TASKS[self.task_ids[i]]
            place = self.rngs[i].uniform(task.low, task.high)
            goal[i] = place + task.goal
            mocap[i] = (*task.hand, *DRAWER_HOME, *place) if task.door else (*task.hand, *place, *DOOR_HOME)
            engine.qpos[i], engine.qvel[i], _ = _reset_hand(task.hand)
            engine.qpos[i, _HINGE if task.door else _SLIDE] = task.joint
        engine.control[rows, :, 2:] = mocap[rows, None]

    def _apply(self, actions: Array) -> None:
        actions = np.clip(actions, -1.0, 1.0)
        mocap, control = self._episode["mocap"], self._engine.control
        np.clip(mocap[:, :3] + STRIDE * actions[:, :3], *TARGET_BOX, out=mocap[:, :3])
        self._effort = actions[:, 3]
        control[:, :, 0] = self._effort[:, None]
        control[:, :, 1] = -self._effort[:, None]
        control[:, :, 2:] = mocap[:, None]

    def _judge(self) -> tuple[Floats, npt.NDArray[np.bool_], dict[str, Array]]:
        sensors, goal = self._engine.sensordata, self._episode["goal"]
        hand, tip = sensors[:, :3], (sensors[:, 9:12] + sensors[:, 12:15]) / 2
        handle = np.where(self._is_door[:, None], sensors[:, 6:9], sensors[:, 3:6] + _GRIP)
        offset = handle - goal
        error = np.where(self._along_x, np.abs(offset[:, 0]), _length(offset))
        # Four formulas for all rows cost less than picking out each task's rows.
        rewards = np.choose(
            self.task_ids,
            (
                door_open_reward(hand, handle, error, self._engine.qpos[:, _HINGE], self._effort),
                door_close_reward(tip, handle, goal, error, self._hand_start),
                drawer_open_reward(hand, handle, goal, error, self._tip_start),
                drawer_close_reward(tip, handle, goal, error, self._tip_start, self._effort),
            ),
        )
        return rewards, np.zeros(self.num_envs, dtype=np.bool_), {"success": error <= self._radii}

    def _observe(self) -> Array:
        sensors = self._engine.sensordata
        observations = np.empty((self.num_envs, 21), dtype=np.float32)
        observations[:, :3] = sensors[:, :3]
        observations[:, 3] = np.minimum(_length(sensors[:, 9:12] - sensors[:, 12:15]) / 0.1, 1.0)
        observations[:, 4:7] = sensors[:, 3:6] + _GRIP
        observations[:, 7:11] = (1.0, 0.0, 0.0, 0.0)
        observations[:, 11:14] = sensors[:, 6:9]
        quaternion = sensors[:, (16, 17, 18, 15)]
        largest = np.abs(quaternion).argmax(axis=1)[:, None]
        observations[:, 14:18] = np.sign(np.take_along_axis(quaternion, largest, axis=1)) * quaternion
        observations[:, 18:] = self._episode["goal"]
        return observations

    def _draw(self, index: int) -> npt.NDArray[np.uint8]:
        # `set_state` leaves the controls to the next step, which is too late for a picture.
        self._engine.control[index, :, 2:] = self._episode["mocap"][index]
        goal, radius = self._episode["goal"][index], float(self._radii[index])
        markers = (Marker(goal, 0.015, (*_GREEN, 1.0)), Marker(goal, radius, (*_GREEN, 0.35)))
        return _sketch().draw(self._engine.evaluate(index), _CAMERA, markers)


class MetaWorldCDSEnv(SingleEnv):
    """One task: ``MetaWorldCDSEnv("MetaWorldCDS-v0", task=2)``. See `MetaWorldCDSVectorEnv`."""

    metadata = {"render_modes": ["rgb_array"], "render_fps": 80}
    vector_class = MetaWorldCDSVectorEnv
