"""Training runs that are killed or asked to stop at random moments, and resumed, end as if nobody had touched them.

    python benchmark/reliability/stops.py      # 200 x SIGKILL, 50 x SIGTERM, over 4 scripts and 3 task sets
    python benchmark/reliability/stops.py --kills 8 --terms 4 --out /tmp/stops.json

Of each script and task set, one run is left alone. Another is stopped again and again, resumed each time (started
anew where it had no checkpoint yet), until it ends. Episodes are cut to 30 steps: else evaluations would be most of a
run, and few signals would meet anything else. Then every row of ``metrics.jsonl``, but for times, and every leaf
of the checkpoint must be equal, bit for bit. Processes are forked from this one, which has imported what scripts
import, so that a start costs little; they share nothing else.
"""

from __future__ import annotations

import itertools
import json
import os
import random
import runpy
import shutil
import signal
import sys
import tempfile
import time
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import torch
import torch.utils.tensorboard
import tyro

import qmp_envs
from qmp_collect.runs.provenance import provenance
from qmp_collect.runs.replay_files import load_run_state

ROOT = Path(__file__).parents[2]
FINISHED, SAVED = 0, 75  # exit codes
SCRIPTS = ("sac_qmp_separate", "sac_qmp_multihead", "pcgrad_qmp", "dnc")
TASK_SETS = ("Maze3", "Reacher5", "PointReach")
TINY = (
    "--env-steps-per-round 40 --gradient-steps-per-round 4 --min-buffer-size 80 --batch-size 10 --hidden-dim 8 "
    "--eval-episodes 2 --torch-threads 1"
)
ROUNDS = 16
EXTRA = {"sac_qmp_multihead": "--warmup-rounds 2", "pcgrad_qmp": "--warmup-rounds 2", "dnc": "--distill-steps 3"}


@dataclass
class Args:
    kills: int = 200
    """runs ended by SIGKILL, in all"""
    terms: int = 50
    """runs asked to stop by SIGTERM, in all"""
    seed: int = 1
    """of the moments"""
    out: Path = ROOT / "benchmark" / "results" / "reliability" / "stops.json"
    """where the result is written"""


@dataclass
class Pair:
    """A script on a task set, and what came of its runs."""

    script: str
    env_id: str
    kills: int = 0
    terms: int = 0
    anew: int = 0
    """starts without a checkpoint to resume from"""
    different: list[str] = field(default_factory=list)
    """what the stopped run has that the unbroken one has not"""


def flags(pair: Pair, root: Path) -> list[str]:
    steps = qmp_envs.TASK_SETS[f"{pair.env_id}-v0"].num_tasks * 40
    return [
        *TINY.split(),
        *EXTRA.get(pair.script, "").split(),
        *f"--env-id {pair.env_id} --total-timesteps {ROUNDS * steps} --eval-every {4 * steps}".split(),
        *f"--checkpoint-every {2 * steps} --run-dir-root {root}".split(),
    ]


def start(script: str, words: list[str]) -> int:
    """The script in a process of its own: its id."""
    pid = os.fork()
    if pid:
        return pid
    code = 1
    try:
        quiet = os.open(os.devnull, os.O_RDWR)
        for descriptor in (0, 1, 2):
            os.dup2(quiet, descriptor)
        path = str(ROOT / "cleanrl_scripts" / f"{script}.py")
        sys.argv = [path, *words]
        gym.make_vec = partial(gym.make_vec, max_episode_steps=30)
        runpy.run_path(path, run_name="__main__")
        code = 0
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else int(end.code is not None)
    finally:
        os._exit(code)


def outcome(pid: int, moment: float | None, number: int) -> int:
    """Wait for the process, or send the signal ``number`` at the ``moment``. The exit code, or -signal."""
    deadline = None if moment is None else time.monotonic() + moment
    while True:
        done, status = os.waitpid(pid, os.WNOHANG)
        if done:
            return os.waitstatus_to_exitcode(status)
        if deadline is not None and time.monotonic() > deadline:
            os.kill(pid, number)
            deadline = None
        time.sleep(0.002)


def only_run(root: Path) -> Path | None:
    runs = sorted(path.parent for path in root.glob("*/config.json"))
    return runs[0] if runs else None


def rows(run_dir: Path) -> list[dict[str, Any]]:
    """Metrics, without times."""
    read = [json.loads(line) for line in (run_dir / "metrics.jsonl").read_text().splitlines()]
    return [{k: repr(v) for k, v in row.items() if k != "wall_time" and not k.startswith("time/")} for row in read]


