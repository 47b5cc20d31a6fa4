"""A fleet's rules, with hosts in this process that are lost, restarted and late as a test wants; see test_ray.py."""

from __future__ import annotations

import pickle
import random
import subprocess
import sys
from typing import Any

import numpy as np
import pytest
from drifts import SEED, Drifts, Make, T, digest, one_process, told, weights

from qmp_collect import QMPCollector
from qmp_collect.fleet import Fleet, HostError, HostLostError, LocalFleet, NoWeightsError, Part, Shard, _Local
from qmp_collect.host import Host, Recorder
from qmp_collect.runs import load_checkpoint, save_checkpoint

HOSTS, ROUNDS, N_STEP = 3, 6, 50


class Unreliable(_Local):
    """Loses calls, before or after they are carried out, and puts new hosts in the place of others, told or not."""

    def __init__(self, seed: int, often: float = 0.3) -> None:
        self._new = lambda host: Host(Make(), host, HOSTS, SEED)
        self.luck, self.often, self.count = random.Random(seed), often, dict.fromkeys(("before", "after", "silent"), 0)
        super().__init__(Make(), HOSTS, SEED)

    def _happens(self, what: str) -> bool:
        happens = self.luck.random() < self.often
        self.count[what] += happens
        return happens

    def start(self, host: int, *call: Any, **begin: Any) -> int:
        if self._happens("silent"):
            self._hosts[host] = self._new(host)
        return super().start(host, *call, **begin)

    def wait(self, calls: Any, seconds: float) -> Any:
        return self.luck.sample(calls, self.luck.randrange(len(calls) + 1))  # in any order, now and then none

    def result(self, host: int, call: int) -> bytes:
        try:
            if self._happens("before"):
                raise HostLostError("killed")
            found = super().result(host, call)
            if self._happens("after"):
                raise HostLostError("nobody knows what became of it")
            return found
        except HostLostError:
            self._hosts[host] = self._new(host)
            raise


def rounds(fleet: Fleet, versions: Any) -> list[Part]:
    parts = []
    for version in versions:
        fleet.publish(version, weights(version))
        parts += fleet.collect(N_STEP)
    return parts


def test_a_synchronous_fleet_is_one_process():
    expected = one_process(HOSTS, ROUNDS, N_STEP)
    np.random.seed(1)
    before = np.random.get_state()[1].tolist()
    fleet = LocalFleet(Make(), HOSTS, seed=SEED)
    parts = rounds(fleet, range(ROUNDS))
    assert [told(part) for part in parts] == expected
    assert {part.staleness for part in parts} == {0}
    assert fleet.num_steps == sum(len(part.transitions) for part in parts) >= ROUNDS * N_STEP
    assert np.random.get_state()[1].tolist() == before  # the learner's own noise is left alone
    firsts = {digest(part.transitions)[0] for part in parts[:HOSTS]}
    assert len(firsts) == HOSTS  # no two hosts see the same


@pytest.mark.parametrize("seed", range(4))
def test_what_is_lost_changes_no_byte(seed):
    executor = Unreliable(seed)
    fleet = Fleet(executor, HOSTS, max_losses=100)
    assert [told(part) for part in rounds(fleet, range(ROUNDS))] == one_process(HOSTS, ROUNDS, N_STEP)
    assert min(executor.count.values()) > 0, "nothing happened"


def test_a_host_without_weights_does_not_act():
    made = []
    host = Host(lambda shard: made.append(shard) or Make()(shard), 0, 1, SEED)
    for begin in ({}, {"fresh": True}):
        with pytest.raises(NoWeightsError, match="host 0 was asked"):
            host.collect(0, 10, 0, **begin)
    assert made == []
    part = host.collect(0, 10, 0, weights(0), fresh=True)
    for sequence, version, begin in ((1, 1, {}), (0, 0, {}), (2, 0, {}), (1, 0, {"fresh": True})):
        with pytest.raises(NoWeightsError):
            host.collect(sequence, 10, version, **begin)
    assert len(made) == 1
    assert pickle.loads(part)[3].obs.flags.writeable  # a sink may keep the arrays


