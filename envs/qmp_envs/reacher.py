"""Multistage reaching: a torque-driven 6-joint Jaco arm brings its hand to three subgoals in turn, or stays in place.

Kinematics, inertias, limits, motors and solver options are those of the arm in the QMP reference code; collision
shapes are capsules and a cylinder instead of meshes. Paper: section 6.1, appendix D.1 and table 1.
"""

from __future__ import annotations

from dataclasses import replace
from functools import cache, partial
from typing import Any, Literal, NamedTuple

import gymnasium as gym
import mujoco
import numpy as np
import numpy.typing as npt

from qmp_envs.physics import PhysicsVectorEnv
from qmp_envs.single import SingleEnv
from qmp_envs.sketch import Camera, Marker
from qmp_envs.task_set import TaskSet
from qmp_envs.vector import Array, Rows

HIT_RADIUS = 0.05
STAGES = 3
STAY = 4  # the task without subgoals: its target is the hand's position at the start
STAY_HITS = 30  # steps within the radius that make up one of its stages
TIMESTEP = 0.01
START_NOISE = (0.01, 0.001)  # rad, rad/s

_A, _B, _C, _D = (0.2, 0.3, 0.5), (0.3, 0.0, 0.3), (0.4, -0.3, 0.4), (0.4, 0.3, 0.2)
# The hand in the model's reference pose, from which every episode starts.
START_HAND = (0.41, 0.11918941, 0.23942974)
# (task, stage, 3)
SUBGOALS = np.array([(_A, _B, _C), (_A, _B, _D), (_B, _D, _C), (_B, _C, _A), (START_HAND,) * 3])
SUBGOALS.setflags(write=False)


class Link(NamedTuple):
    """One moving body of the arm: frame in its parent, hinge about z through its origin, inertia, shape."""

    name: str
    pos: str
    quat: str
    turn: int  # the hinge's axis is +z or -z
    limits: str
    zero: float  # the joint's value in the model's reference pose
    gear: int
    inertial: str
    shape: str


_WRIST = (
    'mass="0.227408" pos="0.00914824 4.53141e-8 -0.0370941" quat="0.971237 -1.92989e-5 -0.238115 3.23646e-5" '
    'diaginertia="0.000176463 0.00017225 0.000108303"'
)
_ELBOW = 'type="capsule" fromto="0 0 -0.0315 0.0208 0 -0.0602" size="0.0315"'
# Shapes lie within the bounding boxes of the original meshes where they can meet the ground. The hand, which does,
# comes to rest as high as the original's.
LINKS = (
    Link(
        "link_1", "0 0 0.1535", "0 0 1 0", -1, "-0.8 0.8", 0.0, 5,
        'mass="0.613151" pos="-1.14317e-6 0.0102141 -0.0637045" quat="0.702792 0.0778988 -0.0778994 0.702813" '
        'diaginertia="0.00149348 0.00144012 0.000401632"',
        'type="capsule" fromto="0 0 -0.041 0 0 -0.117" size="0.041"',
    ),
    Link(
        "link_2", "0 0 -0.1185", "0 0 0.707107 0.707107", 1, "-1.5 0.7", 0.0, 10,
        'mass="1.85031" pos="0.206657 -1.55187e-7 -0.030675" diaginertia="0.0402753 0.0398125 0.00121953"',
        'type="capsule" fromto="0 0 -0.0276 0.41 0 -0.0276" size="0.041"',
    ),
    Link(
        "link_3", "0.41 0 0", "0 0.707107 0.707107 0", -1, "-0.698132 0.698132", 0.0, 10,
        'mass="0.70372" pos="0.0847979 -1.18469e-7 -0.020283" quat="2.33799e-5 0.694869 1.96996e-5 0.719136" '
        'diaginertia="0.00386732 0.00373181 0.000358773"',
        'type="capsule" fromto="0 0 -0.0128 0.166 0 -0.0128" size="0.041"',
    ),
    Link(
        "link_4", "0.207 0 -0.01125", "0 0.707107 0 -0.707107", -1, "-0.698132 0.698132", 0.0, 10, _WRIST, _ELBOW,
    ),
    Link(
        "link_5", "0.0343 0 -0.06588", "0.887011 0 -0.461749 0", -1, "-0.698132 0.698132", -2.8, 10, _WRIST, _ELBOW,
    ),
    Link(
        "hand", "0.0343 0 -0.06588", "0.627211 -0.326506 -0.326506 0.627211", -1, "-0.698132 0.698132", 0.0, 10,
        'mass="0.58074" pos="0.0036132 -6.2241e-5 -0.0583749" quat="0.669114 -0.237618 -0.23799 0.66271" '
        'diaginertia="0.000817146 0.000671192 0.000606807"',
        'type="cylinder" pos="0 0 -0.0557" size="0.042 0.0557"',
    ),
)  # fmt: skip
_TURNS = np.array([link.turn for link in LINKS])
BASE = (0.0, 0.0, 0.25)
_DARK, _LIGHT = "0.30 0.33 0.39 1", "0.80 0.80 0.82 1"
_COLOURS = (_DARK, _LIGHT, _DARK, _LIGHT, _DARK, "0.91 0.33 0.15 1")


