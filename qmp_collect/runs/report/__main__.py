"""``python -m qmp_collect.runs.report RUN_DIR... --out FOLDER``: a page about runs, and its numbers for programs."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from qmp_collect.extras import needs
from qmp_collect.runs.report.page import write_report

with needs("report"):
    import tyro


@dataclass
class Args:
    """Report on runs: FOLDER/index.html, one self-contained page; its tables, intervals and all numbers beside it."""

    run_dirs: tyro.conf.Positional[tuple[Path, ...]]
    """run folders, or folders of them"""
    out: Path
    """folder to write into"""
    title: str = "Training runs"
    """of the page"""
    metrics: tuple[str, ...] = ()
    """means over tasks, the primary one first; default: eval/any_hit, eval/success, eval/return, as far as logged"""
    hypotheses: tuple[str, ...] = ()
    """tested together by Holm's procedure on the first metric: "QMP > own" "own < 0.9" """


def main(args: Args) -> None:
    """Write the page and say where it is.

    Raises:
        ValueError: see `write_report`.
    """
    chosen = args.metrics or None
    print(write_report(args.run_dirs, args.out, title=args.title, metrics=chosen, hypotheses=args.hypotheses))


if __name__ == "__main__":
    main(tyro.cli(Args))
