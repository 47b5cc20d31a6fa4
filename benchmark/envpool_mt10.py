"""What MT10 costs in EnvPool and here: CPU time per transition with 10 and 80 sub-environments, without resets.

    pip install envpool==1.2.5 && python benchmark/envpool_mt10.py

In one run, in turn, over and over: EnvPool, this package's batched environment, its environments one after the other
(``sync``), and the five steps of MuJoCo alone. CPU time of all threads, which asks for no idle machine. EnvPool, which
brings three packages of assets, has one pool per task: ten of them are stepped side by side, one thread each.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

import envpool
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


def pools_side(num_envs: int, num_steps: int) -> speed.Side:
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

    return speed.Side("EnvPool", steps, units=num_steps * num_envs)


def main(args: Args) -> None:
    result: dict[str, Any] = {"provenance": provenance(vars(args)), "envpool": envpool.__version__}
    torch.set_num_threads(1)
    for num_envs in (10, 80):
        num_steps = args.transitions // num_envs
        assert num_steps * (args.turns + 1) < 500  # a turn ends long before an episode does
        physics, against_sync = speed.mt10_steps(num_envs, 0.0, num_steps)
        sides = (*physics.others, *against_sync.others, pools_side(num_envs, num_steps))
        measured = speed.measure(
            speed.Comparison("MT10", "cost", 1.0, physics.ours, sides), speed.Args(repeats=args.turns, cpu_time=True)
        )
        samples = {
            side.label: [round(1e6 * float(seconds), 1) for seconds in of_side]
            for side, of_side in zip((physics.ours, *sides), (measured.ours, *measured.others), strict=True)
        }
        medians = {label: round(median(of_side), 1) for label, of_side in samples.items()}
        of_ours = {label: round(medians["vector step"] / value, 2) for label, value in medians.items()}
        result[f"{num_envs} sub-environments"] = {"us": samples, "median_us": medians, "ours_takes": of_ours}
        print(f"{num_envs} sub-environments: {medians} us per transition, this package's takes {of_ours}", flush=True)
    args.out.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main(tyro.cli(Args))
