"""A fleet in the place of a collector: what it stores and counts, and that it goes on exactly."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from drifts import SEED, Drift, Drifts, Make, T, digest, weights
from test_fleet import HOSTS, N_STEP

from qmp_collect.fleet import HostError, LocalFleet
from qmp_collect.fleet_collector import FleetCollector
from qmp_collect.host import Recorder
from qmp_collect.runs import load_checkpoint, save_checkpoint


class Learner:
    """Its weights are another version's at every publication."""

    def __init__(self) -> None:
        self.version = -1

    def weights(self) -> dict[str, np.ndarray]:
        self.version += 1
        return weights(self.version)


def make(learner, buffer, **settings):
    return FleetCollector(LocalFleet(Make(**settings), HOSTS, seed=SEED), learner.weights, buffer, num_tasks=T)


def test_it_stores_and_counts_what_the_hosts_bring():
    fleet = LocalFleet(Make(), HOSTS, seed=SEED)
    expected, parts = Recorder(), []
    for version in range(3):
        fleet.publish(version, weights(version))
        for part in fleet.collect(N_STEP):
            parts.append(part)
            expected.add(part.transitions)
    buffer = Recorder()
    collector = make(Learner(), buffer)
    stats = [collector.collect(n_step=N_STEP) for _ in range(3)]
    assert digest(buffer.take()) == digest(expected.take())
    assert [s.n_collected_steps for s in stats] == [
        sum(len(p.transitions) for p in parts[i : i + HOSTS]) for i in (0, 3, 6)
    ]
    assert stats[1].returns.tolist() == [r for part in parts[3:6] for r in part.stats.returns]
    total = collector.stats(clear=True)
    assert total.behavior_counts.tolist() == sum(p.stats.behavior_counts for p in parts).tolist()
    assert (collector.num_steps, collector.num_episodes) == (fleet.num_steps, total.n_collected_episodes)
    assert collector.stats().n_collected_steps == 0


def test_it_goes_on_exactly(tmp_path):
    learner, buffer = Learner(), Recorder()
    collector = make(learner, buffer)
    for _ in range(2):
        collector.collect(n_step=N_STEP)
    buffer.take()
    save_checkpoint(tmp_path / "fleet.npz", {"collector": collector.state_dict(), "version": learner.version})
    expected = [collector.collect(n_step=N_STEP) for _ in range(2)]
    first = digest(buffer.take()), collector.stats().mixture.tolist(), collector.num_steps

    again = Learner()
    resumed = make(again, buffer)
    saved = load_checkpoint(tmp_path / "fleet.npz")
    resumed.load_state_dict(saved["collector"])
    again.version = saved["version"]
    found = [resumed.collect(n_step=N_STEP) for _ in range(2)]
    assert (digest(buffer.take()), resumed.stats().mixture.tolist(), resumed.num_steps) == first
    assert [s.returns.tolist() for s in found] == [s.returns.tolist() for s in expected]


def test_a_stop_comes_before_the_hosts_are_asked():
    learner = Learner()
    collector = make(learner, Recorder())
    stats = collector.collect(n_step=N_STEP, stop=lambda: True)
    assert (stats.unfinished, stats.n_collected_steps, learner.version) == (1, 0, -1)
    assert collector.collect(n_step=N_STEP, stop=lambda: False).unfinished == 0
    with pytest.raises(RuntimeError, match="nothing to go on"):
        collector.collect(n_step=N_STEP, resume=True)


def test_a_failure_takes_nothing_away():
    buffer = Recorder()
    collector = make(Learner(), buffer, fails=(1, 0, 8))  # in the second collection
    first = collector.collect(n_step=N_STEP).n_collected_steps
    with pytest.raises(HostError, match="host 1, task 0: ArithmeticError: the arm is stuck"):
        collector.collect(n_step=N_STEP)
    assert len(buffer.take()) == first == collector.num_steps == collector.stats().n_collected_steps


@pytest.mark.parametrize("damage", [{"fleet": None}, {"num_steps": "many"}, {"stats": {}}])
def test_a_damaged_state_changes_nothing(damage):
    collector = make(Learner(), Recorder())
    collector.collect(n_step=N_STEP)
    before = collector.state_dict()
    with pytest.raises(ValueError, match="state"):
        collector.load_state_dict(before | damage)
    assert collector.num_steps == before["num_steps"]
    assert collector.fleet.state_dict()["version"] == 0


@pytest.fixture
def measured(monkeypatch):
    """The environments measure something of episodes by themselves: how far they ended from the middle."""
    step = Drift.step

    def step_and_report(env, action):
        *outcome, info = step(env, action)
        return *outcome, info | {"drift": abs(env.position)}

    monkeypatch.setattr(Drift, "step", step_and_report)
    monkeypatch.setattr(Drifts, "episode_metrics", {"drift": "last"}, raising=False)


