"""What a vector environment and its wrappers know, saved and restored with the collector.

Gymnasium's normalisations and episode statistics are known here, around the vector environment or its parts and inside
a ``SyncVectorEnv`` or the processes of an ``AsyncVectorEnv``. A wrapper of one's own takes part by ``get_state()`` and
``set_state(state)``, and so does an environment: a vector environment, or all single ones of a ``SyncVectorEnv``.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping
from functools import cached_property
from numbers import Number
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium.vector import AsyncVectorEnv, VectorWrapper
from gymnasium.wrappers import vector

from qmp_collect.concat import ConcatVectorEnv
from qmp_collect.states import check_like, has_own_state
from qmp_collect.sub_environments import saved_by

_RUNNING = ("mean", "var", "count")
_AVERAGES = ("obs_rms", "return_rms")
_KNOWN: tuple[tuple[type, tuple[str, ...]], ...] = (
    (vector.NormalizeObservation, ("obs_rms", "_update_running_mean")),
    (vector.NormalizeReward, ("return_rms", "accumulated_reward", "_prev_dones", "_update_running_mean")),
    (vector.RecordEpisodeStatistics, ("episode_count", "episode_returns", "episode_lengths", "prev_dones")),
    (gym.wrappers.NormalizeObservation, ("obs_rms", "_update_running_mean")),
    (gym.wrappers.NormalizeReward, ("return_rms", "discounted_reward", "_update_running_mean")),
)


class EnvironmentState:
    """The state of ``envs``, if it has ``get_state`` and ``set_state``, and of its wrappers, outermost first.

    Attributes:
        touched: whether the environment was reset, and so has a state.
    """

    def __init__(self, envs: Any) -> None:
        layers = list(_layers(envs))
        self.touched = False
        self._envs = envs.unwrapped
        self._saved = saved_by(self._envs)
        self._here = [layer for layer in layers if has_own_state(layer) or _known(layer)]
        self._others = [
            (layer, _fingerprint(layer))
            for layer in layers
            if layer not in self._here and not type(layer).__module__.startswith("gymnasium.")
        ]

    @cached_property
    def _stateful(self) -> list[Any]:
        """Whatever is saved besides the environment itself. Processes are asked only when a state is."""
        return [*self._here, *(state for base in _bases(self._envs) for state in _in_processes(base))]

    def state_dict(self) -> dict[str, Any]:
        """Warns of wrappers that have changed and do not say how to save them."""
        for layer, before in self._others:
            now = _fingerprint(layer)
            changed = sorted(name for name in now if now[name] != before.get(name))
            if changed:
                warnings.warn(
                    f"{type(layer).__name__} changes its {', '.join(changed)} while the environment runs, but has no "
                    "get_state() and set_state(state): a continued run will begin with the values of a new one",
                    stacklevel=3,
                )
        get_state = getattr(self._saved, "get_state", None)
        return {
            "touched": self.touched,
            "envs": get_state() if get_state is not None and self.touched else None,
            "wrappers": [{"wrapper": type(layer).__name__, "state": _state_of(layer)} for layer in self._stateful],
        }

    def check_state(self, state: Mapping[str, Any]) -> None:
        """`ValueError` unless ``state`` is of such an environment with these wrappers."""
        check_like("touched", state["touched"], self.touched)
        if state["envs"] is not None and not hasattr(self._saved, "set_state"):
            raise ValueError(f"the state holds that of an environment, but {self._envs} has no set_state")
        saved, here = [s["wrapper"] for s in state["wrappers"]], [type(layer).__name__ for layer in self._stateful]
        if saved != here:
            raise ValueError(f"the state is of the stateful wrappers {saved}, this environment has {here}")
        for layer, entry in zip(self._stateful, state["wrappers"], strict=True):
            if not has_own_state(layer) or isinstance(layer, _InProcesses):
                _check_form(type(layer).__name__, entry["state"], _state_of(layer))

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue from a `state_dict` that passes `check_state`; the environment itself may refuse its part."""
        if state["envs"] is not None:
            self._saved.set_state(state["envs"])
        self.touched = bool(state["touched"])
        for layer, entry in zip(self._stateful, state["wrappers"], strict=True):
            if has_own_state(layer):
                layer.set_state(entry["state"])
                continue
            for name, value in entry["state"].items():
                owner, parts = (getattr(layer, name), value) if isinstance(value, Mapping) else (layer, {name: value})
                for part, content in parts.items():
                    setattr(owner, part, _copy(content))


