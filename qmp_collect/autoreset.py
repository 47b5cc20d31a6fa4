"""The one place that knows Gymnasium's three autoreset modes.

| mode | the step that ends an episode returns | the step after it |
|---|---|---|
| NEXT_STEP | the true successor | ignores the action and returns the reset observation: not a transition |
| SAME_STEP | the reset observation; the true successor is in ``infos["final_obs"]`` | is an ordinary step |
| DISABLED | the true successor | is an error until the caller resets the sub-environment |
"""

from __future__ import annotations

from typing import Any

import numpy as np
from gymnasium.vector import AutoresetMode, VectorEnv
from numpy.typing import NDArray

from qmp_collect.backends import to_numpy

Mask = NDArray[np.bool_]


def find_autoreset_mode(envs: VectorEnv[Any, Any, Any], explicit: AutoresetMode | str | None = None) -> AutoresetMode:
    """The autoreset mode of ``envs``.

    The instance is asked before its ``metadata``, which Gymnasium shares between all instances of a class and which
    a second environment may have overwritten.

    Raises:
        ValueError: If the mode is neither given nor stated by the environment, or is none of Gymnasium's.
    """
    metadata = envs.metadata or {}
    for mode in (explicit, getattr(envs.unwrapped, "autoreset_mode", None), metadata.get("autoreset_mode")):
        if mode is not None:
            return _mode(mode)
    raise ValueError(
        f"{envs} states no autoreset mode: expected `envs.unwrapped.autoreset_mode` or "
        '`envs.metadata["autoreset_mode"]`. Pass autoreset_mode=gymnasium.vector.AutoresetMode.NEXT_STEP (or '
        "SAME_STEP, DISABLED), whichever the environment implements"
    )


def _mode(stated: Any) -> AutoresetMode:
    """A mode by itself, by its value or by its name."""
    if isinstance(stated, str) and stated in AutoresetMode.__members__:
        return AutoresetMode[stated]
    try:
        return AutoresetMode(stated)
    except ValueError:
        raise ValueError(f"autoreset_mode must be one of {list(AutoresetMode.__members__)}, got {stated!r}") from None


def true_successors(mode: AutoresetMode, next_obs: NDArray[Any], done: Mask, infos: dict[str, Any]) -> NDArray[Any]:
    """The observations that the steps led to, ``(N, *O)``, never those of a reset; a fresh array.

    Raises:
        TypeError: ``infos`` is no dict of arrays.
        ValueError: A last observation is missing, has another shape, or shows that the mode is another one.
    """
    if not isinstance(infos, dict):
        raise TypeError(
            f"infos must be a dict of arrays, as vector environments return it, got {type(infos).__name__}: leave "
            "out gymnasium.wrappers.vector.DictInfoToList"
        )
    successors = np.array(next_obs)
    if not done.any():
        return successors
    key = "final_obs" if "final_obs" in infos else "final_observation"  # the second by older libraries
    final_obs: Any = infos.get(key)
    present: Any = infos.get(f"_{key}")
    for env in np.flatnonzero(done):
        missing = final_obs is None or final_obs[env] is None or (present is not None and not present[env])
        if missing and mode is not AutoresetMode.SAME_STEP:
            continue
        if missing:
            raise ValueError(
                f'sub-environment {env} ended its episode, but infos["final_obs"] does not hold its last '
                "observation: an environment in SAME_STEP mode must put it there. If the environment works in "
                "another mode, pass autoreset_mode"
            )
        final = to_numpy(final_obs[env])
        if not np.can_cast(final.dtype, successors.dtype, "same_kind"):  # resets give integers, steps do not
            successors = successors.astype(np.result_type(successors, final))
        if final.shape != successors.shape[1:]:
            raise ValueError(
                f'infos["{key}"][{env}] has shape {final.shape}, but observations have shape '
                f"{successors.shape[1:]}: a wrapper changes observations without changing the final ones"
            )
        if mode is not AutoresetMode.SAME_STEP and not _same(final, successors[env]):
            raise ValueError(
                f'sub-environment {env} ended its episode, and infos["{key}"] holds another last observation than the '
                f"step returned: that is how SAME_STEP works, not {mode.name}. Pass autoreset_mode"
            )
        successors[env] = final
    return successors


def _same(a: NDArray[Any], b: NDArray[Any]) -> bool:
    """Also where both are NaN, which is another fault, and told as that one."""
    return np.array_equal(a, b) or a.astype(b.dtype).tobytes() == b.tobytes()


def step_report(mode: AutoresetMode, key: str, done: Mask, infos: dict[str, Any]) -> tuple[NDArray[np.float64], Mask]:
    """What the step itself reported under ``infos[key]``: ``(N,)`` numbers, and ``(N,)`` where there is one.

    In SAME_STEP mode the infos of a finished sub-environment are those of the reset, and the step's own lie under
    ``infos["final_info"]``; but for what a wrapper of the vector environment adds, an array without a mask.

    Raises:
        ValueError: ``infos[key]`` is not one number per sub-environment.
    """
    values, reported = _report(infos, key, len(done))
    final_info: Any = infos.get("final_info")
    if mode is not AutoresetMode.SAME_STEP or final_info is None:
        return values, reported
    final_values, final_reported = _report(final_info, key, len(done))
    if not final_reported.any() and f"_{key}" not in infos:
        return values, reported
    return np.where(done, final_values, values), np.where(done, final_reported, reported)


def _report(infos: Any, key: str, num_envs: int) -> tuple[NDArray[np.float64], Mask]:
    if not isinstance(infos, dict):  # older libraries: one dict, or None, for each sub-environment
        found = [None if info is None else info.get(key) for info in infos]
        infos = {} if all(value is None for value in found) else {key: np.fromiter(found, object, num_envs)}
    if key not in infos:
        return np.zeros(num_envs), np.zeros(num_envs, np.bool_)
    given = to_numpy(infos[key])
    reported = to_numpy(infos.get(f"_{key}", np.ones(num_envs, np.bool_))).reshape(-1)
    if given.shape[:1] != (num_envs,) or reported.shape != (num_envs,):
        raise ValueError(
            f"infos[{key!r}] must hold one number per sub-environment, shape ({num_envs},), got shape {given.shape} "
            f"and a mask of shape {reported.shape}"
        )
    if given.dtype == object:  # None where a sub-environment did not report, or arrays of one element
        reported = reported & np.array([value is not None for value in given])
        given = np.array([0.0 if value is None else _number(value, key, env) for env, value in enumerate(given)])
    values = given.astype(np.float64)
    if values.shape == (num_envs, 1):
        values = values[:, 0]
    if values.shape != (num_envs,):
        raise ValueError(
            f"infos[{key!r}] must hold one number per sub-environment, shape ({num_envs},), got shape {values.shape}"
        )
    return values, reported.astype(np.bool_)


def _number(value: Any, key: str, env: int) -> float:
    array = to_numpy(value)
    if array.size != 1:
        raise ValueError(f"infos[{key!r}][{env}] must be one number, got an array of shape {array.shape}")
    return float(array.reshape(()))
