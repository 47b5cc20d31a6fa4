"""What environments are given, checked: the same rules for all sets, natively batched or not."""

from __future__ import annotations

import operator
import sys
from collections.abc import Mapping, Sequence
from typing import Any, Literal, TypeAlias, get_args

import numpy as np
import numpy.typing as npt
from gymnasium.wrappers import TimeLimit

from qmp_envs.task_set import Array, TaskSet

# What happens to a simulation that diverges: an error, or the end of the episode.
OnDivergence: TypeAlias = Literal["raise", "end"]
# Who draws pictures: this package, with NumPy alone, or MuJoCo, with OpenGL.
Renderer: TypeAlias = Literal["numpy", "mujoco"]


def assign_tasks(
    task_set: TaskSet, num_envs: int, task_ids: Sequence[int] | npt.NDArray[np.integer[Any]] | None
) -> npt.NDArray[np.int64]:
    """Task of each sub-environment, (N,) int64: ``task_ids`` checked, or ``i % T``.

    Raises:
        ValueError: N below 1, not one id per sub-environment, or ids out of range.
    """
    if num_envs < 1:
        raise ValueError(f"num_envs must be at least 1, got {num_envs}")
    if task_ids is None:
        return np.arange(num_envs, dtype=np.int64) % task_set.num_tasks
    ids = np.asarray(task_ids)
    if ids.shape != (num_envs,) or ids.dtype.kind not in "iu":
        raise ValueError(f"task_ids must be {num_envs} integers, one per sub-environment, got {task_ids!r}")
    for i in np.flatnonzero((ids < 0) | (ids >= task_set.num_tasks)):
        which = "task" if num_envs == 1 else f"task_ids[{i}]"
        raise ValueError(f"{which} is {ids[i]}, but {task_set.env_id} has tasks 0 to {task_set.num_tasks - 1}")
    return ids.astype(np.int64)


def checked_limit(max_episode_steps: int | None, task_set: TaskSet) -> int:
    """The number of steps after which an episode is truncated: what was asked for, or the task set's horizon."""
    if max_episode_steps is None:
        return task_set.horizon
    limit = operator.index(max_episode_steps)
    if limit < 1:
        raise ValueError(f"max_episode_steps must be at least 1, got {limit}")
    return limit


def check_modes(
    render_mode: str | None, on_divergence: str, renderer: str, renderers: Sequence[str] = get_args(Renderer)
) -> None:
    """`ValueError` unless all are known, and ``renderer`` is one of those that the environment has."""
    if render_mode not in (None, "rgb_array"):
        raise ValueError(f"render_mode must be None or 'rgb_array', got {render_mode!r}")
    if on_divergence not in get_args(OnDivergence):
        raise ValueError(f"on_divergence must be one of {get_args(OnDivergence)}, got {on_divergence!r}")
    if renderer not in renderers:
        raise ValueError(f"renderer must be {' or '.join(map(repr, renderers))}, got {renderer!r}")


def checked_seed(seed: Any) -> int | None:
    """A seed that Gymnasium takes; NumPy's integers become Python's, the only ones it knows.

    Raises:
        TypeError: it is no integer.
        ValueError: it is negative.
    """
    if seed is None:
        return None
    value = operator.index(seed)
    if value < 0:
        raise ValueError(f"seeds must not be negative, got {value}")
    return value


def checked_seeds(seed: int | Sequence[int | None] | Array | None, num_envs: int) -> list[int | None]:
    """A seed for each of N sub-environments: ``seed + i``, or ``seed[i]``; None keeps its generator.

    Raises:
        TypeError: seeds that are no integers.
        ValueError: not N of them, or negative ones.
    """
    if isinstance(seed, Sequence) or (isinstance(seed, np.ndarray) and seed.ndim > 0):
        if len(seed) != num_envs:
            raise ValueError(f"expected a seed per sub-environment ({num_envs}) or one integer, got {len(seed)}")
        return [checked_seed(s) for s in seed]
    first = checked_seed(seed)
    return [None if first is None else first + i for i in range(num_envs)]


def checked_mask(options: Mapping[str, Any] | None, num_envs: int) -> npt.NDArray[np.bool_]:
    """Which sub-environments ``options["reset_mask"]`` wants to be reset, (N,): all of them, if there is none.

    Raises:
        TypeError: the mask is no bool array.
        ValueError: its shape is not (N,), or it is False everywhere.
    """
    mask = (options or {}).get("reset_mask")
    if mask is None:
        return np.ones(num_envs, dtype=np.bool_)
    if not isinstance(mask, np.ndarray) or mask.dtype != np.bool_:
        raise TypeError(f"options['reset_mask'] must be a bool numpy array, got {mask!r}")
    if mask.shape != (num_envs,) or not mask.any():
        raise ValueError(f"options['reset_mask'] must have shape ({num_envs},) and one True at least, got {mask}")
    return mask


def check_same_tasks(task_set: TaskSet, task_ids: npt.NDArray[np.int64], state: Mapping[str, Any]) -> None:
    """`ValueError` unless ``state`` is of sub-environments with these tasks."""
    if state["env_id"] != task_set.env_id or not np.array_equal(state["task_ids"], task_ids):
        saved = np.asarray(state["task_ids"]).tolist()
        raise ValueError(
            f"expected a state of {task_set.env_id} with tasks {task_ids.tolist()}, "
            f"got one of {state['env_id']} with tasks {saved}"
        )


def diverged(where: str) -> str:
    """What an error says of a simulation that diverged."""
    return (
        f"the physics of {where} diverged: MuJoCo found NaN, infinite or huge values. It must be reset; nothing else "
        "has moved. Made with on_divergence='end', the environment ends such episodes and counts them"
    )


def outer_limit() -> int | None:
    """The limit of the `TimeLimit` wrapper that called the running ``reset``, or None if none did.

    ``gymnasium.make(env_id, max_episode_steps=M)`` keeps M from the environment and wraps it instead. A wrapper can
    only shorten episodes, and an environment whose success is decided at their end must know where that is.
    """
    frame = sys._getframe(1)
    while frame is not None:
        if frame.f_code is TimeLimit.reset.__code__:
            return int(frame.f_locals["self"]._max_episode_steps)
        frame = frame.f_back  # type: ignore[assignment]
    return None
