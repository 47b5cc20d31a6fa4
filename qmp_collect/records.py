"""Observations of several parts, one record a row: a NumPy structured array, which holds every part bit for bit.

A record array is indexed, copied, compared and stored like any other array, ``(M,)``; its part ``name`` is
``rows[name]``, ``(M, *shape)``, a view in the part's own dtype, and those of parts within a part are
``rows[name][inner]``.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import gymnasium as gym
import numpy as np
from numpy.typing import NDArray

from qmp_collect.backends import to_numpy

ARRAY_SPACES = (gym.spaces.Box, gym.spaces.Discrete, gym.spaces.MultiDiscrete, gym.spaces.MultiBinary)


def is_composite(space: gym.Space[Any]) -> bool:
    """Whether its elements have parts."""
    return isinstance(space, gym.spaces.Dict | gym.spaces.Tuple)


def parts_of(space: Any) -> list[tuple[str, Any, gym.Space[Any]]]:
    """The parts of a `Dict` or `Tuple` space: name of the record's field, key in an observation, space."""
    if isinstance(space, gym.spaces.Dict):
        return [(key, key, part) for key, part in space.spaces.items()]
    return [(str(index), index, part) for index, part in enumerate(space.spaces)]


def record_dtype(space: gym.Space[Any]) -> np.dtype[Any]:
    """The dtype of a row: that of the space, with a field for each part of a composite one.

    Raises:
        TypeError: A part is no array (Text, Graph, Sequence, OneOf), has no name, or there is none.
    """
    if isinstance(space, ARRAY_SPACES):
        return np.dtype(space.dtype)
    if not is_composite(space):
        raise TypeError(f"a part is of the space {space}, expected Box, Discrete, MultiDiscrete or MultiBinary")
    parts = parts_of(space)
    if not parts or not all(isinstance(name, str) and name for name, _, _ in parts):
        raise TypeError(f"expected parts with names that are strings and not empty, got {space}")
    # Aligned, so that PyTorch takes the views.
    return np.dtype([(name, record_dtype(part), part.shape or ()) for name, _, part in parts], align=True)


def pack(space: gym.Space[Any], obs: Any, count: int | None, name: str = "observations") -> NDArray[Any]:
    """Records ``(count,)`` of a batch, or one ``()`` of a single observation (``count`` None); always a copy.

    Raises:
        ValueError: A part is missing or has another shape, or numbers that its space's dtype cannot hold.
    """
    leading = () if count is None else (count,)
    rows: NDArray[Any] = np.zeros(leading, record_dtype(space))
    _fill(rows, space, obs, leading, name)
    return rows


def _fill(rows: NDArray[Any], space: gym.Space[Any], obs: Any, leading: tuple[int, ...], name: str) -> None:
    for field, key, part in parts_of(space):
        path = f"{name}[{key!r}]"
        try:
            value = obs[key]
        except (KeyError, IndexError, TypeError):
            raise ValueError(f"{path} is missing: expected {space}, got {_kind(obs)}") from None
        if is_composite(part):
            _fill(rows[field], part, value, leading, path)
            continue
        given, target = to_numpy(value), rows[field]
        if given.shape != target.shape:
            raise ValueError(
                f"expected {path} of shape {target.shape}"
                f"{', one row per sub-environment' if leading else ''}, got {given.shape}"
            )
        with np.errstate(all="ignore"):
            target[...] = given
        # Another precision is the space's word; anything else must come out as it went in.
        exact = given.dtype == target.dtype or given.dtype.kind == target.dtype.kind == "f"
        if not exact and not np.array_equal(target, given):
            raise ValueError(f"{path} is {given.dtype} with numbers that its space, {part}, cannot hold")


def named(space: gym.Space[Any], rows: NDArray[Any]) -> Any:
    """Records as the space's own dicts and tuples of arrays ``(M, *shape)``, copies."""
    if not is_composite(space):
        return np.array(rows)
    found = {key: named(part, rows[field]) for field, key, part in parts_of(space)}
    return found if isinstance(space, gym.spaces.Dict) else tuple(found.values())


def as_dict(rows: NDArray[Any]) -> Any:
    """Records as nested dicts of views by the names of their fields; another array as it is."""
    return rows if rows.dtype.names is None else {name: as_dict(rows[name]) for name in rows.dtype.names}


def leaves(rows: NDArray[Any], path: str = "") -> Iterator[tuple[str, NDArray[Any]]]:
    """The arrays of which records consist, and where they are, as in ``["camera"]["rgb"]``; another array itself."""
    if rows.dtype.names is None:
        yield path, rows
        return
    for name in rows.dtype.names:
        yield from leaves(rows[name], f"{path}[{name!r}]")


def _kind(obs: Any) -> str:
    if isinstance(obs, dict):
        return f"a dict of {list(obs)}"
    return f"{type(obs).__name__} of {len(obs)} parts" if isinstance(obs, tuple | list) else type(obs).__name__