def reacher_xml() -> str:
    """MJCF text of the arm, with the sensors that rewards are made of."""
    bodies = "".join(
        f'<body name="{link.name}" pos="{link.pos}" quat="{link.quat}"><inertial {link.inertial}/>'
        f'<joint name="{link.name}" axis="0 0 {link.turn}" range="{link.limits}" ref="{link.zero}"/>'
        f'<geom {link.shape} rgba="{colour}"/>'
        for link, colour in zip(LINKS, _COLOURS, strict=True)
    )
    # Links touch the ground and nothing else. The base is fixed to the world, so its shapes touch nothing.
    return f"""
<mujoco model="jaco">
  <compiler angle="radian"/>
  <option timestep="{TIMESTEP}" gravity="0 0 -9.8" integrator="Euler" iterations="10"/>
  <default>
    <joint type="hinge" limited="true" damping="0.5" armature="0.01"/>
    <geom margin="0.001" contype="1" conaffinity="0"/>
    <motor ctrllimited="true" ctrlrange="-1 1"/>
  </default>
  <worldbody>
    <geom type="plane" size="2 2 1" conaffinity="1"/>
    <body name="base" pos="{" ".join(map(str, BASE))}">
      <inertial mass="0.787504" pos="-3.14012e-8 0.000451919 0.0770704"
        quat="1 -0.000920048 6.51183e-6 5.62643e-5" diaginertia="0.00187445 0.00186316 0.000676952"/>
      <geom type="capsule" pos="0 0 -0.125" size="0.045 0.125" rgba="{_COLOURS[1]}"/>
      <geom type="cylinder" pos="0 0 0.077" size="0.041 0.077" rgba="{_COLOURS[1]}"/>
      {bodies}{"</body>" * len(LINKS)}
    </body>
  </worldbody>
  <actuator>{"".join(f'<motor joint="{link.name}" gear="{link.gear}"/>' for link in LINKS)}</actuator>
  <sensor>
    <framepos objtype="xbody" objname="hand"/>
    {"".join(f'<framezaxis objtype="xbody" objname="{link.name}"/>' for link in LINKS)}
    {"".join(f'<frameangacc objtype="xbody" objname="{name}"/>' for name in ("base", *(link.name for link in LINKS)))}
  </sensor>
</mujoco>
"""


@cache
def _model() -> mujoco.MjModel:
    return mujoco.MjModel.from_xml_string(reacher_xml())


@cache
def _frames() -> tuple[tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]], ...]:
    """Position (3,) and rotation (3, 3) of each link in its parent, links from the hand inwards."""
    frames = []
    for link in reversed(LINKS):
        rotation, quat = np.zeros(9), np.array(link.quat.split(), dtype=np.float64)
        mujoco.mju_quat2Mat(rotation, quat / np.linalg.norm(quat))
        frames.append((np.array(link.pos.split(), dtype=np.float64), rotation.reshape(3, 3)))
    return tuple(frames)


