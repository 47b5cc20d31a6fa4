"""The ten tasks of MT10, reward version 2: what is measured in each, and how that becomes a reward.

The formulas are Meta-World's; the order of additions is too, for the last digit. A score is one row's: on plain numbers
it takes some microseconds, a few hundredths of the row's physics. On arrays of the rows of a task it would be dozens of
operations of some microseconds each.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias

import numpy as np

from qmp_envs.meta_world_formulas import EFFORT_TYPE, both, closing, gaussian, long_tail, within

if TYPE_CHECKING:
    from qmp_envs.meta_world_judge import Row

Triple: TypeAlias = tuple[float, float, float]
Outcome: TypeAlias = tuple[float, bool, float, float, float, float, float]  # reward, success, each key of `INFO`

# The points that distances are measured between, of which a score sees the first five: the object whose position is
# observed, another one that the task looks at (the head of the peg; the door behind its handle), the gripper's pads,
# the middle between the fingertips, the goal, the fingertips at the start of the episode.
HAND, OBJECT, OTHER, LEFT_PAD, RIGHT_PAD, TIPS, GOAL, START = range(8)
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
        score: what is told of a step.
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
        near_object: the largest ``third`` distance (`by_third`) or ``approach`` that is told to be near.
        margins: of approach (None: the ``third`` distance) and goal, from the attributes of Meta-World's class after
            a reset.
        tail: how approach falls off.
        joint: one whose position is looked at.
        boxes: names of sites at opposite corners of boxes that an object may not go through.
    """

    score: Callable[[Row], Outcome]
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
    margins: Callable[[Any], tuple[float | None, float]]
    by_third: bool = False
    tail: Callable[[float], float] = long_tail
    other: tuple[str, str] | None = None
    other_shift: Triple = _NOWHERE
    joint: str | None = None
    boxes: tuple[tuple[str, str], ...] = ()


def _distance(a: Any, b: Any, *scale: float) -> float:
    return float(np.linalg.norm((a - b) * scale if scale else a - b))


def _plane_margin(x: Any) -> float:
    return _distance(x.obj_init_pos[[0, 2]], x.init_tcp[[0, 2]]) - 0.005


def _reach(row: Row) -> Outcome:
    return 10.0 * row.at_goal, row.success, row.to_goal, 1.0, row.to_goal, row.at_goal, row.to_goal


def _drawer_open(row: Row) -> Outcome:
    reward = 5.0 * (row.approached + row.at_goal)
    return reward, row.success, row.near, row.opening > 0.0, row.approached, row.at_goal, row.to_goal


def _drawer_close(row: Row) -> Outcome:
    """With closed fingers to the handle, and push."""
    grasp = both(row.approached, closing(row.effort))
    reward = 10.0 if row.success else 10.0 * both(grasp, row.at_goal)
    return reward, row.success, row.near, 1.0, grasp, row.at_goal, row.to_goal


def _button(row: Row) -> Outcome:
    """Go there with closed fingers, then press."""
    reward = 5.0 * both(1.0 - row.opening, row.approached)
    if row.to_object <= 0.03:
        reward += 5.0 * row.at_goal
    return reward, row.success, row.near, row.opening > 0.0, row.approached, row.at_goal, row.to_goal


def _window(row: Row) -> Outcome:
    reward = 10.0 * both(row.approached, row.at_goal)
    return reward, row.success, row.near, 1.0, row.approached, row.at_goal, row.to_goal


def _door(row: Row) -> Outcome:
    """Come down behind the handle, inside a funnel and with closed fingers, and swing the door."""
    height, radius, angle = row.point(HAND)[2], row.third, row.joint.item()
    floor = 0.0 if radius <= 0.12 else 0.04 * float(np.log(radius - 0.12)) + 0.4
    above = 1.0 if height >= floor else within(floor - height, 0.0, 0.01, floor / 2.0)
    ready = both(above, row.approached)
    grasp = float((EFFORT_TYPE(row.effort) + 1.0) / 2.0)
    far_open = within(np.pi / 2.0 + np.pi / 6 + angle, 0.0, 0.5, np.pi / 3.0)
    opened = 0.2 * (angle < -np.pi / 90.0) + 0.8 * far_open
    reward = 10.0 if row.success else 2.0 * both(ready, grasp) + 8.0 * opened
    return reward, row.success, ready, grasp >= 0.5, grasp, opened, 0.0


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


