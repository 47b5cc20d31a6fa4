"""Maze navigation: a force-driven ball finds its way from a task's start to a task's goal.

The physics are D4RL's point maze, number for number. Paper: section 6.1 and appendix D.2.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cache, lru_cache, partial
from typing import Any, Literal, TypeAlias

import gymnasium as gym
import mujoco
import numpy as np
import numpy.typing as npt

from qmp_envs.drawing import Image, blend, blur, disc, rounded
from qmp_envs.physics import PhysicsVectorEnv
from qmp_envs.pictures import picture_of
from qmp_envs.single import SingleEnv
from qmp_envs.sketch import Camera, Marker
from qmp_envs.task_set import TaskSet
from qmp_envs.vector import Array, Rows

Cell: TypeAlias = tuple[int, int]

# A location (x, y) is (row, column), in the joint coordinates of the ball.
LARGE = (
    "############",
    "#....#.....#",
    "#.##.#.#.#.#",
    "#......#...#",
    "#.####.###.#",
    "#..#.#.....#",
    "##.#.#.#.###",
    "#..#...#...#",
    "############",
)
MEDIUM = (
    "########",
    "#..##..#",
    "#..#...#",
    "##...###",
    "#..#...#",
    "#.#..#.#",
    "#...#..#",
    "########",
)

WALL_OFFSET = 1.0  # world position of the centre of cell (0, 0)
BALL_OFFSET = 1.2  # world position of the ball at joint position 0: it is 0.2 off the cell's centre
GOAL_RADIUS = 0.5
MAX_SPEED = 5.0
START_NOISE = 0.1


@dataclass(frozen=True, kw_only=True)
class MazeTaskSet(TaskSet):
    """A task set of mazes: the layout, and T start and goal cells ``(row, column)``."""

    layout: tuple[str, ...]
    starts: tuple[Cell, ...]
    goals: tuple[Cell, ...]


def judge(
    locations: Array, goals: npt.ArrayLike, sparse: bool = False
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.bool_]]:
    """Rewards (M,), and whether the goal is reached (M,), of balls that a step took to (M, 2) with goals (M, 2)."""
    offset = locations - np.asarray(goals, dtype=np.float64)
    distance = np.sqrt(np.einsum("ij,ij->i", offset, offset))
    reached = distance <= GOAL_RADIUS
    return reached.astype(np.float64) if sparse else np.expm1(-distance), reached


def _relabel(
    goals: tuple[Cell, ...], sparse: bool, obs: Array, actions: Array, next_obs: Array, task_ids: Array
) -> npt.NDArray[np.float64]:
    """`TaskSet.relabel` of mazes: exact, but for the float32 of the observations."""
    return judge(next_obs[:, :2], np.array(goals)[task_ids], sparse)[0]


def _task_set(env_id: str, layout: tuple[str, ...], tasks: Sequence[tuple[Cell, Cell]], source: str) -> MazeTaskSet:
    goals = tuple(goal for _, goal in tasks)
    return MazeTaskSet(
        env_id=env_id,
        task_names=tuple(f"{x}_{y}_to_{gx}_{gy}" for (x, y), (gx, gy) in tasks),
        horizon=600,
        success_rule=f"the ball is within {GOAL_RADIUS} of the goal; the episode terminates there",
        min_reward=-1.0,
        reward_version="dense",
        source=source,
        relabel=partial(_relabel, goals, False),
        layout=layout,
        starts=tuple(start for start, _ in tasks),
        goals=goals,
    )


_TEN = [
    ((1, 3), (5, 8)),
    ((1, 10), (2, 4)),
    ((4, 1), (1, 7)),
    ((7, 4), (4, 10)),
    ((1, 3), (7, 4)),
    ((1, 7), (7, 10)),
    ((5, 4), (7, 9)),
    ((7, 1), (2, 6)),
    ((1, 2), (3, 10)),
    ((7, 2), (6, 8)),
]
_THREE = [((5, 6), (5, 3)), ((5, 6), (1, 2)), ((5, 6), (4, 1))]
_FIVE = [
    ((4, 1), (1, 7)),
    ((3, 3), (7, 8)),
    ((1, 3), (7, 5)),
    ((7, 5), (3, 3)),
    ((5, 10), (1, 3)),
]
_TWENTY = [
    (start, goal)
    for start, goals in (
        ((1, 4), ((2, 10), (5, 4), (5, 10), (7, 1), (7, 10))),
        ((2, 10), ((1, 3), (5, 1), (5, 4), (7, 6), (7, 10))),
        ((5, 1), ((1, 10), (3, 8), (5, 8), (7, 4), (7, 10))),
        ((7, 5), ((1, 1), (1, 10), (4, 1), (7, 2), (7, 10))),
    )
    for goal in goals
]
_MT10 = [
    ((1, 10), (7, 10)),
    ((1, 10), (5, 4)),
    ((1, 10), (1, 1)),
    ((5, 4), (7, 10)),
    ((5, 4), (1, 1)),
    ((1, 3), (5, 10)),
    ((1, 3), (7, 4)),
    ((7, 2), (2, 8)),
    ((7, 2), (7, 4)),
    ((7, 2), (1, 4)),
]
_SOURCE = "tasks: QMP reference code ({}); physics: D4RL point maze; reward: exp(-distance) - 1"

# id -> task set
MAZES: dict[str, MazeTaskSet] = {
    task_set.env_id: task_set
    for task_set in (
        _task_set("Maze10-v0", LARGE, _TEN, _SOURCE.format("the registered set, paper appendix D.2")),
        _task_set("Maze3-v0", MEDIUM, _THREE, _SOURCE.format("medium, 3 tasks; horizon as in Maze10")),
        _task_set("Maze5-v0", LARGE, _FIVE, _SOURCE.format("large, 5 tasks; horizon as in Maze10")),
        _task_set("Maze20-v0", LARGE, _TWENTY, _SOURCE.format("large, 20 tasks; horizon as in Maze10")),
        _task_set("MazeMT10-v0", LARGE, _MT10, _SOURCE.format("list mt10; horizon as in Maze10")),
    )
}


def maze_xml(layout: Sequence[str]) -> str:
    """MJCF text of a layout: ``#`` is a wall, anything else is free."""
    walls = "\n".join(
        f'<geom type="box" pos="{row + WALL_OFFSET} {column + WALL_OFFSET} 0" size="0.5 0.5 0.2"/>'
        for row, line in enumerate(layout)
        for column, cell in enumerate(line)
        if cell == "#"
    )
    # The floor touches the ball to no effect (no vertical joint). It stays: its contact is part of the solve.
    return f"""
<mujoco model="point_maze">
  <compiler inertiafromgeom="true" angle="radian"/>
  <option timestep="0.01" gravity="0 0 0" iterations="20" integrator="Euler"/>
  <default>
    <joint damping="1" limited="false"/>
    <geom friction="0.5 0.1 0.1" density="1000" margin="0.002" condim="1" contype="2" conaffinity="1"/>
    <motor ctrlrange="-1 1" ctrllimited="true" gear="100"/>
  </default>
  <worldbody>
    <geom type="plane" pos="0 0 -0.1" size="40 40 0.25" contype="1" conaffinity="0"/>
    <body pos="{BALL_OFFSET} {BALL_OFFSET} 0">
      <geom type="sphere" size="0.1" contype="1"/>
      <joint name="ball_x" type="slide" axis="1 0 0"/>
      <joint name="ball_y" type="slide" axis="0 1 0"/>
    </body>
    {walls}
  </worldbody>
  <actuator>
    <motor joint="ball_x"/>
    <motor joint="ball_y"/>
  </actuator>
</mujoco>
"""