def hand_positions(qpos: Array) -> npt.NDArray[np.float64]:
    """World positions (B, 3) of the hand's frame for joint positions (B, 6)."""
    angles = _TURNS * (qpos - [link.zero for link in LINKS])
    points = np.zeros((len(qpos), 3))
    for (pos, rotation), angle in zip(_frames(), angles.T[::-1], strict=True):
        x, y, z = points.T
        cos, sin = np.cos(angle), np.sin(angle)
        turned = np.stack((cos * x - sin * y, sin * x + cos * y, z), axis=1)
        points = np.einsum("ij,kj->ik", turned, rotation) + pos
    return points + BASE


# Of a sum of squared actions, a mean speed and a mean acceleration.
_EFFORT = np.repeat((0.01, 0.001 / 6, 1e-5 / 6), 6)
_ONE_HOT = np.eye(STAGES + 1, STAGES)
# Rows: tasks. Columns: weight of the distance, penalty per stage that is missing, bonus per stage completed,
# weight of the effort, constant.
_WEIGHTS = {
    "reference": np.array(
        [(1, 0.4, 0, 1, 0), (1, 0, 200, 1, -2), (1, 0.4, 0, 1, 0), (0, 0.4, 0, 1, 0), (1, 0, 0, 1, 0)]
    ),
    "paper": np.array([(1, 0, 1, 1, 0), (1, 0, 1, 1, -2), (1, 0, 1, 1, 0), (0, 0, 1, 0, 0), (1, 0, 1, 1, 0)]),
}


def reacher_rewards(
    tasks: Array,
    distances: Array,
    stages_before: Array,
    stages: Array,
    actions: Array,
    velocities: Array,
    accelerations: Array,
    reward: Literal["reference", "paper"] = "reference",
) -> npt.NDArray[np.float64]:
    """Rewards (B,) of B steps, row by row.

    Args:
        tasks: (B,) whose reward.
        distances: (B,) from the hand to the subgoal that was aimed at, m.
        stages_before, stages: (B,) stages completed before and after the step.
        actions: (B, 6), within [-1, 1].
        velocities, accelerations: (B, 6) of the joints, rad/s and rad/s^2.
        reward: of the reference code, or as the paper words it.
    """
    return _rewards(_WEIGHTS[reward][tasks].T, distances, stages_before, stages, actions, velocities, accelerations)


def _rewards(
    weights: Array,
    distances: Array,
    before: Array,
    stages: Array,
    actions: Array,
    velocities: Array,
    accelerations: Array,
) -> npt.NDArray[np.float64]:
    distance, missing, bonus, effort, constant = weights
    terms = np.empty((len(distances), 18))
    np.square(actions, out=terms[:, :6])
    np.abs(velocities, out=terms[:, 6:12])
    np.abs(accelerations, out=terms[:, 12:])
    efforts = np.einsum("ij,j->i", terms, _EFFORT)  # dot would round differently for other numbers of rows
    rewards: npt.NDArray[np.float64] = (
        constant - distance * distances - missing * (STAGES - stages) + bonus * (stages - before) - effort * efforts
    )
    return rewards


def relabelled_rewards(
    obs: Array,
    actions: Array,
    next_obs: Array,
    task_ids: Array,
    reward: Literal["reference", "paper"] = "reference",
) -> npt.NDArray[np.float64]:
    """Rewards (B,) that B stored transitions would have had in other tasks, for data sharing with relabelling (CDS).

    The stage is the observation's, whatever task it was collected in. Not known from a transition, and left out:
    the penalty on accelerations (below 0.01, except while joint 5 jumps into its limits), the noise of the start
    position that is the target of "stay", and stages completed by staying.

    Args:
        obs: not used: what a step is judged by is all in the observation that it led to.
        actions: (B, 6) as executed, within [-1, 1].
        next_obs: (B, 15), those that ended the transitions.
        task_ids: (B,) task whose reward is wanted.
        reward: as for `ReacherVectorEnv`.
    """
    tasks = np.asarray(task_ids)
    qpos, qvel, stages = np.split(np.asarray(next_obs, dtype=np.float64), (6, 12), axis=1)
    before = stages.argmax(axis=1)
    # The reward's hand position is one physics step old, and a step moved the joints by TIMESTEP * qvel.
    offsets = hand_positions(qpos - TIMESTEP * qvel) - SUBGOALS[tasks, before]
    distances = np.linalg.norm(offsets, axis=1)
    after = before + ((distances < HIT_RADIUS) & (tasks != STAY))
    return reacher_rewards(tasks, distances, before, after, np.asarray(actions), qvel, np.zeros_like(qvel), reward)


