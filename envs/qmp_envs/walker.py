"""Two-legged walking in a plane: forward, backward, standing still, and forward under a low ceiling.

The robot is Gymnasium's Walker2d. Paper: section 6.1 and appendix D.4; the numbers are those of the QMP authors' code.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from importlib.resources import as_file, files
from typing import Any

import gymnasium as gym
import mujoco
import numpy as np
import numpy.typing as npt

from qmp_envs.arguments import assign_tasks
from qmp_envs.drawing import Colour, capsule, rectangle
from qmp_envs.engine import CONTROL
from qmp_envs.physics import PhysicsVectorEnv
from qmp_envs.single import SingleEnv
from qmp_envs.sketch import Camera
from qmp_envs.task_set import TaskSet
from qmp_envs.vector import Array, Rows

CRAWL = 3

# per task
TARGET_VELOCITY = np.array([3.0, -3.0, 0.0, 3.0])
VELOCITY_WEIGHT = np.array([1.0, 1.0, 1.0, 2.0])
HEIGHT_WEIGHT = np.array([1.0, 1.0, 0.5, 0.0])
FEET_WEIGHT = np.array([0.01, 0.01, 0.0, 0.01])
MIN_HEIGHT = np.array([0.8, 0.8, 0.8, 0.3])
MAX_FORCE = np.array([100.0, 100.0, 400.0, 300.0])  # N, and N m of torque
RANDOM_STEPS = (5, 5, 10, 5)  # control steps with random actions before an episode

_PER_TASK = np.stack((TARGET_VELOCITY, VELOCITY_WEIGHT, HEIGHT_WEIGHT, FEET_WEIGHT, MIN_HEIGHT))

DT = 0.008  # seconds in a control step
START_NOISE = 0.01
MAX_SPEED = 10.0  # in observations only

# Boxes that only the crawling walker can touch: x, z, half sizes in x and z. All but the first are behind its start.
CEILINGS = np.array([[8.0, 1.0, 6.0, 0.1], [-10.0, 1.0, 1.5, 0.1]])
CURB = np.array([-5.0, 0.2, 0.1, 0.2])

_MOTORS = 6  # The first numbers of a control vector; then come force and torque on each body.
_BODIES = 8  # The world counts.


@cache
def _model(crawl: bool) -> mujoco.MjModel:
    """Gymnasium's walker with the authors' changes. Both models have equal sizes: the engine needs that."""
    with as_file(files("gymnasium") / "envs/mujoco/assets/walker2d_v5.xml") as path:
        spec = mujoco.MjSpec.from_file(str(path))
    spec.geom("foot_geom").friction[0] = 0.9  # Only the left foot has Gymnasium's 1.9.
    for x, z, half_x, half_z in (*CEILINGS, CURB):
        spec.worldbody.add_geom(
            type=mujoco.mjtGeom.mjGEOM_BOX,
            pos=[x, 0.0, z],
            size=[half_x, 2.0, half_z],
            contype=1,  # It counts for the sizes, but the walker collides by the others' conaffinity alone.
            conaffinity=int(crawl),
            rgba=[0.26, 0.29, 0.36, 0.4 if crawl else 0.0],  # The walker is looked at through them.
        )
    return spec.compile()


# ---------------------------------------------------------------------- geometry, from joint positions alone

# The axes of the walker's capsules lead from the top of the torso to hip, knee, ankle and toe. Another line
# leads from the toe to the origin of the foot's frame. Negative lengths point down, if all angles are 0.
_LENGTHS = np.array([-0.4, -0.45, -0.5, 0.2, -0.1])
_RADII = np.array([0.05, 0.05, 0.04, 0.06])
_ACROSS = np.array([0.0, 0.0, np.pi / 2])  # The foot is at a right angle to the rest.


def skeleton(qpos: Array) -> npt.NDArray[np.float64]:
    """Where the walker is, from its joint positions (N, 9).

    Returns:
        Points (N, 2, 6, 2): for the right and the left leg top of the torso, hip, knee, ankle, toe and origin of the
        foot's frame, in x and z.
    """
    angles = np.empty((len(qpos), 2, 5))
    angles[:, :, 0] = qpos[:, 2, None]
    angles[:, :, 1:4] = _ACROSS - qpos[:, 3:].reshape(-1, 2, 3)
    angles[:, :, 4] = -np.pi / 2
    angles = angles.cumsum(axis=2)
    points = np.empty((len(qpos), 2, 6, 2))
    lines = points[:, :, 1:]
    np.sin(angles, out=lines[..., 0])
    np.cos(angles, out=lines[..., 1])
    lines *= _LENGTHS[:, None]
    points[:, :, 0] = qpos[:, None, :2] - lines[:, :, 0] / 2  # The torso's middle is what qpos tells.
    return points.cumsum(axis=2)


_CORNERS = np.array([[-1.0, -1.0], [-1.0, 1.0], [1.0, -1.0], [1.0, 1.0]])
# Where the walker's axes must be for its capsules to touch a ceiling, at least.
_LOW = CEILINGS[:, :2] - CEILINGS[:, 2:] - _RADII.max()
_HIGH = CEILINGS[:, :2] + CEILINGS[:, 2:] + _RADII.max()


def touches_ceiling(points: npt.NDArray[np.float64]) -> npt.NDArray[np.bool_]:
    """Whether a capsule of the walker and a ceiling overlap, (N,), from the points of `skeleton`."""
    points = points[:, :, :5]
    flat = points.reshape(-1, 10, 2)
    low, high = flat.min(axis=1, keepdims=True), flat.max(axis=1, keepdims=True)
    beside = (low > _HIGH) | (high < _LOW)
    touches: npt.NDArray[np.bool_] = ~beside.any(axis=2).all(axis=1)
    # What is left has to be looked at closely; most of the time it is nothing.
    if touches.any():
        touches[touches] = _overlap(points[touches])
    return touches


def _overlap(points: npt.NDArray[np.float64]) -> npt.NDArray[np.bool_]:
    # Along a capsule's axis the distance to a box is least at an end, abreast of a corner, or anywhere within. An axis
    # that is partly within has an end there, or cuts off a corner and is within abreast of it, or goes through from top
    # to bottom, as a ceiling is longer than any capsule. That makes 7 candidates.
    # Axes of the arrays: N, leg, capsule, ceiling, candidate, x and z.
    start = points[:, :, :-1, None, None]
    along = points[:, :, 1:, None, None] - start
    centre, half = CEILINGS[:, None, :2], CEILINGS[:, None, 2:]
    to_corner = centre + half * _CORNERS - start
    abreast = (to_corner * along).sum(axis=-1) / (along * along).sum(axis=-1)
    halfway = (centre - start)[..., 1] / np.where(along[..., 1] == 0.0, 1.0, along[..., 1])
    both_ends = np.broadcast_to([0.0, 1.0], (*abreast.shape[:-1], 2))
    where = np.concatenate((abreast, halfway, both_ends), axis=-1).clip(0.0, 1.0)
    outside = np.maximum(np.abs(start + where[..., None] * along - centre) - half, 0.0)
    distance = np.hypot(outside[..., 0], outside[..., 1]).min(axis=(3, 4))
    overlap: npt.NDArray[np.bool_] = (distance < _RADII).any(axis=(1, 2))
    return overlap


def judge(
    task_ids: npt.NDArray[np.integer[Any]], qpos: Array, next_qpos: Array, actions: Array
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.bool_]]:
    """Rewards and failures of any steps under any tasks.

    Args:
        task_ids: (M,) the task that judges each step.
        qpos, next_qpos: (M, 9) joint positions before and after the step: ``x_position`` in front of the first
            eight numbers of an observation. Before the step it was ``x_position - DT * x_velocity``.
        actions: (M, 6), in [-1, 1].

    Returns:
        Rewards (M,), and whether the walker fell or touched the ceiling, (M,), which terminates the episode.
    """
    target, velocity_weight, height_weight, feet_weight, min_height = _PER_TASK[:, task_ids]
    velocity = (next_qpos[:, 0] - qpos[:, 0]) / DT
    points = skeleton(next_qpos)
    height = next_qpos[:, 1] - np.maximum(points[:, 0, 5, 1], points[:, 1, 5, 1])
    feet_speed = np.abs(next_qpos[:, 5:9:3] - qpos[:, 5:9:3]).sum(axis=1) / DT
    rewards = (
        1.0  # for being alive
        + velocity_weight * (np.abs(target) - np.abs(velocity - target))
        + 0.1 * np.cos(next_qpos[:, 2])
        - height_weight * np.abs(1.1 - height)
        - feet_weight * feet_speed
        - 0.001 * np.einsum("ij,ij->i", actions, actions)
    )
    failures = next_qpos[:, 1] < min_height
    crawling = np.flatnonzero(task_ids == CRAWL)
    touches = touches_ceiling(points[crawling])
    if touches.any():
        rewards[crawling[touches]] -= 10.0
        failures[crawling[touches]] = True
    return rewards, failures


def relabelled_rewards(
    obs: Array, actions: Array, next_obs: Array, task_ids: npt.NDArray[np.integer[Any]]
) -> npt.NDArray[np.float64]:
    """Rewards (M,) that M stored transitions would have had in other tasks, for data sharing with relabelling (CDS).

    Observations do not show x. So the mean velocity of a step is taken from those before and after, which is off by
    0.01 to 0.02 m/s on average, and nothing is known of ceilings. `judge` is exact, if ``x_position`` and
    ``x_velocity`` of the infos are stored too.

    Args:
        obs, next_obs: (M, 17), before and after the step.
        actions: (M, 6), in [-1, 1].
        task_ids: (M,) task whose reward is wanted.
    """
    moved = DT * 0.5 * (obs[:, 8].astype(np.float64) + next_obs[:, 8])
    # Starting from x = 0 nobody comes near a ceiling.
    qpos, next_qpos = np.column_stack((np.zeros_like(moved), obs[:, :8])), np.column_stack((moved, next_obs[:, :8]))
    return judge(task_ids, qpos, next_qpos, actions)[0]


# id -> task set
WALKERS: dict[str, TaskSet] = {
    "Walker4-v0": TaskSet(
        env_id="Walker4-v0",
        task_names=("forward", "backward", "balance", "crawl"),
        horizon=1000,
        success_rule="the walker is still up, and has not touched the ceiling, when the episode is truncated",
        min_reward=0.0,  # the authors' label: these rewards have no lower bound
        reward_version="reference",
        source="tasks and rewards: QMP reference code; robot: Gymnasium's walker2d_v5.xml",
        episode_metrics={"x_position": "last", "x_velocity": "mean"},
        relabel=relabelled_rewards,
    )
}


# ---------------------------------------------------------------------- environments

PIXELS = 160  # per metre
WIDTH, ABOVE, BELOW = 3.0, 1.95, 0.3  # metres in a picture: across, above the ground and below
_SKY, _GROUND, _STRIPE, _OBSTACLE = (247, 244, 238), (214, 207, 193), (198, 190, 174), (66, 75, 92)
_EDGE: Colour = (20, 24, 32)
TORSO_COLOUR, RIGHT_COLOUR, LEFT_COLOUR = (232, 83, 38), (232, 131, 66), (52, 120, 190)


class WalkerVectorEnv(PhysicsVectorEnv):
    """N planar walkers.

    Observation (17,) float32: torso height (m), torso pitch, joint angles of the right thigh, knee and ankle and of
    the left ones (rad), then the velocities of x and of all of these, cut at +-10. It shows neither x nor the task.
    Action (6,): motor torques of the joints in units of 100 N m. A step is 0.008 s. See `judge` for reward and
    termination; success is to be up when the episode is truncated, after 1000 steps. ``infos`` also hold
    ``x_position`` (m) after the step and ``x_velocity`` (m/s), the mean of the step. Paper: appendix D.4.

    Args:
        env_id: "Walker4-v0".
        num_envs: N.
        force_probability: of a push in a step, for all tasks or one for each: one of the bodies, the world included,
            feels a force and a torque, uniform in +-`MAX_FORCE` along each axis, for that step.
        kwargs: see `PhysicsVectorEnv`.
    """

    metadata = {**PhysicsVectorEnv.metadata, "render_fps": 125}
    renderers = ("numpy", "mujoco")
    info_types = {"success": bool, "x_position": float, "x_velocity": float}
    frame_skip = 4
    control_spec = CONTROL | mujoco.mjtState.mjSTATE_XFRC_APPLIED.value

    def __init__(
        self,
        env_id: str = "Walker4-v0",
        num_envs: int = 1,
        *,
        task_ids: Sequence[int] | npt.NDArray[np.integer[Any]] | None = None,
        force_probability: float | Sequence[float] = 0.0,
        **kwargs: Any,
    ) -> None:
        if env_id not in WALKERS:
            raise ValueError(f"env_id must be one of {list(WALKERS)}, got {env_id!r}")
        task_set = WALKERS[env_id]
        probability = np.asarray(force_probability, dtype=np.float64)
        if probability.shape not in ((), (task_set.num_tasks,)) or not ((probability >= 0) & (probability <= 1)).all():
            raise ValueError(f"force_probability must be one or {task_set.num_tasks} probabilities, got {probability}")
        task_ids = assign_tasks(task_set, num_envs, task_ids)
        limits = np.array([np.inf] * 8 + [MAX_SPEED] * 9, dtype=np.float32)
        super().__init__(
            task_set,
            [_model(crawl=bool(task == CRAWL)) for task in task_ids],
            gym.spaces.Box(-limits, limits),
            gym.spaces.Box(-1.0, 1.0, (_MOTORS,), np.float32),
            num_envs=num_envs,
            task_ids=task_ids,
            **kwargs,
        )
        self._force_probability = np.broadcast_to(probability, (task_set.num_tasks,))[self.task_ids]
        self._pushed = np.flatnonzero(self._force_probability)
        self._before = np.zeros((num_envs, 9))

    def _start(self, rows: Rows) -> None:
        engine = self._engine
        for i in rows:
            rng = self.rngs[i]
            engine.qpos[i] += rng.uniform(-START_NOISE, START_NOISE, 9)
            engine.qvel[i] = rng.uniform(-START_NOISE, START_NOISE, 9)
            actions = rng.uniform(-1.0, 1.0, (RANDOM_STEPS[self.task_ids[i]], _MOTORS))
            controls = np.zeros((len(actions) * self.frame_skip, engine.control.shape[2]))
            controls[:, :_MOTORS] = np.repeat(actions, self.frame_skip, axis=0)
            engine.run(i, controls)

    def _advance(self, actions: Array) -> None:
        drawn = [self.rngs[i].bit_generator.state for i in self._pushed]
        try:
            super()._advance(actions)
        except FloatingPointError:  # the step did not happen: no pushes were drawn for it
            for i, state in zip(self._pushed, drawn, strict=True):
                self.rngs[i].bit_generator.state = state
            raise

    def _apply(self, actions: Array) -> None:
        torques = self._engine.control[:, :, :_MOTORS]
        np.maximum(actions[:, None], -1.0, out=torques)
        np.minimum(torques, 1.0, out=torques)
        for i in self._pushed:
            self._push(i)
        self._before[...] = self._engine.qpos

    def _push(self, i: np.intp) -> None:
        """Decide about the force on sub-environment ``i`` in this step; none in the first one of an episode."""
        forces = np.zeros((_BODIES, 6))
        # A row that is reset in this step must leave its generator alone, as in the other autoreset modes.
        if self._elapsed[i] > 0 and not self._finished[i] and self.rngs[i].random() < self._force_probability[i]:
            limit = MAX_FORCE[self.task_ids[i]]
            forces[self.rngs[i].integers(_BODIES)] = self.rngs[i].uniform(-limit, limit, 6)
        self._engine.control[i, :, _MOTORS:] = forces.ravel()

    def _judge(self) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.bool_], dict[str, Array]]:
        qpos = self._engine.qpos
        rewards, failures = judge(self.task_ids, self._before, qpos, self._engine.control[:, 0, :_MOTORS])
        return (
            rewards,
            failures,
            {
                "success": (self._elapsed >= self.max_episode_steps) & ~failures,
                "x_position": qpos[:, 0].copy(),
                "x_velocity": (qpos[:, 0] - self._before[:, 0]) / DT,
            },
        )

    def _observe(self) -> Array:
        observations = np.empty((self.num_envs, 17), dtype=np.float32)
        observations[:, :8] = self._engine.qpos[:, 1:]
        observations[:, 8:] = np.minimum(np.maximum(self._engine.qvel, -MAX_SPEED), MAX_SPEED)
        return observations

    def _draw(self, index: int) -> npt.NDArray[np.uint8]:
        qpos = self._engine.qpos[index]
        if self.renderer == "mujoco":
            size = round((ABOVE + BELOW) * PIXELS), round(WIDTH * PIXELS)
            return self._photograph(
                index, Camera(lookat=(qpos[0], 0.0, 0.85), distance=3.2, elevation=-8.0, size=size), []
            )
        points = skeleton(qpos[None])[0]
        left = qpos[0] - WIDTH / 2  # The camera follows the walker.
        image = np.full((round((ABOVE + BELOW) * PIXELS), round(WIDTH * PIXELS), 3), _SKY, dtype=np.float64)

        def pixel(x: float, z: float) -> tuple[float, float]:
            return (ABOVE - z) * PIXELS, (x - left) * PIXELS

        def box(x: float, z: float, half_x: float, half_z: float, colour: Colour) -> None:
            rectangle(image, pixel(x - half_x, z + half_z), pixel(x + half_x, z - half_z), colour)

        box(qpos[0], -BELOW / 2, WIDTH, BELOW / 2, _GROUND)
        for metre in range(int(left) - 1, int(left + WIDTH) + 2):
            box(metre + 0.25, -BELOW / 2, 0.25, BELOW / 2, _STRIPE)
        if self.task_ids[index] == CRAWL:
            for x, z, half_x, half_z in (*CEILINGS, CURB):
                box(x, z, half_x, half_z, _OBSTACLE)
        for leg, line, colour in (  # The left leg is behind.
            *((1, line, LEFT_COLOUR) for line in (1, 2, 3)),
            (0, 0, TORSO_COLOUR),
            *((0, line, RIGHT_COLOUR) for line in (1, 2, 3)),
        ):
            a, b = (pixel(x, z) for x, z in points[leg, line : line + 2])
            capsule(image, a, b, _RADII[line] * PIXELS, _EDGE)
            capsule(image, a, b, _RADII[line] * PIXELS - 1.5, colour)
        picture: npt.NDArray[np.uint8] = np.rint(image).astype(np.uint8)
        return picture


class WalkerEnv(SingleEnv):
    """One walker task: ``WalkerEnv("Walker4-v0", task=3)``. See `WalkerVectorEnv`."""

    metadata = {"render_modes": ["rgb_array"], "render_fps": 125}
    vector_class = WalkerVectorEnv