def _grasp(task: _Grasp, row: Row) -> Outcome:
    """Enclose the object with the pads, grip it, and have it near the goal."""
    (_, y, over), (_, start_y, start), at_goal = row.point(OBJECT), row.object_start, row.at_goal
    low, high, (left, right) = task.low, task.high, row.pads
    gaps, centre = ((left - y, y - right), y) if task.signed else ((abs(left - y), abs(right - y)), start_y)
    left_side = within(gaps[0], low, high, abs(abs(left - centre) - high))
    right_side = within(gaps[1], low, high, abs(abs(right - centre) - high))
    caging = both(both(left_side, right_side), row.approached)
    grasp = (both(caging, closing(row.effort) if caging > 0.97 else 0.0) + caging) / 2.0

    up = row.opening > 0.0 and over - 0.01 > start
    held = row.to_object < task.hold and (up if task.lift else row.opening > 0.0)
    done = row.to_goal < 0.05
    if task.peg:
        free, inside = _out_of(row.boxes, row.point(OTHER))
        at_goal = both(at_goal, free)  # with 1, this may change the last digit
        grasp = 1.0 if held else float(grasp) if inside else grasp  # inside, nothing has an action's precision
        grasped, done = row.to_object < 0.02 and up, row.success
    else:  # few objects at a time are up
        grasped = up and over - 0.02 > start and row.simulation.touching_main_object
    reward = both(grasp, at_goal) if task.lift else 2.0 * grasp
    if held:
        reward += 1.0 + 5.0 * at_goal if task.lift else 1.0 + reward + 5.0 * at_goal
    return 10.0 if done else reward, row.success, row.near, grasped, grasp, at_goal, row.to_goal


def _out_of(boxes: Sequence[Sequence[Sequence[float]]], head: Sequence[float]) -> tuple[float, bool]:
    """How far a peg's head is out of two boxes given by opposite corners, 0 to 1, and whether it is in one."""
    (x, y, z), parts, inside = head, [], False
    for (ax, ay, az), (bx, by, bz) in boxes:
        if min(ax, bx) <= x <= max(ax, bx) and min(ay, by) <= y <= max(ay, by) and min(az, bz) <= z <= max(az, bz):
            parts.append((x - ax) / (bx - ax) * ((y - ay) / (by - ay)) * ((z - az) / (bz - az)))
            inside = True
        else:
            parts.append(1.0)
    return both(parts[1], parts[0]), inside


def _object_task(score: Callable[[Row], Outcome], **changed: Any) -> Task:
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
    "push-v3": _object_task(partial(_grasp, _Grasp(0.015, 0.05, False, hold=0.02, lift=False, peg=False))),
    "pick-place-v3": _object_task(
        partial(_grasp, _Grasp(0.015, 0.05, True, hold=0.02, lift=True, peg=False)),
        success=0.07,
    ),
    "peg-insert-side-v3": _object_task(
        partial(_grasp, _Grasp(0.0075, 0.03, False, hold=0.08, lift=True, peg=True)),
        object=("site_xpos", "pegGrasp"),
        turn=("site_xmat", "pegGrasp"),
        other=("site_xpos", "pegHead"),
        goal=_Span(OTHER, GOAL, (1.0, 2.0, 2.0)),
        reached=0.07,
        success=0.07,
        margins=lambda x: (_plane_margin(x), _distance(x.peg_head_pos_init, x._target_pos, 1.0, 2.0, 2.0)),
        boxes=tuple(
            (f"bottom_right_corner_collision_box_{box}", f"top_left_corner_collision_box_{box}") for box in (1, 2)
        ),
    ),
    "door-open-v3": Task(
        _door,
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
        joint="doorjoint",
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
        tail=gaussian,
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
        margins=lambda x: (None, x._obj_to_target_init),
    ),
    **{
        f"window-{way}-v3": Task(
            _window,
            ("site_xpos", f"handle{way.title()}Start"),
            _NOWHERE,
            None,
            approach=_TO_OBJECT,
            near=0.02,
            tail=gaussian if way == "close" else long_tail,
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
