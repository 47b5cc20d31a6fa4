"""Drawings of a study, each on axes that the caller provides: for a page, a README, a paper."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from qmp_collect.extras import needs
from qmp_collect.runs.palette import Look, looks, policy_look, policy_name
from qmp_collect.runs.report import statistics
from qmp_collect.runs.report.arms import Arm, Study, setting_text
from qmp_collect.runs.report.runs import align
from qmp_collect.runs.report.sharing import WINDOWS, mean_over_runs, mixtures, shares
from qmp_collect.runs.report.tables import FEWEST_FOR_BOOTSTRAP, task_scores, task_tag

with needs("report"):
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.image import AxesImage
    from matplotlib.ticker import EngFormatter, MaxNLocator

Floats = NDArray[np.float64]

INK, GRID = "#24292f", "#d0d7de"


def panel(width: float = 4.6, height: float = 3.0) -> tuple[Figure, Axes]:
    """A figure of one panel."""
    figure = Figure(figsize=(width, height), layout="constrained")
    axes = figure.subplots()
    style(axes)
    return figure, axes


def style(axes: Axes) -> None:
    """The look of all panels."""
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_color(INK)
    axes.grid(color=GRID, linewidth=0.6)
    axes.tick_params(labelsize=8, colors=INK)
    axes.ticklabel_format(useOffset=False)
    axes.title.set_color(INK)
    axes.title.set_fontsize(10)
    for label in (axes.xaxis.label, axes.yaxis.label):
        label.set_color(INK)
        label.set_fontsize(8)
    axes.patch.set_alpha(0.0)
    axes.margins(x=0.01)


def arm_looks(study: Study) -> list[Look]:
    """Colour and line style of each arm: the colour says the switch."""
    return looks(
        [
            (
                arm.settings.get("switch"),
                tuple(sorted((key, setting_text(value)) for key, value in arm.settings.items() if key != "switch")),
            )
            for arm in study.arms
        ]
    )


def curves(
    axes: Axes,
    study: Study,
    metric: str,
    task: str | None = None,
    share: bool = False,
    only: Sequence[str] | None = None,
) -> None:
    """Each arm's mean over runs and its 95 % t interval, every run thin behind it, unfinished ones dotted.

    Args:
        metric: of the mean over tasks, ``eval/success``.
        task: one task instead.
        share: the axis goes from 0 to 1.
        only: labels of the arms to draw, all by default.
    """
    tag = metric if task is None else task_tag(metric, task)
    for arm, (color, line) in zip(study.arms, arm_looks(study), strict=True):
        if only is not None and arm.label not in only:
            continue
        shown = arm.shown(tag)
        for run in shown:
            axes.plot(*run.series(tag), line, color=color, linewidth=0.6, alpha=0.35)
        for run in arm.unfinished:
            if arm.runs and run.has(tag):
                axes.plot(*run.series(tag), ":", color=color, linewidth=0.8, alpha=0.6)
        if not shown:
            continue
        steps, values = align([run.series(tag) for run in shown])
        axes.plot(steps, values.mean(axis=0), line, color=color, linewidth=1.9, label=f"{arm.label} ({count(shown)})")
        if len(shown) > 1:
            mean, half = values.mean(axis=0), statistics.half_width(values)
            low, high = (np.clip((mean - half, mean + half), 0, 1)) if share else (mean - half, mean + half)
            axes.fill_between(steps, low, high, color=color, alpha=0.15, linewidth=0)
    _steps(axes)
    if share:
        axes.set_ylim(-0.03, 1.03)


def profile(axes: Axes, study: Study, metric: str) -> None:
    """Performance profile: share of all runs' tasks whose final score is above a threshold, for every threshold.

    The band resamples whole runs.
    """
    tasks = study.tasks(metric)
    scored = [
        (look, arm, task_scores(arm, metric, tasks)) for look, arm in zip(arm_looks(study), study.arms, strict=True)
    ]
    scored = [(look, arm, values) for look, arm, values in scored if values.size]
    if not scored:
        return
    every = np.concatenate([values.ravel() for _, _, values in scored])
    low, high = float(every.min()), float(every.max())
    thresholds = np.linspace(low - 0.01 * (high - low or 1.0), high + 0.01 * (high - low or 1.0), 201)
    rng = np.random.default_rng(0)
    for (color, line), arm, values in scored:
        height = statistics.performance_profile(values, thresholds)
        axes.plot(thresholds, height, line, color=color, linewidth=1.7, label=f"{arm.label} ({count(arm.runs)})")
        if len(values) >= FEWEST_FOR_BOOTSTRAP:
            draws = [
                statistics.performance_profile(values[rng.integers(len(values), size=len(values))], thresholds)
                for _ in range(500)
            ]
            axes.fill_between(thresholds, *np.quantile(draws, [0.025, 0.975], axis=0), color=color, alpha=0.12, lw=0)
    axes.set_xlabel("threshold")
    axes.set_ylabel("share of runs' tasks above it")
    axes.set_ylim(-0.03, 1.03)


def foreign(axes: Axes, study: Study, task: int) -> None:
    """Share of a task's steps in which another policy acted: each arm that shares, every run thin behind it."""
    for arm, (color, line) in zip(study.arms, arm_looks(study), strict=True):
        found = mixtures(arm, WINDOWS) if shares(arm) else None
        if found is None:
            continue
        borders, values = found
        share = 1.0 - values[:, :, task, task]
        _run_lines(axes, borders, share, color, line, f"{arm.label} ({len(share)} run{'s' * (len(share) > 1)})")
    _steps(axes)
    axes.set_ylim(-0.03, 1.03)


