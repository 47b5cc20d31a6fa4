"""Observations of several parts in the float32 cells of a replay buffer's rows."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import gymnasium as gym
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from qmp_collect.records import is_composite, parts_of, record_dtype

_SMALL = (np.uint8, np.int8, np.int16)  # numbers of a `Box` that are stored as they are, and sampled as float32


@dataclass(frozen=True)
class _Leaf:
    """One part: the cells ``start:stop`` hold its elements as ``dtype``, padded to whole cells."""

    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    numbers: bool  # of a Box: sampled as float32, others as int64
    start: int

    @property
    def size(self) -> int:
        return math.prod(self.shape)

    @property
    def stop(self) -> int:
        return self.start + -(-self.size * self.dtype.itemsize // 4)

    def read(self, cells: Tensor) -> Tensor:
        part, leading = cells[..., self.start : self.stop], cells.shape[:-1]
        if self.dtype != np.float32:
            content = part.clone(memory_format=torch.contiguous_format).view(getattr(torch, self.dtype.name))
            part = content[..., : self.size]
            part = part.float() if self.numbers else part.long()
        return part.reshape(*leading, *self.shape)


class RecordCells:
    """How records of a `Dict` or `Tuple` space lie in ``width`` cells, and come back as dicts and tuples of tensors.

    Images of bytes take a byte an element. float64, and integers of a `Box` of more than two bytes, are stored as the
    float32 that the learner gets.
    """

    def __init__(self, space: gym.Space[Any]) -> None:
        self._dtype, self.width = record_dtype(space), 0
        self._tree = self._lay_out(space)
        opaque = np.zeros(self.width, np.bool_)
        for _, leaf in _walk(self._tree, ()):
            opaque[leaf.start : leaf.stop] = leaf.dtype != np.float32
        self.opaque = np.flatnonzero(opaque)  # cells that hold bytes of something else than one float32

    def _lay_out(self, space: Any) -> Any:
        if is_composite(space):
            tree = {key: (field, self._lay_out(part)) for field, key, part in parts_of(space)}
            return tree if isinstance(space, gym.spaces.Dict) else tuple(tree.values())
        numbers, dtype = isinstance(space, gym.spaces.Box), np.dtype(space.dtype)
        if dtype.kind == "b":
            dtype = np.dtype(np.uint8)
        if not numbers and dtype.itemsize > 1:
            dtype = np.dtype(np.int64)
        elif numbers and dtype not in _SMALL:
            dtype = np.dtype(np.float32)
        leaf = _Leaf(tuple(space.shape or ()), dtype, numbers, self.width)
        self.width = leaf.stop
        return leaf

    def write(self, name: str, rows: NDArray[Any], exact: Any) -> NDArray[np.float32]:
        """``(M, width)`` cells of records ``(M,)``; ``exact(name, values)`` raises for integers too large for float32.

        Raises:
            ValueError: The records are of another space.
        """
        if rows.dtype != self._dtype:
            raise ValueError(f"transitions.{name}: expected records of {self._dtype}, got {rows.dtype}")
        cells = np.zeros((len(rows), 4 * self.width), np.uint8)
        for path, leaf in _walk(self._tree, ()):
            values = rows
            for field in path:
                values = values[field]
            if leaf.dtype == np.float32:
                values = exact(f"{name}[{path[-1]!r}]", values)
            content = np.ascontiguousarray(values.reshape(len(rows), -1), leaf.dtype).view(np.uint8)
            cells[:, 4 * leaf.start : 4 * leaf.start + content.shape[1]] = content
        return cells.view(np.float32)

    def read(self, cells: Tensor) -> Any:
        """Cells ``(*L, width)`` as dicts and tuples of tensors ``(*L, *shape)``."""
        return _read(self._tree, cells)


def _walk(tree: Any, path: tuple[str, ...]) -> Iterator[tuple[tuple[str, ...], _Leaf]]:
    for field, part in tree.values() if isinstance(tree, dict) else tree:
        if isinstance(part, _Leaf):
            yield (*path, field), part
        else:
            yield from _walk(part, (*path, field))


def _read(tree: Any, cells: Tensor) -> Any:
    if isinstance(tree, _Leaf):
        return tree.read(cells)
    if isinstance(tree, dict):
        return {key: _read(part, cells) for key, (_, part) in tree.items()}
    return tuple(_read(part, cells) for _, part in tree)
