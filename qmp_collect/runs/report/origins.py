"""Where the numbers of a study came from: every run's state, commit, hardware, versions, command, raw data."""

from __future__ import annotations

import shlex
from collections.abc import Iterable
from html import escape
from pathlib import Path
from typing import Any

from qmp_collect.runs.provenance import OF_THE_STARTER, published
from qmp_collect.runs.report.arms import Study, setting_text, settings_of, varied
from qmp_collect.runs.report.figures import count
from qmp_collect.runs.report.markup import details, link, table_html
from qmp_collect.runs.report.runs import Run
from qmp_collect.runs.report.tables import Table, steps_text

_FILES = ("config.json", "metrics.jsonl", "metrics.jsonl.gz", "provenance.jsonl")
_HEAD = ("run", "seed", "state", "commit", "hardware", "starts", "raw data")


def section(study: Study, page: Path) -> str:
    """A table of all runs, excluded ones too, and one of the settings. ``page`` is the folder that links start from."""
    rows = []
    for arm in study.arms:
        rows += [_row(arm.label, run, page, state(run), not run.finished) for run in (*arm.runs, *arm.unfinished)]
    rows += [_row("excluded", run, page, reason, True) for run, reason in study.excluded]
    head = "".join(f'<th scope="col">{name}</th>' for name in _HEAD)
    caption = f"<caption>{count(rows)}, {len(study.excluded)} excluded</caption>"
    table = f"<table>{caption}<thead><tr>{head}</tr></thead><tbody>{''.join(rows)}</tbody></table>"
    return "\n".join(
        (
            "<h3>Runs and where they came from</h3>",
            f'<div class="scroll">{table}</div>',
            details("Settings", "".join(map(table_html, settings(study)))),
        )
    )


def state(run: Run) -> str:
    """Whether a run is finished, or how far it is."""
    if run.finished:
        return f"finished, {steps_text(run.last_step)} steps"
    length = f" of {steps_text(run.length)}" if run.length else ""
    return f"not finished: {steps_text(run.last_step)}{length} steps"


def settings(study: Study) -> list[Table]:
    """What the arms differ in, and what they have in common."""
    arms, keys = study.arms, varied(study.runs)
    differ = [[key, *(setting_text(arm.settings[key]) if key in arm.settings else "" for arm in arms)] for key in keys]
    shared: dict[str, Any] = {}
    for run in study.runs:
        shared |= settings_of(run)
    common = [[key, setting_text(value)] for key, value in shared.items() if key not in keys]
    tables = [Table("The same in all arms", ["setting", "value"], common)]
    if keys:
        tables.insert(0, Table("What the arms differ in", ["setting", *(arm.label for arm in arms)], differ))
    return tables


def _row(label: str, run: Run, page: Path, text: str, warn: bool) -> str:
    sources = [source for start in run.starts for source in _sources(start)]
    modified = any(source.get("modified") for source in sources)
    commits = _distinct(str(source.get("commit") or "no commit")[:10] for source in sources) or ["not known"]
    machines = _distinct(_machine(start) for start in run.starts) or ["not known"]
    files = [link(run.path / name, page, name) for name in _FILES if (run.path / name).exists()]
    cells = [
        escape("?" if run.seed is None else str(run.seed)),
        f"<span{' class=warn' * warn}>{escape(text)}</span>",
        f"<code>{escape(', '.join(commits))}</code>" + ' <span class="warn">modified files</span>' * modified,
        escape("; ".join(machines)),
        _starts(run),
        f"{', '.join(files)}",
    ]
    return f'<tr><th scope="row">{escape(label)}</th>{"".join(f"<td>{cell}</td>" for cell in cells)}</tr>'


def _starts(run: Run) -> str:
    """Each start's command and versions, without paths of the machine."""
    items = []
    for start in run.starts:
        versions = start.get("versions")
        text = ", ".join(f"{k} {v}" for k, v in versions.items()) if isinstance(versions, dict) else ""
        items.append(f"<li><code>{escape(_command(start, run))}</code><br>{escape(text)}</li>")
    return details(f"{len(items)}", f"<ul>{''.join(items)}</ul>") if items else "not known"


def _command(start: dict[str, Any], run: Run) -> str:
    try:
        words = shlex.split(str(start.get("command", "")))
    except ValueError:
        return ""
    return published(words, (*run.config, *OF_THE_STARTER))


def _sources(start: dict[str, Any]) -> list[dict[str, Any]]:
    """Of the program, and of packages of this project that lay elsewhere."""
    packages = start.get("packages")
    elsewhere = packages.values() if isinstance(packages, dict) else ()
    return [start, *(source for source in elsewhere if isinstance(source, dict))]


def _machine(start: dict[str, Any]) -> str:
    cores = start.get("cores")
    parts = [start.get("gpu"), start.get("cpu"), f"{cores} core{'s' * (cores != 1)}" if cores else None]
    return ", ".join(str(part) for part in parts if part) or "not known"


def _distinct(texts: Iterable[str]) -> list[str]:
    return list(dict.fromkeys(texts))
