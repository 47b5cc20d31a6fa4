"""Draws docs/task_sets.png: a picture of every task set, taken some random steps into an episode.

python benchmark/contact_sheet.py
"""

from __future__ import annotations

from pathlib import Path

import gymnasium as gym
import numpy as np
from PIL import Image, ImageDraw, ImageFont

import qmp_envs  # noqa: F401 (registers the task sets)

# id, task, steps before the picture
SHOWN = (
    ("Maze10-v0", 8, 60),
    ("Reacher5-v0", 0, 1),
    ("Walker4-v0", 3, 12),
    ("Kitchen10-v0", 4, 10),
    ("MetaWorldCDS-v0", 0, 40),
    ("MetaWorldMT10-v0", 2, 30),
    ("MetaWorldMT50-v0", 13, 30),
    ("PointReach-v0", 0, 8),
)
TILE, CAPTION, GAP, COLUMNS = 320, 34, 12, 4


def tile(env_id: str, task: int, steps: int) -> Image.Image:
    """A square with the picture and its name below."""
    env = gym.make(env_id, task=task, render_mode="rgb_array")
    env.reset(seed=1)
    env.action_space.seed(1)
    for _ in range(steps):
        env.step(env.action_space.sample())
    frame = env.render()
    name = env.get_wrapper_attr("task_set").task_names[task]
    env.close()
    picture = Image.fromarray(np.asarray(frame))
    picture.thumbnail((TILE, TILE))
    square = Image.new("RGB", (TILE, TILE + CAPTION), "white")
    square.paste(picture, ((TILE - picture.width) // 2, (TILE - picture.height) // 2))
    text = ImageDraw.Draw(square)
    text.text((TILE / 2, TILE + 6), f"{env_id}  {name}", "#333333", ImageFont.load_default(15), anchor="ma")
    return square


if __name__ == "__main__":
    tiles = [tile(*shown) for shown in SHOWN]
    rows = -(-len(tiles) // COLUMNS)
    size = (COLUMNS * (TILE + GAP) + GAP, rows * (TILE + CAPTION + GAP) + GAP)
    sheet = Image.new("RGB", size, "white")
    for i, square in enumerate(tiles):
        row, column = divmod(i, COLUMNS)
        sheet.paste(square, (GAP + column * (TILE + GAP), GAP + row * (TILE + CAPTION + GAP)))
    out = Path(__file__).parents[1] / "docs" / "task_sets.png"
    sheet.quantize(256).save(out, optimize=True)
    print(out)
