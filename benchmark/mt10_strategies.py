"""MT10 by each vector strategy: transitions per second of wall time, on all cores of an otherwise idle machine.

    python benchmark/mt10_strategies.py --out benchmark/results/mt10_strategies.json

In one run, in turn, over and over: this package's batched environment, the same environments one after the other
(``sync``) and in a process each (``async``), and Meta-World's own vector environment in both ways. Without resets.
"""

from __future__ import annotations

import json
import os
import time
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

import gymnasium as gym
import metaworld  # noqa: F401  registers Meta-World's own environments
import numpy as np
import tyro

import qmp_envs  # noqa: F401  registers this package's
from qmp_collect.runs.provenance import provenance


@dataclass
class Args:
    num_envs: tuple[int, ...] = (10, 80)
    """sub-environments of all ten tasks"""
    transitions: int = 400
    """of a turn"""
    turns: int = 7
    """of each side"""
    out: Path | None = None
    """where to write the result as JSON"""


def sides(num_envs: int) -> dict[str, gym.vector.VectorEnv]:
    made: dict[str, gym.vector.VectorEnv] = {
        strategy: gym.make_vec("MetaWorldMT10-v0", num_envs=num_envs, vector_strategy=strategy)
        for strategy in ("batched", "sync", "async")
    }
    if num_envs == 10:  # it has one environment of each task, and no other number
        made |= {
            f"Meta-World {strategy}": gym.make_vec("Meta-World/MT10", vector_strategy=strategy, seed=1, num_goals=1)
            for strategy in ("sync", "async")
        }
    return made


def main(args: Args) -> None:
    result: dict[str, Any] = {"provenance": provenance(), "transitions": args.transitions}
    for num_envs in args.num_envs:
        envs = sides(num_envs)
        steps = args.transitions // num_envs
        # A turn is far shorter than an episode (500 steps), and all turns together are as well.
        assert steps * (args.turns + 1) < 500
        shape = (args.turns + 1, steps, num_envs, 4)
        actions = np.random.default_rng(1).uniform(-1, 1, shape).astype(np.float32)
        seconds: dict[str, list[float]] = {name: [] for name in envs}
        for each in envs.values():
            each.reset(seed=1)
        load = os.getloadavg()[0]
        for of_turn in actions:
            for name, each in envs.items():
                start = time.perf_counter()
                for action in of_turn:
                    each.step(action)
                seconds[name].append(time.perf_counter() - start)
        for each in envs.values():
            each.close()
        counted = {name: taken[1:] for name, taken in seconds.items()}  # the first turn warms up
        per_second = {name: steps * num_envs / median(taken) for name, taken in counted.items()}
        result[f"{num_envs} sub-environments"] = {
            "seconds_of_a_turn": {name: [round(s, 4) for s in taken] for name, taken in counted.items()},
            "transitions_per_second": {name: round(value) for name, value in per_second.items()},
            "batched_is_faster_by": {
                name: round(per_second["batched"] / value, 2) for name, value in per_second.items()
            },
            "load_average": round(load, 1),
        }
        print(num_envs, json.dumps(result[f"{num_envs} sub-environments"], indent=1))
    if args.out is not None:
        args.out.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main(tyro.cli(Args))
