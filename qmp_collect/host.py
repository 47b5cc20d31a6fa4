"""What runs on each host of a fleet: a collector, the weights that it acts with, and the rules that guard them.

Nothing here knows how a host is reached; see `qmp_collect.fleet`.
"""

from __future__ import annotations

import pickle
import random
import sys
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any

import numpy as np

from qmp_collect.collector import QMPCollector
from qmp_collect.transitions import Transitions, joined

State = dict[str, Any]


class NoWeightsError(RuntimeError):
    """A host was asked to collect with weights that it does not have: it does not act."""


class HostError(RuntimeError):
    """Something failed on a host: the environment, a policy, ``make_collector``.

    Attributes:
        host: which.
        task_ids: of the sub-environment that failed; of all that the host has, where it cannot be told.
        said: what was raised, in a line.
        trace: the original traceback, as text.
    """

    def __init__(self, host: int, task_ids: tuple[int, ...], said: str, trace: str) -> None:
        super().__init__(host, task_ids, said, trace)  # what it is pickled with
        self.host, self.task_ids, self.said, self.trace = host, task_ids, said, trace

    def __str__(self) -> str:
        tasks = {0: "", 1: ", task "}.get(len(self.task_ids), ", tasks ") + ", ".join(map(str, self.task_ids))
        return f"host {self.host}{tasks}: {self.said}\n\nOn that host:\n{self.trace}"


@dataclass(frozen=True)
class Shard:
    """A host's share of the collection, what ``make_collector`` is given.

    Attributes:
        host: ``0 .. hosts - 1``.
        hosts: how many there are.
        seed: for this host's collector, independent of the other hosts'.
        buffer: what to give to the collector as ``buffer``: from there, transitions go to the learner.
    """

    host: int
    hosts: int
    seed: int
    buffer: Recorder


# What a user writes; the second of the two is `set_weights(weights)`.
MakeCollector = Callable[[Shard], tuple[QMPCollector, Callable[[Any], object]]]


class Recorder:
    """A sink that keeps what was stored until it is taken."""

    def __init__(self) -> None:
        self._kept: list[Transitions] = []

    def add(self, transitions: Transitions, /) -> None:
        """Keep M new transitions."""
        self._kept.append(transitions)

    def take(self) -> Transitions:
        """All that was kept, in order, as one; nothing is kept any more.

        Raises:
            ValueError: There is nothing.
        """
        kept, self._kept = self._kept, []
        if not kept:
            raise ValueError(
                "steps were collected and none of them recorded: make_collector(shard) has to give "
                "`buffer=shard.buffer` to its QMPCollector"
            )
        return joined(kept)


def shard_seed(seed: int, host: int) -> int:
    """A seed for a host's collector and environments; hosts share none of their random numbers."""
    return int(np.random.SeedSequence(seed, spawn_key=(0, host)).generate_state(1)[0])


@contextmanager
def seeded(seed: int, host: int, sequence: int) -> Iterator[None]:
    """Within, the global generators of ``random``, NumPy and PyTorch are those of one part; afterwards as before.

    What policies draw from them is then part of no state, and a host that begins anew draws the same.
    """
    words = [int(word) for word in np.random.SeedSequence(seed, spawn_key=(1, host, sequence)).generate_state(3)]
    torch: Any = sys.modules.get("torch")  # policies that need it have imported it
    before = random.getstate(), np.random.get_state()
    torch_before = torch and torch.get_rng_state()
    cuda_before = torch.cuda.get_rng_state_all() if torch and torch.cuda.is_initialized() else []
    try:
        random.seed(words[0])
        np.random.seed(words[1])
        if torch:
            torch.manual_seed(words[2])
        yield
    finally:
        random.setstate(before[0])
        np.random.set_state(before[1])
        if torch:
            torch.set_rng_state(torch_before)
        if cuda_before:
            torch.cuda.set_rng_state_all(cuda_before)


