"""Collection on many machines: collectors as Ray actors, and one learner that publishes weights and takes parts.

    def make_collector(shard):                      # runs on each host
        envs = gym.make_vec("Kitchen10-v0", num_envs=10)
        learner = Learner()
        collector = QMPCollector(envs, learner.policies, learner.q_functions, buffer=shard.buffer, seed=shard.seed)
        return collector, learner.load_state_dict

    with RayFleet(make_collector, hosts=8) as fleet:
        for version in range(1000):
            fleet.publish(version, learner.state_dict())
            for part in fleet.collect(n_step=10_000):
                buffer.add(part.transitions)
            learner.update(...)

Needs the extra ``ray`` only when a `RayFleet` is made. `LocalFleet` is the same within this process.
"""

from __future__ import annotations

import logging
import pickle
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from typing import Any, Protocol

from qmp_collect.amount import integer
from qmp_collect.extras import needs
from qmp_collect.host import Host, HostError, MakeCollector, NoWeightsError, Shard, State
from qmp_collect.states import check_like
from qmp_collect.stats import CollectStats
from qmp_collect.transitions import Transitions

__all__ = [
    "Fleet",
    "HostError",
    "HostLostError",
    "LocalFleet",
    "NoWeightsError",
    "Part",
    "RayFleet",
    "Shard",
]

_log = logging.getLogger(__name__)


class HostLostError(RuntimeError):
    """A host went away in the middle of a call: its process died, or its machine."""


@dataclass(frozen=True, eq=False)
class Part:
    """What one host collected in one call.

    Attributes:
        host: ``0 .. hosts - 1``.
        sequence: the how-manieth part of this host it is, from 0; no part comes twice and none is left out.
        version: of the weights that acted.
        staleness: how many newer versions had been published when it was yielded, at most ``max_staleness``.
        transitions: all of it, in order; ``env_ids`` count within the host.
        stats: of this part alone.
    """

    host: int
    sequence: int
    version: int
    staleness: int
    transitions: Transitions
    stats: CollectStats


class Executor(Protocol):
    """How hosts are reached. A call happens once or not at all, or is lost: nothing here tries again."""

    def put(self, weights: Any) -> Any:
        """Keep weights as they are now, for any number of calls."""

    def start(self, host: int, sequence: int, n_step: int, version: int, weights: Any, **begin: Any) -> Any:
        """Begin ``Host.collect`` with these arguments, and what `put` made of weights; it does not wait for the end.

        Returns:
            What to ask `wait` and `result` for.
        """

    def wait(self, calls: Sequence[Any], seconds: float) -> Sequence[Any]:
        """Those of the calls that have ended, one at least, or none after so many seconds."""

    def result(self, host: int, call: Any) -> bytes:
        """What the call returned or raised; `HostLostError` if nobody knows: there is a new host in its place then."""

    def close(self) -> None:
        """End all hosts."""


@dataclass(eq=False)
class _Known:
    """What the fleet knows of a host.

    Attributes:
        sequence: parts that count.
        state: of its collector after the last of those; ``None``: new.
        version: of the weights that it has, if it is there and ended where ``sequence`` and ``state`` are.
        call: what it works on.
        asked: which publication it works with, or has worked with.
        ready: a part that has arrived, and the state after it.
        lost: times in a row that it was lost.
    """

    host: int
    sequence: int = 0
    state: State | None = None
    version: int | None = None
    call: Any = None
    asked: int = 0
    ready: tuple[tuple[int, Transitions, CollectStats], State] | None = None
    lost: int = 0


