"""ConcatVectorEnv: vector environments side by side as one, so that each can be a task."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from typing import Any

import numpy as np
from gymnasium.vector import AsyncVectorEnv, AutoresetMode, VectorEnv
from gymnasium.vector.utils import batch_space
from numpy.typing import ArrayLike, NDArray

from qmp_collect.arguments import check_envs, told_by_sub_environments
from qmp_collect.autoreset import find_autoreset_mode
from qmp_collect.backends import to_numpy
from qmp_collect.outcome import flags_of
from qmp_collect.records import is_composite, named, of_state, pack, to_state
from qmp_collect.states import restore, state_of
from qmp_collect.sub_environments import saved_by

__all__ = ["ConcatVectorEnv"]

Array = NDArray[Any]
Infos = dict[str, Any]
Outcome = tuple[Any, Any, Any, Any, Infos]


class ConcatVectorEnv(VectorEnv[Array, Array, Array]):
    """Joins vector environments with equal spaces; the sub-environments of the first come first, and so on.

    Whatever makes many environments of *one* task (EnvPool, Brax, ManiSkill, Gymnasium) becomes a multi-task vector
    environment with `task_ids`. It behaves as one `SyncVectorEnv` of all sub-environments would: observations, rewards,
    flags, infos with their masks, seeds, partial resets. Parts that can work at the same time do
    (``AsyncVectorEnv``, EnvPool); results arrive as NumPy arrays.

    Args:
        envs: At least one vector environment, the parts. They are closed with this one.
        task_ids: ``(N,)`` integers, the task of each sub-environment. Default: each part is one task; a part that has
            ``task_ids`` of its own, or whose sub-environments are of several tasks (``metadata["task_attribute"]``),
            keeps them, counted on from the tasks of the parts before it.
        autoreset_mode: Default: what each part states.

    Attributes:
        parts: The vector environments.
        task_ids: ``(N,)`` int64.
        num_tasks: ``T``.

    Raises:
        TypeError: A part is no vector environment, or its spaces are no arrays.
        ValueError: No parts, parts with different spaces or autoreset modes, or ``task_ids`` of another length.
            From `step` and `reset`, a part that returns another number of rows than it has sub-environments.
    """

    def __init__(
        self,
        envs: Sequence[VectorEnv[Any, Any, Any]],
        *,
        task_ids: ArrayLike | None = None,
        autoreset_mode: AutoresetMode | str | None = None,
    ) -> None:
        self.parts = list(envs)
        if not self.parts:
            raise ValueError("expected at least one vector environment, got none")
        for part in self.parts:
            check_envs(part)
        first = self.parts[0]
        modes = [find_autoreset_mode(part, autoreset_mode) for part in self.parts]
        for index, part in enumerate(self.parts):
            for name in ("single_observation_space", "single_action_space"):
                if getattr(part, name) != getattr(first, name):
                    raise ValueError(
                        f"envs[{index}].{name} is {getattr(part, name)}, that of envs[0] is {getattr(first, name)}: "
                        "wrap the parts so that their spaces are equal"
                    )
            if modes[index] is not modes[0]:
                raise ValueError(
                    f"envs[{index}] resets itself in {modes[index].name} mode, envs[0] in {modes[0].name}: make all "
                    "parts with one autoreset mode"
                )
        self._sizes = [int(part.num_envs) for part in self.parts]
        ends = np.cumsum(self._sizes)
        self._rows = [slice(int(end) - size, int(end)) for end, size in zip(ends, self._sizes, strict=True)]
        self.num_envs = int(ends[-1])
        self.task_ids, self.num_tasks = _tasks(self.parts, task_ids)
        self.autoreset_mode = modes[0]
        self.metadata = {"autoreset_mode": self.autoreset_mode}
        self.render_mode = first.render_mode
        self.episode_metrics = _united([getattr(part.unwrapped, "episode_metrics", {}) for part in self.parts])
        self.single_observation_space = first.single_observation_space
        self.single_action_space = first.single_action_space
        self.observation_space = batch_space(self.single_observation_space, self.num_envs)
        self.action_space = batch_space(self.single_action_space, self.num_envs)
        self._saved = [saved_by(part.unwrapped) for part in self.parts]
        self._obs: list[Array] = []  # the last ones, of which a partial reset keeps some

    def reset(
        self, *, seed: int | Sequence[int | None] | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Array, Infos]:
        """Reset all sub-environments, or those of ``options["reset_mask"]``.

        Args:
            seed: A number for the first sub-environment, counted up from there, or one for each.
            options: Passed on to the parts; each gets its rows of ``reset_mask``, and is left alone where it has none.
        """
        options = dict(options or {})
        given = options.pop("reset_mask", None)
        mask = np.ones(self.num_envs, np.bool_) if given is None else flags_of("reset_mask", given, self.num_envs)
        if not mask.any():
            raise ValueError("reset_mask has no True: nothing would be reset")
        if not mask.all() and not self._obs:
            raise ValueError("reset_mask leaves out sub-environments, but all of them must be reset first")
        if seed is not None and not isinstance(seed, int | np.integer) and len(seed) != self.num_envs:
            raise ValueError(f"expected {self.num_envs} seeds, one per sub-environment, got {len(seed)}")
        obs, infos = list(self._obs) or [np.empty(0)] * len(self.parts), [Infos() for _ in self.parts]
        for index, (part, rows) in enumerate(zip(self.parts, self._rows, strict=True)):
            if not (chosen := mask[rows]).any():
                continue
            of_part = options if chosen.all() else options | {"reset_mask": chosen.copy()}
            start: Any = None
            if isinstance(seed, int | np.integer):
                start = int(seed) + rows.start
            elif seed is not None:
                start = list(seed[rows])
            found, infos[index] = part.reset(seed=start, options=dict(of_part) or None)
            obs[index] = self._observed(index, found)
        self._obs = obs
        return self._side_by_side(), _joined(infos, self._sizes)

    def step(self, actions: Array) -> tuple[Array, Array, Array, Array, Infos]:
        """Step all parts, each with its rows of ``actions`` ``(N, *A)``."""
        started = [_start(part, actions[rows]) for part, rows in zip(self.parts, self._rows, strict=True)]
        outcomes: list[Outcome] = []
        errors: list[Exception] = []
        for finish in started:
            try:
                outcomes.append(finish())
            except Exception as error:  # those that work already are waited for, so that they can be reset
                errors.append(error)
        if errors:
            raise errors[0]
        columns: list[list[Array]] = []
        observed = [self._observed(index, outcome[0]) for index, outcome in enumerate(outcomes)]
        for column, name in enumerate(("rewards", "terminations", "truncations"), start=1):
            columns.append([self._checked(index, name, outcome[column]) for index, outcome in enumerate(outcomes)])
        self._obs = observed
        rewards, terminations, truncations = (np.concatenate(column) for column in columns)
        return (
            self._side_by_side(),
            rewards,
            terminations,
            truncations,
            _joined([outcome[4] for outcome in outcomes], self._sizes),
        )

    def _observed(self, index: int, found: Any) -> Array:
        """A part's observations as one array, of a Dict or Tuple space as records."""
        space = self.single_observation_space
        if is_composite(space):
            return pack(space, found, self._sizes[index], f"observations of envs[{index}]")
        return self._checked(index, "observations", found)

    def _side_by_side(self) -> Any:
        obs = np.concatenate(self._obs)
        return named(self.single_observation_space, obs) if is_composite(self.single_observation_space) else obs

    def _checked(self, index: int, name: str, found: Any) -> Array:
        array = to_numpy(found)
        if array.shape[:1] != (self._sizes[index],):
            raise ValueError(
                f"envs[{index}] returned {name} of shape {array.shape} for {self._sizes[index]} sub-environments: "
                "expected one row for each, in the same order at every step (an EnvPool with batch_size < num_envs has "
                "not)"
            )
        return array

    def get_state(self) -> dict[str, Any] | None:
        """The parts' states; `None` if one has none. Those of wrappers around the parts are the collector's to save."""
        if not self._obs or not all(hasattr(part, "get_state") for part in self._saved):
            return None
        return {"parts": [state_of(part) for part in self._saved], "obs": [to_state(obs) for obs in self._obs]}

    def set_state(self, state: Mapping[str, Any]) -> None:
        """Continue from ``get_state()`` of as many parts. A part may refuse its state; then nothing has changed."""
        if len(state["parts"]) != len(self.parts):
            raise ValueError(f"the state is of {len(state['parts'])} parts, this environment has {len(self.parts)}")
        for index, part in enumerate(self._saved):
            if not hasattr(part, "set_state"):
                raise ValueError(f"the state holds that of envs[{index}], but {part} has no set_state")
        found = [of_state(self.single_observation_space, saved) for saved in state["obs"]]
        obs = [self._checked(index, "observations", rows) for index, rows in enumerate(found)]
        before = self.get_state()
        try:
            self._set_parts(state["parts"])
        except Exception:
            if before is not None:
                self._set_parts(before["parts"])
            raise
        self._obs = obs

    def _set_parts(self, states: list[Any]) -> None:
        for part, state in zip(self._saved, states, strict=True):
            restore(part, state)

    def render(self) -> tuple[Any, ...]:
        """The parts' pictures, one after the other."""
        return tuple(frame for part in self.parts for frame in (part.render() or ()))

    def close_extras(self, **kwargs: Any) -> None:
        """Close all parts, whichever of them fails at that."""
        with ExitStack() as stack:
            for part in self.parts:
                stack.callback(part.close, **kwargs)


