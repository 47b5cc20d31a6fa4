"""Figures from run directories: learning curves over seeds, and who collected for whom.

``python -m qmp_collect.runs.plot RUN_DIR... --out figure.png`` draws one panel per environment and one line per
(script, switch), the mean over the seeds against environment steps summed over tasks. With ``--mixture`` it draws the
share of each task's steps that each policy collected, early to late in training. Reads what `RunLogger` writes, and
``metrics.jsonl.gz`` where that is all there is.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from qmp_collect.extras import needs

with needs("report"):
    import tyro
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.ticker import EngFormatter

    from qmp_collect.runs.report.statistics import half_width

from qmp_collect.runs.palette import looks
from qmp_collect.runs.report.arms import method_name, varied
from qmp_collect.runs.report.runs import MIXTURE, Run, align, find_runs, load_run, mixture_over_training
from qmp_collect.runs.report.tables import in_words

__all__ = [
    "Args",
    "Group",
    "Run",
    "align",
    "group_runs",
    "load_run",
    "main",
    "mixture_over_training",
    "plot_curves",
    "plot_mixture",
]

Floats = NDArray[np.float64]
Method = tuple[str, str, str]

_SPREADS = {
    "range": "smallest to largest seed",
    "std": "± 1 standard deviation over seeds",
    "ci": "95 % confidence interval of the mean over seeds (Student's t)",
}


@dataclass
class Args:
    """Plot runs."""

    run_dirs: tyro.conf.Positional[tuple[Path, ...]]
    """run folders, or folders of them"""
    out: Path
    """the figure to write; its ending says the format (png, pdf, svg), png without one"""
    metric: str = "eval/success"
    """tag of the scalar to plot"""
    labels: tuple[str, ...] = ()
    """legend texts, one per line's script, switch and --by in the order of the run directories"""
    spread: Literal["range", "std", "ci"] = "range"
    """what is shaded: smallest to largest seed, one standard deviation (n - 1) either side of the mean, or the 95 %
    confidence interval of the mean"""
    by: tuple[str, ...] = ()
    """settings, as config.json names them, that also tell lines apart: --by horizon own_probability"""
    mixture: bool = False
    """plot the behaviour mixture matrix over training instead of the metric"""
    windows: int = 4
    """with --mixture: number of equal parts of training, one matrix each"""


class Group(NamedTuple):
    """What the runs behind one line have in common."""

    env_id: str
    exp_name: str
    switch: str
    settings: str = ""

    @property
    def method(self) -> Method:
        """Script, switch and further settings: what a label and a colour stand for, in every panel."""
        return self.exp_name, self.switch, self.settings


def _group(run: Run, by: Sequence[str]) -> Group:
    """Environment, script, switch ("" for scripts without one) and the settings ``by``.

    Raises:
        ValueError: if the run has no such setting.
    """
    if unknown := [key for key in by if key not in run.config]:
        raise ValueError(f"{run.path} has no setting {unknown[0]!r}; it has {sorted(run.config)}")
    env_id, exp_name, switch = (str(run.config.get(key, "")) for key in ("env_id", "exp_name", "switch"))
    return Group(env_id, exp_name, switch, ", ".join(f"{key} {run.config[key]}" for key in by))


def group_runs(runs: Sequence[Run], by: Sequence[str] = ()) -> dict[Group, list[Run]]:
    """Runs by environment, script, switch and the settings ``by``, in order of first appearance.

    Raises:
        ValueError: if a group has two runs of the same seed, which would count it twice.
    """
    groups: dict[Group, list[Run]] = {}
    for run in runs:
        group = _group(run, by)
        members = groups.setdefault(group, [])
        for other in members:
            if other.config.get("seed") == run.config.get("seed"):
                raise ValueError(f"{other.path} and {run.path} are both seed {run.config.get('seed')} of {group}")
        members.append(run)
    return groups


