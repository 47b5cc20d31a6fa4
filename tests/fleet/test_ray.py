"""The fleet on Ray: a cluster of a head and two nodes on this machine, of which some are killed. ``make test-ray``."""

from __future__ import annotations

import hashlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import drifts
import pytest
from drifts import SEED, Make, one_process, told, weights

from qmp_collect.fleet import HostError, NoWeightsError, RayFleet
from qmp_collect.runs import load_checkpoint

ray = pytest.importorskip("ray")
cluster_utils = pytest.importorskip("ray.cluster_utils")
pytestmark = [pytest.mark.ray, pytest.mark.filterwarnings("ignore")]  # Ray's own warnings are Ray's

HOSTS, ROUNDS, N_STEP = 2, 5, 50


@pytest.fixture(scope="module")
def cluster():
    """A head without room for hosts, and two nodes with room for one host each."""
    ray.cloudpickle.register_pickle_by_value(drifts)  # the nodes cannot import the tests
    cluster = cluster_utils.Cluster(initialize_head=True, head_node_args={"num_cpus": 0})
    cluster.nodes = [cluster.add_node(num_cpus=1) for _ in range(HOSTS)]
    cluster.wait_for_nodes()
    ray.init(cluster.address, log_to_driver=False)
    yield cluster
    ray.shutdown()
    cluster.shutdown()


def in_the_middle(trap: Path, collecting: Future, then: Callable[[], object]) -> list:
    """The parts that are being collected; ``then`` is done as soon as the host of the trap is in the middle of one."""
    while not trap.exists():
        assert not collecting.done(), collecting.result()
        time.sleep(0.05)
    then()
    return collecting.result()


def rounds(fleet, versions):
    for version in versions:
        fleet.publish(version, weights(version))
        yield from fleet.collect(N_STEP)


def test_a_synchronous_fleet_is_one_process(cluster):
    with RayFleet(Make(), HOSTS, seed=SEED) as fleet:
        parts = list(rounds(fleet, range(ROUNDS)))
    assert [told(part) for part in parts] == one_process(HOSTS, ROUNDS, N_STEP)
    assert all(part.transitions.obs.flags.writeable for part in parts)


def test_an_actor_killed_before_the_first_publication(cluster):
    with RayFleet(Make(), HOSTS, seed=SEED) as fleet:
        ray.kill(fleet._executor.actors[0])
        with pytest.raises(NoWeightsError, match="publish"):
            fleet.collect(N_STEP)
        actor = fleet._executor._actor.remote(Make(), 0, HOSTS, SEED)
        with pytest.raises(NoWeightsError, match="host 0 was asked"):  # a call that a new actor gets of an old one's
            ray.get(actor.collect.remote(3, 10, 7))
        with pytest.raises(NoWeightsError, match="none: it begins anew"):
            ray.get(actor.collect.remote(0, 10, 0, None, True))
        ray.kill(actor)
        assert fleet.num_steps == 0
        assert [told(part) for part in rounds(fleet, range(2))] == one_process(HOSTS, 2, N_STEP)


def test_an_actor_killed_between_calls_and_in_the_middle_of_one(cluster, tmp_path):
    (tmp_path / "1-20.armed").touch()  # the step of its third part
    with RayFleet(Make(traps=str(tmp_path)), HOSTS, seed=SEED) as fleet, ThreadPoolExecutor() as background:
        parts = list(rounds(fleet, [0]))
        ray.kill(fleet._executor.actors[0])
        later = background.submit(lambda: list(rounds(fleet, range(1, ROUNDS))))
        parts += in_the_middle(tmp_path / "1-20.sprung", later, lambda: ray.kill(fleet._executor.actors[1]))
    assert [told(part) for part in parts] == one_process(HOSTS, ROUNDS, N_STEP)


