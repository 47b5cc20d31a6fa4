"""In which range each number among the settings can be meant."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, NamedTuple

__all__ = ["RANGES", "check_ranges"]


class Range(NamedTuple):
    """From ``low`` to ``high``, both allowed unless ``low`` is excluded."""

    low: float = -math.inf
    high: float = math.inf
    above: bool = False

    def holds(self, value: float) -> bool:
        """Whether a value lies in it; a NaN lies nowhere, an infinity beyond every number."""
        return math.isfinite(value) and (self.low < value if self.above else self.low <= value) and value <= self.high

    def __str__(self) -> str:
        low = "" if self.low == -math.inf else f" {'above' if self.above else 'from'} {self.low:g}"
        high = "" if self.high == math.inf else f" to {self.high:.0f}"
        return f"a number{low}{high}" if low or high else "a finite number"


_COUNT, _MAYBE = Range(1), Range(0)  # at least one; 0 for none, or for "a share of the run"
_TRILLION, _SIDE_BY_SIDE = 10**12, 100_000  # a typing error; environments beyond this end the machine's memory
_POSITIVE, _FRACTION, _ANY = Range(0, above=True), Range(0, 1), Range()

# Of all scripts, which give a name one meaning. What is absent here is no number.
RANGES: Mapping[str, Range] = {
    "seed": Range(0, 2**32 - 1),  # what numpy's global generator takes
    "num_seeds": Range(1, 1000),
    "hosts": Range(0, 10_000),
    "total_timesteps": Range(1, _TRILLION),
    **dict.fromkeys(("eval_episodes", "envs_per_task"), Range(1, _SIDE_BY_SIDE)),
    "eval_envs_per_task": Range(0, _SIDE_BY_SIDE),
    **dict.fromkeys(("buffer_size", "env_steps_per_round"), _COUNT),
    **dict.fromkeys(("gradient_steps_per_round", "batch_size", "hidden_dim", "switch_samples", "horizon"), _COUNT),
    **dict.fromkeys(("distill_steps",), _COUNT),
    **dict.fromkeys(("checkpoint_every", "eval_every", "torch_threads", "distill_every"), _MAYBE),
    **dict.fromkeys(("min_buffer_size", "warmup_rounds", "kl_coefficient", "helper_std"), _MAYBE),
    **dict.fromkeys(("demonstration_rounds", "clone_steps"), _MAYBE),
    **dict.fromkeys(("switch_margin", "switch_hysteresis"), _MAYBE),
    **dict.fromkeys(("learning_rate", "policy_learning_rate", "switch_temperature"), _POSITIVE),
    **dict.fromkeys(("gamma", "tau", "own_probability", "own_probability_final"), _FRACTION),
    **dict.fromkeys(("own_fraction", "sharing_quantile"), _FRACTION),
    "success_gate": Range(0, 1),
    "own_share_floor": Range(0, 1, above=True),
    "target_entropy_scale": _ANY,
}


def check_ranges(settings: Mapping[str, Any]) -> None:
    """`ValueError` naming the first setting whose number cannot be meant."""
    for name, value in settings.items():
        if name in RANGES and value is not None and not RANGES[name].holds(value):
            raise ValueError(f"--{name.replace('_', '-')} {value}: expected {RANGES[name]}")
