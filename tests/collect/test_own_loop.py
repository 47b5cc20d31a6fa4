"""The caller's own loop: altered actions, random warm-up, steps and resets by other hands, stopping, evaluation."""

from __future__ import annotations

import threading

import gymnasium as gym
import numpy as np
import pytest
from collect_envs import (
    BOX,
    MODES,
    CountingEnv,
    Recorder,
    RingEnv,
    SnapshotVectorEnv,
    assert_same,
    endless,
    make_envs,
    policy,
    q_function,
)
from gymnasium.vector import AutoresetMode, SyncVectorEnv, VectorEnv
from gymnasium.vector.utils import batch_space

from qmp_collect import CollectStats, OwnPolicy, Proposal, QMPCollector, QSwitch, evaluate

POLICIES, QS = [policy(0), policy(1)], [q_function(0), q_function(1)]


def constant(value):
    return lambda obs: np.full((len(obs), 2), value, np.float32)


def looped(envs, **options):
    sink = Recorder()
    return QMPCollector(envs, POLICIES, QS, **{"buffer": sink, "seed": 0, **options}), sink


def steps(rows):
    """Each row as "episode:t>episode:t"."""
    sides = (np.asarray(rows[field])[:, 1:3].astype(int) for field in ("obs", "next_obs"))
    return [f"{a}:{b}>{c}:{d}" for (a, b), (c, d) in zip(*sides, strict=True)]


# ---- what is executed ----


def test_what_was_executed_is_stored():
    envs = endless(2)
    collector, sink = looped(envs)
    obs, _ = collector.reset()
    proposed = collector.act(obs)
    executed = proposed + np.float32(0.5)
    stored = collector.observe(*envs.step(executed.copy()), actions=executed)
    assert stored.actions.tolist() == (proposed + 0.5).tolist()
    assert stored.rewards.tolist() == [executed[0].sum(), 16 + executed[1].sum()]
    assert set(stored.behavior_ids.tolist()) <= {0, 1}
    executed[:] = 9.0
    assert sink.column("actions").max() < 2.0


def test_the_next_step_has_actions_of_its_own():
    envs = endless(2)
    collector, sink = looped(envs)
    obs, _ = collector.reset()
    for noise in (0.5, None):
        actions = collector.act(obs)
        obs, *rest = envs.step(actions)
        collector.observe(obs, *rest, actions=None if noise is None else actions + noise)
    last = sink.parts[1]
    assert (
        last.actions.tolist()
        == np.stack([POLICIES[k](o[None])[0] for k, o in zip(last.behavior_ids, last.obs, strict=True)]).tolist()
    )


@pytest.mark.parametrize("shape", [(3, 2), (2,), (2, 2, 1)])
def test_executed_actions_of_another_shape(shape):
    collector, sink = looped(endless(2))
    obs, _ = collector.reset()
    collector.act(obs)
    none = np.zeros(2, bool)
    with pytest.raises(ValueError, match=r"actions of shape \(2, 2\)"):
        collector.observe(obs, np.zeros(2), none, none, {}, actions=np.zeros(shape))
    assert len(sink) == 0


@pytest.mark.parametrize("mode", ["NextStep", "SameStep"])
def test_random_warm_up_in_a_loop_of_ones_own(mode):
    """By `act(random=True)`, by the caller's actions, or by `collect`: then policies, from where it ended."""

    def warm_up(collector, envs, how):
        if how == "collect":
            collector.collect(n_step=10, random=True)
            return collector.obs
        obs, _ = collector.reset()
        while collector.num_steps < 10:
            actions = collector.act(obs, random=True) if how == "act" else np.full((2, 2), 0.25, np.float32)
            obs, *rest = envs.step(actions.copy())
            collector.observe(obs, *rest, actions=None if how == "act" else actions)
        return obs

    found = {}
    for how in ("collect", "act", "caller"):
        envs = make_envs({"lengths": (3,)}, {"lengths": (4,)}, mode=mode)
        collector, sink = looped(envs)
        obs = warm_up(collector, envs, how)
        while collector.num_steps < 20:
            obs, *rest = envs.step(collector.act(obs))
            collector.observe(obs, *rest)
        found[how] = sink.columns()
        behaviors = found[how]["behavior_ids"]
        assert set(behaviors[:10]) == {-1}
        assert set(behaviors[12:]) <= {0, 1}
        assert collector.stats().behavior_counts.sum() == (behaviors >= 0).sum()
    assert_same(found["act"], found["collect"])
    assert found["caller"]["actions"][:10].tolist() == [[0.25, 0.25]] * 10
    for env in (0, 1):
        rows = [{name: column[found[how]["env_ids"] == env] for name, column in found[how].items()} for how in found]
        assert steps(rows[0]) == steps(rows[1]) == steps(rows[2])


