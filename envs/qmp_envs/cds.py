"""Meta-World CDS: a Sawyer arm opens and closes a door and a drawer that stand in one scene.

Assets and rewards are Meta-World's. Paper: section 6.1 and appendix D.3.
"""

from __future__ import annotations

from functools import cache
from typing import Any, NamedTuple, TypeAlias

import gymnasium as gym
import mujoco
import numpy as np
import numpy.typing as npt

from qmp_envs.assets import delete, package_folder
from qmp_envs.engine import CONTROL
from qmp_envs.physics import PhysicsVectorEnv
from qmp_envs.single import SingleEnv
from qmp_envs.sketch import Camera, Marker
from qmp_envs.task_set import TaskSet
from qmp_envs.vector import Array, Rows

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


_ABOVE = (0.0, 0.6, 0.2)
_DOORS = ((-0.1, 0.85, 0.15), (0.0, 0.95, 0.15))
_DRAWERS = ((0.3, 0.9, 0.0), (0.4, 0.9, 0.0))
_TASKS = (
    _Task("door-open", True, _ABOVE, *_DOORS, 0.0, (-0.3, -0.45, 0.0), 0.08),
    # This hand starts outside the box of its target; the first action brings the target back into the box.
    _Task("door-close", True, (-0.6, 0.6, 0.2), *_DOORS, -1.5708, (0.2, -0.2, 0.0), 0.08),
    _Task("drawer-open", False, _ABOVE, *_DRAWERS, 0.0, (0.0, -0.36, 0.09), 0.03),
    _Task("drawer-close", False, _ABOVE, *_DRAWERS, -0.15, (0.0, -0.16, 0.09), 0.065),
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
        episode_metrics={"handle_distance": "last"},
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
    package = package_folder("MetaWorldCDS-v0", "metaworld", "pip install metaworld==3.1.1")
    scenes = package / "assets" / "sawyer_xyz"
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
    delete(spec, [*unused, *spec.materials, *spec.textures])


@cache
def _model() -> mujoco.MjModel:
    return cds_spec().compile()


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

_TINY = 1e-9
_LOG_TENTH = float(np.log(0.1))
_SUNK = float(np.exp(-10.0))  # where the funnel's floor reaches 0
_DOOR_CLOSE_MARGIN = float(np.hypot(0.2, 0.2))  # from the door's body to the goal
# Where a drawer's handle starts, from the goal. Meta-World's handle point for drawer-close is 5 cm above the one of
# this scene; the start is taken from there all the same.
_SHUT, _PULLED_OUT = np.array([(0.0, 0.2, 0.0), (0.0, -0.16, 0.05)])
_DRAWER_CLOSE_MARGIN = float(np.linalg.norm(_PULLED_OUT)) - 0.05

# The points that rewards are measured between, and the middle of the fingertips.
_HAND, _DRAWER, _DOOR, _RIGHT, _LEFT, _GOAL = np.eye(6)
_TIPS = (_RIGHT + _LEFT) / 2


def _long_tail(distance: Floats, radius: float, margin: Floats | float) -> Floats:
    """1 up to ``radius``, then falling, 0.1 at ``radius + margin``."""
    excess: Floats = np.maximum(distance - radius, 0.0) * (3.0 / margin)
    return 1.0 / (1.0 + excess * excess)


def _gaussian(distance: Floats, radius: float, margin: Floats | float) -> Floats:
    """1 up to ``radius``, then falling, 0.1 at ``radius + margin``, faster than `_long_tail` beyond."""
    excess: Floats = np.maximum(distance - radius, 0.0) / margin
    value: Floats = np.exp(_LOG_TENTH * (excess * excess))
    return value


def _both(a: Floats, b: Floats) -> Floats:
    """Hamacher product, a smooth "and" of numbers in [0, 1]."""
    product = a * b
    both: Floats = product / np.maximum(a + b - product, _TINY)
    return both


class Rewards:
    """Meta-World's V2 rewards of N rows with a task each.

    Args:
        task_ids: (N,) task of each row.
        tip_start: (3,) where the fingertips start an episode of the drawer tasks.
    """

    def __init__(self, task_ids: npt.NDArray[np.int64], tip_start: Floats) -> None:
        one, level, start = (1.0, 1.0, 1.0), (3.0, 3.0, 1.0), -np.array(_TASKS[1].hand)
        # Three vectors for each task: a mixture of points, plus an offset, times weights of x, y, z.
        measures: Any = (
            # door-open: error in x; hand to a point behind the handle; hand to the axis of a funnel over the handle
            (
                (_DOOR - _GOAL, 0.0, (1.0, 0.0, 0.0)),
                (_HAND - _DOOR, (0.0, -0.03, 0.01), one),
                (_HAND - _DOOR, (0.05, 0.0, 0.0), (1.0, 1.0, 0.0)),
            ),
            # door-close: error; fingertips to goal; handle to start of the hand
            ((_DOOR - _GOAL, 0.0, one), (_TIPS - _GOAL, 0.0, one), (_DOOR, start, one)),
            # drawer-open: error; hand to handle, mostly in x and y; the same at the start, but of the fingertips
            ((_DRAWER - _GOAL, _GRIP, one), (_HAND - _DRAWER, -_GRIP, level), (_GOAL, _SHUT - tip_start, level)),
            # drawer-close: error; fingertips to handle; the same at the start
            ((_DRAWER - _GOAL, _GRIP, one), (_TIPS - _DRAWER, -_GRIP, one), (_GOAL, _PULLED_OUT - tip_start, one)),
        )
        self._task_ids = task_ids
        self._mixture = np.array([[mixture for mixture, _, _ in task] for task in measures])[task_ids]
        self._offset = np.array([[np.add(offset, np.zeros(3)) for _, offset, _ in task] for task in measures])[task_ids]
        self._weights = np.array([[weights for _, _, weights in task] for task in measures])[task_ids]

    def __call__(self, points: Floats, angle: Floats, effort: Floats) -> tuple[Floats, Floats]:
        """Judge N rows.

        Args:
            points: (N, 6, 3) hand, drawer, door handle, right and left fingertip, goal of the task's handle.
            angle: (N,) of the door's hinge, rad.
            effort: (N,) closing effort of the gripper, in [-1, 1].

        Returns:
            Rewards (N,) in [0, 10], and distances (N,) of the handles from their goals (door-open: in x).
        """
        vectors = (self._mixture @ points + self._offset) * self._weights
        error, reach, span = np.sqrt(np.einsum("ijk,ijk->ji", vectors, vectors))
        # Four formulas for all rows cost less than picking out each task's rows.
        rewards: Floats = np.choose(
            self._task_ids,
            (
                _door_open(error, reach, span, points[:, 0, 2], angle, effort),
                _door_close(error, reach, span),
                _drawer_open(error, reach, span),
                _drawer_close(error, reach, span, effort),
            ),
        )
        return rewards, error


def _door_open(error: Floats, behind: Floats, axis: Floats, height: Floats, angle: Floats, effort: Floats) -> Floats:
    """Come down behind the handle, inside the funnel and with closed fingers, and swing the door."""
    floor = 0.4 + 0.04 * np.log(np.maximum(axis - 0.12, _SUNK))
    above = _long_tail(floor - height, 0.01, np.maximum(floor / 2.0, _TINY))
    grasp = _both(_both(above, _long_tail(behind, 0.06, 0.5)), (effort + 1.0) / 2.0)
    # fully open from 0.5 rad before 2/3 pi to there
    opened = _long_tail(np.abs(angle + (2 * np.pi / 3 - 0.25)), 0.25, np.pi / 3)
    return np.where(error <= 0.08, 10.0, 2.0 * grasp + 6.4 * opened + 1.6 * (angle < -np.pi / 90))


def _door_close(error: Floats, reach: Floats, swing: Floats) -> Floats:
    """Bring handle and fingertips to the goal."""
    rewards = 6.0 * _gaussian(error, 0.05, _DOOR_CLOSE_MARGIN) + 3.0 * _gaussian(reach, 0.0125, swing + 0.1)
    return np.where(error < 0.05, 10.0, rewards)


def _drawer_open(error: Floats, reach: Floats, start: Floats) -> Floats:
    """Bring the hand to the handle, above all in x and y, and pull."""
    return 5.0 * (_long_tail(reach, 0.01, start) + _long_tail(error, 0.02, 0.2))


def _drawer_close(error: Floats, reach: Floats, start: Floats, effort: Floats) -> Floats:
    """Bring closed fingertips to the handle and push."""
    grasp = _both(_gaussian(reach, 0.005, np.abs(start - 0.005)), np.maximum(effort, 0.0))
    return np.where(error <= 0.065, 10.0, 10.0 * _both(grasp, _long_tail(error, 0.05, _DRAWER_CLOSE_MARGIN)))


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
    14-17  orientation of the door handle (x, y, z, w), z positive
    18-20  goal of the handle
    ====== ==========================================================================

    Action (4,): shift of the hand's target in x, y, z by 0.01 m, and closing effort of the gripper. Reward: Meta-World
    V2, 0 to 10. Success does not end the episode. A step is 0.0125 s; positions are those 2.5 ms before its end,
    as MuJoCo's step leaves them; the hinge angle in door-open's reward is the one at its end. ``infos`` hold
    ``success`` and ``handle_distance`` to the goal. Paper: appendix D.3.

    Args:
        env_id: which task set, a key of `CDS`.
        num_envs: N.
        kwargs: see `PhysicsVectorEnv`.

    Raises:
        ModuleNotFoundError: Meta-World, which brings the assets, is not installed.
    """

    metadata = {**PhysicsVectorEnv.metadata, "render_fps": 80}
    renderers = ("numpy", "mujoco")
    info_types = {"success": bool, "handle_distance": float}
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
        self._radii = np.array([task.radius for task in _TASKS])[self.task_ids]
        self._rewards = Rewards(self.task_ids, _reset_hand(_ABOVE)[2])
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
        points = np.concatenate((self._engine.sensordata[:, :15], self._episode["goal"]), axis=1)
        rewards, error = self._rewards(points.reshape(-1, 6, 3), self._engine.qpos[:, _HINGE], self._effort)
        return (
            rewards,
            np.zeros(self.num_envs, dtype=np.bool_),
            {
                "success": error <= self._radii,
                "handle_distance": error,
            },
        )

    def _observe(self) -> Array:
        sensors = self._engine.sensordata
        observations = np.empty((self.num_envs, 21), dtype=np.float32)
        observations[:, :3] = sensors[:, :3]
        between = sensors[:, 9:12] - sensors[:, 12:15]
        observations[:, 3] = np.minimum(np.sqrt(np.einsum("ij,ij->i", between, between)) / 0.1, 1.0)
        observations[:, 4:7] = sensors[:, 3:6] + _GRIP
        observations[:, 7:11] = (1.0, 0.0, 0.0, 0.0)
        observations[:, 11:14] = sensors[:, 6:9]
        # A quaternion's sign is free. z stays off 0 while the door turns; Meta-World's is positive.
        observations[:, 14:18] = np.sign(sensors[:, 18:]) * sensors[:, (16, 17, 18, 15)]
        observations[:, 18:] = self._episode["goal"]
        return observations

    def _draw(self, index: int) -> npt.NDArray[np.uint8]:
        # `set_state` leaves the controls to the next step, which is too late for a picture.
        self._engine.control[index, :, 2:] = self._episode["mocap"][index]
        goal, radius = self._episode["goal"][index], float(self._radii[index])
        markers = (Marker(goal, 0.015, (*_GREEN, 1.0)), Marker(goal, radius, (*_GREEN, 0.35)))
        return self._photograph(index, _CAMERA, markers)


class MetaWorldCDSEnv(SingleEnv):
    """One task: ``MetaWorldCDSEnv("MetaWorldCDS-v0", task=2)``. See `MetaWorldCDSVectorEnv`."""

    metadata = {"render_modes": ["rgb_array"], "render_fps": 80}
    vector_class = MetaWorldCDSVectorEnv
