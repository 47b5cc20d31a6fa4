"""Multi-task environments on MuJoCo. Importing this package registers them with Gymnasium.

``gymnasium.make("Maze10-v0", task=3)`` makes one task, ``gymnasium.make_vec("Maze10-v0", num_envs=20)`` a
natively batched vector environment whose sub-environment ``i`` has task ``i % T``. `TASK_SETS` holds the facts
of each id.
"""

from __future__ import annotations

import gymnasium as gym

from qmp_envs.cds import CDS, MetaWorldCDSEnv, MetaWorldCDSVectorEnv
from qmp_envs.kitchen import KITCHENS, KitchenEnv, KitchenTask, KitchenTaskSet, KitchenVectorEnv
from qmp_envs.maze import MAZES, MazeEnv, MazeTaskSet, MazeVectorEnv
from qmp_envs.meta_world import META_WORLD
from qmp_envs.point_reach import POINT_REACH, PointReachEnv, PointReachVectorEnv
from qmp_envs.reacher import REACHERS, ReacherEnv, ReacherVectorEnv
from qmp_envs.task_set import TaskSet
from qmp_envs.vector import BatchedVectorEnv, PhysicsVectorEnv
from qmp_envs.walker import WALKERS, WalkerEnv, WalkerVectorEnv

__all__ = [
    "TASK_SETS",
    "BatchedVectorEnv",
    "KitchenEnv",
    "KitchenTask",
    "KitchenTaskSet",
    "KitchenVectorEnv",
    "MazeEnv",
    "MazeTaskSet",
    "MazeVectorEnv",
    "MetaWorldCDSEnv",
    "MetaWorldCDSVectorEnv",
    "PhysicsVectorEnv",
    "PointReachEnv",
    "PointReachVectorEnv",
    "ReacherEnv",
    "ReacherVectorEnv",
    "TaskSet",
    "WalkerEnv",
    "WalkerVectorEnv",
]

# Gymnasium id -> task set
TASK_SETS: dict[str, TaskSet] = {**MAZES, **REACHERS, **WALKERS, **KITCHENS, **CDS, **META_WORLD, **POINT_REACH}

for _env_id, _name in {
    **dict.fromkeys(MAZES, "maze:Maze"),
    **dict.fromkeys(REACHERS, "reacher:Reacher"),
    **dict.fromkeys(WALKERS, "walker:Walker"),
    **dict.fromkeys(KITCHENS, "kitchen:Kitchen"),
    **dict.fromkeys(CDS, "cds:MetaWorldCDS"),
    **dict.fromkeys(POINT_REACH, "point_reach:PointReach"),
}.items():
    # No max_episode_steps here: the environments truncate by themselves, so that a goal reached in the last
    # step is a termination only. Gymnasium's TimeLimit would report both.
    gym.register(
        id=_env_id,
        entry_point=f"qmp_envs.{_name}Env",
        vector_entry_point=f"qmp_envs.{_name}VectorEnv",
        kwargs={"env_id": _env_id},
    )

for _env_id in META_WORLD:  # a model for each task, so a function that chooses one of Gymnasium's vector environments
    gym.register(
        id=_env_id,
        entry_point="qmp_envs.meta_world:MetaWorldEnv",
        vector_entry_point="qmp_envs.meta_world:make_vector_env",
        kwargs={"env_id": _env_id},
    )
