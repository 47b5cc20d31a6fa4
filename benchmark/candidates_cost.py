"""What a decision costs with default settings and an earlier version's, and with a mask, a margin and two critics.

    git worktree add ../before 4e45926
    python benchmark/candidates_cost.py --before ../before --out benchmark/results/candidates_cost.json

CPU time of ``act`` for ten tasks, the networks of ``sac_qmp_separate`` at its default width, on one thread. Versions
take turns within one process, four calls each, so that whatever else the machine does meets all of them alike; and they
ask the same networks, since where in memory parameters lie makes more of a difference than the versions do.
"""

from __future__ import annotations

import importlib
import json
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

import gymnasium as gym
import numpy as np
import torch
import tyro

import qmp_envs  # noqa: F401 (registers the task sets)
from qmp_collect.runs.provenance import provenance

ROOT, TASKS, CALLS = Path(__file__).parents[1], 10, 4


@dataclass
class Args:
    before: Path
    """checkout of the earlier version"""
    seconds: float = 60.0
    """for each number of environments"""
    out: Path | None = None
    """where to write the result as JSON"""


class Networks(torch.nn.Module):
    """Ten stacked networks of two hidden layers: (10, B, in) -> (10, B, out)."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        sizes = ((inputs, 256), (256, 256), (256, outputs))
        self.weights = torch.nn.ParameterList([torch.randn(TASKS, a, b) / a**0.5 for a, b in sizes])

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        first, second, last = self.weights
        return torch.bmm(torch.relu(torch.bmm(torch.relu(torch.bmm(x, first)), second)), last)


def version(checkout: Path) -> Any:
    """The package of a checkout, beside any other."""
    for name in [name for name in sys.modules if name.split(".")[0] == "qmp_collect"]:
        del sys.modules[name]
    sys.path.insert(0, str(checkout))
    package = importlib.import_module("qmp_collect")
    importlib.import_module("qmp_collect.collector")
    sys.path.pop(0)
    assert Path(package.__file__ or "").is_relative_to(checkout.resolve()), package.__file__
    return package


def deciding(package: Any, networks: tuple[Networks, Networks], envs_per_task: int, **settings: Any) -> Any:
    """A call of ``act``."""
    envs = gym.make_vec("Maze10-v0", num_envs=TASKS * envs_per_task)
    actor, critic = networks

    def by_task(x: torch.Tensor) -> torch.Tensor:
        return x.unflatten(0, (-1, TASKS)).transpose(0, 1)

    def policies(obs: torch.Tensor) -> Any:
        mean, log_std = actor(obs.expand(TASKS, *obs.shape)).chunk(2, -1)
        actions = torch.tanh(mean + log_std.clamp(-5, 2).exp() * torch.randn_like(mean))
        return package.Proposal(actions.transpose(0, 1), torch.tanh(mean).transpose(0, 1))

    def q_functions(obs: torch.Tensor, actions: torch.Tensor, task_ids: torch.Tensor) -> torch.Tensor:
        obs, actions = by_task(obs), by_task(actions)
        obs = obs.unsqueeze(2).expand(*actions.shape[:3], -1)
        values = critic(torch.cat([obs, actions], -1).flatten(1, 2)).view(actions.shape[:3])
        values = values.transpose(0, 1).flatten(0, 1)
        return torch.stack([values, values - 0.1]) if "switch" in settings else values

    collector = package.QMPCollector(envs, policies, q_functions, seed=0, backend="torch", **settings)
    obs, _ = collector.reset()
    for _ in range(20):
        collector.act(obs)
    return lambda: collector.act(obs)


def measure(before: Any, now: Any, envs_per_task: int, seconds: float) -> dict[str, Any]:
    """Median microseconds of CPU time a call, and ratios of medians."""
    everything = {
        "switch": now.QSwitch(margin=0.1, reduce="min"),
        "candidate_mask": np.ones((TASKS, TASKS), np.bool_),
    }
    torch.manual_seed(0)
    (width,) = gym.make("Maze10-v0").observation_space.shape  # type: ignore[misc]
    networks = Networks(width, 4), Networks(width + 2, 1)
    calls = {
        "before": deciding(before, networks, envs_per_task),
        "now": deciding(now, networks, envs_per_task),
        "mask, margin, two critics": deciding(now, networks, envs_per_task, **everything),
    }
    times: dict[str, list[float]] = {name: [] for name in calls}
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        for name, call in calls.items():
            start = time.process_time()
            for _ in range(CALLS):
                call()
            times[name].append((time.process_time() - start) / CALLS * 1e6)
    medians = {name: round(median(values), 1) for name, values in times.items()}
    return {
        "envs_per_task": envs_per_task,
        "microseconds": medians,
        "now_to_before": round(medians["now"] / medians["before"], 3),
        "everything_to_now": round(medians["mask, margin, two critics"] / medians["now"], 3),
        "turns": len(times["now"]),
    }


def main(args: Args) -> None:
    torch.set_num_threads(1)
    found = provenance()  # of this checkout
    before, now = version(args.before.resolve()), version(ROOT)
    results = [measure(before, now, n, args.seconds) for n in (1, 8)]
    for result in results:
        print(json.dumps(result))
    if args.out is not None:
        args.out.write_text(json.dumps({"provenance": found, "results": results}, indent=1) + "\n")


if __name__ == "__main__":
    main(tyro.cli(Args))
