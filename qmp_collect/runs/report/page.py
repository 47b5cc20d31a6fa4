"""One self-contained page about many runs: curves, tables, mixtures, and where each number came from."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from html import escape
from itertools import count
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

from qmp_collect.runs.palette import PALETTE, policy_look, policy_name
from qmp_collect.runs.report import figures, origins, sharing, tables
from qmp_collect.runs.report.arms import Arm, Study, studies
from qmp_collect.runs.report.export import write_csv, write_hypotheses, write_intervals, write_mixture, write_tables
from qmp_collect.runs.report.markup import details, figure_html, legend, link, panels, table_html
from qmp_collect.runs.report.runs import Run, find_runs, load_run

METRICS = ("eval/any_hit", "eval/success", "eval/return")
PREFIXES = ("eval/", "qmp/mixture")
PARTS = 4  # of training, a mixture matrix each
SMALL = (2.7, 2.0)  # inches
MOST_LINES = 12  # policies that one panel can show as lines

_READING = (
    "Thick: mean over finished runs; shaded: its 95 % t interval (of shares, within 0 and 1), from two runs on; thin: "
    "every run; dotted: runs that are not finished. An arm of which no run is finished is shown as far as all its runs "
    "are. In the tables, [1 run] or [2 runs] stands where so few runs allow no interval."
)

# What the browser enforces: nothing is fetched from anywhere.
_POLICY = "default-src 'none'; style-src 'unsafe-inline'; img-src data:"


def write_report(
    run_dirs: Sequence[Path],
    out: Path,
    *,
    title: str = "Training runs",
    metrics: Sequence[str] | None = None,
    hypotheses: Sequence[str] = (),
) -> Path:
    """Write ``out/index.html``; its tables as ``tables.md``, their numbers as ``intervals.csv``, ``hypotheses.csv``.

    Beside them all that was logged of evaluations and of who acted, ``results.csv`` and ``mixture.csv``.

    Args:
        run_dirs: run folders, finished or not, live or published; a folder without ``config.json`` stands for all runs
            inside it. What cannot be read is listed on the page.
        metrics: tags of means over tasks, the primary one first; by default those of `METRICS` that were logged.
        hypotheses: ``ARM > ARM``, ``ARM < NUMBER`` or, of the mean over pairs of arms, ``ARM & ARM > ARM & ARM``, with
            the arms' labels or switches (see `tables.with_labels`): tested together, by Holm's procedure, on
            the first metric of each task set that has these arms; of several such sets all tests are one family.

    Returns:
        The page.

    Raises:
        ValueError: no run can be read, or a hypothesis is about arms that there are not.
    """
    read, unreadable = [], []
    for path in find_runs(map(Path, run_dirs)):
        try:
            read.append(load_run(path, PREFIXES))
        except (OSError, ValueError) as error:
            unreadable.append((path, str(error)))
    if not read:
        raise ValueError(f"expected a run folder at least, with config.json and metrics.jsonl; {unreadable or 'none'}")
    found = studies(read)
    given = [tables.hypothesis(text) for text in hypotheses]
    asked = [_available(study, metrics) for study in found]
    primary = [every[0] if every else "" for every in asked]
    of = [pair for pair in zip(found, primary, strict=True) if pair[1] and _has_arms(pair[0], given)]
    results = {
        study.env_id: (metric, tested) for (study, metric), tested in zip(of, tables.tested(of, given), strict=True)
    }
    if given and not any(_has_arms(study, given) for study in found):
        for one in given:
            tables.with_labels(found[0], one)  # says what arms there are
    out.mkdir(parents=True, exist_ok=True)
    numbers = count()
    shown: dict[str, list[tables.Table]] = {study.env_id: [] for study in found}
    sections = [
        _section(study, every, results.get(study.env_id, ("", []))[1], len(of), out, numbers, shown[study.env_id])
        for study, every in zip(found, asked, strict=True)
    ]
    page = _page(title, _summary(read, found, unreadable), found, sections, _unread(unreadable, out))
    (out / "index.html").write_text(page, encoding="utf-8")
    write_csv(found, out / "results.csv")
    write_mixture(found, out / "mixture.csv")
    write_hypotheses(results, out / "hypotheses.csv")
    write_intervals(shown, out / "intervals.csv")
    write_tables(shown, out / "tables.md", title)
    return out / "index.html"


def _page(title: str, summary: str, found: Sequence[Study], sections: Sequence[str], unread: str) -> str:
    style = Path(__file__).with_name("page.css").read_text(encoding="utf-8")
    places = "".join(f'<li><a href="#{_anchor(study)}">{escape(study.env_id)}</a></li>' for study in found)
    nav = f"<nav><ul>{places}</ul></nav>" if len(found) > 1 else ""
    return (
        f'<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n<title>{escape(title)}</title>\n'
        f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n<link rel="icon" href="data:,">\n'
        f"<style>\n{style}</style>\n</head>\n<body>\n<header><h1>{escape(title)}</h1>{summary}{nav}</header>\n<main>\n"
        + "\n".join(sections)
        + f"\n{unread}</main>\n</body>\n</html>\n"
    )


def _summary(read: Sequence[Run], found: Sequence[Study], unreadable: Sequence[tuple[Path, str]]) -> str:
    unfinished = [run for study in found for arm in study.arms for run in arm.unfinished]
    excluded = [run for study in found for run, _ in study.excluded]
    sets = ", ".join(study.env_id for study in found)
    finished = len(read) - len(unfinished) - len(excluded)
    text = (
        f"{figures.count(read)} of {sets}: {finished} finished, {len(unfinished)} not finished, {len(excluded)} "
        f"excluded, {len(unreadable)} not readable; every one is listed below. The unit of every statistic is one "
        "training run: its tasks are one observation together. Tables count finished runs only. Steps are stored "
        "transitions, summed over tasks."
    )
    return f'<p class="lead">{escape(text)}</p><p><a href="results.csv">All numbers as CSV</a></p>'


def _section(
    study: Study,
    metrics: Sequence[str],
    tested: Sequence[tables.Tested],
    sets: int,
    out: Path,
    numbers: Iterator[int],
    shown: list[tables.Table],
) -> str:
    """All of one task set; its tables go to ``shown`` too. So many ``sets`` are ``tested`` together."""
    names = [f"{arm.label}: {_runs_text(arm)}" for arm in study.arms]
    parts = [
        f'<section id="{_anchor(study)}">\n<h2>{escape(study.env_id)}</h2>',
        legend(names, figures.arm_looks(study)),
        f'<p class="note">{_READING}</p>',
    ]
    for place, metric in enumerate(metrics):
        parts.append(_metric(study, metric, numbers, shown, first=place == 0))
        if place == 0 and tested:
            parts.append(_table(tables.hypotheses(metric, tested, sets), shown))
    if not metrics:
        parts.append("<p>Nothing has been evaluated yet.</p>")
    parts += [_mixtures(study, numbers, shown), origins.section(study, out), "</section>"]
    return "\n".join(filter(None, parts))


def _table(table: tables.Table, shown: list[tables.Table]) -> str:
    if not table.rows:
        return ""
    shown.append(table)
    return table_html(table)


def _metric(study: Study, metric: str, numbers: Iterator[int], shown: list[tables.Table], first: bool) -> str:
    share, tasks = tables.is_share(study, metric), study.tasks(metric)
    drawn = []
    for group in _groups(study):
        figure, axes = figures.panel()
        figures.curves(axes, study, metric, share=share, only=group)
        axes.set_ylabel(tables.in_words(metric))
        names = f": {', '.join(group)}" if len(group) < len(study.arms) else ""
        drawn.append(_figure(figure, numbers, f"{metric}, mean over tasks{names}"))
    finished = any(arm.with_metric(metric) for arm in study.arms)
    if share and tasks and finished:
        figure, axes = figures.panel()
        figures.profile(axes, study, metric)
        caption = f"{metric}, performance profile: the share of finished runs' tasks that end above a threshold; "
        drawn.append(_figure(figure, numbers, caption + "shaded: 95 % by resampling whole runs, from three runs on"))
    parts = [f"<h3>{escape(metric)}</h3>", panels(drawn, small=len(drawn) > 2)]
    if finished:
        kinds = [tables.results, tables.differences, tables.speed, tables.efficiency]
        parts += [_table(kind(study, metric), shown) for kind in kinds]
    else:
        parts.append("<p>No run that has this is finished: no tables yet.</p>")
    if tasks:
        small = []
        for task in tasks:
            figure, axes = figures.panel(*SMALL)
            figures.curves(axes, study, metric, task, share)
            axes.set_ylabel(tables.in_words(metric))
            small.append(_figure(figure, numbers, task))
        body = panels(small, small=True)
        if finished:
            body += _table(tables.tasks_table(study, metric), shown)
        parts.append(details(f"{metric}, task by task", body, opened=first and len(tasks) <= MOST_LINES))
    return "\n".join(parts)


def _groups(study: Study) -> list[list[str]]:
    """Labels of the arms that share a panel: all of them, or those of one method where they are many."""
    if len(study.arms) <= len(PALETTE):
        return [[arm.label for arm in study.arms]]
    groups: dict[str, list[str]] = {}
    for arm in study.arms:
        groups.setdefault(str(arm.settings.get("exp_name")), []).append(arm.label)
    return list(groups.values())


def _mixtures(study: Study, numbers: Iterator[int], shown: list[tables.Table]) -> str:
    """Who acted for whom: shares of foreign actions, policies over training, matrices."""
    arms = [both for both in zip(study.arms, figures.arm_looks(study), strict=True) if sharing.shares(both[0])]
    if not arms:
        return ""
    names = next((found for metric in METRICS if (found := study.tasks(metric))), [])
    mixture = sharing.mixtures(arms[0][0], 1)
    num_tasks = mixture[1].shape[2] if mixture else 0
    tasks = names if len(names) == num_tasks else [f"task {task}" for task in range(num_tasks)]
    parts = ["<h3>Who acted for whom</h3>", legend([arm.label for arm, _ in arms], [look for _, look in arms])]
    small = []
    for task, name in enumerate(tasks):
        figure, axes = figures.panel(*SMALL)
        figures.foreign(axes, study, task)
        small.append(_figure(figure, numbers, f"{name}: share of its steps in which another policy acted"))
    parts.append(panels(small, small=True))
    parts.append(_table(sharing.table(study, tasks), shown))
    for place, (arm, _) in enumerate(arms):
        parts.append(details(f"{arm.label}: policy by policy", _policies(arm, tasks, numbers), opened=place == 0))
    return "\n".join(parts)


def _policies(arm: Arm, tasks: Sequence[str], numbers: Iterator[int]) -> str:
    found = sharing.mixtures(arm, PARTS)
    if found is None:
        return ""
    borders, values = found
    policies = values.shape[3]
    names = [f"{j}: {policy_name(j, tasks)}" for j in range(policies)]
    parts = []
    if policies <= MOST_LINES:
        small = []
        for task, name in enumerate(tasks):
            figure, axes = figures.panel(*SMALL)
            figures.policies(axes, arm, task)
            small.append(_figure(figure, numbers, f"{name}: share of its steps that each other policy had"))
        parts += [
            legend([f"policy {name}" for name in names], [policy_look(j) for j in range(policies)]),
            panels(small, small=True),
        ]
    small = []
    for start, stop, matrix in zip(borders[:-1], borders[1:], sharing.mean_over_runs(values), strict=True):
        span = f"steps {tables.steps_text(start)} to {tables.steps_text(stop)}"
        small.append(_matrix(matrix, 1.0, numbers, span))
    average = sharing.average_contribution(arm)
    if average is not None:
        top = max(float(np.nanmax(average)), 1e-3)
        caption = f"averaged over training, the diagonal left out; darkest: {top:.2f}"
        small.append(_matrix(average, top, numbers, caption))
    note = f"Row: task; column: policy; cell: share of the task's steps; mean over {figures.count(list(values))}."
    parts += [panels(small, small=True), f'<p class="note">{note}</p>']
    return "\n".join(parts)


def _matrix(values: sharing.Floats, top: float, numbers: Iterator[int], caption: str) -> str:
    figure, axes = figures.panel(2.5, 2.5 * min(1.0, 0.25 + 0.75 * values.shape[0] / values.shape[1]))
    figures.matrix(axes, values, top)
    axes.set_xlabel("policy")
    axes.set_ylabel("task")
    return _figure(figure, numbers, caption)


def _figure(figure: Figure, numbers: Iterator[int], caption: str) -> str:
    return figure_html(figure, f"figure {next(numbers)}", caption)


def _runs_text(arm: Arm) -> str:
    seeds = ", ".join("?" if run.seed is None else str(run.seed) for run in arm.runs)
    text = figures.count(arm.runs) + (f" (seed{'s' * (len(arm.runs) > 1)} {seeds})" if arm.runs else "")
    return text + (f", {len(arm.unfinished)} not finished" if arm.unfinished else "")


def _available(study: Study, metrics: Sequence[str] | None) -> list[str]:
    """Of those asked for, or of the usual ones, those that a run of the set has numbers for."""
    found = []
    for metric in METRICS if metrics is None else metrics:
        values = [value for run in study.runs if run.has(metric) for value in run.series(metric)[1]]
        if any(map(math.isfinite, values)):
            found.append(metric)
    return found


def _has_arms(study: Study, given: Sequence[tables.Hypothesis]) -> bool:
    try:
        for one in given:
            tables.with_labels(study, one)
    except ValueError:
        return False
    return True


def _unread(unreadable: Sequence[tuple[Path, str]], out: Path) -> str:
    if not unreadable:
        return ""
    items = "".join(f"<li>{link(path, out, path.name)}: {escape(error)}</li>" for path, error in unreadable)
    return f"<section><h2>Not readable</h2><ul>{items}</ul></section>\n"


def _anchor(study: Study) -> str:
    return "set-" + "".join(c if c.isalnum() else "-" for c in study.env_id)
