"""One episode as a GIF."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
from numpy.typing import NDArray

from qmp_collect.extras import needs
from qmp_collect.runs.checkpoint import atomic_file

FRAMES_PER_SECOND = 12.5  # at most; drawing may take longer than simulating


def save_episode(env: gym.Env[Any, Any], act: Callable[[NDArray[Any]], Any], path: Path, *, seed: int) -> None:
    """Run one episode of a single environment with ``render_mode="rgb_array"`` and save it, at its own speed.

    Needs Pillow.

    Args:
        act: ``act(obs (*O)) -> action (*A)``.
        path: The GIF; its folder is made.
        seed: Of the reset.
    """
    with needs("train"):
        from PIL import Image

    obs, _ = env.reset(seed=seed)
    fps = env.metadata.get("render_fps", 25)
    every = max(1, round(fps / FRAMES_PER_SECOND))
    frames, done, steps = [env.render()], False, 0
    while not done:
        obs, _, terminated, truncated, _ = env.step(act(obs))
        done, steps = terminated or truncated, steps + 1
        if done or steps % every == 0:
            frames.append(env.render())
    first, *rest = (Image.fromarray(np.asarray(frame)) for frame in frames)
    with atomic_file(path) as file:
        first.save(file, "GIF", save_all=True, append_images=rest, duration=round(1000 * every / fps), loop=0)