@cache
def _model(layout: tuple[str, ...]) -> mujoco.MjModel:
    return mujoco.MjModel.from_xml_string(maze_xml(layout))


# Pictures show rows downwards and columns to the right, as the layouts are written.
CELL_PIXELS = 40
AGENT_COLOUR = (232, 83, 38)
START_COLOUR = (52, 120, 190)
GOAL_COLOUR = (38, 150, 96)
_FLOOR, _CHECK, _WALL, _EDGE = (247, 244, 238), (241, 237, 229), (66, 75, 92), (99, 110, 130)
_INK, _WHITE = (20, 24, 32), (255, 255, 255)


def _pixel(location: npt.ArrayLike) -> tuple[float, float]:
    """Picture position of the ball at a location in joint coordinates."""
    x, y = (np.asarray(location) + BALL_OFFSET - WALL_OFFSET + 0.5) * CELL_PIXELS
    return float(x), float(y)


@lru_cache(maxsize=64)
def _background(layout: tuple[str, ...], start: Cell, goal: Cell) -> Image:
    """Everything but the ball. The goal's disc is the set of ball positions that reach it."""
    cells = np.array([list(line) for line in layout]) == "#"
    square = np.ones((CELL_PIXELS, CELL_PIXELS))
    image = np.full((*np.kron(cells, square).shape, 3), _FLOOR, dtype=np.float64)
    blend(image, _CHECK, np.kron(np.indices(cells.shape).sum(axis=0) % 2, square))
    disc(image, _pixel(goal), GOAL_RADIUS * CELL_PIXELS, GOAL_COLOUR, 0.3)
    disc(image, _pixel(goal), 10.0, GOAL_COLOUR)
    disc(image, _pixel(goal), 7.0, _WHITE)
    disc(image, _pixel(goal), 4.0, GOAL_COLOUR)
    disc(image, _pixel(start), 10.0, START_COLOUR)
    disc(image, _pixel(start), 7.0, _FLOOR)
    disc(image, _pixel(start), 3.0, START_COLOUR)
    walls = np.kron(cells, square)
    # Shadows, walls, and a lit edge on the side that faces the light.
    blend(image, _INK, 0.25 * blur(np.roll(walls, (4, 4), axis=(0, 1)), 3.0))
    blend(image, _WALL, rounded(walls, 3.0))
    inner = walls * np.roll(walls, (2, 2), axis=(0, 1))
    blend(image, _EDGE, rounded(walls, 3.0) - rounded(inner, 3.0))
    image.setflags(write=False)
    return image


