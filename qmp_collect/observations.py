"""The border between observations as environments and callables know them, and the rows that are carried inside.

Of a `Box` and the like, both are the same arrays. Of a `Dict` or `Tuple`, outside they are dicts and tuples of arrays,
and inside records (`qmp_collect.records`).
"""

from __future__ import annotations

from typing import Any

import gymnasium as gym
import numpy as np
from numpy.typing import NDArray

from qmp_collect.asked import Shared, SharedParts
from qmp_collect.outcome import rows_of
from qmp_collect.records import is_composite, named, pack, parts_of, record_dtype

_FINAL = ("final_obs", "final_observation")  # the second by older libraries


class Observations:
    """Of ``N`` sub-environments with observations of one space."""

    def __init__(self, space: gym.Space[Any], num_envs: int) -> None:
        self._space, self._num_envs = space, num_envs
        self.composite = is_composite(space)
        self.dtype = record_dtype(space) if self.composite else None
        self.shape = (num_envs,) if self.composite else (num_envs, *(space.shape or ()))

    def rows(self, obs: Any) -> NDArray[Any]:
        """What an environment or a caller gave, as rows; a copy. `ValueError` for other shapes or parts."""
        if not self.composite or (isinstance(obs, np.ndarray) and obs.dtype == self.dtype):
            return rows_of("observations", obs, self.shape)
        return pack(self._space, obs, self._num_envs)

    def outside(self, rows: NDArray[Any]) -> Any:
        """Rows as the environment gives them; copies."""
        return named(self._space, rows)

    def infos(self, infos: Any) -> Any:
        """The infos of a step, with last observations as rows."""
        if not self.composite or not isinstance(infos, dict):
            return infos
        return infos | {key: self._finals(key, infos[key]) for key in _FINAL if infos.get(key) is not None}

    def _finals(self, key: str, found: Any) -> NDArray[Any]:
        """Gymnasium gives an array of observations and `None`, others one observation of arrays."""
        if isinstance(found, dict):
            return pack(self._space, found, self._num_envs, f'infos["{key}"]')
        finals = np.full(self._num_envs, None, object)
        for env, obs in enumerate(found):
            if obs is not None:
                finals[env] = pack(self._space, obs, None, f'infos["{key}"][{env}]')
        return finals


def shared(space: gym.Space[Any] | None, rows: NDArray[Any]) -> Shared | SharedParts:
    """Rows for callables. Elements of a `Box` are numbers: they arrive as floating point, integers too."""
    if space is None or not is_composite(space):
        return Shared(rows, space is None or isinstance(space, gym.spaces.Box))
    parts = {key: shared(part, rows[field]) for field, key, part in parts_of(space)}
    return SharedParts(parts if isinstance(space, gym.spaces.Dict) else tuple(parts.values()))
