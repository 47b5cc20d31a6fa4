"""Other libraries' objects where a policy, a Q-function or a sink is expected: worked with, or refused at once.

They are told by where the code that would run comes from, so that nothing is imported, and a caller's own subclass,
which brings its own code, is the caller's own.
"""

from __future__ import annotations

import functools
import inspect
from typing import Any

import numpy as np
from gymnasium.spaces import Box, Space

__all__ = ["check_callable", "check_sink", "is_unit"]

_SB3 = ("stable_baselines3", "sb3_contrib", "sbx")
_BY_SB3_AGENTS = "write `policies, q_functions, sinks = sb3_agents(models)` (qmp_collect.adapters)"

# Whose `add` takes one argument that is no Transitions, or is better known by its adapter than by its signature.
_SINKS = {
    **dict.fromkeys(_SB3, "qmp_collect.adapters.SB3Sink(model), or SB3Sink(buffer, scale_actions=...)"),
    "cleanrl_utils": "qmp_collect.adapters.SB3Sink(buffer, scale_actions=False)",
    "torchrl": "qmp_collect.adapters.TorchRLSink(buffer)",
    "tianshou": "qmp_collect.adapters.TianshouSink(buffer, policy)",
}
_OTHER_SINK = (
    "qmp_collect.TaskReplayBuffer, an adapter of qmp_collect.adapters, or its FunctionSink with a function of yours "
    "that stores Transitions"
)


def check_callable(role: str, name: str, fn: Any, space: Space[Any]) -> None:
    """`TypeError` for a policy or Q-function (``role``) that would run and mean something else, or could not run.

    Stable-Baselines3 and Tianshou train on actions rescaled to [-1, 1]: what their networks propose and score are not
    the actions of another ``space``.
    """
    home = _home(fn)
    scaled = isinstance(space, Box) and not is_unit(space)
    if home in _SB3:
        if not callable(fn):
            raise TypeError(f"{name} is a whole model, a {type(fn).__name__}: {_BY_SB3_AGENTS}")
        if getattr(fn, "__name__", "") == "predict":
            raise TypeError(
                f"{name} is a Stable-Baselines3 `predict`, which returns actions and a state: write "
                f"`lambda obs: model.predict(obs)[0]`, or for all that learn {_BY_SB3_AGENTS}"
            )
        if scaled:
            raise TypeError(
                f"{name} is Stable-Baselines3's {_label(fn)}, which knows actions scaled to [-1, 1] and not those of "
                f"{space}: {_BY_SB3_AGENTS}"
                + (", or `lambda obs: model.predict(obs)[0]` for one that only proposes" if role == "policy" else "")
            )
    elif home == "tianshou" and role == "policy":
        raise TypeError(
            f"{name} is Tianshou's {_label(fn)}, which takes and returns batches: write "
            "`lambda obs: policy.map_action(policy(Batch(obs=obs, info={})).act)`"
        )
    elif home == "tianshou" and scaled:
        raise TypeError(
            f"{name} is Tianshou's {_label(fn)}. Its policies' `action_scaling` (on by default) makes critics know "
            f"actions scaled to [-1, 1] and not those of {space}: write `lambda obs, actions: critic(obs, ...)` "
            "with the actions divided accordingly, or unchanged for policies made with action_scaling=False"
        )


def check_sink(name: str, sink: Any) -> None:
    """`TypeError` unless ``sink`` has an ``add`` that can mean transitions, with the adapter to write instead."""
    add = getattr(sink, "add", None)
    home = _home(add if callable(add) else sink)
    if home in _SINKS:
        raise TypeError(f"{name} is {home}'s {_label(sink)}: write {_SINKS[home]}")
    if not callable(add):
        raise TypeError(f"{name} is a {_label(sink)} without a method add(transitions): use {_OTHER_SINK}")
    if inspect.isbuiltin(add):
        raise TypeError(f"{name} is a {_label(sink)}, whose add stores whatever comes: use {_OTHER_SINK}")
    try:
        signature = inspect.signature(add)
    except (TypeError, ValueError):  # of compiled code: it will say itself what it misses
        return
    try:
        signature.bind(None)
    except TypeError:
        raise TypeError(
            f"{name} is a {_label(sink)} with add{signature}, which cannot be called as add(transitions): use "
            f"{_OTHER_SINK}"
        ) from None


def is_unit(space: Box) -> bool:
    """Whether the space is [-1, 1] already: rescaling would only add rounding errors."""
    return bool(np.all(space.low == -1) and np.all(space.high == 1))


def _home(x: Any) -> str:
    """The top-level package of the code that a call of ``x`` would run, or, if it cannot be called, of its class."""
    while isinstance(x, functools.partial):
        x = x.func
    x = getattr(x, "_orig_mod", x)  # what torch.compile wraps
    if not inspect.isroutine(x):
        kind = type(x)
        x = getattr(kind, "forward", None) or (kind.__call__ if callable(x) else kind)
    return str(getattr(x, "__module__", None) or "").partition(".")[0]


def _label(x: Any) -> str:
    while isinstance(x, functools.partial):
        x = x.func
    named = inspect.isclass(x) or (inspect.isroutine(x) and not inspect.isbuiltin(x))
    return str(getattr(x if named else type(x), "__qualname__", type(x).__name__))
