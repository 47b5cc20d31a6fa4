"""Multi-task environments on MuJoCo. Importing this package registers them with Gymnasium.

``gymnasium.make("Maze10-v0", task=3)`` makes one task, ``gymnasium.make_vec("Maze10-v0", num_envs=20)`` a
natively batched vector environment whose sub-environment ``i`` has task ``i % T``. `TASK_SETS` holds the facts
of each id.
"""

from __future__ import annotations

import gymnasium as gym

from qmp_envs.maze import MAZES, MazeEnv, MazeTaskSet, MazeVectorEnv
from qmp_envs.meta_world import META_WORLD
from qmp_envs.task_set import TaskSet
from qmp_envs.vector import PhysicsVectorEnv

__all__ = ["TASK_SETS", "MazeEnv", "MazeTaskSet", "MazeVectorEnv", "PhysicsVectorEnv", "TaskSet"]

# Gymnasium id -> task set
TASK_SETS: dict[str, TaskSet] = {**MAZES, **META_WORLD}

for _env_id in MAZES:
    # No max_episode_steps here: the environments truncate by themselves, so that a goal reached in the last
    # step is a termination only. Gymnasium's TimeLimit would report both.
    gym.register(
        id=_env_id,
        entry_point="qmp_envs.maze:MazeEnv",
        vector_entry_point="qmp_envs.maze:MazeVectorEnv",
        kwargs={"env_id": _env_id},
    )

for _env_id in META_WORLD:
    gym.register(
        id=_env_id,
        entry_point="qmp_envs.meta_world:MetaWorldEnv",
        vector_entry_point="qmp_envs.meta_world:make_vector_env",
        kwargs={"env_id": _env_id},
    )
