"""A learner's policies and Q-functions, whatever their form, as one thing the collector can ask.

One per task: ``policies[k]`` and ``q_functions[t]`` are called with any number of rows ``M``:

    policies[k](obs (M, *O)) -> actions (M, *A)
    q_functions[t](obs (M, *O), actions (M, *A)) -> (M,) or (M, 1)

Batched: one call answers for all ``N`` sub-environments and all ``K`` policies:

    policies(obs (N, *O)) -> actions (N, K, *A)
    q_functions(obs (N, *O), actions (N, K, *A), task_ids (N,)) -> (N, K)

With a ``Discrete(n)`` action space, actions are integers and Q-functions return all ``n`` values at once:

    policies[k](obs (M, *O)) -> (M,)              policies(obs (N, *O)) -> (N, K)
    q_functions[t](obs (M, *O)) -> (M, n)         q_functions(obs (N, *O), task_ids (N,)) -> (N, n)

A ``list``, a ``tuple`` and an ``nn.ModuleList`` mean one per task; any other callable is batched. A policy may return
a ``Proposal`` instead of actions. Of a ``Dict`` (``Tuple``) observation space, ``obs`` is a dict (tuple) of arrays
``(M, *shape)``, nested as the space is. An array that a callable returns must keep its content while the others are
asked.
``K >= T`` policies are allowed: policy ``t`` is task ``t``'s own, the others (frozen, scripted) only propose.

Where the switch's ``reduce`` is set, Q-functions return the values of an ensemble of ``E`` critics, with one more axis
in front: ``(E, M)``, ``(E, N, K)``, ``(E, M, n)``.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from typing import Any, cast

import gymnasium as gym
import numpy as np
from numpy.typing import NDArray

from qmp_collect.asked import Asked, Shared, SharedParts, asking, common
from qmp_collect.backends import Backend, host, no_grad, to_numpy
from qmp_collect.foreign import check_callable
from qmp_collect.highest import Highest, better_there, highest
from qmp_collect.observations import shared
from qmp_collect.proposal import (
    Proposal,
    as_proposal,
    broken_actions,
    check_shape,
    check_values,
    entropies_of,
    is_integer,
    scored_actions,
    stack_field,
)
from qmp_collect.raised_by import RaisedBy
from qmp_collect.records import named
from qmp_collect.switch import Floats, Ids, QScored

Policies = Sequence[Callable[..., Any]] | Callable[..., Any]
QFunctions = Sequence[Callable[..., Any]] | Callable[..., Any]
OwnPolicyFunction = Callable[..., Any]
Inputs = Shared | SharedParts
Answer = tuple[NDArray[Any], Floats | None, Floats | None]  # actions, scores, values of an ensemble


class Callables:
    """Policies, Q-functions and own policy behind two questions: ``own_actions`` and ``candidates``.

    Each callable has the backend that it needs: a module its own device and dtype, another what its first call takes.

    Args:
        task_ids: ``(N,)``, the task of each row of every batch that will be asked about.
        own_ids: ``(N,)``, which of a row's candidates is its own. Default: the task.
        num_groups: groups of rows with policies of their own, which only batched policies can have.
        obs_space: of a single environment. Elements of a ``Box``, the default, are numbers: they arrive as floating
            point, integers too, as `TaskReplayBuffer` hands them to a learner. Those of other spaces stay integers.

    Raises:
        TypeError: If something is not callable, or is a bare ``nn.Sequential``.
        ValueError: If there is not one Q-function per task, or not at least one policy per task; for a list of policies
            with several groups.
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
        own_ids: Ids | None = None,
        num_groups: int = 1,
        obs_space: gym.Space[Any] | None = None,
        backend: str | None = None,
        device: Any = None,
    ) -> None:
        _refuse_foreign(policies, q_functions, own_policy, action_space)
        policies, q_functions = _as_list("policies", policies), _as_list("q_functions", q_functions)
        if own_policy is not None and (is_per_task(own_policy) or not callable(own_policy)):
            raise TypeError(f"own_policy must be one callable (obs, task_ids) -> actions, got {own_policy!r}")
        if isinstance(policies, list) and num_groups > 1:
            raise ValueError(
                f"policies is a list, whose members would act in all {num_groups} groups (own_ids): write one batched "
                "function policies(obs (N, *O)) -> (N, K, *A) that gives each row the candidates of its group"
            )
        if isinstance(policies, list) and len(policies) < num_tasks:
            raise ValueError(
                f"expected at least one policy per task, got {len(policies)} policies for {num_tasks} tasks: "
                "policy t is task t's own"
            )
        if isinstance(q_functions, list) and len(q_functions) != num_tasks:
            raise ValueError(
                f"expected one Q-function per task, got {len(q_functions)} for {num_tasks} tasks: "
                "q_functions[t] scores for task t"
            )
        self.num_policies = len(policies) if isinstance(policies, list) else None
        self.num_own = num_tasks // num_groups  # candidates that are some task's own
        self.at_least = self.num_own  # policies that a batched callable's first answer must have
        self._obs_space = obs_space
        self._action_shape = tuple(action_space.shape or ())
        self._action_space = action_space
        self._discrete = action_space if isinstance(action_space, gym.spaces.Discrete) else None
        self._integers_only = not isinstance(action_space, gym.spaces.Box)
        self._task_ids, self._own_ids = task_ids, task_ids if own_ids is None else own_ids
        self._num_tasks = num_tasks
        self._rows_of = [(int(t), np.flatnonzero(task_ids == t)) for t in np.unique(task_ids)]
        # The same at every step, so converted once for each backend.
        self._ids, self._own = Shared(task_ids), Shared(self._own_ids)
        self._rows = {t: Shared(rows) for t, rows in self._rows_of}

        self._listed, self._backend = policies if isinstance(policies, list) else [], (backend, device)
        given = {"policies": policies, "q_functions": q_functions, "own_policy": own_policy}
        groups = asking(given, backend, device)
        self._policies: Asked | list[Asked] | None = groups[0]
        self._q_functions: Asked | list[Asked] | None = groups[1]
        self._own_policy: Asked | None = groups[2]

    def add_policy(self, policy: Callable[..., Any] | None) -> None:
        """One more policy at the end of the list, or one more column of a batched callable's next answer.

        Raises:
            TypeError: A policy beside a batched callable, or none for a list; or it is not callable.
        """
        if self._policies is None:
            raise TypeError("policies is None, only own_policy acts: there are no candidates to add one to")
        if not isinstance(self._policies, list):
            if policy is not None:
                raise TypeError(
                    "policies is one batched callable: let it return one more candidate, and call add_policy() without "
                    "a policy"
                )
            self.num_policies = None if self.num_policies is None else self.num_policies + 1
            return
        index = len(self._policies)
        if not callable(policy):
            raise TypeError(f"policies[{index}] must be callable, got {policy!r} of type {type(policy).__name__}")
        check_callable("policy", f"policies[{index}]", policy, self._action_space)
        # With the others, so that a module without parameters goes where they are.
        self._listed = [*self._listed, policy]
        self._policies = [*self._policies, asking({"policies": self._listed}, *self._backend)[0][-1]]
        self.num_policies = index + 1

    def outside(self, rows: NDArray[Any]) -> Any:
        """Rows as somebody who is shown observations knows them, copies: of a Dict space, dicts of arrays."""
        return np.array(rows) if self._obs_space is None else named(self._obs_space, rows)

    def own_actions(self, obs: NDArray[Any], means: bool = False) -> NDArray[Any]:
        """Every row's action by its own task's policy: ``(N, *A)``, a fresh array.

        Args:
            means: Of policies that give their mean actions, those.
        """
        inputs, n = shared(self._obs_space, obs), len(obs)

        def action(proposal: Proposal) -> Any:
            return proposal.means if means and proposal.means is not None else proposal.actions

        with no_grad():
            if self._own_policy is not None:
                output = self._own_policy(lambda b: (inputs.on(b), self._ids.copy(b)))
                return np.array(to_numpy(action(self._checked("own_policy", output, n))))
            if not isinstance(self._policies, list):
                return to_numpy(action(self._propose(inputs, n)[0]))[np.arange(n), self._own_ids]
            outputs = []
            for t, rows in self._rows_of:
                output = self._policies[t](self._of_task(t, inputs))
                outputs.append(action(self._checked(f"policies[{t}]", output, len(rows))))
            parts = host(*outputs)
            actions = np.empty((n, *self._action_shape), dtype=np.result_type(*parts))
            for (_, rows), part in zip(self._rows_of, parts, strict=True):
                actions[rows] = part
            return actions

    def _of_task(self, task: int, inputs: Inputs) -> Callable[[Backend], tuple[Any, ...]]:
        return lambda b: (inputs.of(self._rows[task], b),)

    def candidates(self, obs: NDArray[Any], scoring: QScored | None) -> Answer:
        """All candidate actions ``(N, K, *A)`` and, if ``scoring`` is given, their scores.

        Returns:
            Actions, scores ``(N, K)``, and the values ``(E, N, K)`` of an ensemble of which ``scoring.reduce`` made
            them. A candidate that is not finite, or whose Q-value is not, scores ``nan``.
        """
        return cast(Answer, self.answer(obs, scoring))

    def answer(
        self,
        obs: NDArray[Any],
        scoring: QScored | None,
        asked: NDArray[np.bool_] | None = None,
        only_highest: bool = False,
    ) -> Answer | Highest:
        """What `candidates` returns, or less where less is needed.

        Args:
            asked: ``(K,)`` which policies of a list must be asked, at least one. What stands in the columns of the
                others is of no meaning.
            only_highest: In each row the candidate of the highest score is all that is needed, and scores are bare
                Q-values. Where they are many on an accelerator, and finite, only that candidate comes from there.
        """
        inputs, n = shared(self._obs_space, obs), len(obs)
        with no_grad():
            proposal, backend = self._propose(inputs, n, asked)
            if scoring is None:
                return to_numpy(proposal.actions), None, None
            with_entropies = not is_zero(scoring.entropy_weight)
            scored = [proposal]
            if scoring.samples > 1:
                # A policy may return the same arrays at every call: of each answer, what is needed is kept as a copy.
                proposal = Proposal(backend.copy(proposal.actions))
                scored = []
                for _ in range(scoring.samples):
                    sample = self._propose(inputs, n, asked)[0]
                    entropies = backend.copy(entropies_of(sample)) if with_entropies else None
                    scored.append(Proposal(backend.copy(sample.actions), entropies=entropies))
            ensemble = scoring.reduce is not None
            values = self._score(inputs, [scored_actions(p, scoring) for p in scored], ensemble)
            if only_highest and (chosen := self._highest(proposal.actions, values)) is not None:
                return chosen
            entropies = [entropies_of(p) for p in scored] if with_entropies else []
            actions, *fetched = host(proposal.actions, *entropies, *values)
            scores = self._assemble(fetched[len(entropies) :], scored, scoring)
            if (broken := broken_actions(actions, 2)).any():
                scores[..., broken] = np.nan
            if entropies:
                bonus = sum(fetched[: len(entropies)]) / len(entropies)
                scores = scores + _per_row(scoring.entropy_weight, self._task_ids, self._num_tasks) * bonus
            return (actions, scoring.reduced(scores), scores) if ensemble else (actions, scores, None)

    def _highest(self, actions: Any, values: list[Any]) -> Highest | None:
        """What the accelerator chooses; ``None`` if it should not, or Q-values do not lie as the candidates do."""
        if not isinstance(self._q_functions, Asked) or self._discrete is not None:
            return None
        own = self._own.on(self._q_functions.known)
        return highest(actions, values[0], own) if better_there(actions, values[0], own) else None

    def _propose(self, inputs: Inputs, n: int, asked: NDArray[np.bool_] | None = None) -> tuple[Proposal, Backend]:
        """Ask every policy: fields ``(N, K, ...)``, and the backend whose arrays they are."""
        if self._policies is None:
            raise TypeError("policies is None: only the switch OwnPolicy() together with own_policy needs none")
        arguments = _alone(inputs)
        if not isinstance(self._policies, list):
            output = self._policies(arguments)
            return self._checked_batched(as_proposal(output), n), self._policies.known
        chosen = range(len(self._policies)) if asked is None else np.flatnonzero(asked).tolist()
        answers = {k: self._checked(f"policies[{k}]", self._policies[k](arguments), n) for k in chosen}
        backend = common([self._policies[k].known for k in chosen])
        proposals = [answers.get(k, answers[chosen[0]]) for k in range(len(self._policies))]
        return Proposal(*(stack_field(backend, proposals, name) for name in Proposal._fields)), backend

    def _checked_batched(self, proposal: Proposal, n: int) -> Proposal:
        shape = tuple(getattr(proposal.actions, "shape", ()))
        if self.num_policies is None and len(shape) >= 2:
            # The first answer tells K. A transposed answer (K, N, *A) tells it too, in the wrong place.
            self.num_policies = shape[1] if shape[0] == n else shape[0]
            if self.num_policies < self.at_least and shape[0] == n:
                raise ValueError(
                    f"policies returned {self.num_policies} candidates per row (shape {shape}), expected at least "
                    f"{self.at_least}, "
                    + ("one per task" if self.at_least == self.num_own else "as many as the loaded state is of")
                )
        return self._checked("policies", proposal, n, self.num_policies or self.num_own)

    def _checked(self, name: str, output: Any, *leading: int) -> Proposal:
        """A policy's output as a proposal, every field of which has the leading axes that it should have."""
        proposal = as_proposal(output)
        check_shape(name, proposal.actions, (*leading, *self._action_shape))
        if self._integers_only and not is_integer(proposal.actions):
            raise TypeError(
                f"{name} returned {proposal.actions.dtype} actions, expected integers for {self._action_space}"
            )
        if proposal.means is not None:
            check_shape(f"{name}: Proposal.means", proposal.means, (*leading, *self._action_shape))
        if proposal.entropies is not None:
            check_shape(f"{name}: Proposal.entropies", proposal.entropies, leading)
        return proposal

    def _score(self, inputs: Inputs, candidates: list[Any], ensemble: bool) -> list[Any]:
        """Q-values, averaged over the list of candidates, in the layout that `_assemble` undoes."""
        if self._q_functions is None:
            raise TypeError("q_functions is None, but the switch needs scores: only OwnPolicy() needs none")
        if self._discrete is not None:
            return self._tables(inputs, ensemble)
        totals: list[Any] = []
        for actions in candidates:
            shape, keep = tuple(actions.shape[:2]), len(candidates) > 1
            values = self._q_values(inputs, Shared(actions), shape, keep, ensemble)
            totals = [a + b for a, b in zip(totals, values, strict=True)] if totals else values
        return [total / len(candidates) for total in totals] if len(candidates) > 1 else totals

    def _q_values(
        self, inputs: Inputs, actions: Shared, shape: tuple[int, ...], keep: bool, ensemble: bool
    ) -> list[Any]:
        """Of candidates ``(N, K)``; ``keep``: the next answer may come in the same arrays."""
        k = shape[1]
        assert self._q_functions is not None
        if not isinstance(self._q_functions, list):
            ask = self._q_functions
            values = ask(lambda b: (inputs.copy(b), actions.copy(b), self._ids.copy(b)))
            check_values("q_functions", values, shape, ensemble)
            return [ask.known.copy(values) if keep else values]

        def of_task(task: int, m: int) -> Callable[[Backend], tuple[Any, ...]]:
            def arguments(b: Backend) -> tuple[Any, ...]:
                rows = self._rows[task].on(b)
                return inputs.of(self._rows[task], b, k), actions.on(b)[rows].reshape((m * k, *self._action_shape))

            return arguments

        outputs = []
        for t, rows in self._rows_of:
            ask, m = self._q_functions[t], len(rows)
            values = ask(of_task(t, m))
            got = tuple(getattr(values, "shape", ()))
            if got[ensemble:] != (m * k, 1):
                check_values(f"q_functions[{t}]", values, (m * k,), ensemble)
            values = values.reshape((*got[:ensemble], m, k))
            outputs.append(ask.known.copy(values) if keep else values)
        return outputs

    def _tables(self, inputs: Inputs, ensemble: bool) -> list[Any]:
        """Discrete actions: the Q-values of all ``n`` actions, once, whatever is proposed."""
        assert self._discrete is not None
        assert self._q_functions is not None
        size = int(self._discrete.n)
        if not isinstance(self._q_functions, list):
            table = self._q_functions(lambda b: (inputs.on(b), self._ids.copy(b)))
            check_values("q_functions", table, (len(self._task_ids), size), ensemble)
            return [table]
        tables = []
        for t, rows in self._rows_of:
            table = self._q_functions[t](self._of_task(t, inputs))
            check_values(f"q_functions[{t}]", table, (len(rows), size), ensemble)
            tables.append(table)
        return tables

    def _assemble(self, parts: list[NDArray[Any]], scored: list[Proposal], scoring: QScored) -> Floats:
        """The Q-values ``(N, K)`` from the parts that the Q-functions returned, one part or one per task present.

        Those of an ensemble are ``(E, N, K)``.
        """
        dtype = np.result_type(*parts, np.float32)  # integers, too, must be able to hold nan
        values = np.array(parts[0], dtype)
        if isinstance(self._q_functions, list):
            sizes = {part.shape[:-2] for part in parts}
            if len(sizes) > 1:
                raise ValueError(f"q_functions return ensembles of different sizes, {sorted(sizes)}")
            values = np.empty((*sizes.pop(), len(self._task_ids), parts[0].shape[-1]), dtype)
            for (_, rows), part in zip(self._rows_of, parts, strict=True):
                values[..., rows, :] = part
        if self._discrete is not None:
            columns = [self._columns(to_numpy(scored_actions(p, scoring))) for p in scored]
            columns = [c if values.ndim == 2 else c[None] for c in columns]
            values = np.mean([np.take_along_axis(values, c, axis=-1) for c in columns], axis=0)
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


def _alone(inputs: Inputs) -> Callable[[Backend], tuple[Any, ...]]:
    return lambda b: (inputs.copy(b),)


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


def is_zero(weight: Any) -> bool:
    """Whether an entropy weight is the number 0, so that nobody needs to give entropies."""
    return isinstance(weight, int | float) and weight == 0


def _per_row(weight: Any, task_ids: Ids, num_tasks: int) -> Floats:
    """An entropy weight, number, ``(T,)`` or function of none, as one ``(N, 1)`` or ``()`` factor."""
    with RaisedBy("entropy_weight"):
        value = to_numpy(weight() if callable(weight) else weight)
    if value.shape not in ((), (num_tasks,)):
        raise ValueError(
            f"entropy_weight must be one number or have shape ({num_tasks},), one per task, got shape {value.shape}"
        )
    return value[task_ids, None] if value.ndim else value