def policies(
    axes: Axes, arm: Arm, task: int, names: Sequence[str] | None = None, colors: Sequence[str] | None = None
) -> None:
    """Share of a task's steps that each other policy had, over training: mean over runs, every run thin behind it.

    Args:
        names: of the tasks, as which their own policies are named.
        colors: of the policies; those of the palette by default.
    """
    found = mixtures(arm, WINDOWS)
    if found is None:
        return
    borders, values = found
    for policy in range(values.shape[3]):
        if policy != task:
            color, line = policy_look(policy)
            name = f"policy {policy}" if names is None else f"{policy}: {policy_name(policy, names)}"
            _run_lines(
                axes, borders, values[:, :, task, policy], colors[policy] if colors else color, line, name, thin=0.2
            )
    _steps(axes)
    axes.set_ylim(bottom=0.0)


def matrix(axes: Axes, values: Floats, top: float = 1.0, numbers: bool | None = None) -> AxesImage:
    """A mixture ``(T, K)``: row i, column j is the share of task i's steps that policy j had.

    Args:
        top: value of the darkest colour.
        numbers: write them into the cells; by default where there are few.
    """
    image = axes.imshow(values, vmin=0.0, vmax=top, cmap="Blues", aspect="equal")
    tasks, num_policies = values.shape
    if numbers if numbers is not None else max(values.shape) <= 6:
        for task in range(tasks):
            for policy in range(num_policies):
                if np.isfinite(values[task, policy]):
                    text = f"{values[task, policy]:.2f}".removeprefix("0")
                    color = "white" if values[task, policy] > 0.55 * top else "black"
                    axes.text(policy, task, text, ha="center", va="center", fontsize=7, color=color)
    axes.set_xticks(range(0, num_policies, num_policies // 20 + 1))
    axes.set_yticks(range(0, tasks, tasks // 20 + 1))
    axes.tick_params(length=0, labelsize=7)
    axes.grid(False)
    axes.spines[:].set_visible(False)
    return image


def count(runs: Sequence[object]) -> str:
    """5 runs, 1 run."""
    return f"{len(runs)} run{'s' * (len(runs) != 1)}"


def _run_lines(
    axes: Axes, borders: Floats, values: Floats, color: str, line: str, label: str, thin: float = 0.35
) -> None:
    """Runs' windows ``(R, W)`` as lines through the windows' middles."""
    middles = (borders[1:] + borders[:-1]) / 2
    marker = "." if len(middles) == 1 else ""
    for one in values if len(values) > 1 else []:
        axes.plot(middles, one, line, color=color, linewidth=0.5, alpha=thin)
    axes.plot(middles, mean_over_runs(values), line, color=color, linewidth=1.7, label=label, marker=marker)


def _steps(axes: Axes) -> None:
    axes.set_xlabel("environment steps, all tasks")
    axes.xaxis.set_major_locator(MaxNLocator(5))
    axes.xaxis.set_major_formatter(EngFormatter(sep=""))
