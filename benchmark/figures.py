"""The paper's figures about Reacher, redrawn from published runs, with the paper's numbers where it gives any.

    python benchmark/figures.py             # all of them, into docs/figures
    python benchmark/figures.py 7 9a        # these two
    python benchmark/figures.py --runs benchmark/results/maze3 --out /tmp/figures    # of other runs

7: success with QMP and without; 8 (appendix): task by task; 10: other mixtures than QMP's; 9a and 14: who acted in one
task, and in each, over training; 15: the same averaged over training. Runs of different schedules (environment and
gradient steps in a round) get panels of their own. Runs that were set aside are left out, and so is a figure of which
no run is published yet.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import tyro
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from qmp_collect.runs.palette import PALETTE
from qmp_collect.runs.report import figures, sharing
from qmp_collect.runs.report.arms import SET_ASIDE, Arm, Study, studies
from qmp_collect.runs.report.page import PREFIXES
from qmp_collect.runs.report.runs import Run, find_runs, load_run

ROOT = Path(__file__).parents[1]
METRICS = {
    "eval/any_hit": "success: any subgoal hit (the paper's count)",
    "eval/success": "success: all stages",
}
# Read off the paper's figures 7 and 10: share of success at so many environment steps, by script and switch.
PAPER = {
    ("sac_qmp_separate", "own"): {500_000: 0.69, 2_000_000: 0.80},
    ("sac_qmp_separate", "qmp"): {500_000: 0.97, 2_000_000: 0.99},
    ("sac_qmp_multihead", "own"): {500_000: 0.51, 2_000_000: 0.45},
    ("sac_qmp_multihead", "qmp"): {500_000: 0.68, 2_000_000: 0.81},
    ("sac_qmp_separate", "uniform"): {2_000_000: 0.60},
}
# Of the policies in figures 9a and 14: policy 4, the task that differs from the others, is red there.
POLICIES = tuple(PALETTE[place] for place in (0, 2, 4, 5, 1, 3, 6, 7))

Settings = Mapping[str, Any]


class Schedule(NamedTuple):
    """Runs of one task set and one schedule."""

    title: str
    runs: list[Run]

    def study(self, keep: Callable[[Settings], bool]) -> Study | None:
        """Those that a figure shows."""
        found = studies([run for run in self.runs if keep(run.config)])
        return found[0] if found else None


@dataclass
class Args:
    names: tyro.conf.Positional[tuple[str, ...]] = ()
    """figures to draw: 7, 8, 9a, 10, 14, 15 (default: all)"""
    runs: tuple[Path, ...] = (ROOT / "benchmark" / "results" / "reacher5",)
    """run folders, or folders of them"""
    out: Path = ROOT / "docs" / "figures"
    """folder of the figures"""


def schedules(runs: Sequence[Run]) -> list[Schedule]:
    """Runs by task set and schedule, in order of their first appearance."""
    groups: dict[str, list[Run]] = {}
    for run in runs:
        steps = (run.config.get(f"{kind}_steps_per_round") for kind in ("env", "gradient"))
        title = "{}: {} environment and {} gradient steps a round".format(run.env_id.partition("-v")[0], *steps)
        groups.setdefault(title, []).append(run)
    return [Schedule(title, members) for title, members in groups.items()]


def plain(settings: Settings) -> bool:
    """As the paper has it, but for the switch: scored by the task's critic, chosen anew at each step."""
    return settings.get("switch_critic_of", "task") == "task" and settings.get("horizon", 1) == 1


def frameworks(settings: Settings) -> bool:
    return plain(settings) and settings.get("switch") in ("own", "qmp")


def separate(settings: Settings) -> bool:
    """Figure 10's: separate agents, however they choose who acts; with them own policies and the other controls."""
    scripts = settings.get("exp_name") == "sac_qmp_separate" and settings.get("horizon", 1) == 1
    return scripts and settings.get("switch") in ("own", "qmp", "uniform", "domain")


def behaviours(settings: Settings) -> bool:
    """Appendix figure 8's: methods that share behaviour, on separate agents or of their own."""
    return plain(settings) and (
        settings.get("switch") in ("own", "qmp") if settings.get("exp_name") == "sac_qmp_separate" else True
    )


