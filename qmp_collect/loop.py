"""The caller's loop around a collector: reset, act, observe, and the state that outlives them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, cast

import numpy as np
from gymnasium.vector import AutoresetMode, VectorEnv
from numpy.typing import ArrayLike, NDArray

from qmp_collect.arguments import check_envs, resolve_sinks, resolve_tasks
from qmp_collect.autoreset import find_autoreset_mode, true_successors
from qmp_collect.callables import Callables, OwnPolicyFunction, Policies, QFunctions
from qmp_collect.commitment import Commitment
from qmp_collect.environment_state import EnvironmentState
from qmp_collect.episodes import Episodes, Mask, Reduction
from qmp_collect.groups import (
    Groups,
    Rows,
    Seeds,
    resolve_groups,
    resolve_seeds,
    rows_of_groups,
    seeds_of_rows,
)
from qmp_collect.ledger import Ledger
from qmp_collect.masks import CandidateMask
from qmp_collect.mixture import Decision, Mixture, Schedule
from qmp_collect.observations import Observations
from qmp_collect.outcome import Outcome, check_numbers, check_partial_reset, clean, flags_of, moved, rows_of
from qmp_collect.raised_by import RaisedBy
from qmp_collect.random_actions import RandomActions
from qmp_collect.records import of_state, to_state
from qmp_collect.states import check_like
from qmp_collect.switch import AnySwitch, Ids, OwnPolicy, QSwitch, scoring_of
from qmp_collect.transitions import Sinks, Transitions, TransitionSink

State = dict[str, Any]


class Loop:
    """What `QMPCollector` is but for ``collect``; its arguments are documented there."""

    def __init__(
        self,
        envs: VectorEnv[Any, Any, Any],
        policies: Policies | None,
        q_functions: QFunctions | None,
        *,
        task_ids: ArrayLike | None = None,
        own_ids: ArrayLike | None = None,
        num_tasks: int | None = None,
        buffer: TransitionSink | Sequence[TransitionSink] | None = None,
        switch: AnySwitch = QSwitch(),  # noqa: B008 (frozen)
        candidate_mask: CandidateMask | None = None,
        horizon: int | Commitment = 1,
        own_probability: float | Schedule = 0.0,
        warmup_steps: int = 0,
        own_policy: OwnPolicyFunction | None = None,
        backend: str | None = None,
        device: Any = None,
        autoreset_mode: AutoresetMode | str | None = None,
        success_key: str = "success",
        episode_metrics: Mapping[str, Reduction] | None = None,
        on_step: Callable[[Transitions], None] | None = None,
        seed: Seeds = None,
    ) -> None:
        check_envs(envs)
        self.envs = envs
        self._observations = Observations(envs.single_observation_space, int(envs.num_envs))
        self.task_ids, self.num_tasks = resolve_tasks(envs, policies, q_functions, task_ids, num_tasks)
        self.own_ids, self.num_groups = resolve_groups(self.task_ids, self.num_tasks, own_ids)
        if (made_for := getattr(buffer, "num_groups", self.num_groups)) != self.num_groups:
            raise ValueError(
                f"buffer is made for {made_for} group(s) of tasks, but own_ids make {self.num_groups}: it could not "
                f"tell own transitions from others'. Make it with num_groups={self.num_groups}"
            )
        self._callables = Callables(
            policies,
            q_functions,
            own_policy,
            obs_space=envs.single_observation_space,
            action_space=envs.single_action_space,
            task_ids=self.task_ids,
            num_tasks=self.num_tasks,
            own_ids=self.own_ids,
            num_groups=self.num_groups,
            backend=backend,
            device=device,
        )
        if policies is None and not (isinstance(switch, OwnPolicy) and own_policy is not None):
            raise TypeError("policies is None: only the switch OwnPolicy() together with own_policy needs none")
        seeds = resolve_seeds(seed, self.num_groups)
        self._first_seed: Seeds = None if seed is None else seeds[0] if self.num_groups == 1 else seeds
        self._group_rows = rows_of_groups(self.task_ids, self.num_tasks, self.num_groups)
        # Streams of their own: Gymnasium makes its generators from the plain seed.
        streams = [np.random.SeedSequence(each).spawn(2) for each in seeds]
        self._rows = np.arange(self.num_envs)

        def mixture(group: int, task_ids: Ids, rows: Rows) -> Mixture:
            return Mixture(
                self._callables,
                switch,
                task_ids,
                num_tasks=self.num_tasks // self.num_groups,
                candidate_mask=candidate_mask,
                horizon=horizon,
                own_probability=own_probability,
                warmup_steps=warmup_steps,
                rng=np.random.default_rng(streams[group][0]),
                env_ids=self._rows[rows],
                first_task=group * self.num_tasks // self.num_groups,
            )

        self._mixture: Mixture | Groups
        if self.num_groups == 1:
            self._mixture = mixture(0, self.task_ids, slice(None))
        else:
            self._mixture = Groups(self._callables, mixture, self.task_ids, self.num_tasks, self.num_groups)
        if q_functions is None and self._mixture.scores:
            needing = switch if scoring_of(switch) is not None else horizon
            raise TypeError(f"q_functions is None, but {needing!r} scores candidates with them")
        self._sinks = Sinks(resolve_sinks(buffer, self.num_tasks))
        self._mode = find_autoreset_mode(envs, autoreset_mode)
        self._on_step = on_step
        if episode_metrics is None:
            episode_metrics = getattr(envs.unwrapped, "episode_metrics", {})
        self._episodes = Episodes(self.num_envs, self._mode, success_key, episode_metrics)

        self._random = RandomActions(envs, [stream[1] for stream in streams], self._group_rows)
        self._ledger = Ledger(self.num_tasks, self.num_policies, self._episodes.metrics, self.num_groups)
        self._environment = EnvironmentState(envs)

        self._started = False  # whether observations of the current episodes are known
        self._next_obs: NDArray[Any] | None = None  # what the policies see next, for `collect`
        self._acted: Decision | None = None  # what `observe` will complete

    @property
    def num_envs(self) -> int:
        """``N``."""
        return int(self.envs.num_envs)

    @property
    def num_policies(self) -> int:
        """``K``; for a batched callable known after its first answer, until then taken to be ``T`` (of one group)."""
        return self._callables.num_policies or self._callables.num_own

    @property
    def num_steps(self) -> int:
        """Stored transitions since construction, summed over tasks."""
        return self._ledger.num_steps

    @property
    def num_episodes(self) -> int:
        """Finished episodes since construction, summed over tasks."""
        return self._ledger.num_episodes

    @property
    def obs(self) -> Any:
        """``(N, *O)`` what the next action is chosen in, a copy: where a loop of one's own begins or goes on.

        Raises:
            RuntimeError: Before the first ``reset``, and when a new one is due (after ``collect(n_episode=)``).
        """
        return self._observations.outside(self._current())

    @property
    def needs_reset(self) -> NDArray[np.bool_]:
        """``(N,)`` sub-environments to reset before the next step, in ``DISABLED`` mode only; ``collect`` does it."""
        return self._episodes.needs_reset.copy()

    def reset(self, *, seed: Seeds = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        """Reset the sub-environments, or those of ``options["reset_mask"]``: ``(obs (N, *O), infos)``.

        Args:
            seed: Default: the constructor's at the first reset, none afterwards. Of several groups one each, from which
                the group's sub-environments count up as all of one group do.
            options: Passed on to ``envs.reset``.
        """
        if seed is None and not self._started:
            seed = self._first_seed
        elif isinstance(seed, np.integer):
            seed = int(seed)  # Gymnasium knows only Python's
        if self.num_groups > 1:
            resolve_seeds(seed, self.num_groups)
        for_rows = seeds_of_rows(seed, self._group_rows, self.num_envs)
        # Read before the call: Gymnasium pops the mask from the caller's dict.
        given = (options or {}).get("reset_mask")
        rows = np.ones(self.num_envs, np.bool_) if given is None else flags_of("reset_mask", given, self.num_envs)
        if not rows.all() and not self._started:
            raise RuntimeError("reset_mask leaves out sub-environments, but all of them must be reset: reset() first")
        started, self._started, self._acted = self._started, False, None  # until it went well
        found, infos = self.envs.reset(seed=for_rows, options=options)
        obs = self._observations.rows(found)
        if started and not rows.all():
            check_partial_reset(obs, cast(Any, self._next_obs), rows)
        check_numbers("reset observation", obs, rows, self.task_ids, self.num_steps)
        self._next_obs = obs
        self._begin_episodes(rows)
        self._started, self._environment.touched, self._first_seed = True, True, None
        return self._observations.outside(obs), infos

    def act(self, obs: Any, *, episode_start: ArrayLike | None = None, random: bool = False) -> NDArray[Any]:
        """The behaviour policies' actions, for the caller to execute and `observe`.

        Args:
            obs: ``(N, *O)`` or, of a Dict or Tuple space, dicts and tuples of arrays, as ``envs.reset`` and
                ``envs.step`` return them.
            episode_start: ``(N,)`` booleans, ``True`` where the caller reset a sub-environment by other means than
                ``collector.reset``. Episodes that the environment ended itself need no mention; in ``NEXT_STEP`` mode
                they count as reset by the caller where ``obs`` is no longer their last observation.
            random: Uniformly random actions, behaviour -1, instead of the policies'.

        Returns:
            ``(N, *A)`` actions, a fresh array. Whoever executes others tells `observe`.

        Raises:
            RuntimeError: Before the first ``reset``.
            FloatingPointError: A task's own candidate, or its own Q-value, is not finite.
        """
        observed = self._observations.rows(obs)
        if episode_start is not None:
            start = flags_of("episode_start", episode_start, self.num_envs)
            if self._started and (start & self._episodes.ignored).any():
                # An ended episode is the environment's to reset (NEXT_STEP), and its next step no transition, even if
                # the caller marks it as a start.
                start &= ~self._episodes.ignored | moved(observed, cast(Any, self._next_obs))
            if start.all():
                self._started = self._environment.touched = True
            self._begin_episodes(start)
        if not self._started:
            raise RuntimeError(
                "act was called before reset: start with `obs, infos = collector.reset(seed=...)`, or pass "
                "episode_start=np.ones(num_envs, bool) with the observations of your own reset"
            )
        self._episodes.needs_reset[:] = False  # the caller steps, so the caller has reset
        self._next_obs = observed
        if random:
            self._acted = Decision.by_nobody(observed, self._random.sample())
        else:
            self._acted = self._mixture.choose(observed, self.num_steps, self._episodes.recorded, self._episodes.lens)
        return self._acted.actions.copy()

    def observe(
        self,
        next_obs: Any,
        rewards: ArrayLike,
        terminations: ArrayLike,
        truncations: ArrayLike,
        infos: dict[str, Any],
        *,
        actions: ArrayLike | None = None,
    ) -> Transitions:
        """Store what ``envs.step`` returned for the actions of the last `act`.

        Args:
            actions: ``(N, *A)`` what was executed, if it is not what `act` returned (exploration noise). Without an
                `act` since the last `observe`: the actions of a step that the collector did not choose, behaviour -1.

        Returns:
            The transitions that were stored. Rows on which the environment only reset itself are no transitions.

        Raises:
            RuntimeError: Without `act` and without ``actions``.
            ValueError: Wrong shapes, or a finished sub-environment's last observation is missing from ``infos``.
            FloatingPointError: The environment returned a NaN, or a reward that is not finite. Nothing was stored.
        """
        acted = self._executed(actions)
        after = self._observations.rows(next_obs)
        after, reward, terminated, truncated = Outcome.of(after, rewards, terminations, truncations)
        episodes, steps = self._episodes, self.num_steps
        done, recorded = (terminated | truncated) & ~episodes.ignored, episodes.recorded
        successors = true_successors(self._mode, after, done, self._observations.infos(infos))
        resets_seen = self._mode is AutoresetMode.SAME_STEP  # in `after`, where `successors` hold the last observations
        if not (
            clean("reward", reward)
            and clean("observation", successors)
            and (not resets_seen or clean("observation", after))
        ):
            check_numbers("reward", reward, recorded, self.task_ids, steps)
            check_numbers("observation", successors, recorded, self.task_ids, steps)
            check_numbers("reset observation", after, episodes.wanted, self.task_ids, steps)
        reports = episodes.read(infos, done, recorded)
        rows = slice(None) if recorded.all() else np.flatnonzero(recorded)
        transitions = Transitions(
            obs=acted.obs[rows],
            actions=acted.actions[rows],
            rewards=reward[rows].copy(),
            next_obs=successors[rows],
            terminations=terminated[rows],
            truncations=truncated[rows],
            task_ids=self.task_ids[rows].copy(),
            behavior_ids=acted.behavior_ids[rows].copy(),
            env_ids=self._rows[rows].copy(),
        )
        self._sinks.add(transitions)

        task_ids = self.task_ids[rows]  # not the transitions', which a sink may have written to
        self._ledger.add_steps(task_ids, acted.behavior_ids[rows], self.num_policies)
        episodes.advance(reward, reports)
        ended = np.flatnonzero(done & recorded)
        if len(ended):
            finished = episodes.ended(ended)
            self._ledger.add_episodes(finished, self.task_ids[ended], episodes.success_known)
            self._mixture.ended(self.task_ids[ended], finished["successes"], episodes.success_known)
        self._mixture.stepped(task_ids, acted.behavior_ids[rows])
        self._acted, self._next_obs = None, after
        self._mixture.commit(acted)
        if acted.gaps is not None:
            self._ledger.add_decisions(*acted.gaps)
        over = done | episodes.ignored
        if over.any():
            self._begin_episodes(over)
        episodes.wait(done)
        if self._on_step is not None:
            with RaisedBy("on_step"):
                self._on_step(transitions)
        return transitions

    def add_policy(self, policy: Callable[..., Any] | None = None, *, tasks: Sequence[int] | None = None) -> None:
        """One more candidate from the next step on, such as a checkpoint of the learner or a scripted controller.

        A saved state goes into a collector with more candidates than it was saved with: a run that continues may have
        got one in between.

        Args:
            policy: As one of ``policies``; ``None`` where those are one batched callable, which returns one more
                column from now on.
            tasks: The tasks in which it may act, where ``candidate_mask`` has a matrix. Default: all.

        Raises:
            TypeError: It has not the form that ``policies`` has.
            ValueError: ``tasks`` are none of the collector's, or there is no matrix to say so in. Nothing has changed
                then, as with the other error.
        """
        tasks = None if tasks is None else list(tasks)
        self._mixture.check_tasks(tasks)
        self._callables.add_policy(policy)
        self._mixture.add_policy(tasks)

    def state_dict(self) -> State:
        """Everything that later steps depend on, as arrays and plain values.

        With it, and the callables' own state, collection continues exactly as if it had not stopped, but for the times
        in its statistics. The environment's state is part of it if ``envs.unwrapped`` has ``get_state``, or all single
        environments of a ``SyncVectorEnv`` have; if not, a continued collector starts new episodes.

        Between `act` and `observe` it is no such state: the random numbers of that `act` are drawn, and who continues
        acts again, with others. Save before `act` or after `observe`.

        Raises:
            RuntimeError: The buffer raised when it was given a block of transitions (`TransitionSink`), which are
                counted and not stored: the next ``collect`` hands them on first.
        """
        self._sinks.check_stored()
        state = {name: part.state_dict() for name, part in self._parts().items()} | self._ledger.state_dict()
        obs = None if self._next_obs is None else to_state(self._next_obs)
        own = {"started": self._started, "first_seed": self._first_seed, "next_obs": obs}
        return state | own | {"num_policies": self._callables.num_policies or 0}  # 0: not known yet

    def load_state_dict(self, state: State) -> None:
        """Continue from ``state_dict()`` of a collector with as many sub-environments.

        Raises:
            ValueError: The state is of another number of sub-environments or tasks, of more policies, of other
                wrappers, or damaged. Nothing has changed then.
        """
        try:
            self._check_state(state)
        except (KeyError, TypeError, AttributeError, IndexError) as error:
            raise ValueError(f"the state is damaged, or of another version: {error!r}") from error
        self._sinks.forget()
        for name, part in self._parts().items():
            part.load_state_dict(state[name])
        self._ledger.load_state_dict(state)
        # A batched callable whose number of policies is not known yet must not turn out to have fewer.
        self._callables.at_least = max(
            self._callables.num_own, state.get("num_policies", 0), self._mixture.policies_in(state["mixture"])
        )
        self._started = bool(state["started"]) and state["environment"]["envs"] is not None
        self._first_seed, self._acted = state["first_seed"], None
        self._next_obs = (
            None if state["next_obs"] is None else of_state(self.envs.single_observation_space, state["next_obs"])
        )

    def _check_state(self, state: State) -> None:
        saved, known = state.get("num_policies", 0), self._callables.num_policies
        check_like("num_policies", saved, 0)
        if known is not None and saved > known:
            raise ValueError(
                f"the state is of {saved} policies, this collector has {known}: it may have more, not fewer"
            )
        for name, part in self._parts().items():
            part.check_state(state[name])
        self._ledger.check_state(state)
        check_like("started", state["started"], self._started)
        if state["first_seed"] is not None:
            check_like("first_seed", state["first_seed"], 0 if self.num_groups == 1 else [0])
            resolve_seeds(state["first_seed"], self.num_groups)
        if state["next_obs"] is not None or state["started"]:
            self._observations.check_state(state["next_obs"])

    def _parts(self) -> dict[str, Any]:
        """Whatever has a state, by its name in `state_dict`; the environment first, which may refuse its own."""
        return {
            "environment": self._environment,
            "episodes": self._episodes,
            "mixture": self._mixture,
            "random_actions": self._random,
        }

    def _current(self) -> NDArray[Any]:
        if not self._started or self._next_obs is None:
            raise RuntimeError("there is no current observation: start with `obs, infos = collector.reset()`")
        return self._next_obs

    def _executed(self, actions: ArrayLike | None) -> Decision:
        """The step that is being observed: what `act` chose, or what the caller says that it executed."""
        if actions is None and self._acted is None:
            raise RuntimeError(
                "observe was called without act: call act(obs), step the environment, then observe(...); or pass "
                "actions=..., what was executed in a step that the collector did not choose"
            )
        if actions is None:
            return cast(Decision, self._acted)
        executed = rows_of("actions", actions, self._random.shape)
        if self._acted is not None:
            return self._acted._replace(actions=executed)
        if self._episodes.needs_reset.any():
            env = int(self._episodes.needs_reset.argmax())
            raise RuntimeError(
                f"sub-environment {env} has ended its episode, and how it began the next is not known: reset it by "
                'collector.reset(options={"reset_mask": collector.needs_reset})'
            )
        return Decision.by_nobody(self._current().copy(), executed)

    def _begin_episodes(self, rows: Mask) -> None:
        """The next action in ``rows`` is an episode's first."""
        self._episodes.begin(rows)
        self._mixture.forget(rows)
