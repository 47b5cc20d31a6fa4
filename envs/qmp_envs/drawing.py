"""Anti-aliased pictures with nothing but numpy: no OpenGL, no window, the same bytes on every machine.

Images are (H, W, 3) float arrays with values 0 to 255; lengths and positions are in pixels, (down, right).
"""

from __future__ import annotations

from typing import TypeAlias

import numpy as np
import numpy.typing as npt

Image: TypeAlias = npt.NDArray[np.float64]
Colour: TypeAlias = tuple[int, int, int]
Point: TypeAlias = tuple[float, float]


def blend(image: Image, colour: Colour, alpha: Image) -> None:
    """Paint ``colour`` over ``image`` in place, with opacity ``alpha`` (H, W) in [0, 1]."""
    image += alpha[..., None] * (np.array(colour, dtype=np.float64) - image)


def disc(image: Image, centre: Point, radius: float, colour: Colour, opacity: float = 1.0) -> None:
    """Fill a disc in place; parts outside the image are left out."""
    capsule(image, centre, centre, radius, colour, opacity)


def capsule(image: Image, a: Point, b: Point, radius: float, colour: Colour, opacity: float = 1.0) -> None:
    """Fill in place what is within ``radius`` of the line from ``a`` to ``b``; parts outside are left out."""
    low = [max(0, int(np.floor(min(ends) - radius - 1))) for ends in zip(a, b, strict=True)]
    high = [max(0, int(np.ceil(max(ends) + radius + 2))) for ends in zip(a, b, strict=True)]
    window = image[low[0] : high[0], low[1] : high[1]]
    down, right = np.ogrid[: window.shape[0], : window.shape[1]]
    # Pixel k covers [k, k + 1]: its centre is at k + 0.5.
    down, right = down + low[0] + 0.5 - a[0], right + low[1] + 0.5 - a[1]
    along = b[0] - a[0], b[1] - a[1]
    length_squared = along[0] ** 2 + along[1] ** 2
    if length_squared > 0:
        share = ((down * along[0] + right * along[1]) / length_squared).clip(0.0, 1.0)
        down, right = down - share * along[0], right - share * along[1]
    blend(window, colour, opacity * np.clip(radius - np.hypot(down, right) + 0.5, 0.0, 1.0))


def rectangle(image: Image, top_left: Point, bottom_right: Point, colour: Colour, opacity: float = 1.0) -> None:
    """Fill an upright rectangle in place; parts outside the image are left out."""
    down, right = (
        (np.minimum(high, np.arange(1, size + 1)) - np.maximum(low, np.arange(size))).clip(0.0, 1.0)
        for low, high, size in zip(top_left, bottom_right, image.shape[:2], strict=True)
    )
    blend(image, colour, opacity * np.outer(down, right))


def blur(mask: Image, sigma: float) -> Image:
    """Gaussian blur of an (H, W) array; the border continues outwards."""
    reach = int(np.ceil(3 * sigma))
    kernel = np.exp(-0.5 * (np.arange(-reach, reach + 1) / sigma) ** 2)
    kernel /= kernel.sum()
    for _ in range(2):
        padded = np.pad(mask, ((reach, reach), (0, 0)), mode="edge")
        mask = sum(weight * padded[k : k + len(mask)] for k, weight in enumerate(kernel)).T
    return mask


def rounded(mask: Image, sigma: float) -> Image:
    """Coverage (H, W) of a 0/1 ``mask`` with its corners rounded and its edges anti-aliased."""
    # The half-level of a blurred mask runs along straight edges and cuts corners. Make it 1 pixel steep.
    steep: Image = (blur(mask, sigma) - 0.5) * sigma * np.sqrt(2 * np.pi) + 0.5
    return steep.clip(0.0, 1.0)