def _check_form(name: str, got: Any, expected: Any) -> None:
    """The precision of running averages depends on what was averaged; shape and kind do not."""
    if isinstance(expected, Mapping) and isinstance(got, Mapping) and sorted(got) == sorted(expected):
        for key in expected:
            _check_form(f"{name}.{key}", got[key], expected[key])
    elif isinstance(expected, Mapping) or _form(got) != _form(expected):
        raise ValueError(f"{name}: the state holds {got!r}, which is of another form than {expected!r}")


def _form(value: Any) -> tuple[tuple[int, ...], str]:
    array = np.asarray(value)
    return array.shape, array.dtype.kind


def _layers(envs: Any) -> Iterator[Any]:
    while isinstance(envs, VectorWrapper):
        yield envs
        envs = envs.env
    if isinstance(envs, ConcatVectorEnv):
        for part in envs.parts:
            yield from _layers(part)
        return
    for env in getattr(envs, "envs", None) or ():  # those of a SyncVectorEnv; of others only what is known here
        while isinstance(env, gym.Wrapper):
            if _known(env):
                yield env
            env = env.env


def _bases(envs: Any) -> Iterator[Any]:
    """A vector environment without wrappers, or its parts without theirs."""
    if isinstance(envs, ConcatVectorEnv):
        for part in envs.parts:
            yield from _bases(part.unwrapped)
    else:
        yield envs


class _InProcesses:
    """What Gymnasium's normalisations around the single environments of an ``AsyncVectorEnv`` know."""

    def __init__(self, envs: AsyncVectorEnv, names: list[str]) -> None:
        self._envs, self._names = envs, names

    def get_state(self) -> dict[str, Any]:
        """By attribute, ``(N, ...)`` arrays; of running averages one for each of their parts."""
        return {name: self._read(name) for name in self._names}

    def set_state(self, state: Mapping[str, Any]) -> None:
        """Continue from a `get_state` of as many environments with these wrappers."""
        for name in self._names:
            if name not in _AVERAGES:
                self._envs.set_attr(name, list(state[name]))
                continue
            averages = self._envs.get_attr(name)  # copies
            for part in _RUNNING:
                for average, value in zip(averages, state[name][part], strict=True):
                    setattr(average, part, np.array(value)[()])
            self._envs.set_attr(name, averages)

    def _read(self, name: str) -> Any:
        values = self._envs.get_attr(name)
        if name not in _AVERAGES:
            return np.array(values)
        return {part: np.array([getattr(average, part) for average in values]) for part in _RUNNING}


def _in_processes(envs: Any) -> Iterator[_InProcesses]:
    """Asks the processes. Warns of normalisations that only some of them have."""
    if not isinstance(envs, AsyncVectorEnv) or hasattr(envs, "get_state"):
        return
    names, partly = [], []
    for name in dict.fromkeys(name for kind, known in _KNOWN if issubclass(kind, gym.Wrapper) for name in known):
        has = envs.call("has_wrapper_attr", name)
        if all(has):
            names.append(name)
        elif any(has):
            partly.append(name)
    if partly:
        warnings.warn(
            f"only some of the sub-environments have the normalisation of {', '.join(partly)}: a continued run will "
            "begin with the values of a new one",
            stacklevel=4,
        )
    if names:
        yield _InProcesses(envs, names)


def _known(layer: Any) -> tuple[str, ...]:
    return next((names for kind, names in _KNOWN if isinstance(layer, kind)), ())


def _state_of(layer: Any) -> Any:
    if has_own_state(layer):
        return layer.get_state()
    values = {name: getattr(layer, name) for name in _known(layer) if hasattr(layer, name)}
    return {
        name: {part: _copy(getattr(value, part)) for part in _RUNNING} if _is_running(value) else _copy(value)
        for name, value in values.items()
    }


def _is_running(value: Any) -> bool:
    return all(hasattr(value, part) for part in _RUNNING)


def _copy(value: Any) -> Any:
    return np.array(value) if isinstance(value, np.ndarray | np.generic) else value


def _fingerprint(layer: Any) -> dict[str, int]:
    """By name, the content of attributes that are numbers, arrays or running averages."""
    found = {}
    for name, value in vars(layer).items():
        if isinstance(value, Number | np.ndarray):
            found[name] = hash(np.asarray(value).tobytes())
        elif not isinstance(value, np.ndarray) and "mean" in getattr(value, "__dict__", {}) and _is_running(value):
            found[name] = hash(tuple(np.asarray(getattr(value, part)).tobytes() for part in _RUNNING))
    return found