def test_a_step_that_nobody_knows_the_actions_of():
    envs = endless(2)
    collector, _ = looped(envs)
    collector.reset()
    with pytest.raises(RuntimeError, match=r"observe was called without act.*actions="):
        collector.observe(*envs.step(envs.action_space.sample()))


def test_a_step_of_others_from_an_unknown_state():
    envs = make_envs({"lengths": (1,)}, {"lengths": (5,)}, mode="Disabled")
    collector, sink = looped(envs)
    none = np.zeros(2, bool)
    actions = np.full((2, 2), 0.25, np.float32)
    with pytest.raises(RuntimeError, match=r"no current observation.*reset\(\)"):
        collector.observe(np.zeros((2, 4)), np.zeros(2), none, none, {}, actions=actions)
    collector.reset()
    collector.observe(*envs.step(actions), actions=actions)
    assert collector.needs_reset.tolist() == [True, False]
    with pytest.raises(RuntimeError, match=r"sub-environment 0 has ended its episode.*needs_reset"):
        collector.observe(np.zeros((2, 4)), np.zeros(2), none, none, {}, actions=actions)
    collector.reset(options={"reset_mask": collector.needs_reset})
    assert not collector.needs_reset.any()
    collector.observe(*envs.step(actions), actions=actions)
    assert steps(sink.of_env(0)) == ["0:0>0:1", "1:0>1:1"]
    assert steps(sink.of_env(1)) == ["0:0>0:1", "0:1>0:2"]


def test_the_current_observation():
    envs = endless(2)
    collector, _ = looped(envs)
    with pytest.raises(RuntimeError, match=r"no current observation"):
        collector.obs  # noqa: B018
    obs, _ = collector.reset()
    np.testing.assert_array_equal(collector.obs, obs)
    collector.obs[:] = 0
    np.testing.assert_array_equal(collector.obs, obs)
    following, *rest = envs.step(collector.act(collector.obs))
    collector.observe(following, *rest)
    np.testing.assert_array_equal(collector.obs, following)


class Unbatched(VectorEnv):
    """Its `action_space` is that of a single environment, as some native vector environments have it."""

    metadata = {"autoreset_mode": AutoresetMode.NEXT_STEP}
    num_envs = 3
    single_observation_space = gym.spaces.Box(-9.0, 9.0, (4,))
    observation_space = batch_space(single_observation_space, 3)

    def __init__(self, space):
        self.single_action_space = self.action_space = space

    def reset(self, *, seed=None, options=None):
        return np.zeros((3, 4), np.float32), {}

    def step(self, actions):
        assert actions.shape == (3, *self.single_action_space.shape)
        return np.zeros((3, 4), np.float32), np.zeros(3), np.zeros(3, bool), np.zeros(3, bool), {}


@pytest.mark.parametrize("space", [BOX, gym.spaces.Discrete(5), gym.spaces.MultiDiscrete([2, 3])], ids=str)
def test_random_actions_of_a_space_that_is_not_batched(space):
    sink = Recorder()
    collector = QMPCollector(Unbatched(space), [constant(0.5)] * 3, [lambda *_: None] * 3, buffer=sink, seed=0)
    collector.collect(n_step=30, random=True)
    actions = sink.column("actions").reshape(30, -1)
    assert all(space.contains(np.asarray(a, space.dtype).reshape(space.shape)) for a in actions)
    assert len(np.unique(actions[:3], axis=0)) > 1 or len(np.unique(actions, axis=0)) > 2


# ---- resets by other hands ----


