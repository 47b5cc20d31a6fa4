"""The scripts as modules, for tests of their networks, and as programs."""

from __future__ import annotations

import functools
import runpy
import sys
from pathlib import Path

import gymnasium as gym
import numpy as np
from numpy.typing import NDArray

from qmp_collect.runs.scripts import load_script

__all__ = ["SCRIPTS", "left", "load_script", "run_as_program", "shortened"]

SCRIPTS = Path(__file__).parents[2] / "cleanrl_scripts"

# Episodes of 20 steps: a maze's have 600, and their evaluations would be most of what a small run does.
shortened = functools.partial(gym.make_vec, max_episode_steps=20)


def left(obs: NDArray[np.float32], task_ids: NDArray[np.int64]) -> NDArray[np.float64]:
    """``--helper script_files:left``, which knows one direction in the plane."""
    return np.tile([-1.0, 0.0], (len(obs), 1))


def run_as_program(name: str, *arguments: object) -> None:
    """``python name.py arguments`` with short episodes, in a process that is there for nothing else."""
    gym.make_vec = shortened  # type: ignore[assignment]
    sys.argv = [name, *map(str, arguments)]
    runpy.run_path(str(SCRIPTS / f"{name}.py"), run_name="__main__")