def test_before_anything_is_published():
    fleet = LocalFleet(Make(), HOSTS)
    with pytest.raises(NoWeightsError, match="publish"):
        fleet.collect(N_STEP)
    assert fleet.num_steps == 0


def test_no_part_is_taken_twice():
    class Repeating(_Local):
        last = b""

        def result(self, host: int, call: int) -> bytes:
            found = super().result(host, call)
            if self.last and host == 0 and repeat.random() < 0.5:
                return self.last  # of the same host, and another sequence number
            self.last = found if host == 0 else self.last
            return found

    repeat = random.Random(0)
    parts = rounds(Fleet(Repeating(Make(), HOSTS, SEED), HOSTS), range(ROUNDS))
    assert [told(part) for part in parts] == one_process(HOSTS, ROUNDS, N_STEP)


@pytest.mark.parametrize("bound", [1, 3])
def test_a_slow_host_stays_within_the_bound(bound):
    class Slow(_Local):
        """Host 2 answers only when nobody else is asked; as the fleet waits for it alone, all others being ready."""

        def start(self, host: int, *call: Any, **begin: Any) -> int:
            self.of = {**getattr(self, "of", {}), self._count + 1: host}
            return super().start(host, *call, **begin)

        def wait(self, calls: Any, seconds: float) -> Any:
            return [call for call in calls if self.of[call] != 2][:1] or calls

    fleet = Fleet(Slow(Make(), HOSTS, SEED), HOSTS, synchronous=False, max_staleness=bound)
    parts = []
    for version in range(0, 120, 10):
        fleet.publish(version, weights(version))
        for part in fleet.collect(N_STEP):
            assert (fleet.version - part.version) / 10 == part.staleness <= bound
            parts.append(part)
    staleness = {host: [part.staleness for part in parts if part.host == host] for host in range(HOSTS)}
    assert max(staleness[2]) == bound  # it was waited for, not left behind
    assert len(staleness[0]) > len(staleness[2]) >= 12 // (bound + 1)
    for host in range(HOSTS):
        assert [part.sequence for part in parts if part.host == host] == list(range(len(staleness[host])))

    def publish_without_collecting():
        for version in range(200, 210):
            fleet.publish(version, weights(0))

    with pytest.raises(ValueError, match=rf"older than max_staleness={bound}: take all"):
        publish_without_collecting()


def test_the_learner_is_killed_and_resumed(tmp_path):
    expected = one_process(HOSTS, ROUNDS, N_STEP)
    first = LocalFleet(Make(), HOSTS, seed=SEED)
    parts = rounds(first, range(2))
    first.publish(2, weights(2))
    under_way = first.collect(N_STEP)
    parts.append(next(under_way))  # and the other two hosts' parts are ready, but were not taken
    save_checkpoint(tmp_path / "fleet.npz", first.state_dict())

    second = LocalFleet(Make(), HOSTS, seed=SEED)
    second.load_state_dict(load_checkpoint(tmp_path / "fleet.npz"))
    assert (second.version, second.num_steps) == (2, sum(len(part.transitions) for part in parts))
    with pytest.raises(NoWeightsError):
        second.collect(N_STEP)
    # Hosts 1 and 2 are a part behind host 0: each goes on with its own.
    later = rounds(second, range(2, ROUNDS))
    for host in range(HOSTS):
        ours = [told(part)[:2] for part in parts + later if part.host == host]
        assert ours == [(host, sequence) for sequence in range(len(ours))]
    assert [told(part) for part in later if part.host == 1] == [x for x in expected if x[0] == 1 and x[1] >= 2]


def test_states_of_other_fleets_change_nothing():
    fleet, other = LocalFleet(Make(), HOSTS, seed=SEED), LocalFleet(Make(), 2)
    rounds(fleet, range(2))
    good = fleet.state_dict()
    damaged = [
        (other.state_dict(), "of 2 hosts, this fleet has 3"),
        ({}, "damaged"),
        (good | {"version": "1"}, "fleet.version"),
        (good | {"hosts": {"0": 1, "1": 2, "2": 3}}, "damaged"),
        (good | {"hosts": good["hosts"] | {"1": {"sequence": 2, "state": 5}}}, "expected that of a collector"),
    ]
    for state, said in damaged:
        with pytest.raises(ValueError, match=said):
            fleet.load_state_dict(state)
    assert [told(part) for part in rounds(fleet, [2])] == one_process(HOSTS, 3, N_STEP)[-HOSTS:]


