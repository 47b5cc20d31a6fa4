"""Episodes as GIFs."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import gymnasium as gym
import numpy as np
from numpy.typing import NDArray

from qmp_collect.extras import needs
from qmp_collect.runs.checkpoint import atomic_file

if TYPE_CHECKING:
    from qmp_collect.runs.policy import TrainedPolicy

FRAMES_PER_SECOND = 12.5  # at most; drawing may take longer than simulating
LAST_MILLISECONDS = 1000  # films begin anew, and the eye should see where they end


def filmable(env_id: str) -> bool:
    """Whether a task set draws pictures."""
    with gym.make(env_id, task=0) as env:
        modes = env.metadata.get("render_modes", [])
    return "rgb_array" in modes


def check_filmable(env_id: str) -> None:
    """`ValueError` for a task set that draws no pictures."""
    if not filmable(env_id):
        raise ValueError(
            f"{env_id} cannot be filmed: its class has no _draw, or its single environments have no "
            'metadata["render_modes"] with "rgb_array" (docs/guides/task_set.md)'
        )


def steps_per_frame(fps: float) -> int:
    """How many steps a frame of a film stands for, if the environment makes ``fps`` of them in a second."""
    return max(1, round(fps / FRAMES_PER_SECOND))


def save_gif(frames: Iterable[Any], path: Path, milliseconds: float) -> None:
    """Save pictures ``(H, W, 3)`` as a GIF that shows each of them for so long, the last one longer. Needs Pillow."""
    image = _pillow()
    first, *rest = (image.fromarray(np.asarray(frame)) for frame in frames)
    with atomic_file(path) as file:
        durations = [round(milliseconds)] * len(rest) + [round(milliseconds + LAST_MILLISECONDS)]
        first.save(file, "GIF", save_all=True, append_images=rest, duration=durations, loop=0)


def _pillow() -> Any:
    with needs("train"):
        from PIL import Image

    return Image


def save_task(policy: TrainedPolicy, task: int, path: Path, *, seed: int) -> None:
    """An episode of a task by its own policy; see `save_episode`."""
    # A simulation that diverges ends the episode, as in training: an error would come again at every resume.
    settings: dict[str, Any] = {"task": task, "render_mode": "rgb_array", "on_divergence": "end"}
    act = policy.of_task(task)
    with gym.make(policy.env_id, **settings) as env:
        save_episode(env, lambda obs: act(obs[None])[0], path, seed=seed)


def save_episode(env: gym.Env[Any, Any], act: Callable[[NDArray[Any]], Any], path: Path, *, seed: int) -> None:
    """Run one episode of a single environment with ``render_mode="rgb_array"`` and save it, at its own speed.

    Needs Pillow.

    Args:
        act: ``act(obs (*O)) -> action (*A)``.
        path: The GIF; its folder is made.
        seed: Of the reset.
    """
    _pillow()  # or nothing could be saved in the end
    obs, _ = env.reset(seed=seed)
    fps = env.metadata.get("render_fps", 25)
    every = steps_per_frame(fps)
    frames, done, steps = [env.render()], False, 0
    while not done:
        obs, _, terminated, truncated, _ = env.step(act(obs))
        done, steps = terminated or truncated, steps + 1
        if done or steps % every == 0:
            frames.append(env.render())
    save_gif(frames, path, 1000 * every / fps)
