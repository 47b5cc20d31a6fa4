"""The Q-switch's choice made where the scores lie: of ``N * K`` candidates on an accelerator, ``N`` cross over."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from qmp_collect.backends import host
from qmp_collect.switch import Floats, Ids


class Highest(NamedTuple):
    """What `QSwitch()` chooses where every row asks and everything is finite; ``scores`` are those of the chosen."""

    actions: NDArray[Any]  # (N, *A)
    ids: Ids  # (N,)
    scores: Floats  # (N,)
    own_scores: Floats  # (N,)

    def of(self, rows: NDArray[np.int64] | slice) -> Highest:
        """Some of the rows."""
        return Highest(self.actions[rows], self.ids[rows], self.scores[rows], self.own_scores[rows])


# From so many numbers on, the choice there should be worth the launches of nine small kernels, 40 to 60 us: it saves
# the host 25 us and, with the way to it, another 1.5 us for each thousand numbers. Reckoned from times of a CPU:
# benchmark/speed.py is there to measure it on a GPU.
MANY = 2**14


def better_there(actions: Any, scores: Any, own: Any) -> bool:
    """Whether these are tensors on one CUDA device, and so many numbers that it had better choose."""
    arrays = (actions, scores, own)
    if not all(getattr(x, "is_cuda", False) for x in arrays) or len({x.device for x in arrays}) > 1:
        return False
    return bool(actions.numel() + scores.numel() >= MANY)


def highest(actions: Any, scores: Any, own: Any) -> Highest | None:
    """Of tensors ``(N, K, *A)``, ``(N, K)`` and ``(N,)``; ``None`` unless all are finite: that is for `Mixture`."""
    chosen, ids, best, own_scores, total = host(*choose(actions, scores, own))
    if not np.isfinite(total):
        return None
    kind = np.result_type(best, np.float32)
    return Highest(chosen, ids, best.astype(kind, copy=False), own_scores.astype(kind, copy=False))


def choose(actions: Any, scores: Any, own: Any) -> tuple[Any, Any, Any, Any, Any]:
    """The parts of `Highest`, and a number that is finite only if everything is; nothing waits for the device."""
    best, first = scores.max(dim=1)
    own_scores = scores.gather(1, own.unsqueeze(1)).squeeze(1)
    ids = first.where(own_scores < best, own)  # ties go to the own policy
    of_rows = ids.view(-1, *[1] * (actions.ndim - 1))
    chosen = actions.take_along_dim(of_rows, dim=1).squeeze(1)
    total = scores.sum(dtype=float) + actions.sum(dtype=float)  # which half precision could not hold
    return chosen, ids, best, own_scores, total
