"""S seeds in one process against S runs: CPU and wall time of the loop of a script, on this machine, now.

    python benchmark/seeds.py --out benchmark/results/seeds.json

Three ways in turn, over and over: all seeds in one process (`qmp_collect.runs.seeds`), one after the other, and
all of them at a time, each in a process. What is timed is collecting and learning, by the preset, without evaluations,
logs and checkpoints; a process's start is not. Wall time of a busy machine says little, and the load is written down:
CPU time is what one way costs and another does not.
"""

from __future__ import annotations

import json
import multiprocessing
import os
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import gymnasium as gym
import numpy as np
import torch
import tyro

import qmp_collect
from qmp_collect.runs.provenance import provenance
from qmp_collect.runs.scripts import load_script
from qmp_collect.runs.seeds import SeedReplay, stack_agents


@dataclass
class Args:
    script: Literal["sac_qmp_separate", "sac_qmp_multihead"] = "sac_qmp_separate"
    """whose loop"""
    env_ids: tuple[str, ...] = ("Reacher5", "Maze10")
    """task sets, each with its preset"""
    seeds: int = 5
    """S"""
    steps: int = 200
    """vector steps of a seed in a measurement"""
    repeats: int = 3
    """measurements of each way"""
    out: Path | None = None
    """where to write the result as JSON"""


def run(name: str, env_id: str, seeds: list[int], steps: int, start: Any = None) -> tuple[float, float]:
    """Seconds of wall time and of this process's CPU time for so many vector steps and their gradient steps."""
    torch.set_num_threads(1)
    script = load_script(name)
    args, n = script.parse_args(["--env-id", env_id]), len(seeds)
    tasks = script.qmp_envs.TASK_SETS[args.env_id].num_tasks
    rows = np.arange(n * tasks * args.envs_per_task)
    labels = rows // (tasks * args.envs_per_task) * tasks + rows % tasks
    envs = gym.make_vec(args.env_id, num_envs=len(rows), autoreset_mode="SameStep")
    spaces = envs.single_observation_space, envs.single_action_space
    dims, cpu = tuple(space.shape[0] for space in spaces), torch.device("cpu")  # type: ignore[index]
    agent = stack_agents(lambda s: script.Agent(args, tasks, *dims, cpu, s), seeds, cpu)
    buffer = SeedReplay([qmp_collect.TaskReplayBuffer(10_000, tasks, *spaces, seed=seed) for seed in seeds])
    collector = qmp_collect.QMPCollector(
        envs, agent.policies, agent.q_functions, own_policy=agent.own_policy, task_ids=labels, own_ids=rows % tasks,
        num_tasks=n * tasks, buffer=buffer, backend="torch", seed=seeds,
    )  # fmt: skip
    joint = name == "sac_qmp_multihead"  # a batch of all tasks, and T times as many of them
    sample = buffer.sample_joint if joint else buffer.sample
    collector.collect(n_step=2 * len(rows))
    agent.update(sample(args.batch_size))
    updates = round(steps * args.envs_per_task * args.gradient_steps_per_round / args.env_steps_per_round)
    if start is not None:
        start.wait()
    wall, cpu_time = time.perf_counter(), time.process_time()
    collector.collect(n_step=steps * len(rows))
    for _ in range(updates * (tasks if joint else 1)):
        agent.update(sample(args.batch_size))
    return time.perf_counter() - wall, time.process_time() - cpu_time


def report(queue: Any, *arguments: Any) -> None:
    queue.put(run(*arguments))


def at_a_time(name: str, env_id: str, seeds: list[int], steps: int) -> tuple[float, float]:
    """The slowest process's wall time, and the CPU time of all."""
    context = multiprocessing.get_context("spawn")
    queue, start = context.Queue(), context.Barrier(len(seeds))
    processes = [context.Process(target=report, args=(queue, name, env_id, [seed], steps, start)) for seed in seeds]
    for process in processes:
        process.start()
    found = [queue.get() for _ in processes]
    for process in processes:
        process.join()
    return max(wall for wall, _ in found), sum(cpu for _, cpu in found)


def main(args: Args) -> None:
    seeds = list(range(1, args.seeds + 1))
    result: dict[str, Any] = {
        "provenance": provenance(),
        "settings": {"script": args.script, "seeds": args.seeds, "steps": args.steps},
    }
    for env_id in args.env_ids:
        measured: dict[str, list[tuple[float, float]]] = {"one process": [], "one by one": [], "at a time": []}
        load = [os.getloadavg()[0]]
        for _ in range(args.repeats):
            measured["one process"].append(run(args.script, env_id, seeds, args.steps))
            single = np.sum([run(args.script, env_id, [seed], args.steps) for seed in seeds], 0)
            measured["one by one"].append((float(single[0]), float(single[1])))
            measured["at a time"].append(at_a_time(args.script, env_id, seeds, args.steps))
            load.append(os.getloadavg()[0])
        median = {way: np.median(times, 0).round(2).tolist() for way, times in measured.items()}
        ours = median["one process"]
        result[env_id] = {
            "wall_and_cpu_seconds": {way: np.round(times, 2).tolist() for way, times in measured.items()},
            "median": median,
            "ratio_of_wall_and_cpu_to_one_process": {
                way: [round(value / mine, 2) for value, mine in zip(times, ours, strict=True)]
                for way, times in median.items()
            },
            "load": [round(value, 1) for value in load],
        }
        print(env_id, json.dumps(result[env_id], indent=1))
    if args.out is not None:
        args.out.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main(tyro.cli(Args))
