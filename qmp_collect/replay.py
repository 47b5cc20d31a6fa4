"""A replay buffer for T tasks that lives on the learner's device: one packed array, one gather per sample."""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import gymnasium as gym
import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from qmp_collect.amount import integer
from qmp_collect.own_rows import OwnRows, to_device
from qmp_collect.records import is_composite
from qmp_collect.replay_records import RecordCells
from qmp_collect.transitions import Transitions

__all__ = ["Batch", "TaskReplayBuffer"]

# Random 63-bit integers modulo the size: uniform to 1e-12 for any size that fits in memory and never equal to
# the size, whereas float32 `rand() * size` can round up to it and is visibly uneven from a million rows on.
_RANDOM_HIGH = 2**63 - 1
_STREAM = 0x7265706C6179  # "replay": the key of this generator's stream among those of one seed
_EXACT_INTEGERS = 2**24  # float32 holds every integer up to here
_UNKNOWN = -2  # who acted, in states of a time when nobody asked


class Batch(NamedTuple):
    """Sampled transitions; the leading shape L is ``(T, B)`` from `sample`, ``(B,)`` from `sample_joint`.

    Attributes:
        obs: ``(*L, *O)`` float32 (int64 for Discrete and MultiDiscrete spaces); of a Dict or Tuple space a dict or
            tuple of such tensors, nested as the space is.
        actions: ``(*L, *A)`` float32 (int64 for Discrete and MultiDiscrete spaces).
        rewards: ``(*L,)`` float32.
        next_obs: as `obs`; the true successors.
        terminations: ``(*L,)`` float32, 1.0 where the bootstrap is cut. Time-outs are 0.0.
        task_ids: ``(*L,)`` int64.
        behavior_ids: ``(*L,)`` int64: the policy that acted, -1 for a random action; -2 where it is not known, in rows
            that were loaded from a state of an older version.
    """

    obs: Any
    actions: Tensor
    rewards: Tensor
    next_obs: Any
    terminations: Tensor
    task_ids: Tensor
    behavior_ids: Tensor