class Fleet:
    """Collectors on hosts, and what the learner's process knows of them; see `RayFleet`, and `LocalFleet`.

    A host's part counts from the moment in which `collect` yields it, or `collect_into` has stored it. Whatever happens
    to a host before, its next call begins with the state after its last part that counted, on whichever machine it is
    then.

    Args:
        executor: how the hosts are reached.
        hosts: ``H``.
        synchronous: whether `collect` asks all hosts for a share each and waits for all of them; the data is then that
            of one process which asks the same collectors one after another, byte for byte. Otherwise hosts go on while
            the learner learns, and parts come as they are ready.
        max_staleness: of asynchronous fleets, how many newer versions there may be when a part is yielded, at least
            1: `collect` waits for the hosts whose parts would be older after the next `publish`. Parts of synchronous
            fleets are never stale.
        max_losses: how often in a row a host may be lost before `HostLostError` is raised.

    Attributes:
        version: of the newest weights; -1 before the first.
        num_steps: transitions of all parts that count.
    """

    def __init__(
        self, executor: Executor, hosts: int, *, synchronous: bool = True, max_staleness: int = 1, max_losses: int = 5
    ) -> None:
        self.synchronous = bool(synchronous)
        self.max_staleness = 0 if synchronous else integer("max_staleness", max_staleness)
        self.max_losses = integer("max_losses", max_losses, at_least=0)
        self.version, self.num_steps = -1, 0
        self._executor = executor
        self._hosts = [_Known(host) for host in range(integer("hosts", hosts))]
        self._weights: Any = None  # what the executor made of them
        self._published = 0  # times
        self._shares: list[int] = []  # of the last `collect`, in transitions

    @property
    def hosts(self) -> int:
        """``H``."""
        return len(self._hosts)

    def publish(self, version: int, weights: Any) -> None:
        """Let hosts act with these weights from their next call on.

        They are kept as they are now; each host gets them with its next call, and those in between are passed over.

        Args:
            version: a number above all earlier ones, such as that of the gradient steps made.
            weights: of policies and Q-functions, whatever ``set_weights`` takes: dicts of arrays or tensors, anything
                that can be pickled, on the CPU if hosts have no GPU. ``set_weights`` copies out of them: arrays may be
                read-only there.

        Raises:
            ValueError: The version is not above the last one (after `load_state_dict`, not below it), or parts would
                become older than ``max_staleness``: take all that `collect` yields between two calls of this.
        """
        version, least = integer("version", version, at_least=0), self.version + (self._weights is not None)
        if version < least:
            raise ValueError(f"version must grow: expected {least} or more, got {version}")
        if weights is None:
            raise ValueError("weights must be something that set_weights takes, got None")
        if late := [known.host for known in self._hosts if self._late(known)]:
            raise ValueError(
                f"parts of hosts {late} would be older than max_staleness={self.max_staleness}: take all that collect "
                "yields before publishing again"
            )
        self._weights, self.version, self._published = self._executor.put(weights), version, self._published + 1
        if not self.synchronous:
            self._ask()

    def collect(self, n_step: int) -> Iterator[Part]:
        """Parts of ``n_step`` transitions, summed over hosts and tasks: each host overshoots by less than its ``N``.

        Synchronous fleets ask each host for an equal share and yield a part of each, in the order of hosts.
        Asynchronous ones yield parts of such shares as they come, until there are enough and none is left that would
        be too old after the next `publish`; hosts go on with the next meanwhile.

        After an error, another call goes on with what is there: no part is lost, and the host that failed begins with
        its last state. A part that was yielded is the caller's to store; see `collect_into`.

        Raises:
            ValueError: ``n_step`` is less than one for each host.
            NoWeightsError: Nothing was published yet (since `load_state_dict`).
            HostError: An environment or a callable failed; names host and task, and has the traceback.
            HostLostError: A host was lost again and again.
        """
        return self._yielded(self._arriving(n_step))

    def collect_into(self, store: Callable[[Part], object], n_step: int) -> None:
        """Call ``store(part)`` with what `collect` yields; a part counts when that has returned.

        If it raises, the part is still there, as are those that came with it: `drain_into` hands them on.

        Raises:
            ValueError, NoWeightsError, HostError, HostLostError: As `collect`; what was stored before is counted.
        """
        self._store(self._arriving(n_step), store)

    def drain_into(self, store: Callable[[Part], object]) -> None:
        """Call ``store(part)`` with what an error left behind, all that would be too old after the next `publish`.

        Parts that hosts are collecting are waited for. Without an error before, there is nothing.

        Raises:
            HostError: One of those failed, too; another call goes on with the others.
            HostLostError: A host was lost again and again.
        """
        self._store(self._overdue(), store)

    def state_dict(self) -> State:
        """All hosts' states after their last parts that count, and how many those are: arrays and plain values.

        What was collected since is not part of it: it will be collected again.
        """
        hosts = {str(host): {"sequence": k.sequence, "state": k.state} for host, k in enumerate(self._hosts)}
        return {"version": self.version, "num_steps": self.num_steps, "hosts": hosts}

    def load_state_dict(self, state: State) -> None:
        """Continue from `state_dict` of a fleet of as many hosts; publish weights before you collect.

        Raises:
            ValueError: The state is of other hosts, or damaged. Nothing has changed then.
        """
        try:
            states = {host: saved["state"] for host, saved in state["hosts"].items()}
        except (KeyError, TypeError, AttributeError) as error:
            raise ValueError(f"the state is damaged, or of another version: {error!r}") from error
        if len(states) != self.hosts:
            raise ValueError(f"the state is of {len(states)} hosts, this fleet has {self.hosts}")
        expected = self.state_dict()
        for host, saved in expected["hosts"].items():
            saved["state"] = states.get(host)
        check_like("fleet", state, expected)
        for host, saved_state in states.items():
            if saved_state is not None and not isinstance(saved_state, Mapping):
                raise ValueError(
                    f"state['fleet.hosts.{host}.state']: expected that of a collector, got {saved_state!r}"
                )
        self.version, self.num_steps, self._weights = int(state["version"]), int(state["num_steps"]), None
        # Calls that are under way are forgotten: what they return belongs to another past.
        self._hosts = [
            _Known(host, int(state["hosts"][str(host)]["sequence"]), states[str(host)]) for host in range(self.hosts)
        ]
        self._shares = []

    def close(self) -> None:
        """End all hosts. What they were collecting is given up."""
        self._executor.close()

    def __enter__(self) -> Fleet:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def _arriving(self, n_step: int) -> Iterator[_Known]:
        """Hosts whose parts of a collection are ready, each until it was counted."""
        n_step = integer("n_step", n_step)
        if n_step < self.hosts:
            raise ValueError(f"n_step must be at least one for each of {self.hosts} hosts, got {n_step}")
        if self._weights is None:
            raise NoWeightsError("no host has weights: publish(version, weights) first")
        self._shares = [n_step // self.hosts + (host < n_step % self.hosts) for host in range(self.hosts)]
        return self._round() if self.synchronous else self._as_they_come(n_step)

    def _round(self) -> Iterator[_Known]:
        while waiting := [known for known in self._hosts if known.ready is None]:
            self._ask()
            self._receive(waiting)
        yield from self._hosts

    def _as_they_come(self, n_step: int) -> Iterator[_Known]:
        collected = 0
        while wanted := self._hosts if collected < n_step else [known for known in self._hosts if self._late(known)]:
            self._ask()
            ready = [known for known in wanted if known.ready is not None]
            if not ready:
                self._receive(wanted)
                continue
            first = min(ready, key=lambda known: known.asked)
            collected += len(self._part(first).transitions)
            yield first

    def _overdue(self) -> Iterator[_Known]:
        while waiting := [known for known in self._hosts if self._late(known) and known.ready is None]:
            self._receive(waiting)
        yield from [known for known in self._hosts if self._late(known)]

    def _yielded(self, arriving: Iterator[_Known]) -> Iterator[Part]:
        for known in arriving:
            part = self._part(known)
            self._count(known)
            yield part

    def _store(self, arriving: Iterator[_Known], store: Callable[[Part], object]) -> None:
        for known in arriving:
            store(self._part(known))
            self._count(known)

    def _late(self, known: _Known) -> bool:
        """Whether its next part would be too old if weights were published now."""
        under_way = known.call is not None or known.ready is not None
        return under_way and self._published - known.asked >= self.max_staleness

    def _ask(self) -> None:
        """Give every host that has nothing to do its next part to collect."""
        for known, share in zip(self._hosts, self._shares, strict=False):  # no shares: nothing to go on with yet
            if known.call is not None or known.ready is not None:
                continue
            weights = None if known.version == self.version else self._weights
            begin: dict[str, Any] = {} if known.version is not None else {"fresh": True, "state": known.state}
            call = known.sequence, share, self.version, weights
            known.call, known.asked = self._executor.start(known.host, *call, **begin), self._published

    def _receive(self, hosts: Sequence[_Known]) -> None:
        """Wait until one of these hosts' calls has ended, and take note of all that have."""
        waiting = [known for known in hosts if known.call is not None]
        while not (ended := self._executor.wait([known.call for known in waiting], 60.0)):
            _log.warning("waiting for hosts %s", [known.host for known in waiting])
        for known in waiting:
            if known.call in ended:
                self._note(known)

    def _note(self, known: _Known) -> None:
        call, known.call, known.version = known.call, None, None
        try:
            found = self._executor.result(known.host, call)
        except (HostLostError, NoWeightsError) as error:
            known.lost += 1
            _log.warning("part %d of host %d is collected again: %s", known.sequence, known.host, error)
            if known.lost > self.max_losses:
                said = f"host {known.host} was lost {known.lost} times in a row, at last: {error}"
                raise HostLostError(said) from error
            return
        host, sequence, version, transitions, stats, state = pickle.loads(found)
        if (host, sequence) != (known.host, known.sequence):
            _log.warning("got part %s, not %s: not taken", (host, sequence), (known.host, known.sequence))
            return
        known.lost, known.version = 0, version
        known.ready = (version, transitions, stats), state

    def _part(self, known: _Known) -> Part:
        assert known.ready is not None
        (version, transitions, stats), _ = known.ready
        return Part(known.host, known.sequence, version, self._published - known.asked, transitions, stats)

    def _count(self, known: _Known) -> None:
        """Its part is the learner's from now on."""
        assert known.ready is not None
        (_, transitions, _), known.state = known.ready
        known.sequence, known.ready = known.sequence + 1, None
        self.num_steps += len(transitions)
        if not self.synchronous:
            self._ask()  # this host goes on while the learner uses its part


class LocalFleet(Fleet):
    """A fleet within this process, whose hosts collect one after another when somebody waits for them.

    To try a ``make_collector``, for a debugger, and for one machine; the data of a synchronous one is that of a
    `RayFleet`. Arguments are those of `RayFleet`.
    """

    def __init__(self, make_collector: MakeCollector, hosts: int, *, seed: int = 0, **settings: Any) -> None:
        super().__init__(_Local(make_collector, integer("hosts", hosts), seed), hosts, **settings)


class _Local:
    def __init__(self, make_collector: MakeCollector, hosts: int, seed: int) -> None:
        self._hosts = [Host(make_collector, host, hosts, seed) for host in range(hosts)]
        self._calls: dict[int, Callable[[], bytes]] = {}
        self._count = 0

    def put(self, weights: Any) -> bytes:
        return pickle.dumps(weights, protocol=pickle.HIGHEST_PROTOCOL)

    def start(self, host: int, sequence: int, n_step: int, version: int, weights: Any, **begin: Any) -> int:
        self._count += 1
        given = None if weights is None else pickle.loads(weights)
        self._calls[self._count] = partial(self._hosts[host].collect, sequence, n_step, version, given, **begin)
        return self._count

    def wait(self, calls: Sequence[int], seconds: float) -> Sequence[int]:
        return calls[:1]

    def result(self, host: int, call: int) -> bytes:
        return self._calls.pop(call)()

    def close(self) -> None:
        self._calls.clear()


class RayFleet(Fleet):
    """Collectors as Ray actors, on this machine or on a cluster; see `Fleet` for its methods.

    Connects to the cluster that ``ray.init`` or ``RAY_ADDRESS`` names, or else starts Ray on this machine. A host that
    dies is replaced by a new actor, wherever there is room; no call is repeated by Ray itself, and none is answered by
    an actor that was not given weights and state.

    Args:
        make_collector: ``make_collector(shard) -> (collector, set_weights)``, called on the hosts. The `QMPCollector`
            is made with ``buffer=shard.buffer, seed=shard.seed``; `Shard.host` says which tasks or how many
            environments are this host's. ``set_weights(weights)`` copies what was published to the callables. Noise of
            the callables comes from the global generators of ``random``, NumPy or PyTorch, which are seeded for every
            part, or else a host that is replaced does not go on exactly. It travels pickled: by value if it is of the
            main program, else its module has to be importable there.
        hosts: ``H``, how many actors.
        seed: of all hosts.
        synchronous, max_staleness, max_losses: See `Fleet`.
        actor_options: Of Ray's actors, such as ``{"num_cpus": 8, "runtime_env": ...}``. Default: a CPU each, on as many
            machines as there are.

    Raises:
        ModuleNotFoundError: Ray is not installed; says what installs it.

    Environments that can save their states (``get_state``; all of the task sets) go on in the middle of an episode
    after a host was replaced; others begin new episodes there. What a collector counts for itself (``warmup_steps``,
    schedules of ``num_steps``, gates) it counts on each host.
    """

    def __init__(
        self,
        make_collector: MakeCollector,
        hosts: int,
        *,
        seed: int = 0,
        synchronous: bool = True,
        max_staleness: int = 1,
        max_losses: int = 5,
        actor_options: Mapping[str, Any] | None = None,
    ) -> None:
        executor = _Ray(make_collector, integer("hosts", hosts), seed, actor_options or {})
        super().__init__(executor, hosts, synchronous=synchronous, max_staleness=max_staleness, max_losses=max_losses)


class _Ray:
    """An actor that is dead stays dead: what took its place would not know that it has neither weights nor state."""

    def __init__(self, make_collector: MakeCollector, hosts: int, seed: int, options: Mapping[str, Any]) -> None:
        with needs("ray"):
            import ray
        self._ray = ray
        chosen = {"num_cpus": 1, "scheduling_strategy": "SPREAD", **options}
        self._actor = ray.remote(Host).options(**chosen | {"max_restarts": 0, "max_task_retries": 0})
        self._arguments = [(make_collector, host, hosts, seed) for host in range(hosts)]
        self.actors = [self._actor.remote(*arguments) for arguments in self._arguments]

    def put(self, weights: Any) -> Any:
        return self._ray.put(weights)

    def start(self, host: int, sequence: int, n_step: int, version: int, weights: Any, **begin: Any) -> Any:
        return self.actors[host].collect.remote(sequence, n_step, version, weights, **begin)

    def wait(self, calls: Sequence[Any], seconds: float) -> Sequence[Any]:
        ended: list[Any] = self._ray.wait(list(calls), timeout=seconds)[0]
        return ended

    def result(self, host: int, call: Any) -> bytes:
        errors = self._ray.exceptions
        try:
            found: bytes = self._ray.get(call)
        except errors.RayTaskError as error:
            raise error.cause from None
        except errors.RayError as error:
            self._end(host)  # it may live on, out of reach
            self.actors[host] = self._actor.remote(*self._arguments[host])
            raise HostLostError(str(error)) from error
        return found

    def close(self) -> None:
        for host in range(len(self.actors)):
            self._end(host)

    def _end(self, host: int) -> None:
        with suppress(Exception):
            self._ray.kill(self.actors[host])
