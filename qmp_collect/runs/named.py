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
        "--env-id Maze3 --hidden-dim 128 --batch-size 128 --learning-rate 2e-3 --tau 0.02 --envs-per-task 10 "
        "--gradient-steps-per-round 50 --warmup-rounds 3 --horizon 10 --total-timesteps 240000 --eval-every 10000 "
        "--torch-threads 1",
        "three tasks in a maze, small networks, some minutes: success rises",
    ),
    "laptop": NamedRun(
        "sac_qmp_multihead",
        "--env-id Maze10 --hidden-dim 256 --warmup-rounds 10 --total-timesteps 600000",
        "ten tasks in a maze, narrower networks and a twentieth of the paper's steps, 18 minutes",
    ),
    "paper": NamedRun(
        "sac_qmp_multihead",
        "--env-id Maze10",
        "ten tasks in a maze at the paper's settings, 12 M steps",
    ),
}