def qmp(settings: Settings) -> bool:
    return plain(settings) and settings.get("exp_name") == "sac_qmp_separate" and settings.get("switch") == "qmp"


def figure_7(found: Sequence[Schedule]) -> Figure | None:
    """A row for each schedule, a panel for each count of success."""
    return _success(found, frameworks)


def figure_10(found: Sequence[Schedule]) -> Figure | None:
    """Likewise, of schedules with another mixture than QMP's."""
    return _success([one for one in found if one.study(lambda s: separate(s) and not frameworks(s))], separate)


def figure_8(found: Sequence[Schedule]) -> Figure | None:
    """A row for each schedule, a panel for each task."""
    shown = _shown(found, behaviours)
    if not shown:
        return None
    metrics = [_available(study)[0] for _, study in shown]
    tasks = [study.tasks(metric) for (_, study), metric in zip(shown, metrics, strict=True)]
    figure, panels = _grid(len(shown), max(map(len, tasks)), 2.9, 2.5)
    for (title, study), metric, names, row in zip(shown, metrics, tasks, panels, strict=True):
        for axes, task in zip(row, names, strict=False):
            figures.curves(axes, study, metric, task, share=True)
            axes.set_title(f"{task}")
        _legend(row[0])
        row[0].set_ylabel(f"{_wrapped(title)}\n{METRICS[metric].partition(': ')[2]}", fontsize=7)
        _unused(row[len(names) :])
    _note(figure)
    return figure


def figure_9a(found: Sequence[Schedule]) -> Figure | None:
    """Task 0, a panel for each schedule."""
    shown = _mixed(found)
    if not shown:
        return None
    figure, panels = _grid(1, len(shown), 4.4, 3.0)
    for (title, arm, names), axes in zip(shown, panels[0], strict=True):
        _policies(axes, arm, 0, names)
        axes.set_title(f"{_runs(arm)}, {title.replace(': ', chr(10), 1)}", fontsize=8)
        axes.set_ylabel(f"share of the steps of {names[0]}", fontsize=8)
        _legend(axes)
    return figure


def figure_14(found: Sequence[Schedule]) -> Figure | None:
    """A row for each schedule, a panel for each task."""
    shown = _mixed(found)
    if not shown:
        return None
    figure, panels = _grid(len(shown), max(len(names) for _, _, names in shown), 2.9, 2.5)
    for (title, arm, names), row in zip(shown, panels, strict=True):
        for task, axes in enumerate(row[: len(names)]):
            _policies(axes, arm, task, names)
            axes.set_title(f"{task}: {names[task]}")
        top = max(axes.get_ylim()[1] for axes in row[: len(names)])
        for axes in row:
            axes.set_ylim(0.0, top)
        every = {label: line for axes in row for line, label in zip(*axes.get_legend_handles_labels(), strict=True)}
        row[0].legend([every[label] for label in sorted(every)], sorted(every), frameon=False, fontsize=7)
        row[0].set_ylabel(f"{_runs(arm)}, {_wrapped(title)}\nshare of the task's steps", fontsize=7)
        _unused(row[len(names) :])
    return figure


def figure_15(found: Sequence[Schedule]) -> Figure | None:
    """Row: task; column: policy. A matrix for each schedule."""
    shown = _mixed(found)
    if not shown:
        return None
    figure, panels = _grid(1, len(shown), 3.6, 3.6)
    for (title, arm, _), axes in zip(shown, panels[0], strict=True):
        values = sharing.average_contribution(arm)
        if values is not None:
            figures.matrix(axes, values, top=max(float(np.nanmax(values)), 1e-3))
        axes.set_title(f"{_runs(arm)}, {title.replace(': ', chr(10), 1)}", fontsize=7)
        axes.set_xlabel("policy that acted")
        axes.set_ylabel("task")
    return figure


FIGURES = {
    "7": figure_7,
    "8": figure_8,
    "9a": figure_9a,
    "10": figure_10,
    "14": figure_14,
    "15": figure_15,
}


