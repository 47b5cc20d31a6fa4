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

Mask = NDArray[np.bool_]


def find_autoreset_mode(envs: VectorEnv[Any, Any, Any], explicit: AutoresetMode | str | None = None) -> AutoresetMode:
    """The autoreset mode of ``envs``.

    The instance is asked before its ``metadata``, which Gymnasium shares between all instances of a class and which
    a second environment may have overwritten.

    Raises:
        ValueError: If the mode is neither given nor stated by the environment.
    """
    metadata = envs.metadata or {}
    for mode in (explicit, getattr(envs.unwrapped, "autoreset_mode", None), metadata.get("autoreset_mode")):
        if mode is not None:
            return AutoresetMode(mode)
    raise ValueError(
        f"{envs} states no autoreset mode: expected `envs.unwrapped.autoreset_mode` or "
        '`envs.metadata["autoreset_mode"]`. Pass autoreset_mode=gymnasium.vector.AutoresetMode.NEXT_STEP (or '
        "SAME_STEP, DISABLED), whichever the environment implements"
    )


def true_successors(mode: AutoresetMode, next_obs: NDArray[Any], done: Mask, infos: dict[str, Any]) -> NDArray[Any]:
    """The observations that the steps led to, ``(N, *O)``, never those of a reset; a fresh array."""
    successors = np.array(next_obs)
    if mode is AutoresetMode.SAME_STEP and done.any():
        final_obs = infos.get("final_obs")
        for env in np.flatnonzero(done):
            if final_obs is None or final_obs[env] is None:
                raise ValueError(
                    f'sub-environment {env} ended its episode, but infos["final_obs"] does not hold its last '
                    "observation: an environment in SAME_STEP mode must put it there. If the environment works in "
                    "another mode, pass autoreset_mode"
                )
            final = np.asarray(final_obs[env])
            if final.shape != successors.shape[1:]:
                raise ValueError(
                    f'infos["final_obs"][{env}] has shape {final.shape}, but observations have shape '
                    f"{successors.shape[1:]}: a wrapper changes observations without changing the final ones"
                )
            successors[env] = final
    return successors


def step_success(mode: AutoresetMode, key: str, done: Mask, infos: dict[str, Any]) -> Mask:
    """Whether ``infos[key]`` was set by the step itself, ``(N,)``; ``False`` where the environment does not say.

    In SAME_STEP mode the infos of a finished sub-environment are those of the reset, and the step's own lie under
    ``infos["final_info"]``.
    """
    if not isinstance(infos, dict):
        raise TypeError(
            f"infos must be a dict of arrays, as vector environments return it, got {type(infos).__name__}: leave "
            "out gymnasium.wrappers.vector.DictInfoToList"
        )
    success = _flags(infos, key, len(done))
    if mode is AutoresetMode.SAME_STEP and "final_info" in infos:
        success = np.where(done, _flags(infos["final_info"], key, len(done)), success)
    return success


def _flags(infos: dict[str, Any], key: str, num_envs: int) -> Mask:
    if key not in infos:
        return np.zeros(num_envs, dtype=np.bool_)
    values = np.asarray(infos[key])
    if values.dtype.kind == "f":
        values = np.nan_to_num(values)
    flags: Mask = values.astype(np.bool_)  # None, in an object array, becomes False
    present = infos.get(f"_{key}")
    return flags if present is None else flags & present
