"""QMPCollector over time: who decides when, what is counted, and what a crash, a NaN or a restart leaves behind."""

from __future__ import annotations

import copy
import dataclasses
import functools
import operator
from collections.abc import Iterator
from itertools import pairwise
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from collect_envs import (
    FIELDS,
    MODES,
    CountingEnv,
    EngineError,
    Recorder,
    SnapshotVectorEnv,
    assert_rows,
    assert_same,
    best_policy,
    endless,
    episodes_of,
    make_envs,
    policy,
    q_function,
    scalar_loop,
)

from qmp_collect import (
    CollectStats,
    FixedSwitch,
    OwnPolicy,
    QMPCollector,
    QSwitch,
    SoftmaxQSwitch,
    Transitions,
    UniformSwitch,
)
from qmp_collect.runs.checkpoint import load_checkpoint, save_checkpoint

TASKS = [0, 1, 0]
LENGTHS = [{"lengths": (7,)}, {"lengths": (4, 5)}, {"lengths": (10,)}]
ALWAYS_FOREIGN = FixedSwitch(np.array([[0.0, 0.0, 1.0], [0.0, 0.0, 1.0]]))
POLICIES = [policy(k) for k in range(3)]
QS = [q_function(t) for t in range(2)]


def forbidden(*_: Any) -> Any:
    raise AssertionError("this callable must not be asked")


def collector_for(envs, sink=None, *, policies=POLICIES, qs=QS, task_ids=TASKS, seed=0, **kwargs):
    return QMPCollector(envs, policies, qs, task_ids=task_ids, buffer=sink, seed=seed, **kwargs)


def run(envs=None, *, n_step=300, reset_seed=1, **kwargs) -> Recorder:
    sink = Recorder()
    collector = collector_for(envs or make_envs(*LENGTHS), sink, **kwargs)
    collector.reset(seed=reset_seed)
    collector.collect(n_step=n_step)
    return sink


def episodes_in(rows: dict[str, np.ndarray]) -> Iterator[dict[str, np.ndarray]]:
    """One env's rows, episode by episode."""
    for episode in np.unique(rows["obs"][:, 1]):
        yield {field: rows[field][rows["obs"][:, 1] == episode] for field in FIELDS}


def assert_equal_stats(a, b) -> None:
    """Equal in everything that no clock measures."""
    assert (a.n_collected_steps, a.n_collected_episodes) == (b.n_collected_steps, b.n_collected_episodes)
    assert episodes_of(a) == episodes_of(b)
    np.testing.assert_array_equal(a.behavior_counts, b.behavior_counts)
    np.testing.assert_allclose(a.q_gap, b.q_gap, rtol=1e-12)


# ---- no sharing ----


def noisy(k: int):
    """A policy that draws from its own generator: one call too many, or one row too many, and its actions differ."""
    rng = np.random.default_rng(k)
    return lambda obs: (POLICIES[k](obs) + rng.random((len(obs), 2)) / 16).astype(np.float32) / 2


@pytest.mark.parametrize("num_policies", [2, 3])
def test_own_policy_is_byte_identical_to_a_hand_written_loop(num_policies):
    sink = run(
        policies=[noisy(0), noisy(1), forbidden][:num_policies], qs=[forbidden] * 2, switch=OwnPolicy(), n_step=90
    )

    envs, own, task_ids = make_envs(*LENGTHS), [noisy(0), noisy(1)], np.array(TASKS)
    obs, _ = envs.reset(seed=1)
    for step in range(30):
        actions = np.empty((3, 2), np.float32)
        for task in range(2):
            actions[task_ids == task] = own[task](obs[task_ids == task])
        next_obs, rewards, *_ = envs.step(actions)
        part = sink.parts[step]
        assert part.actions.tobytes() == actions.tobytes()
        assert part.obs.tobytes() == obs.tobytes()
        np.testing.assert_array_equal(part.rewards, rewards)
        assert part.behavior_ids.tolist() == TASKS
        obs = next_obs


