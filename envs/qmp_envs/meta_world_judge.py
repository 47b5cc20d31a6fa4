"""Meta-World's tasks judged many rows at once: observations, rewards, success as expressions over arrays.

The ten tasks of MT10, reward version 2. The numbers are those of Meta-World's own Python bit for bit, which decides how
some of this is written: in which order terms are added, that squares are taken by the C library's ``pow``, and that
what a gripper's effort enters is single precision, as actions are.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import groupby
from typing import Any, NamedTuple, TypeAlias

import numpy as np
import numpy.typing as npt

from qmp_envs.meta_world import INFO
from qmp_envs.sawyer import Sawyer

Floats: TypeAlias = npt.NDArray[np.floating[Any]]
Bools: TypeAlias = npt.NDArray[np.bool_]
Triple: TypeAlias = tuple[float, float, float]

# ---------------------------------------------------------------------- shared expressions

# of a Python float times a float32, which is what Meta-World computes with where an action enters
_EFFORT_TYPE = type(1.0 * np.float32(1.0))
_LEAST_MARGIN = 1e-300  # instead of 0, to divide by; nothing comes as near to 0 without being it, here and
_LEAST_SUM = 1e-37  # here
_GAUSSIAN_SCALE = np.sqrt(-2 * np.log(0.1))


def _norm(vectors: Floats) -> Floats:
    """Lengths (...) of vectors (..., 3), rounded as `numpy.linalg.norm` of one rounds."""
    lengths: Floats = np.sqrt(np.matmul(vectors[..., None, :], vectors[..., None])[..., 0, 0])
    return lengths


def _square(values: Floats) -> Floats:
    squares: Floats = np.float_power(values, 2.0)
    return squares


def _long_tail(excess: Floats) -> Floats:
    """1 at 0, 0.1 at 1."""
    tail: Floats = 1.0 / (_square(excess * 3.0) + 1.0)
    return tail


def _gaussian(excess: Floats) -> Floats:
    """1 at 0, 0.1 at 1, and sooner at 0 than `_long_tail`."""
    tail: Floats = np.exp(-0.5 * _square(excess * _GAUSSIAN_SCALE))
    return tail


def _within(x: Floats, low: Floats | float, high: Floats | float, margin: Floats | float) -> Floats:
    """1 from ``low`` to ``high``, outside falling with a long tail, 0.1 at ``margin`` from there."""
    excess = np.maximum(np.maximum(low - x, x - high), 0.0) / np.maximum(margin, _LEAST_MARGIN)
    return _long_tail(excess)


def _both(a: Floats, b: Floats) -> Floats:
    """Hamacher product, a smooth "and" of numbers in [0, 1]."""
    product = a * b
    both: Floats = product / np.maximum(a + b - product, _LEAST_SUM)
    return both


def _effort(rows: Bools | None, formula: Callable[..., Floats], *values: Floats | Bools) -> Floats:
    """``formula`` of float64 ``values``, but for ``rows`` (None: for none) with an action's precision."""
    result = formula(*values)
    if rows is not None:
        result[rows] = formula(*(value[rows].astype(_EFFORT_TYPE) for value in values))
    return result


def _some(rows: Bools) -> Bools | None:
    return rows if rows.any() else None


def _quaternions(matrices: Floats) -> Floats:
    """Rotations (M, 9) as quaternions (M, 4), x y z w, as `scipy.spatial.transform.Rotation` computes them."""
    m = len(matrices)
    largest = np.empty((m, 4))
    largest[:, :3] = matrices[:, ::4]
    largest[:, 3] = trace = largest[:, 0] + largest[:, 1] + largest[:, 2]
    choice = largest.argmax(axis=1)
    one, other = matrices.reshape(-1).take(9 * np.arange(m)[:, None] + _ENTRIES[choice]).reshape(m, 2, 4).swapaxes(0, 1)
    quaternions = one + _SIGN[choice] * other
    chosen = (np.arange(m), choice)
    trace_sign, diagonal = _CHOSEN[choice].T
    quaternions[chosen] = 1.0 + trace_sign * trace + diagonal * largest[chosen]
    normalized: Floats = quaternions / np.sqrt((quaternions * quaternions).sum(axis=1, keepdims=True))
    return normalized


