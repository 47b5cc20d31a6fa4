"""Many simulations of Meta-World's tasks observed and judged at once.

What all tasks have in common, positions and distances, is a fixed number of operations on arrays; the rest is some
arithmetic with the numbers of each row (see `qmp_envs.meta_world_tasks`).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from qmp_envs.meta_world import INFO
from qmp_envs.meta_world_formulas import norm, quaternion, within
from qmp_envs.meta_world_tasks import GOAL, HAND, LEFT_PAD, OBJECT, OTHER, RIGHT_PAD, START, TASKS, TIPS, Outcome
from qmp_envs.sawyer import Sawyer

# What is read of each simulation: points, of which `qmp_envs.meta_world_tasks` names the first eight, and nine numbers
# of an orientation. TIPS is one fingertip at first.
_LEFT_TIP, _RIGHT_CLAW, _LEFT_CLAW, _POINTS = range(8, 12)
_SEEN = {
    HAND: ("xpos", "hand"),
    LEFT_PAD: ("xpos", "leftpad"),
    RIGHT_PAD: ("xpos", "rightpad"),
    TIPS: ("site_xpos", "rightEndEffector"),
    _LEFT_TIP: ("site_xpos", "leftEndEffector"),
    _RIGHT_CLAW: ("xpos", "rightclaw"),
    _LEFT_CLAW: ("xpos", "leftclaw"),
}
_SCORED = slice(3 * TIPS)  # numbers that a score sees
_TURN = slice(3 * _POINTS, 3 * _POINTS + 9)
_HAND_LOW, _HAND_HIGH = np.array([(-0.525, 0.348, -0.0525), (0.525, 1.025, 0.7)])


class Row:
    """One simulation as its task's score sees it.

    Attributes:
        simulation: where more can be looked up.
        task: of `TASKS`.
        joint: (1,) position of the task's joint, of now.
        object_start: where the object was at the start of the episode.
        boxes: opposite corners of each of the task's boxes.
        points: one after the other, see `point`.
        opening: of the gripper, 0 to 1.
        effort: of closing it.
        to_object, to_goal, third: distances.
        approached, at_goal: how near the first two of a task's distances are to what they shall be, 0 to 1.
        near: whether the hand is near the object.
        success: whether the object is at its goal.
    """

    __slots__ = (
        *("simulation", "task", "joint", "object_start", "boxes", "points", "opening", "effort", "to_object"),
        *("to_goal", "third", "approached", "at_goal", "near", "success", "_margins"),
    )

    def __init__(self, simulation: Sawyer, name: str) -> None:
        self.simulation: Any = simulation
        self.task = TASKS[name]
        if self.task.joint is not None:
            self.joint: npt.NDArray[np.float64] = simulation.data.joint(self.task.joint).qpos

    def begin(self) -> None:
        """Take note of the start of an episode, after a reset."""
        x = self.simulation
        # Plain numbers: NumPy's would not take on an action's precision, and they are slow.
        margin, goal_margin = self.task.margins(x)
        self._margins = None if margin is None else float(margin), float(goal_margin)
        self.object_start: list[float] = np.asarray(x.obj_init_pos).tolist()
        self.boxes = [[x.data.site(name).xpos.tolist() for name in box] for box in self.task.boxes]

    def judge(self, points: list[float], opening: float, effort: float, distances: list[float]) -> Outcome:
        """Reward, success and what else is told of a step."""
        task, (approach, self.to_goal, self.third, _) = self.task, distances
        self.points, self.opening, self.effort = points, opening, effort
        self.to_object = self.third if task.by_third else approach
        self.near = self.to_object <= task.near_object
        self.success = self.to_goal <= task.success
        margin, goal_margin = self._margins
        self.approached = within(approach, 0.0, task.near, self.third if margin is None else margin, task.tail)
        self.at_goal = within(self.to_goal, 0.0, task.reached, goal_margin)
        return task.score(self)

    def point(self, which: int) -> list[float]:
        """One of the first five points, (3,); the hand's clipped as it is observed."""
        return self.points[3 * which : 3 * which + 3]

    @property
    def pads(self) -> tuple[float, float]:
        """Of the gripper, left and right, in y."""
        return self.points[3 * LEFT_PAD + 1], self.points[3 * RIGHT_PAD + 1]