def generator_states(tree: Any) -> list[Any]:
    """Every numpy generator state inside a state dict but those of the environments."""
    if isinstance(tree, dict):
        if "bit_generator" in tree:
            return [tree]
        tree = [part for name, part in tree.items() if name != "environment"]
    return [found for item in tree for found in generator_states(item)] if isinstance(tree, (list, tuple)) else []


def test_own_policy_draws_nothing_from_the_generator():
    states = {}
    for switch in (OwnPolicy(), UniformSwitch()):
        collector = collector_for(make_envs(*LENGTHS), switch=switch)
        collector.reset(seed=1)
        before = copy.deepcopy(generator_states(collector.state_dict()))
        collector.collect(n_step=60)
        states[type(switch)] = before, generator_states(collector.state_dict())
    assert states[OwnPolicy][0]
    assert states[OwnPolicy][0] == states[OwnPolicy][1]
    assert states[UniformSwitch][0] != states[UniformSwitch][1]


def batched_own_policy(obs, task_ids):
    assert obs.shape == (3, 4)
    assert np.asarray(task_ids).tolist() == TASKS
    return np.stack([POLICIES[t](o[None])[0] for o, t in zip(obs, task_ids, strict=True)])


def test_a_batched_own_policy_stands_in_for_policies_and_q_functions():
    listed = run(switch=OwnPolicy())
    alone = run(switch=OwnPolicy(), policies=None, qs=None, own_policy=batched_own_policy, num_tasks=2)
    preferred = run(switch=OwnPolicy(), policies=[forbidden] * 3, own_policy=batched_own_policy)
    assert_same(alone.columns(), listed.columns())
    assert_same(preferred.columns(), listed.columns())


# ---- who decides when ----


@pytest.mark.parametrize("horizon", [1, 3, 4, 50])
@pytest.mark.parametrize("mode", MODES)
def test_horizon_holds_the_policy_and_samples_afresh(mode, horizon):
    """The scalar loop decides at t = 0, H, 2H, ... of every episode; in between that policy sees every new state."""
    sink = Recorder()
    collector = collector_for(make_envs(*LENGTHS, mode=mode), sink, horizon=horizon)
    collector.reset(seed=1)
    collector.collect(n_episode=4)
    for i, (options, task) in enumerate(zip(LENGTHS, TASKS, strict=True)):
        rows, _ = scalar_loop(options, i, task, POLICIES, QS[task], episodes=4, seed=1, horizon=horizon)
        assert_rows(sink.of_env(i), rows)


def test_random_choices_are_held_in_blocks_and_drawn_afresh_at_every_episode():
    sink = run(switch=UniformSwitch(), horizon=3, n_step=900)
    first_choices, changes = [], 0
    for i in range(3):
        for episode in episodes_in(sink.of_env(i)):
            blocks = [episode["behavior_ids"][at : at + 3] for at in range(0, len(episode["obs"]), 3)]
            assert all(len(set(block)) == 1 for block in blocks)
            first_choices.append(blocks[0][0])
            changes += sum(a[0] != b[0] for a, b in pairwise(blocks))
    assert set(first_choices) == {0, 1, 2}
    assert changes > 50
    rows = sink.columns()
    expected = np.stack([p(rows["obs"]) for p in POLICIES])[rows["behavior_ids"], np.arange(len(sink))]
    np.testing.assert_array_equal(rows["actions"], expected)


def test_warmup_counts_transitions_and_needs_no_scores():
    """Three rows a step: the steps that begin at 0, 3 and 6 stored transitions lie within a warm-up of 7."""
    asked = []

    def q(obs, actions):
        asked.append(len(obs))
        return QS[0](obs, actions)

    sink = Recorder()
    collector = collector_for(endless(3), sink, qs=[q, q], switch=QSwitch(), warmup_steps=7)
    collector.reset(seed=1)
    collector.collect(n_step=9)
    assert sink.column("behavior_ids").tolist() == TASKS * 3
    assert not asked
    collector.collect(n_step=3)
    assert asked
    behaviours = run(endless(3), switch=ALWAYS_FOREIGN, warmup_steps=7, n_step=12).column("behavior_ids")
    assert behaviours.tolist() == TASKS * 3 + [2] * 3


