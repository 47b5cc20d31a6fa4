"""Large memory pages: what ``GLIBC_TUNABLES=glibc.malloc.hugetlb=1`` spares the gradient steps on a CPU.

    python benchmark/large_pages.py --out benchmark/results/large_pages.json

The variable is read when a program starts. So there are two processes, one with it and one without, which make some
updates of the same agent in turn, over and over. What counts is their CPU time, which other work on the machine
disturbs less than a clock; the losses of both have to be equal bit for bit.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

import gymnasium as gym
import torch
import tyro

import qmp_collect
from qmp_collect.runs.named import NAMED
from qmp_collect.runs.provenance import provenance
from qmp_collect.runs.scripts import load_script
from qmp_collect.runs.suite.process import LARGE_PAGES

AGENTS = {
    "Reacher5, separate": ("sac_qmp_separate", "--env-id Reacher5"),
    "Maze10, separate": ("sac_qmp_separate", "--env-id Maze10"),
    "Maze3 of `qmp train first`": ("sac_qmp_multihead", NAMED["first"].flags),
    "Maze10, multi-head": ("sac_qmp_multihead", "--env-id Maze10"),
}


@dataclass
class Args:
    turns: int = 40
    """of each process"""
    updates: int = 10
    """gradient steps of a turn"""
    out: Path | None = None
    """where to write the result as JSON"""
    child: str | None = None
    """an agent's name: be one of the two processes, which makes a turn for each line that it reads"""


def child(name: str, updates: int) -> None:
    """Print CPU milliseconds for an update and the sum of the last one's losses, once a turn."""
    torch.set_num_threads(1)
    torch.manual_seed(0)
    script = load_script(AGENTS[name][0])
    args = script.parse_args(AGENTS[name][1].split())
    num_tasks = script.qmp_envs.TASK_SETS[args.env_id].num_tasks
    envs = gym.make_vec(args.env_id, num_envs=num_tasks, autoreset_mode="SameStep")
    obs_space, action_space = envs.single_observation_space, envs.single_action_space
    agent = script.Agent(args, num_tasks, obs_space.shape[0], action_space.shape[0], torch.device("cpu"))
    buffer = qmp_collect.TaskReplayBuffer(1_000, num_tasks, obs_space, action_space, seed=0)
    qmp_collect.QMPCollector(envs, agent.policies, agent.q_functions, buffer=buffer, backend="torch", seed=0).collect(
        n_step=500 * num_tasks
    )
    draw = buffer.sample if AGENTS[name][0] == "sac_qmp_separate" else buffer.sample_joint
    for _ in sys.stdin:
        start = time.process_time()
        for _ in range(updates):
            losses = agent.update(draw(args.batch_size))
        milliseconds = (time.process_time() - start) / updates * 1e3
        print(json.dumps([milliseconds, sum(float(loss.detach().sum()) for loss in losses.values())]), flush=True)


def measure(name: str, args: Args) -> dict[str, Any]:
    """Both processes in turn; the first two turns of each warm it up."""
    plain = {variable: value for variable, value in os.environ.items() if variable not in LARGE_PAGES}
    words = [sys.executable, __file__, "--child", name, "--updates", str(args.updates)]
    pipes: dict[str, Any] = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True, "bufsize": 1}
    times: dict[str, list[float]] = {"small": [], "large": []}
    with (
        subprocess.Popen(words, env=plain, **pipes) as small,
        subprocess.Popen(words, env=plain | LARGE_PAGES, **pipes) as large,
    ):
        for turn in range(-2, args.turns):
            losses = set()
            for pages, process in (("small", small), ("large", large)):
                assert process.stdin is not None
                assert process.stdout is not None
                process.stdin.write("go\n")
                milliseconds, loss = json.loads(process.stdout.readline())
                losses.add(loss)
                if turn >= 0:
                    times[pages].append(round(milliseconds, 2))
            if len(losses) > 1:
                raise RuntimeError(f"{name}: the losses differ, {losses}")
    medians = {pages: median(samples) for pages, samples in times.items()}
    pairs = sorted(small / large for small, large in zip(*times.values(), strict=True))
    return {
        "times_as_fast": round(medians["small"] / medians["large"], 2),
        "quartiles_of_pairs": [round(pairs[len(pairs) // 4], 2), round(pairs[3 * len(pairs) // 4], 2)],
        "cpu_ms_per_update": {pages: round(milliseconds, 2) for pages, milliseconds in medians.items()},
        "load": round(os.getloadavg()[0], 1),
        "samples": times,
    }


def main(args: Args) -> None:
    if args.child is not None:
        child(args.child, args.updates)
        return
    result: dict[str, Any] = {"provenance": provenance(), "settings": {"turns": args.turns, "updates": args.updates}}
    for name in AGENTS:
        result[name] = measure(name, args)
        print(name, {key: value for key, value in result[name].items() if key != "samples"}, flush=True)
    if args.out is not None:
        args.out.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main(tyro.cli(Args))