class Judge:
    """Observes and judges M simulations of tasks of `TASKS`, after each step of all of them.

    Args:
        simulations: M.
        names: (M,) of their tasks.

    Attributes:
        frames: (M, 18) observed now, not clipped.
        hands: (M, 3) clipped, as they are observed; overwritten by the next step.
        table: (7, M) rewards, success, and what else is told of a step.
    """

    def __init__(self, simulations: Sequence[Sawyer], names: Sequence[str]) -> None:
        m = len(simulations)
        self._rows = [Row(x, name) for x, name in zip(simulations, names, strict=True)]
        tasks = [row.task for row in self._rows]
        self._fixed = np.zeros((m, 2, 3))  # GOAL and START
        self._read()
        self._reading = np.zeros((m, _TURN.stop))
        self._points = self._reading[:, : _TURN.start].reshape(m, _POINTS, 3)
        self.hands = self._points[:, HAND]
        self._turned = [i for i, task in enumerate(tasks) if task.turn is not None and task.turn[0] != "xquat"]
        self._shift = np.array([(task.shift, task.other_shift) for task in tasks]).reshape(m, 2, 3)
        # (M, 4) spans: approach, goal, third; and between the claws
        claws = (_RIGHT_CLAW, _LEFT_CLAW, (1.0, 1.0, 1.0), (0.0, 0.0, 0.0))
        spans = [span for task in tasks for span in (task.approach, task.goal, task.third, claws)]
        number = _TURN.stop * np.arange(m)[:, None, None] + np.arange(3)  # of a point 0, in the reading
        self._a = number + 3 * np.array([span[0] for span in spans], dtype=np.intp).reshape(m, 4, 1)
        self._b = number + 3 * np.array([span[1] for span in spans], dtype=np.intp).reshape(m, 4, 1)
        self._scale = np.array([span[2] for span in spans]).reshape(m, 4, 3)
        self._offset = np.array([span[3] for span in spans]).reshape(m, 4, 3)

    def _read(self) -> None:
        """Find what is read of each simulation: stretches of MuJoCo's arrays, and the places in them."""
        self._stretches: list[npt.NDArray[np.float64]] = [np.zeros(9), self._fixed.reshape(-1)]
        size = 9 + self._fixed.size
        self._places = np.zeros((len(self._rows), _TURN.stop), dtype=np.intp)
        for i, row in enumerate(self._rows):
            model, data, task = row.simulation.model, row.simulation.data, row.task
            wanted = {**_SEEN, OBJECT: task.object, OTHER: task.other or task.object}
            if task.turn is not None:
                wanted[_POINTS] = task.turn
            kinds = {"x": model.body, "s": model.site, "g": model.geom}
            found = {point: (field, kinds[field[0]](name).id) for point, (field, name) in wanted.items()}
            self._places[i, 3 * GOAL : 3 * START + 3] = np.arange(9 + 6 * i, 15 + 6 * i)
            for field in dict.fromkeys(field for field, _ in found.values()):
                indices = {point: index for point, (other, index) in found.items() if other == field}
                low = min(indices.values())
                stretch = getattr(data, field)[low : max(indices.values()) + 1]
                self._stretches.append(stretch.reshape(-1))
                width = stretch.shape[1]
                for point, index in indices.items():
                    self._places[i, 3 * point : 3 * point + width] = size + width * (index - low) + np.arange(width)
                size += stretch.size
        self._memory = np.zeros(size)

    def begin(self, row: int) -> None:
        """Take note of the start of an episode, after the reset of simulation ``row``."""
        x = self._rows[row].simulation
        self._fixed[row] = x._target_pos, x.init_tcp
        self._rows[row].begin()

    def __call__(self, effort: npt.NDArray[np.float32]) -> None:
        """Look at all simulations after a step with ``effort`` (M,) of closing the gripper: see the attributes."""
        reading, points = self._reading, self._points
        np.concatenate(self._stretches, out=self._memory)
        self._memory.take(self._places, out=reading)
        self.frames = frames = np.zeros((len(reading), 18))
        hands = frames[:, :3] = self.hands
        np.minimum(np.maximum(hands, _HAND_LOW), _HAND_HIGH, out=hands)
        points[:, TIPS] += points[:, _LEFT_TIP]
        points[:, TIPS] /= 2.0
        points[:, OBJECT : OTHER + 1] += self._shift
        frames[:, 4:7] = points[:, OBJECT]

        spans = reading.take(self._a)
        spans -= reading.take(self._b)
        spans -= self._offset
        spans *= self._scale
        distances = norm(spans)
        np.minimum(distances[:, 3] / 0.1, 1.0, out=frames[:, 3])

        frames[:, 7:11] = reading[:, _TURN.start : _TURN.start + 4]
        if self._turned:
            frames[self._turned, 7:11] = [quaternion(matrix) for matrix in reading[self._turned, _TURN].tolist()]
        seen = reading[:, _SCORED].tolist(), frames[:, 3].tolist(), effort.tolist(), distances.tolist()
        outcomes = [row.judge(*numbers) for row, *numbers in zip(self._rows, *seen, strict=True)]
        self.table = np.array(outcomes, dtype=np.float64).reshape(-1, 2 + len(INFO)).T
