"""What is loaded must have the form of what is there: structure, shapes, dtypes and kinds, before anything changes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch

__all__ = ["check_form", "check_state"]


def check_state(part: Any, state: Any, name: str = "state") -> None:
    """Compare a state with the one that ``part.state_dict()`` gives now. Changes nothing.

    A part that knows better than its present state what it can load has a method ``check_state(state)``, which is
    called instead. One whose entries grow names them in an attribute ``growing``: their number of rows is free.
    Optimizers among the attributes of ``part`` may have moments already, of the shapes of their parameters; what is in
    their groups must be equal but for learning rates, which may be scheduled.

    Args:
        part: has ``state_dict()``; optimizers that are part of its state are attributes of the same name.
        state: what shall be loaded.
        name: how messages call it.

    Raises:
        ValueError: naming the first place that differs.
    """
    own = getattr(part, "check_state", None)
    if own is not None:
        own(state)
        return
    expected = dict(part.state_dict())
    if not isinstance(state, Mapping):
        raise ValueError(f"{name}: expected a mapping, got {type(state).__name__}")
    for key in expected.keys() & state.keys():
        found = vars(part).get(key) if hasattr(part, "__dict__") else None
        if isinstance(found, torch.optim.Optimizer):
            _check_optimizer(found, state[key], f"{name}[{key!r}]")
            expected[key] = state[key]
        elif key in getattr(part, "growing", ()):
            expected[key] = _as_long(expected[key], state[key])
    check_form(state, expected, name)


def check_form(got: Any, expected: Any, name: str = "state") -> None:
    """Compare two trees of mappings, lists, tuples, arrays, tensors and plain values, but for the values.

    Raises:
        ValueError: naming the first place whose keys, length, shape, dtype or type is not the expected one.
    """
    if isinstance(expected, Mapping):
        if not isinstance(got, Mapping) or got.keys() != expected.keys():
            found = sorted(got, key=str) if isinstance(got, Mapping) else type(got).__name__
            raise ValueError(f"{name}: expected the entries {sorted(expected, key=str)}, got {found}")
        for key, value in expected.items():
            check_form(got[key], value, f"{name}[{key!r}]")
    elif isinstance(expected, list | tuple):
        kind = list if isinstance(expected, list) else tuple
        if not isinstance(got, kind) or len(got) != len(expected):
            found = f"{len(got)} entries" if isinstance(got, kind) else type(got).__name__
            raise ValueError(f"{name}: expected a {kind.__name__} of {len(expected)} entries, got {found}")
        for index, value in enumerate(expected):
            check_form(got[index], value, f"{name}[{index}]")
    elif _form(got) != _form(expected):
        raise ValueError(f"{name}: expected {_form(expected)}, got {_form(got)}")


def _form(value: Any) -> str:
    if isinstance(value, torch.Tensor):
        return f"a tensor of {value.dtype} and shape {tuple(value.shape)}"
    if isinstance(value, np.ndarray):
        return f"an array of {value.dtype} and shape {value.shape}"
    if isinstance(value, np.generic):
        return f"a scalar of {value.dtype}"
    return f"{type(value).__name__}"


def _as_long(expected: Any, got: Any) -> Any:
    """What is there, with as many rows as what is loaded."""
    if isinstance(expected, np.ndarray) and isinstance(got, np.ndarray) and got.ndim and expected.ndim:
        return np.broadcast_to(np.empty((), expected.dtype), (len(got), *expected.shape[1:]))
    return expected


def _check_optimizer(optimizer: torch.optim.Optimizer, got: Any, name: str) -> None:
    """Moments of another shape are not noticed by torch: its fused kernels then write past their end."""
    expected = optimizer.state_dict()
    moments = got.get("state") if isinstance(got, Mapping) else None
    if not isinstance(moments, Mapping):
        raise ValueError(f"{name}: expected the state of an optimizer")
    check_form({**got, "state": {}}, {**expected, "state": {}}, name)
    for index, (group, there) in enumerate(zip(got["param_groups"], expected["param_groups"], strict=True)):
        for key in there.keys() - {"lr", "initial_lr"}:
            if group[key] != there[key]:
                raise ValueError(
                    f"{name}['param_groups'][{index}][{key!r}]: expected {there[key]!r}, got {group[key]!r}"
                )
    parameters = dict(enumerate(p for group in optimizer.param_groups for p in group["params"]))
    if unknown := moments.keys() - parameters.keys():
        raise ValueError(
            f"{name}['state']: expected the entries 0..{len(parameters) - 1}, got {sorted(map(str, unknown))}"
        )
    if isinstance(optimizer, torch.optim.Adam) and moments and len(moments) < len(parameters):
        raise ValueError(f"{name}['state']: expected no entries or {len(parameters)}, got {len(moments)}")
    for index, entries in moments.items():
        check_form(entries, _moments(optimizer, parameters[index], entries), f"{name}['state'][{index}]")


def _moments(optimizer: torch.optim.Optimizer, parameter: torch.Tensor, got: Any) -> Any:
    """The form that an optimizer's entries of a parameter have; of other kinds than Adam, whatever is a tensor."""
    if isinstance(optimizer, torch.optim.Adam):
        names = ["exp_avg", "exp_avg_sq", *(["max_exp_avg_sq"] if optimizer.defaults["amsgrad"] else [])]
        return {"step": torch.empty((), device="meta"), **dict.fromkeys(names, parameter)}
    if not isinstance(got, Mapping):
        return {}
    tensors = {name: parameter for name, value in got.items() if isinstance(value, torch.Tensor) and value.ndim}
    return {**got, **tensors}