# Which is the largest of x, y, z, w: to that, the others are as sums or differences of two entries of the matrix, and
# itself as 1 plus the trace, or 1 minus the trace and plus twice its entry.
_ENTRIES = np.array(
    [
        (0, 3, 6, 7, 0, 1, 2, 5),
        (3, 0, 7, 2, 1, 0, 5, 6),
        (6, 7, 0, 3, 2, 5, 0, 1),
        (7, 2, 3, 0, 5, 6, 1, 0),
    ]
)
_SIGN = np.array([(1, 1, 1, -1), (1, 1, 1, -1), (1, 1, 1, -1), (-1, -1, -1, 1)], dtype=np.float64)
_CHOSEN = np.array([(-1, 2), (-1, 2), (-1, 2), (1, 0)], dtype=np.float64)


# ---------------------------------------------------------------------- tasks

# The points that distances are measured between: the object whose position is observed, another one that the task
# looks at (the head of the peg; the door behind its handle), the goal, the fingertips at the start of the episode.
_HAND, _TIPS, _OBJECT, _OTHER, _GOAL, _START = range(6)
_ALL, _PLANE, _X, _Z, _FLAT = (1.0, 1.0, 1.0), (1.0, 0.0, 1.0), (1.0, 0.0, 0.0), (0.0, 0.0, 1.0), (1.0, 1.0, 0.0)
_NOWHERE: Triple = (0.0, 0.0, 0.0)


class _Span(NamedTuple):
    """Length of ``((a - b) - offset) * scale``."""

    a: int
    b: int
    scale: Triple = _ALL
    offset: Triple = _NOWHERE


_TO_OBJECT, _TO_GOAL = _Span(_OBJECT, _TIPS), _Span(_OBJECT, _GOAL)
_GRASP = _Span(_TIPS, _OBJECT, _PLANE)


class _Task(NamedTuple):
    """One task.

    Attributes:
        score: fills in rewards, and what differs from the defaults of `Judge`, for the rows of such tasks.
        object: array of MuJoCo's data and name of what is observed.
        shift: from there to the observed position.
        turn: the same of its orientation, a matrix or a quaternion; None: zeros are observed.
        other: of the other point of interest.
        other_shift: the same as ``shift``.
        approach: distance of hand and object, or whatever stands for it, and
        near: up to where it is perfect.
        goal: distance of object and goal, or whatever stands for it, and
        reached: up to where it is perfect.
        third: one more distance.
        success: the largest distance to the goal that is a success.
        grasp: None: nothing is to be grasped.
        near_object: the largest ``third`` distance (`by_third`) or ``approach`` that is told to be near.
        margins: of approach and goal, from the attributes of Meta-World's class after a reset.
        gaussian: approach falls off as a bell.
    """

    score: Callable[[Judge, slice], None]
    object: tuple[str, str]
    shift: Triple
    turn: tuple[str, str] | None
    approach: _Span
    near: float
    goal: _Span
    reached: float
    third: _Span
    success: float
    near_object: float
    margins: Callable[[Any], tuple[float, float]]
    by_third: bool = False
    gaussian: bool = False
    grasp: _Grasp | None = None
    other: tuple[str, str] | None = None
    other_shift: Triple = _NOWHERE


def _distance(a: Any, b: Any, *scale: float) -> float:
    return float(np.linalg.norm((a - b) * scale if scale else a - b))


def _plane_margin(x: Any) -> float:
    return _distance(x.obj_init_pos[[0, 2]], x.init_tcp[[0, 2]]) - 0.005


def _reach(judge: Judge, rows: slice) -> None:
    judge.rewards[rows] = 10.0 * judge.at_goal[rows]
    judge.told["near_object"][rows] = judge.told["grasp_reward"][rows] = judge.to_goal[rows]


def _drawer_open(judge: Judge, rows: slice) -> None:
    judge.rewards[rows] = 5.0 * (judge.approached[rows] + judge.at_goal[rows])
    judge.told["grasp_success"][rows] = judge.opening[rows] > 0


