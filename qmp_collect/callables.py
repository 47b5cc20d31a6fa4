"""A learner's policies and Q-functions, whatever their form, as one thing the collector can ask.

One per task: ``policies[k]`` and ``q_functions[t]`` are called with any number of rows ``M``::

    policies[k](obs (M, *O)) -> actions (M, *A)
    q_functions[t](obs (M, *O), actions (M, *A)) -> (M,) or (M, 1)

Batched: one call answers for all ``N`` sub-environments and all ``K`` policies::

    policies(obs (N, *O)) -> actions (N, K, *A)
    q_functions(obs (N, *O), actions (N, K, *A), task_ids (N,)) -> (N, K)

With a ``Discrete(n)`` action space, actions are integers and Q-functions return all ``n`` values at once::

    policies[k](obs (M, *O)) -> (M,)              policies(obs (N, *O)) -> (N, K)
    q_functions[t](obs (M, *O)) -> (M, n)         q_functions(obs (N, *O), task_ids (N,)) -> (N, n)

A ``list``, a ``tuple`` and an ``nn.ModuleList`` mean one per task; any other callable is batched. A policy may return
a ``Proposal`` instead of actions. An array that a callable returns must keep its content while
the others are asked. ``K >= T`` policies are allowed: policy ``t`` is task ``t``'s own, the others
(frozen, scripted) only propose.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import gymnasium as gym
import numpy as np
from numpy.typing import NDArray

from qmp_collect.backends import Backend, T, call_first, make_backend, module_backend, no_grad, to_numpy
from qmp_collect.foreign import check_callable
from qmp_collect.switch import Floats, Ids, QScored

Policies = Sequence[Callable[..., Any]] | Callable[..., Any]
QFunctions = Sequence[Callable[..., Any]] | Callable[..., Any]
OwnPolicyFunction = Callable[..., Any]


class Proposal(NamedTuple):
    """What a policy proposes: ``(M, ...)`` for one policy, ``(N, K, ...)`` for batched ones.

    With ``means``, the switch scores the means and the chosen policy's *sampled* action is executed (QMP, section
    4.2); without, it scores the samples themselves.

    Attributes:
        actions: sampled actions, ``(M, *A)`` or ``(N, K, *A)``.
        means: deterministic actions, same shape, or ``None``.
        entropies: of the action distributions, ``(M,)`` or ``(N, K)``, or ``None``.
    """

    actions: Any
    means: Any = None
    entropies: Any = None


class Callables:
    """Policies, Q-functions and own policy behind two questions: ``own_actions`` and ``candidates``.

    Args:
        task_ids: ``(N,)``, the task of each row of every batch that will be asked about.

    Raises:
        TypeError: If something is not callable, or is a bare ``nn.Sequential``.
        ValueError: If there is not one Q-function per task, or not at least one policy per task.
    """

    def __init__(
        self,
        policies: Policies | None,
        q_functions: QFunctions | None,
        own_policy: OwnPolicyFunction | None,
        *,
        action_space: gym.Space[Any],
        task_ids: Ids,
        num_tasks: int,
        backend: str | None = None,
        device: Any = None,
    ) -> None:
        _refuse_foreign(policies, q_functions, own_policy, action_space)
        self.policies = _as_list("policies", policies)
        self.q_functions = _as_list("q_functions", q_functions)
        if own_policy is not None and (is_per_task(own_policy) or not callable(own_policy)):
            raise TypeError(f"own_policy must be one callable (obs, task_ids) -> actions, got {own_policy!r}")
        self.own_policy = own_policy
        if isinstance(self.policies, list) and len(self.policies) < num_tasks:
            raise ValueError(
                f"expected at least one policy per task, got {len(self.policies)} policies for {num_tasks} tasks: "
                "policy t is task t's own"
            )
        if isinstance(self.q_functions, list) and len(self.q_functions) != num_tasks:
            raise ValueError(
                f"expected one Q-function per task, got {len(self.q_functions)} for {num_tasks} tasks: "
                "q_functions[t] scores for task t"
            )

        self.num_policies = len(self.policies) if isinstance(self.policies, list) else None
        self._action_shape = tuple(action_space.shape or ())
        self._action_space = action_space
        self._discrete = action_space if isinstance(action_space, gym.spaces.Discrete) else None
        self._integers_only = not isinstance(action_space, gym.spaces.Box)
        self._task_ids = task_ids
        self._num_tasks = num_tasks
        self._rows_of = [(int(t), np.flatnonzero(task_ids == t)) for t in np.unique(task_ids)]

        everything = [fn for group in (self.policies, self.q_functions, own_policy) for fn in _flat(group)]
        # Device and dtype of modules are what their inputs need, also where torch is asked for by name.
        explicit = make_backend(backend or "torch", device) if backend is not None or device is not None else None
        may_be_torch = backend in (None, "torch")
        found = module_backend(everything, device) if may_be_torch else None

        def resolve(group: Any) -> _Resolved:
            own = module_backend(_flat(group), device) if may_be_torch else None
            return _Resolved(own or (explicit and (found or explicit)), fallback=found)

        self._constants: dict[tuple[Any, ...], tuple[Any, list[tuple[int, int, Any]]]] = {}
        self._for_policies = resolve(self.policies)
        self._for_q = resolve(self.q_functions)
        self._for_own = resolve(own_policy) if own_policy is not None else self._for_policies

    def _tasks(self, backend: Backend) -> tuple[Any, list[tuple[int, int, Any]]]:
        """Task ids ``(N,)`` and, per task present, ``(task, number of rows, index of the rows)``, made once."""
        if backend.key not in self._constants:
            rows_of = [(t, len(rows), backend.array(rows)) for t, rows in self._rows_of]
            self._constants[backend.key] = backend.array(self._task_ids), rows_of
        task_ids, rows_of = self._constants[backend.key]
        return backend.copy(task_ids), rows_of

    def own_actions(self, obs: NDArray[Any]) -> NDArray[Any]:
        """Every row's action by its own task's policy: ``(N, *A)``, a fresh array."""
        with no_grad():
            return self._for_own(lambda backend: self._own_actions(backend, obs))

    def _own_actions(self, backend: Backend, obs: NDArray[Any]) -> NDArray[Any]:
        n = len(obs)
        inputs = backend.array(obs)
        if self.own_policy is not None:
            output = self.own_policy(inputs, self._tasks(backend)[0])
            return np.array(backend.host(self._checked("own_policy", output, n).actions)[0])
        if isinstance(self.policies, list):
            outputs = []
            for t, m, rows in self._tasks(backend)[1]:
                outputs.append(self._checked(f"policies[{t}]", self.policies[t](inputs[rows]), m).actions)
            parts = backend.host(*outputs)
            actions = np.empty((n, *self._action_shape), dtype=np.result_type(*parts))
            for (_, rows), part in zip(self._rows_of, parts, strict=True):
                actions[rows] = part
            return actions
        return backend.host(self._propose(backend, inputs).actions)[0][np.arange(n), self._task_ids]

    def candidates(self, obs: NDArray[Any], scoring: QScored | None) -> tuple[NDArray[Any], Floats | None]:
        """All candidate actions ``(N, K, *A)`` and, if ``scoring`` is given, their scores ``(N, K)``.

        A candidate that is not finite, or whose Q-value is not, scores ``nan``.
        """
        with no_grad():

            def ask(backend: Backend) -> tuple[Any, Proposal]:
                inputs = backend.array(obs)
                return inputs, self._propose(backend, inputs)

            inputs, proposal = self._for_policies(ask)
            policy_backend = self._for_policies.known
            if scoring is None:
                return policy_backend.host(proposal.actions)[0], None

            scored = [proposal]
            if scoring.samples > 1:
                # A policy may return the same array at every call: each answer is kept as a copy.
                proposal = proposal._replace(actions=policy_backend.copy(proposal.actions))
                samples = (self._propose(policy_backend, inputs).actions for _ in range(scoring.samples))
                scored = [Proposal(policy_backend.copy(actions)) for actions in samples]
            values = self._for_q(lambda b: self._score(b, obs, inputs, [_scored_actions(p, scoring) for p in scored]))
            entropies = () if _is_zero(scoring.entropy_weight) else (_entropies_of(proposal),)
            if policy_backend.name == self._for_q.known.name:
                actions, *extra = policy_backend.host(proposal.actions, *entropies, *values)
            else:
                actions, *extra = policy_backend.host(proposal.actions, *entropies)
                extra += self._for_q.known.host(*values)
            scores = self._assemble(extra[len(entropies) :], scored, scoring)
            if actions.dtype.kind == "f" and not (finite := np.isfinite(actions)).all():
                scores[~finite.reshape(*scores.shape, -1).all(axis=2)] = np.nan
            if entropies:
                scores = scores + _per_row(scoring.entropy_weight, self._task_ids) * extra[0]
            return actions, scores

    def _propose(self, backend: Backend, inputs: Any) -> Proposal:
        """Ask every policy: fields ``(N, K, ...)`` of ``backend``."""
        n = len(inputs)
        if not isinstance(self.policies, list):
            if self.policies is None:
                raise TypeError("policies is None: only the switch OwnPolicy() together with own_policy needs none")
            return self._checked_batched(_as_proposal(self.policies(backend.copy(inputs))), n)
        proposals = [
            self._checked(f"policies[{k}]", policy(backend.copy(inputs)), n) for k, policy in enumerate(self.policies)
        ]
        return Proposal(*(_stack_field(backend, proposals, name) for name in Proposal._fields))

    def _checked_batched(self, proposal: Proposal, n: int) -> Proposal:
        shape = tuple(getattr(proposal.actions, "shape", ()))
        if self.num_policies is None and len(shape) >= 2:
            # The first answer tells K. A transposed answer (K, N, *A) tells it too, in the wrong place.
            self.num_policies = shape[1] if shape[0] == n else shape[0]
            if self.num_policies < self._num_tasks and shape[0] == n:
                raise ValueError(
                    f"policies returned {self.num_policies} candidates per row (shape {shape}), expected at least "
                    f"{self._num_tasks}, one per task"
                )
        return self._checked("policies", proposal, n, self.num_policies or self._num_tasks)

    def _checked(self, name: str, output: Any, *leading: int) -> Proposal:
        """A policy's output as a proposal, every field of which has the leading axes that it should have."""
        proposal = _as_proposal(output)
        _check_shape(name, proposal.actions, (*leading, *self._action_shape))
        if self._integers_only and not _is_integer(proposal.actions):
            raise _WrongOutput(
                f"{name} returned {proposal.actions.dtype} actions, expected integers for {self._action_space}"
            )
        if proposal.means is not None:
            _check_shape(f"{name}: Proposal.means", proposal.means, (*leading, *self._action_shape))
        if proposal.entropies is not None:
            _check_shape(f"{name}: Proposal.entropies", proposal.entropies, leading)
        return proposal

    def _score(self, backend: Backend, obs: NDArray[Any], inputs: Any, candidates: list[Any]) -> list[Any]:
        """Q-values in the backend, averaged over the list of candidates, in the layout that `_assemble` undoes."""
        same = self._for_policies.known.key == backend.key
        q_inputs = backend.array(inputs if same else obs)
        if self.q_functions is None:
            raise TypeError("q_functions is None, but the switch needs scores: only OwnPolicy() needs none")
        if self._discrete is not None:
            return self._tables(backend, q_inputs)
        totals: list[Any] = []
        for actions in candidates:
            values = self._q_values(backend, q_inputs, backend.array(actions))
            if len(candidates) > 1:  # as with policies: the next answer may come in the same array
                values = [backend.copy(value) for value in values]
            totals = [a + b for a, b in zip(totals, values, strict=True)] if totals else values
        return [total / len(candidates) for total in totals] if len(candidates) > 1 else totals

    def _q_values(self, backend: Backend, inputs: Any, actions: Any) -> list[Any]:
        n, k = actions.shape[:2]
        assert self.q_functions is not None
        if not isinstance(self.q_functions, list):
            values = self.q_functions(backend.copy(inputs), backend.copy(actions), self._tasks(backend)[0])
            _check_shape("q_functions", values, (n, k))
            return [values]
        outputs = []
        for t, m, index in self._tasks(backend)[1]:
            values = self.q_functions[t](
                backend.repeat(inputs[index], k), actions[index].reshape((m * k, *self._action_shape))
            )
            if tuple(getattr(values, "shape", ())) != (m * k, 1):
                _check_shape(f"q_functions[{t}]", values, (m * k,))
            outputs.append(values.reshape((m, k)))
        return outputs

    def _tables(self, backend: Backend, inputs: Any) -> list[Any]:
        """Discrete actions: the Q-values of all ``n`` actions, once, whatever is proposed."""
        assert self._discrete is not None
        assert self.q_functions is not None
        size = int(self._discrete.n)
        if not isinstance(self.q_functions, list):
            table = self.q_functions(inputs, self._tasks(backend)[0])
            _check_shape("q_functions", table, (len(inputs), size))
            return [table]
        tables = []
        for t, m, rows in self._tasks(backend)[1]:
            table = self.q_functions[t](inputs[rows])
            _check_shape(f"q_functions[{t}]", table, (m, size))
            tables.append(table)
        return tables

    def _assemble(self, parts: list[NDArray[Any]], scored: list[Proposal], scoring: QScored) -> Floats:
        """The scores ``(N, K)`` from the parts that the Q-functions returned, one part or one per task present."""
        dtype = np.result_type(*parts, np.float32)  # integers, too, must be able to hold nan
        values = np.array(parts[0], dtype)
        if isinstance(self.q_functions, list):
            values = np.empty((len(self._task_ids), parts[0].shape[1]), dtype)
            for (_, rows), part in zip(self._rows_of, parts, strict=True):
                values[rows] = part
        if self._discrete is not None:
            columns = [self._columns(to_numpy(_scored_actions(p, scoring))) for p in scored]
            values = np.mean([np.take_along_axis(values, c, axis=1) for c in columns], axis=0)
        return values

    def _columns(self, actions: NDArray[Any]) -> NDArray[np.int64]:
        """Which columns of the Q-values ``(N, n)`` belong to integer actions ``(N, K)``."""
        assert self._discrete is not None
        columns = actions.astype(np.int64) - int(self._discrete.start)
        outside = (columns < 0) | (columns >= int(self._discrete.n))
        if outside.any():
            row, k = np.argwhere(outside)[0]
            raise ValueError(
                f"policy {k} proposed the action {actions[row, k]} for sub-environment {row}, which is outside "
                f"{self._discrete}"
            )
        return columns


