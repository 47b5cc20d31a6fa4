"""Meta-World's scripted policies on MT10: in this package's batched environment, and in Meta-World's own, side by side.

    python benchmark/solvability/meta_world_twice.py                                 # 200 episodes of each task
    python benchmark/solvability/meta_world_twice.py --tasks reach-v3 --episodes 20  # a task is added to the file

Both sides have the same goals, and both policies see float32 observations. So not only shall they succeed as often: as
they are the same to the last digit, each episode shall succeed in the same step. An episode ends with its first
success, or after 500 steps.
"""

from __future__ import annotations

import json
import pickle
import time
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import tyro
from gymnasium.vector import AutoresetMode
from metaworld.env_dict import MT10_V3
from metaworld.policies import ENV_POLICY_MAP
from metaworld.types import Task

import qmp_envs  # registers its environments  # noqa: F401
from qmp_collect.runs.provenance import provenance

OUT = Path(__file__).parents[1] / "results" / "task_sets" / "meta_world_scripted.json"
TASKS = tuple(MT10_V3)


@dataclass
class Args:
    tasks: tuple[str, ...] = TASKS
    """which tasks"""
    episodes: int = 200
    """of each task"""
    num_envs: int = 10
    """sub-environments at a time"""
    seed: int = 1
    """of the goals"""
    out: Path = OUT
    """the JSON file"""


def action(policy: Any, observation: Any) -> Any:
    """What the policy does about a float32 observation."""
    return np.clip(policy.get_action(observation.astype(np.float32).astype(np.float64)), -1.0, 1.0).astype(np.float32)


def ours(envs: Any, seeds: list[int], policy: Any) -> tuple[list[int], list[Any]]:
    """Steps until success of an episode of each sub-environment (0: none), and the goals."""
    observations, _ = envs.reset(seed=seeds)
    goals = [x.rand_vec.copy() for x in envs._simulations]
    first = np.zeros(len(seeds), dtype=np.int64)
    for step in range(1, envs.max_episode_steps + 1):
        observations, _, _, _, infos = envs.step(np.stack([action(policy, row) for row in observations]))
        first[infos["success"] & (first == 0)] = step
        if first.all():
            break
    return first.tolist(), goals


def theirs(env: Any, name: str, goal: Any, policy: Any) -> int:
    """Steps until success of an episode of Meta-World's own environment (0: none)."""
    data = {"rand_vec": goal, "env_cls": type(env), "partially_observable": False}
    env.set_task(Task(name, pickle.dumps(data)))
    observation, _ = env.reset()
    for step in range(1, 501):
        observation, *_, info = env.step(action(policy, observation))
        if info["success"]:
            return step
    return 0


def main(args: Args) -> None:
    """Measure the tasks, one after the other, and add each to the file."""
    warnings.filterwarnings("ignore", message="Constant")
    results: dict[str, Any] = json.loads(args.out.read_text()) if args.out.exists() else {"tasks": {}}
    for name in args.tasks:
        start, policy, env = time.perf_counter(), ENV_POLICY_MAP[name](), MT10_V3[name]()
        first: list[tuple[int, int]] = []
        while len(first) < args.episodes:
            n = min(args.num_envs, args.episodes - len(first))
            envs: Any = gym.make_vec(
                "MetaWorldMT10-v0",
                num_envs=n,
                task_ids=[TASKS.index(name)] * n,
                vector_strategy="batched",
                autoreset_mode=AutoresetMode.DISABLED,
            ).unwrapped
            seeds = [1000 * args.seed + len(first) + i for i in range(n)]
            steps, goals = ours(envs, seeds, policy)
            first += [(mine, theirs(env, name, goal, policy)) for mine, goal in zip(steps, goals, strict=True)]
            envs.close()
        mine, other = np.array(first).T
        results["machine"] = provenance()
        results["tasks"][name] = {
            "episodes": args.episodes,
            "seed": args.seed,
            "successes": int((mine > 0).sum()),
            "successes_of_meta_world": int((other > 0).sum()),
            "same_step": int((mine == other).sum()),
            "steps_until_success": mine.tolist(),
        }
        args.out.write_text(json.dumps(results, indent=1) + "\n")
        print(
            f"{name:<26}", results["tasks"][name] | {"steps_until_success": ...}, f"{time.perf_counter() - start:.0f} s"
        )
    print("| task | episodes | this package | Meta-World | successes in the same step |\n|---|---|---|---|---|")
    for name, row in results["tasks"].items():
        numbers = ("episodes", "successes", "successes_of_meta_world", "same_step")
        print(f"| `{name}` |", " | ".join(str(row[key]) for key in numbers), "|")


if __name__ == "__main__":
    main(tyro.cli(Args))
