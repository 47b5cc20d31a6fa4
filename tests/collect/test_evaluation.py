"""Evaluation runs every task's own policy, a fixed quota of episodes per env, the same way every time."""

from __future__ import annotations

import numpy as np
import pytest
from collect_envs import MODES, Recorder, RingEnv, episodes_of, make_envs, policy, q_function, scalar_loop
from gymnasium.vector import SyncVectorEnv

from qmp_collect import QMPCollector, evaluate

TASKS = [0, 1, 0]
SETTINGS = [
    {"lengths": (2, 3), "ends": ("both", "truncated", "terminated")},
    {"lengths": (1, 4)},
    {"lengths": (5,), "ends": ("terminated",)},
]
POLICIES = [policy(0), policy(1)]


def by_hand(episodes: int, seed: int):
    """The episodes of the own policies alone: a mixture of one policy."""
    rows = [
        scalar_loop(SETTINGS[i], i, 0, [POLICIES[task]], q_function(0), episodes=episodes, seed=seed)[1]
        for i, task in enumerate(TASKS)
    ]
    return sorted(e._replace(task=TASKS[i]) for i, episodes_ in enumerate(rows) for e in episodes_)


def batched(obs, task_ids):
    return np.stack([POLICIES[t](o[None])[0] for o, t in zip(obs, task_ids, strict=True)])


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("own_policy", [POLICIES, batched], ids=["listed", "batched"])
@pytest.mark.parametrize("episodes_per_env", [1, 4])
def test_own_policies_and_a_fixed_quota_per_env(mode, own_policy, episodes_per_env):
    stats = evaluate(
        make_envs(*SETTINGS, mode=mode),
        own_policy,
        episodes_per_env=episodes_per_env,
        task_ids=TASKS,
        num_tasks=2,
        seed=4,
    )
    assert episodes_of(stats) == by_hand(episodes_per_env, seed=4)
    assert np.bincount(stats.episode_task_ids).tolist() == [2 * episodes_per_env, episodes_per_env]
    np.testing.assert_array_equal(stats.behavior_counts, np.diag(stats.behavior_counts.diagonal()))
    assert stats.behavior_counts.sum() == stats.n_collected_steps == stats.lens.sum()


@pytest.mark.parametrize("mode", MODES)
def test_a_second_evaluation_in_the_same_envs_gives_the_same(mode):
    envs = make_envs(*SETTINGS, mode=mode)
    results = [episodes_of(evaluate(envs, POLICIES, episodes_per_env=n, task_ids=TASKS, seed=9)) for n in (3, 1, 3)]
    assert results[0] == results[2] == by_hand(3, seed=9)
    assert results[1] == by_hand(1, seed=9)


def test_a_policy_is_asked_about_its_own_task_only():
    asked = [set(), set()]

    def watched(k):
        def act(obs):
            asked[k] |= set(obs[:, 0].tolist())
            return POLICIES[k](obs)

        return act

    evaluate(make_envs(*SETTINGS), [watched(0), watched(1)], task_ids=TASKS, seed=0)
    assert asked == [{0, 2}, {1}]


def test_training_goes_on_as_if_nobody_had_evaluated():
    """Evaluation has envs and random numbers of its own: the collector's next transitions do not move."""
    sinks = []
    for evaluating in (False, True):
        sinks.append(Recorder())
        collector = QMPCollector(
            make_envs(*SETTINGS),
            POLICIES,
            [q_function(t) for t in range(2)],
            task_ids=TASKS,
            buffer=sinks[-1],
            own_probability=0.5,
            seed=0,
        )
        for _ in range(4):
            collector.collect(n_step=10)
            if evaluating:
                evaluate(make_envs(*SETTINGS), POLICIES, task_ids=TASKS, seed=1)
    for field in ("obs", "actions", "behavior_ids"):
        np.testing.assert_array_equal(sinks[0].column(field), sinks[1].column(field))


def test_torch_policies_run_without_gradients_in_the_callers_mode():
    torch = pytest.importorskip("torch")

    class Actor(torch.nn.Linear):
        def forward(self, obs):
            assert (torch.is_grad_enabled(), self.training, obs.dtype) == (False, False, torch.float32)
            return super().forward(obs).sigmoid()

    actors = torch.nn.ModuleList([Actor(4, 2), Actor(4, 2)]).eval()
    stats = evaluate(make_envs(*SETTINGS), actors, task_ids=TASKS, seed=0)
    assert stats.n_collected_episodes == 3
    assert not actors.training


def test_the_success_flag_may_have_another_name():
    class Solved(RingEnv):
        def step(self, action):
            *rest, info = super().step(action)
            return *rest, info | {"is_solved": self.t == 2}

    envs = SyncVectorEnv([lambda: Solved(limit=2), lambda: Solved(limit=1)])
    own = [lambda obs: np.zeros(len(obs), np.int64)] * 2
    for key, expected in (("is_solved", [True, False]), ("success", [False, False])):
        stats = evaluate(envs, own, task_ids=[0, 1], success_key=key, seed=0)
        assert stats.per_task(stats.successes).astype(bool).tolist() == expected


def test_tasks_without_a_success_flag_never_succeed():
    envs = SyncVectorEnv([lambda: RingEnv(limit=6)] * 2, autoreset_mode="SameStep")
    stats = evaluate(envs, [lambda obs: np.zeros(len(obs), np.int64)] * 2, episodes_per_env=2, seed=0)
    assert stats.returns.tolist() == [6.0] * 4
    assert stats.successes.tolist() == [False] * 4