def main(args: Args) -> None:
    """Read the runs, draw, write ``args.out``.

    Raises:
        ValueError: for no run at all, or another number of labels than of scripts and switches.
    """
    runs = []
    for path in find_runs(args.run_dirs):
        try:
            if not any((path / name).exists() for name in ("metrics.jsonl", "metrics.jsonl.gz")):
                print(f"{path}: skipped, it holds no metrics.jsonl", file=sys.stderr)
                continue
            runs.append(load_run(path))
        except (OSError, ValueError) as error:
            print(f"{path}: skipped: {error}", file=sys.stderr)
    if not runs:
        raise ValueError(f"expected at least one run directory with metrics.jsonl, got {[*map(str, args.run_dirs)]}")
    groups = group_runs(_with_something_to_draw(runs, args), args.by)
    for group, members in groups.items():
        if differ := [name for name in varied(members) if name != "total_timesteps"]:
            print(f"{group}: its runs differ in {', '.join(differ)}; --by tells them apart", file=sys.stderr)
    methods = list(dict.fromkeys(group.method for group in groups))
    texts = args.labels or _default_labels(methods)
    if len(texts) != len(methods):
        raise ValueError(f"expected {len(methods)} labels, one for each of {methods}, got {list(texts)}")
    labels = dict(zip(methods, texts, strict=True))
    if args.mixture:
        figure = plot_mixture(groups, labels, args.windows)
    else:
        figure = plot_curves(groups, labels, args.metric, args.spread)
    out = args.out if args.out.suffix else args.out.with_suffix(".png")
    out.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(out, dpi=200)
    print(out)


def _with_something_to_draw(runs: Sequence[Run], args: Args) -> list[Run]:
    """Those that have logged what is drawn: a run that has only just begun does not cost the others their figure."""
    drawn, kept = MIXTURE if args.mixture else args.metric, []
    for run in runs:
        try:
            steps, _ = run.mixtures if args.mixture else run.series(args.metric)
        except ValueError as error:
            reason = error
            print(f"skipped: {error}", file=sys.stderr)
            continue
        kept.append((run, len(steps)))
    if not kept:
        raise ValueError(f"no run has anything to draw: {reason}")
    longest = max(count for _, count in kept)
    for run, count in kept:
        if count == 1 < longest:
            print(f"{run.path}: skipped, it has only one value of {drawn} yet", file=sys.stderr)
    return [run for run, count in kept if count > 1 or longest == 1]