_GOAL = (0.15, 0.59, 0.38, 0.4)


@cache
def _painted(layout: tuple[str, ...]) -> mujoco.MjModel:
    """The model in the colours of our own pictures."""
    model = copy.copy(_model(layout))
    kinds = mujoco.mjtGeom.mjGEOM_PLANE, mujoco.mjtGeom.mjGEOM_BOX, mujoco.mjtGeom.mjGEOM_SPHERE
    for kind, colour in zip(kinds, (_FLOOR, _WALL, AGENT_COLOUR), strict=True):
        model.geom_rgba[model.geom_type == kind, :3] = np.array(colour) / 255
    return model


def _camera(layout: tuple[str, ...]) -> Camera:
    """Where MuJoCo's picture is taken from: all of the maze, turned as ours is, from a slant."""
    rows, columns = len(layout), len(layout[0])
    middle = (0.5 * (rows - 1) + WALL_OFFSET, 0.5 * (columns - 1) + WALL_OFFSET, 0.0)
    size = (CELL_PIXELS * rows, CELL_PIXELS * columns)
    return Camera(lookat=middle, distance=1.35 * rows, azimuth=180.0, elevation=-70.0, size=size)


class MazeVectorEnv(PhysicsVectorEnv):
    """N balls in mazes of one layout.

    Observation (4,) float32: x, y, velocity in x and y (m, m/s); neither goal nor task. Action (2,): force in
    x and y, in units of 100 N. Reward: exp(-distance to the goal) - 1, or with ``reward="sparse"`` 1 at the
    goal and 0 elsewhere. The episode terminates within 0.5 m of the goal, which is success. A step is 0.01 s;
    the velocity is clipped to 5 m/s before it, not after. Paper: appendix D.2.

    Args:
        env_id: which task set, a key of `MAZES`.
        num_envs: N.
        reward: "dense" or "sparse".
        kwargs: see `PhysicsVectorEnv`.
    """

    metadata = {**PhysicsVectorEnv.metadata, "render_fps": 100}
    renderers = ("numpy", "mujoco")
    task_set: MazeTaskSet

    def __init__(
        self,
        env_id: str = "Maze10-v0",
        num_envs: int = 1,
        *,
        reward: Literal["dense", "sparse"] = "dense",
        **kwargs: Any,
    ) -> None:
        if env_id not in MAZES:
            raise ValueError(f"env_id must be one of {list(MAZES)}, got {env_id!r}")
        if reward not in ("dense", "sparse"):
            raise ValueError(f"reward must be 'dense' or 'sparse', got {reward!r}")
        task_set = MAZES[env_id]
        if reward == "sparse":
            relabel = partial(_relabel, task_set.goals, True)
            task_set = replace(task_set, min_reward=0.0, reward_version="sparse", relabel=relabel)
        rows, columns = len(task_set.layout), len(task_set.layout[0])
        low = np.array([0, 0, -np.inf, -np.inf], dtype=np.float32)
        high = np.array([rows - 1, columns - 1, np.inf, np.inf], dtype=np.float32)
        super().__init__(
            task_set,
            _model(task_set.layout),
            gym.spaces.Box(low, high),
            gym.spaces.Box(-1.0, 1.0, (2,), np.float32),
            num_envs=num_envs,
            **kwargs,
        )
        self._starts = np.array(task_set.starts, dtype=np.float64)[self.task_ids]
        self._goals = np.array(task_set.goals, dtype=np.float64)[self.task_ids]
        self._sparse = reward == "sparse"

    def _start(self, rows: Rows) -> None:
        engine = self._engine
        for i in rows:
            engine.qpos[i] = self._starts[i] + self.rngs[i].uniform(-START_NOISE, START_NOISE, 2)
            engine.qvel[i] = self.rngs[i].normal(0.0, START_NOISE, 2)

    def _apply(self, actions: Array) -> None:
        super()._apply(actions)
        np.clip(self._engine.qvel, -MAX_SPEED, MAX_SPEED, out=self._engine.qvel)

    def _judge(self) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.bool_], dict[str, Array]]:
        rewards, reached = judge(self._engine.qpos, self._goals, self._sparse)
        return rewards, reached, {"success": reached.copy()}

    def _observe(self) -> Array:
        return np.hstack((self._engine.qpos, self._engine.qvel), dtype=np.float32)

    def _draw(self, index: int) -> npt.NDArray[np.uint8]:
        task_set, task = self.task_set, self.task_ids[index]
        if self.renderer == "mujoco":
            goal = Marker((*(self._goals[index] + BALL_OFFSET), 0.0), GOAL_RADIUS, _GOAL)
            painted = picture_of(_painted(task_set.layout), self.renderer)
            return painted.draw(self._engine.evaluate(index), _camera(task_set.layout), [goal])
        image = _background(task_set.layout, task_set.starts[task], task_set.goals[task]).copy()
        centre = _pixel(self._engine.qpos[index])
        disc(image, (centre[0] + 2.0, centre[1] + 2.0), 8.0, _INK, 0.3)
        disc(image, centre, 8.0, _WHITE)
        disc(image, centre, 6.5, AGENT_COLOUR)
        picture: npt.NDArray[np.uint8] = np.rint(image).astype(np.uint8)
        return picture


class MazeEnv(SingleEnv):
    """One maze task: ``MazeEnv("Maze10-v0", task=3)``. See `MazeVectorEnv`."""

    metadata = {
        "render_modes": ["rgb_array"],
        "render_fps": 100,
        "legend": {"ball": AGENT_COLOUR, "its start": START_COLOUR, "its goal": GOAL_COLOUR},  # of the picture
    }
    vector_class = MazeVectorEnv