# id -> task set
REACHERS: dict[str, TaskSet] = {
    "Reacher5-v0": TaskSet(
        env_id="Reacher5-v0",
        task_names=("a_b_c", "a_b_d", "b_d_c", "b_c_a_sparse", "stay"),
        horizon=200,
        success_rule=(
            f"all 3 subgoals were reached, each within {HIT_RADIUS} m and in order; 'stay': the hand was that near to "
            f"where it started in {STAGES * STAY_HITS} steps; the episode terminates there"
        ),
        min_reward=-5.0,
        reward_version="reference",
        source="tasks, arm and reward: QMP reference code (JacoReachMT5), paper appendix D.1; MuJoCo 3",
        # Paper, appendix D.1: the printed matrix.
        domain_matrix=(
            (2 / 3, 1 / 3, 0, 0, 0),
            (1 / 3, 2 / 3, 0, 0, 0),
            (0, 0, 5 / 6, 1 / 6, 0),
            (0, 0, 1 / 6, 5 / 6, 0),
            (0, 0, 0, 0, 1),
        ),
        episode_metrics={"any_hit": "any", "stages": "last", "hit_fraction": "last"},
        relabel=relabelled_rewards,
    )
}


_CAMERA = Camera(lookat=(0.2, 0.0, 0.4), distance=1.5, azimuth=140.0, elevation=-22.0)
_DONE, _NOW, _LATER = (0.5, 0.5, 0.5, 0.35), (0.15, 0.6, 0.38, 0.85), (0.2, 0.47, 0.75, 0.4)


