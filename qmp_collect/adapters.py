"""Sinks that pass the collector's transitions on to other libraries' replay buffers."""

from __future__ import annotations

from typing import Any

import numpy as np
from gymnasium.spaces import Box
from numpy.typing import NDArray

from qmp_collect.transitions import Transitions

__all__ = ["SB3Sink", "TorchRLSink"]


class SB3Sink:
    """Stores one task's transitions in a Stable-Baselines3 ``ReplayBuffer``.

    Time-outs reach the buffer as Stable-Baselines3 marks them (``TimeLimit.truncated`` in the infos), so that
    its samples' ``dones`` are true terminations only. Stable-Baselines3 learners train on actions rescaled to
    [-1, 1]; actions of a bounded Box space are therefore stored rescaled from ``[low, high]``.

    Args:
        replay_buffer: of one task, made with ``n_envs=1`` however many sub-environments the task has.

    Raises:
        ValueError: for a buffer with ``n_envs`` other than 1, or with ``handle_timeout_termination=False``;
            from `add`, for an n-step buffer that gets rows of a second sub-environment (its rows must be
            consecutive).
    """

    def __init__(self, replay_buffer: Any) -> None:
        if replay_buffer.n_envs != 1:
            raise ValueError(
                f"expected a replay buffer with n_envs=1, got n_envs={replay_buffer.n_envs}: the rows of all"
                " sub-environments are added one by one"
            )
        if not replay_buffer.handle_timeout_termination:
            raise ValueError(
                "expected a replay buffer with handle_timeout_termination=True, got False: it would treat"
                " time-outs as terminations"
            )
        self.replay_buffer = replay_buffer
        space = replay_buffer.action_space
        rescale = isinstance(space, Box) and space.is_bounded() and not _is_unit(space)
        self._bounds = (space.low, space.high) if rescale else None
        self._one_stream = getattr(replay_buffer, "n_steps", 1) > 1
        self._env_id: int | None = None

    def add(self, transitions: Transitions) -> None:
        """Add M transitions in order; see the class for errors."""
        if self._one_stream:
            self._check_stream(transitions.env_ids)
        actions = self._rescale(transitions.actions)
        dones = transitions.terminations | transitions.truncations
        timeouts = transitions.truncations & ~transitions.terminations
        for row in range(len(transitions)):  # the buffer takes one transition per call
            one = slice(row, row + 1)
            self.replay_buffer.add(
                transitions.obs[one],
                transitions.next_obs[one],
                actions[one],
                transitions.rewards[one],
                dones[one],
                [{"TimeLimit.truncated": bool(timeouts[row])}],
            )

    def _rescale(self, actions: NDArray[Any]) -> NDArray[Any]:
        if self._bounds is None:
            return actions
        low, high = self._bounds
        scaled: NDArray[Any] = 2 * (actions - low) / (high - low) - 1
        return scaled

    def _check_stream(self, env_ids: NDArray[np.int64]) -> None:
        for env_id in np.unique(env_ids).tolist():
            if self._env_id is None:
                self._env_id = env_id
            if env_id != self._env_id:
                raise ValueError(
                    "an n-step replay buffer needs the consecutive rows of one sub-environment, got rows of"
                    f" {env_id} after rows of {self._env_id}: use one sub-environment per task, or a one-step"
                    " buffer"
                )


def _is_unit(space: Box) -> bool:
    """Whether the space is [-1, 1] already: rescaling would only add rounding errors."""
    return bool(np.all(space.low == -1) and np.all(space.high == 1))


class TorchRLSink:
    """Stores transitions in a TorchRL replay buffer as one TensorDict of batch size ``[M]`` per call.

    Its entries follow TorchRL's layout: ``observation``, ``action`` and, under ``next``, ``observation``,
    ``reward``, ``done``, ``terminated`` and ``truncated``, the last four of shape ``(M, 1)``; float64 becomes
    float32. Beside them ``task_id``, ``behavior_id`` and ``env_id`` of shape ``(M,)``.

    Args:
        replay_buffer: anything whose ``extend`` takes a TensorDict; give one buffer per task or one for all.
    """

    def __init__(self, replay_buffer: Any) -> None:
        self.replay_buffer = replay_buffer

    def add(self, transitions: Transitions) -> None:
        """Extend the buffer by M transitions."""
        import torch
        from tensordict import TensorDict

        if len(transitions) == 0:
            return

        def tensor(array: NDArray[Any]) -> torch.Tensor:
            return torch.from_numpy(array.astype(np.float32) if array.dtype == np.float64 else array.copy())

        def column(array: NDArray[Any]) -> torch.Tensor:
            return tensor(array)[:, None]

        following = {
            "observation": tensor(transitions.next_obs),
            "reward": column(transitions.rewards),
            "done": column(transitions.terminations | transitions.truncations),
            "terminated": column(transitions.terminations),
            "truncated": column(transitions.truncations),
        }
        content = {
            "observation": tensor(transitions.obs),
            "action": tensor(transitions.actions),
            "next": following,
            "task_id": tensor(transitions.task_ids),
            "behavior_id": tensor(transitions.behavior_ids),
            "env_id": tensor(transitions.env_ids),
        }
        self.replay_buffer.extend(TensorDict(content, batch_size=[len(transitions)]))