def _tasks(parts: list[VectorEnv[Any, Any, Any]], given: ArrayLike | None) -> tuple[NDArray[np.int64], int]:
    if given is not None:
        ids = np.array(to_numpy(given))
        size = sum(int(part.num_envs) for part in parts)
        if ids.shape != (size,) or ids.dtype.kind not in "iu" or ids.min() < 0:
            raise ValueError(
                f"expected task_ids to be {size} integers from 0 on, one per sub-environment, got {ids.dtype} of shape "
                f"{ids.shape}" + (f", the smallest being {ids.min()}" if ids.size and ids.dtype.kind == "i" else "")
            )
        return ids.astype(np.int64), int(ids.max()) + 1
    found, before = [], 0
    for part in parts:
        own = _own_tasks(part)
        found.append(before + own)
        before += int(getattr(part.unwrapped, "num_tasks", own.max() + 1))
    return np.concatenate(found).astype(np.int64), before


def _own_tasks(part: VectorEnv[Any, Any, Any]) -> NDArray[Any]:
    """Tasks ``(n,)`` of a part, counted from 0; one task unless the part or its sub-environments tell several."""
    if (own := getattr(part.unwrapped, "task_ids", None)) is not None:
        return to_numpy(own)
    told = told_by_sub_environments(part)
    return np.zeros(part.num_envs, np.int64) if told is None or len(np.unique(told)) == 1 else told


