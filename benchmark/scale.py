"""What a transition, an update and a publication cost, and what that predicts for many cores and hosts.

    python benchmark/scale.py                       # all task sets on one core, some minutes
    python benchmark/scale.py --env-ids Maze10 --quick

Costs are CPU time of this process on one core at the paper's settings for `sac_qmp_separate.py`, medians of repeats; so
other programs on the machine change them little. What they predict is arithmetic (`predict`), not a measurement: see
docs/scale.md for the formula and for what it leaves out.
"""

from __future__ import annotations

import json
import pickle
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

import gymnasium as gym
import torch
import tyro
from speed import script

import qmp_collect
import qmp_envs
from qmp_collect.host import Host, Shard
from qmp_collect.runs.provenance import provenance

RESULTS = Path(__file__).parent / "results" / "scale.json"
# Updates on an H200 with --compile --cudagraphs, 10 tasks x 256 (results/h200/speed.txt); hosts stay CPUs.
GPU_UPDATE = 757e-6
NETWORK = 1.25e9  # bytes per second: 10 Gbit/s
HOSTS, CORES = 8, 64


@dataclass
class Args:
    env_ids: tuple[str, ...] = ("Maze10", "Reacher5", "Walker4", "Kitchen10", "MetaWorldCDS", "MetaWorldMT10")
    """task sets"""
    envs_per_task: int = 8
    """sub-environments of each task on a host"""
    rows: int = 4000
    """transitions of a part, and of a sample of the environment's cost"""
    repeats: int = 5
    """samples of each cost"""
    out: Path | None = None
    """the JSON file (default: benchmark/results/scale.json, with --quick none)"""
    quick: bool = False
    """smoke test: tiny samples; the numbers mean nothing"""


def cpu_seconds(run: Callable[[], object], calls: int, repeats: int) -> float:
    """Median CPU seconds of a call, after one that is not counted."""
    run()
    samples = []
    for _ in range(repeats):
        start = time.process_time()
        for _ in range(calls):
            run()
        samples.append((time.process_time() - start) / calls)
    return median(samples)