def test_warmup_asks_own_policy_then_policies():
    def own_policy(obs, task_ids):
        return np.ones((3, 2), np.float32)

    rows = run(endless(3), switch=ALWAYS_FOREIGN, warmup_steps=6, n_step=9, own_policy=own_policy).columns()
    np.testing.assert_array_equal(rows["actions"][:6], 1.0)
    np.testing.assert_array_equal(rows["actions"][6:], POLICIES[2](rows["obs"][6:]))


@pytest.mark.parametrize(("probability", "behaviour"), [(1.0, TASKS), (0.0, [2, 2, 2])])
def test_own_probability_at_its_ends(probability, behaviour):
    sink = run(switch=ALWAYS_FOREIGN, own_probability=probability, n_step=30)
    assert sink.column("behavior_ids").tolist() == behaviour * 10


def test_own_probability_is_an_independent_draw_per_decision():
    own = run(switch=ALWAYS_FOREIGN, own_probability=0.7, n_step=6000).column("behavior_ids") != 2
    sigma = np.sqrt(0.7 * 0.3)
    assert abs(own.mean() - 0.7) < 4 * sigma / np.sqrt(len(own))
    by_env = own.reshape(-1, 3)
    for a, b in [(by_env[:, 0], by_env[:, 1]), (by_env[:, 0], by_env[:, 2]), (own[:-3], own[3:])]:
        assert abs(np.mean(a & b) - 0.49) < 4 * 0.5 / np.sqrt(len(a)), "draws of two rows or two steps are tied"


def test_own_probability_with_a_horizon_is_one_draw_per_block():
    sink = run(switch=ALWAYS_FOREIGN, own_probability=0.5, horizon=4, n_step=900)
    kinds = set()
    for i in range(3):
        for episode in episodes_in(sink.of_env(i)):
            for at in range(0, len(episode["obs"]), 4):
                block = set(episode["behavior_ids"][at : at + 4].tolist())
                assert len(block) == 1
                kinds |= block
    assert kinds == {0, 1, 2}


def test_own_probability_schedule_is_asked_with_the_number_of_steps():
    asked = []

    def schedule(step):
        asked.append(step)
        return 1.0 if step < 9 else 0.0

    sink = run(endless(3), switch=ALWAYS_FOREIGN, own_probability=schedule, n_step=18)
    assert sink.column("behavior_ids").tolist() == TASKS * 3 + [2] * 9
    assert asked == [0, 3, 6, 9, 12, 15]


def test_episode_start_tells_of_resets_by_other_hands():
    """The caller resets env 1 in mid-episode, with all the others at the start: a held choice does not survive that."""
    sink = Recorder()
    envs = make_envs(*[{"lengths": (20,)}] * 3, mode="Disabled")
    collector = collector_for(envs, sink, horizon=100)
    obs, _ = envs.reset(seed=1)
    start = np.ones(3, bool)
    for t in range(20):
        if t == 6:
            start = np.array([False, True, False])
            obs, _ = envs.reset(options={"reset_mask": start.copy()})
        outcome = envs.step(collector.act(obs, episode_start=start))
        obs, start = outcome[0], np.zeros(3, bool)
        collector.observe(*outcome)
    for i, (task, starts) in enumerate(zip(TASKS, [[0], [0, 6], [0]], strict=True)):
        rows = sink.of_env(i)
        for at, end in zip(starts, [*starts[1:], 20], strict=True):
            assert rows["obs"][at, 2] == 0
            chosen = best_policy(rows["obs"][at], task, POLICIES, QS[task])
            assert rows["behavior_ids"][at:end].tolist() == [chosen] * (end - at)
    rows = sink.of_env(1)
    assert rows["behavior_ids"][5] != rows["behavior_ids"][6], "the two episodes are meant to choose differently"
    assert collector.stats().lens.tolist() == [20, 20]