class _WrongOutput(Exception):  # noqa: N818 (never leaves this module)
    """A `TypeError` about what a callable returned: its inputs were fine, so no other backend need be tried."""


class _Resolved:
    """Callables' backend: known from the start, or learned from the first call."""

    def __init__(self, backend: Backend | None, fallback: Backend | None) -> None:
        self._backend = backend
        self._fallback = fallback

    def __call__(self, use: Callable[[Backend], T]) -> T:
        try:
            if self._backend is not None:
                return use(self._backend)
            self._backend, result = call_first(use, self._fallback)
        except _WrongOutput as error:
            raise TypeError(*error.args) from None
        return result

    @property
    def known(self) -> Backend:
        assert self._backend is not None, "asked for the backend before the first call"
        return self._backend


def is_per_task(callables: Any) -> bool:
    """Whether ``callables`` is one per task (``list``, ``tuple``, ``nn.ModuleList``) and not one batched callable."""
    torch = sys.modules.get("torch")
    return isinstance(callables, list | tuple) or (torch is not None and isinstance(callables, torch.nn.ModuleList))


def _refuse_foreign(policies: Any, q_functions: Any, own_policy: Any, space: gym.Space[Any]) -> None:
    groups = (("policy", "policies", policies), ("q", "q_functions", q_functions), ("policy", "own_policy", own_policy))
    for role, name, group in groups:
        if is_per_task(group):
            for index, fn in enumerate(group):
                check_callable(role, f"{name}[{index}]", fn, space)
        elif group is not None:
            check_callable(role, name, group, space)


