"""Tianshou's replay buffers as sinks."""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np
from numpy.typing import NDArray

from qmp_collect.adapters.common import OnlyOne
from qmp_collect.outcome import moved
from qmp_collect.records import as_dict
from qmp_collect.transitions import Transitions

__all__ = ["TianshouSink"]


class TianshouSink:
    """Stores one task's transitions in a Tianshou ``ReplayBuffer`` or ``VectorReplayBuffer``.

    Tianshou's buffers hold consecutive rows of an episode, so that every sub-environment of the task has a part of
    the buffer to itself, given out in the order in which they appear: ``VectorReplayBuffer(size, buffer_num)`` with
    ``buffer_num`` sub-environments, a plain ``ReplayBuffer`` for one. Who acted is kept as ``info.behavior_id``, whose
    part it is as ``info.env_id``: with a buffer that was saved and loaded, each goes on in its own.

    Where an episode was given up (``reset``, an error, a new process without the environment's state), which shows in a
    row that does not begin where the last one of its sub-environment ended, that one becomes a time-out. Buffers made
    with ``ignore_obs_next`` or ``save_only_last_obs`` do not show it.

    Args:
        replay_buffer: Of one task.
        policy: The Tianshou policy that learns from it, whose ``map_action_inverse`` turns executed actions into
            those that it proposes (in [-1, 1] unless it was made with ``action_scaling=False``).

    Raises:
        TypeError: Something else than such a buffer and policy.
        ValueError: From `add`, for rows of a second task or of more sub-environments than the buffer has parts; none of
            them is stored.
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
        self._parts = list(getattr(replay_buffer, "buffers", [replay_buffer]))
        self._slots: dict[int, int] = {}  # which part is which sub-environment's
        self._one_task = OnlyOne(
            "a TianshouSink takes one task's rows, got rows of task {got} after rows of task {first}: give every task "
            "a buffer and a policy of its own"
        ).of(replay_buffer)

    def add(self, transitions: Transitions) -> None:
        """Add M transitions in order; see the class for errors."""
        if len(transitions) == 0:
            return
        self._one_task.check(transitions.task_ids)
        slots = self._slots_of(transitions.env_ids.tolist())
        rows, turns = Counter[int](), np.zeros(len(slots), np.int64)
        for row, slot in enumerate(slots.tolist()):
            turns[row], rows[slot] = rows[slot], rows[slot] + 1
        for turn in range(turns.max() + 1):  # a row of each sub-environment
            now = turns == turn
            self._add(transitions[now], slots[now])

    def _add(self, transitions: Transitions, slots: NDArray[np.int64]) -> None:
        from tianshou.data import Batch

        self._end_given_up(as_dict(transitions.obs), slots)
        ids = zip(transitions.behavior_ids.tolist(), transitions.env_ids.tolist(), strict=True)
        batch = Batch(
            obs=as_dict(transitions.obs),
            act=self.policy.map_action_inverse(transitions.actions),
            rew=transitions.rewards,
            terminated=transitions.terminations,
            truncated=transitions.truncations,
            obs_next=as_dict(transitions.next_obs),
            info=np.array([{"behavior_id": behavior_id, "env_id": env_id} for behavior_id, env_id in ids]),
        )
        self.replay_buffer.add(batch, buffer_ids=slots.tolist())

    def _slots_of(self, env_ids: list[int]) -> NDArray[np.int64]:
        slots = dict(self._slots or self._slots_in_buffer())
        for env_id in env_ids:
            if env_id not in slots:
                free = set(range(len(slots) + 1)).difference(slots.values())
                slots[env_id] = min(free)
        if len(slots) > len(self._parts):
            raise ValueError(
                f"the buffer has parts for {len(self._parts)} sub-environments, got rows of {sorted(slots)}: make it "
                f"VectorReplayBuffer(size, buffer_num=...) with one part per sub-environment of the task"
            )
        self._slots = slots
        return np.array([slots[env_id] for env_id in env_ids])

    def _slots_in_buffer(self) -> dict[int, int]:
        """Of a buffer that was filled before."""
        env_ids = getattr(getattr(self.replay_buffer, "info", None), "env_id", None)
        if env_ids is None:
            return {}
        last = self.replay_buffer.last_index
        return {int(env_ids[last[slot]]): slot for slot, part in enumerate(self._parts) if len(part)}

    def _end_given_up(self, obs: Any, slots: NDArray[np.int64]) -> None:
        """Make the last rows of these parts time-outs, but where ``obs (M, *O)`` are where they ended."""
        slots, row = slots[filled := np.array([len(self._parts[slot]) > 0 for slot in slots])], np.flatnonzero(filled)
        buffer = self.replay_buffer
        if not len(slots) or not hasattr(buffer, "obs_next"):
            return
        last = np.asarray(buffer.last_index)[slots]
        given_up = last[~buffer.done[last] & _moved(obs, buffer.obs_next[last], row)]
        buffer.done[given_up] = buffer.truncated[given_up] = True


def _moved(obs: Any, stored: Any, rows: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Which ``rows`` of ``obs`` differ from those that are stored."""
    if isinstance(obs, dict):
        anywhere: NDArray[np.bool_] = np.any([_moved(part, stored[name], rows) for name, part in obs.items()], axis=0)
        return anywhere
    comparable = np.shape(stored) == (len(rows), *obs.shape[1:])
    return moved(obs[rows], np.asarray(stored)) if comparable else np.zeros(len(rows), np.bool_)
