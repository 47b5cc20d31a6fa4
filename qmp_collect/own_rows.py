"""Which stored transitions their task's own policy collected: lists to draw from, kept up as a ring buffer goes on."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

__all__ = ["OwnRows", "to_device"]

_AT_ONCE = 1 << 17  # transitions that are listed in one go


class OwnRows:
    """Of each task of a ring buffer, two lists of its stored transitions, oldest first: own ones, and the others.

    A transition is the n-th own or the n-th other one that its task ever had, and written into place
    ``n % capacity`` of that list: the oldest leave the ring and both lists alike, so that only the number of own
    ones before the oldest must be known to say where the lists begin. 12 bytes a transition.

    Args:
        num_tasks: T.
        capacity: of each task's ring.
        own_ids: ``(T,)`` id of each task's own policy, on the device where the lists shall lie.
    """

    def __init__(self, num_tasks: int, capacity: int, own_ids: Tensor) -> None:
        self._capacity, self._own_ids, self._device = capacity, own_ids, own_ids.device
        device = self._device
        self._listed = np.zeros(num_tasks, np.int64)  # transitions of each task that have been seen
        self._own = torch.zeros(num_tasks, dtype=torch.int64, device=device)  # own ones among them
        self._slots = torch.empty((2, num_tasks, capacity), dtype=torch.int32, device=device)
        # Own ones before the transition in each slot, modulo 2**32: more than that are never stored.
        self._before = torch.empty((num_tasks, capacity), dtype=torch.int32, device=device)
        self._first = torch.empty(0)
        self.counts = torch.empty(0)
        """``(2, T)``: how many own and how many other transitions of each task are stored."""

    def update(self, added: NDArray[np.int64], behavior_ids: Tensor) -> None:
        """See what came since the last time.

        Args:
            added: transitions of each task that were ever added, ``(T,)``.
            behavior_ids: who collected what is in each slot, ``(T, capacity)``.
        """
        if (self._listed == added).all():
            return
        tasks = np.arange(len(added))
        oldest = np.maximum(added - self._capacity, 0)
        self._listed = np.maximum(self._listed, oldest)
        while (count := np.minimum(added - self._listed, _AT_ONCE)).any():
            task = np.repeat(tasks, count)
            number = np.arange(len(task)) + np.repeat(self._listed - (np.cumsum(count) - count), count)
            self._list(behavior_ids, *to_device(self._device, task, number))
            self._listed += count
        columns = added - oldest, added, oldest % self._capacity, tasks
        sizes, ever, oldest_slot, all_tasks = to_device(self._device, *columns)
        own = (self._own - self._before[all_tasks, oldest_slot]) % 2**32
        own = torch.minimum(own, sizes)  # of a task without any, no slot has been written
        self.counts = torch.stack([own, sizes - own])
        self._first = torch.stack([self._own, ever - self._own]) - self.counts

    def slots(self, kind: Tensor, task: Tensor, number: Tensor) -> Tensor:
        """Where the transitions are with these numbers, from 0 for the oldest, in the lists of their kind and task.

        Args:
            kind: 0 for own, 1 for others; any shape, as `task` and `number`.
        """
        place = (self._first[kind, task] + number) % self._capacity
        return self._slots[kind, task, place].long()

    def _list(self, behavior_ids: Tensor, task: Tensor, number: Tensor) -> None:
        """Put transitions, task by task in the order of their numbers, into the lists."""
        slot = number % self._capacity
        own = behavior_ids[task, slot] == self._own_ids[task]
        new = torch.zeros_like(self._own).index_add_(0, task, own.long())
        before = own.cumsum(0) - own.long() + (self._own - (new.cumsum(0) - new))[task]
        self._slots[(~own).long(), task, torch.where(own, before, number - before) % self._capacity] = slot.int()
        self._before[task, slot] = before.int()
        self._own += new


def to_device(device: torch.device, *arrays: NDArray[Any]) -> tuple[Tensor, ...]:
    """Arrays of one shape and kind as tensors on a device, which travel in one piece and are not waited for."""
    parcel = torch.from_numpy(np.stack(arrays))
    if device.type == "cuda":
        parcel = parcel.pin_memory()
    return parcel.to(device, non_blocking=True).unbind()
