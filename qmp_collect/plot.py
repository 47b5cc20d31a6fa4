"""Moved to `qmp_collect.runs.plot`."""

raise ImportError("qmp_collect.plot has moved to qmp_collect.runs.plot: python -m qmp_collect.runs.plot RUN_DIRS")
