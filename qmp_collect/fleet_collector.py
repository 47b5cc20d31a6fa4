"""A fleet in the place of a collector: what a training loop asks of a `QMPCollector`, answered by many hosts.

fleet = RayFleet(make_collector, hosts=8)
collector = FleetCollector(fleet, learner.state_dict, buffer, num_tasks=10)
while collector.num_steps < 1_000_000:
    stats = collector.collect(n_step=10_000)
    learner.update(...)
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from qmp_collect.amount import asks_to_stop
from qmp_collect.fleet import Fleet, Part
from qmp_collect.groups import Seeds
from qmp_collect.host import State
from qmp_collect.ledger import Ledger
from qmp_collect.stats import CollectStats
from qmp_collect.transitions import TransitionSink

__all__ = ["FleetCollector"]


class FleetCollector:
    """Publishes the learner's weights before every collection, and stores what the hosts bring, part by part.

    Args:
        fleet: See `qmp_collect.fleet`. Nobody else publishes or collects.
        weights: ``weights()``, what the hosts' ``set_weights`` is given.
        buffer: Where transitions go: one sink with ``add(transitions)`` for all tasks.
        num_tasks: ``T`` of the hosts' collectors.
        num_policies: ``K`` of those. Default: ``T``.
        episode_metrics: Names of what they measure of episodes. Default: those of the first part.
    """

    def __init__(
        self,
        fleet: Fleet,
        weights: Callable[[], Any],
        buffer: TransitionSink,
        *,
        num_tasks: int,
        num_policies: int | None = None,
        episode_metrics: Iterable[str] | None = None,
    ) -> None:
        self.fleet, self._weights, self._buffer = fleet, weights, buffer
        self.num_policies = num_tasks if num_policies is None else num_policies
        self._ledger = Ledger(num_tasks, self.num_policies, episode_metrics)

    @property
    def num_steps(self) -> int:
        """Stored transitions since construction, summed over hosts and tasks."""
        return self._ledger.num_steps

    @property
    def num_episodes(self) -> int:
        """Finished episodes since construction, summed over hosts and tasks."""
        return self._ledger.num_episodes

    def reset(self, *, seed: Seeds = None) -> None:
        """Nothing: the hosts begin their episodes by the fleet's seed, at the first `collect`."""

    def collect(self, *, n_step: int, stop: Callable[[], Any] | Any = None, resume: bool = False) -> CollectStats:
        """Publish the weights, and store parts of ``n_step`` transitions, summed over hosts and tasks.

        After an error, another call first stores what the hosts had collected, or are collecting, by then. A part whose
        ``add`` raised is handed on again, as a whole; it does not count before.

        Args:
            n_step: as for `Fleet.collect`.
            stop: Asked before anything is asked of the hosts, see `QMPCollector.collect`; a collection that has begun
                is ended.
            resume: ``False``: no collection is ever left in the middle.

        Returns:
            Statistics of this call alone, all hosts together; seconds are those of the hosts, summed.

        Raises:
            RuntimeError: ``resume``.
            ValueError: ``n_step`` is less than one for each host, or a host's statistics are of other tasks or metrics
                than this collector's: its part is not stored.
            HostError, HostLostError: See `Fleet.collect`. What had been handed on before is stored and counted, and so
                it is with what ``buffer`` raises.
        """
        if resume:
            raise RuntimeError("resume=True, but a fleet leaves no collection in the middle: there is nothing to go on")
        self._ledger.begin(self.num_policies)
        if asks_to_stop(stop)():
            self._ledger.add(unfinished=1)
            return self._ledger.stretch()
        self.fleet.drain_into(self._store)
        self.fleet.publish(self.fleet.version + 1, self._weights())
        self.fleet.collect_into(self._store, n_step)
        return self._ledger.stretch()

    def stats(self, *, clear: bool = False) -> CollectStats:
        """Statistics since construction, or since they were last cleared; ``clear=True`` starts anew."""
        stats = self._ledger.total()
        if clear:
            self._ledger.clear(self.num_policies)
        return stats

    def state_dict(self) -> State:
        """Every host's state after its last part that was stored, and the statistics; see `Fleet.state_dict`."""
        return {"fleet": self.fleet.state_dict(), **self._ledger.state_dict()}

    def load_state_dict(self, state: State) -> None:
        """Continue from ``state_dict()`` with as many hosts.

        Raises:
            ValueError: The state is of other hosts or tasks, or damaged. Nothing has changed then.
        """
        try:
            self._ledger.check_state(state)
            fleet = state["fleet"]
        except (KeyError, TypeError, AttributeError, IndexError) as error:
            raise ValueError(f"the state is damaged, or of another version: {error!r}") from error
        self.fleet.load_state_dict(fleet)
        self._ledger.load_state_dict(state)

    def _store(self, part: Part) -> None:
        try:
            self._ledger.check(part.stats)
        except ValueError as error:
            raise ValueError(
                f"host {part.host} collects other things than num_tasks and episode_metrics of this FleetCollector "
                f"say: {error}"
            ) from None
        self._buffer.add(part.transitions)
        self._ledger.absorb(part.stats)

    def close(self) -> None:
        """End all hosts."""
        self.fleet.close()
