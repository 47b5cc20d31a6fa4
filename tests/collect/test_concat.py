"""Vector environments side by side: whatever one SyncVectorEnv of all their sub-environments does, they do together."""

from __future__ import annotations

import copy
import functools

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
    assert_same,
    episodes_of,
    make_envs,
    policy,
    q_function,
)
from gymnasium.vector import AsyncVectorEnv, AutoresetMode, SyncVectorEnv
from gymnasium.wrappers.vector import NormalizeObservation

from qmp_collect import ConcatVectorEnv, OwnPolicy, QMPCollector

SIZES = (2, 1, 3)  # sub-environments of each part
SETTINGS = [
    {"lengths": (3, 5)},
    {"lengths": (4,), "ends": ("terminated", "truncated")},
    {"lengths": (2, 7), "ends": ("both",)},
    {"lengths": (1, 2)},
    {"lengths": (6,), "ends": ("terminated",)},
    {"lengths": (3,)},
]
PARTS = [slice(0, 2), slice(2, 3), slice(3, 6)]


class Talkative(gym.Wrapper):
    """Reports something else at every step: numbers, arrays, words, nested, and some sub-environments nothing."""

    def reset(self, **kwargs):
        obs, info = self.env.reset(**kwargs)
        return obs, info | {"options": str(kwargs.get("options") or {})}

    def step(self, action):
        obs, reward, terminated, truncated, info = self.env.step(action)
        base = self.unwrapped
        if base.t % 2:
            info |= {"word": f"step {base.t}", "pair": np.array([base.t, base.env_id]), "deep": {"t": base.t, "in": {}}}
        if base.env_id % 2:
            info |= {"odd": base.env_id, "deep": {"er": {"half": base.t / 2}}}
        return obs, reward, terminated, truncated, info


def talkative(mode, rows=slice(None), vector=SyncVectorEnv):
    def maker(i):
        return lambda: Talkative(CountingEnv(**{"env_id": i, **SETTINGS[i]}))

    return vector([maker(i) for i in range(len(SETTINGS))[rows]], autoreset_mode=AutoresetMode(mode))


def assert_equal_infos(actual, expected):
    assert sorted(actual) == sorted(expected)
    for key, value in expected.items():
        if isinstance(value, dict):
            assert_equal_infos(actual[key], value)
        else:
            assert actual[key].dtype == value.dtype, key
            assert actual[key].shape == value.shape, key
            for one, other in zip(actual[key], value, strict=True):
                np.testing.assert_array_equal(one, other, err_msg=key)


@pytest.mark.parametrize("vector", [SyncVectorEnv, AsyncVectorEnv])
@pytest.mark.parametrize("mode", MODES)
def test_it_is_one_vector_environment(mode, vector):
    whole = talkative(mode)
    joined = ConcatVectorEnv([talkative(mode, rows, vector) for rows in PARTS])
    assert joined.num_envs == whole.num_envs
    assert joined.observation_space == whole.observation_space
    assert joined.action_space == whole.action_space
    assert joined.metadata["autoreset_mode"] is joined.autoreset_mode is AutoresetMode(mode)

    def same(actual, expected):
        *arrays, infos = actual
        *others, their_infos = expected
        for array, other in zip(arrays, others, strict=True):
            assert array.dtype == other.dtype
            np.testing.assert_array_equal(array, other)
        assert_equal_infos(infos, their_infos)

    same(joined.reset(seed=7), whole.reset(seed=7))
    rng = np.random.default_rng(0)
    for step in range(40):
        actions = rng.integers(0, 17, (6, 2)).astype(np.float32) / 16
        outcome = joined.step(actions)
        same(outcome, whole.step(actions))
        done = outcome[2] | outcome[3]
        if mode is AutoresetMode.DISABLED and done.any():
            seed = None if step % 2 else list(range(step, step + 6))
            options = {"reset_mask": done, "step": step}
            same(joined.reset(seed=seed, options=options), whole.reset(seed=seed, options=dict(options)))
            assert options["reset_mask"] is done, "the caller's dict is the caller's"
        if step == 25:
            same(joined.reset(seed=[3, None, 5, 6, 7, 8]), whole.reset(seed=[3, None, 5, 6, 7, 8]))
    joined.close()
    whole.close()


