"""Figures 4 and 5 of the paper from our own runs of ``point_reaching.py``.

    python benchmark/point_reach.py --run    # 30 runs of half a minute each, then the figures
    python benchmark/point_reach.py          # the figures, from the runs in benchmark/results/point_reach

Three ways to collect, five seeds, two learning rates of the trained policy: the script's own, so low that the policy
hardly changes during the run, and that of the critics, with which SAC solves the task alone.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import tyro
from matplotlib.collections import LineCollection
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Circle
from publish import publish

from qmp_collect.runs.palette import PALETTE, looks
from qmp_collect.runs.report.runs import align, load_run
from qmp_envs.point_reach import GOAL, GOAL_RADIUS, SIDE

ROOT = Path(__file__).parents[1]
SCRIPT = "cleanrl_scripts/point_reaching.py"
# label, settings, names of policies
WAYS: dict[str, tuple[str, dict[str, str], tuple[str, ...]]] = {
    "sac": ("SAC", {"switch": "own"}, ()),
    "diverse": ("QMP {↑, →, ↙}", {"helpers": "diverse"}, ("↑", "→", "↙")),
    "relevant": ("QMP {↑, →, ↗}", {"helpers": "relevant"}, ("↑", "→", "↗")),
}
LOOKS = dict(zip(WAYS, looks([("own", "diverse"), ("qmp", "diverse"), ("qmp", "relevant")]), strict=True))
RATES = (1e-5, 1e-3)
POLICY_COLORS = PALETTE[:4]  # the trained policy, then the helpers


@dataclass
class Args:
    run: bool = False
    """make the runs first"""
    seeds: tuple[int, ...] = (1, 2, 3, 4, 5)
    """their seeds; figure 4 shows the first one"""
    flags: str = ""
    """more arguments for the runs"""
    runs: Path = ROOT / "benchmark" / "results" / "point_reach"
    """folder of the runs that are kept"""
    docs: Path = ROOT / "docs"
    """folder of the figures"""


def name(way: str, rate: float, seed: int) -> str:
    return f"{way}_policy_lr_{rate:g}_seed{seed}"


def make(way: str, rate: float, seed: int, flags: list[str], to: Path) -> None:
    """One run, of which only settings, provenance, metrics and trajectories are kept."""
    settings = {**WAYS[way][1], "policy-learning-rate": f"{rate:g}", "seed": str(seed)}
    words = [word for flag, value in settings.items() for word in (f"--{flag}", value)]
    with tempfile.TemporaryDirectory() as root:
        command = [sys.executable, SCRIPT, *words, "--torch-threads", "1", "--run-dir-root", root, *flags]
        subprocess.run(command, check=True, cwd=ROOT, stdout=subprocess.DEVNULL)
        (run_dir,) = Path(root).iterdir()
        kept = publish(run_dir, Path(root))
        target = to / name(way, rate, seed)
        shutil.rmtree(target, ignore_errors=True)
        shutil.copytree(kept, target)
        shutil.copy(run_dir / "trajectories.npz", target)


def draw_trajectories(runs: Path, seed: int) -> Figure:
    """Figure 4: all of training, each step in the colour of the policy that made it."""
    figure = Figure(figsize=(9.6, 4.1), layout="constrained")
    for axes, (way, (label, _, helpers)) in zip(figure.subplots(1, 3, sharey=True), WAYS.items(), strict=True):
        with np.load(runs / name(way, RATES[0], seed) / "trajectories.npz") as kept:
            steps, policies = kept["steps"].astype(float) * SIDE, kept["behavior_ids"]
        colors = np.array(POLICY_COLORS)[policies]
        axes.add_collection(LineCollection(steps, colors=colors, linewidths=0.5, alpha=0.35))
        axes.plot(0, 0, "o", color="0.4", markersize=7, clip_on=False)
        axes.add_patch(Circle(GOAL, GOAL_RADIUS, color=PALETTE[4], alpha=0.6, linewidth=0, clip_on=False, zorder=3))
        names = ("trained", *helpers)
        shares = np.bincount(policies, minlength=len(names)) / len(policies)
        lines = [Line2D([], [], color=color) for color in POLICY_COLORS[: len(names)]]
        texts = [f"{policy} {share:.0%}" for policy, share in zip(names, shares, strict=False)]
        below = {"loc": "upper center", "bbox_to_anchor": (0.5, -0.06), "ncols": 4}
        axes.legend(lines, texts, fontsize=8, frameon=False, handlelength=0.7, columnspacing=0.8, **below)
        axes.set(title=label, xlim=(-0.3, SIDE + 0.3), ylim=(-0.3, SIDE + 0.3), aspect="equal")
        _style(axes)
    figure.supxlabel(
        f"every step of training, by the policy that made it, with its share of the steps; seed {seed}",
        fontsize=7, color="0.4",
    )  # fmt: skip
    return figure


def draw_curves(runs: Path, seeds: tuple[int, ...]) -> Figure:
    """Figure 5: returns of what was collected, and of the trained policy alone."""
    figure = Figure(figsize=(9.6, 5.6), layout="constrained")
    rows = figure.subplots(2, 2, sharex=True, sharey=True)
    columns = (("charts/return", "the collected episodes"), ("eval/return", "the trained policy alone"))
    for row, rate in zip(rows, RATES, strict=True):
        for axes, (tag, what) in zip(row, columns, strict=True):
            for way, (label, *_) in WAYS.items():
                steps, values = align([load_run(runs / name(way, rate, seed)).series(tag) for seed in seeds])
                color, style = LOOKS[way]
                axes.plot(steps, values.mean(0), style, color=color, linewidth=1.6, label=label)
                axes.fill_between(steps, values.min(0), values.max(0), color=color, alpha=0.18, linewidth=0)
            axes.set_title(f"{what}, policy's learning rate {rate:g}", fontsize=9)
            _style(axes)
        row[0].set_ylabel("return of an episode", fontsize=9)
    rows[0, 1].legend(frameon=False, fontsize=8)
    for axes in rows[1]:
        axes.set_xlabel("environment steps", fontsize=9)
    figure.supxlabel(f"line: mean over {len(seeds)} seeds; shaded: all seeds", fontsize=7, color="0.4")
    return figure


def table(runs: Path, seeds: tuple[int, ...]) -> str:
    """Returns over the last tenth of training, mean and standard deviation over seeds."""
    lines = [f"{'policy lr':>9}  {'':16}{'collected':>18}{'trained policy':>18}{'collected success':>20}"]
    for rate in RATES:
        for way, (label, *_) in WAYS.items():
            cells = []
            for tag in ("charts/return", "eval/return", "charts/success"):
                ends = []
                for seed in seeds:
                    steps, values = load_run(runs / name(way, rate, seed)).series(tag)
                    ends.append(values[steps > 0.9 * steps[-1]].mean())
                cells.append(f"{np.mean(ends):.2f} ± {np.std(ends, ddof=min(1, len(ends) - 1)):.2f}")
            lines.append(f"{rate:>9g}  {label:16}{cells[0]:>18}{cells[1]:>18}{cells[2]:>20}")
    return "\n".join(lines)


def _style(axes: Any) -> None:
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(alpha=0.25, linewidth=0.6)
    axes.tick_params(labelsize=8)


def main(args: Args) -> None:
    if args.run:
        for rate in RATES:
            for seed in args.seeds:
                for way in WAYS:
                    make(way, rate, seed, args.flags.split(), args.runs)
                    print(args.runs / name(way, rate, seed), flush=True)
    print(table(args.runs, args.seeds))
    args.docs.mkdir(parents=True, exist_ok=True)
    draw_trajectories(args.runs, args.seeds[0]).savefig(args.docs / "point_reach_trajectories.png", dpi=200)
    draw_curves(args.runs, args.seeds).savefig(args.docs / "point_reach_returns.png", dpi=200)


if __name__ == "__main__":
    main(tyro.cli(Args))
