"""Tianshou's replay buffers as sinks."""

from __future__ import annotations

from typing import Any

import numpy as np

from qmp_collect.adapters.common import OnlyOne
from qmp_collect.records import as_dict
from qmp_collect.transitions import Transitions

__all__ = ["TianshouSink"]


class TianshouSink:
    """Stores one task's transitions in a Tianshou ``ReplayBuffer`` or ``VectorReplayBuffer``.

    Tianshou's buffers hold consecutive rows of an episode, so that every sub-environment of the task has a part of
    the buffer to itself, given out in the order in which they appear: ``VectorReplayBuffer(size, buffer_num)`` with
    ``buffer_num`` sub-environments, a plain ``ReplayBuffer`` for one. Who acted is kept as ``info.behavior_id``.

    Args:
        replay_buffer: Of one task.
        policy: The Tianshou policy that learns from it, whose ``map_action_inverse`` turns executed actions into
            those that it proposes (in [-1, 1] unless it was made with ``action_scaling=False``).

    Raises:
        TypeError: Something else than such a buffer and policy.
        ValueError: From `add`, for rows of a second task or of more sub-environments than the buffer has parts.
    """

    def __init__(self, replay_buffer: Any, policy: Any) -> None:
        if not callable(getattr(replay_buffer, "add", None)):
            raise TypeError(f"expected a Tianshou replay buffer, got {type(replay_buffer).__name__}")
        if not callable(getattr(policy, "map_action_inverse", None)):
            raise TypeError(
                f"expected the Tianshou policy that learns from the buffer, with map_action_inverse, got "
                f"{type(policy).__name__}: of an algorithm that is algorithm.policy"
            )
        self.replay_buffer, self.policy = replay_buffer, policy
        self._parts = int(getattr(replay_buffer, "buffer_num", 1))
        self._slots: dict[int, int] = {}
        self._one_task = OnlyOne(
            "a TianshouSink takes one task's rows, got rows of task {got} after rows of task {first}: give every task "
            "a buffer and a policy of its own"
        ).of(replay_buffer)

    def add(self, transitions: Transitions) -> None:
        """Add M transitions in order; see the class for errors."""
        from tianshou.data import Batch

        if len(transitions) == 0:
            return
        self._one_task.check(transitions.task_ids)
        slots = [self._slots.setdefault(env, len(self._slots)) for env in transitions.env_ids.tolist()]
        if len(self._slots) > self._parts:
            raise ValueError(
                f"the buffer has parts for {self._parts} sub-environments, got rows of {sorted(self._slots)}: make it "
                f"VectorReplayBuffer(size, buffer_num=...) with one part per sub-environment of the task"
            )
        batch = Batch(
            obs=as_dict(transitions.obs),
            act=self.policy.map_action_inverse(transitions.actions),
            rew=transitions.rewards,
            terminated=transitions.terminations,
            truncated=transitions.truncations,
            obs_next=as_dict(transitions.next_obs),
            info=np.array([{"behavior_id": behavior_id} for behavior_id in transitions.behavior_ids.tolist()]),
        )
        if self._parts > 1:
            self.replay_buffer.add(batch, buffer_ids=slots)
        else:  # a plain buffer takes one row at a time
            for row in range(len(slots)):
                self.replay_buffer.add(batch[row])
