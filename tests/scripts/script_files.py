"""The scripts as modules, for tests of their networks."""

from __future__ import annotations

from pathlib import Path

from qmp_collect.runs.scripts import load_script

__all__ = ["SCRIPTS", "load_script"]

SCRIPTS = Path(__file__).parents[2] / "cleanrl_scripts"