def test_random_steps_are_uniform_in_the_action_space_and_belong_to_nobody():
    sink = Recorder()
    collector = collector_for(
        make_envs(*LENGTHS), sink, policies=[forbidden] * 3, qs=[forbidden] * 2, switch=UniformSwitch()
    )
    collector.reset(seed=1)
    stats = collector.collect(n_step=3000, random=True)
    actions = sink.column("actions")
    assert set(sink.column("behavior_ids")) == {-1}
    assert actions.min() >= 0
    assert actions.max() <= 1
    assert len(np.unique(actions)) > 5900
    np.testing.assert_allclose(actions.mean(0), 0.5, atol=0.03)
    np.testing.assert_allclose(actions.std(0), 1 / np.sqrt(12), atol=0.02)
    assert stats.n_collected_steps == 3000
    assert stats.behavior_counts.sum() == 0
    assert collector.num_steps == 3000


# ---- the same again, exactly ----


def stochastic(envs, sink, seed=0, **kwargs):
    """A collector in which everything that can be random is."""
    settings = {"switch": SoftmaxQSwitch(0.1), "own_probability": 0.3, "horizon": 3, **kwargs}
    return collector_for(envs, sink, seed=seed, **settings)


@pytest.mark.parametrize("random", [False, True])
def test_one_seed_gives_the_same_transitions_and_another_gives_others(random):
    """The constructor's seed alone decides, without a call of `reset`."""
    sinks = []
    for seed in (7, 7, 8):
        sinks.append(Recorder())
        stochastic(make_envs(*LENGTHS), sinks[-1], seed=seed).collect(n_step=120, random=random)
    assert_same(sinks[0].columns(), sinks[1].columns())
    for field in ("obs", "actions"):
        assert (sinks[0].column(field) != sinks[2].column(field)).any(), field


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("through_a_file", [False, True])
@pytest.mark.parametrize("random", [False, True])
def test_state_dict_continues_exactly_in_the_middle_of_episodes(mode, through_a_file, random, tmp_path):
    def build(sink, seed):
        return stochastic(make_envs(*LENGTHS, mode=mode, vector=SnapshotVectorEnv), sink, seed=seed)

    first = Recorder()
    original = build(first, seed=5)
    original.collect(n_step=47)  # within episodes, within held choices
    state = original.state_dict()
    if through_a_file:
        save_checkpoint(tmp_path / "state.npz", state)
        state = load_checkpoint(tmp_path / "state.npz")
    expected_part = len(first.parts)
    expected_stats = original.collect(n_step=60, random=random)

    second = Recorder()
    restored = build(second, seed=99)
    restored.collect(n_step=20)
    restored.load_state_dict(state)
    second.parts.clear()
    stats = restored.collect(n_step=60, random=random)
    first.parts = first.parts[expected_part:]
    assert_same(second.columns(), first.columns())
    assert episodes_of(stats) == episodes_of(expected_stats)
    assert (restored.num_steps, restored.num_episodes) == (original.num_steps, original.num_episodes)


def test_state_dict_is_a_snapshot():
    collector = stochastic(make_envs(*LENGTHS, vector=SnapshotVectorEnv), Recorder())
    collector.collect(n_step=30)
    state = collector.state_dict()
    kept = copy.deepcopy(state)
    collector.collect(n_step=30)
    np.testing.assert_equal(state, kept)


# ---- when something breaks ----


class Boundary:
    """Policy or critic that answers NaN outside its own task's envs, and what it would say otherwise."""

    def __init__(self, inner, envs_of_task):
        self.inner, self.envs_of_task = inner, envs_of_task

    def __call__(self, obs, *actions):
        answer = np.array(self.inner(obs, *actions), float)
        answer[~np.isin(obs[:, 0], self.envs_of_task)] = np.nan
        return answer


