"""TorchRL's replay buffers as sinks."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from qmp_collect.records import as_dict
from qmp_collect.transitions import Transitions

__all__ = ["TorchRLSink"]

_OTHERS = {"action", "next", "reward", "done", "terminated", "truncated", "task_id", "behavior_id", "env_id"}


class TorchRLSink:
    """Stores transitions in a TorchRL replay buffer as one TensorDict of batch size ``[M]`` per call.

    An ``extend`` costs about half a millisecond whatever ``M`` is: within ``collect``, rows come in blocks.

    Its entries follow TorchRL's layout: ``observation``, ``action`` and, under ``next``, ``observation``,
    ``reward``, ``done``, ``terminated`` and ``truncated``, the last four of shape ``(M, 1)``; float64 becomes
    float32. Parts of dict observations have their own names in the place of ``observation``. Beside them ``task_id``,
    ``behavior_id`` and ``env_id`` of shape ``(M,)``.

    Args:
        replay_buffer: anything whose ``extend`` takes a TensorDict; give one buffer per task or one for all.
    """

    block_size = 2_000

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

        def nested(rows: Any) -> Any:
            return {name: nested(part) for name, part in rows.items()} if isinstance(rows, dict) else tensor(rows)

        def observed(rows: NDArray[Any]) -> dict[str, Any]:
            parts = nested(as_dict(rows))
            if not isinstance(parts, dict):
                return {"observation": parts}
            if taken := parts.keys() & _OTHERS:
                raise ValueError(f"other entries are called {sorted(taken)}: give parts of observations other names")
            return parts

        following = {
            **observed(transitions.next_obs),
            "reward": column(transitions.rewards),
            "done": column(transitions.terminations | transitions.truncations),
            "terminated": column(transitions.terminations),
            "truncated": column(transitions.truncations),
        }
        content = {
            **observed(transitions.obs),
            "action": tensor(transitions.actions),
            "next": following,
            "task_id": tensor(transitions.task_ids),
            "behavior_id": tensor(transitions.behavior_ids),
            "env_id": tensor(transitions.env_ids),
        }
        self.replay_buffer.extend(TensorDict(content, batch_size=[len(transitions)]))
