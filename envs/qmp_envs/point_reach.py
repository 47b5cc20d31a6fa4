"""Point reaching: one task in the plane, to look at behaviour sharing with. Paper: section 5.2, figures 4 and 5.

The paper gives start, goal and actions. Everything else is this module's choice: the box, the reward's scale, the
horizon, what counts as success, and the observation's scale.
"""

from __future__ import annotations

import math
from functools import cache
from typing import Any

import gymnasium as gym
import numpy as np
import numpy.typing as npt

from qmp_envs.drawing import Image, disc
from qmp_envs.single import SingleEnv
from qmp_envs.task_set import TaskSet
from qmp_envs.vector import Array, BatchedVectorEnv, Rows

SIDE = 10.0  # the point stays in [0, SIDE] x [0, SIDE]; it starts in one corner, its goal is the opposite one
GOAL = np.array([SIDE, SIDE])
GOAL_RADIUS = 0.5

# id -> task set
POINT_REACH: dict[str, TaskSet] = {
    "PointReach-v0": TaskSet(
        env_id="PointReach-v0",
        task_names=("top_right",),
        horizon=20,
        success_rule=f"the point is within {GOAL_RADIUS} of the goal; the episode goes on",
        min_reward=-1.0,
        reward_version="distance",
        source="start, goal and actions: paper section 5.2; the rest is not given there and chosen here",
        episode_metrics={"distance": "last"},
    )
}

CELL_PIXELS = 32
MARGIN = CELL_PIXELS
AGENT_COLOUR = (232, 83, 38)
START_COLOUR = (52, 120, 190)
GOAL_COLOUR = (38, 150, 96)
_PAPER, _FLOOR, _LINE, _WHITE = (232, 227, 216), (247, 244, 238), (226, 220, 208), (255, 255, 255)


def _pixel(position: npt.ArrayLike) -> tuple[float, float]:
    """Picture position (down, right) of a position (right, up)."""
    x, y = np.asarray(position)
    return MARGIN + float(SIDE - y) * CELL_PIXELS, MARGIN + float(x) * CELL_PIXELS


@cache
def _background() -> Image:
    inside = slice(MARGIN, MARGIN + round(SIDE) * CELL_PIXELS)
    image = np.full((inside.stop + MARGIN, inside.stop + MARGIN, 3), _PAPER, dtype=np.float64)
    image[inside, inside] = _FLOOR
    image[inside.start : inside.stop + 1 : CELL_PIXELS, inside] = _LINE
    image[inside, inside.start : inside.stop + 1 : CELL_PIXELS] = _LINE
    for position, colour in (((0.0, 0.0), START_COLOUR), (GOAL, GOAL_COLOUR)):
        disc(image, _pixel(position), GOAL_RADIUS * CELL_PIXELS, colour, 0.3)
        disc(image, _pixel(position), 7.0, colour)
        disc(image, _pixel(position), 4.0, _WHITE)
    image.setflags(write=False)
    return image


class PointReachVectorEnv(BatchedVectorEnv):
    """N points on their way from (0, 0) to (10, 10).

    Observation (2,) float32: x / 10 and y / 10, in [0, 1]. Action (2,): what is added to x and y, in [-1, 1]; the
    point stops at the border of the box. Reward: -distance to the goal / sqrt(200), from -1 at the start to 0 at
    the goal, after the step. Success within 0.5 of the goal; nothing terminates. Nothing is random.
    ``infos`` also hold ``distance``.

    Args:
        env_id: "PointReach-v0".
        num_envs: N.
        kwargs: see `BatchedVectorEnv`.
    """

    metadata = {**BatchedVectorEnv.metadata, "render_fps": 10}
    info_types = {"success": bool, "distance": float}

    def __init__(self, env_id: str = "PointReach-v0", num_envs: int = 1, **kwargs: Any) -> None:
        if env_id not in POINT_REACH:
            raise ValueError(f"env_id must be one of {list(POINT_REACH)}, got {env_id!r}")
        super().__init__(
            POINT_REACH[env_id],
            gym.spaces.Box(0.0, 1.0, (2,), np.float32),
            gym.spaces.Box(-1.0, 1.0, (2,), np.float32),
            num_envs=num_envs,
            **kwargs,
        )
        self._episode["position"] = np.zeros((num_envs, 2))

    def _start(self, rows: Rows) -> None:
        """Nothing to do: an episode's arrays begin with zeros, and that is the start."""

    def _advance(self, actions: Array) -> None:
        position = self._episode["position"]
        np.clip(position + np.clip(actions, -1.0, 1.0), 0.0, SIDE, out=position)

    def _judge(self) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.bool_], dict[str, Array]]:
        distance = np.hypot(*(GOAL - self._episode["position"]).T)
        infos = {"success": distance <= GOAL_RADIUS, "distance": distance}
        return -distance / math.hypot(*GOAL), np.zeros(self.num_envs, np.bool_), infos

    def _observe(self) -> Array:
        return (self._episode["position"] / SIDE).astype(np.float32)

    def _draw(self, index: int) -> npt.NDArray[np.uint8]:
        image = _background().copy()
        centre = _pixel(self._episode["position"][index])
        disc(image, centre, 8.0, _WHITE)
        disc(image, centre, 6.5, AGENT_COLOUR)
        picture: npt.NDArray[np.uint8] = np.rint(image).astype(np.uint8)
        return picture


class PointReachEnv(SingleEnv):
    """The point reaching task: ``PointReachEnv("PointReach-v0")``. See `PointReachVectorEnv`."""

    metadata = {"render_modes": ["rgb_array"], "render_fps": 10}
    vector_class = PointReachVectorEnv
