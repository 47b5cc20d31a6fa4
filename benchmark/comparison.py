"""Every method of the paper on Maze3, with QMP and without, at equal numbers of environment steps.

    python benchmark/comparison.py          # table and figure, from the runs that are there
    python benchmark/comparison.py --run    # makes the runs that are missing first; all took 6.6 hours of one core

The runs are those of plan ``comparison`` (`qmp_collect.runs.suite.plans`): what a two-core machine can train in
minutes. A round has 100 gradient steps, counted as each script counts them. What only one method has is left as its
script sets it.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import tyro
from matplotlib.figure import Figure
from matplotlib.ticker import EngFormatter
from numpy.typing import NDArray
from publish import publish

from qmp_collect.runs.folder import finished
from qmp_collect.runs.palette import SWITCH_COLOURS
from qmp_collect.runs.report import tables
from qmp_collect.runs.report.runs import align, load_run
from qmp_collect.runs.report.statistics import half_width
from qmp_collect.runs.report.tables import Table
from qmp_collect.runs.suite.local import LocalExecutor
from qmp_collect.runs.suite.plans import METHODS, PLANS, Arms

Floats = NDArray[np.float64]

ROOT = Path(__file__).parents[1]

# What the committed runs of seeds 1 to 4 lack of the independence that pooling them assumes.
SHARED_EPISODES = (
    "Runs made before 28 November 2026 took the seeds of their environments from numbers next to their own seed, so "
    "that seeds 1 to 4 began many of their episodes alike, in all arms: read their intervals with that in mind."
)

name = Arms.name  # name(method, switch, seed) of a run and of what is kept of it


@dataclass
class Args:
    run: bool = False
    """make the runs that are missing first"""
    seeds: tuple[int, ...] = (1, 2, 3, 4)
    """their seeds"""
    jobs: int = 2
    """runs at a time, one core each"""
    runs: Path = ROOT / "benchmark" / "results" / "comparison"
    """folder of the runs that are kept"""
    work: Path = ROOT / "runs" / "comparison"
    """folder in which runs are made; those that are stopped are continued there"""
    out: Path = ROOT / "docs" / "comparison.png"
    """the figure"""


def missing(args: Args) -> Iterator[tuple[Arms, str, int]]:
    """Runs to make, seed by seed, so that an interrupted comparison is one of fewer seeds."""
    for seed in args.seeds:
        for method in METHODS:
            for switch in method.switches:
                if not (args.runs / name(method, switch, seed)).exists():
                    yield method, switch, seed


def make(args: Args) -> int:
    """The runs that are missing, of which settings, provenance and metrics are kept; the executor's exit code."""
    suffixes = {name(method, switch, seed): method.suffix for method, switch, seed in missing(args)}
    runs = [run for run in PLANS["comparison"].runs(str(args.work), args.seeds) if run.name in suffixes]
    code = LocalExecutor(runs, ROOT, jobs=args.jobs).execute()
    for run in runs:
        if finished(run.dir):
            print(publish(run.dir, args.runs, suffixes[run.name]), flush=True)
    return code


def success(args: Args, method: Arms, switch: str) -> tuple[Floats, Floats]:
    """Steps (P,) and success (S, P) of every seed's evaluations."""
    return align([load_run(args.runs / name(method, switch, seed)).series("eval/success") for seed in args.seeds])


def scores(args: Args, method: Arms) -> Floats:
    """Mean success over the last quarter of the run, and over all of it: (switches, 2, S)."""
    means = []
    for switch in method.switches:
        steps, values = success(args, method, switch)
        means.append([values[:, steps > start * steps[-1]].mean(axis=1) for start in (0.75, 0.0)])
    return np.array(means)


def cell(values: Floats, form: str = ".2f") -> str:
    """Mean over seeds, with the half width of its confidence interval."""
    mean = round(float(values.mean()), 2) + 0.0  # there is no -0.00
    return f"{mean:{form}}" + (f" ± {half_width(values):.2f}" if len(values) > 1 else "")


def row(label: str, values: Floats) -> str:
    """What `scores` gives, as a row of the table: without QMP, with it, and the gain, which is taken seed by seed."""
    cells = [label]
    for own, *qmp in values.swapaxes(0, 1):
        cells += [cell(own), *([cell(qmp[0]), cell(qmp[0] - own, "+.2f")] if qmp else ["", ""])]
    return f"| {' | '.join(cells)} |"


def table(args: Args) -> str:
    """Late success, and success over the whole run, which tells who is earlier."""
    rows = {method.label: scores(args, method) for method in METHODS}
    pairs = [both for both in rows.values() if len(both) == 2]
    rows[f"mean of the {len(pairs)} with QMP"] = np.mean(pairs, axis=0)
    head = [
        "| method | last quarter | with QMP | gain | whole run | with QMP | gain |",
        "|---|---|---|---|---|---|---|",
    ]
    return "\n".join(head + [row(*item) for item in rows.items()])


def pooled(args: Args, part: int) -> Table:
    """What QMP brings on average over the methods that take it: ``part`` 0, in the last quarter, or 1, in all of it."""
    strata = {}
    for method in METHODS:
        if len(method.switches) == 2:
            own, qmp = scores(args, method)[:, part]
            strata[method.label] = (qmp, own)
    return tables.pooled(f"Gain with QMP, {('last quarter', 'whole run')[part]}, all methods pooled", strata)


def draw(args: Args) -> Figure:
    """A panel for each method, without QMP (dashed) and with it (solid)."""
    figure = Figure(figsize=(11.5, 4.6), layout="constrained")
    panels = figure.subplots(2, 5, sharex=True, sharey=True)
    for axes, method in zip(panels.flat, METHODS, strict=True):
        for switch in method.switches:
            style, label = ("-", "with QMP") if switch == "qmp" else ("--", "without: own policies")
            color = SWITCH_COLOURS["qmp" if switch == "qmp" else "own"]
            steps, values = success(args, method, switch)
            mean = values.mean(axis=0)
            axes.plot(steps, mean, style, color=color, linewidth=1.6, label=label)
            if len(values) > 1:
                half = half_width(values)
                low, high = np.clip((mean - half, mean + half), 0, 1)
                axes.fill_between(steps, low, high, color=color, alpha=0.15, linewidth=0)
        axes.set_title(method.label, fontsize=9)
        axes.set_ylim(-0.03, 1.03)
        axes.xaxis.set_major_formatter(EngFormatter(sep=""))
        axes.spines[["top", "right"]].set_visible(False)
        axes.grid(alpha=0.25, linewidth=0.6)
        axes.tick_params(labelsize=8)
    panels[0, 0].legend(frameon=False, fontsize=8)
    figure.supylabel("success of the tasks' own policies", fontsize=9)
    figure.supxlabel(
        f"environment steps, all tasks; line: mean over {len(args.seeds)} seeds; "
        "shaded: 95 % confidence interval of the mean (Student's t)",
        fontsize=8,
    )
    return figure


def main(args: Args) -> None:
    if args.run and (code := make(args)):
        raise SystemExit(code)
    print(table(args))
    pools = [pooled(args, part) for part in (0, 1)]
    for pool in pools:
        print(f"\n{pool.title}:\n\n{pool.markdown()}")
    print(f"\n{pools[0].note} {SHARED_EPISODES}")
    draw(args).savefig(args.out, dpi=200)


if __name__ == "__main__":
    main(tyro.cli(Args))
