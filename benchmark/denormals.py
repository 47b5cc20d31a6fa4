"""Denormal numbers: what `qmp_collect.runs.precision.flush_denormals` spares the gradient steps of a long run on a CPU.

    python benchmark/denormals.py runs/RUN runs/ANOTHER --out benchmark/results/denormals.json

Of each run the agent of its checkpoint makes some updates on batches of noise, in turn as the processor takes denormal
numbers and with such numbers taken for 0, from the same state every time. What counts is CPU time.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

import torch
import tyro
from torch.utils._pytree import tree_leaves

from qmp_collect import Batch
from qmp_collect.runs.checkpoint import load_checkpoint
from qmp_collect.runs.precision import set_matmul_precision
from qmp_collect.runs.provenance import provenance
from qmp_collect.runs.scripts import load_script

SMALLEST = torch.finfo(torch.float32).tiny
CPU = torch.device("cpu")


@dataclass
class Args:
    run_dirs: tyro.conf.Positional[tuple[Path, ...]]
    """runs of scripts that learn from a batch of each task"""
    turns: int = 10
    """of each side"""
    updates: int = 10
    """gradient steps of a turn"""
    out: Path | None = None
    """where to write the result as JSON"""


def parts_with_denormals(tree: Any) -> Iterator[tuple[str, float]]:
    """Names of the agent's parts that have some, and the largest share that one of a part's tensors has."""
    for part, value in tree.items():
        shares = [((x != 0) & (x.abs() < SMALLEST)).double().mean().item() for x in tree_leaves(value) if is_float(x)]
        if max(shares, default=0.0) > 0:
            yield part, round(max(shares), 4)


def is_float(x: Any) -> bool:
    return isinstance(x, torch.Tensor) and x.is_floating_point()


def noise(tasks: int, batch_size: int, inputs: int, outputs: int) -> Batch:
    draw = torch.Generator().manual_seed(0)
    obs, next_obs = (torch.randn(tasks, batch_size, inputs, generator=draw) for _ in range(2))
    zeros, ids = torch.zeros(tasks, batch_size), torch.zeros(tasks, batch_size, dtype=torch.int64)
    actions = torch.rand(tasks, batch_size, outputs, generator=draw) * 2 - 1
    return Batch(obs, actions, zeros, next_obs, zeros, ids, ids)


def measure(run_dir: Path, turns: int, updates: int) -> dict[str, Any]:
    saved = load_checkpoint(run_dir / "checkpoint.npz")
    run, state = saved["run"], saved["agent"]
    script, tasks = load_script(run["script"]), len(state["log_alpha"])
    args = script.Args()
    for name, value in run["settings"].items():  # of an older version some are missing
        setattr(args, name, value)
    inputs, outputs = state["actor"]["fc1.weight"].shape[1], state["actor"]["fc_mean.weight"].shape[-1]
    agent = script.Agent(args, tasks, inputs, outputs, CPU)
    batch = noise(tasks, args.batch_size, inputs, outputs)
    milliseconds: dict[str, list[float]] = {"as they are": [], "taken for 0": []}
    denormal = dict(parts_with_denormals(state))
    for _ in range(turns):
        for way, taken in milliseconds.items():
            agent.load_state_dict(deepcopy(state))
            torch.set_flush_denormal(way == "taken for 0")
            start = time.process_time()
            for _ in range(updates):
                agent.update(batch)
            taken.append(round(1e3 * (time.process_time() - start) / updates, 3))
            torch.set_flush_denormal(False)
    medians = {way: median(taken) for way, taken in milliseconds.items()}
    return {
        "run": run["script"],
        "env_id": run["settings"]["env_id"],
        "env_steps": saved["collector"]["num_steps"],
        "made_by": [json.loads(line)["commit"] for line in (run_dir / "provenance.jsonl").read_text().splitlines()],
        "largest_share_of_denormals_in_a_tensor": denormal,
        "cpu_milliseconds_of_an_update": milliseconds,
        "ratio_of_medians": round(medians["as they are"] / medians["taken for 0"], 2),
    }


def main(args: Args) -> None:
    torch.set_num_threads(1)
    set_matmul_precision("auto", CPU)
    result: dict[str, Any] = {"provenance": provenance()}
    result["runs"] = [measure(run_dir, args.turns, args.updates) for run_dir in args.run_dirs]
    for one in result["runs"]:
        print(json.dumps(one, indent=1))
    if args.out is not None:
        args.out.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main(tyro.cli(Args))
