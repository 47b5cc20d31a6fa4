"""QMPCollector: the collection loop between a multi-task vector environment and any off-policy learner."""

from __future__ import annotations

import copy
import operator
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from time import perf_counter
from typing import Any, cast

import numpy as np
from gymnasium.vector import AutoresetMode, VectorEnv
from numpy.typing import ArrayLike, NDArray

from qmp_collect.arguments import check_envs, resolve_sinks, resolve_tasks
from qmp_collect.autoreset import find_autoreset_mode, true_successors
from qmp_collect.callables import Callables, OwnPolicyFunction, Policies, QFunctions
from qmp_collect.episodes import Episodes, Mask, Reduction
from qmp_collect.mixture import Decision, Mixture, Schedule, scoring_of
from qmp_collect.stats import CollectStats, Tally
from qmp_collect.switch import OwnPolicy, QSwitch, Switch
from qmp_collect.transitions import Transitions, TransitionSink

State = dict[str, Any]


# What a checkpoint holds of the collector itself, by attribute name without the underscore.
_STATE = ("num_steps", "num_episodes", "started", "first_seed", "next_obs")


class QMPCollector:
    """Collects transitions with a mixture of all tasks' policies; the learner's update stays as it is.

    At every step, for every sub-environment (task ``i``, state ``s``), each policy proposes an action, task ``i``'s
    Q-function scores the proposals, and ``switch`` picks the policy that acts (QMP, section 4.2 and algorithm 1).
    The callables read the learner's live parameters, so there is nothing to synchronise.

    ``N`` sub-environments, ``T`` tasks, ``K >= T`` policies, observations of shape ``O``, actions of shape ``A``.

    Args:
        envs: A Gymnasium vector environment with Box-like observations and array actions.
        policies: One callable per policy, or one batched callable; see `qmp_collect.callables` for the forms.
        q_functions: One callable per task, or one batched callable. Which critic scores is the caller's choice.
        task_ids: ``(N,)`` integers, the task of each sub-environment. Default: ``envs.unwrapped.task_ids``, else
            ``0 .. N-1`` if there are as many tasks as sub-environments.
        num_tasks: ``T``. Needed only if neither the callables nor ``envs`` nor ``task_ids`` tell.
        buffer: Where transitions go: one sink with ``add(transitions)`` for all tasks, or a sequence of ``T``.
        switch: Which policy acts; see `qmp_collect.switch`.
        horizon: ``H``: a chosen policy acts for ``H`` steps, or until its episode ends, sampling afresh at each state
            (appendix E.6).
        own_probability: At each decision the own policy acts with this probability without the switch being asked
            (0.7 on MT10, appendix H.5). A number, or a function of ``num_steps``.
        warmup_steps: Stored transitions, summed over tasks, during which only own policies act.
        own_policy: Optional batched ``own_policy(obs (N, *O), task_ids (N,)) -> (N, *A)``, a cheaper way to ask where
            only own policies act.
        backend: What the callables are given, ``"numpy"``, ``"torch"`` or ``"jax"``. Default: torch for ``nn.Module``
            callables, else what the first call accepts.
        device: Torch device of the callables' inputs. Default: that of the modules' parameters, else the CPU.
        autoreset_mode: Default: what ``envs`` states.
        success_key: Key of the success flag in ``infos``.
        episode_metrics: What else to measure of episodes: key in ``infos`` -> ``"any"``, ``"last"``, ``"mean"`` or
            ``"max"`` of its reports, see `qmp_collect.episodes`. Default: ``envs.unwrapped.episode_metrics`` if there.
        on_step: Called with the `Transitions` of every vector step, after they were stored.
        seed: Of the switch's random numbers and of the first ``reset``.

    Raises:
        TypeError: ``envs`` is no vector environment, its spaces are no arrays, or a callable is none.
        ValueError: Shapes, task ids or numbers of callables that do not fit together.

    Example:
        >>> import gymnasium as gym, numpy as np
        >>> envs = gym.make_vec("Pendulum-v1", num_envs=2)
        >>> policies = [lambda obs: np.zeros((len(obs), 1), np.float32), lambda obs: np.ones((len(obs), 1), np.float32)]
        >>> q_functions = [lambda obs, actions: -(actions[:, 0] ** 2), lambda obs, actions: actions[:, 0]]
        >>> collector = QMPCollector(envs, policies, q_functions, seed=0)
        >>> collector.collect(n_step=10).mixture
        array([[1., 0.],
               [0., 1.]])
    """

    def __init__(
        self,
        envs: VectorEnv[Any, Any, Any],
        policies: Policies | None,
        q_functions: QFunctions | None,
        *,
        task_ids: ArrayLike | None = None,
        num_tasks: int | None = None,
        buffer: TransitionSink | Sequence[TransitionSink] | None = None,
        switch: Switch = QSwitch(),  # noqa: B008 (frozen)
        horizon: int = 1,
        own_probability: float | Schedule = 0.0,
        warmup_steps: int = 0,
        own_policy: OwnPolicyFunction | None = None,
        backend: str | None = None,
        device: Any = None,
        autoreset_mode: AutoresetMode | str | None = None,
        success_key: str = "success",
        episode_metrics: Mapping[str, Reduction] | None = None,
        on_step: Callable[[Transitions], None] | None = None,
        seed: int | None = None,
    ) -> None:
        check_envs(envs)
        self.envs = envs
        self.task_ids, self.num_tasks = resolve_tasks(envs, policies, q_functions, task_ids, num_tasks)
        self._callables = Callables(
            policies,
            q_functions,
            own_policy,
            obs_space=envs.single_observation_space,
            action_space=envs.single_action_space,
            task_ids=self.task_ids,
            num_tasks=self.num_tasks,
            backend=backend,
            device=device,
        )
        if policies is None and not (isinstance(switch, OwnPolicy) and own_policy is not None):
            raise TypeError("policies is None: only the switch OwnPolicy() together with own_policy needs none")
        if q_functions is None and scoring_of(switch) is not None:
            raise TypeError(f"q_functions is None, but {switch!r} scores candidates with them")
        self._first_seed = None if seed is None else operator.index(seed)
        # Streams of their own: Gymnasium makes its generators from the plain seed.
        switch_stream, action_stream = np.random.SeedSequence(self._first_seed).spawn(2)
        self._mixture = Mixture(
            self._callables,
            switch,
            self.task_ids,
            horizon=horizon,
            own_probability=own_probability,
            warmup_steps=warmup_steps,
            rng=np.random.default_rng(switch_stream),
        )
        self._sinks = resolve_sinks(buffer, self.num_tasks)
        self._mode = find_autoreset_mode(envs, autoreset_mode)
        self._on_step = on_step
        if episode_metrics is None:
            episode_metrics = getattr(envs.unwrapped, "episode_metrics", {})
        self._episodes = Episodes(self.num_envs, self._mode, success_key, episode_metrics)

        self._rows = np.arange(self.num_envs)
        self._random_actions = copy.deepcopy(envs.action_space)
        self._random_actions.seed(int(action_stream.generate_state(1)[0]))
        self._num_steps = 0
        self._num_episodes = 0
        self._past, self._tally = self._no_stats(), self._no_stats()

        self._started = False  # whether observations of the current episodes are known
        self._next_obs: NDArray[Any] | None = None  # what the policies see next, for `collect`
        self._acted: Decision | None = None  # what `observe` will complete

    @property
    def num_envs(self) -> int:
        """``N``."""
        return int(self.envs.num_envs)

    @property
    def num_policies(self) -> int:
        """``K``; for a batched callable known after its first answer, until then taken to be ``T``."""
        return self._callables.num_policies or self.num_tasks

    @property
    def num_steps(self) -> int:
        """Stored transitions since construction, summed over tasks."""
        return self._num_steps

    @property
    def num_episodes(self) -> int:
        """Finished episodes since construction, summed over tasks."""
        return self._num_episodes

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[NDArray[Any], dict[str, Any]]:
        """Reset the sub-environments, or those of ``options["reset_mask"]``: ``(obs (N, *O), infos)``.

        Args:
            seed: Default: the constructor's at the first reset, none afterwards.
            options: Passed on to ``envs.reset``.
        """
        if seed is None and not self._started:
            seed = self._first_seed
        elif isinstance(seed, np.integer):
            seed = int(seed)  # Gymnasium knows only Python's
        # Read before the call: Gymnasium pops the mask from the caller's dict.
        rows = np.array((options or {}).get("reset_mask", np.ones(self.num_envs, np.bool_)))
        obs, infos = self.envs.reset(seed=seed, options=options)
        self._next_obs = self._checked_obs(obs)
        self._begin_episodes(rows)
        self._started, self._acted, self._first_seed = True, None, None
        return self._next_obs.copy(), infos

    def act(self, obs: ArrayLike, *, episode_start: ArrayLike | None = None) -> NDArray[Any]:
        """The behaviour policies' actions, for the caller to execute and `observe`.

        Args:
            obs: ``(N, *O)``, as ``envs.reset`` or ``envs.step`` returned them.
            episode_start: ``(N,)`` booleans, ``True`` where the caller reset a sub-environment by other means than
                ``collector.reset``. Episodes that the environment ended itself need no mention.

        Returns:
            ``(N, *A)`` actions, a fresh array.

        Raises:
            RuntimeError: Before the first ``reset``.
            FloatingPointError: A task's own candidate, or its own Q-value, is not finite.
        """
        observed = self._checked_obs(obs)
        if episode_start is not None:
            start = self._checked_row("episode_start", episode_start, np.bool_)
            if self._started and not (start.all() and not _same(observed, self._next_obs)):
                # Unless the caller has reset everything, an ended episode is the environment's to reset (NEXT_STEP),
                # and its next step no transition, even if the caller marks it as a start.
                start &= ~self._episodes.ignored
            self._started |= bool(start.all())
            self._begin_episodes(start)
        if not self._started:
            raise RuntimeError(
                "act was called before reset: start with `obs, infos = collector.reset(seed=...)`, or pass "
                "episode_start=np.ones(num_envs, bool) with the observations of your own reset"
            )
        self._episodes.needs_reset[:] = False  # the caller steps, so the caller has reset
        self._next_obs = observed
        self._acted = self._mixture.choose(observed, self._num_steps, self._episodes.recorded)
        return self._acted.actions.copy()

    def observe(
        self,
        next_obs: ArrayLike,
        rewards: ArrayLike,
        terminations: ArrayLike,
        truncations: ArrayLike,
        infos: dict[str, Any],
    ) -> Transitions:
        """Store what ``envs.step`` returned for the actions of the last `act`.

        Returns:
            The transitions that were stored. Rows on which the environment only reset itself are no transitions.

        Raises:
            RuntimeError: Without an `act` since the last `observe`.
            ValueError: Wrong shapes, or a finished sub-environment's last observation is missing from ``infos``.
        """
        if self._acted is None:
            raise RuntimeError("observe was called without act: call act(obs), step the environment, then observe(...)")
        acted = self._acted
        after = self._checked_obs(next_obs)
        reward = self._checked_row("rewards", rewards, None)
        terminated = self._checked_row("terminations", terminations, np.bool_)
        truncated = self._checked_row("truncations", truncations, np.bool_)

        episodes = self._episodes
        done, recorded = (terminated | truncated) & ~episodes.ignored, episodes.recorded
        successors = true_successors(self._mode, after, done, infos)
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
        self._store(transitions)

        task_ids = self.task_ids[rows]  # not the transitions', which a sink may have written to
        self._num_steps += len(task_ids)
        self._tally.add_steps(task_ids, acted.behavior_ids[rows], self.num_policies)
        episodes.advance(reward, reports)
        ended = np.flatnonzero(done & recorded)
        if len(ended):
            self._num_episodes += len(ended)
            self._tally.add_episodes({**episodes.ended(ended), "episode_task_ids": self.task_ids[ended]})
        self._acted, self._next_obs = None, after
        self._mixture.commit(acted)
        if acted.gaps is not None:
            self._tally.add_decisions(*acted.gaps)
        over = done | episodes.ignored
        if over.any():
            self._begin_episodes(over)
        episodes.wait(done)
        if self._on_step is not None:
            self._on_step(transitions)
        return transitions

    def collect(
        self,
        *,
        n_step: int | None = None,
        n_episode: int | None = None,
        random: bool = False,
        progress: bool = False,
    ) -> CollectStats:
        """Act, step and observe until enough was collected; the first call resets the environment.

        Args:
            n_step: Stored transitions, summed over tasks. All sub-environments step together, so that the last vector
                step may overshoot by less than ``N``.
            n_episode: Episodes of *each* sub-environment, so that short episodes are not over-counted. Begins with
                fresh episodes; what a sub-environment does after its last one is neither stored nor counted, and
                the next call resets.
            random: Uniformly random actions, behaviour -1, instead of the policies'.
            progress: Show a progress bar (needs ``tqdm``).

        Returns:
            Statistics of this call alone.

        Raises:
            ValueError: Unless exactly one of ``n_step`` and ``n_episode`` is given, and is positive.
        """
        target = _exactly_one(n_step, n_episode)
        self._past.absorb(self._tally.stats())
        self._tally = self._no_stats()
        if n_episode is not None:
            if not self._started or self._episodes.lens.any() or self._episodes.ignored.any():
                self.reset()
            self._episodes.quota = np.full(self.num_envs, n_episode)
            target *= self.num_envs
        elif not self._started:
            self.reset()

        first = self._num_steps if n_step is not None else self._num_episodes
        try:
            with _progress_bar(target, "step" if n_step is not None else "episode", progress) as update:
                collected = 0
                while collected < target:
                    self._vector_step(random)
                    collected = (self._num_steps if n_step is not None else self._num_episodes) - first
                    update(collected)
        finally:
            if self._episodes.quota is not None:
                self._episodes.quota, self._started = None, False
                self._episodes.ignored[:] = False
        return self._tally.stats()

    def stats(self, *, clear: bool = False) -> CollectStats:
        """Statistics since construction, or since they were last cleared; ``clear=True`` starts anew."""
        stats = self._past.stats() + self._tally.stats()
        if clear:
            self._past, self._tally = self._no_stats(), self._no_stats()
        return stats

    def state_dict(self) -> State:
        """Everything that later steps depend on, as arrays and plain values.

        With it, and the callables' own state, collection continues exactly as if it had not stopped. The environment's
        state is part of it if ``envs.unwrapped`` has ``get_state``; if not, a continued collector starts new episodes.
        """
        get_envs = getattr(self.envs.unwrapped, "get_state", None)
        state: State = {name: copy.deepcopy(getattr(self, f"_{name}")) for name in _STATE}
        return state | {
            "episodes": self._episodes.state_dict(),
            "mixture": self._mixture.state_dict(),
            "random_actions": self._random_actions.np_random.bit_generator.state,
            "stats": copy.deepcopy(vars(self.stats())),
            "envs": get_envs() if get_envs is not None else None,
        }

    def load_state_dict(self, state: State) -> None:
        """Continue from ``state_dict()`` of a collector with as many sub-environments.

        Raises:
            ValueError: If the state is of another number of sub-environments or tasks.
        """
        num_tasks = len(state["stats"]["steps_per_task"])
        if num_tasks != self.num_tasks:
            raise ValueError(f"the state is of {num_tasks} tasks, this collector has {self.num_tasks}")
        self._episodes.load_state_dict(state["episodes"])
        self._mixture.load_state_dict(state["mixture"])
        for name in _STATE:
            setattr(self, f"_{name}", copy.deepcopy(state[name]))
        self._random_actions.np_random.bit_generator.state = state["random_actions"]
        self._past, self._tally = self._no_stats(), self._no_stats()
        self._past.absorb(CollectStats(**copy.deepcopy(state["stats"])))
        self._acted = None
        if state["envs"] is not None:
            cast(Any, self.envs.unwrapped).set_state(state["envs"])
        else:
            self._started = False

    def _no_stats(self) -> Tally:
        return Tally(self.num_tasks, self.num_policies, self._episodes.metrics)

    def _vector_step(self, random: bool) -> None:
        start = perf_counter()
        if self._episodes.needs_reset.any():
            self.reset(options={"reset_mask": self._episodes.needs_reset.copy()})
        reset = perf_counter()
        assert self._next_obs is not None
        if random:
            actions = np.array(self._random_actions.sample())
            no_one = np.full(self.num_envs, -1)
            self._acted = Decision(self._next_obs, actions.copy(), no_one, np.zeros(self.num_envs, np.int64))
        else:
            actions = self.act(self._next_obs)
        acted = perf_counter()
        try:
            outcome = self.envs.step(actions)
            stepped = perf_counter()
            self.observe(*outcome)
        finally:
            if self._acted is not None:  # failed or interrupted: the environments may have moved on unseen
                self._started = False
        sums = self._tally.sums
        sums["act_time"] += acted - reset
        sums["env_time"] += (reset - start) + (stepped - acted)
        sums["store_time"] += perf_counter() - stepped

    def _store(self, transitions: Transitions) -> None:
        if isinstance(self._sinks, list):
            for task in np.unique(transitions.task_ids):
                self._sinks[task].add(transitions[transitions.task_ids == task])
        elif self._sinks is not None and len(transitions):
            self._sinks.add(transitions)

    def _begin_episodes(self, rows: Mask) -> None:
        """The next action in ``rows`` is an episode's first."""
        self._episodes.begin(rows)
        self._mixture.forget(rows)

    def _checked_obs(self, obs: ArrayLike) -> NDArray[Any]:
        """A copy: environments may reuse their array, and callers may write to it."""
        checked = np.array(obs)
        expected = (self.num_envs, *(self.envs.single_observation_space.shape or ()))
        if checked.shape != expected:
            raise ValueError(
                f"expected observations of shape {expected}, one row per sub-environment, got {checked.shape}"
            )
        return checked

    def _checked_row(self, name: str, values: ArrayLike, dtype: Any) -> NDArray[Any]:
        row = np.array(values, dtype=dtype)
        if row.shape != (self.num_envs,):
            raise ValueError(f"expected {name} of shape ({self.num_envs},), got {row.shape}")
        return row


def _same(a: NDArray[Any], b: NDArray[Any] | None) -> bool:
    return b is not None and np.array_equal(a, b, equal_nan=a.dtype.kind == "f")


def _exactly_one(n_step: int | None, n_episode: int | None) -> int:
    if (n_step is None) == (n_episode is None):
        raise ValueError(f"give exactly one of n_step and n_episode, got n_step={n_step}, n_episode={n_episode}")
    name, amount = ("n_step", n_step) if n_step is not None else ("n_episode", n_episode or 0)
    if amount <= 0:
        raise ValueError(f"{name} must be positive, got {amount}")
    return amount


@contextmanager
def _progress_bar(total: int, unit: str, shown: bool) -> Iterator[Callable[[int], None]]:
    if not shown:
        yield lambda done: None
        return
    from tqdm import tqdm

    with tqdm(total=total, unit=unit) as bar:

        def show(done: int) -> None:
            bar.update(done - bar.n)

        yield show