def _success(found: Sequence[Schedule], keep: Callable[[Settings], bool]) -> Figure | None:
    shown = _shown(found, keep)
    if not shown:
        return None
    metrics = [metric for metric in METRICS if any(metric in _available(study) for _, study in shown)]
    figure, panels = _grid(len(shown), len(metrics), 4.4, 3.0)
    for (title, study), row in zip(shown, panels, strict=True):
        for axes, metric in zip(row, metrics, strict=True):
            figures.curves(axes, study, metric, share=True)
            axes.set_title(title, fontsize=8)
            axes.set_ylabel(METRICS[metric], fontsize=8)
            if metric == "eval/any_hit":
                _paper(axes, study)
            if axes.lines:
                _legend(axes)
    _note(figure)
    return figure


def _paper(axes: Axes, study: Study) -> None:
    """The paper's numbers as diamonds, in the arms' colours."""
    marked = False
    for arm, (color, _) in zip(study.arms, figures.arm_looks(study), strict=True):
        key = (str(arm.settings.get("exp_name")), str(arm.settings.get("switch")))
        if study.env_id.startswith("Reacher5") and plain(arm.settings) and key in PAPER:
            steps, values = zip(*PAPER[key].items(), strict=True)
            axes.plot(steps, values, "D", markersize=6, markerfacecolor="white", color=color, clip_on=False, zorder=5)
            marked = True
    if marked:
        axes.plot([], [], "D", markersize=6, markerfacecolor="white", color=figures.INK, label="the paper's figure")


def _policies(axes: Axes, arm: Arm, task: int, names: Sequence[str]) -> None:
    colors = [POLICIES[policy % len(POLICIES)] for policy in range(max(len(names), 50))]
    figures.policies(axes, arm, task, names, colors)


def _shown(found: Sequence[Schedule], keep: Callable[[Settings], bool]) -> list[tuple[str, Study]]:
    """Schedules that have finished runs of what a figure shows, with a count of success."""
    every = [(schedule.title, schedule.study(keep)) for schedule in found]
    return [(title, study) for title, study in every if study is not None and _available(study)]


def _mixed(found: Sequence[Schedule]) -> list[tuple[str, Arm, list[str]]]:
    """QMP's arm of each schedule, as far as it logged who acted, and the names of the tasks."""
    arms = []
    for title, study in _shown(found, qmp):
        for arm in study.arms:
            if sharing.mixtures(arm, 1) is not None:
                arms.append((title, arm, study.tasks(_available(study)[0])))
    return arms


def _available(study: Study) -> list[str]:
    return [metric for metric in METRICS if any(arm.with_metric(metric) for arm in study.arms)]


def _runs(arm: Arm) -> str:
    return f"{arm.label}, {figures.count(arm.runs)}"


def _wrapped(title: str) -> str:
    """For the side of a small panel."""
    return title.replace(": ", "\n").replace(" and ", " and\n")


def _grid(rows: int, columns: int, width: float, height: float) -> tuple[Figure, Any]:
    figure = Figure(figsize=(width * columns, height * rows + 0.2), layout="constrained")
    panels = figure.subplots(rows, columns, squeeze=False)
    for axes in panels.flat:
        figures.style(axes)
    return figure, panels


def _legend(axes: Axes) -> None:
    axes.legend(frameon=False, fontsize=7)


def _unused(panels: Sequence[Axes]) -> None:
    for axes in panels:
        axes.remove()


def _note(figure: Figure) -> None:
    figure.supxlabel("thin: every run; thick: their mean; shaded: its 95 % t interval", fontsize=7, color="0.4")


def main(args: Args) -> None:
    if unknown := [name for name in args.names if name not in FIGURES]:
        raise SystemExit(f"figure {unknown[0]}: expected one of {', '.join(FIGURES)}")
    runs = [load_run(path, PREFIXES) for path in find_runs(args.runs) if (path / "config.json").exists()]
    found = schedules([run for run in runs if run.finished and SET_ASIDE not in run.path.parts])
    args.out.mkdir(parents=True, exist_ok=True)
    for name in args.names or FIGURES:
        figure = FIGURES[name](found)
        if figure is None:
            print(f"figure {name}: no run of it is published")
            continue
        out = args.out / f"figure_{name}.png"
        figure.savefig(out, dpi=100)
        print(out)


if __name__ == "__main__":
    main(tyro.cli(Args))
