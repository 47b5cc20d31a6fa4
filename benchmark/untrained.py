"""Success of uniform random actions on every task of every set, returns, and what else an episode is judged by.

No task may be solved by accident.

python benchmark/untrained.py
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import gymnasium as gym
import tyro

import qmp_envs
from qmp_collect import OwnPolicy, QMPCollector
from qmp_collect.runs.provenance import provenance


@dataclass
class Args:
    """Let random actions act."""

    episodes: int = 20
    """of each task"""
    seed: int = 1
    """of environments and actions"""
    out: Path = Path(__file__).parent / "results" / "untrained.json"
    """where the rates are written"""


if __name__ == "__main__":
    args = tyro.cli(Args)
    report = {"provenance": provenance(vars(args)), "episodes": args.episodes, "seed": args.seed}
    report |= {"success": {}, "return": {}, "metrics": {}}
    for env_id, task_set in qmp_envs.TASK_SETS.items():
        envs = gym.make_vec(env_id, num_envs=task_set.num_tasks)
        collector = QMPCollector(envs, None, None, own_policy=lambda obs, ids: None, switch=OwnPolicy(), seed=args.seed)
        stats = collector.collect(n_episode=args.episodes, random=True)
        envs.close()
        measured = {"success": stats.successes, "return": stats.returns, **stats.metrics}
        of_tasks = {
            name: dict(zip(task_set.task_names, stats.per_task(values).round(3).tolist(), strict=True))
            for name, values in measured.items()
        }
        report["success"][env_id], report["return"][env_id] = of_tasks.pop("success"), of_tasks.pop("return")
        report["metrics"][env_id] = of_tasks
        rates = report["success"][env_id]
        print(
            f"{env_id}: " + (", ".join(f"{task} {rate:.2f}" for task, rate in rates.items() if rate) or "0"), flush=True
        )
    args.out.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