@pytest.mark.usefixtures("measured")
def test_what_hosts_measure_of_episodes_comes_with_their_parts():
    buffer = Recorder()
    collector = make(Learner(), buffer)
    fresh = collector.state_dict()
    collector.collect(n_step=N_STEP, stop=True)  # counted before anything is known of the hosts
    stats = collector.collect(n_step=N_STEP)
    assert sorted(stats.metrics) == ["drift"]
    rows = buffer.take()
    assert sorted(stats.metrics["drift"]) == sorted(np.abs(rows.next_obs[rows.truncations, 2]))
    assert collector.stats().unfinished == 1
    saved = collector.state_dict()

    resumed = make(Learner(), Recorder())
    resumed.load_state_dict(saved)
    again = resumed.collect(n_step=N_STEP)
    expected = stats.metrics["drift"].tolist() + again.metrics["drift"].tolist()
    assert resumed.stats().metrics["drift"].tolist() == expected
    resumed.load_state_dict(fresh)
    assert resumed.collect(n_step=N_STEP).metrics["drift"].tolist() == stats.metrics["drift"].tolist()


@pytest.mark.usefixtures("measured")
@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"num_tasks": T, "episode_metrics": ()}, r"the metrics \[\], those to be added have \['drift'\]"),
        ({"num_tasks": T + 1}, "of 4 tasks, those to be added of 3"),
    ],
)
def test_parts_of_other_hosts_than_expected_are_not_stored(settings, said):
    buffer = Recorder()
    collector = FleetCollector(LocalFleet(Make(), HOSTS), Learner().weights, buffer, **settings)
    for _ in range(2):
        with pytest.raises(ValueError, match=f"^host 0 collects other things .* {said}"):
            collector.collect(n_step=N_STEP)
    assert (buffer._kept, collector.num_steps, collector.fleet.num_steps) == ([], 0, 0)


class Fails(Recorder):
    """Stores nothing at the calls that ``at`` names, and raises."""

    def __init__(self, *at: int, error: type[BaseException] = OSError) -> None:
        super().__init__()
        self.at, self.error, self.calls = at, error, 0

    def add(self, transitions: Any) -> None:
        self.calls += 1
        if self.calls - 1 in self.at:
            raise self.error("the disk is full")
        super().add(transitions)


@pytest.mark.parametrize("at", [(0,), (1, 2), (3, 4, 7), (5, 6)])  # a call of three parts at a time
def test_what_a_sink_refused_comes_again_before_anything_else(at):
    expected = Recorder()
    whole = make(Learner(), expected)
    for _ in range(3):
        whole.collect(n_step=N_STEP)
    buffer = Fails(*at)
    collector = make(Learner(), buffer)
    while collector.fleet.version < 2:
        try:
            collector.collect(n_step=N_STEP)
        except OSError:
            state = collector.state_dict()  # of what is stored
            assert state["num_steps"] == state["fleet"]["num_steps"] == sum(map(len, buffer._kept))
    assert digest(buffer.take()) == digest(expected.take())
    assert collector.stats().returns.tolist() == whole.stats().returns.tolist()
    assert collector.num_steps == collector.fleet.num_steps == whole.num_steps


@pytest.mark.parametrize("synchronous", [True, False])
@pytest.mark.parametrize("error", [ArithmeticError, KeyboardInterrupt])
def test_after_a_failure_on_a_host_it_goes_on(synchronous, error):
    class Breaks:
        """Policies of host 1, in its next part."""

        host = -1

        def __call__(self, shard):
            collector, set_weights = Make()(shard)

            def set_or_break(weights):
                if shard.host == self.host:
                    self.host = -1
                    raise error("mended by itself")
                set_weights(weights)

            return collector, set_or_break

    def repeat(collect):
        for _ in range(2):  # asynchronous: host 1 may be working already
            collect(n_step=N_STEP)

    make_collector, buffer = Breaks(), Recorder()
    fleet = LocalFleet(make_collector, HOSTS, seed=SEED, synchronous=synchronous)
    collector = FleetCollector(fleet, Learner().weights, buffer, num_tasks=T)
    parts = []
    store, collector._store = collector._store, lambda part: (parts.append(part), store(part))
    collector.collect(n_step=N_STEP)
    make_collector.host = 1
    with pytest.raises((HostError, KeyboardInterrupt), match="mended by itself"):
        repeat(collector.collect)
    for _ in range(3):
        assert collector.collect(n_step=N_STEP).n_collected_steps >= N_STEP
    for host in range(HOSTS):  # none left out, none twice
        ours = [part for part in parts if part.host == host]
        assert [part.sequence for part in ours] == list(range(len(ours)))
        assert len(ours) >= 3
        assert [part.version for part in ours] == sorted(part.version for part in ours)
        assert max(part.staleness for part in ours) <= fleet.max_staleness
    assert len(buffer.take()) == collector.num_steps == sum(len(part.transitions) for part in parts)