def _united(metrics: list[Mapping[str, Any]]) -> dict[str, Any]:
    united: dict[str, Any] = {}
    for index, of_part in enumerate(metrics):
        for key, reduction in of_part.items():
            if united.setdefault(key, reduction) != reduction:
                raise ValueError(
                    f"envs[{index}] takes the {reduction!r} of {key!r}, a part before it the {united[key]!r}"
                )
    return united


def _start(part: VectorEnv[Any, Any, Any], actions: Array) -> Callable[[], Outcome]:
    """Begin a step, where the part's own `step` does no more than begin one and wait, and say how to wait for it."""
    step = type(part).step
    if step is AsyncVectorEnv.step:
        part.step_async(actions)  # type: ignore[attr-defined]
        return part.step_wait  # type: ignore[attr-defined,no-any-return]
    if step.__module__.partition(".")[0] == "envpool":
        part.send(actions)  # type: ignore[attr-defined]
        return part.recv  # type: ignore[attr-defined,no-any-return]
    return lambda: part.step(actions)


def _joined(infos: list[Infos], sizes: list[int]) -> Infos:
    """The parts' infos as those of one vector environment: a mask ``_key`` beside every key."""
    joined: Infos = {}
    keys = {key: None for of_part in infos for key in of_part}
    for key in keys:
        if key[:1] == "_" and key[1:] in keys:
            continue  # a mask, joined with what it belongs to
        values = [of_part.get(key) for of_part in infos]
        masks = [
            to_numpy(of_part.get(f"_{key}", np.full(size, key in of_part)))
            for of_part, size in zip(infos, sizes, strict=True)
        ]
        if all(value is None or isinstance(value, dict) for value in values):
            joined[key] = _joined([value or {} for value in values], sizes)
        else:
            joined[key] = _column(values, sizes)
        joined[f"_{key}"] = np.concatenate(masks)
    return joined


def _column(values: list[Any], sizes: list[int]) -> Array:
    """One row per sub-environment of values by part, zeros (of objects, `None`) for parts that have none."""
    found = [None if value is None else _per_row(value, size) for value, size in zip(values, sizes, strict=True)]
    present = [array for array in found if array is not None]
    like = present[0]
    if any(array.dtype == object or array.shape[1:] != like.shape[1:] for array in present):
        return np.concatenate(
            [_objects([None] * size if rows is None else rows) for rows, size in zip(found, sizes, strict=True)]
        )
    nothing = np.zeros((max(sizes), *like.shape[1:]), like.dtype)
    return np.concatenate([nothing[:size] if rows is None else rows for rows, size in zip(found, sizes, strict=True)])


def _per_row(value: Any, size: int) -> Array:
    """``(size, ...)``; what a part says of itself as a whole is said of each of its rows."""
    if isinstance(value, list | tuple):
        return _objects(value if len(value) == size else [value] * size)
    array = to_numpy(value)
    if array.shape[:1] == (size,):
        return array
    return np.repeat(array, size) if array.ndim == 0 else _objects([array] * size)


def _objects(rows: Sequence[Any] | Array) -> Array:
    objects = np.full(len(rows), None, object)
    for index, row in enumerate(rows):
        objects[index] = row
    return objects