def _drawer_close(judge: Judge, rows: slice) -> None:
    """With closed fingers to the handle, and push."""
    closing = _some(judge.effort[rows] > 0)
    closed, approached, at_goal = np.maximum(judge.effort[rows], 0.0), judge.approached[rows], judge.at_goal[rows]
    rewards = _effort(closing, lambda a, b, c: 10.0 * _both(_both(a, b), c), approached, closed, at_goal)
    judge.rewards[rows] = np.where(judge.success[rows], 10.0, rewards)
    judge.told["grasp_reward"][rows] = _effort(closing, _both, approached, closed)


def _button(judge: Judge, rows: slice) -> None:
    """Go there with closed fingers, then press."""
    at = judge.to_object[rows] <= 0.03
    rewards = 5.0 * _both(1.0 - judge.opening[rows], judge.approached[rows])
    judge.rewards[rows] = np.where(at, rewards + 5.0 * judge.at_goal[rows], rewards)
    judge.told["grasp_success"][rows] = judge.opening[rows] > 0


def _window(judge: Judge, rows: slice) -> None:
    judge.rewards[rows] = 10.0 * _both(judge.approached[rows], judge.at_goal[rows])


_DOOR_HIGH = np.array([(0.01,), (0.5,)])


def _door(judge: Judge, rows: slice) -> None:
    """Come down behind the handle, inside a funnel and with closed fingers, and swing the door."""
    height, radius, angle = judge.points[rows, _HAND, 2], judge.third[rows], judge.angles()
    floor = np.where(radius <= 0.12, 0.0, 0.04 * np.log(np.maximum(radius - 0.12, _LEAST_MARGIN)) + 0.4)
    low, far_open = _within(
        np.array((floor - height, np.pi / 2.0 + np.pi / 6 + angle)),
        0.0,
        _DOOR_HIGH,
        np.array((floor / 2.0, np.full_like(floor, np.pi / 3.0))),
    )
    ready = _both(np.where(height >= floor, 1.0, low), judge.approached[rows])
    grasp = ((judge.effort[rows].astype(_EFFORT_TYPE) + 1.0) / 2.0).astype(np.float64)
    opened = 0.2 * (angle < -np.pi / 90.0) + 0.8 * far_open
    judge.rewards[rows] = np.where(judge.success[rows], 10.0, 2.0 * _both(ready, grasp) + 8.0 * opened)
    told = judge.told
    told["near_object"][rows], told["grasp_reward"][rows], told["in_place_reward"][rows] = ready, grasp, opened
    told["grasp_success"][rows], told["obj_to_target"][rows] = grasp >= 0.5, 0.0


class _Grasp(NamedTuple):
    """What is different between the tasks in which a loose object is grasped.

    Attributes:
        low, high: between what the gaps of the pads and the object shall be.
        signed: the gaps are signed, and their tolerance is not of the object's start but of now.
        hold: how far from the fingertips the object may be to be held.
        lift: to be held it has to be off the table.
        peg: it may not go through the box around the hole, and held is grasped.
    """

    low: float
    high: float
    signed: bool
    hold: float
    lift: bool
    peg: bool


def _grasp(judge: Judge, rows: slice) -> None:
    """Enclose the object with the pads, grip it, and have it near the goal."""
    low, high, signed, hold, lift, peg = judge.grasp
    pads, y = judge.pads[rows], judge.points[rows, _OBJECT, 1]
    to_object, at_goal, opening = judge.to_object[rows], judge.at_goal[rows], judge.opening[rows]
    gaps = pads - y[:, None]
    sides = _within(
        np.where(signed[:, None], gaps * (1.0, -1.0), np.abs(gaps)),
        low[:, None],
        high[:, None],
        np.abs(np.abs(pads - np.where(signed, y, judge.object_start[rows, 1])[:, None]) - high[:, None]),
    )
    caging = _both(_both(sides[:, 0], sides[:, 1]), judge.approached[rows])
    grip = np.where(caging > 0.97, np.maximum(judge.effort[rows], 0.0), 0.0)
    gripping = grip > 0
    grasp = _effort(_some(gripping), lambda a, b: (_both(a, b) + a) / 2.0, caging, grip)

    over, start = judge.points[rows, _OBJECT, 2], judge.object_start[rows, 2]
    up = (opening > 0) & (over - 0.01 > start)
    held = (to_object < hold) & np.where(lift, up, opening > 0)
    if judge.boxes.size:
        at_goal = judge.outside(rows, at_goal, gripping)
        grasp = np.where(held & peg, 1.0, grasp)
        gripping &= ~(held & peg)
    rewards = _effort(_some(gripping), _carry, grasp, at_goal, 5.0 * at_goal, 1.0 + 5.0 * at_goal, held, lift)
    done = np.where(peg, judge.success[rows], judge.to_goal[rows] < 0.05)
    judge.rewards[rows] = np.where(done, 10.0, rewards)
    judge.told["grasp_reward"][rows], judge.told["in_place_reward"][rows] = grasp, at_goal
    judge.told["grasp_success"][rows] = np.where(peg, (to_object < 0.02) & up, up & (over - 0.02 > start))
    for row in np.flatnonzero(judge.told["grasp_success"][rows] * ~peg):  # few objects at a time are up
        touching = judge.simulations[rows.start + row].touching_main_object
        judge.told["grasp_success"][rows.start + row] = touching