def costs(env_id: str, args: Args) -> dict[str, float]:
    """Seconds and bytes: of a transition, of a gradient step of all tasks, of a publication."""
    torch.manual_seed(0)
    sac = script()
    settings, task_set = sac.parse_args(["--env-id", env_id]), qmp_envs.TASK_SETS[f"{env_id}-v0"]
    num_tasks = task_set.num_tasks
    num_envs = num_tasks * args.envs_per_task
    made: dict[str, Any] = {}

    def make_collector(shard: Shard) -> tuple[qmp_collect.QMPCollector, Callable[[Any], object]]:
        mode = gym.vector.AutoresetMode.SAME_STEP
        envs = gym.make_vec(settings.env_id, num_envs=num_envs, autoreset_mode=mode, on_divergence="end")
        dims = envs.single_observation_space.shape[0], envs.single_action_space.shape[0]
        agent = sac.Agent(settings, num_tasks, *dims, torch.device("cpu"))
        switch = sac.make_switch(settings, agent, task_set)
        callables = {"backend": "torch", "device": "cpu", "own_policy": agent.own_policy, "seed": shard.seed}
        collector = qmp_collect.QMPCollector(
            envs, agent.policies, agent.q_functions, buffer=shard.buffer, switch=switch, **callables
        )
        made.update(agent=agent, envs=envs, collector=collector)
        return collector, lambda weights: [
            getattr(agent, name).load_state_dict(weights[name]) for name in ("actor", "qf")
        ]

    host = Host(make_collector, 0, 1, 0)
    steps = 2 if args.quick else max(2, args.rows // num_envs)
    shape = {"n_step": steps * num_envs}
    agent_weights: dict[str, Any] = {}
    made_weights: list[bytes] = []
    host._begin(None)
    agent, envs, collector = made["agent"], made["envs"], made["collector"]
    agent_weights = {name: getattr(agent, name).state_dict() for name in ("actor", "qf")}
    part = host.collect(0, weights=agent_weights, version=0, fresh=True, **shape)
    agent, envs, collector = made["agent"], made["envs"], made["collector"]  # the fresh ones
    transitions = pickle.loads(part)[3]
    rows = len(transitions)

    buffer = qmp_collect.TaskReplayBuffer(
        20_000, num_tasks, envs.single_observation_space, envs.single_action_space, device="cpu", seed=0
    )
    while buffer.sizes.min() < settings.batch_size:
        buffer.add(transitions)
    repeats, calls = (1, 1) if args.quick else (args.repeats, 5)
    obs, actions = collector.obs, envs.action_space.sample()

    def step() -> None:
        for _ in range(steps):
            envs.step(actions)

    def publish() -> None:
        made_weights[:] = [pickle.dumps({k: getattr(agent, k).state_dict() for k in ("actor", "qf")}, protocol=5)]
        pickle.loads(made_weights[0])

    whole = (0, 0, 0, transitions, pickle.loads(part)[4], collector.state_dict())
    found = {
        "tasks": num_tasks,
        "envs": num_envs,
        "act": cpu_seconds(lambda: collector.act(obs), calls * 5, repeats) / num_envs,
        "env": cpu_seconds(step, 1, repeats) / (steps * num_envs),
        "pack": cpu_seconds(lambda: (pickle.dumps(whole, protocol=5), collector.state_dict()), calls, repeats) / rows,
        "unpack_and_store": cpu_seconds(lambda: buffer.add(pickle.loads(part)[3]), calls, repeats) / rows,
        "bytes": len(part) / rows,
        "update": cpu_seconds(lambda: agent.update(buffer.sample(settings.batch_size)), 2 * calls, repeats),
        "publish": cpu_seconds(publish, calls, repeats),
        "weight_bytes": len(made_weights[0]),
        "round_transitions": num_tasks * settings.env_steps_per_round,
        "round_updates": settings.gradient_steps_per_round,
    }
    envs.close()
    return {name: value if isinstance(value, int) else float(f"{value:.4g}") for name, value in found.items()}


def predict(c: dict[str, float], cores: int, hosts: int, update: float, synchronous: bool) -> float:
    """Transitions per second of a whole training run: ``cores`` collect, a learner has a core or a GPU of its own.

    Args:
        c: what `costs` returns.
        cores: of all hosts together, one collecting process on each.
        hosts: machines; 1: weights and parts do not cross the network.
        update: seconds of a gradient step.
        synchronous: whether collection and learning wait for each other.
    """
    n = c["round_transitions"]
    wire = (n * c["bytes"] + hosts * c["weight_bytes"]) / NETWORK if hosts > 1 else 0.0
    collecting = n * (c["env"] + c["act"] + c["pack"]) / cores + c["publish"]
    learning = n * c["unpack_and_store"] + c["publish"] + wire + c["round_updates"] * update
    return n / (collecting + learning if synchronous else max(collecting, learning))


def table(c: dict[str, float]) -> dict[str, float]:
    """What is predicted, transitions per second."""
    n = c["round_transitions"]
    alone = n / (n * (c["env"] + c["act"] + c["unpack_and_store"]) + c["round_updates"] * c["update"])
    found = {"one core does everything": alone}
    for learner, update in (("a core", c["update"]), ("a GPU", GPU_UPDATE)):
        for machines, hosts in ((f"one machine of {CORES} cores", 1), (f"{HOSTS} hosts of {CORES // HOSTS}", HOSTS)):
            for mode in ("synchronous", "asynchronous"):
                found[f"{machines}, {mode}, {learner} learns"] = predict(c, CORES, hosts, update, mode == "synchronous")
    a_core = 1 / (c["env"] + c["act"] + c["pack"])
    found[f"{CORES} cores collect"] = CORES * a_core
    for learner, update in (("a core", c["update"]), ("a GPU", GPU_UPDATE)):
        found[f"cores that collect as fast as {learner} learns"] = n / (c["round_updates"] * update) / a_core
    return {name: float(f"{value:.3g}") for name, value in found.items()}


def main(args: Args) -> None:
    torch.set_num_threads(1)
    found: dict[str, Any] = {"machine": provenance(vars(args)), "network": NETWORK, "gpu_update": GPU_UPDATE}
    found["costs"], found["predicted"] = {}, {}
    out = args.out or (None if args.quick else RESULTS)
    for env_id in args.env_ids:
        found["costs"][env_id] = c = costs(env_id, args)
        found["predicted"][env_id] = table(c)
        print(json.dumps({env_id: {**c, **found["predicted"][env_id]}}, indent=1), flush=True)
        if out is not None:
            out.write_text(json.dumps(found, indent=1, default=str) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main(tyro.cli(Args))
