"""What a vector environment and its wrappers know, saved and restored with the collector.

Gymnasium's normalisations, episode statistics and time as an observation are known here, around the vector environment
or its parts and inside a ``SyncVectorEnv``; of the processes of an ``AsyncVectorEnv`` the normalisations. A wrapper of
one's own takes part by ``get_state()`` and ``set_state(state)``, and so does an environment: a vector environment, or
all single ones of a ``SyncVectorEnv``. Of other wrappers that change, a state warns.
"""

from __future__ import annotations

import warnings
from collections import deque
from collections.abc import Hashable, Iterable, Iterator, Mapping
from functools import cached_property
from numbers import Number
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium.vector import AsyncVectorEnv, VectorWrapper
from gymnasium.wrappers import vector

from qmp_collect.concat import ConcatVectorEnv
from qmp_collect.states import check_like, has_own_state, restore, state_of
from qmp_collect.sub_environments import saved_by

_RUNNING = ("mean", "var", "count")
_AVERAGES = ("obs_rms", "return_rms")
_KNOWN: tuple[tuple[type, tuple[str, ...]], ...] = (
    (vector.NormalizeObservation, ("obs_rms", "_update_running_mean")),
    (vector.NormalizeReward, ("return_rms", "accumulated_reward", "_prev_dones", "_update_running_mean")),
    (vector.RecordEpisodeStatistics, ("episode_count", "episode_returns", "episode_lengths", "prev_dones")),
    (gym.wrappers.NormalizeObservation, ("obs_rms", "_update_running_mean")),
    (gym.wrappers.NormalizeReward, ("return_rms", "discounted_reward", "_update_running_mean")),
    (gym.wrappers.RecordEpisodeStatistics, ("episode_count", "episode_returns", "episode_lengths")),
    (gym.wrappers.TimeAwareObservation, ("timesteps",)),
)
_IN_PROCESSES = (gym.wrappers.NormalizeObservation, gym.wrappers.NormalizeReward)
# Gymnasium's that are not saved, and whose memory is of the running episode.
_OF_THE_EPISODE = (
    gym.wrappers.AtariPreprocessing,
    gym.wrappers.DelayObservation,
    gym.wrappers.FrameStackObservation,
    gym.wrappers.StickyAction,
)
_DEPTH = 4  # of containers in an attribute that is looked at for changes


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
        self._watched = [(layer, _fingerprint(layer)) for layer in layers if not has_own_state(layer)]

    @cached_property
    def _stateful(self) -> list[Any]:
        """Whatever is saved besides the environment itself. Processes are asked only when a state is."""
        return [*self._here, *(state for base in _bases(self._envs) for state in _in_processes(base))]

    def state_dict(self) -> dict[str, Any]:
        """Warns of wrappers that have changed and do not say how to save them."""
        envs = self._of_envs()
        for name, changed in self._forgotten(new_episodes=envs is None).items():
            warnings.warn(
                f"{name} changes its {', '.join(sorted(changed))} while the environment runs, but has no "
                "get_state() and set_state(state): a continued run will begin with the values of a new one",
                stacklevel=3,
            )
        return {
            "touched": self.touched,
            "envs": envs,
            "wrappers": [{"wrapper": type(layer).__name__, "state": _state_of(layer)} for layer in self._stateful],
        }

    def _forgotten(self, new_episodes: bool) -> dict[str, set[str]]:
        """By class of wrapper, the attributes that have changed and are not in a state.

        Args:
            new_episodes: whether who continues begins with them, as Gymnasium's wrappers then do, too.
        """
        forgotten: dict[str, set[str]] = {}
        for layer, before in self._watched:
            if new_episodes and isinstance(layer, _OF_THE_EPISODE):
                continue
            now = _fingerprint(layer)
            if changed := {name for name in now.keys() | before.keys() if now.get(name) != before.get(name)}:
                forgotten.setdefault(type(layer).__name__, set()).update(changed)
        return forgotten

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
        """Continue from a `state_dict` that passes `check_state`.

        The environment and wrappers of one's own may refuse their parts; then all that had a state has it again.
        """
        saved = [entry["state"] for entry in state["wrappers"]]
        # What never was reset may not be able to say its state, and has no episode to go on with.
        here = [(layer, _state_of(layer)) for layer in self._stateful if self.touched or not has_own_state(layer)]
        envs = self._of_envs()
        try:
            self._set(state["envs"], zip(self._stateful, saved, strict=True))
        except Exception:
            self._set(envs if state["envs"] is not None else None, here)
            raise
        self.touched = bool(state["touched"])

    def _of_envs(self) -> Any:
        return state_of(self._saved) if self.touched and hasattr(self._saved, "get_state") else None

    def _set(self, envs: Any, wrappers: Iterable[tuple[Any, Any]]) -> None:
        if envs is not None:
            restore(self._saved, envs)
        for layer, state in wrappers:
            _restore(layer, state)


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
    for env in getattr(envs, "envs", None) or ():  # those of a SyncVectorEnv
        while isinstance(env, gym.Wrapper):
            if _known(env) or not has_own_state(envs):  # a vector environment with a state answers for what is in it
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
    for name in dict.fromkeys(name for kind, known in _KNOWN if kind in _IN_PROCESSES for name in known):
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
        return state_of(layer)
    values = {name: getattr(layer, name) for name in _known(layer) if hasattr(layer, name)}
    return {
        name: {part: _copy(getattr(value, part)) for part in _RUNNING} if _is_running(value) else _copy(value)
        for name, value in values.items()
    }


def _restore(layer: Any, state: Any) -> None:
    if has_own_state(layer):
        restore(layer, state)
        return
    for name, value in state.items():
        owner, parts = (getattr(layer, name), value) if isinstance(value, Mapping) else (layer, {name: value})
        for part, content in parts.items():
            setattr(owner, part, _copy(content))


def _is_running(value: Any) -> bool:
    return all(hasattr(value, part) for part in _RUNNING)


def _copy(value: Any) -> Any:
    return np.array(value) if isinstance(value, np.ndarray | np.generic) else value


def _fingerprint(layer: Any) -> dict[str, int]:
    """By name, what of the attributes can be compared and is not saved otherwise."""
    of_gymnasium = type(layer).__module__.startswith("gymnasium.")
    if of_gymnasium and not isinstance(layer, _OF_THE_EPISODE):
        return {}
    elsewhere = {*_known(layer), "_elapsed_steps"} if isinstance(layer, gym.wrappers.TimeLimit) else _known(layer)
    contents = {name: _content(value) for name, value in vars(layer).items() if name not in elsewhere}
    return {name: hash(content) for name, content in contents.items() if content is not None}


def _content(value: Any, depth: int = 0) -> Hashable:
    """Numbers, texts, arrays, running averages and generators, in containers too; `None` of anything else."""
    if depth > _DEPTH:
        return None
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, np.ndarray):
        return _content(value.tolist(), depth) if value.dtype.hasobject else (value.shape, value.tobytes())
    if isinstance(value, Number | str | bytes):
        return value if value == value else "nan"
    if isinstance(value, np.random.Generator):
        return _content(value.bit_generator.state, depth)
    if isinstance(value, Mapping):
        return tuple((_content(key, depth + 1), _content(part, depth + 1)) for key, part in value.items())
    if isinstance(value, list | tuple | deque):
        return tuple(_content(part, depth + 1) for part in value)
    if "mean" in getattr(value, "__dict__", {}) and _is_running(value):
        return tuple(_content(getattr(value, part), depth + 1) for part in _RUNNING)
    return None