def _carry(grasp: Floats, at_goal: Floats, five: Floats, six: Floats, held: Any, lift: Any) -> Floats:
    """Rewards: a push counts how well the object is grasped, what has to be lifted counts where it is as well."""
    base = np.where(lift > 0, _both(grasp, at_goal), 2.0 * grasp)
    rewards: Floats = np.where(held > 0, base + np.where(lift > 0, six, 1.0 + base + five), base)
    return rewards


def _button_margins(x: Any) -> tuple[float, float]:
    return 1.0, x._obj_to_target_init  # the first one changes with the button


def _object_task(score: Callable[[Judge, slice], None], **changed: Any) -> _Task:
    """One of the tasks in which a loose object is grasped."""
    facts: dict[str, Any] = {
        "object": ("xpos", "obj"),
        "shift": _NOWHERE,
        "turn": ("geom_xmat", "objGeom"),
        "approach": _GRASP,
        "near": 0.005,
        "goal": _TO_GOAL,
        "reached": 0.05,
        "third": _TO_OBJECT,
        "success": 0.05,
        "near_object": 0.03,
        "by_third": True,
        "margins": lambda x: (_plane_margin(x), _distance(x.obj_init_pos, x._target_pos)),
    }
    return _Task(score, **facts | changed)


_HANDLE = (0.0, -0.16, 0.0)  # of the drawer

