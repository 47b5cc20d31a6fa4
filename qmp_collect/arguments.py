"""What the collector is given, checked and brought into one form."""

from __future__ import annotations

from typing import Any

import numpy as np
from gymnasium.vector import VectorEnv
from numpy.typing import ArrayLike, NDArray

from qmp_collect.amount import integer
from qmp_collect.backends import to_numpy
from qmp_collect.callables import is_per_task
from qmp_collect.foreign import check_sink
from qmp_collect.records import ARRAY_SPACES, record_dtype
from qmp_collect.switch import Ids
from qmp_collect.transitions import TransitionSink


def check_envs(envs: Any) -> None:
    """`TypeError` unless ``envs`` is a vector environment whose observations and actions are arrays."""
    if not isinstance(envs, VectorEnv):
        raise TypeError(
            f"expected a gymnasium.vector.VectorEnv, got {type(envs).__name__}: make one with "
            "gymnasium.make_vec(env_id, num_envs=...) or gymnasium.vector.SyncVectorEnv([...])"
        )
    space = envs.single_observation_space
    try:
        record_dtype(space)
    except TypeError as error:
        raise TypeError(
            f"observations must be arrays, or dicts and tuples of arrays, got the space {space}: {error}. Wrap each "
            "sub-environment, before they are vectorised, in gymnasium.wrappers.TransformObservation (or "
            "FilterObservation, which leaves parts out) so that every part is one of those"
        ) from None
    if not isinstance(envs.single_action_space, ARRAY_SPACES):
        raise TypeError(
            f"actions must be arrays or integers, got the space {envs.single_action_space}: wrap the "
            "sub-environments so that their action space is a Box or Discrete"
        )


def resolve_tasks(
    envs: VectorEnv[Any, Any, Any],
    policies: Any,
    q_functions: Any,
    task_ids: ArrayLike | None,
    num_tasks: int | None,
) -> tuple[Ids, int]:
    """Each sub-environment's task ``(N,)`` and the number of tasks, from whoever knows them."""
    n = int(envs.num_envs)
    num_tasks = None if num_tasks is None else integer("num_tasks", num_tasks)
    known = getattr(envs.unwrapped, "num_tasks", None)
    asked = task_ids is None
    if task_ids is None:
        task_ids = getattr(envs.unwrapped, "task_ids", None)
    if task_ids is None:
        task_ids = told_by_sub_environments(envs)
    if num_tasks is None:
        # A list of Q-functions has one per task; a list of policies may have more, unless nothing else tells.
        tellers = (q_functions, policies) if task_ids is None else (q_functions,)
        listed = next((len(fns) for fns in tellers if is_per_task(fns)), None)
        num_tasks = known if known is not None else listed
    if task_ids is None:
        if num_tasks is None:
            raise ValueError("pass task_ids or num_tasks: neither the callables nor the environment tell the tasks")
        if num_tasks not in (1, n):
            of_policies = is_per_task(policies) and not is_per_task(q_functions) and len(policies) == num_tasks
            raise ValueError(
                f"task_ids is needed: there are {n} sub-environments for {num_tasks} tasks and the environment has no "
                "`task_ids`; pass task_ids=[...], one task per sub-environment"
                + (f". If not all {num_tasks} policies are a task's own, say num_tasks=..." if of_policies else "")
            )
        task_ids = np.zeros(n, np.int64) if num_tasks == 1 else np.arange(n)
    ids = np.array(to_numpy(task_ids))
    if ids.shape != (n,) or ids.dtype.kind not in "iu":
        raise ValueError(
            f"task_ids must be {n} integers, one per sub-environment, got {ids.dtype} of shape {ids.shape}"
        )
    if num_tasks is None:
        num_tasks = int(ids.max()) + 1
    bad = (ids < 0) | (ids >= num_tasks)
    if bad.any():
        env = int(bad.argmax())
        raise ValueError(f"task_ids[{env}] is {ids[env]}, expected 0 to {num_tasks - 1}: there are {num_tasks} tasks")
    if asked and num_tasks > 1:
        _refuse_copies(envs)
    return ids.astype(np.int64), num_tasks


def told_by_sub_environments(envs: VectorEnv[Any, Any, Any]) -> NDArray[Any] | None:
    """Tasks ``(N,)`` of sub-environments whose metadata name the attribute that holds theirs, else `None`."""
    attribute = envs.metadata.get("task_attribute")
    return None if attribute is None else np.array(envs.unwrapped.get_attr(attribute))  # type: ignore[attr-defined]


def _refuse_copies(envs: VectorEnv[Any, Any, Any]) -> None:
    """`ValueError` for sub-environments that are all of the first task because nobody said which ones they should be.

    That is what Gymnasium's own vectorisation makes of an id with several tasks: N copies.
    """
    attribute, spec = envs.metadata.get("task_attribute"), getattr(envs.unwrapped, "spec", None)
    kwargs = {} if spec is None else spec.kwargs
    mode = kwargs.get("vectorization_mode")
    if (
        spec is not None
        and envs.num_envs > 1
        and attribute is not None
        and mode in ("sync", "async")
        and attribute not in kwargs
    ):
        raise ValueError(
            f"make_vec({spec.id!r}, vectorization_mode={mode!r}) makes {envs.num_envs} copies of task 0: leave "
            f"vectorization_mode out for sub-environments of all tasks, pass {attribute}=... if one task is meant, or "
            f"make gymnasium.vector.SyncVectorEnv([partial(gymnasium.make, env_id, {attribute}=t) for t in tasks])"
        )


def resolve_sinks(buffer: Any, num_tasks: int) -> TransitionSink | list[TransitionSink] | None:
    """One sink, a list with one per task, or `None`."""
    if isinstance(buffer, list | tuple) and len(buffer) != num_tasks:
        raise ValueError(f"expected one sink or one per task, got {len(buffer)} sinks for {num_tasks} tasks")
    sinks = buffer if isinstance(buffer, list | tuple) else [] if buffer is None else [buffer]
    for index, sink in enumerate(sinks):
        check_sink(f"sink {index} of buffer", sink)
    return list(sinks) if isinstance(buffer, list | tuple) else buffer
