"""Expressions of Meta-World's rewards on plain numbers, rounded as its Python rounds them.

So squares are taken by the C library's ``pow``, and what an action enters is of an action's precision.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

# of a Python float times a float32, which is what Meta-World computes with where an action enters
EFFORT_TYPE: Any = type(1.0 * np.float32(1.0))
_GAUSSIAN_SCALE = math.sqrt(-2 * math.log(0.1))


def norm(vectors: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Lengths (...) of vectors (..., 3), rounded as `numpy.linalg.norm` of one rounds."""
    lengths: npt.NDArray[np.float64] = np.sqrt(np.matmul(vectors[..., None, :], vectors[..., None])[..., 0, 0])
    return lengths


def long_tail(excess: float) -> float:
    """1 at 0, 0.1 at 1."""
    squared: float = (excess * 3.0) ** 2
    return 1.0 / (squared + 1.0)


def gaussian(excess: float) -> float:
    """1 at 0, 0.1 at 1, and sooner at 0 than `long_tail`."""
    return float(np.exp(-0.5 * (excess * _GAUSSIAN_SCALE) ** 2))


def within(x: float, low: float, high: float, margin: float, tail: Callable[[float], float] = long_tail) -> float:
    """1 from ``low`` to ``high``, outside falling with a ``tail``, 0.1 at ``margin`` from there; 0 without a margin."""
    excess = max(low - x, x - high)
    if excess <= 0.0:
        return 1.0
    return tail(excess / margin) if margin > 0.0 else 0.0


def both(a: float, b: float) -> float:
    """Hamacher product, a smooth "and" of numbers in [0, 1]."""
    product = a * b
    total = a + b - product
    return product / total if total > 0.0 else 0.0


def closing(effort: float) -> float:
    """How much an action closes the gripper; more than 0 with an action's precision, and so what that enters."""
    closed: float = EFFORT_TYPE(effort) if effort > 0.0 else 0.0
    return closed


def quaternion(matrix: Sequence[float]) -> tuple[float, float, float, float]:
    """A rotation (9,) as x, y, z, w, as `scipy.spatial.transform.Rotation` computes it."""
    m00, m01, m02, m10, m11, m12, m20, m21, m22 = matrix
    trace = m00 + m11 + m22
    largest = max(m00, m11, m22, trace)
    if largest == m00:
        x, y, z, w = 1.0 - trace + 2.0 * m00, m10 + m01, m20 + m02, m21 - m12
    elif largest == m11:
        x, y, z, w = m10 + m01, 1.0 - trace + 2.0 * m11, m21 + m12, m02 - m20
    elif largest == m22:
        x, y, z, w = m20 + m02, m21 + m12, 1.0 - trace + 2.0 * m22, m10 - m01
    else:
        x, y, z, w = m21 - m12, m02 - m20, m10 - m01, 1.0 + trace
    length = math.sqrt(x * x + y * y + z * z + w * w)
    return x / length, y / length, z / length, w / length