TASKS: dict[str, _Task] = {
    "reach-v3": _object_task(
        _reach,
        goal=_Span(_TIPS, _GOAL),
        margins=lambda x: (1.0, _distance(x.hand_init_pos, x._target_pos)),
    ),
    "push-v3": _object_task(_grasp, grasp=_Grasp(0.015, 0.05, False, hold=0.02, lift=False, peg=False)),
    "pick-place-v3": _object_task(
        _grasp,
        grasp=_Grasp(0.015, 0.05, True, hold=0.02, lift=True, peg=False),
        success=0.07,
    ),
    "peg-insert-side-v3": _object_task(
        _grasp,
        grasp=_Grasp(0.0075, 0.03, False, hold=0.08, lift=True, peg=True),
        object=("site_xpos", "pegGrasp"),
        turn=("site_xmat", "pegGrasp"),
        other=("site_xpos", "pegHead"),
        goal=_Span(_OTHER, _GOAL, (1.0, 2.0, 2.0)),
        reached=0.07,
        success=0.07,
        margins=lambda x: (_plane_margin(x), _distance(x.peg_head_pos_init, x._target_pos, 1.0, 2.0, 2.0)),
    ),
    "door-open-v3": _Task(
        _door,
        ("geom_xpos", "handle"),
        _NOWHERE,
        ("geom_xmat", "handle"),
        approach=_Span(_HAND, _OTHER, _ALL, (0.05, 0.03, -0.01)),
        near=0.06,
        goal=_Span(_OBJECT, _GOAL, _X),
        reached=0.0,
        third=_Span(_HAND, _OTHER, _FLAT),
        success=0.08,
        near_object=0.0,
        other=("geom_xpos", "handle"),
        other_shift=(-0.05, 0.0, 0.0),
        margins=lambda x: (0.5, 1.0),
    ),
    "drawer-open-v3": _Task(
        _drawer_open,
        ("xpos", "drawer_link"),
        _HANDLE,
        ("xquat", "drawer_link"),
        approach=_Span(_OBJECT, _HAND, (3.0, 3.0, 1.0)),
        near=0.01,
        goal=_TO_GOAL,
        reached=0.02,
        third=_Span(_OBJECT, _HAND),
        success=0.03,
        near_object=0.03,
        by_third=True,
        margins=lambda x: (_distance(np.add(x._target_pos, (0.0, 0.2, 0.0)), x.init_tcp, 3.0, 3.0, 1.0), 0.2),
    ),
    "drawer-close-v3": _Task(
        _drawer_close,
        ("xpos", "drawer_link"),
        (0.0, -0.16, 0.05),
        None,
        approach=_TO_OBJECT,
        near=0.005,
        gaussian=True,
        goal=_TO_GOAL,
        reached=0.05,
        third=_TO_OBJECT,
        success=0.05 + 0.015,
        near_object=0.01,
        margins=lambda x: (
            abs(_distance(x.obj_init_pos, x.init_tcp) - 0.005),
            abs(_distance(x.obj_init_pos, x._target_pos) - 0.05),
        ),
    ),
    "button-press-topdown-v3": _Task(
        _button,
        ("xpos", "button"),
        (0.0, 0.0, 0.193),
        ("xquat", "button"),
        approach=_TO_OBJECT,
        near=0.01,
        goal=_Span(_GOAL, _OBJECT, _Z),
        reached=0.005,
        third=_Span(_OBJECT, _START),
        success=0.024,
        near_object=0.05,
        margins=_button_margins,
    ),
    **{
        f"window-{way}-v3": _Task(
            _window,
            ("site_xpos", f"handle{way.title()}Start"),
            _NOWHERE,
            None,
            approach=_TO_OBJECT,
            near=0.02,
            gaussian=way == "close",
            goal=_Span(_OBJECT, _GOAL, _X),
            reached=0.05,
            third=_TO_OBJECT,
            success=0.05,
            near_object=0.05,
            margins=margins,
        )
        for way, margins in (
            ("open", lambda x: _window_margins(x, x.obj_init_pos[0])),
            ("close", lambda x: _window_margins(x, x.window_handle_pos_init[0])),
        )
    },
}


def _window_margins(x: Any, start: float) -> tuple[float, float]:
    to_object = _distance(x.window_handle_pos_init, x.init_tcp)
    return abs(to_object - 0.02), abs(abs(start - float(x._target_pos[0])) - 0.05)