def _as_list(name: str, callables: Any) -> list[Callable[..., Any]] | Callable[..., Any] | None:
    torch = sys.modules.get("torch")
    if torch is not None and isinstance(callables, torch.nn.Sequential):
        raise TypeError(
            f"{name} is a bare nn.Sequential, which is ambiguous: pass [net] if it is one task's network, "
            "nn.ModuleList if its members are the tasks' networks, lambda obs: net(obs) if it is batched"
        )
    if is_per_task(callables):
        callables = list(callables)
        for index, fn in enumerate(callables):
            if not callable(fn):
                raise TypeError(f"{name}[{index}] must be callable, got {fn!r} of type {type(fn).__name__}")
    elif callables is not None and not callable(callables):
        raise TypeError(
            f"{name} must be a list with one callable per task or one batched callable, got {type(callables).__name__}"
        )
    return callables  # type: ignore[no-any-return]


def _flat(group: Any) -> list[Any]:
    if group is None:
        return []
    return group if isinstance(group, list) else [group]


def _as_proposal(output: Any) -> Proposal:
    return output if isinstance(output, Proposal) else Proposal(output)


def _is_integer(actions: Any) -> bool:
    return any(kind in str(actions.dtype) for kind in ("int", "long", "bool"))


def _stack_field(backend: Backend, proposals: list[Proposal], name: str) -> Any:
    values = [getattr(proposal, name) for proposal in proposals]
    missing = [k for k, value in enumerate(values) if value is None]
    if not missing:
        return backend.stack(values, axis=1)
    if name == "actions" or len(missing) < len(values):
        raise ValueError(
            f"policies[{missing[0]}] proposes no {name} while other policies do: either every Proposal has "
            f"{name} or none has"
        )
    return None


