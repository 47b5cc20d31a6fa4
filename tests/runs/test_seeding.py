"""Environments' seeds of one run are apart from each other and from those of any other run."""

from __future__ import annotations

from itertools import pairwise

from qmp_collect.runs.seeding import stream_seed


def test_seeds_of_runs_and_uses_lie_apart() -> None:
    """Further than any run has sub-environments, for the seeds and steps that people use."""
    uses = [(0,), *((1, step) for step in range(0, 200_000, 20_000))]
    seeds = sorted(stream_seed(seed, *use) for seed in range(100) for use in uses)
    assert min(b - a for a, b in pairwise(seeds)) > 500


def test_they_stay_what_they_are() -> None:
    assert (stream_seed(1, 0), stream_seed(1, 1, 0), stream_seed(2, 0)) == (1641411168, 3290936230, 2001025171)