# ---------------------------------------------------------------------- rows

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
        self._third_margin = np.flatnonzero([task.margins is _button_margins for task in tasks])
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
            x.data.joint("doorjoint").qpos for x, task in zip(simulations, tasks, strict=True) if task.score is _door
        ]
        self.table = np.zeros((2 + len(INFO), m))
        self.rewards = self.table[0]
        self.told = dict(zip(INFO, self.table[2:], strict=True))
        self.points = np.zeros((m, 6, 3))
        self.object_start = np.zeros((m, 3))
        self.boxes = np.zeros((len(self._pegs), 2, 2, 3))

    def _read(self, tasks: list[_Task]) -> None:
        """Find what is read of each simulation: whole arrays of MuJoCo's memory, and the places in them."""
        self._arrays: list[npt.NDArray[np.float64]] = [np.zeros(9)]
        places = []
        size = 9
        for x, task in zip(self.simulations, tasks, strict=True):
            start = {}
            where: list[int] = []
            for field, name in (*_SEEN, task.object, task.other or task.object, *([task.turn] if task.turn else ())):
                if field not in start:
                    array = getattr(x.data, field)
                    start[field] = size
                    self._arrays.append(array.reshape(-1))
                    size += array.size
                kind = {"x": x.model.body, "s": x.model.site, "g": x.model.geom}[field[0]]
                width = {"pos": 3, "mat": 9, "uat": 4}[field[-3:]]
                where += range(start[field] + width * kind(name).id, start[field] + width * (kind(name).id + 1))
            places.append(where + [0] * (_NUMBERS - len(where)))
        self._places = np.array(places)
        self._memory = np.zeros(size)

    def begin(self, row: int) -> None:
        """Take note of the start of an episode, after the reset of simulation ``row``."""
        x: Any = self.simulations[row]
        self.points[row, _GOAL], self.points[row, _START] = x._target_pos, x.init_tcp
        self.object_start[row] = x.obj_init_pos
        self._margins[:, row] = np.maximum(self._margin_functions[row](x), _LEAST_MARGIN)
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
        return self.points[:, _HAND]

    def angles(self) -> npt.NDArray[np.float64]:
        """Of the hinges of the doors, rad."""
        return np.concatenate(self._hinges)

    def outside(self, rows: slice, at_goal: Floats, gripping: Bools) -> Floats:
        """How near to the goal the objects of ``rows`` are, the less the farther a peg's head is inside of the box.

        Where it is, ``gripping`` becomes False, as nothing else there has an action's precision.
        """
        pegs = slice(min(self._pegs) - rows.start, max(self._pegs) + 1 - rows.start)
        head = self.points[rows][pegs, _OTHER, None]
        zero, one = self.boxes[:, :, 0], self.boxes[:, :, 1]
        inside: Any = ((np.minimum(zero, one) <= head) & (head <= np.maximum(zero, one))).all(axis=2)
        free: Floats = np.ones(len(self._pegs))
        if inside.any():
            part = (head - zero) / (one - zero)
            parts = np.where(inside, part[..., 0] * part[..., 1] * part[..., 2], 1.0)
            free = _both(parts[:, 1], parts[:, 0])
            gripping[pegs] &= ~np.logical_or(inside[:, 0], inside[:, 1])
        at_goal = at_goal.copy()
        at_goal[pegs] = _both(at_goal[pegs], free)  # with 1, this may change the last digit
        return at_goal

    def _look(self, effort: npt.NDArray[np.float32]) -> None:
        reading, points = self._reading, self.points
        np.concatenate(self._arrays, out=self._memory)
        self._memory.take(self._places, out=reading)
        self.effort = effort.astype(np.float64)
        self.frames = frames = np.zeros((len(reading), 18))
        frames[:, :3] = reading[:, :3]
        self.opening = frames[:, 3]
        np.minimum(_norm(reading[:, 3:6] - reading[:, 6:9]) / 0.1, 1.0, out=self.opening)
        frames[:, 4:7] = reading[:, 21:24] + self._shift
        if self._quaternions.size:
            frames[self._quaternions, 7:11] = reading[self._quaternions, 27:31]
        if self._matrices.size:
            frames[self._matrices, 7:11] = _quaternions(reading[self._matrices, 27:])
        self.pads = reading[:, [16, 19]]
        points[:, _HAND] = np.minimum(np.maximum(reading[:, :3], _HAND_LOW), _HAND_HIGH)
        points[:, _TIPS] = (reading[:, 9:12] + reading[:, 12:15]) / 2.0
        points[:, _OBJECT] = frames[:, 4:7]
        points[:, _OTHER] = reading[:, 24:27] + self._other_shift

    def _measure(self) -> None:
        points = self.points.reshape(-1, 3)
        distances = _norm((points[self._a] - points[self._b] - self._offset) * self._scale).T
        _, self.to_goal, self.third = distances
        self.to_object = distances[self._nearness, self._rows]
        if self._third_margin.size:
            self._margins[0, self._third_margin] = self.third[self._third_margin]
        excess = np.maximum(distances[:2] - self._perfect, 0.0) / self._margins
        values = _long_tail(excess)
        if self._gaussian.size:
            values[0, self._gaussian] = _gaussian(excess[0, self._gaussian])
        self.approached, self.at_goal = values
        self.success = self.to_goal <= self._success
        told = self.told
        told["near_object"][:] = self.to_object <= self._near_object
        told["grasp_success"][:] = 1.0
        told["grasp_reward"][:], told["in_place_reward"][:] = values
        told["obj_to_target"][:] = self.to_goal
        self.table[1] = self.success
