"""Multi-task environments on MuJoCo. Importing this package registers them with Gymnasium.

``gymnasium.make("Maze10-v0", task=3)`` makes one task, ``gymnasium.make_vec("Maze10-v0", num_envs=20)`` a
natively batched vector environment whose sub-environment ``i`` has task ``i % T``. `TASK_SETS` holds the facts
of each id; `register` and `register_envs` add task sets of one's own.

The modules of the task sets are imported when they are needed: PointReach-v0 works without MuJoCo.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from importlib import import_module
from typing import TYPE_CHECKING, Any

import gymnasium as gym

from qmp_envs.assets import missing, warn_of_other_physics
from qmp_envs.plain import PlainVectorEnv, make_single
from qmp_envs.single import SingleEnv
from qmp_envs.task_set import TaskSet
from qmp_envs.vector import BatchedVectorEnv

if TYPE_CHECKING:
    from qmp_envs.cds import MetaWorldCDSEnv, MetaWorldCDSVectorEnv
    from qmp_envs.kitchen import KitchenEnv, KitchenTask, KitchenTaskSet, KitchenVectorEnv
    from qmp_envs.maze import MazeEnv, MazeTaskSet, MazeVectorEnv
    from qmp_envs.physics import PhysicsVectorEnv
    from qmp_envs.point_reach import PointReachEnv, PointReachVectorEnv
    from qmp_envs.reacher import ReacherEnv, ReacherVectorEnv
    from qmp_envs.walker import WalkerEnv, WalkerVectorEnv

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
    "register",
    "register_envs",
]

# What is imported when it is asked for: name -> module.
_MODULES = {
    "PhysicsVectorEnv": "physics",
    "KitchenTask": "kitchen",
    "KitchenTaskSet": "kitchen",
    "MazeTaskSet": "maze",
    **{
        f"{_name}{_kind}": _module
        for _name, _module in {
            "Kitchen": "kitchen",
            "Maze": "maze",
            "MetaWorldCDS": "cds",
            "PointReach": "point_reach",
            "Reacher": "reacher",
            "Walker": "walker",
        }.items()
        for _kind in ("Env", "VectorEnv")
    },
}

# MT10, MT50 and MT10's tasks one by one
_META_WORLD = (
    "MT10", "MT50", "Reach", "Push", "PickPlace", "DoorOpen", "DrawerOpen", "DrawerClose", "ButtonPressTopdown",
    "PegInsertSide", "WindowOpen", "WindowClose",
)  # fmt: skip

# Gymnasium id -> module, its task sets by id, entry points
_SETS = {
    **dict.fromkeys(
        ("Maze10-v0", "Maze3-v0", "Maze5-v0", "Maze20-v0", "MazeMT10-v0"), ("maze", "MAZES", "MazeEnv", "MazeVectorEnv")
    ),
    "Reacher5-v0": ("reacher", "REACHERS", "ReacherEnv", "ReacherVectorEnv"),
    "Walker4-v0": ("walker", "WALKERS", "WalkerEnv", "WalkerVectorEnv"),
    "Kitchen10-v0": ("kitchen", "KITCHENS", "KitchenEnv", "KitchenVectorEnv"),
    "MetaWorldCDS-v0": ("cds", "CDS", "MetaWorldCDSEnv", "MetaWorldCDSVectorEnv"),
    # A model for each task, so a function that chooses one of Gymnasium's vector environments.
    **dict.fromkeys(
        (f"MetaWorld{_name}-v0" for _name in _META_WORLD),
        ("meta_world", "META_WORLD", "MetaWorldEnv", "make_vector_env"),
    ),
    "PointReach-v0": ("point_reach", "POINT_REACH", "PointReachEnv", "PointReachVectorEnv"),
}
_MODULES |= {_entry: _module for _module, _, *_entries in _SETS.values() for _entry in _entries}


def _load(module: str) -> Any:
    try:
        loaded = import_module(f"qmp_envs.{module}")
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] != "mujoco":
            raise
        raise missing(f"qmp_envs.{module}", "mujoco", "pip install 'qmp-collect[envs]'") from error
    if "mujoco" in sys.modules:
        warn_of_other_physics(sys.modules["mujoco"].__version__)
    return loaded


def __getattr__(name: str) -> Any:
    if name in _MODULES:
        return getattr(_load(_MODULES[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


_OWN: dict[str, TaskSet] = {}


class _TaskSets(Mapping[str, TaskSet]):
    def __getitem__(self, env_id: str) -> TaskSet:
        if env_id in _OWN:
            return _OWN[env_id]
        module, task_sets, *_ = _SETS[env_id]
        task_set: TaskSet = getattr(_load(module), task_sets)[env_id]
        return task_set

    def __contains__(self, env_id: object) -> bool:
        return env_id in _SETS or env_id in _OWN

    def __iter__(self) -> Iterator[str]:
        return iter((*_SETS, *_OWN))

    def __len__(self) -> int:
        return len(_SETS) + len(_OWN)

    def __repr__(self) -> str:
        return f"TASK_SETS of {list(self)}"


# Gymnasium id -> task set
TASK_SETS: Mapping[str, TaskSet] = _TaskSets()

for _env_id, (_, _, _single, _vector) in _SETS.items():
    # No max_episode_steps here: the environments truncate by themselves, so that a goal reached in the last
    # step is a termination only. Gymnasium's TimeLimit would report both.
    gym.register(
        id=_env_id,
        entry_point=f"qmp_envs:{_single}",
        vector_entry_point=f"qmp_envs:{_vector}",
        kwargs={"env_id": _env_id},
    )


def register(task_set: TaskSet, vector_class: Callable[..., BatchedVectorEnv]) -> None:
    """Make a task set of one's own known to Gymnasium (``make``, ``make_vec``), to `TASK_SETS` and so to the scripts.

    Args:
        task_set: its facts; ``env_id`` is a Gymnasium id with a version.
        vector_class: a subclass of `BatchedVectorEnv`, called as ``vector_class(env_id, num_envs=N, **kwargs)``. A
            single environment is made of one sub-environment. With a method ``_draw`` it has pictures, and ``metadata``
            may say how many steps it makes in a second (``render_fps``, by default 25), and what is what in them
            (``legend``, name -> colour).

    Raises:
        TypeError: ``vector_class`` is no such class.
        ValueError: the id has no version, or is another task set's.
    """
    if not (isinstance(vector_class, type) and issubclass(vector_class, BatchedVectorEnv)):
        raise TypeError(
            f"vector_class must be a subclass of qmp_envs.BatchedVectorEnv, got {vector_class!r}; single environments "
            "become a task set by register_envs"
        )
    drawn = vector_class._draw is not BatchedVectorEnv._draw
    own: dict[str, Any] = vector_class.metadata
    said: dict[str, Any] = {name: own[name] for name in ("render_fps", "legend") if name in own}
    metadata: dict[str, Any] = {"render_fps": 25, **said, "render_modes": ["rgb_array"] if drawn else []}
    members = {"vector_class": vector_class, "metadata": metadata}
    single: Any = type(f"{vector_class.__name__}Single", (SingleEnv,), members)
    _register(task_set, entry_point=single, vector_entry_point=vector_class, kwargs={"env_id": task_set.env_id})


def register_envs(task_set: TaskSet, constructors: Sequence[Callable[..., gym.Env[Any, Any]]]) -> None:
    """Make a task set of single environments of one's own, known to Gymnasium, to `TASK_SETS` and so to the scripts.

    They are stepped one after the other in one process, and truncated at the set's horizon.

    Args:
        task_set: its facts; ``env_id`` is a Gymnasium id with a version.
        constructors: T functions or classes, in the order of ``task_set.task_names``, each of which makes a new
            environment of its task when it is called. Spaces must be the same in all tasks. For films they are called
            with ``render_mode="rgb_array"``, if their ``metadata["render_modes"]`` has that.

    Raises:
        TypeError: one is no function, but an environment, say.
        ValueError: not one for each task; the id has no version, or is another task set's.
    """
    if wrong := [one for one in constructors if not callable(one)]:
        raise TypeError(f"constructors must be functions or classes that make an environment, got {wrong[0]!r}")
    if len(constructors) != task_set.num_tasks:
        raise ValueError(f"expected {task_set.num_tasks} constructors, one for each task, got {len(constructors)}")
    single, vector = (partial(make, task_set, tuple(constructors)) for make in (make_single, PlainVectorEnv))
    _register(task_set, entry_point=single, vector_entry_point=vector)


def _register(task_set: TaskSet, **spec: Any) -> None:
    env_id = task_set.env_id
    if not re.search(r"-v\d+$", env_id):
        raise ValueError(f"env_id must end with a version, such as {env_id}-v0, got {env_id!r}")
    if env_id in _SETS or _OWN.get(env_id, task_set) != task_set:
        raise ValueError(f"{env_id!r} is another task set's id: choose one of your own")
    gym.registry.pop(env_id, None)  # a module that runs again, as a program and by its name, registers itself again
    gym.register(id=env_id, **spec)
    _OWN[env_id] = task_set