def test_a_node_killed_in_the_middle_of_a_call_and_another_added(cluster, tmp_path):
    (tmp_path / "0-20.armed").touch()

    def replace_node():  # in the main thread, as Ray wants it
        (dying,) = (node for node in cluster.nodes if node.node_id == (tmp_path / "0-20.sprung").read_text())
        cluster.remove_node(dying, allow_graceful=False)
        cluster.nodes = [node for node in cluster.nodes if node is not dying] + [cluster.add_node(num_cpus=1)]

    with RayFleet(Make(traps=str(tmp_path)), HOSTS, seed=SEED) as fleet, ThreadPoolExecutor() as background:
        collecting = background.submit(lambda: list(rounds(fleet, range(ROUNDS))))
        parts = in_the_middle(tmp_path / "0-20.sprung", collecting, replace_node)
    assert [told(part) for part in parts] == one_process(HOSTS, ROUNDS, N_STEP)


@pytest.mark.parametrize("bound", [1, 2])
def test_a_slow_host_stays_within_the_bound(cluster, bound):
    with RayFleet(Make(slow=(1, 0.003)), HOSTS, seed=SEED, synchronous=False, max_staleness=bound) as fleet:
        parts = list(rounds(fleet, range(20)))
        assert fleet.num_steps == sum(len(part.transitions) for part in parts) >= 20 * N_STEP
    assert max(part.staleness for part in parts) <= bound
    for host in range(HOSTS):
        sequences = [part.sequence for part in parts if part.host == host]
        assert sequences == list(range(len(sequences)))
        assert len(sequences) >= 20 // (bound + 1)


def test_an_exception_names_host_task_and_traceback(cluster):
    with RayFleet(Make(fails=(1, 2, 20)), HOSTS, seed=SEED) as fleet:
        with pytest.raises(HostError, match="host 1, task 2: ArithmeticError: the arm is stuck") as caught:
            list(rounds(fleet, range(ROUNDS)))
        assert 'raise ArithmeticError("the arm is stuck")' in str(caught.value)


LEARNER = """
import hashlib, os, sys
import drifts, ray
from qmp_collect.fleet import RayFleet
from qmp_collect.runs import load_checkpoint, save_checkpoint
ray.cloudpickle.register_pickle_by_value(drifts)
ray.init(os.environ["RAY_ADDRESS"], log_to_driver=False)
path, last = sys.argv[1], int(sys.argv[2])
with RayFleet(drifts.Make(), {hosts}, seed=drifts.SEED) as fleet:
    seen = []
    if os.path.exists(path):
        saved = load_checkpoint(path)
        fleet.load_state_dict(saved["fleet"])
        seen = saved["seen"]
    for version in range(fleet.version + 1, {rounds}):
        fleet.publish(version, drifts.weights(version))
        for part in fleet.collect({n_step}):
            seen.append(hashlib.sha256(repr(drifts.told(part)).encode()).hexdigest())
            if version == last:
                print("in the middle of a round", flush=True)
                sys.stdin.read()
        save_checkpoint(path, {{"fleet": fleet.state_dict(), "seen": seen}})
"""


def test_the_learner_is_killed_and_resumed(cluster, tmp_path):
    program = LEARNER.format(hosts=HOSTS, rounds=ROUNDS, n_step=N_STEP)
    environment = os.environ | {"RAY_ADDRESS": cluster.address, "PYTHONPATH": os.pathsep.join(sys.path)}
    command = [sys.executable, "-c", program, str(tmp_path / "checkpoint.npz")]
    with subprocess.Popen(
        [*command, "2"], env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as learner:
        assert learner.stdout is not None
        assert "in the middle" in learner.stdout.readline()
        learner.send_signal(signal.SIGKILL)
    subprocess.run([*command, "-1"], env=environment, check=True, stdin=subprocess.DEVNULL)
    seen = load_checkpoint(tmp_path / "checkpoint.npz")["seen"]
    expected = one_process(HOSTS, ROUNDS, N_STEP)
    assert seen == [hashlib.sha256(repr(part).encode()).hexdigest() for part in expected]