@pytest.mark.parametrize("mode", MODES)
def test_a_collector_gets_the_same_transitions_and_statistics(mode):
    tasks = np.repeat(np.arange(3), SIZES)
    found = []
    for envs in (talkative(mode), ConcatVectorEnv([talkative(mode, rows) for rows in PARTS])):
        recorder = Recorder()
        given = None if isinstance(envs, ConcatVectorEnv) else tasks
        policies, q_functions = [policy(k) for k in range(3)], [q_function(t) for t in range(3)]
        collector = QMPCollector(envs, policies, q_functions, task_ids=given, buffer=recorder, seed=0)
        stats = [
            collector.collect(n_step=30),
            collector.collect(n_episode=2),
            collector.collect(n_step=31, random=True),
        ]
        found.append((recorder, stats))
    (whole, whole_stats), (joined, joined_stats) = found
    assert_same(joined.columns(), whole.columns())
    np.testing.assert_array_equal(joined.column("task_ids"), tasks[joined.column("env_ids")])
    for one, other in zip(joined_stats, whole_stats, strict=True):
        assert episodes_of(one) == episodes_of(other)
        np.testing.assert_array_equal(one.behavior_counts, other.behavior_counts)


def test_tasks_of_the_parts():
    parts = [talkative("NextStep", rows) for rows in PARTS]
    assert ConcatVectorEnv(parts).task_ids.tolist() == [0, 0, 1, 2, 2, 2]
    assert ConcatVectorEnv(parts).num_tasks == 3
    swapped = ConcatVectorEnv(parts, task_ids=[1, 1, 0, 1, 1, 1])
    assert swapped.task_ids.tolist() == [1, 1, 0, 1, 1, 1]
    assert swapped.num_tasks == 2
    nested = ConcatVectorEnv([ConcatVectorEnv(parts[:2]), parts[2], swapped])  # parts that have tasks keep them
    assert nested.task_ids.tolist() == [0, 0, 1, 2, 2, 2, 4, 4, 3, 4, 4, 4]
    assert nested.num_tasks == 5


def test_tasks_that_only_the_sub_environments_tell():
    """As a collector tells them of a part alone: all were of one task. Parts of one task each stay one task each."""

    class Told(CountingEnv):
        metadata = {"task_attribute": "env_id"}

    def part(*tasks):
        return SyncVectorEnv([functools.partial(gym.Wrapper, Told(task)) for task in tasks])

    def tasks(*parts):
        envs = ConcatVectorEnv(parts)
        return envs.task_ids.tolist(), envs.num_tasks

    several = part(0, 1, 2, 1)
    alone = QMPCollector(several, [policy(k) for k in range(3)], None, switch=OwnPolicy())
    assert alone.task_ids.tolist() == [0, 1, 2, 1]
    assert tasks(several) == ([0, 1, 2, 1], 3)
    assert tasks(part(5), gym.vector.VectorWrapper(several), part(0, 0)) == ([0, 1, 2, 3, 2, 4, 4], 5)
    assert tasks(part(0, 0), part(1, 1)) == ([0, 0, 1, 1], 2)


def test_parts_that_do_not_fit_are_refused():
    part = make_envs({})
    with pytest.raises(ValueError, match="expected at least one vector environment, got none"):
        ConcatVectorEnv([])
    with pytest.raises(TypeError, match=r"expected a gymnasium\.vector\.VectorEnv, got CountingEnv"):
        ConcatVectorEnv([CountingEnv()])
    with pytest.raises(ValueError, match=r"envs\[1\]\.single_action_space is Discrete\(2\), that of envs\[0\] is Box"):
        ConcatVectorEnv([part, make_envs({"action_space": gym.spaces.Discrete(2)})])
    with pytest.raises(ValueError, match=r"envs\[1\] resets itself in NEXT_STEP mode, envs\[0\] in SAME_STEP"):
        ConcatVectorEnv([part, make_envs({}, mode="NextStep")])
    for ids in ([0, 1, 2], [0.0, 1.0], [0, -1]):
        with pytest.raises(ValueError, match="expected task_ids to be 2 integers from 0 on"):
            ConcatVectorEnv([part, part], task_ids=ids)
    with pytest.raises(ValueError, match="states no autoreset mode"):
        ConcatVectorEnv([Modeless()])
    assert ConcatVectorEnv([Modeless()], autoreset_mode="SameStep").autoreset_mode is AutoresetMode.SAME_STEP


