"""check_callables: for policies and Q-functions what Gymnasium's ``check_env`` is for environments."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium.vector.utils import batch_space
from numpy.typing import NDArray

from qmp_collect.callables import Callables, OwnPolicyFunction, Policies, QFunctions
from qmp_collect.observations import Observations
from qmp_collect.proposal import Proposal
from qmp_collect.switch import Ids, QScored, Reduce


def check_callables(
    policies: Policies,
    q_functions: QFunctions,
    obs_space: gym.Space[Any],
    action_space: gym.Space[Any],
    *,
    num_tasks: int,
    own_policy: OwnPolicyFunction | None = None,
    backend: str | None = None,
    device: Any = None,
    reduce: Reduce | None = None,
    seed: int = 0,
) -> None:
    """Call a learner's callables on random observations, as a collector would, and say what is wrong with them.

    Checked: shapes, with two rows per task in mixed order; actions inside ``action_space``; finite actions and
    Q-values; the same answer for a row wherever it stands in the batch; no gradient recorded during collection.

    Args:
        obs_space, action_space: Of a single environment.
        num_tasks: ``T``.
        own_policy, backend, device: As for `QMPCollector`.
        reduce: As for `QSwitch`: the Q-functions return the values of an ensemble.

    Raises:
        TypeError, ValueError: With the callable, what was expected and what came.
        FloatingPointError: An action or a Q-value is not finite.
    """
    rng, scoring = np.random.default_rng(seed), QScored(reduce=reduce)
    task_ids = rng.permutation(np.repeat(np.arange(num_tasks), 2))
    spaces = batch_space(obs_space, len(task_ids))
    spaces.seed(seed)
    obs = Observations(obs_space, len(task_ids)).rows(spaces.sample())

    def build(ids: Ids, policies: Policies = policies) -> Callables:
        return Callables(
            policies,
            q_functions,
            own_policy,
            obs_space=obs_space,
            action_space=action_space,
            task_ids=ids,
            num_tasks=num_tasks,
            backend=backend,
            device=device,
        )

    callables = build(task_ids)
    with _gradients_forbidden():
        actions, scores, _ = callables.candidates(obs, scoring)
        own_actions = callables.own_actions(obs)
    assert scores is not None

    _check_actions("policy", actions, action_space)
    _check_actions("own policy of row", own_actions[None], action_space)
    if not np.isfinite(scores).all():
        row, k = np.argwhere(~np.isfinite(scores))[0]
        raise FloatingPointError(f"task {task_ids[row]}'s Q-function gives {scores[row, k]} for policy {k}'s action")

    # Rows in another order must get the answers that they got before. Policies may sample, so only Q-functions are
    # held to that with given actions, and policies where two calls agree.
    order = rng.permutation(len(task_ids))
    given = build(task_ids, lambda _: Proposal(actions)).candidates(obs, scoring)[1]
    shuffled = build(task_ids[order], lambda _: Proposal(actions[order])).candidates(obs[order], scoring)[1]
    _check_same("q_functions", given, shuffled, order)
    # Samples of a few integers agree by chance.
    calls = 1 if actions.dtype.kind == "f" else 30
    if all(np.array_equal(actions, callables.candidates(obs, None)[0]) for _ in range(calls)):
        _check_same("policies", actions, build(task_ids[order]).candidates(obs[order], None)[0], order)
    if all(np.array_equal(own_actions, callables.own_actions(obs)) for _ in range(calls)):
        _check_same("own policies", own_actions, build(task_ids[order]).own_actions(obs[order]), order)


def _check_actions(name: str, actions: NDArray[Any], space: gym.Space[Any]) -> None:
    for (_, k), action in ((index, actions[index]) for index in np.ndindex(*actions.shape[:2])):
        if actions.dtype.kind == "f" and not np.isfinite(action).all():
            raise FloatingPointError(f"{name} {k} gives the action {action.tolist()}")
        if not space.contains(np.asarray(action, dtype=space.dtype)):
            raise ValueError(f"{name} {k} gives the action {action.tolist()}, which is outside {space}")


def _check_same(name: str, before: Any, after: Any, order: Ids) -> None:
    same = np.isclose(before[order], after, rtol=1e-4, atol=1e-5).reshape(len(order), -1).all(axis=1)
    if not same.all():
        row = int(same.argmin())
        raise ValueError(
            f"{name}: a row's answer depends on where it stands in the batch: {before[order][row].tolist()} "
            f"became {after[row].tolist()} when the rows were shuffled. Is the batch axis taken for the task axis?"
        )


@contextmanager
def _gradients_forbidden() -> Iterator[None]:
    torch = sys.modules.get("torch")
    if torch is None:
        yield
        return
    recorded: list[Any] = []

    def pack(tensor: Any) -> Any:
        recorded.append(tensor.shape)
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        yield
    if recorded:
        raise ValueError(
            "the callables record gradients although they are called under torch.no_grad: remove "
            "torch.enable_grad or set_grad_enabled(True) from them"
        )
