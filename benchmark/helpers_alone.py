"""What the helpers of `sac_qmp_helper.py` do alone, on the three tasks of plan x: success and return.

python benchmark/helpers_alone.py
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import gymnasium as gym
import torch
import tyro

from qmp_collect import FixedSwitch, QMPCollector
from qmp_collect.runs.provenance import provenance
from qmp_collect.runs.scripts import load_script

TASKS = (("MetaWorldPush", "noisy"), ("MetaWorldDoorOpen", "slow"), ("MetaWorldDrawerOpen", "first-phase"))


@dataclass
class Args:
    """Let helpers act."""

    episodes: int = 100
    """of each"""
    seed: int = 1
    """of environments and noise"""
    out: Path = Path(__file__).parent / "results" / "helpers" / "alone.json"
    """where the rates are written"""


if __name__ == "__main__":
    args = tyro.cli(Args)
    script = load_script("sac_qmp_helper")
    found = []
    for env_id, kind in TASKS:
        for helper in (kind, "perfect", "random actions"):
            torch.manual_seed(args.seed)
            envs = gym.make_vec(f"{env_id}-v0", num_envs=10)
            obs_dim, action_dim = (
                space.shape[0] for space in (envs.single_observation_space, envs.single_action_space)
            )
            settings = script.Args(env_id=f"{env_id}-v0", helper=kind if helper == "random actions" else helper)
            agent = script.Agent(settings, 1, obs_dim, action_dim, torch.device("cpu"))
            always = FixedSwitch([[0.0, 1.0]])  # the helper is the candidate after the task's own policy
            collector = QMPCollector(envs, agent.policies, None, switch=always, backend="torch", seed=args.seed)
            stats = collector.collect(n_episode=args.episodes // 10, random=helper == "random actions")
            envs.close()
            rates = {
                "success": round(float(stats.successes.mean()), 3),
                "return": round(float(stats.returns.mean()), 1),
            }
            found.append({"env_id": f"{env_id}-v0", "helper": helper, **rates})
            print(found[-1], flush=True)
    document = {"provenance": provenance(vars(args)), "episodes": args.episodes, "seed": args.seed, "helpers": found}
    args.out.write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")
