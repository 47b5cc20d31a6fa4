"""States: asked for and given as copies; and of the same form as what is there, before anything is changed."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any

import numpy as np


def has_own_state(owner: Any) -> bool:
    """Whether an environment or wrapper saves itself; asked of its class, as wrappers pass on what they do not have."""
    return all(callable(getattr(type(owner), name, None)) for name in ("get_state", "set_state"))


def state_of(owner: Any) -> Any:
    """A copy of ``owner.get_state()``, which may hold the very arrays that its steps write to."""
    return copy.deepcopy(owner.get_state())


def restore(owner: Any, state: Any) -> None:
    """``owner.set_state`` with a copy of ``state``, which it may keep and write to."""
    owner.set_state(copy.deepcopy(state))


def check_like(name: str, got: Any, expected: Any) -> None:
    """`ValueError` naming the first part of ``got`` whose keys, shape or type are not those of ``expected``."""
    if isinstance(expected, Mapping):
        if not isinstance(got, Mapping) or sorted(got) != sorted(expected):
            keys = sorted(got) if isinstance(got, Mapping) else type(got).__name__
            raise ValueError(f"state[{name!r}]: expected the entries {sorted(expected)}, got {keys}")
        for key in expected:
            check_like(f"{name}.{key}", got[key], expected[key])
    elif isinstance(expected, np.ndarray):
        found = (got.shape, got.dtype) if isinstance(got, np.ndarray) else type(got).__name__
        if found != (expected.shape, expected.dtype):
            raise ValueError(f"state[{name!r}]: expected an array {(expected.shape, expected.dtype)}, got {found}")
    elif isinstance(got, bool | np.bool_) != isinstance(expected, bool) or not isinstance(got, _like(expected)):
        raise ValueError(f"state[{name!r}]: expected {type(expected).__name__}, got {got!r}")


def _like(value: Any) -> Any:
    for kinds in ((bool, np.bool_), (int, np.integer), (float, np.floating)):
        if isinstance(value, kinds):
            return kinds
    return type(value)
