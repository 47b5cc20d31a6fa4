"""What environments and callers hand over, checked and brought into one form before anything is kept of it."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from qmp_collect.backends import to_numpy
from qmp_collect.records import leaves
from qmp_collect.switch import Ids

Mask = NDArray[np.bool_]


class Outcome(NamedTuple):
    """What ``envs.step`` returned, one row for each sub-environment."""

    obs: NDArray[Any]
    rewards: NDArray[np.floating[Any]]
    terminations: Mask
    truncations: Mask

    @staticmethod
    def of(obs: NDArray[Any], rewards: Any, terminations: Any, truncations: Any) -> Outcome:
        """Copies, beside observations that are rows already. `ValueError` for other shapes."""
        n = len(obs)
        return Outcome(
            obs,
            rewards_of(rewards, n),
            flags_of("terminations", terminations, n),
            flags_of("truncations", truncations, n),
        )


def rows_of(name: str, values: Any, shape: tuple[int, ...]) -> NDArray[Any]:
    """A copy of ``values`` (environments may reuse their arrays, and callers write to them) of this shape.

    Raises:
        ValueError: It has another one.
    """
    rows = np.array(to_numpy(values))
    if rows.shape != shape:
        raise ValueError(f"expected {name} of shape {shape}, one row per sub-environment, got {rows.shape}")
    return rows


def flags_of(name: str, values: Any, num_envs: int) -> Mask:
    """``(N,)`` booleans; errors as of `rows_of`."""
    return rows_of(name, values, (num_envs,)).astype(np.bool_, copy=False)


def rewards_of(values: Any, num_envs: int) -> NDArray[np.floating[Any]]:
    """``(N,)`` rewards in the precision in which they came, others than float32 and float64 as float64."""
    rewards = rows_of("rewards", values, (num_envs,))
    return rewards if rewards.dtype in (np.float32, np.float64) else rewards.astype(np.float64)


def check_numbers(what: str, values: NDArray[Any], rows: Mask, task_ids: Ids, num_steps: int) -> None:
    """`FloatingPointError` naming the first of ``rows`` whose values ``(N, ...)`` an environment spoilt.

    Rewards must be finite. Observations may be infinite, which some sensors are by design, but no NaN.
    """
    if clean(what, values):
        return
    if values.dtype.names is not None:
        for path, part in leaves(values):
            check_numbers(what + path, part, rows, task_ids, num_steps)
        return
    bad = ~np.isfinite(values) if what == "reward" else np.isnan(values)
    if not (bad := bad.reshape(len(values), -1).any(axis=1) & rows).any():
        return
    env = int(bad.argmax())
    raise FloatingPointError(
        f"the environment returned the {what} {values[env].tolist()} in sub-environment {env} (task {task_ids[env]}) "
        f"at step {num_steps}. Nothing of this step was stored; policies and Q-functions have no part in it"
    )


def clean(what: str, values: NDArray[Any]) -> bool:
    """Whether `check_numbers` has no reason to look closer."""
    if values.dtype.kind != "f":
        return values.dtype.names is None or all(clean(what, part) for _, part in leaves(values))
    if what == "reward":
        return bool(np.count_nonzero(np.isfinite(values)) == values.size)
    return not np.count_nonzero(np.isnan(values))


def check_partial_reset(obs: NDArray[Any], before: NDArray[Any], mask: Mask) -> None:
    """`ValueError` if an environment that was asked to reset the rows of ``mask`` has touched others."""
    touched = moved(obs, before) & ~mask
    if touched.any():
        raise ValueError(
            f"the environment was asked to reset the sub-environments {np.flatnonzero(mask).tolist()} "
            f'(options["reset_mask"]), but the observation of sub-environment {int(touched.argmax())} changed too: it, '
            "or a wrapper, does not know partial resets. Use another autoreset mode than DISABLED"
        )


def moved(obs: NDArray[Any], before: NDArray[Any]) -> Mask:
    """Which rows of two ``(N, ...)`` arrays differ."""
    if obs.dtype.names is not None:
        pairs = zip(leaves(obs), leaves(before), strict=True)
        anywhere: Mask = np.any([moved(part, part_before) for (_, part), (_, part_before) in pairs], axis=0)
        return anywhere
    same = obs == before
    if obs.dtype.kind == "f":
        same |= np.isnan(obs) & np.isnan(before)
    differs: Mask = ~same.all(axis=tuple(range(1, same.ndim)))
    return differs
