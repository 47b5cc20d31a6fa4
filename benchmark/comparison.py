"""Every method of the paper on Maze3, with QMP and without, at equal numbers of environment and gradient steps.

    python benchmark/comparison.py --run --seeds 1 2 3    # what is not in benchmark/results/comparison yet, 4 CPU-hours
    python benchmark/comparison.py                        # table and figure, from the runs that are there

All methods get what a two-core machine can train in minutes: narrow networks, small batches, a high learning rate and
a tenth of the steps that ``--env-id Maze3`` selects (and of the warm-up, where a method has one). What only one method
has is left as its script sets it.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import tyro
from publish import publish

ROOT = Path(__file__).parents[1]
# 66 is a multiple of the three tasks: methods that share batches out evenly get as many samples as the others.
SETTINGS = (
    "--env-id Maze3 --total-timesteps 360000 --hidden-dim 128 --batch-size 66 --learning-rate 1e-3 --envs-per-task 4 "
    "--eval-every 18000 --checkpoint-every 360000 --torch-threads 1"
)
WARMUP = "--warmup-rounds 10"


@dataclass(frozen=True)
class Method:
    """One pair of curves: a method, and the same with QMP where it takes that."""

    label: str
    script: str
    flags: str = ""
    suffix: str = ""
    """tells apart what one script can do, at the end of a result's name"""
    switches: tuple[str, ...] = ("own", "qmp")


METHODS = (
    Method("No-Sharing", "sac_qmp_separate"),
    Method("Parameter-Sharing", "sac_qmp_multihead", WARMUP),
    Method("Data-Sharing (UDS)", "uds_qmp"),
    Method("Fully-Shared-Behaviors", "sac_shared", switches=("",)),
    Method("DnC", "dnc", switches=("",)),
    Method("DnC (regularisation only)", "dnc", "--no-distill", "_regularisation", switches=("",)),
    Method("DECAF", "decaf", switches=("own",)),
    Method("MCAL, critic per task", "mcal_qmp", "--critic mn"),
    Method("MCAL, multihead critic", "mcal_qmp", "--critic mh", "_multihead"),
    # Compiled, a gradient step of PCGrad takes half the time here; one of the others gains nothing.
    Method("PCGrad", "pcgrad_qmp", f"{WARMUP} --compile"),
)


@dataclass
class Args:
    run: bool = False
    """make the runs that are missing first"""
    seeds: tuple[int, ...] = (1, 2, 3)
    """their seeds"""
    jobs: int = 2
    """runs at a time, one core each"""
    runs: Path = ROOT / "benchmark" / "results" / "comparison"
    """folder of the runs that are kept"""


def name(method: Method, switch: str, seed: int) -> str:
    return "_".join(filter(None, (method.script, switch))) + f"_seed{seed}{method.suffix}"


def missing(args: Args) -> Iterator[tuple[Method, str, int]]:
    """Runs to make, seed by seed, so that an interrupted comparison is one of fewer seeds."""
    for seed in args.seeds:
        for method in METHODS:
            for switch in method.switches:
                if not (args.runs / name(method, switch, seed)).exists():
                    yield method, switch, seed


def make(method: Method, switch: str, seed: int, to: Path) -> Path:
    """One run, of which settings, provenance and metrics are kept."""
    words = [*SETTINGS.split(), *method.flags.split(), "--seed", str(seed), *(["--switch", switch] if switch else [])]
    with tempfile.TemporaryDirectory() as root:
        command = [sys.executable, f"cleanrl_scripts/{method.script}.py", *words, "--run-dir-root", root]
        subprocess.run(command, check=True, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        (run_dir,) = Path(root).iterdir()
        return publish(run_dir, to, method.suffix)


def main(args: Args) -> None:
    if args.run:
        with ThreadPoolExecutor(args.jobs) as pool:
            futures = [pool.submit(make, *run, args.runs) for run in missing(args)]
            for future in futures:
                print(future.result(), flush=True)


if __name__ == "__main__":
    main(tyro.cli(Args))