@pytest.mark.parametrize("switch", [QSwitch(), SoftmaxQSwitch(0.1)], ids=["argmax", "softmax"])
@pytest.mark.parametrize("horizon", [1, 3])
@pytest.mark.parametrize("critics_notice", [True, False])
def test_a_policy_that_is_nan_elsewhere_costs_its_proposals_only(switch, horizon, critics_notice):
    """Policy 1 is finite in its own task (env 1) and NaN in task 0: it is never chosen there, task 1 sees no change.

    Critics may hide it: a clamped Q-value of a NaN action can be finite, even the best.
    """

    def hiding(q):
        return lambda obs, actions: np.nan_to_num(q(obs, actions), nan=100.0)

    kwargs = {"switch": switch, "horizon": horizon, "qs": QS if critics_notice else [hiding(q) for q in QS]}
    healthy = run(**kwargs)
    broken = run(policies=[POLICIES[0], Boundary(POLICIES[1], [1]), POLICIES[2]], **kwargs)
    assert_same(broken.of_task(1), healthy.of_task(1))
    assert 1 in healthy.of_task(0)["behavior_ids"]
    assert 1 not in broken.of_task(0)["behavior_ids"]
    for field in FIELDS:
        assert np.isfinite(broken.column(field)).all(), field


@pytest.mark.parametrize("switch", [QSwitch(), SoftmaxQSwitch(0.1)], ids=["argmax", "softmax"])
@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_a_critic_that_is_non_finite_for_foreign_actions_moves_nobody_else(switch, bad):
    """Task 1's critic knows its own policy's actions only: task 1 keeps to itself, task 0's data stay the same."""

    def q(obs, actions):
        return np.where((actions == POLICIES[1](obs)).all(-1), QS[1](obs, actions), bad)

    healthy, broken = run(switch=switch), run(switch=switch, qs=[QS[0], q])
    assert_same(broken.of_task(0), healthy.of_task(0))
    assert len(set(healthy.of_task(1)["behavior_ids"])) == 3
    rows = broken.of_task(1)
    np.testing.assert_array_equal(rows["actions"], POLICIES[1](rows["obs"]))


@pytest.mark.parametrize("culprit", ["policy", "critic"])
@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("switch", [QSwitch(), SoftmaxQSwitch(1.0)], ids=["argmax", "softmax"])
def test_a_non_finite_own_candidate_stops_at_the_step_it_happens(culprit, bad, switch):
    """Task 1 diverges at t = 4: the error says who and when, and all that was stored before is untouched."""

    def diverging(inner):
        def f(obs, *actions):
            answer = np.array(inner(obs, *actions), float)
            answer[(obs[:, 2] == 4) & (obs[:, 0] == 1)] = bad
            return answer

        return f

    broken = (
        {"policies": [POLICIES[0], diverging(POLICIES[1]), POLICIES[2]]}
        if culprit == "policy"
        else {"qs": [QS[0], diverging(QS[1])]}
    )
    sink = Recorder()
    collector = collector_for(endless(3), sink, switch=switch, **broken)
    collector.reset(seed=1)
    with np.errstate(all="ignore"), pytest.raises(FloatingPointError, match=r"(?is)task\s*=?\s*1\b") as error:
        collector.collect(n_step=30)
    for pattern in (r"(?is)policy\s*=?\s*1\b", r"(?is)step\s*=?\s*12\b"):
        assert error.match(pattern)
    assert collector.num_steps == len(sink) == collector.stats().n_collected_steps == 12
    healthy = run(endless(3), switch=switch, n_step=12)
    assert_same(sink.columns(), healthy.columns())


def test_what_is_asked_where_envs_only_reset_themselves_may_be_nan():
    """NEXT_STEP: the answer to an episode's last observation is never executed, so it cannot be wrong."""
    last = {0: 7, 1: 4, 2: 10}

    def undefined_at_the_end(inner):
        def f(obs, *actions):
            answer = np.array(inner(obs, *actions), float)
            answer[obs[:, 2] == [last[int(i)] for i in obs[:, 0]]] = np.nan
            return answer

        return f

    settings = [{"lengths": (n,)} for n in last.values()]
    wrapped = {"policies": [undefined_at_the_end(p) for p in POLICIES], "qs": [undefined_at_the_end(q) for q in QS]}
    for switch in (QSwitch(), SoftmaxQSwitch(0.1), OwnPolicy()):
        ran = [run(make_envs(*settings, mode="NextStep"), switch=switch, **kwargs) for kwargs in ({}, wrapped)]
        assert_same(ran[1].columns(), ran[0].columns())