def _scored_actions(proposal: Proposal, scoring: QScored) -> Any:
    if scoring.samples > 1 or scoring.score == "sample":
        return proposal.actions
    if proposal.means is not None:
        return proposal.means
    if scoring.score == "mean":
        raise ValueError(
            'score="mean" needs the policies\' mean actions, but they returned none: return '
            'Proposal(actions, means=...), or use score="sample"'
        )
    return proposal.actions


def _entropies_of(proposal: Proposal) -> Any:
    if proposal.entropies is None:
        raise ValueError(
            "entropy_weight needs the policies' entropies, but they returned none: return "
            "Proposal(actions, entropies=...), or use entropy_weight=0"
        )
    return proposal.entropies


def _is_zero(weight: Any) -> bool:
    return isinstance(weight, int | float) and weight == 0


def _per_row(weight: Any, task_ids: Ids) -> Floats:
    """An entropy weight, number, ``(T,)`` or function of none, as one ``(N, 1)`` or ``()`` factor."""
    value = to_numpy(weight() if callable(weight) else weight)
    return value[task_ids, None] if value.ndim else value


def _check_shape(name: str, array: Any, expected: tuple[int, ...]) -> None:
    got = getattr(array, "shape", None)
    if got is None:
        twins = ""
        if isinstance(array, tuple | list):
            q = name.startswith("q_functions")
            twins = ": " + (
                "of twin critics return one, or their minimum"
                if q
                else "of several return values give the actions, or Proposal(actions, means=...)"
            )
        raise _WrongOutput(f"{name} must return an array of shape {expected}, got {type(array).__name__}{twins}")
    got = tuple(got)
    if got == expected:
        return
    hint = ""
    if len(got) >= 2 and (got[1], got[0], *got[2:]) == expected:
        hint = ": its first two axes are swapped, the batch axis comes first"
    elif got == (*expected, 1):
        hint = ": drop the last axis"
    raise ValueError(f"{name} returned shape {got}, expected {expected}{hint}")
