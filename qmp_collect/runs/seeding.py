"""Seeds of environments, such that runs of neighbouring seeds are independent."""

from __future__ import annotations

import numpy as np


def stream_seed(seed: int, *use: int) -> int:
    """The environments' seed for one use of a run's ``seed``; ``use`` is any key of non-negative integers.

    Vector environments seed sub-environment ``i`` with theirs plus ``i``. With plain numbers, runs whose seeds lie
    closer together than they have sub-environments would be made of mostly the same episodes.
    """
    return int(np.random.SeedSequence(seed, spawn_key=use).generate_state(1)[0])
