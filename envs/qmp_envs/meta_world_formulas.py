"""Expressions of Meta-World's rewards over arrays, rounded as its Python rounds one number after the other.

So squares are taken by the C library's ``pow``, and what an action enters is of an action's precision.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

Floats: TypeAlias = npt.NDArray[np.floating[Any]]
Bools: TypeAlias = npt.NDArray[np.bool_]

# of a Python float times a float32, which is what Meta-World computes with where an action enters
EFFORT_TYPE = type(1.0 * np.float32(1.0))
LEAST_MARGIN = 1e-300  # instead of 0, to divide by; nothing comes as near to 0 without being it, here and
_LEAST_SUM = 1e-37  # here
_GAUSSIAN_SCALE = np.sqrt(-2 * np.log(0.1))


def norm(vectors: Floats) -> Floats:
    """Lengths (...) of vectors (..., 3), rounded as `numpy.linalg.norm` of one rounds."""
    lengths: Floats = np.sqrt(np.matmul(vectors[..., None, :], vectors[..., None])[..., 0, 0])
    return lengths


def square(values: Floats) -> Floats:
    squares: Floats = np.float_power(values, 2.0)
    return squares


def long_tail(excess: Floats) -> Floats:
    """1 at 0, 0.1 at 1."""
    tail: Floats = 1.0 / (square(excess * 3.0) + 1.0)
    return tail


def gaussian(excess: Floats) -> Floats:
    """1 at 0, 0.1 at 1, and sooner at 0 than `long_tail`."""
    tail: Floats = np.exp(-0.5 * square(excess * _GAUSSIAN_SCALE))
    return tail


def within(x: Floats, low: Floats | float, high: Floats | float, margin: Floats | float) -> Floats:
    """1 from ``low`` to ``high``, outside falling with a long tail, 0.1 at ``margin`` from there."""
    excess = np.maximum(np.maximum(low - x, x - high), 0.0) / np.maximum(margin, LEAST_MARGIN)
    return long_tail(excess)


def both(a: Floats, b: Floats) -> Floats:
    """Hamacher product, a smooth "and" of numbers in [0, 1]."""
    product = a * b
    both: Floats = product / np.maximum(a + b - product, _LEAST_SUM)
    return both


def with_effort(rows: Bools | None, formula: Callable[..., Floats], *values: Floats | Bools) -> Floats:
    """``formula`` of float64 ``values``, but for ``rows`` (None: for none) with an action's precision."""
    result = formula(*values)
    if rows is not None:
        result[rows] = formula(*(value[rows].astype(EFFORT_TYPE) for value in values))
    return result


def some(rows: Bools) -> Bools | None:
    return rows if rows.any() else None


def quaternions(matrices: Floats) -> Floats:
    """Rotations (M, 9) as quaternions (M, 4), x y z w, as `scipy.spatial.transform.Rotation` computes them."""
    terms = np.empty((len(matrices), _TERMS))
    terms[:, :9] = matrices
    terms[:, 9:12] = matrices[:, ::4]
    terms[:, 12] = trace = matrices[:, 0] + matrices[:, 4] + matrices[:, 8]
    terms[:, 13], terms[:, 14] = 1.0 - trace, 1.0 + trace
    largest = terms[:, 9:13].argmax(axis=1)
    rows = np.arange(0, terms.size, _TERMS)[:, None]
    pairs = terms.reshape(-1).take(rows + _PAIRS.take(largest, axis=0))
    unscaled = pairs[:, :4] + _FACTORS.take(largest, axis=0) * pairs[:, 4:]
    normalized: Floats = unscaled / np.sqrt(np.add.reduce(unscaled * unscaled, axis=1, keepdims=True))
    return normalized


# x, y, z, w, not normalized, if x is the largest of them, or y, z, w: the sum of one term and another one times a
# factor. Terms are the nine entries of the matrix, its diagonal, its trace, and 1 minus and plus that.
_TERMS = 15
_PAIRS = np.array(
    [
        (13, 3, 6, 7, 0, 1, 2, 5),
        (3, 13, 7, 2, 1, 4, 5, 6),
        (6, 7, 13, 3, 2, 5, 8, 1),
        (7, 2, 3, 14, 5, 6, 1, 0),
    ]
)
_FACTORS = np.array([(2, 1, 1, -1), (1, 2, 1, -1), (1, 1, 2, -1), (-1, -1, -1, 0)], dtype=np.float64)
