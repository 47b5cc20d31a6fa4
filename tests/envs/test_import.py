"""`import qmp_envs` is light: what a task set needs is imported, or missed, when that set is asked for."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import gymnasium as gym
import pytest

import qmp_envs
from qmp_envs import cds, kitchen, maze, meta_world, point_reach, reacher, walker

ROOT = Path(__file__).parents[2]

ABSENT = """
import sys
class Absent:
    @staticmethod
    def find_spec(name, path=None, target=None):
        if name.partition(".")[0] == "mujoco":
            raise ModuleNotFoundError(f"No module named {name!r}", name="mujoco")
sys.meta_path.insert(0, Absent)
import gymnasium as gym
import qmp_envs
env = gym.make("PointReach-v0")
env.reset(seed=0)
gym.make_vec("PointReach-v0", num_envs=2).reset(seed=0)
assert qmp_envs.TASK_SETS["PointReach-v0"].horizon == 20 and len(qmp_envs.TASK_SETS) == 22
for ask in (
    lambda: gym.make("Maze3-v0"),
    lambda: gym.make_vec("Walker4-v0", num_envs=4),
    lambda: gym.make("MetaWorldMT10-v0"),
    lambda: qmp_envs.KitchenEnv,
    lambda: qmp_envs.PhysicsVectorEnv,
    lambda: qmp_envs.TASK_SETS["Reacher5-v0"],
    lambda: qmp_envs.TASK_SETS["MetaWorldMT10-v0"] and gym.make_vec("MetaWorldMT10-v0", num_envs=1),
):
    try:
        ask()
        print("nothing was missed")
    except ModuleNotFoundError as error:
        print(error)
"""


def python(program: str) -> str:
    path = [str(ROOT), str(ROOT / "envs")]
    return subprocess.run(
        [sys.executable, "-c", f"import sys; sys.path[:0] = {path!r}\n{program}"],
        capture_output=True,
        text=True,
        check=True,
    ).stdout


def test_without_mujoco() -> None:
    lines = python(ABSENT).splitlines()
    assert len(lines) == 7
    for line in lines:
        assert "is built on mujoco, which is not installed: pip install 'qmp-collect[" in line


def test_it_brings_no_mujoco() -> None:
    assert python("import qmp_envs; print('mujoco' in sys.modules)") == "False\n"


@pytest.mark.parametrize(("version", "told"), [("3.3.0", 0), ("3.4.0", 0), ("3.5.0", 1), ("4.0.0", 1)])
def test_other_physics_are_told_once(version: str, told: int) -> None:
    """Of a MuJoCo that was put over the one of the requirements: the maze's ball is 3 cm elsewhere after 100 steps."""
    program = (
        "import warnings, mujoco, gymnasium as gym, qmp_envs\n"
        f"mujoco.__version__ = {version!r}\n"
        "with warnings.catch_warnings(record=True) as told:\n"
        "    gym.make('PointReach-v0')\n"
        "    for env_id in ('Maze3-v0', 'Maze3-v0', 'Reacher5-v0'):\n"
        "        gym.make_vec(env_id, num_envs=1).close()\n"
        "print(sum('contacts begin earlier' in str(warning.message) for warning in told))\n"
    )
    assert python(program) == f"{told}\n"


def test_names_and_ids_are_those_of_the_modules() -> None:
    sets = (maze.MAZES, reacher.REACHERS, walker.WALKERS, kitchen.KITCHENS, cds.CDS, meta_world.META_WORLD)
    expected = [env_id for task_sets in (*sets, point_reach.POINT_REACH) for env_id in task_sets]
    assert list(qmp_envs.TASK_SETS) == expected
    assert {env_id for env_id, spec in gym.registry.items() if "qmp_envs" in str(spec.entry_point)} == set(expected)
    for env_id, task_set in qmp_envs.TASK_SETS.items():
        assert task_set.env_id == env_id
        assert "Maze3-v0" in qmp_envs.TASK_SETS
    for name in qmp_envs.__all__:
        assert getattr(qmp_envs, name) is not None
    with pytest.raises(AttributeError, match="has no attribute 'Mazes'"):
        qmp_envs.Mazes  # type: ignore[attr-defined]  # noqa: B018
    with pytest.raises(KeyError):
        qmp_envs.TASK_SETS["Maze4-v0"]
