"""Who draws a MuJoCo model: this package, or MuJoCo."""

from __future__ import annotations

from functools import lru_cache

import mujoco

from qmp_envs.arguments import Renderer
from qmp_envs.opengl import Scene
from qmp_envs.sketch import Sketch


@lru_cache(maxsize=64)
def picture_of(model: mujoco.MjModel, renderer: Renderer, groups: tuple[int, ...] = (0, 1, 2)) -> Sketch | Scene:
    """What draws this model, prepared once."""
    return Scene(model, groups=groups) if renderer == "mujoco" else Sketch(model, groups=groups)