@pytest.mark.parametrize("through", ["collect", "act and observe"])
def test_an_exception_in_a_step_passes_through_unchanged(through):
    """Env 1 fails in the sixth vector step, after env 0 has been stepped: five whole steps remain."""
    settings = [dict(options) for options in LENGTHS]
    settings[1]["fail_at"] = 5
    sink = Recorder()
    envs = make_envs(*settings)
    collector = collector_for(envs, sink)
    obs, _ = collector.reset(seed=1)

    def loop(obs):
        while True:
            obs, *rest = envs.step(collector.act(obs))
            collector.observe(obs, *rest)

    with pytest.raises(EngineError) as error:
        collector.collect(n_step=300) if through == "collect" else loop(obs)
    assert error.value.__cause__ is None
    assert error.value.args == ("env 1 diverged",)
    healthy = collector_for(make_envs(*LENGTHS), whole := Recorder())
    healthy.reset(seed=1)
    healthy.collect(n_step=15)
    assert_same(sink.columns(), whole.columns())
    assert_equal_stats(collector.stats(), healthy.stats())
    assert (collector.num_steps, collector.num_episodes) == (15, 1)  # env 1's first episode had four steps


# ---- sinks, hooks, statistics ----


def test_one_sink_or_one_sink_per_task():
    together, apart = Recorder(), [Recorder(), Recorder()]
    for buffer in (together, apart):
        collector = collector_for(make_envs(*LENGTHS), buffer)
        collector.reset(seed=1)
        collector.collect(n_episode=3)
    for task, sink in enumerate(apart):
        assert_same(sink.columns(), together.of_task(task))


def test_one_sink_listed_for_several_tasks_gets_every_row_once():
    """A sequence of T sinks may name the same one twice."""
    sink = Recorder()
    collector = collector_for(make_envs(*LENGTHS), [sink, sink])
    collector.reset(seed=1)
    collector.collect(n_step=30)
    assert len(sink) == 30
    assert_same(sink.of_task(1), run(n_step=30).of_task(1))


@pytest.mark.parametrize("mode", MODES)
def test_on_step_sees_every_transition_once(mode):
    seen = Recorder()

    def on_step(*args):
        (transitions,) = (arg for arg in args if isinstance(arg, Transitions))
        seen.add(transitions)

    sink = Recorder()
    collector = collector_for(make_envs(*LENGTHS, mode=mode), sink, on_step=on_step)
    collector.reset(seed=1)
    collector.collect(n_episode=2)
    assert_same(seen.columns(), sink.columns())


def test_properties():
    collector = collector_for(make_envs(*LENGTHS))
    assert (collector.num_steps, collector.num_episodes) == (0, 0)
    assert (collector.num_envs, collector.num_tasks, collector.num_policies) == (3, 2, 3)
    np.testing.assert_array_equal(collector.task_ids, TASKS)
    np.testing.assert_array_equal(collector.stats().behavior_counts, np.zeros((2, 3)))


def test_sub_environments_of_the_only_task_need_no_task_ids():
    collector = QMPCollector(endless(3), [policy(0), policy(1)], [q_function(0)])
    assert (collector.num_tasks, collector.task_ids.tolist()) == (1, [0, 0, 0])
    assert collector.collect(n_step=6).behavior_counts.shape == (1, 2)


