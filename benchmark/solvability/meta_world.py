"""Can each task of MT50 (and so of MT10) be solved, and not by accident? Success rates of three kinds of policy.

    python benchmark/solvability/meta_world.py > benchmark/solvability/meta_world_mt50.log
    python benchmark/solvability/meta_world.py --env-id MetaWorldMT10-v0 --episodes 50 50 10 \
        > benchmark/solvability/meta_world_mt10.log

scripted: the policy that Meta-World ships for the task. random: uniform actions. zero: no movement. An episode counts
if any of its 500 steps succeeds, and ends there. "at once" counts episodes that succeed in their first step.
"""

from __future__ import annotations

import argparse
import platform
import warnings
from collections.abc import Callable
from importlib.metadata import version

import gymnasium as gym
import numpy as np
from metaworld.policies import ENV_POLICY_MAP

import qmp_envs


def policies(task_name: str) -> dict[str, Callable[[np.ndarray], np.ndarray]]:
    rng = np.random.default_rng(0)
    scripted = ENV_POLICY_MAP[task_name]()
    return {
        "scripted": lambda observation: scripted.get_action(observation.astype(np.float64)),
        "random": lambda observation: rng.uniform(-1.0, 1.0, 4),
        "zero": lambda observation: np.zeros(4),
    }


def successes(env: gym.Env, policy: Callable[[np.ndarray], np.ndarray], episodes: int) -> tuple[int, int, int]:
    """Successful episodes, those that succeed in the first step, and the latest first success."""
    won = at_once = latest = 0
    for episode in range(episodes):
        observation, _ = env.reset(seed=episode)
        steps, success, truncated = 0, False, False
        while not (success or truncated):
            action = np.clip(policy(observation), -1.0, 1.0).astype(np.float32)
            observation, _, _, truncated, info = env.step(action)
            steps, success = steps + 1, info["success"]
        won, at_once, latest = won + success, at_once + (success and steps == 1), max(latest, steps * success)
    return won, at_once, latest


def main(env_id: str, episodes: dict[str, int]) -> None:
    packages = ", ".join(f"{name} {version(name)}" for name in ("metaworld", "mujoco", "gymnasium", "numpy"))
    print(f"{env_id}, Python {platform.python_version()}, {packages}; seeds 0, 1, ... of each task's episodes")
    print(f"{'task':<30}{'scripted':>10}{'slowest':>10}{'random':>10}{'zero':>10}{'at once':>10}")
    for task, name in enumerate(qmp_envs.TASK_SETS[env_id].task_names):
        env = gym.make(env_id, task=task)
        cells, first_step = [], 0
        for kind, policy in policies(name).items():
            won, at_once, latest = successes(env, policy, episodes[kind])
            first_step += at_once
            cells.append(f"{won}/{episodes[kind]}")
            if kind == "scripted":
                cells.append(str(latest))
        print(f"{name:<30}" + "".join(f"{cell:>10}" for cell in (*cells, str(first_step))), flush=True)
        env.close()


if __name__ == "__main__":
    warnings.filterwarnings("ignore", message="Constant\\(s\\) may be too high")
    parser = argparse.ArgumentParser()
    parser.add_argument("--env-id", default="MetaWorldMT50-v0", choices=["MetaWorldMT10-v0", "MetaWorldMT50-v0"])
    parser.add_argument("--episodes", type=int, nargs=3, default=[10, 10, 5], metavar=("SCRIPTED", "RANDOM", "ZERO"))
    args = parser.parse_args()
    main(args.env_id, dict(zip(("scripted", "random", "zero"), args.episodes, strict=True)))
