"""Reacher5 at the paper's length: the table of docs/results.md, and the numbers that answer the protocol's predictions.

    python benchmark/reacher5.py

From the runs under ``benchmark/results/reacher5``, as far as there are any. Predictions, statistics and their family
are those of ``benchmark/PROTOCOL.md``; those that are counted, not tested, have their place in the family as well.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import tyro
from numpy.typing import NDArray

from qmp_collect.runs.report import statistics
from qmp_collect.runs.report.runs import Run, load_run, mixture_over_training
from qmp_collect.runs.report.tables import Table, final

Floats = NDArray[np.float64]

ANY_HIT, ALL_STAGES = "eval/any_hit", "eval/success"
SPARSE, STAY = 3, 4  # tasks

# Plan, part of the names of its runs, what they are called.
ARMS = {
    "QMP": ("i", "qmp_seed*"),
    "own policy": ("i", "own_seed*"),
    "QMP, table 4's schedule": ("ii", "qmp_seed*"),
    "own policy, table 4's schedule": ("ii", "own_seed*"),
    "QMP-Uniform": ("iii", "uniform_seed*"),
    "QMP-Domain": ("iii", "domain_seed*"),
    "wrong critic": ("iii", "qmp_seed*_proposer"),
}


@dataclass
class Args:
    """Read the runs."""

    runs: Path = Path(__file__).parent / "results" / "reacher5"
    """folder of the plans' folders"""


class Arm(NamedTuple):
    """One arm's runs, by seed."""

    runs: list[Run]

    def each(self, statistic: Callable[[Floats, Floats], float], metric: str = ANY_HIT) -> Floats:
        """A statistic of each run's steps and values: ``(R,)``."""
        return np.array([statistic(*run.series(metric)) for run in self.runs])

    @property
    def last(self) -> Floats:
        """The primary statistic, ``(R,)``."""
        return self.each(lambda _, values: final(values))


def area(steps: Floats, values: Floats) -> float:
    return float(statistics.area_under_curve(steps, values))


def at_half_a_million(steps: Floats, values: Floats) -> float:
    return float(values[steps == 500_000].item())


def load(folder: Path) -> dict[str, Arm]:
    """The arms that have a run."""
    found = {}
    for label, (plan, pattern) in ARMS.items():
        runs = [load_run(path) for path in (folder / plan).glob(f"sac_qmp_separate_{pattern}")]
        if runs:
            found[label] = Arm(sorted(runs, key=lambda run: int(run.seed)))
    return found


# What is measured of each run, (R,).
MEASURES: dict[str, Callable[[Arm], Floats]] = {
    "any subgoal at 0.5 M": lambda arm: arm.each(at_half_a_million),
    "any subgoal, last 10 %": lambda arm: arm.last,
    "area under its curve": lambda arm: arm.each(area),
    "all stages, last 10 %": lambda arm: arm.each(lambda _, values: final(values), ALL_STAGES),
    "area under that": lambda arm: arm.each(area, ALL_STAGES),
}


def table(arms: dict[str, Arm]) -> Table:
    rows = []
    for label, arm in arms.items():
        several = len(arm.runs) > 1
        middle = in_words(statistics.bootstrap(statistics.interquartile_mean, arm.last)) if several else ""
        to_90 = arm.each(lambda steps, values: statistics.steps_to(steps, values, 0.9))
        measured = [of_runs(measure(arm)) for measure in MEASURES.values()]
        rows.append([label, *measured, middle, ", ".join(map(in_steps, to_90))])
    header = ["arm", *MEASURES, "interquartile mean of the last 10 %", "steps to 0.9"]
    return Table("Reacher5", header, rows, "Every seed, mean, and its 95 % interval over runs: Student's t, bootstrap.")


def gains(arms: dict[str, Arm]) -> Table:
    """QMP less each other arm of the same schedule."""
    rows = []
    for label, arm in arms.items():
        qmp = "QMP, table 4's schedule" if label.endswith("schedule") else "QMP"
        if label != qmp and qmp in arms and min(len(arm.runs), len(arms[qmp].runs)) > 1:
            rows.append([label, *(between(measure(arms[qmp]), measure(arm))[0] for measure in MEASURES.values())])
    return Table(
        "QMP less",
        ["arm", *MEASURES],
        rows,
        "Welch's 95 % intervals over runs, and pairs in which QMP's run is better.",
    )


def of_runs(values: Floats) -> str:
    each = ", ".join(f"{value:.2f}" for value in values)
    return f"{each}: {in_words(statistics.mean(values))}" if len(values) > 1 else each