def test_an_exception_names_host_task_and_traceback():
    make = Make(fails=(1, 2, 20))
    fleet = LocalFleet(make, HOSTS, seed=SEED)
    with pytest.raises(HostError, match="host 1, task 2: ArithmeticError: the arm is stuck") as caught:
        rounds(fleet, range(ROUNDS))
    assert 'raise ArithmeticError("the arm is stuck")' in str(caught.value)
    assert (caught.value.host, caught.value.task_ids) == (1, (2,))
    assert str(pickle.loads(pickle.dumps(caught.value))) == str(caught.value)

    make.fails = None  # mended: the round goes on, and nothing of it is lost or doubled
    version = fleet.version
    with pytest.raises(ValueError, match="take all"):
        fleet.publish(version + 1, weights(0))
    parts = [*fleet.collect(N_STEP), *rounds(fleet, range(version + 1, ROUNDS))]
    assert [told(part) for part in parts] == one_process(HOSTS, ROUNDS, N_STEP)[version * HOSTS :]


def test_where_nobody_knows_the_task_all_are_named():
    def make(shard: Shard) -> Any:
        collector, _ = Make()(shard)
        return collector, lambda weights: 1 / 0

    fleet = LocalFleet(make, 1)
    fleet.publish(0, 1)
    with pytest.raises(HostError, match="host 0, tasks 0, 1, 2: ZeroDivisionError"):
        list(fleet.collect(5))


def test_a_host_that_is_lost_again_and_again():
    fleet = Fleet(Unreliable(0, often=1.0), HOSTS, max_losses=2)
    fleet.publish(0, weights(0))
    with pytest.raises(HostLostError, match="was lost 3 times in a row, at last: killed"):
        list(fleet.collect(N_STEP))


def without_buffer(shard: Shard) -> Any:
    return Make()(Shard(shard.host, shard.hosts, shard.seed, Recorder()))


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (without_buffer, "buffer=shard.buffer"),
        (lambda shard: Make()(shard)[0], "must return .QMPCollector, set_weights."),
        (lambda shard: 1 / 0, "host 0: ZeroDivisionError"),
    ],
)
def test_a_wrong_make_collector(make, said):
    fleet = LocalFleet(make, 1)
    fleet.publish(0, weights(0))
    with pytest.raises(HostError, match=said):
        list(fleet.collect(5))


def test_arguments():
    fleet = LocalFleet(Make(), HOSTS)
    fleet.publish(3, weights(0))
    for call, said in [
        (lambda: fleet.collect(2), "at least one for each of 3 hosts, got 2"),
        (lambda: fleet.publish(3, weights(0)), "version must grow: expected 4 or more, got 3"),
        (lambda: fleet.publish(4, None), "weights must be"),
        (lambda: LocalFleet(Make(), 0), "hosts must be positive"),
        (lambda: LocalFleet(Make(), 1, synchronous=False, max_staleness=0), "max_staleness must be positive"),
    ]:
        with pytest.raises(ValueError, match=said):
            call()


def test_weights_are_kept_as_they_were():
    live = weights(0)
    fleet = LocalFleet(Make(), HOSTS, seed=SEED)
    fleet.publish(0, live)
    live["gain"] *= 0
    assert [told(part) for part in fleet.collect(N_STEP)] == one_process(HOSTS, 1, N_STEP)


def test_states_do_not_grow_with_episodes():
    fleet = LocalFleet(Make(), 1, seed=SEED)
    sizes = [len(pickle.dumps(rounds(fleet, [version]) and fleet.state_dict())) for version in range(6)]
    assert max(sizes) < sizes[0] + 100


def test_imported_without_ray_and_torch():
    code = "import qmp_collect.fleet, sys; assert not {'ray', 'torch'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True, env={"PYTHONPATH": ":".join(sys.path)})


def test_the_setting_is_what_it_should_be():
    collector, _ = Make()(Shard(0, 1, 0, Recorder()))
    assert isinstance(collector, QMPCollector)
    assert isinstance(collector.envs, Drifts)
    assert collector.num_policies == T
