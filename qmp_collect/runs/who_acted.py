"""Pictures of who acted: an episode whose frames are framed in the colour of the policy that acts (figure 9b)."""

from __future__ import annotations

import colorsys
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from qmp_collect.extras import needs
from qmp_collect.runs.checkpoint import atomic_file
from qmp_collect.runs.palette import PALETTE, policy_name
from qmp_collect.runs.video import save_gif, steps_per_frame

Frame = NDArray[np.uint8]
Colour = tuple[int, int, int]

GAP = 2  # white pixels above the bar


def colours(num_policies: int) -> list[Colour]:
    """A colour for each policy; where the palette is too small, hues as far apart as they can be."""
    if num_policies <= len(PALETTE):
        return [(int(c[1:3], 16), int(c[3:5], 16), int(c[5:7], 16)) for c in PALETTE[:num_policies]]
    shades = [colorsys.hls_to_rgb(k / num_policies, (0.4, 0.65)[k % 2], 0.75) for k in range(num_policies)]
    return [(round(255 * r), round(255 * g), round(255 * b)) for r, g, b in shades]


class WhoActed:
    """One episode of one task, and which policy acted in each of its steps.

    Needs Pillow.

    Args:
        task: its number, which is that of its own policy.
        names: ``T`` names of tasks; policy ``k`` is that of task ``k``, and those beyond are helpers.
        frames: ``S`` pictures ``(H, W, 3)``, before each step.
        actors: ``S`` numbers of policies.
        scene: what is to be seen in the frames, and in which colour: the environment's ``metadata["legend"]``.
    """

    def __init__(
        self,
        task: int,
        names: Sequence[str],
        frames: Sequence[Frame],
        actors: Sequence[int],
        scene: Mapping[str, Colour] | None = None,
    ) -> None:
        self.task, self.names, self.frames, self.actors = task, names, frames, np.asarray(actors)
        self.scene = dict(scene or {})
        self._colours = colours(max(len(names), int(self.actors.max()) + 1))
        height, width = frames[0].shape[:2]
        self._border, self._bar = max(4, width // 40), max(10, height // 16)

    @cached_property
    def legend(self) -> list[tuple[int, str]]:
        """The policies that acted, and the task's own, each with its share of the steps; the own one first."""
        counts = np.bincount(self.actors, minlength=self.task + 1)
        shown = [self.task, *(k for k in np.flatnonzero(counts).tolist() if k != self.task)]
        texts = []
        for policy in shown:
            name = "of " * (policy < len(self.names)) + policy_name(policy, self.names)
            own = " (own)" * (policy == self.task)
            texts.append((policy, f"{name}{own} {counts[policy] / len(self.actors):.0%}"))
        return texts

    def save_gif(self, path: Path, fps: float) -> None:
        """At the speed of ``fps`` steps in a second, with the legend beside it and the one who acts marked."""
        every = steps_per_frame(fps)
        steps = range(0, len(self.actors), every)
        save_gif((self._page(step) for step in steps), path, 1000 * every / fps)

    def save_strip(self, path: Path, count: int = 8) -> None:
        """Frames evenly spaced over the episode side by side, under the legend and over one bar, as a PNG."""
        from PIL import Image

        steps = np.linspace(0, len(self.actors) - 1, min(count, len(self.actors))).round().astype(int).tolist()
        strip = np.concatenate([self._bordered(step) for step in steps], axis=1)
        height, width, _ = strip.shape
        size = max(width // 80, 10)
        image = Image.new("RGB", (width, height + 4 * size + self._bar), "white")
        image.paste(Image.fromarray(strip), (0, 2 * size))
        image.paste(Image.fromarray(self._timeline(width, steps)), (0, height + 4 * size))
        draw, font = _pen(image, size)
        head = f"task {self.names[self.task]}, acted:"
        draw.text((size // 2, size // 2), head, fill="black", font=font)
        x = 2 * size + int(draw.textlength(head, font=font))
        for policy, text in self.legend:
            draw.rectangle((x, size // 2, x + size, 3 * size // 2), fill=self._colours[policy])
            draw.text((x + 3 * size // 2, size // 2), text, fill="black", font=font)
            x += 3 * size + int(draw.textlength(text, font=font))
        for text, colour in self.scene.items():
            draw.ellipse((x, size // 2, x + size, 3 * size // 2), fill=tuple(colour))
            draw.text((x + 3 * size // 2, size // 2), text, fill="black", font=font)
            x += 3 * size + int(draw.textlength(text, font=font))
        for place, step in enumerate(steps):
            middle = (place + 0.5) * width / len(steps)
            draw.text((middle, height + 3 * size), f"step {step}", fill="black", font=font, anchor="mm")
        with atomic_file(path) as file:
            image.save(file, "PNG")

    def _bordered(self, step: int) -> Frame:
        """The frame in the colour of who acts."""
        frame, border = self.frames[step], self._border
        height, width, _ = frame.shape
        picture = np.empty((height + 2 * border, width + 2 * border, 3), np.uint8)
        picture[:] = self._colours[self.actors[step]]
        picture[border : border + height, border : border + width] = frame
        return picture

    def _timeline(self, width: int, marked: Sequence[int]) -> Frame:
        """A bar of who acted in each step, with marks at some of them."""
        pixels, steps = np.arange(width), len(self.actors)
        bar = np.empty((self._bar, width, 3), np.uint8)
        bar[:] = np.asarray(self._colours, np.uint8)[self.actors[pixels * steps // width]]
        for step in marked:
            bar[:, np.abs(pixels + 0.5 - (step + 0.5) * width / steps) <= 1] = 0
        return bar

    def _framed(self, step: int) -> Frame:
        """The bordered frame above a bar of its width, marked where it is."""
        picture = self._bordered(step)
        gap = np.full((GAP, picture.shape[1], 3), 255, np.uint8)
        return np.concatenate([picture, gap, self._timeline(picture.shape[1], [step])])

    def _page(self, step: int) -> Frame:
        """The framed frame, and beside it the legend."""
        from PIL import Image

        framed = self._framed(step)
        size = max(11, framed.shape[0] // 24)
        blank = Image.new("RGB", (1, 1))
        draw, font = _pen(blank, size)
        head = f"task {self.names[self.task]}", "acts: policy"
        widths = [draw.textlength(text, font=font) for text in (*head, *self.scene, *(text for _, text in self.legend))]
        line, left = 2 * size, framed.shape[1] + size
        rows = len(head) + len(self.legend) + (len(self.scene) + 1 if self.scene else 0)
        image_size = left + 3 * size + round(max(widths)), max(framed.shape[0], rows * line)
        image = Image.new("RGB", image_size, "white")
        image.paste(Image.fromarray(framed), (0, 0))
        draw, font = _pen(image, size)
        for row, text in enumerate(head):
            draw.text((left, row * line + size // 2), text, fill="black", font=font)
        for row, (policy, text) in enumerate(self.legend, start=len(head)):
            top, colour, acts = row * line, self._colours[policy], policy == self.actors[step]
            end = image.width - 1 if acts else left + 3 * size // 2
            draw.rectangle((left, top, end, top + line - size // 2), fill=colour)
            ink = "white" if acts and np.dot(colour, (0.299, 0.587, 0.114)) < 140 else "black"
            draw.text((left + 2 * size, top + size // 8), text, fill=ink, font=font)
        for row, (text, colour) in enumerate(self.scene.items(), start=len(head) + len(self.legend) + 1):
            top = row * line
            dot = (left + size // 4, top + size // 4, left + 5 * size // 4, top + 5 * size // 4)
            draw.ellipse(dot, fill=tuple(colour))
            draw.text((left + 2 * size, top + size // 8), text, fill="black", font=font)
        return np.asarray(image)


def _pen(image: Any, size: int) -> tuple[Any, Any]:
    with needs("train"):
        from PIL import ImageDraw, ImageFont

    return ImageDraw.Draw(image), ImageFont.load_default(size)
