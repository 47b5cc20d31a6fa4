"""Solve every Reacher5 task by planning, and write down the actions.

At each step a cross-entropy search in the simulator looks `--horizon` steps ahead and its first action is executed.

    python benchmark/solvability/reacher.py --out reacher.json > reacher.log  # and --seed 1, --seed 2 for the log
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path

import mujoco.rollout
import numpy as np

from qmp_envs.reacher import HIT_RADIUS, STAGES, STAY, SUBGOALS, ReacherEnv, hand_positions, reacher_xml


class Planner:
    """Cross-entropy search over action sequences that are executed open-loop in copies of one state."""

    def __init__(self, task: int, horizon: int, samples: int, rounds: int, seed: int) -> None:
        self.model = mujoco.MjModel.from_xml_string(reacher_xml())
        self.data = mujoco.MjData(self.model)
        self.task, self.horizon, self.samples, self.rounds = task, horizon, samples, rounds
        self.rng = np.random.default_rng(seed)
        self.mean = np.zeros((horizon, 6))
        self.target = SUBGOALS[task]

    def values(self, state: np.ndarray, stage: int, actions: np.ndarray) -> np.ndarray:
        """How good each of the sequences ``actions`` (K, H, 6) is."""
        count = len(actions)
        controls = np.repeat(actions, 4, axis=1)
        _, sensed = mujoco.rollout.rollout(self.model, self.data, np.tile(state, (count, 1)), controls)
        hands = sensed[:, 3::4, :3]
        if self.task == STAY:
            distances = np.linalg.norm(hands - self.target[0], axis=2)
            return (distances < HIT_RADIUS).sum(axis=1) - 2.0 * np.maximum(distances - 0.7 * HIT_RADIUS, 0).sum(axis=1)
        stages, value = np.full(count, stage), np.zeros(count)
        for step in range(self.horizon):
            distances = np.linalg.norm(hands[:, step] - self.target[np.minimum(stages, STAGES - 1)], axis=1)
            active = stages < STAGES
            value -= np.where(active, 0.4 * (STAGES - stages) + distances, 0.0)
            stages += active & (distances < HIT_RADIUS)
        return value

    def act(self, state: np.ndarray, stage: int) -> np.ndarray:
        """The first action of the best sequence found, rounded to two decimals."""
        best, best_value = self.mean, -np.inf
        spread = np.full_like(self.mean, 0.6)
        for _ in range(self.rounds):
            # Some sequences change slowly: shaking a heavy arm does not move it.
            noise = self.rng.standard_normal((self.samples, self.horizon, 6))
            smooth = noise[::2]
            for step in range(1, self.horizon):
                smooth[:, step] = 0.8 * smooth[:, step - 1] + 0.6 * smooth[:, step]
            actions = np.clip(self.mean + spread * noise, -1, 1)
            actions[0], actions[1] = self.mean, best
            actions[:, 0] = actions[:, 0].round(2)
            values = self.values(state, stage, actions)
            elite = actions[np.argsort(-values)[: max(6, self.samples // 12)]]
            if values.max() > best_value:
                best, best_value = actions[values.argmax()].copy(), values.max()
            self.mean, spread = elite.mean(axis=0), elite.std(axis=0) + 0.05
        self.mean = np.concatenate((best[1:], best[-1:]))
        return best[0]


def solve(task: int, horizon: int, samples: int, rounds: int, seed: int) -> dict[str, object]:
    """One planned episode: its actions, hits, stages."""
    env, planner = ReacherEnv("Reacher5-v0", task), Planner(task, horizon, samples, rounds, seed)
    env.reset(seed=seed)
    if task == STAY:
        planner.target = np.tile(hand_positions(env.get_state()["physics"][:, 1:7]), (STAGES, 1))
    actions, total, hits, over, stage = [], 0.0, 0, False, 0
    start = time.process_time()
    while not over:
        action = planner.act(env.get_state()["physics"][0], stage)
        _, reward, terminated, truncated, info = env.step(action)
        actions.append(action.round(2).tolist())
        total += reward
        hits += info["hit"]
        stage, over = info["stages"], terminated or truncated
    result = {
        "task": task,
        "seed": seed,
        "steps": len(actions),
        "stages": stage,
        "hits": hits,
        "return": round(total, 3),
    }
    print({**result, "success": info["success"], "cpu_s": round(time.process_time() - start, 1)}, flush=True)
    return {**result, "actions": actions}


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tasks", type=int, nargs="+", default=[0, 1, 2, 3, 4])
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--horizon", type=int, default=20)
    parser.add_argument("--samples", type=int, default=300)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--out", type=Path)
    args = parser.parse_args()
    results = [solve(task, args.horizon, args.samples, args.rounds, args.seed) for task in args.tasks]
    if args.out:
        args.out.write_text("[\n" + ",\n".join(map(json.dumps, results)) + "\n]\n")


if __name__ == "__main__":
    main()
