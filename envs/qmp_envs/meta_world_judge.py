"""Many simulations of Meta-World's tasks observed and judged at once: a fixed number of operations on arrays."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import groupby
from typing import Any

import numpy as np
import numpy.typing as npt

from qmp_envs.meta_world import INFO
from qmp_envs.meta_world_formulas import LEAST_MARGIN, Bools, Floats, both, gaussian, long_tail, norm, quaternions
from qmp_envs.meta_world_tasks import GOAL, HAND, OBJECT, OTHER, START, TASKS, TIPS, Task, button_margins, door
from qmp_envs.sawyer import Sawyer

# What is read of each simulation: nine points, of which these are the first seven, and nine numbers of an orientation.
_SEEN = (
    ("xpos", "hand"),
    ("xpos", "rightclaw"),
    ("xpos", "leftclaw"),
    ("site_xpos", "rightEndEffector"),
    ("site_xpos", "leftEndEffector"),
    ("xpos", "leftpad"),
    ("xpos", "rightpad"),
)
_NUMBERS = 3 * (len(_SEEN) + 2) + 9
_CORNERS = [
    [f"{corner}_collision_box_{box}" for corner in ("bottom_right_corner", "top_left_corner")] for box in (1, 2)
]
_HAND_LOW, _HAND_HIGH = np.array([(-0.525, 0.348, -0.0525), (0.525, 1.025, 0.7)])


class Judge:
    """Observes and judges M simulations of tasks of `TASKS`, after each step of all of them.

    Args:
        simulations: M; those of one task are neighbours, in the order of `TASKS`.
        names: (M,) of their tasks.

    Attributes:
        frames: (M, 18) observed now, not clipped.
        table: (7, M) rewards, success, and what else is told of a step; overwritten by the next one. Views of it:
        rewards: (M,).
        told: (M,) of each key of `INFO`.
        success: (M,) bool.
        points: (M, 6, 3) what distances are measured between.
        pads: (M, 2) of the gripper, left and right, in y.
        opening: (M,) of the gripper, 0 to 1.
        effort: (M,) of closing it.
        to_object, to_goal, third: (M,) distances.
        approached, at_goal: (M,) how near the first two of a task's distances are to what they shall be, 0 to 1.
        grasp: (G,) of each attribute of `_Grasp`, for the G rows in which something is to be grasped.
        object_start: (M, 3) where the object was at the start of the episode.
        boxes: (P, 2, 2, 3) opposite corners of the two boxes of each peg-insert-side.
    """

    def __init__(self, simulations: Sequence[Sawyer], names: Sequence[str]) -> None:
        m = len(simulations)
        tasks = [TASKS[name] for name in names]
        self.simulations = list(simulations)
        self._margin_functions = [task.margins for task in tasks]
        # Each way to score, and the rows that it is for.
        self._scores: list[tuple[Callable[[Judge, slice], None], slice]] = []
        for score, group in groupby(range(m), key=lambda row: tasks[row].score):
            members = list(group)
            self._scores.append((score, slice(members[0], members[-1] + 1)))
        self._read(tasks)
        self._reading = np.zeros((m, _NUMBERS))
        sizes = np.array([0 if task.turn is None else 4 if task.turn[0] == "xquat" else 9 for task in tasks])
        self._quaternions, self._matrices = np.flatnonzero(sizes == 4), np.flatnonzero(sizes == 9)
        self._shift = np.array([task.shift for task in tasks])
        self._other_shift = np.array([task.other_shift for task in tasks])
        # (M, 3) spans: approach, goal, third
        spans = [(task.approach, task.goal, task.third) for task in tasks]
        first = 6 * np.arange(m)[:, None]
        self._a = first + np.array([[span.a for span in row] for row in spans])
        self._b = first + np.array([[span.b for span in row] for row in spans])
        self._scale = np.array([[span.scale for span in row] for row in spans])
        self._offset = np.array([[span.offset for span in row] for row in spans])
        self._perfect = np.array([(task.near, task.reached) for task in tasks]).T
        self._margins = np.ones((2, m))
        self._gaussian = np.flatnonzero([task.gaussian for task in tasks])
        self._third_margin = np.flatnonzero([task.margins is button_margins for task in tasks])
        self._nearness = np.where([task.by_third for task in tasks], 2, 0)
        self._near_object = np.array([task.near_object for task in tasks])
        self._success = np.array([task.success for task in tasks])
        self._rows = np.arange(m)
        grasps = np.array([task.grasp for task in tasks if task.grasp is not None]).reshape(-1, 6).T
        low, high, signed, hold, lift, peg = grasps
        self.grasp = low, high, signed > 0, hold, lift > 0, peg > 0
        self._pegs = {
            row: i for i, row in enumerate(i for i, task in enumerate(tasks) if task.grasp and task.grasp.peg)
        }
        self._hinges = [
            x.data.joint("doorjoint").qpos for x, task in zip(simulations, tasks, strict=True) if task.score is door
        ]
        self.table = np.zeros((2 + len(INFO), m))
        self.rewards = self.table[0]
        self.told = dict(zip(INFO, self.table[2:], strict=True))
        self.points = np.zeros((m, 6, 3))
        self.object_start = np.zeros((m, 3))
        self.boxes = np.zeros((len(self._pegs), 2, 2, 3))

    def _read(self, tasks: list[Task]) -> None:
        """Find what is read of each simulation: stretches of MuJoCo's arrays, and the places in them."""
        self._stretches: list[npt.NDArray[np.float64]] = [np.zeros(9)]
        places, size = [], 9
        for x, task in zip(self.simulations, tasks, strict=True):
            wanted = [*_SEEN, task.object, task.other or task.object, *([task.turn] if task.turn else ())]
            kinds = {"x": x.model.body, "s": x.model.site, "g": x.model.geom}
            found = [(field, kinds[field[0]](name).id) for field, name in wanted]
            where: list[int] = []
            offset = {}
            for field in dict.fromkeys(field for field, _ in found):
                indices = [index for other, index in found if other == field]
                stretch = getattr(x.data, field)[min(indices) : max(indices) + 1]
                self._stretches.append(stretch.reshape(-1))
                width = stretch.shape[1]
                offset[field] = width, size - width * min(indices)
                size += stretch.size
            for field, index in found:
                width, start = offset[field]
                where += range(start + width * index, start + width * (index + 1))
            places.append(where + [0] * (_NUMBERS - len(where)))
        self._places = np.array(places)
        self._memory = np.zeros(size)

    def begin(self, row: int) -> None:
        """Take note of the start of an episode, after the reset of simulation ``row``."""
        x: Any = self.simulations[row]
        self.points[row, GOAL], self.points[row, START] = x._target_pos, x.init_tcp
        self.object_start[row] = x.obj_init_pos
        self._margins[:, row] = np.maximum(self._margin_functions[row](x), LEAST_MARGIN)
        if row in self._pegs:
            self.boxes[self._pegs[row]] = [[x.data.site(name).xpos for name in box] for box in _CORNERS]

    def __call__(self, effort: npt.NDArray[np.float32]) -> None:
        """Look at all simulations after a step with ``effort`` (M,) of closing the gripper: see the attributes."""
        with np.errstate(over="ignore"):  # beyond a margin of 0
            self._look(effort)
            self._measure()
            for score, rows in self._scores:
                score(self, rows)

    @property
    def hands(self) -> npt.NDArray[np.float64]:
        """(M, 3) clipped, as they are observed."""
        return self.points[:, HAND]

    def angles(self) -> npt.NDArray[np.float64]:
        """Of the hinges of the doors, rad."""
        return np.concatenate(self._hinges)

    def outside(self, rows: slice, at_goal: Floats, gripping: Bools) -> Floats:
        """How near to the goal the objects of ``rows`` are, the less the farther a peg's head is inside of the box.

        Where it is, ``gripping`` becomes False, as nothing else there has an action's precision.
        """
        pegs = slice(min(self._pegs) - rows.start, max(self._pegs) + 1 - rows.start)
        head = self.points[rows][pegs, OTHER, None]
        zero, one = self.boxes[:, :, 0], self.boxes[:, :, 1]
        inside: Any = ((np.minimum(zero, one) <= head) & (head <= np.maximum(zero, one))).all(axis=2)
        free: Floats = np.ones(len(self._pegs))
        if inside.any():
            part = (head - zero) / (one - zero)
            parts = np.where(inside, part[..., 0] * part[..., 1] * part[..., 2], 1.0)
            free = both(parts[:, 1], parts[:, 0])
            gripping[pegs] &= ~np.logical_or(inside[:, 0], inside[:, 1])
        at_goal = at_goal.copy()
        at_goal[pegs] = both(at_goal[pegs], free)  # with 1, this may change the last digit
        return at_goal

    def _look(self, effort: npt.NDArray[np.float32]) -> None:
        reading, points = self._reading, self.points
        np.concatenate(self._stretches, out=self._memory)
        self._memory.take(self._places, out=reading)
        self.effort = effort.astype(np.float64)
        self.frames = frames = np.zeros((len(reading), 18))
        frames[:, :3] = reading[:, :3]
        self.opening = frames[:, 3]
        np.minimum(norm(reading[:, 3:6] - reading[:, 6:9]) / 0.1, 1.0, out=self.opening)
        frames[:, 4:7] = reading[:, 21:24] + self._shift
        if self._quaternions.size:
            frames[self._quaternions, 7:11] = reading[self._quaternions, 27:31]
        if self._matrices.size:
            frames[self._matrices, 7:11] = quaternions(reading.take(self._matrices, axis=0)[:, 27:])
        self.pads = reading[:, 16:20:3]
        points[:, HAND] = np.minimum(np.maximum(reading[:, :3], _HAND_LOW), _HAND_HIGH)
        points[:, TIPS] = (reading[:, 9:12] + reading[:, 12:15]) / 2.0
        points[:, OBJECT] = frames[:, 4:7]
        points[:, OTHER] = reading[:, 24:27] + self._other_shift

    def _measure(self) -> None:
        points = self.points.reshape(-1, 3)
        distances = norm((points.take(self._a, axis=0) - points.take(self._b, axis=0) - self._offset) * self._scale).T
        _, self.to_goal, self.third = distances
        self.to_object = distances[self._nearness, self._rows]
        if self._third_margin.size:
            self._margins[0, self._third_margin] = np.maximum(self.third[self._third_margin], LEAST_MARGIN)
        excess = np.maximum(distances[:2] - self._perfect, 0.0) / self._margins
        values = long_tail(excess)
        if self._gaussian.size:
            values[0, self._gaussian] = gaussian(excess[0, self._gaussian])
        self.approached, self.at_goal = values
        self.success = self.to_goal <= self._success
        told = self.told
        told["near_object"][:] = self.to_object <= self._near_object
        told["grasp_success"][:] = 1.0
        told["grasp_reward"][:], told["in_place_reward"][:] = values
        told["obj_to_target"][:] = self.to_goal
        self.table[1] = self.success
