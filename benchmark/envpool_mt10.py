"""What MT10 costs in EnvPool and here: CPU time per transition with 10 and 80 sub-environments, without resets.

    pip install envpool==1.2.5 && python benchmark/envpool_mt10.py

In one run, in turn, over and over: EnvPool, this package's batched environment, its environments one after the other
(``sync``) and in a process each (``async``), and the five steps of MuJoCo alone. CPU time of all threads and processes,
as Linux counts it, which asks for no idle machine. EnvPool, which brings three packages of assets, has one pool per
task: ten of them are stepped side by side, one thread each.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple

import envpool
import gymnasium as gym
import numpy as np
import speed
import torch
import tyro

from qmp_collect.runs.provenance import provenance

TASKS = (
    "Reach", "Push", "PickPlace", "DoorOpen", "DrawerOpen", "DrawerClose", "ButtonPressTopdown", "PegInsertSide",
    "WindowOpen", "WindowClose",
)  # fmt: skip


@dataclass
class Args:
    """Step MT10."""

    turns: int = 9
    """samples of each side"""
    transitions: int = 400
    """of a sample"""
    out: Path = Path(__file__).parent / "results" / "envpool_mt10.json"
    """where the samples are written"""


class Side(NamedTuple):
    run: Callable[[], object]
    workers: tuple[int, ...] = ()  # processes, besides this one


def pools_side(num_envs: int, num_steps: int) -> Side:
    envs_per_task = num_envs // len(TASKS)
    pools = [
        envpool.make_gymnasium(f"MetaWorld/{task}-v3", num_envs=envs_per_task, num_threads=1, seed=1) for task in TASKS
    ]
    for pool in pools:
        pool.reset()
    shape = (num_steps, len(TASKS), envs_per_task, 4)
    actions = np.random.default_rng(1).uniform(-1, 1, shape).astype(np.float32)

    def steps() -> None:
        for of_tasks in actions:
            for pool, action in zip(pools, of_tasks, strict=True):
                pool.send(action)
            for pool in pools:
                pool.recv()

    return Side(steps)


def async_side(num_envs: int, num_steps: int) -> Side:
    envs: Any = gym.make_vec("MetaWorldMT10-v0", num_envs=num_envs, vector_strategy="async")
    envs.reset(seed=1)
    actions = np.random.default_rng(1).uniform(-1, 1, (num_steps, num_envs, 4)).astype(np.float32)

    def steps() -> None:
        for action in actions:
            envs.step(action)

    return Side(steps, tuple(process.pid for process in envs.unwrapped.processes))


def cpu_seconds(workers: tuple[int, ...]) -> float:
    """CPU time so far, of this process and these."""
    of_workers = [
        int(thread.read_text().split()[0])
        for pid in workers
        for thread in Path(f"/proc/{pid}/task").glob("*/schedstat")
    ]
    return time.process_time() + sum(of_workers) / 1e9


def main(args: Args) -> None:
    result: dict[str, Any] = {"provenance": provenance(vars(args)), "envpool": envpool.__version__}
    torch.set_num_threads(1)
    for num_envs in (10, 80):
        num_steps = args.transitions // num_envs
        assert num_steps * (args.turns + 1) < 500  # a turn ends long before an episode does
        physics, against_sync = speed.mt10_steps(num_envs, 0.0, num_steps)
        known = {side.label: Side(side.run) for side in (physics.ours, *physics.others, *against_sync.others)}
        batched = known.pop("vector step")
        sides = {"batched": batched, **known, "async": async_side(num_envs, num_steps)}
        sides["EnvPool"] = pools_side(num_envs, num_steps)
        samples: dict[str, list[float]] = {label: [] for label in sides}
        for _ in range(args.turns + 1):
            for label, side in sides.items():
                start = cpu_seconds(side.workers)
                side.run()
                samples[label].append((cpu_seconds(side.workers) - start) / (num_steps * num_envs))
        micros = {label: [round(1e6 * s, 1) for s in seconds[1:]] for label, seconds in samples.items()}  # one warms up
        medians = {label: round(median(of_side), 1) for label, of_side in micros.items()}
        of_ours = {label: round(value / medians["batched"], 2) for label, value in medians.items()}
        result[f"{num_envs} sub-environments"] = {"us": micros, "median_us": medians, "times_batched": of_ours}
        print(
            f"{num_envs} sub-environments: us per transition {medians}; times the batched one's {of_ours}", flush=True
        )
    args.out.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main(tyro.cli(Args))