@pytest.mark.parametrize("first_length", [1, 2])
@pytest.mark.parametrize("own_resets", ["every", "first", "none, but said"])
def test_next_step_and_resets_of_the_callers_own(first_length, own_resets):
    """Rows whose episode ended, each either reset by the caller, who says so, or by the environment's next step."""
    envs = make_envs({"lengths": (first_length,)}, {"lengths": (5,)}, mode="NextStep")
    collector, sink = looped(envs)
    obs, _ = collector.reset()
    start = None
    for step in range(8):
        obs, *rest = envs.step(collector.act(obs, episode_start=start))
        collector.observe(obs, *rest)
        start = rest[1] | rest[2]
        if start.any() and (own_resets == "every" or (own_resets == "first" and step == first_length - 1)):
            obs, _ = envs.reset(options={"reset_mask": start.copy()})
    for env, length in ((0, first_length), (1, 5)):
        rows = sink.of_env(env)
        expected = [f"{e}:{t}>{e}:{t + 1}" for e in range(9) for t in range(length)]
        assert steps(rows) == expected[: len(rows["obs"])]
        noise = rows["obs"][:, 3][rows["obs"][:, 2] == 0]
        assert len(set(noise)) == len(noise)  # every episode begins with a reset of its own
    own = len(sink.of_env(0)["obs"])
    assert (
        own
        == {"every": 8, "first": {1: 5, 2: 6}[first_length], "none, but said": {1: 4, 2: 6}[first_length]}[own_resets]
    )


class ResetsAll(SyncVectorEnv):
    """Ignores `reset_mask`, as a wrapper does that does not know it."""

    def reset(self, *, seed=None, options=None):
        return super().reset(seed=seed)


def test_an_environment_whose_partial_reset_resets_everything():
    envs = make_envs({"lengths": (2,)}, {"lengths": (5,)}, mode="Disabled", vector=ResetsAll)
    collector, sink = looped(envs)
    with pytest.raises(ValueError, match=r"asked to reset the sub-environments \[0\].*sub-environment 1 changed too"):
        collector.collect(n_step=20)
    assert len(sink) == 4
    collector.collect(n_step=2)  # begins anew
    assert steps(sink.of_env(1))[-1] == "2:0>2:1"


def test_a_partial_reset_before_a_whole_one():
    collector, _ = looped(endless(2, mode="Disabled"))
    with pytest.raises(RuntimeError, match=r"reset_mask leaves out.*reset\(\) first"):
        collector.reset(options={"reset_mask": np.array([True, False])})


# ---- stopping ----


class After:
    """True from its ``n``-th question on."""

    def __init__(self, n):
        self.n, self.asked = n, 0

    def __bool__(self):
        self.asked += 1
        return self.asked > self.n


@pytest.mark.parametrize("kind", ["object", "function"])
@pytest.mark.parametrize("mode", MODES)
def test_stopped_steps_go_on_as_if_nothing_had_happened(mode, kind):
    settings = ({"lengths": (3,)}, {"lengths": (4,)})
    whole, expected = looped(make_envs(*settings, mode=mode), horizon=3)
    whole.collect(n_step=30)
    collector, sink = looped(make_envs(*settings, mode=mode), horizon=3)
    parts = []
    while collector.num_steps < 30:
        stop = After(3)
        parts.append(
            collector.collect(n_step=30 - collector.num_steps, stop=stop if kind == "object" else stop.__bool__)
        )
        assert stop.asked <= 4
    assert_same(sink.columns(), expected.columns())
    assert [part.unfinished for part in parts] == [1] * (len(parts) - 1) + [0]
    assert sum(part.n_collected_steps for part in parts) == whole.num_steps
    assert collector.stats().unfinished == len(parts) - 1


