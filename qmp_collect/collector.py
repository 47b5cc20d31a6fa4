"""QMPCollector: the collection loop between a multi-task vector environment and any off-policy learner."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from time import perf_counter
from typing import Any

import numpy as np

from qmp_collect.amount import asks_to_stop, exactly_one, progress_bar
from qmp_collect.loop import Loop
from qmp_collect.stats import CollectStats


class QMPCollector(Loop):
    """Collects transitions with a mixture of all tasks' policies; the learner's update stays as it is.

    At every step, for every sub-environment (task ``i``, state ``s``), each policy proposes an action, task ``i``'s
    Q-function scores the proposals, and ``switch`` picks the policy that acts (QMP, section 4.2 and algorithm 1).
    The callables read the learner's live parameters, so there is nothing to synchronise.

    ``N`` sub-environments, ``T`` tasks, ``K >= T`` policies, observations of shape ``O``, actions of shape ``A``.

    Args:
        envs: A Gymnasium vector environment with array actions. Observations are arrays, or (``Dict``, ``Tuple``) dicts
            and tuples of arrays, nested or not: callables get those, and transitions hold them as records.
        policies: One callable per policy, or one batched callable; see `qmp_collect.callables` for the forms.
        q_functions: One callable per task, or one batched callable. Which critic scores is the caller's choice.
        task_ids: ``(N,)`` integers, the task of each sub-environment. Default: ``envs.unwrapped.task_ids``, else
            ``0 .. N-1`` if there are as many tasks as sub-environments, and zeros if there is one task.
        own_ids: ``(N,)`` integers, which of a row's candidates is its own. Default: the task. Others make groups of
            rows with policies of their own, independent learners such as seeds: with ``own_ids = task_ids % T``, tasks
            ``0 .. T-1`` are the first group's, ``T .. 2T-1`` the second's, and a row's ``K`` candidates are those of
            its group; see `qmp_collect.groups`. ``policies`` is one batched callable then.
        num_tasks: ``T``. Needed only if neither the callables nor ``envs`` nor ``task_ids`` tell.
        buffer: Where transitions go: one sink with ``add(transitions)`` for all tasks, or a sequence of ``T``. They are
            there when ``observe`` or ``collect`` returns; within ``collect``, a sink may ask for blocks
            (`TransitionSink`).
        switch: Which policy acts; see `qmp_collect.switch`.
        candidate_mask: Which candidates may act: ``(T, K)`` booleans, a function ``(obs, task_ids) -> (N, K)``, a gate,
            or ``all_of`` several; see `qmp_collect.masks`. `OwnPolicy` and the warm-up are not affected.
        horizon: ``H``: a chosen policy acts for ``H`` steps, or until its episode ends, sampling afresh at each state
            (appendix E.6). A number, or a rule such as ``UniformHorizon(10, 30)``; see `qmp_collect.commitment`.
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
        seed: Of the switch's random numbers and of the first ``reset``. Of several groups, one each: a group does what
            it would do in a collector of its own with that seed.

    Raises:
        TypeError: ``envs`` is no vector environment, its spaces are no arrays, or a callable is none.
        ValueError: Shapes, task ids or numbers of callables that do not fit together.

    Examples:
        >>> import gymnasium as gym, numpy as np
        >>> envs = gym.make_vec("Pendulum-v1", num_envs=2)
        >>> policies = [lambda obs: np.zeros((len(obs), 1), np.float32), lambda obs: np.ones((len(obs), 1), np.float32)]
        >>> q_functions = [lambda obs, actions: -(actions[:, 0] ** 2), lambda obs, actions: actions[:, 0]]
        >>> collector = QMPCollector(envs, policies, q_functions, seed=0)
        >>> collector.collect(n_step=10).mixture
        array([[1., 0.],
               [0., 1.]])
    """

    def collect(
        self,
        *,
        n_step: int | None = None,
        n_episode: int | None = None,
        random: bool = False,
        stop: Callable[[], Any] | Any = None,
        resume: bool = False,
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
            stop: Asked before every vector step: a function, or an object whose truth may change. When it is true,
                the call returns what it has, with ``stats.unfinished`` 1. Steps go on at the next call as if nothing
                had happened; episodes are given up, and a new call begins with fresh ones.
            resume: Go on with the last call, which was stopped: ``n_step`` and the statistics count both together, and
                come out as those of one call that nobody stopped.
            progress: Show a progress bar (needs ``tqdm``).

        Returns:
            Statistics of this call alone.

        Raises:
            ValueError: Unless exactly one of ``n_step`` and ``n_episode`` is given, and is positive; for ``resume``
                with ``n_episode``.
            RuntimeError: ``resume``, but the last call was not stopped.
        """
        target, stopping = exactly_one(n_step, n_episode), asks_to_stop(stop)
        if resume and n_step is None:
            raise ValueError("resume=True goes on with steps: expected n_step, got n_episode")
        if resume and not self._ledger.stretch().unfinished:
            raise RuntimeError(
                "resume=True, but there is no stopped call to go on with: the last one collected enough or failed, or "
                "its statistics were cleared"
            )
        self._ledger.begin(self.num_policies, resume)
        if n_episode is not None:
            if not self._started or self._episodes.lens.any() or self._episodes.ignored.any():
                self.reset()
            self._episodes.quota = np.full(self.num_envs, n_episode)
            target *= self.num_envs
        elif not self._started:
            self.reset()

        counted = "num_steps" if n_step is not None else "num_episodes"
        collected = self._ledger.stretch().n_collected_steps if resume else 0
        first = getattr(self, counted) - collected
        try:
            with self._in_blocks(), progress_bar(target, counted[4:-1], progress) as update:
                while collected < target:
                    if stopping():
                        self._ledger.add(unfinished=1)
                        break
                    self._vector_step(random)
                    collected = getattr(self, counted) - first
                    update(collected)
        finally:
            if self._episodes.quota is not None:
                self._episodes.quota, self._started = None, False
                self._episodes.ignored[:] = False
        return self._ledger.stretch()

    def stats(self, *, clear: bool = False) -> CollectStats:
        """Statistics since construction, or since they were last cleared; ``clear=True`` starts anew.

        They grow by a few numbers with every episode: a loop that runs for weeks clears them now and then.
        """
        stats = self._ledger.total()
        if clear:
            self._ledger.clear(self.num_policies)
        return stats

    @contextmanager
    def _in_blocks(self) -> Iterator[None]:
        """Sinks that ask for blocks get them within; not where ``on_step`` may look at them."""
        if self._on_step is None:
            self._sinks.hold()
        try:
            yield
        finally:
            start = perf_counter()
            self._sinks.release()
            self._ledger.add(store_time=perf_counter() - start)

    def _vector_step(self, random: bool) -> None:
        start = perf_counter()
        if self._episodes.needs_reset.any():
            self.reset(options={"reset_mask": self._episodes.needs_reset.copy()})
        reset = perf_counter()
        assert self._next_obs is not None
        actions = self.act(self._next_obs, random=random)
        acted = perf_counter()
        try:
            outcome = self.envs.step(actions)
            stepped = perf_counter()
            self.observe(*outcome)
        finally:
            if self._acted is not None:  # failed or interrupted: the environments may have moved on unseen
                self._started = False
        self._sinks.hand_on_block()
        self._ledger.add(
            act_time=acted - reset, env_time=(reset - start) + (stepped - acted), store_time=perf_counter() - stepped
        )