def test_task_ids_come_from_the_env_or_from_counting():
    envs = make_envs(*LENGTHS)
    assert collector_for(envs, task_ids=None, qs=QS + QS[:1]).task_ids.tolist() == [0, 1, 2]
    envs.task_ids = np.array([1, 0, 1])
    assert collector_for(envs, task_ids=None).task_ids.tolist() == [1, 0, 1]
    wrapped = gym.wrappers.vector.RecordEpisodeStatistics(envs)
    assert collector_for(wrapped, task_ids=None).task_ids.tolist() == [1, 0, 1]


def test_stats_of_two_calls_add_up_to_the_stats_of_the_collector():
    collector = collector_for(make_envs(*LENGTHS), Recorder())
    collector.reset(seed=1)
    first, second = collector.collect(n_step=33), collector.collect(n_step=90)
    assert (first.q_gap != second.q_gap).any()
    merged = first + second
    assert merged.n_collected_steps == 123
    assert_equal_stats(merged, collector.stats())
    for part in ("act_time", "env_time", "store_time", "collect_time"):
        assert getattr(merged, part) == pytest.approx(getattr(first, part) + getattr(second, part))
    # A second reading changes nothing, clearing starts anew and leaves the counters.
    assert_equal_stats(collector.stats(clear=True), merged)
    assert collector.stats().n_collected_steps == collector.stats().n_collected_episodes == 0
    assert collector.num_steps == 123
    assert_equal_stats(collector.collect(n_step=30), collector.stats())


def test_stats_match_the_stored_rows():
    sink = Recorder()
    collector = collector_for(make_envs(*LENGTHS), sink)
    collector.reset(seed=1)
    stats = collector.collect(n_step=300)
    rows = sink.columns()
    expected = np.zeros((2, 3), int)
    np.add.at(expected, (rows["task_ids"], rows["behavior_ids"]), 1)
    np.testing.assert_array_equal(stats.behavior_counts, expected)
    assert (expected > 0).all()
    np.testing.assert_allclose(stats.mixture, expected / expected.sum(1, keepdims=True))
    gaps = [QS[t](rows["obs"], rows["actions"]) - QS[t](rows["obs"], POLICIES[t](rows["obs"])) for t in range(2)]
    np.testing.assert_allclose(stats.q_gap, [gaps[t][rows["task_ids"] == t].mean() for t in range(2)], rtol=1e-5)
    assert 0 <= stats.act_time + stats.env_time + stats.store_time <= stats.collect_time


def test_scalars_are_plain_floats_named_by_task():
    collector = collector_for(make_envs(*LENGTHS))
    collector.reset(seed=1)
    stats = collector.collect(n_step=60)
    named, plain = stats.scalars(["reach", "push"]), stats.scalars()
    assert len(named) == len(plain) > 0
    assert all(type(value) is float for value in named.values())
    assert any("reach" in tag for tag in named)
    assert any("push" in tag for tag in named)
    assert list(named.values()) == pytest.approx(list(plain.values()), nan_ok=True)


def test_scalars_grow_with_the_tasks_and_not_with_their_square():
    """Of 50 tasks, the mixture alone would be 2 500 numbers a round."""
    empty = CollectStats.empty(50, 50)
    assert str(empty) == "CollectStats(0 steps and 0 episodes of 50 tasks)"
    stats = dataclasses.replace(empty, behavior_counts=np.full((50, 50), 2), steps_per_task=np.full(50, 100))
    scalars = stats.scalars()
    assert len(scalars) <= 50 * 2 + 1
    assert {scalars[f"qmp/own_fraction/{t}"] for t in range(50)} == {0.02}
    assert scalars["qmp/foreign_fraction"] == pytest.approx(0.98)
    with pytest.raises(ValueError, match="a name of its own for every task"):
        stats.scalars(["a"] * 50)