@pytest.mark.parametrize("saved", [False, True])
def test_statistics_of_a_stopped_call_that_is_resumed_are_those_of_one_call(saved):
    """To the last bit of sums of numbers whose order would show, and from a collector's state too."""
    settings = ({"lengths": (3,)}, {"lengths": (4,)})

    def fresh():
        uneven = [lambda obs, actions, j=j: 0.1 * obs[:, 2] + actions[:, 0] / 3 + j for j in range(2)]
        return QMPCollector(make_envs(*settings, vector=SnapshotVectorEnv), POLICIES, uneven, seed=0)

    whole = fresh()
    whole.collect(n_step=5)
    expected = whole.collect(n_step=31)
    collector = fresh()
    collector.collect(n_step=5)
    stats = collector.collect(n_step=31, stop=After(2))
    while stats.unfinished:
        assert stats.unfinished == 1
        if saved:
            state, collector = collector.state_dict(), fresh()
            collector.load_state_dict(state)
        stats = collector.collect(n_step=31, stop=After(3), resume=True)
    assert (stats.q_gap != 0).any()
    times = ("act_time", "env_time", "store_time")
    for found, right in ((stats, expected), (collector.stats(), whole.stats())):
        np.testing.assert_equal(*({k: v for k, v in vars(x).items() if k not in times} for x in (found, right)))
    with pytest.raises(ValueError, match="goes on with steps"):
        collector.collect(n_episode=1, resume=True)


def test_only_a_stopped_call_can_be_resumed():
    """A loop that always resumes got the same finished call for ever, and collected nothing."""
    collector, _ = looped(make_envs({"lengths": (3,)}, {"lengths": (4,)}))
    message = "no stopped call to go on with"
    with pytest.raises(RuntimeError, match=message):
        collector.collect(n_step=4, resume=True)
    assert collector.collect(n_step=4).unfinished == 0
    with pytest.raises(RuntimeError, match=message):
        collector.collect(n_step=4, resume=True)
    assert collector.collect(n_step=8, stop=After(1)).n_collected_steps == 2
    assert collector.collect(n_step=8, resume=True).n_collected_steps == 8
    assert collector.collect(n_step=8, stop=After(1)).unfinished == 1
    collector.stats(clear=True)
    with pytest.raises(RuntimeError, match=message):
        collector.collect(n_step=8, resume=True)


def test_a_stop_that_is_there_already_collects_nothing():
    collector, sink = looped(endless(2))
    stats = collector.collect(n_step=10, stop=True)
    assert (stats.n_collected_steps, stats.unfinished, len(sink)) == (0, 1, 0)


@pytest.mark.parametrize("mode", MODES)
def test_stopped_episodes_are_given_up_and_made_again(mode):
    settings = ({"lengths": (3,)}, {"lengths": (4,)})
    envs = make_envs(*settings, mode=mode)
    stats = evaluate(envs, POLICIES, episodes_per_env=2, stop=After(5), seed=3)
    assert (stats.unfinished, stats.n_collected_episodes < 4) == (1, True)
    again = evaluate(envs, POLICIES, episodes_per_env=2, stop=False, seed=3)
    fresh = evaluate(make_envs(*settings, mode=mode), POLICIES, episodes_per_env=2, seed=3)
    assert again.unfinished == fresh.unfinished == 0
    assert again.returns.tolist() == fresh.returns.tolist()

    collector, sink = looped(envs)
    collector.collect(n_episode=2, stop=After(2))
    stored = len(sink)
    collector.collect(n_step=2)
    assert sink.column("obs")[stored:, 2].tolist() == [0, 0]  # in fresh episodes


def test_an_event_is_no_flag():
    collector, _ = looped(endless(2))
    event = threading.Event()
    with pytest.raises(TypeError, match=r"Event, which is always true: pass its method is_set"):
        collector.collect(n_step=4, stop=event)
    assert collector.collect(n_step=4, stop=event.is_set).unfinished == 0


@pytest.mark.parametrize(
    "amount", [{"n_step": 1e3}, {"n_episode": 2.5}, {"n_step": float("nan")}, {"n_step": "7"}], ids=str
)
def test_an_amount_that_is_no_integer(amount):
    collector, sink = looped(endless(2))
    with pytest.raises(TypeError, match=r"n_(step|episode) must be an integer, got"):
        collector.collect(**amount)
    assert len(sink) == 0


# ---- statistics ----


def test_success_that_nobody_reports_is_left_out():
    envs = SyncVectorEnv([lambda: RingEnv(limit=4)] * 2, autoreset_mode="SameStep")
    act = [lambda obs: np.zeros(len(obs), np.int64)] * 2
    stats = evaluate(envs, act, episodes_per_env=2, seed=0)
    assert stats.success_known == 0
    assert "success" not in stats.episode_means()
    assert not [tag for tag in stats.scalars() if "success" in tag]
    assert stats.scalars()["charts/return"] == 4.0


