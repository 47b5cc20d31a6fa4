"""Evaluation: every task by its own policy, never by the mixture."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from gymnasium.vector import VectorEnv
from numpy.typing import ArrayLike

from qmp_collect.callables import is_per_task
from qmp_collect.collector import QMPCollector
from qmp_collect.episodes import Reduction
from qmp_collect.groups import Seeds
from qmp_collect.stats import CollectStats
from qmp_collect.switch import OwnPolicy


def evaluate(
    envs: VectorEnv[Any, Any, Any],
    own_policy: Callable[..., Any] | Sequence[Callable[..., Any]],
    *,
    episodes_per_env: int = 1,
    task_ids: ArrayLike | None = None,
    own_ids: ArrayLike | None = None,
    num_tasks: int | None = None,
    backend: str | None = None,
    device: Any = None,
    autoreset_mode: Any = None,
    success_key: str = "success",
    episode_metrics: Mapping[str, Reduction] | None = None,
    stop: Callable[[], Any] | Any = None,
    seed: Seeds = None,
) -> CollectStats:
    """Run ``episodes_per_env`` fresh episodes in each sub-environment and store nothing.

    The paper outputs the policies, not the mixture (algorithm 1), and so that is what is evaluated. Use other
    environments than those of training: this resets them.

    Args:
        envs: ``N`` sub-environments.
        own_policy: Batched ``own_policy(obs (N, *O), task_ids (N,)) -> actions (N, *A)``, or one policy per task.
            Of a `Proposal` with ``means``, those are executed; otherwise, hand over deterministic policies to evaluate
            deterministic policies.
        episodes_per_env: The quota of each sub-environment, so that short episodes are not over-counted.
        episode_metrics: As for `QMPCollector`.
        stop: As for `QMPCollector.collect`; what was stopped has ``stats.unfinished`` 1 and too few episodes.
        own_ids: As for `QMPCollector`: groups of rows, whose statistics are ``stats.by_group()``.
        seed: Of the environments' reset; of several groups, one each.

    Returns:
        Statistics with ``N * episodes_per_env`` episodes; ``stats.per_task(stats.successes)`` is ``(T,)``.
    """
    one_per_task = is_per_task(own_policy)
    collector = QMPCollector(
        envs,
        own_policy if one_per_task else None,
        None,
        own_policy=None if one_per_task else own_policy,  # type: ignore[arg-type]
        switch=OwnPolicy(means=True),
        task_ids=task_ids,
        own_ids=own_ids,
        num_tasks=num_tasks,
        backend=backend,
        device=device,
        autoreset_mode=autoreset_mode,
        success_key=success_key,
        episode_metrics=episode_metrics,
        seed=seed,
    )
    return collector.collect(n_episode=episodes_per_env, stop=stop)