def leaves(tree: Any, place: str = "") -> dict[str, Any]:
    """Every leaf of a checkpoint, by its place, in a form that ``==`` compares bit for bit."""
    if isinstance(tree, dict):
        found = [leaves(value, f"{place}/{key}") for key, value in tree.items() if "time" not in str(key)]
        return dict(itertools.chain.from_iterable(part.items() for part in found))
    if isinstance(tree, list | tuple):
        found = [leaves(value, f"{place}/{index}") for index, value in enumerate(tree)]
        return dict(itertools.chain.from_iterable(part.items() for part in found))
    if isinstance(tree, torch.Tensor):
        tree = tree.numpy()
    if isinstance(tree, np.ndarray):
        return {place: (str(tree.dtype), tree.shape, tree.tobytes())}
    return {place: repr(tree)}


def try_pair(pair: Pair, kills: int, terms: int, rng: random.Random, root: Path) -> None:
    """Stop runs of the pair so often, in as many runs as that takes."""
    before = time.monotonic()
    if outcome(start(pair.script, flags(pair, root / "unbroken")), None, 0) != 0:
        raise RuntimeError(f"{pair.script} on {pair.env_id} failed without having been touched")
    duration = time.monotonic() - before
    unbroken = only_run(root / "unbroken")
    assert unbroken is not None
    numbers = [signal.SIGKILL] * kills + [signal.SIGTERM] * terms
    rng.shuffle(numbers)
    for attempt in itertools.count():
        home = root / f"stopped{attempt}"
        while True:
            run_dir = only_run(home) if home.exists() else None
            if run_dir is not None and not (run_dir / "checkpoint.npz").exists():
                shutil.rmtree(home)
                run_dir = None
            pair.anew += run_dir is None
            words = flags(pair, home) if run_dir is None else ["--resume", str(run_dir)]
            moment = rng.uniform(0.0, 1.1 * duration) if numbers else None
            code = outcome(start(pair.script, words), moment, numbers[-1] if numbers else 0)
            if code == FINISHED:
                break
            if code == -signal.SIGKILL:
                pair.kills += 1
            elif code in (SAVED, -signal.SIGTERM):  # heeded, or too early for a handler
                pair.terms += 1
            else:
                raise RuntimeError(f"{pair.script} on {pair.env_id}, {words}: ended with {code}")
            numbers.pop()
        stopped = only_run(home)
        assert stopped is not None
        compare(pair, unbroken, stopped)
        if not numbers:
            return


def compare(pair: Pair, unbroken: Path, stopped: Path) -> None:
    expected, got = rows(unbroken), rows(stopped)
    if expected != got:
        unequal = (i for i, (a, b) in enumerate(zip(expected, got, strict=False)) if a != b)
        first = next(unequal, min(len(expected), len(got)))
        pair.different.append(f"metrics from row {first} of {len(expected)} on ({len(got)} rows)")
    expected_leaves, got_leaves = (leaves(load_run_state(run)) for run in (unbroken, stopped))
    for place in sorted(expected_leaves.keys() | got_leaves.keys()):
        if expected_leaves.get(place) != got_leaves.get(place):
            pair.different.append(f"checkpoint{place}")


def main(args: Args) -> int:
    rng = random.Random(args.seed)
    torch.set_num_threads(1)
    pairs = [Pair(script, env_id) for script in SCRIPTS for env_id in TASK_SETS]
    for index, pair in enumerate(pairs):
        kills, terms = (n // len(pairs) + (index < n % len(pairs)) for n in (args.kills, args.terms))
        with tempfile.TemporaryDirectory() as root:
            try_pair(pair, kills, terms, rng, Path(root))
        print(
            f"{pair.script:18} {pair.env_id:11} SIGKILL {pair.kills:3}  SIGTERM {pair.terms:3}  anew {pair.anew:2}  "
            f"{'identical' if not pair.different else pair.different[:3]}",
            flush=True,
        )
    differing = sum(bool(pair.different) for pair in pairs)
    kills, terms = sum(pair.kills for pair in pairs), sum(pair.terms for pair in pairs)
    print(f"{kills} x SIGKILL, {terms} x SIGTERM: {differing} of {len(pairs)} differ from their unbroken runs")
    result = {"kills": kills, "terms": terms, "differing": differing, "pairs": [asdict(pair) for pair in pairs]}
    args.out.parent.mkdir(parents=True, exist_ok=True)
    args.out.write_text(json.dumps({"provenance": provenance(), **result}, indent=2) + "\n")
    return int(differing > 0)


if __name__ == "__main__":
    sys.exit(main(tyro.cli(Args)))
