"""Runs that have a name: ``qmp train first`` is a training script with the flags that are written here."""

from __future__ import annotations

from typing import NamedTuple


class NamedRun(NamedTuple):
    """``flags`` of the script of that name, and in a line what they make."""

    script: str
    flags: str
    line: str


NAMED = {
    "first": NamedRun(
        "sac_qmp_multihead",
        "--env-id Maze3",
        "three mazes: success rises within three minutes on two cores",
    ),
    "laptop": NamedRun(
        "sac_qmp_multihead",
        "--env-id Maze10 --hidden-dim 256 --warmup-rounds 10 --total-timesteps 600000",
        "ten mazes, narrower networks and a twentieth of the paper's steps: 18 minutes on two cores",
    ),
    "paper": NamedRun(
        "sac_qmp_multihead",
        "--env-id Maze10",
        "ten mazes at the paper's settings, 12 M steps",
    ),
}
