"""Multi-task environments on MuJoCo. Importing this package registers them with Gymnasium.

``gymnasium.make("Maze10-v0", task=3)`` makes one task, ``gymnasium.make_vec("Maze10-v0", num_envs=20)`` a
natively batched vector environment whose sub-environment ``i`` has task ``i % T``. `TASK_SETS` holds the facts
of each id.
"""

from __future__ import annotations

import gymnasium as gym

from qmp_envs.maze import MAZES, MazeEnv, MazeTaskSet, MazeVectorEnv
from qmp_envs.point_reach import POINT_REACH, PointReachEnv, PointReachVectorEnv
from qmp_envs.task_set import TaskSet
from qmp_envs.vector import BatchedVectorEnv, PhysicsVectorEnv
from qmp_envs.walker import WALKERS, WalkerEnv, WalkerVectorEnv

__all__ = [
    "TASK_SETS",
    "BatchedVectorEnv",
    "MazeEnv",
    "MazeTaskSet",
    "MazeVectorEnv",
    "PhysicsVectorEnv",
    "PointReachEnv",
    "PointReachVectorEnv",
    "TaskSet",
    "WalkerEnv",
    "WalkerVectorEnv",
]

# Gymnasium id -> task set
TASK_SETS: dict[str, TaskSet] = {**MAZES, **WALKERS, **POINT_REACH}

for _task_sets, _entry_point in (
    (MAZES, "qmp_envs.maze:Maze"),
    (WALKERS, "qmp_envs.walker:Walker"),
    (POINT_REACH, "qmp_envs.point_reach:PointReach"),
):
    for _env_id in _task_sets:
        # No max_episode_steps here: the environments truncate by themselves, so that a goal reached in the last
        # step is a termination only. Gymnasium's TimeLimit would report both.
        gym.register(
            id=_env_id,
            entry_point=f"{_entry_point}Env",
            vector_entry_point=f"{_entry_point}VectorEnv",
            kwargs={"env_id": _env_id},
        )