class TaskReplayBuffer:
    """Ring buffers of T tasks in one ``(T * capacity, D)`` float32 tensor on `device`.

    Each task's newest `capacity` transitions are kept. A row packs observation, action, reward, next
    observation, termination and who acted, so adding is one host-to-device copy and sampling one `index_select`, whose
    result the returned fields are views of; neither waits for the device. Everything is stored as float32:
    float64 observations lose precision, a Box of uint8 images takes four times its space. On the CPU the memory is
    claimed page by page as rows arrive, so a generous `capacity` costs nothing until it is used.

    Args:
        capacity: transitions kept per task.
        num_tasks: T.
        obs_space: one environment's observation space: Box, Discrete or MultiDiscrete, or a Dict or Tuple of array
            spaces, whose parts are stored each in its own width: images of bytes take a byte an element there.
        action_space: one environment's action space: Box, Discrete or MultiDiscrete.
        device: where the rows live and the batches come out.
        seed: of the buffer's own generator, a non-negative integer; None draws one from the operating system.
        num_groups: of the collector's `own_ids`, groups of ``T / num_groups`` tasks, within which those who acted are
            numbered.

    Raises:
        TypeError: for any other kind of space, and for a capacity or number of tasks that is no integer.
        ValueError: for a non-positive capacity or number of tasks, integers too large for float32, or tasks that are
            not equally many in each group.
    """

    def __init__(
        self,
        capacity: int,
        num_tasks: int,
        obs_space: gym.Space[Any],
        action_space: gym.Space[Any],
        *,
        device: torch.device | str = "cpu",
        seed: int | None = None,
        num_groups: int = 1,
    ) -> None:
        self.capacity, self.num_tasks = integer("capacity", capacity), integer("num_tasks", num_tasks)
        self.num_groups = integer("num_groups", num_groups)
        if self.num_tasks % self.num_groups:
            raise ValueError(f"num_groups: {num_tasks} tasks are no {num_groups} groups of equally many")
        capacity, num_tasks, self.device = self.capacity, self.num_tasks, torch.device(device)
        self._records = RecordCells(obs_space) if is_composite(obs_space) else None
        self._obs_shape, self._obs_integer = (
            _describe("obs_space", obs_space) if self._records is None else ((self._records.width,), False)
        )
        self._action_shape, self._action_integer = _describe("action_space", action_space)
        obs_width, action_width = math.prod(self._obs_shape), math.prod(self._action_shape)
        # Column borders of one row: obs | action | reward | next_obs | termination | behavior_id.
        self._widths = [obs_width, action_width, 1, obs_width, 1, 1]
        self._columns = np.cumsum([0, *self._widths]).tolist()
        self._rows = torch.empty((num_tasks * capacity, self._columns[-1]), dtype=torch.float32, device=self.device)
        self._added = np.zeros(num_tasks, np.int64)  # transitions ever added, per task
        self._known_from = np.zeros(num_tasks, np.int64)  # the first of each task of which is known who acted
        self._own_rows: OwnRows | None = None  # made when it is first needed
        self._last: tuple[Tensor, Tensor] | None = None  # the last batch's task_ids and behavior_ids
        # Per task on the device: stored rows; end of its share when all stored rows are numbered through;
        # what turns such a number into a row of `_rows`.
        self._layout = torch.zeros((3, num_tasks), dtype=torch.int64, device=self.device)
        self._sizes, self._ends, self._shifts = self._layout[0, :, None], self._layout[1], self._layout[2]
        self._task_ids = torch.arange(num_tasks, device=self.device)[:, None]
        self._own_ids = torch.arange(num_tasks, device=self.device) % (num_tasks // self.num_groups)
        self._first_rows = np.arange(num_tasks) * capacity
        self._starts = self._task_ids * capacity
        self._generator = torch.Generator(self.device)
        if seed is None:
            self._generator.seed()
        else:
            # A stream of its own: the plain seed would draw what torch draws after `manual_seed` of the same number.
            stream = np.random.SeedSequence(integer("seed", seed, at_least=0), spawn_key=(_STREAM,))
            self._generator.manual_seed(int(stream.generate_state(1, np.uint64)[0]) >> 1)

    @property
    def sizes(self) -> NDArray[np.int64]:
        """Stored transitions of each task, ``(T,)``."""
        return np.minimum(self._added, self.capacity)

    def __len__(self) -> int:
        """Stored transitions of all tasks together."""
        return int(self.sizes.sum())

    def add(self, transitions: Transitions) -> None:
        """Store M transitions of any mix of tasks; within a task they overwrite the oldest ones in order.

        Raises:
            ValueError: for observations or actions of another shape, a task id outside ``0..T-1``, a behaviour id
                below -1, and numbers that float32 cannot hold: not finite, or integers beyond 2**24. Nothing is
                stored then.
        """
        count, width, borders = len(transitions), self._columns[-1], self._columns
        if count == 0:
            return
        rows, taken, added = self._place(transitions.task_ids)
        _check_ids("behavior_ids", transitions.behavior_ids, -1, _EXACT_INTEGERS)
        head = 2 * (len(rows) + 3 * self.num_tasks)  # int64 numbers travel as two float32 cells each
        # All that the device needs crosses in one piece; pinned memory makes the crossing asynchronous.
        pinned = self.device.type == "cuda"
        parcel = torch.empty(head + len(rows) * width, dtype=torch.float32, device="cpu", pin_memory=pinned)
        cells = parcel.numpy()
        numbers, packed = cells[:head].view(np.int64), cells[head:].reshape(len(rows), width)
        fields = (
            ("obs", self._cells("obs", transitions.obs), self._obs_shape),
            ("actions", transitions.actions, self._action_shape),
            ("rewards", transitions.rewards, ()),
            ("next_obs", self._cells("next_obs", transitions.next_obs), self._obs_shape),
            ("terminations", transitions.terminations, ()),
            ("behavior_ids", transitions.behavior_ids.astype(np.float32), ()),
        )
        with np.errstate(over="ignore"):  # seen below
            for (name, values, shape), start, stop in zip(fields, borders[:-1], borders[1:], strict=True):
                if values.shape != (count, *shape):
                    raise ValueError(f"transitions.{name}: expected shape {(count, *shape)}, got {values.shape}")
                packed[:, start:stop] = _exact(name, values).reshape(count, stop - start)[taken]
        finite = np.isfinite(packed)
        if self._records is not None:
            finite[:, np.add.outer([borders[0], borders[3]], self._records.opaque).reshape(-1)] = True
        if not finite.all():
            row, column = np.argwhere(~finite)[0]
            name = fields[int(np.searchsorted(borders, column, side="right")) - 1][0]
            raise ValueError(
                f"transitions.{name}[{taken[row]}] is {packed[row, column]} as float32, the precision of this buffer: "
                "no learner can use it"
            )
        numbers[: len(rows)] = rows
        self._describe_layout(np.minimum(added, self.capacity), numbers[len(rows) :].reshape(3, self.num_tasks))

        parcel = parcel.to(self.device, non_blocking=True)
        numbers_there = parcel[:head].view(torch.int64)
        self._rows.index_copy_(0, numbers_there[: len(rows)], parcel[head:].view(len(rows), width))
        self._layout.copy_(numbers_there[len(rows) :].view(3, self.num_tasks))
        self._added = added

    def sample(self, batch_size: int, *, own_fraction: ArrayLike | None = None) -> Batch:
        """Draw `batch_size` transitions of every task, uniformly with replacement; shapes ``(T, B, ...)``.

        Args:
            batch_size: B.
            own_fraction: in [0, 1], of all tasks or ``(T,)``: the share of a task's rows that are drawn, uniformly,
                from what the task's own policy collected, that of the task's number (of groups, within its group), to
                the nearest row. The others are drawn uniformly from the rest: what other policies collected, and random
                actions. The two kinds lie spread evenly over the B rows. A task of which only one kind is stored gives
                all rows of that kind. None draws without asking who acted. The first such call reads through what is
                stored, later ones only what came since, and the buffer grows by 12 bytes a transition.

        Raises:
            TypeError, ValueError: if a task has no transitions yet, `batch_size` is no integer from 1, or
                `own_fraction` no fraction; or if it is given, and rows of a state of an older version are stored, of
                which is not known who acted.
        """
        batch_size = integer("batch_size", batch_size)
        if not self._added.all():
            empty = np.flatnonzero(self._added == 0).tolist()
            raise ValueError(
                f"cannot sample: no transitions stored for task(s) {empty}; collect some of each task first"
            )
        shape = (self.num_tasks, batch_size)
        task_ids = self._task_ids.expand(shape)
        if own_fraction is None:
            slots = self._draw(shape) % self._sizes
        else:
            lists, kind = self._kinds(own_fraction, (self.num_tasks,), batch_size, per_task=True)
            slots = lists.slots(kind, task_ids, self._draw(shape) % lists.counts[kind, task_ids])
        return self._gather(slots + self._starts, task_ids)

    def sample_joint(self, batch_size: int, *, own_fraction: float | None = None) -> Batch:
        """Draw `batch_size` transitions uniformly with replacement from all stored ones; shapes ``(B, ...)``.

        A task with twice the transitions is drawn twice as often; tasks without any are left out.

        Args:
            batch_size: B.
            own_fraction: as for `sample`, one number: that share of the rows is drawn uniformly from what any task's
                own policy collected for it, the others from the rest.

        Raises:
            TypeError, ValueError: if the buffer is empty, or as `sample`.
        """
        batch_size = integer("batch_size", batch_size)
        total = len(self)
        if total == 0:
            raise ValueError("cannot sample: the buffer is empty; collect some transitions first")
        if own_fraction is None:
            drawn = torch.randint(total, (batch_size,), generator=self._generator, device=self.device)
            task_ids = torch.searchsorted(self._ends, drawn, right=True)
            return self._gather(drawn + self._shifts.index_select(0, task_ids), task_ids)
        lists, kind = self._kinds(own_fraction, (), batch_size, per_task=False)
        ends = lists.counts.cumsum(1)
        drawn = self._draw((batch_size,)) % ends[kind, -1]
        of_own, of_others = torch.searchsorted(ends, drawn.repeat(2, 1), right=True)
        task_ids = torch.where(kind == 0, of_own, of_others)
        slots = lists.slots(kind, task_ids, drawn - (ends - lists.counts)[kind, task_ids])
        return self._gather(slots + task_ids * self.capacity, task_ids)

    def own_share(self) -> Tensor:
        """What share of each task's rows in the last batch its own policy had collected, ``(T,)`` on the device.

        NaN for tasks without rows in it, and before the first batch. Rows of which is not known who acted count as
        others'.
        """
        if self._last is None:
            return torch.full((self.num_tasks,), math.nan, device=self.device)
        task_ids, behavior_ids = self._last
        counts = torch.zeros((2, self.num_tasks), dtype=torch.float32, device=self.device)
        own = (behavior_ids == self._own_ids[task_ids]).float()
        counts.index_add_(1, task_ids.reshape(-1), torch.stack([own, torch.ones_like(own)]).view(2, -1))
        return counts[0] / counts[1]

    @property
    def row_width(self) -> int:
        """Float32 numbers of a stored transition, ``D``."""
        return int(self._columns[-1])

    @property
    def added(self) -> NDArray[np.int64]:
        """Transitions of each task that were ever added, ``(T,)``; they are numbered in this order from 0."""
        return self._added.copy()

    def spans(self, first: NDArray[np.int64], end: NDArray[np.int64]) -> Iterator[Tensor]:
        """Where the transitions numbered ``first[t] <= n < end[t]`` of each task lie, in order: ``(M, D)`` views.

        For whoever keeps the rows in another place, to be read and, before `load_state_dict`, written. A view has at
        most some 4 MiB. Of a task, no more than `capacity` transitions have a place.
        """
        most = max((4 << 20) // (4 * self._columns[-1]), 1)
        for task, (number, last) in enumerate(zip(first.tolist(), end.tolist(), strict=True)):
            while number < last:
                slot = number % self.capacity
                length = min(last - number, self.capacity - slot, most)
                yield self._rows[task * self.capacity + slot :][:length]
                number += length

    def state_dict(self, *, rows: bool = True) -> dict[str, Any]:
        """Stored rows (a copy on the CPU), ring positions and generator: all it takes to continue exactly.

        Args:
            rows: False leaves the stored rows out, for whoever keeps them in another place (see `spans`).
        """
        state = {
            "added": self.added,
            "known_from": self._known_from.copy(),
            "capacity": self.capacity,
            "generator": self._generator.get_state(),
            "device_type": self.device.type,
        }
        if rows:
            stored = torch.empty((len(self), self._columns[-1]), dtype=torch.float32, device="cpu")
            per_task = self._rows.view(self.num_tasks, self.capacity, -1)
            for target, kept in zip(torch.split(stored, self.sizes.tolist()), per_task, strict=True):
                target.copy_(kept[: len(target)])
            state["rows"] = stored
        return state

    def check_state(self, state: Mapping[str, Any]) -> None:
        """Whether `load_state_dict` will take ``state``. Changes nothing.

        One of an older version has rows without their last number, who acted, and no ``known_from``.

        Raises:
            ValueError: if it was made with another number of tasks or row width, with another capacity of which one has
                been filled, or is damaged.
        """
        names = {"added", "capacity", "generator", "device_type"}
        if not isinstance(state, Mapping) or state.keys() - {"rows", "known_from"} != names:
            raise ValueError(f"expected a state with the entries {sorted(names)}, known_from and rows")
        added, capacity, rows = state["added"], state["capacity"], state.get("rows")
        if not isinstance(added, np.ndarray) or added.dtype != np.int64 or added.ndim != 1 or type(capacity) is not int:
            raise ValueError("expected a state with an integer capacity and int64 numbers of what was added")
        if (added.size and (added.min() < 0 or added.max() >= 2**62)) or capacity < 1:
            raise ValueError(f"expected a state with sizes from 0 and a capacity from 1, got {added} and {capacity}")
        if (known_from := state.get("known_from")) is not None and (
            not isinstance(known_from, np.ndarray)
            or known_from.dtype != np.int64
            or known_from.shape != added.shape
            or ((known_from < 0) | (known_from > added)).any()
        ):
            raise ValueError(f"expected known_from to be int64 numbers from 0 to {added}, got {known_from!r}")
        # While no task has filled it, a ring of another size holds the same rows in the same places.
        same = capacity == self.capacity or added.max(initial=0) <= min(capacity, self.capacity)
        width = self._columns[-1] - (known_from is None)
        saved = (capacity, len(added), width if rows is None else _width(rows))
        expected = (self.capacity, self.num_tasks, width)
        if saved[1:] != expected[1:] or not same:
            raise ValueError(f"expected a state with (capacity, num_tasks, row width) = {expected}, got {saved}")
        if rows is not None and len(rows) != np.minimum(added, capacity).sum():
            raise ValueError(f"expected {np.minimum(added, capacity).sum()} rows, got {len(rows)}")
        if not isinstance(state["generator"], Tensor) or state["generator"].dtype != torch.uint8:
            raise ValueError("expected a generator's state, a tensor of bytes")
        if state["device_type"] == self.device.type:
            try:
                torch.Generator(self.device).set_state(state["generator"])
            except (RuntimeError, TypeError) as error:
                raise ValueError(f"expected the state of a generator of {self.device.type}: {error}") from error

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take over a `state_dict`. Warns if another kind of device made it: its random stream cannot go on.

        A state without rows is of rows that were written into `spans` already. As long as no task has filled it, the
        capacity may differ. Who acted is not known of the rows of a state of an older version.

        Raises:
            ValueError: as `check_state`; then nothing has changed.
        """
        self.check_state(state)
        self._added = state["added"].copy()
        self._known_from = state.get("known_from", self._added).copy()
        self._own_rows = self._last = None
        sizes = self.sizes
        if "rows" in state:
            per_task = self._rows.view(self.num_tasks, self.capacity, -1)
            for target, stored in zip(per_task, torch.split(state["rows"], sizes.tolist()), strict=True):
                target[: len(stored), : stored.shape[1]].copy_(stored)
                target[: len(stored), stored.shape[1] :] = _UNKNOWN
        layout = np.empty((3, self.num_tasks), np.int64)
        self._describe_layout(sizes, layout)
        self._layout.copy_(torch.from_numpy(layout))
        if state["device_type"] == self.device.type:
            self._generator.set_state(state["generator"])
        else:
            warnings.warn(
                f"replay state was saved on {state['device_type']!r} and is loaded on {self.device.type!r}:"
                " the data is the same, the sampling sequence is not",
                stacklevel=2,
            )

    def _place(self, task_ids: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
        """Target row of each transition, which transitions they are (task by task), and the new `_added`."""
        _check_ids("task_ids", task_ids, 0, self.num_tasks - 1)
        taken = np.argsort(task_ids, kind="stable")
        task = task_ids[taken]
        counts = np.bincount(task, minlength=self.num_tasks)
        rank = np.arange(len(task)) - (np.cumsum(counts) - counts)[task]
        slot = (self._added[task] + rank) % self.capacity
        # Rows that later ones of the same call would overwrite are left out: index_copy_ has no order.
        last = rank >= (counts - self.capacity)[task]
        return (task * self.capacity + slot)[last], taken[last], self._added + counts

    def _cells(self, name: str, obs: NDArray[Any]) -> NDArray[Any]:
        return obs if self._records is None else self._records.write(name, obs, _exact)

    def _draw(self, shape: tuple[int, ...]) -> Tensor:
        return torch.randint(_RANDOM_HIGH, shape, generator=self._generator, device=self.device)

    def _kinds(
        self, own_fraction: ArrayLike, shape: tuple[int, ...], batch_size: int, *, per_task: bool
    ) -> tuple[OwnRows, Tensor]:
        """Where own and other transitions are, and of which kind, 0 or 1, each row of a batch is to be."""
        fraction = np.asarray(own_fraction, np.float64)
        if fraction.shape not in ((), shape) or not ((fraction >= 0) & (fraction <= 1)).all():
            expected = f"a number in [0, 1]{f', or one for each of {self.num_tasks} tasks' if shape else ''}"
            raise ValueError(f"own_fraction: expected {expected}, got {own_fraction!r}")
        if (unknown := np.flatnonzero(self._known_from > np.maximum(self._added - self.capacity, 0))).size:
            raise ValueError(
                f"own_fraction: of rows of task(s) {unknown.tolist()} is not known who acted, since they were loaded "
                "from a state of an older version; leave it out until they have been overwritten"
            )
        if self._own_rows is None:
            self._own_rows = OwnRows(self.num_tasks, self.capacity, self._own_ids)
        self._own_rows.update(self._added, self._rows[:, -1].view(self.num_tasks, self.capacity))
        counts = self._own_rows.counts
        own, others = counts[..., None] if per_task else counts.sum(1)
        # n of B rows, spread evenly: i n mod B takes the B / gcd multiples of gcd(n, B) below B in turn.
        (wanted,) = to_device(self.device, np.floor(fraction * batch_size + 0.5).astype(np.int64)[..., None])
        is_own = torch.arange(batch_size, device=self.device) * wanted % batch_size < wanted
        return self._own_rows, 1 - (is_own & (own > 0) | (others == 0)).long()

    def _describe_layout(self, sizes: NDArray[np.int64], layout: NDArray[np.int64]) -> None:
        """Write the content of `_layout` for these sizes into a ``(3, T)`` array."""
        layout[0] = sizes
        ends = sizes.cumsum(out=layout[1])
        np.subtract(self._first_rows, ends, out=layout[2])
        layout[2] += sizes

    def _gather(self, index: Tensor, task_ids: Tensor) -> Batch:
        rows = self._rows.index_select(0, index.view(-1)).view(*index.shape, -1)
        obs, actions, rewards, next_obs, terminations, behavior_ids = rows.split_with_sizes(self._widths, -1)

        def field(part: Tensor, shape: tuple[int, ...], integer: bool) -> Tensor:
            part = part if len(shape) == 1 else part.view(*index.shape, *shape)
            return part.long() if integer else part

        def observed(part: Tensor) -> Any:
            if self._records is not None:
                return self._records.read(part)
            return field(part, self._obs_shape, self._obs_integer)

        batch = Batch(
            obs=observed(obs),
            actions=field(actions, self._action_shape, self._action_integer),
            rewards=rewards.squeeze(-1),
            next_obs=observed(next_obs),
            terminations=terminations.squeeze(-1),
            task_ids=task_ids,
            behavior_ids=behavior_ids.squeeze(-1).long(),
        )
        self._last = batch.task_ids, batch.behavior_ids
        return batch


def _check_ids(name: str, ids: NDArray[np.int64], low: int, high: int) -> None:
    if (ids - low).astype(np.uint64).max() > high - low:  # below low, they have wrapped
        bad = int(np.flatnonzero((ids < low) | (ids > high))[0])
        raise ValueError(f"transitions.{name}[{bad}]: expected {low}..{high}, got {int(ids[bad])}")


def _exact(name: str, values: NDArray[Any]) -> NDArray[Any]:
    """``values``, unless they are integers that float32 cannot tell from their neighbours."""
    if values.dtype.kind in "iu" and values.dtype.itemsize > 2:
        for extreme in (values.max(), values.min()):
            if not -_EXACT_INTEGERS <= extreme <= _EXACT_INTEGERS:
                raise ValueError(
                    f"transitions.{name} has the integer {extreme}, but the float32 rows of this buffer hold integers "
                    f"up to {_EXACT_INTEGERS} exactly: scale the observations or actions"
                )
    return values


def _width(rows: Any) -> int | str:
    if isinstance(rows, Tensor) and rows.dtype == torch.float32 and rows.ndim == 2:
        return int(rows.shape[1])
    return f"{getattr(rows, 'dtype', type(rows).__name__)} rows"


def _describe(name: str, space: gym.Space[Any]) -> tuple[tuple[int, ...], bool]:
    """Shape of a space's elements and whether they are integers to be given back as int64."""
    if isinstance(space, gym.spaces.Box):
        return space.shape, False
    if isinstance(space, gym.spaces.Discrete):
        largest = max(abs(int(space.start)), abs(int(space.start + space.n - 1)))
    elif isinstance(space, gym.spaces.MultiDiscrete):
        largest = int(np.abs([space.start, space.start + space.nvec - 1]).max())
    else:
        raise TypeError(
            f"{name}: expected a Box, Discrete or MultiDiscrete space, got {space}: "
            + (
                "flatten it first (gymnasium.wrappers.FlattenObservation)"
                if name == "obs_space"
                else "make it one (gymnasium.wrappers.TransformAction)"
            )
        )
    if largest > _EXACT_INTEGERS:
        raise ValueError(
            f"{name}: {space} has integers beyond {_EXACT_INTEGERS}, which float32 rows cannot hold exactly"
        )
    return space.shape or (), True