class Modeless(gym.vector.VectorEnv):
    """Says as little as a vector environment may; its `rows` may be wrong; `close` may fail."""

    num_envs, rows, fails = 2, 2, False
    single_observation_space = gym.spaces.Box(-1, 1, (1,))
    single_action_space = gym.spaces.Discrete(2)
    metadata = {}

    def reset(self, *, seed=None, options=None):
        return np.zeros((self.rows, 1), np.float32), {}

    def step(self, actions):
        ends = np.zeros(self.rows, bool)
        return (
            np.zeros((self.rows, 1), np.float32),
            np.zeros(self.rows),
            ends,
            ends,
            {"whole": 3, "names": ["a", None, "c"]},
        )

    def close_extras(self, **kwargs):
        if self.fails:
            raise RuntimeError("closing failed")


def test_what_a_part_says_of_itself_is_said_of_each_of_its_rows():
    envs = ConcatVectorEnv([Modeless(), Modeless()], autoreset_mode="NextStep")
    envs.reset()
    infos = envs.step(np.zeros(4, int))[4]
    assert infos["whole"].tolist() == [3, 3, 3, 3]
    assert infos["_whole"].tolist() == [True] * 4
    assert infos["names"].tolist() == [["a", None, "c"]] * 4
    assert infos["_names"].tolist() == [True] * 4


def test_wrong_numbers_of_rows_are_named():
    part = Modeless()
    part.rows = 1
    with pytest.raises(ValueError, match=r"envs\[1\] returned observations of shape \(1, 1\) for 2 sub-environments"):
        ConcatVectorEnv([Modeless(), part], autoreset_mode="NextStep").reset()
    envs = ConcatVectorEnv([Modeless(), Modeless()], autoreset_mode="NextStep")
    with pytest.raises(ValueError, match="all of them must be reset first"):
        envs.reset(options={"reset_mask": np.array([True, False, False, False])})
    with pytest.raises(ValueError, match="nothing would be reset"):
        envs.reset(options={"reset_mask": np.zeros(4, bool)})
    with pytest.raises(ValueError, match="expected 4 seeds, one per sub-environment, got 3"):
        envs.reset(seed=[1, 2, 3])


def test_an_error_in_one_part_leaves_no_other_part_waiting():
    parts = [make_envs({}, vector=AsyncVectorEnv), make_envs({"fail_at": 0}), make_envs({}, vector=AsyncVectorEnv)]
    envs = ConcatVectorEnv(parts)
    envs.reset(seed=0)
    with pytest.raises(EngineError, match="env 0 diverged"):
        envs.step(np.zeros((3, 2), np.float32))
    envs.reset(seed=0)
    envs.close()


def test_a_step_of_ones_own_is_not_passed_by():
    class Halving(AsyncVectorEnv):
        def step(self, actions):
            return super().step(actions / 2)

    envs = ConcatVectorEnv([make_envs({}, vector=Halving), make_envs({})])
    envs.reset(seed=0)
    assert envs.step(np.ones((2, 2), np.float32))[1].tolist() == [1.0, 2.0]
    envs.close()


def test_closing_closes_every_part():
    parts = [Modeless(), Modeless(), Modeless()]
    parts[1].fails = True
    envs = ConcatVectorEnv(parts, autoreset_mode="NextStep")
    with pytest.raises(RuntimeError, match="closing failed"):
        envs.close()
    assert [part.closed for part in parts] == [True, False, True]


@pytest.mark.parametrize("vector", [SnapshotVectorEnv, SyncVectorEnv])
@pytest.mark.parametrize("mode", MODES)
def test_collection_goes_on_as_if_it_had_not_stopped(mode, vector):
    """Parts with a state, or whose single environments have one, in wrappers with states of their own."""

    def collector():
        parts = [make_envs(*SETTINGS[rows], mode=mode, vector=vector) for rows in (slice(2), slice(2, 4))]
        if mode is AutoresetMode.NEXT_STEP:  # the only one that the wrapper can
            parts = [NormalizeObservation(part) for part in parts]
        recorder = Recorder()
        policies, q_functions = [policy(k) for k in range(2)], [q_function(t) for t in range(2)]
        return QMPCollector(ConcatVectorEnv(parts), policies, q_functions, buffer=recorder, seed=0), recorder

    through, expected = collector()
    through.collect(n_step=21)
    through.collect(n_step=21)
    first, before = collector()
    first.collect(n_step=21)
    state = copy.deepcopy(first.state_dict())
    second, after = collector()
    second.load_state_dict(state)
    second.collect(n_step=21)
    for field in FIELDS:
        both = np.concatenate([before.column(field), after.column(field)])
        np.testing.assert_array_equal(both, expected.column(field), err_msg=field)