def in_words(interval: statistics.Interval) -> str:
    return f"{interval.estimate:.3f} [{interval.low:.3f}, {interval.high:.3f}]"


def in_steps(steps: float) -> str:
    return "never" if np.isinf(steps) else f"{steps / 1e6:.2f} M"


def tenths(run: Run) -> Floats:
    """Who acted in each tenth of the run: ``(10, T, K)``."""
    return mixture_over_training(run, np.linspace(0, 2_000_000, 11))


def others_share(run: Run) -> Floats:
    """Share of each task's steps in which another policy acted, in tenths of the run: ``(10, T)``."""
    return 1 - np.diagonal(tenths(run), axis1=1, axis2=2)


def elsewhere(run: Run) -> Floats:
    """Share of the other tasks' steps that each policy had, over the run: ``(T,)``."""
    whole = tenths(run).mean(axis=0)
    np.fill_diagonal(whole, 0)
    return whole.sum(axis=0) / (len(whole) - 1)


def against(values: Floats, mean: float) -> tuple[str, float]:
    return in_words(statistics.mean(values)), statistics.mean_test(values, mean)


def between(first: Floats, second: Floats) -> tuple[str, float]:
    better = statistics.probability_of_improvement(first, second)
    interval = in_words(statistics.difference(first, second))
    return f"{interval}, better in {better:.2f} of pairs", statistics.pooled_test([(first, second)])


def predictions(arms: dict[str, Arm]) -> Table:
    """What the protocol predicts, what was measured, and p-values by Holm's procedure over all eight.

    What is counted, not tested, or cannot be tested yet, has no p-value, and counts as 1 in the family.
    """
    rows: list[tuple[str, str, float]] = []

    def answer(text: str, needs: Sequence[str], measured: Callable[..., tuple[str, float]]) -> None:
        missing = [label for label in needs if label not in arms or len(arms[label].runs) < 2]
        found = (
            ("fewer than two runs: " + ", ".join(missing), np.nan)
            if missing
            else measured(*(arms[label] for label in needs))
        )
        rows.append((text, *found))

    answer("1. own policies end at .80", ["own policy"], lambda own: against(own.last, 0.8))
    answer("2. QMP ends at .98 or more", ["QMP"], lambda qmp: against(qmp.last, 0.98))
    answer("3. QMP ends above own policies", ["QMP", "own policy"], lambda qmp, own: between(qmp.last, own.last))
    answer(
        "4. QMP has .9 at 0.5 M in 4 of 5 seeds", ["QMP"], lambda qmp: (of_runs(qmp.each(at_half_a_million)), np.nan)
    )
    answer("5. QMP-Uniform ends at .7 or less", ["QMP-Uniform"], lambda uniform: against(uniform.last, 0.7))
    answer("6. QMP above the wrong critic", ["QMP", "wrong critic"], lambda qmp, wrong: between(qmp.last, wrong.last))
    answer("7. others act less in the last fifth than in the second tenth, in every task", ["QMP"], falls)
    answer("8. `stay` acts least elsewhere, the sparse task has others most", ["QMP"], roles)
    adjusted = statistics.holm([1.0 if np.isnan(p) else p for _, _, p in rows])
    cells = [
        [text, measured, "" if np.isnan(p) else f"{p:.4f}, {holm:.4f}"]
        for (text, measured, p), holm in zip(rows, adjusted, strict=True)
    ]
    return Table("Predictions", ["prediction", "measured", "p, by Holm"], cells, "Intervals: 95 %, over runs.")


def falls(qmp: Arm) -> tuple[str, float]:
    seeds = []
    for run in qmp.runs:
        share = others_share(run)
        early, late = share[1], share[8:].mean(axis=0)
        change = ", ".join(f"{a:.2f} to {b:.2f}" for a, b in zip(early, late, strict=True))
        seeds.append(f"{run.seed} {'yes' if (late < early).all() else 'no'} ({change})")
    return "; ".join(seeds), np.nan


def roles(qmp: Arm) -> tuple[str, float]:
    seeds = []
    for run in qmp.runs:
        acts, others = elsewhere(run), others_share(run).mean(axis=0)
        as_said = acts.argmin() == STAY, others.argmax() == SPARSE
        numbers = f"{', '.join(f'{x:.3f}' for x in acts)} | {', '.join(f'{x:.2f}' for x in others)}"
        seeds.append(f"{run.seed} {'yes' if as_said[0] else 'no'}, {'yes' if as_said[1] else 'no'} ({numbers})")
    return "; ".join(seeds), np.nan


if __name__ == "__main__":
    arms = load(tyro.cli(Args).runs)
    print(*(part(arms).markdown() for part in (table, gains, predictions)), sep="\n\n")