class Host:
    """One host. It holds nothing that the fleet could not give to another one in its place.

    Args:
        make_collector: ``make_collector(shard) -> (collector, set_weights)``.
        host: its number, ``0 .. hosts - 1``.
        hosts: how many there are.
        seed: the fleet's.
    """

    def __init__(self, make_collector: MakeCollector, host: int, hosts: int, seed: int) -> None:
        self._make, self._host, self._hosts, self._seed = make_collector, host, hosts, seed
        self._collector: QMPCollector | None = None
        self._next = -1  # sequence number of the part that its collector would collect now; -1: there is none
        self._version: int | None = None  # of the weights that it has

    def collect(
        self, sequence: int, n_step: int, version: int, weights: Any = None, fresh: bool = False, state: Any = None
    ) -> bytes:
        """One part, with weights ``version``.

        Args:
            sequence: its number: how many parts of this host the learner was given before it.
            n_step: transitions to collect.
            version: of the weights to act with.
            weights: those, if this host does not have them.
            fresh: begin with ``state`` (that of a new collector if ``None``), not where the last part ended.
            state: ``state_dict()`` of the host's collector after the part before this one.

        Returns:
            Pickled ``(host, sequence, version, transitions, stats, state)``: whoever reads it owns the arrays.

        Raises:
            NoWeightsError: This host was started anew, or has other weights, and was given none. Nothing was done.
            HostError: Anything that failed; the message has its traceback.
        """
        if not fresh and self._next != sequence:
            raise NoWeightsError(f"host {self._host} was asked for part {sequence}, and has no collector that is there")
        if weights is None and (fresh or self._version != version):
            has = "none: it begins anew" if fresh or self._version is None else f"version {self._version}"
            raise NoWeightsError(f"host {self._host} was asked to act with weights of version {version}, and has {has}")
        self._next = -1  # until it went well
        try:
            if fresh:
                self._begin(state)
            assert self._collector is not None
            if weights is not None:
                self._version = None
                self._set_weights(weights)
                self._version = version
            with seeded(self._seed, self._host, sequence):
                stats = self._collector.collect(n_step=n_step)
            transitions = self._recorder.take()
            self._collector.stats(clear=True)  # a state must not grow with the number of episodes
            part = (self._host, sequence, version, transitions, stats, self._collector.state_dict())
            result = pickle.dumps(part, protocol=pickle.HIGHEST_PROTOCOL)
        except Exception as error:
            said = f"{type(error).__name__}: {error}"
            raise HostError(self._host, self._tasks_of(error), said, traceback.format_exc()) from None
        self._next = sequence + 1
        return result

    def _begin(self, state: State | None) -> None:
        """A new collector, with new environments: the old ones may be in the middle of a step, or of nothing."""
        if self._collector is not None:
            with suppress(Exception):
                self._collector.envs.close()
        self._collector = self._version = None
        self._recorder = Recorder()
        shard = Shard(self._host, self._hosts, shard_seed(self._seed, self._host), self._recorder)
        with seeded(self._seed, self._host, 0):
            made = self._make(shard)
        if not (isinstance(made, tuple) and len(made) == 2 and isinstance(made[0], QMPCollector) and callable(made[1])):
            raise TypeError(f"make_collector(shard) must return (QMPCollector, set_weights), got {made!r}")
        self._collector, self._set_weights = made
        if state is not None:
            self._collector.load_state_dict(state)

    def _tasks_of(self, error: BaseException) -> tuple[int, ...]:
        """The task of the sub-environment that an exception came out of, or else all tasks of this host."""
        if self._collector is None:
            return ()
        inner = getattr(self._collector.envs.unwrapped, "envs", ())
        rows = {id(env): row for row, outer in enumerate(inner) for env in (outer, getattr(outer, "unwrapped", outer))}
        tasks = self._collector.task_ids
        for frame, _ in traceback.walk_tb(error.__traceback__):
            row = rows.get(id(frame.f_locals.get("self")))
            if row is not None and row < len(tasks):
                return (int(tasks[row]),)
        return tuple(np.unique(tasks).tolist())
