"""A yardstick for our SAC: Stable-Baselines3's, alone on one task of Maze3, under the protocol of our runs.

    python benchmark/sb3_maze3.py --task 2 --seed 1

Episodes of 600 steps, then 100 gradient steps; the same network widths, batch size, rates, temperature. What differs is
what Stable-Baselines3 does its own way: initial weights, and uniform random actions until the learning starts.
Writes RUN_DIR/episodes.jsonl, a row per training episode, and provenance.json.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import IO

import gymnasium as gym
import torch
import tyro
from stable_baselines3 import SAC
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.monitor import Monitor

import qmp_envs  # noqa: F401 (registers Maze3-v0)
from qmp_collect.runs.precision import set_matmul_precision
from qmp_collect.runs.provenance import provenance


@dataclass
class Args:
    """Train Stable-Baselines3's SAC on one task."""

    task: int = 0
    """index of the task"""
    seed: int = 1
    """seed of networks, environment and replay"""
    total_timesteps: int = 400_000
    """env steps of this one task: a third of what a run of all three counts"""
    run_dir_root: str = "runs"
    """folder in which the run gets its own folder"""


class Episodes(BaseCallback):
    """Writes a row per training episode."""

    def __init__(self, file: IO[str]) -> None:
        super().__init__()
        self.file = file

    def _on_step(self) -> bool:
        for info in self.locals["infos"]:
            if "episode" in info:
                row = {
                    "step": self.num_timesteps,
                    "success": bool(info["success"]),
                    "return": info["episode"]["r"],
                    "length": info["episode"]["l"],
                    "alpha": float(self.model.log_ent_coef.exp()),  # type: ignore[attr-defined]
                }
                self.file.write(json.dumps(row) + "\n")
        return True


if __name__ == "__main__":
    args = tyro.cli(Args)
    torch.set_num_threads(1)
    set_matmul_precision("auto", torch.device("cpu"))
    run_dir = Path(args.run_dir_root) / f"task{args.task}_seed{args.seed}"
    run_dir.mkdir(parents=True)
    report = provenance(asdict(args)) | {"settings": asdict(args)}
    (run_dir / "provenance.json").write_text(json.dumps(report, indent=2) + "\n")
    model = SAC(
        "MlpPolicy",
        Monitor(gym.make("Maze3-v0", task=args.task)),
        learning_rate=3e-4,
        buffer_size=1_000_000,
        learning_starts=3_000,
        batch_size=256,
        tau=0.005,
        gamma=0.99,
        train_freq=600,
        gradient_steps=100,
        ent_coef="auto",
        target_entropy=-2.0,
        policy_kwargs={"net_arch": [256, 256]},
        seed=args.seed,
        device="cpu",
    )
    with open(run_dir / "episodes.jsonl", "w", encoding="utf-8", buffering=1) as file:
        model.learn(args.total_timesteps, callback=Episodes(file))