class Sparse(CountingEnv):
    """Reports success only where there is one, in its third episode."""

    def reset(self, *, seed=None, options=None):
        return super().reset(seed=seed, options=options)[0], {}

    def step(self, action):
        *rest, _ = super().step(action)
        return *rest, {"success": True} if self.episode == 2 and self.t == 1 else {}


def test_success_that_is_reported_only_where_there_is_one():
    envs = SnapshotVectorEnv([lambda: Sparse(0, (2,)), lambda: Sparse(1, (2,))], autoreset_mode=AutoresetMode.SAME_STEP)
    collector, _ = looped(envs)
    parts = [collector.collect(n_step=4) for _ in range(3)]
    state = collector.state_dict()
    parts.append(collector.collect(n_step=4))
    assert ["charts/success" in part.scalars() for part in parts] == [False, False, True, True]
    assert [part.scalars().get("charts/success") for part in parts[2:]] == [1.0, 0.0]
    assert (parts[0] + parts[1] + parts[2]).scalars()["charts/success"] == pytest.approx(1 / 3)
    other = looped(SnapshotVectorEnv([lambda: Sparse(0, (2,)), lambda: Sparse(1, (2,))], autoreset_mode="SameStep"))[0]
    other.load_state_dict(state)
    assert other.collect(n_step=4).scalars()["charts/success"] == 0.0


def test_statistics_of_a_loop_of_ones_own_are_cleared_by_a_call():
    envs = make_envs({"lengths": (1,)}, {"lengths": (1,)})
    collector, _ = looped(envs)
    obs, _ = collector.reset()
    for part in range(3):
        for _ in range(50):
            obs, *rest = envs.step(collector.act(obs))
            collector.observe(obs, *rest)
        stats = collector.stats(clear=True)
        assert (stats.n_collected_episodes, stats.n_collected_steps) == (100, 100)
        for kept in collector.state_dict()["stats"].values():
            assert [len(kept[name]) for name in ("returns", "lens", "successes", "episode_task_ids")] == [0] * 4
        assert collector.num_episodes == 100 * (part + 1)
    assert collector.stats().n_collected_steps == CollectStats.empty(2, 2).n_collected_steps == 0


# ---- evaluation ----


@pytest.mark.parametrize("form", ["listed", "batched"])
def test_evaluation_runs_the_means_of_policies_that_give_them(form):
    def listed(k):
        return lambda obs: Proposal(np.full((len(obs), 2), 0.25), means=np.full((len(obs), 2), 0.5 + k / 4))

    def batched(obs, task_ids):
        means = np.repeat(0.5 + np.asarray(task_ids)[:, None] / 4, 2, axis=1)
        return Proposal(np.full((len(obs), 2), 0.25), means=means)

    own = [listed(0), listed(1)] if form == "listed" else batched
    envs = make_envs({"lengths": (1,)}, {"lengths": (1,)})
    assert evaluate(envs, own, num_tasks=2).returns.tolist() == [1.0, 16 + 1.5]
    # Training executes samples, with OwnPolicy too.
    sink = Recorder()
    options = {"policies": own, "own_policy": None} if form == "listed" else {"policies": None, "own_policy": own}
    policies = options.pop("policies")
    QMPCollector(envs, policies, None, switch=OwnPolicy(), num_tasks=2, buffer=sink, **options).collect(n_step=2)
    assert sink.column("actions").tolist() == [[0.25, 0.25]] * 2


def test_the_switch_still_scores_means_and_executes_samples():
    policies = [
        lambda obs: Proposal(np.full((len(obs), 2), 0.25), means=np.full((len(obs), 2), 0.75)),
        lambda obs: Proposal(np.full((len(obs), 2), 0.5), means=np.full((len(obs), 2), 0.5)),
    ]
    sink = Recorder()
    QMPCollector(endless(2), policies, [lambda obs, a: a.sum(-1)] * 2, switch=QSwitch(), buffer=sink).collect(n_step=2)
    assert sink.column("behavior_ids").tolist() == [0, 0]
    assert sink.column("actions").tolist() == [[0.25, 0.25]] * 2
