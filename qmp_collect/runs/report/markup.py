"""HTML of the report: figures as inline SVG that follows the page's colours, tables, links."""

from __future__ import annotations

import io
import os
import re
from collections.abc import Sequence
from html import escape
from pathlib import Path
from urllib.parse import quote

from qmp_collect.extras import needs
from qmp_collect.runs.palette import PALETTE, STYLES, Look
from qmp_collect.runs.report.figures import GRID, INK
from qmp_collect.runs.report.tables import Table

with needs("report"):
    import matplotlib
    from matplotlib.figure import Figure

# Colours of the drawings, and the variables that the page's style sheet has for them in the light and in the dark.
_VARIABLES = {INK: "currentColor", GRID: "var(--grid)"} | {c: f"var(--c{place})" for place, c in enumerate(PALETTE)}
_DASHES = dict(zip(STYLES, ("", "6 3", "2 2.5", "7 2 2 2"), strict=True))
_REFERENCE = re.compile(r'(?:href="#|url\(#)([^")]+)')


def inline_svg(figure: Figure, salt: str, description: str) -> str:
    """A figure as an ``<svg>`` element to be set into a page: no header, no identifier that another figure has.

    Args:
        salt: different for each figure of a page.
        description: what a screen reader says.
    """
    buffer = io.BytesIO()
    nothing = dict.fromkeys(("Creator", "Date", "Format", "Type"))
    with matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": salt}):
        figure.savefig(buffer, format="svg", transparent=True, metadata=nothing)
    text = buffer.getvalue().decode()
    text = text[text.index("<svg") :]
    text = re.sub(r"<defs>\s*<style.*?</style>\s*</defs>", "", text, flags=re.S)
    referenced = set(_REFERENCE.findall(text))
    text = re.sub(r' id="([^"]*)"', lambda found: found[0] if found[1] in referenced else "", text)
    for color, variable in _VARIABLES.items():
        text = text.replace(color, variable)
    return text.replace("<svg ", f'<svg role="img" aria-label="{escape(description)}" ', 1)


def figure_html(figure: Figure, salt: str, caption: str) -> str:
    """A figure with its caption."""
    return f"<figure>{inline_svg(figure, salt, caption)}<figcaption>{escape(caption)}</figcaption></figure>"


def panels(figures: Sequence[str], small: bool = False) -> str:
    """Figures side by side, as many as there is room for."""
    return f'<div class="panels{" small" * small}">{"".join(figures)}</div>'


def legend(names: Sequence[str], looks: Sequence[Look]) -> str:
    """What the colours and line styles stand for."""
    items = []
    for (color, line), name in zip(looks, names, strict=True):
        stroke = f'style="stroke:{_VARIABLES.get(color, color)}" stroke-width="3" stroke-dasharray="{_DASHES[line]}"'
        swatch = f'<svg aria-hidden="true" viewBox="0 0 32 10"><path d="M0 5H32" {stroke}/></svg>'
        items.append(f"<li>{swatch}{escape(name)}</li>")
    return f'<ul class="legend">{"".join(items)}</ul>'


def table_html(table: Table) -> str:
    """A table with its note."""
    head = "".join(f'<th scope="col">{escape(cell)}</th>' for cell in table.head)
    rows = "".join(
        f'<tr><th scope="row">{escape(name)}</th>{"".join(map(_cell, cells))}</tr>' for name, *cells in table.rows
    )
    body = f"<caption>{escape(table.title)}</caption><thead><tr>{head}</tr></thead><tbody>{rows}</tbody>"
    note = f'<p class="note">{escape(table.note)}</p>' if table.note else ""
    return f'<div class="scroll"><table>{body}</table></div>{note}'


def link(path: Path, page: Path, text: str) -> str:
    """To a file, relative to the folder that the page is in."""
    return f'<a href="{quote(os.path.relpath(path.resolve(), page.resolve()))}">{escape(text)}</a>'


def details(summary: str, body: str, opened: bool = False) -> str:
    """What is shown when it is asked for."""
    return f"<details{' open' * opened}><summary>{escape(summary)}</summary>{body}</details>"


def _cell(text: str) -> str:
    kind = "number" if len(text) < 34 else "each"
    return f'<td class="{kind}">{escape(text)}</td>'
