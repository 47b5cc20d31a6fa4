"""Episodes in progress: what was measured of them so far, and which rows are between two of them.

Besides return, length and success, any number that the environment reports in ``infos`` can be an *episode metric*.
Its reduction says how the reports of an episode's steps become one number:

| reduction | the episode's value |
|---|---|
| ``"any"`` | 1 if any report was true, else 0 |
| ``"last"`` | the last report |
| ``"mean"`` | the mean of the reports |
| ``"max"`` | the largest report |
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any, Literal, TypeAlias, get_args

import numpy as np
from gymnasium.vector import AutoresetMode
from numpy.typing import NDArray

from qmp_collect.autoreset import step_report
from qmp_collect.states import check_like

Mask: TypeAlias = NDArray[np.bool_]
Reduction: TypeAlias = Literal["any", "last", "mean", "max"]

_TAKEN = ("return", "length", "success")


class Episodes:
    """The running episodes of ``N`` sub-environments, a row each.

    Args:
        num_envs: ``N``.
        mode: How the environment starts its next episodes.
        success_key: Key of the success flag in ``infos``; an episode succeeds if any of its steps does.
        metrics: Key in ``infos`` -> reduction.

    Raises:
        TypeError: ``metrics`` is no mapping.
        ValueError: An unknown reduction, or a metric named like what is measured anyway.
    """

    # Everything that outlives a vector step but ``quota``, which outlives no call of ``collect``.
    _STATE = ("ignored", "needs_reset", "returns", "lens", "successes", "success_known", "values", "reports")

    def __init__(self, num_envs: int, mode: AutoresetMode, success_key: str, metrics: Mapping[str, Reduction]) -> None:
        if not isinstance(metrics, Mapping):
            raise TypeError(f"episode_metrics must be a dict, key in infos -> reduction, got {metrics!r}")
        for name, reduction in metrics.items():
            if reduction not in get_args(Reduction):
                raise ValueError(
                    f"episode_metrics[{name!r}] must be one of {list(get_args(Reduction))}, got {reduction!r}"
                )
            if name in _TAKEN:
                raise ValueError(f"episode_metrics: {name!r} is measured of every episode, choose another key")
        self.metrics = dict(metrics)
        self._mode, self._success_key = mode, success_key
        self.ignored = np.zeros(num_envs, np.bool_)  # NEXT_STEP: the next step only resets
        self.needs_reset = np.zeros(num_envs, np.bool_)  # DISABLED: must be reset before the next step
        self.quota: NDArray[np.int64] | None = None  # episodes each row may still add; None: any number
        self.returns = np.zeros(num_envs)
        self.lens = np.zeros(num_envs, np.int64)
        self.successes = np.zeros(num_envs, np.bool_)
        self.success_known = False  # whether the environment ever reported a success flag
        self.values = {name: np.zeros(num_envs) for name in metrics}
        self.reports = {name: np.zeros(num_envs, np.int64) for name in metrics}

    @property
    def recorded(self) -> Mask:
        """``(N,)`` rows whose next step is a transition to store: no mere reset, and no episode beyond the quota."""
        return ~self.ignored if self.quota is None else ~self.ignored & (self.quota > 0)

    @property
    def wanted(self) -> Mask:
        """``(N,)`` rows that have not filled their quota: what happens in others is neither stored nor judged."""
        return np.ones_like(self.ignored) if self.quota is None else self.quota > 0

    def begin(self, rows: Mask) -> None:
        """Forget the episodes of ``rows``: the next step there is an episode's first."""
        self.ignored &= ~rows
        self.needs_reset &= ~rows
        for column in (self.returns, self.lens, self.successes, *self.values.values(), *self.reports.values()):
            column[rows] = 0

    def read(self, infos: Any, done: Mask, recorded: Mask) -> dict[str, tuple[NDArray[np.float64], Mask]]:
        """What a step reported, by key: ``(N,)`` values and where there are any. Changes nothing.

        Raises:
            ValueError: An episode ends for which a metric's key was never reported.
        """
        found = {key: step_report(self._mode, key, done, infos) for key in (self._success_key, *self.metrics)}
        for name in self.metrics:
            silent = done & recorded & ~found[name][1] & (self.reports[name] == 0)
            if silent.any():
                raise ValueError(
                    f"episode_metrics: infos never held {name!r} in the episode that sub-environment "
                    f"{np.flatnonzero(silent)[0]} just ended; infos hold {sorted(k for k in infos if k[:1] != '_')}"
                )
        return found

    def advance(self, rewards: NDArray[Any], found: Mapping[str, tuple[NDArray[np.float64], Mask]]) -> None:
        """Add a step: ``(N,)`` rewards and what `read` found."""
        self.returns += rewards
        self.lens += 1
        flags, reported = found[self._success_key]
        self.successes |= reported & (np.abs(flags) > 0)  # a NaN is no success
        self.success_known = self.success_known or bool(reported.any())
        for name, reduction in self.metrics.items():
            new, reported = found[name]
            old, first = self.values[name], self.reports[name] == 0
            if reduction == "any":
                new = np.maximum(old, np.nan_to_num(new) != 0)
            elif reduction == "max":
                new = np.where(first, new, np.maximum(old, new))
            elif reduction == "mean":
                new = old + new  # until the episode ends
            np.copyto(old, new, where=reported)
            self.reports[name] += reported

    def ended(self, rows: NDArray[np.int64]) -> dict[str, Any]:
        """What `CollectStats` keeps of the episodes that end in ``rows``, but for their tasks."""
        if self.quota is not None:
            self.quota[rows] -= 1
        metrics = {
            name: self.values[name][rows] / (self.reports[name][rows] if reduction == "mean" else 1)
            for name, reduction in self.metrics.items()
        }
        return {
            "returns": self.returns[rows],
            "lens": self.lens[rows],
            "successes": self.successes[rows],
            "metrics": metrics,
        }

    def wait(self, done: Mask) -> None:
        """Take note of how the environment goes on where an episode has just ended."""
        self.ignored = done & (self._mode is AutoresetMode.NEXT_STEP)
        self.needs_reset = done & (self._mode is AutoresetMode.DISABLED)

    def state_dict(self) -> dict[str, Any]:
        """Arrays of ``N`` entries, and whether success flags are known."""
        state = {name: copy.deepcopy(getattr(self, name)) for name in self._STATE}
        return state | {"autoreset_mode": self._mode.value}

    def check_state(self, state: Mapping[str, Any]) -> None:
        """Whether `load_state_dict` will take ``state``.

        Raises:
            ValueError: It is of other metrics, of another number of sub-environments, or of another autoreset mode.
        """
        if len(state["lens"]) != len(self.lens):
            raise ValueError(f"the state is of {len(state['lens'])} sub-environments, expected {len(self.lens)}")
        if sorted(state["values"]) != sorted(self.metrics):
            raise ValueError(
                f"the state is of the episode metrics {sorted(state['values'])}, expected {sorted(self.metrics)}"
            )
        if state["autoreset_mode"] != self._mode.value:
            raise ValueError(f"the state is of the mode {state['autoreset_mode']}, expected {self._mode.value}")
        check_like("episodes", state, self.state_dict())

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue from a `state_dict` that passes `check_state`."""
        for name in self._STATE:
            setattr(self, name, copy.deepcopy(state[name]))
