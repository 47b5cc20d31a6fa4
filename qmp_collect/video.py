"""One episode as a GIF."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
from numpy.typing import NDArray


def save_episode(env: gym.Env[Any, Any], act: Callable[[NDArray[Any]], Any], path: Path, *, seed: int) -> None:
    """Run one episode of a single environment with ``render_mode="rgb_array"`` and save it. Needs Pillow.

    Args:
        act: ``act(obs (*O)) -> action (*A)``.
        path: The GIF; its folder is made.
        seed: Of the reset.
    """
    from PIL import Image

    obs, _ = env.reset(seed=seed)
    frames, done = [env.render()], False
    while not done:
        obs, _, terminated, truncated, _ = env.step(act(obs))
        frames.append(env.render())
        done = terminated or truncated
    first, *rest = (Image.fromarray(np.asarray(frame)) for frame in frames)
    path.parent.mkdir(parents=True, exist_ok=True)
    first.save(path, save_all=True, append_images=rest, duration=40, loop=0)