def plot_curves(groups: Mapping[Group, list[Run]], labels: Mapping[Method, str], metric: str, spread: str) -> Figure:
    """One panel per environment, three in a row: each group's mean over seeds, its spread shaded.

    Args:
        groups: as `group_runs` makes them.
        labels: legend text of each `Group.method`.
        metric: the tag.
        spread: as in `Args`.
    """
    env_ids = list(dict.fromkeys(group.env_id for group in groups))
    look = dict(zip(labels, looks([(switch, (name, by)) for name, switch, by in labels]), strict=True))
    columns = min(len(env_ids), 3)
    rows = -(-len(env_ids) // columns)
    figure = Figure(figsize=(4.6 * columns + 0.4, 3.4 * rows + 0.2), layout="constrained")
    every_panel = list(figure.subplots(rows, columns, squeeze=False).flat)
    for unused in every_panel[len(env_ids) :]:
        unused.remove()
    panels = dict(zip(env_ids, every_panel, strict=False))
    for env_id, axes in panels.items():
        _style(axes, env_id)
        axes.set_xlabel("environment steps, all tasks")
        axes.xaxis.set_major_formatter(EngFormatter(sep=""))
        if _is_success(metric):
            axes.set_ylim(-0.03, 1.03)
    for group, runs in groups.items():
        axes, label, (color, style) = panels[group.env_id], labels[group.method], look[group.method]
        every = [run.series(metric) for run in runs]
        for run, (_, own) in zip(runs, every, strict=True):
            if missing := int((~np.isfinite(own)).sum()):
                print(f"{run.path}: {missing} of {len(own)} values of {metric} are not finite: gaps", file=sys.stderr)
        steps, values = align(every)
        if steps[-1] < max(own[-1] for own, _ in every):
            print(f"{group}: drawn up to the end of its shortest run, step {steps[-1]:.0f}", file=sys.stderr)
        seeds = f"{len(runs)} seed{'s' * (len(runs) > 1)}"
        axes.plot(steps, values.mean(axis=0), style, color=color, linewidth=1.8, label=f"{label} ({seeds})")
        if len(runs) > 1:
            band = _band(values, spread)
            low, high = np.clip(band, 0, 1) if _is_success(metric) else band
            axes.fill_between(steps, low, high, color=color, alpha=0.18, linewidth=0)
    for axes in panels.values():
        axes.legend(frameon=False, fontsize=8)
    for env_id in env_ids[::columns]:
        panels[env_id].set_ylabel(in_words(metric))
    figure.supxlabel(f"line: mean over seeds; shaded: {_SPREADS[spread]}", fontsize=7, color="0.4")
    return figure


def plot_mixture(groups: Mapping[Group, list[Run]], labels: Mapping[Method, str], windows: int) -> Figure:
    """One row per group: the T x K mixture matrix, averaged over seeds, in `windows` equal parts of training."""
    figure = Figure(figsize=(2.3 * windows + 1.2, 2.5 * len(groups) + 0.3), layout="constrained")
    panels = figure.subplots(len(groups), windows, squeeze=False)
    for (group, runs), row in zip(groups.items(), panels, strict=True):
        borders = np.linspace(0, max(own["global_step"] for run in runs for own in run.rows), windows + 1)
        every = np.stack([mixture_over_training(run, borders) for run in runs])
        mean = np.ma.masked_invalid(every).mean(axis=0).filled(np.nan)
        for axes, matrix, start, stop in zip(row, mean, borders[:-1].tolist(), borders[1:].tolist(), strict=True):
            image = axes.imshow(matrix, vmin=0, vmax=1, cmap="Blues")
            steps = EngFormatter(sep="", places=1)
            axes.set_title(f"steps {steps(start)} to {steps(stop)}", fontsize=8)
            num_tasks, num_policies = matrix.shape
            axes.set_xticks(range(0, num_policies, num_policies // 20 + 1))
            axes.set_yticks(range(0, num_tasks, num_tasks // 20 + 1))
            axes.tick_params(length=0, labelsize=6)
            axes.set_xlabel("policy that acted", fontsize=7)
        row[0].set_ylabel(f"{group.env_id} {labels[group.method]}\ntask", fontsize=7)
    bar = figure.colorbar(image, ax=panels, fraction=0.03)
    bar.set_label("share of the task's steps, mean over seeds", fontsize=7)
    bar.ax.tick_params(labelsize=7)
    return figure


def _default_labels(methods: list[Method]) -> tuple[str, ...]:
    """The switch and further settings in words, with the method where there are several or no switch."""
    several = len({exp_name for exp_name, _, _ in methods}) > 1
    texts = []
    for exp_name, switch, settings in methods:
        name = method_name(exp_name, switch or None, several)
        texts.append(", ".join(filter(None, ("own policies" if name == "own" else name, settings))))
    return tuple(texts)


def _is_success(metric: str) -> bool:
    return metric.rpartition("/")[2].startswith("success")


def _band(values: Floats, spread: str) -> tuple[Floats, Floats]:
    """Lower and upper edge ``(P,)`` of what is shaded for S seeds' values ``(S, P)``."""
    if spread == "range":
        return values.min(axis=0), values.max(axis=0)
    mean = values.mean(axis=0)
    half = half_width(values) if spread == "ci" else values.std(axis=0, ddof=1)
    return mean - half, mean + half


def _style(axes: Axes, title: str) -> None:
    axes.set_title(title, fontsize=10)
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(alpha=0.25, linewidth=0.6)
    axes.tick_params(labelsize=8)
    axes.ticklabel_format(useOffset=False)
    axes.margins(x=0.01)


if __name__ == "__main__":
    main(tyro.cli(Args))