class ReacherVectorEnv(PhysicsVectorEnv):
    """N arms, each with its task.

    Observation (15,) float32: joint positions 0-5 (rad), joint velocities 6-11 (rad/s), one-hot 12-14 of the stages
    completed before the step that led here; neither subgoals nor task. Action (6,): torques in units of 5 N m (joint
    1) and 10 N m. A step is 0.04 s, 4 physics steps. Start: joints (0, 0, 0, 0, -2.8, 0) with uniform noise of 0.01
    rad and 0.001 rad/s; joint 5 then lies 2.1 rad outside its limits, which drag it in over the first four steps.
    Termination when 3 stages are complete. Paper: appendix D.1.

    ``infos``: ``success`` (3 stages complete), ``hit`` (hand within 5 cm of its subgoal in this step: the reference
    code's success), ``any_hit`` (in this episode), ``stages`` completed, ``hit_fraction`` of the episode's steps.

    Args:
        env_id: a key of `REACHERS`.
        num_envs: N.
        reward: "reference" (the released code) or "paper" (its wording: no stage penalty, 1 per completed stage).
        kwargs: see `PhysicsVectorEnv`.
    """

    metadata = {**PhysicsVectorEnv.metadata, "render_fps": 25}
    renderers = ("numpy", "mujoco")
    frame_skip = 4
    info_types = {"success": bool, "hit": bool, "any_hit": bool, "stages": int, "hit_fraction": float}

    def __init__(
        self,
        env_id: str = "Reacher5-v0",
        num_envs: int = 1,
        *,
        reward: Literal["reference", "paper"] = "reference",
        **kwargs: Any,
    ) -> None:
        if env_id not in REACHERS:
            raise ValueError(f"env_id must be one of {list(REACHERS)}, got {env_id!r}")
        if reward not in _WEIGHTS:
            raise ValueError(f"reward must be one of {list(_WEIGHTS)}, got {reward!r}")
        task_set = REACHERS[env_id]
        if reward != task_set.reward_version:
            relabel = partial(relabelled_rewards, reward=reward)
            task_set = replace(task_set, reward_version=reward, relabel=relabel)
        low, high = np.full(15, -np.inf, dtype=np.float32), np.full(15, np.inf, dtype=np.float32)
        low[12:], high[12:] = 0, 1
        super().__init__(
            task_set,
            _model(),
            gym.spaces.Box(low, high),
            gym.spaces.Box(-1.0, 1.0, (6,), np.float32),
            num_envs=num_envs,
            **kwargs,
        )
        self._weights = _WEIGHTS[reward][self.task_ids].T.copy()
        self._rows = np.arange(num_envs)
        self._hits_per_stage = np.where(self.task_ids == STAY, STAY_HITS, 1)
        self._episode["hits"] = np.zeros(num_envs, dtype=np.int64)
        self._episode["shown_stages"] = np.zeros(num_envs, dtype=np.int64)
        # (N, stage, 3); the last row is for the step after the end
        self._episode["subgoals"] = np.zeros((num_envs, STAGES + 1, 3))

    def _start(self, rows: Rows) -> None:
        engine = self._engine
        for i in rows:
            engine.qpos[i] += self.rngs[i].uniform(-START_NOISE[0], START_NOISE[0], 6)
            engine.qvel[i] = self.rngs[i].uniform(-START_NOISE[1], START_NOISE[1], 6)
        stay = (self.task_ids[rows] == STAY)[:, None, None]
        hands = hand_positions(engine.qpos[rows])[:, None]
        self._episode["subgoals"][rows, :STAGES] = np.where(stay, hands, SUBGOALS[self.task_ids[rows]])

    def _judge(self) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.bool_], dict[str, Array]]:
        engine, hits, before = self._engine, self._episode["hits"], self._episode["shown_stages"]
        sensed = engine.sensordata
        np.floor_divide(hits, self._hits_per_stage, out=before)
        offsets = sensed[:, :3] - self._episode["subgoals"][self._rows, before]
        distances = np.sqrt(np.einsum("ij,ij->i", offsets, offsets))
        hit = distances < HIT_RADIUS
        hits += hit
        stages = hits // self._hits_per_stage
        success = stages >= STAGES
        # A joint's acceleration is what its link's angular acceleration adds to the parent's, along its axis.
        axes, spins = sensed[:, 3:21].reshape(-1, 6, 3), (sensed[:, 24:] - sensed[:, 21:-3]).reshape(-1, 6, 3)
        accelerations = np.einsum("ijk,ijk->ij", axes, spins)
        rewards = _rewards(self._weights, distances, before, stages, engine.control[:, -1], engine.qvel, accelerations)
        infos = {
            "success": success.copy(),
            "hit": hit,
            "any_hit": hits > 0,
            "stages": stages,
            "hit_fraction": hits / self._elapsed,
        }
        return rewards, success, infos

    def _observe(self) -> Array:
        engine = self._engine
        observations = np.empty((self.num_envs, 15), dtype=np.float32)
        observations[:, :6] = engine.qpos
        observations[:, 6:12] = engine.qvel
        observations[:, 12:] = _ONE_HOT[self._episode["shown_stages"]]
        return observations

    def _draw(self, index: int) -> npt.NDArray[np.uint8]:
        stage = int(self._episode["hits"][index] // self._hits_per_stage[index])
        points = self._episode["subgoals"][index]
        last = 1 if self.task_ids[index] == STAY else STAGES
        markers = [
            Marker(points[k], HIT_RADIUS, _NOW if k == stage or last == 1 else _DONE if k < stage else _LATER)
            for k in range(last)
        ]
        return self._photograph(index, _CAMERA, markers)


class ReacherEnv(SingleEnv):
    """One reaching task: ``ReacherEnv("Reacher5-v0", task=2)``. See `ReacherVectorEnv`."""

    metadata = {"render_modes": ["rgb_array"], "render_fps": 25}
    vector_class = ReacherVectorEnv