def test_normalisations_in_the_processes_of_parts_are_saved():
    def collector():
        parts = [AsyncVectorEnv([lambda i=i: gym.wrappers.NormalizeObservation(CountingEnv(i))]) for i in range(2)]
        policies, q_functions = [policy(k) for k in range(2)], [q_function(t) for t in range(2)]
        return QMPCollector(ConcatVectorEnv(parts), policies, q_functions, seed=0)

    first, second = collector(), collector()
    first.collect(n_step=12)
    second.load_state_dict(copy.deepcopy(first.state_dict()))
    means = [[part.get_attr("obs_rms")[0].mean for part in c.envs.parts] for c in (first, second)]
    np.testing.assert_array_equal(means[0], means[1])
    assert (np.array(means[0])[:, 2] > 0).all()
    for one in (first, second):
        one.envs.close()


def test_a_refused_state_changes_no_part():
    class Picky(SnapshotVectorEnv):
        def set_state(self, state):
            if state["done"] is None:
                raise ValueError("no")
            super().set_state(state)

    envs = ConcatVectorEnv([make_envs(SETTINGS[0], vector=Picky), make_envs(SETTINGS[1], vector=Picky)])
    envs.reset(seed=0)
    state = copy.deepcopy(envs.get_state())
    envs.step(np.zeros((2, 2), np.float32))
    now = copy.deepcopy(envs.get_state())
    state["parts"][1]["done"] = None
    with pytest.raises(ValueError, match="no"):
        envs.set_state(state)
    np.testing.assert_equal(envs.get_state(), now)
    with pytest.raises(ValueError, match="the state is of 1 parts, this environment has 2"):
        envs.set_state({"parts": state["parts"][:1], "obs": state["obs"][:1]})


def test_parts_without_a_state():
    class Stateless(CountingEnv):
        get_state = set_state = None

    with_one, without = make_envs(SETTINGS[0], mode="NextStep"), SyncVectorEnv([Stateless])
    envs, other = ConcatVectorEnv([with_one, without]), ConcatVectorEnv([make_envs(SETTINGS[0], SETTINGS[1])])
    envs.reset(seed=0)
    other.reset(seed=0)
    assert envs.get_state() is None
    state = other.get_state()
    with pytest.raises(ValueError, match=r"that of envs\[1\], but SyncVectorEnv.* has no set_state"):
        envs.set_state({"parts": state["parts"] * 2, "obs": state["obs"]})


def test_envpool_pools():
    envpool = pytest.importorskip("envpool")
    pools = [
        envpool.make_gymnasium("Pendulum-v1", num_envs=2, max_episode_steps=length, seed=seed)
        for seed, length in enumerate((5, 7))
    ]
    envs = ConcatVectorEnv(pools)
    obs, infos = envs.reset()
    assert infos["elapsed_step"].tolist() == [0, 0, 0, 0]
    singles = [gym.make("Pendulum-v1").unwrapped for _ in range(4)]
    for single in singles:
        single.reset()
    rng, over = np.random.default_rng(0), np.zeros(4, bool)
    for step in range(20):
        actions = rng.uniform(-2, 2, (4, 1))  # float64: a pool must not read its bytes as float32
        after, rewards, terminations, truncations, infos = envs.step(actions)
        for i in np.flatnonzero(~over):
            singles[i].state = np.array([np.arctan2(obs[i, 1], obs[i, 0]), obs[i, 2]])
            expected, reward, *_ = singles[i].step(actions[i])
            np.testing.assert_allclose(after[i], expected, atol=1e-4)
            assert rewards[i] == pytest.approx(reward, abs=1e-3)
        assert not terminations.any()
        over = truncations
        assert over.tolist() == [step % 6 == 4] * 2 + [step % 8 == 6] * 2
        obs = after
    envs.close()
