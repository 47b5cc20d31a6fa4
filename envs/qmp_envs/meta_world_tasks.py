"""The ten tasks of MT10, reward version 2: what is measured in each, and how that becomes a reward.

The formulas are Meta-World's, for many rows at once; the order of additions is too, for the last digit.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias

import numpy as np

from qmp_envs.meta_world_formulas import EFFORT_TYPE, LEAST_MARGIN, Floats, both, some, with_effort, within

if TYPE_CHECKING:
    from qmp_envs.meta_world_judge import Judge

Triple: TypeAlias = tuple[float, float, float]

# The points that distances are measured between: the object whose position is observed, another one that the task
# looks at (the head of the peg; the door behind its handle), the goal, the fingertips at the start of the episode.
HAND, TIPS, OBJECT, OTHER, GOAL, START = range(6)
_ALL, _PLANE, _X, _Z, _FLAT = (1.0, 1.0, 1.0), (1.0, 0.0, 1.0), (1.0, 0.0, 0.0), (0.0, 0.0, 1.0), (1.0, 1.0, 0.0)
_NOWHERE: Triple = (0.0, 0.0, 0.0)


class _Span(NamedTuple):
    """Length of ``((a - b) - offset) * scale``."""

    a: int
    b: int
    scale: Triple = _ALL
    offset: Triple = _NOWHERE


_TO_OBJECT, _TO_GOAL = _Span(OBJECT, TIPS), _Span(OBJECT, GOAL)
_GRASP = _Span(TIPS, OBJECT, _PLANE)


class Task(NamedTuple):
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
    closing = some(judge.effort[rows] > 0)
    closed, approached, at_goal = np.maximum(judge.effort[rows], 0.0), judge.approached[rows], judge.at_goal[rows]
    rewards = with_effort(closing, lambda a, b, c: 10.0 * both(both(a, b), c), approached, closed, at_goal)
    judge.rewards[rows] = np.where(judge.success[rows], 10.0, rewards)
    judge.told["grasp_reward"][rows] = with_effort(closing, both, approached, closed)


def _button(judge: Judge, rows: slice) -> None:
    """Go there with closed fingers, then press."""
    at = judge.to_object[rows] <= 0.03
    rewards = 5.0 * both(1.0 - judge.opening[rows], judge.approached[rows])
    judge.rewards[rows] = np.where(at, rewards + 5.0 * judge.at_goal[rows], rewards)
    judge.told["grasp_success"][rows] = judge.opening[rows] > 0


def _window(judge: Judge, rows: slice) -> None:
    judge.rewards[rows] = 10.0 * both(judge.approached[rows], judge.at_goal[rows])


_DOOR_HIGH = np.array([(0.01,), (0.5,)])


def door(judge: Judge, rows: slice) -> None:
    """Come down behind the handle, inside a funnel and with closed fingers, and swing the door."""
    height, radius, angle = judge.points[rows, HAND, 2], judge.third[rows], judge.angles()
    floor = np.where(radius <= 0.12, 0.0, 0.04 * np.log(np.maximum(radius - 0.12, LEAST_MARGIN)) + 0.4)
    low, far_open = within(
        np.array((floor - height, np.pi / 2.0 + np.pi / 6 + angle)),
        0.0,
        _DOOR_HIGH,
        np.array((floor / 2.0, np.full_like(floor, np.pi / 3.0))),
    )
    ready = both(np.where(height >= floor, 1.0, low), judge.approached[rows])
    grasp = ((judge.effort[rows].astype(EFFORT_TYPE) + 1.0) / 2.0).astype(np.float64)
    opened = 0.2 * (angle < -np.pi / 90.0) + 0.8 * far_open
    judge.rewards[rows] = np.where(judge.success[rows], 10.0, 2.0 * both(ready, grasp) + 8.0 * opened)
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
    pads, y = judge.pads[rows], judge.points[rows, OBJECT, 1]
    to_object, at_goal, opening = judge.to_object[rows], judge.at_goal[rows], judge.opening[rows]
    gaps = pads - y[:, None]
    sides = within(
        np.where(signed[:, None], gaps * (1.0, -1.0), np.abs(gaps)),
        low[:, None],
        high[:, None],
        np.abs(np.abs(pads - np.where(signed, y, judge.object_start[rows, 1])[:, None]) - high[:, None]),
    )
    caging = both(both(sides[:, 0], sides[:, 1]), judge.approached[rows])
    grip = np.where(caging > 0.97, np.maximum(judge.effort[rows], 0.0), 0.0)
    gripping = grip > 0
    grasp = with_effort(some(gripping), lambda a, b: (both(a, b) + a) / 2.0, caging, grip)

    over, start = judge.points[rows, OBJECT, 2], judge.object_start[rows, 2]
    up = (opening > 0) & (over - 0.01 > start)
    held = (to_object < hold) & np.where(lift, up, opening > 0)
    if judge.boxes.size:
        at_goal = judge.outside(rows, at_goal, gripping)
        grasp = np.where(held & peg, 1.0, grasp)
        gripping &= ~(held & peg)
    rewards = with_effort(some(gripping), _carry, grasp, at_goal, 5.0 * at_goal, 1.0 + 5.0 * at_goal, held, lift)
    done = np.where(peg, judge.success[rows], judge.to_goal[rows] < 0.05)
    judge.rewards[rows] = np.where(done, 10.0, rewards)
    judge.told["grasp_reward"][rows], judge.told["in_place_reward"][rows] = grasp, at_goal
    judge.told["grasp_success"][rows] = np.where(peg, (to_object < 0.02) & up, up & (over - 0.02 > start))
    for row in np.flatnonzero(judge.told["grasp_success"][rows] * ~peg):  # few objects at a time are up
        touching = judge.simulations[rows.start + row].touching_main_object
        judge.told["grasp_success"][rows.start + row] = touching


def _carry(grasp: Floats, at_goal: Floats, five: Floats, six: Floats, held: Any, lift: Any) -> Floats:
    """Rewards: a push counts how well the object is grasped, what has to be lifted counts where it is as well."""
    base = np.where(lift > 0, both(grasp, at_goal), 2.0 * grasp)
    rewards: Floats = np.where(held > 0, base + np.where(lift > 0, six, 1.0 + base + five), base)
    return rewards


def button_margins(x: Any) -> tuple[float, float]:
    return 1.0, x._obj_to_target_init  # the first one changes with the button


def _object_task(score: Callable[[Judge, slice], None], **changed: Any) -> Task:
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
    return Task(score, **facts | changed)


_HANDLE = (0.0, -0.16, 0.0)  # of the drawer

TASKS: dict[str, Task] = {
    "reach-v3": _object_task(
        _reach,
        goal=_Span(TIPS, GOAL),
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
        goal=_Span(OTHER, GOAL, (1.0, 2.0, 2.0)),
        reached=0.07,
        success=0.07,
        margins=lambda x: (_plane_margin(x), _distance(x.peg_head_pos_init, x._target_pos, 1.0, 2.0, 2.0)),
    ),
    "door-open-v3": Task(
        door,
        ("geom_xpos", "handle"),
        _NOWHERE,
        ("geom_xmat", "handle"),
        approach=_Span(HAND, OTHER, _ALL, (0.05, 0.03, -0.01)),
        near=0.06,
        goal=_Span(OBJECT, GOAL, _X),
        reached=0.0,
        third=_Span(HAND, OTHER, _FLAT),
        success=0.08,
        near_object=0.0,
        other=("geom_xpos", "handle"),
        other_shift=(-0.05, 0.0, 0.0),
        margins=lambda x: (0.5, 1.0),
    ),
    "drawer-open-v3": Task(
        _drawer_open,
        ("xpos", "drawer_link"),
        _HANDLE,
        ("xquat", "drawer_link"),
        approach=_Span(OBJECT, HAND, (3.0, 3.0, 1.0)),
        near=0.01,
        goal=_TO_GOAL,
        reached=0.02,
        third=_Span(OBJECT, HAND),
        success=0.03,
        near_object=0.03,
        by_third=True,
        margins=lambda x: (_distance(np.add(x._target_pos, (0.0, 0.2, 0.0)), x.init_tcp, 3.0, 3.0, 1.0), 0.2),
    ),
    "drawer-close-v3": Task(
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
    "button-press-topdown-v3": Task(
        _button,
        ("xpos", "button"),
        (0.0, 0.0, 0.193),
        ("xquat", "button"),
        approach=_TO_OBJECT,
        near=0.01,
        goal=_Span(GOAL, OBJECT, _Z),
        reached=0.005,
        third=_Span(OBJECT, START),
        success=0.024,
        near_object=0.05,
        margins=button_margins,
    ),
    **{
        f"window-{way}-v3": Task(
            _window,
            ("site_xpos", f"handle{way.title()}Start"),
            _NOWHERE,
            None,
            approach=_TO_OBJECT,
            near=0.02,
            gaussian=way == "close",
            goal=_Span(OBJECT, GOAL, _X),
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
