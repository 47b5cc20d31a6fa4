"""Groups of rows (`own_ids`): each is, bit for bit, what it would be in a collector of its own."""

from __future__ import annotations

import numpy as np
import pytest
from collect_envs import FIELDS, CountingEnv, Recorder, SnapshotVectorEnv

from qmp_collect import (
    CollectStats,
    JumpStart,
    LevyHorizon,
    OwnPolicy,
    OwnShareFloor,
    Proposal,
    QMPCollector,
    QSwitch,
    SoftmaxQSwitch,
    SuccessGate,
    UniformSwitch,
    all_of,
    evaluate,
)

S, T, K = 3, 2, 3
SEEDS = [7, 3, 11]
OF_ALL_TASKS = np.array([[1, 1, 0], [1, 1, 1]], bool)


def action_of(group, k, obs):
    return np.floor(16 * np.abs(np.sin(obs[:, 3:] * [5.0, 9.0] + 3 * group + k))) / 16


def value_of(group, task, obs, actions):
    return np.floor(8 * np.sin(actions.sum(-1) * (task + 1 + group) + 7 * obs[..., 3])) / 8


def learner(groups):
    """Batched callables of these groups, a row of which lie side by side: what a stacked learner gives."""

    def of_groups(rows):
        return zip(groups, np.split(rows, len(groups)), strict=True)

    def policies(obs):
        parts = [np.stack([action_of(g, k, o) for k in range(K)], 1) for g, o in of_groups(obs)]
        actions = np.concatenate(parts).astype(np.float32)
        return Proposal(actions, entropies=np.abs(actions).sum(-1))

    def q_functions(obs, actions, task_ids):
        assert sorted(set(task_ids)) == list(range(T * len(groups)))
        values = [
            value_of(groups[label // T], label % T, np.repeat(o[None], K, 0), a)
            for o, a, label in zip(obs, actions, task_ids, strict=True)
        ]
        return np.stack([np.stack(values), np.stack(values) / 2])

    return policies, q_functions


def envs_of(groups, mode):
    """Two rows of task 1 and one of task 0 in each group, with episodes of different lengths."""
    rows = [
        {"env_id": 10 * g + i, "lengths": lengths}
        for g in groups
        for i, lengths in enumerate([(4 + g, 3), (5,), (2, 7 + g)])
    ]
    return SnapshotVectorEnv([lambda r=r: CountingEnv(**r) for r in rows], autoreset_mode=mode)


OWN = np.array([1, 0, 1])
SETTINGS = {
    "default": {"switch": QSwitch(reduce="min")},
    "warm-up and own": {
        "switch": QSwitch(reduce="first"),
        "warmup_steps": 10,
        "own_probability": lambda steps: 0.5 if steps > 20 else 0.0,
    },
    "softmax": {"switch": SoftmaxQSwitch(0.3, reduce="mean"), "horizon": LevyHorizon(2.0, cap=4)},
    "uniform": {"switch": UniformSwitch(), "horizon": 2, "candidate_mask": OF_ALL_TASKS},
    "own": {"switch": OwnPolicy()},
    "relative": {
        "switch": QSwitch(reduce="first", margin=0.3, hysteresis=0.2, relative=True),
        "candidate_mask": lambda obs, ids: np.stack([ids < 5, ids > -1, (ids + obs[:, 2]) % 2 == 0], 1),
    },
    "gates": {
        "switch": QSwitch(reduce="first"),
        "candidate_mask": all_of(OwnShareFloor(0.4, steps=5), SuccessGate(0.4, episodes=4)),
    },
    "guide": {"switch": JumpStart([2, 0], 2, then=QSwitch(reduce="first")), "horizon": 2},
    "entropies": {"switch": QSwitch(reduce="first", entropy_weight=0.25)},
}


def collector_of(groups, mode, sink, **settings):
    policies, q_functions = learner(groups)
    labels = np.concatenate([OWN + g * T for g in range(len(groups))])
    seeds = [SEEDS[g] for g in groups]
    several = {"own_ids": labels % T, "seed": seeds} if len(groups) > 1 else {"seed": seeds[0]}
    arguments = {"task_ids": labels, "num_tasks": T * len(groups), "buffer": sink, **several, **settings}
    return QMPCollector(envs_of(groups, mode), policies, q_functions, **arguments)


def use(collector):
    """A few calls, and the statistics of all."""
    stats = [collector.collect(n_step=90), collector.collect(n_step=30, random=True), collector.collect(n_episode=2)]
    return [*stats, sum(stats[1:], stats[0])]


def assert_equal(ours: CollectStats, alone: CollectStats, ordered=False):
    for name, value in vars(alone).items():
        if name.endswith("_time"):
            continue
        mine = getattr(ours, name)
        assert mine.keys() == value.keys() if isinstance(value, dict) else np.array_equal(mine, value), name


@pytest.mark.parametrize("mode", ["NextStep", "SameStep", "Disabled"])
@pytest.mark.parametrize("name", SETTINGS)
def test_a_group_is_what_it_is_alone(name, mode):
    """Each has its own number of rows a step, its own clock, its own random numbers; ``collect`` ends for all."""
    sink, alone = Recorder(), [Recorder() for _ in range(S)]
    together = collector_of(range(S), mode, sink, **SETTINGS[name])
    assert (together.num_groups, together.num_tasks) == (S, S * T)
    together.collect(n_step=200)
    stats = together.stats().by_group()
    for g in range(S):
        single = collector_of([g], mode, alone[g], **SETTINGS[name])
        single.collect(n_step=stats[g].n_collected_steps)
        assert_equal(stats[g], single.stats())
        rows = sink.column("task_ids") // T == g
        for field in FIELDS:
            shift = {"task_ids": g * T, "env_ids": g * 3}.get(field, 0)
            mine, expected = sink.column(field)[rows], alone[g].column(field)
            np.testing.assert_array_equal(mine, expected + shift if shift else expected, err_msg=field)
    assert sum(s.n_collected_steps for s in stats) == together.num_steps >= 200
    if name == "default":
        counts = together.stats().behavior_counts
        assert counts.shape == (S * T, K)
        assert np.array_equal(
            together.stats().own_fraction, (counts / counts.sum(1, keepdims=True))[range(6), [0, 1] * 3]
        )


@pytest.mark.parametrize("name", ["relative", "gates", "softmax", "warm-up and own"])
def test_a_saved_collector_goes_on(name):
    sinks = [Recorder(), Recorder()]
    first = collector_of(range(S), "NextStep", sinks[0], **SETTINGS[name])
    first.collect(n_step=50)
    first.collect(n_step=9, random=True)
    state = first.state_dict()
    second = collector_of(range(S), "NextStep", sinks[1], **SETTINGS[name])
    second.load_state_dict(state)
    done = len(sinks[0])
    for collector in (first, second):
        use(collector)
    for field in FIELDS:
        np.testing.assert_array_equal(sinks[0].column(field)[done:], sinks[1].column(field), err_msg=field)
    with pytest.raises(ValueError, match="of 9 sub-environments, expected 3"):
        collector_of([0], "NextStep", None, **SETTINGS[name]).load_state_dict(state)


def test_a_broken_group_changes_no_value_of_another():
    """Its candidates and critics give NaN from some step on: the choices of the others are those without it."""
    clean, poisoned = Recorder(), Recorder()
    for sink, broken in ((clean, False), (poisoned, True)):
        policies, q_functions = learner(range(S))
        mine = np.repeat(np.arange(S), 3) == 1

        def q(obs, actions, ids, critics=q_functions, broken=broken, mine=mine):
            values = critics(obs, actions, ids)
            values[:, mine, 2:] = np.nan if broken else -9.0  # but the own ones, of which a collector complains
            return values

        labels = np.concatenate([OWN + g * T for g in range(S)])
        settings = {"task_ids": labels, "own_ids": labels % T, "num_tasks": S * T, "seed": SEEDS}
        switch = SoftmaxQSwitch(0.5, reduce="first")
        collector = QMPCollector(envs_of(range(S), "SameStep"), policies, q, buffer=sink, switch=switch, **settings)
        collector.collect(n_step=90)
    others = clean.column("task_ids") // T != 1
    for field in FIELDS:
        np.testing.assert_array_equal(poisoned.column(field)[others], clean.column(field)[others], err_msg=field)


def test_another_policy_and_evaluation():
    collector = collector_of(range(S), "SameStep", None, candidate_mask=OF_ALL_TASKS, switch=QSwitch(reduce="first"))
    collector.collect(n_step=30)
    policies = learner(range(S))[0]
    wider = lambda obs: np.concatenate([policies(obs).actions, np.ones((len(obs), 1, 2), np.float32)], 1)  # noqa: E731
    labels = collector.task_ids

    def q(obs, actions, ids):
        return np.broadcast_to(np.arange(4.0), actions.shape[:2])

    second = QMPCollector(
        envs_of(range(S), "SameStep"), wider, q, task_ids=labels, own_ids=labels % T, num_tasks=S * T, seed=SEEDS,
        candidate_mask=OF_ALL_TASKS,
    )  # fmt: skip
    second.add_policy(tasks=[1])
    second.load_state_dict(collector.state_dict())
    assert np.array_equal(second.collect(n_step=9).behavior_counts.sum(0), [0, 3, 0, 6])

    stats = evaluate(
        envs_of(range(S), "SameStep"), lambda obs, ids: np.zeros((len(obs), 2)), episodes_per_env=2, task_ids=labels,
        own_ids=labels % T, num_tasks=S * T, seed=SEEDS,
    )  # fmt: skip
    alone = evaluate(
        envs_of([2], "SameStep"), lambda obs, ids: np.zeros((len(obs), 2)), episodes_per_env=2, task_ids=OWN,
        num_tasks=T, seed=SEEDS[2],
    )  # fmt: skip
    assert_equal(stats.by_group()[2], alone)


def test_errors_name_the_task_and_the_row():
    policies, q_functions = learner(range(S))
    labels = np.concatenate([OWN + g * T for g in range(S)])

    def broken(obs):
        actions = policies(obs).actions.copy()
        actions[4, 0] = np.nan
        return actions

    settings = {"task_ids": labels, "own_ids": labels % T, "num_tasks": S * T, "seed": SEEDS}
    switch = QSwitch(reduce="first")
    collector = QMPCollector(envs_of(range(S), "SameStep"), broken, q_functions, switch=switch, **settings)
    with pytest.raises(FloatingPointError, match=r"task 2's Q-function .* \(sub-environment 4\)"):
        collector.collect(n_step=9)


@pytest.mark.parametrize(
    ("changed", "error"),
    [
        ({"own_ids": [0, 0, 1, 0, 1, 0, 0, 1, 1]}, "equally many tasks, one after the other"),
        ({"own_ids": [1, 0, 1]}, "own_ids must be 9 integers"),
        ({"own_ids": [0.0] * 9}, "own_ids must be 9 integers"),
        ({"num_tasks": 7}, "with num_tasks = S \\* T"),
        ({"num_tasks": 8}, "each with a row at least"),
        ({"seed": 3}, r"a seed for each of 3 groups .* write seed=\[1, 2"),
        ({"seed": [1, 2]}, "a seed for each of 3 groups"),
        ({"candidate_mask": np.ones((6, 3), bool)}, r"booleans of shape \(2, K\)"),
    ],
)
def test_what_cannot_be_meant(changed, error):
    policies, q_functions = learner(range(S))
    labels = np.concatenate([OWN + g * T for g in range(S)])
    settings = {"task_ids": labels, "own_ids": labels % T, "num_tasks": S * T, "seed": SEEDS, **changed}
    with pytest.raises(ValueError, match=error):
        QMPCollector(envs_of(range(S), "SameStep"), policies, q_functions, **settings)


def test_listed_policies_are_one_groups():
    labels = np.concatenate([OWN + g * T for g in range(S)])
    settings = {"task_ids": labels, "own_ids": labels % T, "num_tasks": S * T}
    policies = [lambda obs: np.zeros((len(obs), 2), np.float32)] * 6
    with pytest.raises(ValueError, match=r"write one batched function policies\(obs"):
        QMPCollector(envs_of(range(S), "SameStep"), policies, learner(range(S))[1], **settings)


def test_critics_may_be_a_list_one_per_label():
    labels = np.concatenate([OWN + g * T for g in range(S)])
    settings = {"task_ids": labels, "own_ids": labels % T, "num_tasks": S * T, "seed": SEEDS}
    critics = [lambda obs, a, t=t: value_of(t // T, t % T, obs, a) for t in range(S * T)]
    found = []
    for q_functions in (critics, lambda *asked: learner(range(S))[1](*asked)[0]):
        sink = Recorder()
        policies = learner(range(S))[0]
        QMPCollector(envs_of(range(S), "SameStep"), policies, q_functions, buffer=sink, **settings).collect(n_step=60)
        found.append(sink.column("behavior_ids"))
    assert np.array_equal(*found)


def test_statistics_of_other_groups_cannot_be_added():
    with pytest.raises(ValueError, match="of 1 groups, those to be added of 3"):
        CollectStats.empty(6, 6) + CollectStats.empty(6, 6, num_groups=3)
