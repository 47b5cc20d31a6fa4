"""Settings that change over a run."""

from __future__ import annotations

from collections.abc import Callable


def linear(first: float, last: float | None, total_timesteps: int) -> Callable[[int], float]:
    """From ``first`` to ``last`` at the end of the run's env steps; constant without ``last``."""
    change = 0.0 if last is None else last - first
    return lambda step: first + change * min(step / total_timesteps, 1.0)