@pytest.mark.parametrize("success_key", ["success", "is_success"])
def test_success_key(success_key):
    class Renamed(CountingEnv):
        def step(self, action):
            *rest, info = super().step(action)
            return *rest, {"is_success": info["success"]}

    def fns(cls):
        return [lambda i=i: cls(i, **LENGTHS[i]) for i in range(3)]

    cls = CountingEnv if success_key == "success" else Renamed
    collector = collector_for(gym.vector.SyncVectorEnv(fns(cls), autoreset_mode="SameStep"), success_key=success_key)
    collector.reset(seed=1)
    by_env = [scalar_loop(LENGTHS[i], i, t, POLICIES, QS[t], episodes=3, seed=1)[1] for i, t in enumerate(TASKS)]
    assert episodes_of(collector.collect(n_episode=3)) == sorted(functools.reduce(operator.iadd, by_env, []))


@pytest.mark.parametrize(
    ("infos", "successes"),
    [
        ({"success": np.array([True, True, False])}, [True, True, False]),
        ({"success": np.array([True, True, True]), "_success": np.array([True, False, True])}, [True, False, True]),
        ({"success": np.array([1.0, 0.0, 1.0]), "_success": np.array([True, True, False])}, [True, False, False]),
        ({"success": np.array([True, None, False], object)}, [True, False, False]),
        ({}, [False, False, False]),
    ],
)
def test_success_is_read_where_the_mask_says_that_it_was_written(infos, successes):
    """Vector envs may leave an old value where `_success` is false."""
    collector = collector_for(make_envs(*LENGTHS, mode="NextStep"))
    obs, _ = collector.reset(seed=1)
    collector.act(obs)
    collector.observe(obs, np.zeros(3), np.ones(3, bool), np.zeros(3, bool), infos)
    assert collector.stats().successes.tolist() == successes


@pytest.mark.parametrize("amount", [{"n_step": 30}, {"n_episode": 2}], ids=str)
def test_progress_shows_a_bar_and_changes_nothing(amount, capsys):
    sinks = []
    for progress in (False, True):
        sinks.append(Recorder())
        collector = collector_for(make_envs(*LENGTHS), sinks[-1])
        collector.reset(seed=1)
        collector.collect(**amount, progress=progress)
    output = capsys.readouterr()
    assert "it/s" in output.err + output.out or "%" in output.err + output.out
    assert_same(sinks[0].columns(), sinks[1].columns())


# ---- torch ----


def torch_module(torch, inputs: int, outputs: int):
    """A linear network in float64 that notes under which circumstances it is asked."""

    class Net(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.linear = torch.nn.Linear(inputs, outputs, dtype=torch.float64)
            self.seen = set()

        def forward(self, *parts):
            self.seen.add((torch.is_grad_enabled(), self.training, *(part.dtype for part in parts)))
            return self.linear(torch.cat(parts, -1)).sigmoid()

    return Net()


@pytest.mark.parametrize("backend", [None, "torch"])
def test_module_lists_are_read_live_without_gradients_and_keep_their_mode(backend):
    torch = pytest.importorskip("torch")
    torch.manual_seed(0)
    actors = torch.nn.ModuleList([torch_module(torch, 4, 2) for _ in range(2)])
    critics = torch.nn.ModuleList([torch_module(torch, 6, 1) for _ in range(2)])
    actors[1].eval()
    for module in (*actors, *critics) if backend == "torch" else ():
        module.float()  # a backend that is named hands out PyTorch's default dtype
    sink = Recorder()
    collector = collector_for(endless(3), sink, policies=actors, qs=critics, backend=backend)
    collector.reset(seed=1)
    collector.collect(n_step=30)
    assert torch.is_grad_enabled()
    dtype = torch.float64 if backend is None else torch.float32
    assert [actor.seen for actor in actors] == [{(False, True, dtype)}, {(False, False, dtype)}]
    assert [critic.seen for critic in critics] == [{(False, True, dtype, dtype)}] * 2
    assert [actor.training for actor in actors] == [True, False]

    with torch.no_grad():  # a learner's update: no call tells the collector
        for actor in actors:
            actor.linear.weight.zero_()
            actor.linear.bias.fill_(100.0)
    sink.parts.clear()
    collector.collect(n_step=3)
    assert type(sink.parts[0].actions) is np.ndarray
    np.testing.assert_array_equal(sink.column("actions"), np.ones((3, 2)))
