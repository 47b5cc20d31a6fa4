"""What a state holds of environments and their wrappers, and what is refused before anything has changed."""

from __future__ import annotations

import copy
import functools
import warnings
from collections import deque
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from collect_envs import CountingEnv, Recorder, SnapshotVectorEnv, assert_same, make_envs, policy, q_function
from gymnasium.envs.registration import EnvSpec
from gymnasium.vector import AsyncVectorEnv, AutoresetMode, SyncVectorEnv, VectorWrapper
from gymnasium.wrappers.vector import NormalizeObservation, NormalizeReward, RecordEpisodeStatistics

from qmp_collect import ConcatVectorEnv, OwnPolicy, QMPCollector, SoftmaxQSwitch
from qmp_collect.runs import load_checkpoint, save_checkpoint

POLICIES, QS = [policy(0), policy(1)], [q_function(0), q_function(1)]
SETTINGS = ({"lengths": (3,)}, {"lengths": (4, 5)})


def snapshots(mode="NextStep"):
    return make_envs(*SETTINGS, mode=mode, vector=SnapshotVectorEnv)


def collector_of(envs, sink=None, seed=0, **options):
    options = {"switch": SoftmaxQSwitch(0.5), "horizon": 3, **options}
    return QMPCollector(envs, POLICIES, QS, buffer=sink, seed=seed, **options)


def continued(make, tmp_path, before=23):
    """What a collector stores that goes on, and one that is restored from its state, through a file."""
    sinks = Recorder(), Recorder()
    original = collector_of(make(), sinks[0])
    original.collect(n_step=before)
    save_checkpoint(tmp_path / "state.npz", {"state": original.state_dict()})
    sinks[0].parts.clear()
    original.collect(n_step=30)
    restored = collector_of(make(), sinks[1], seed=7)
    restored.collect(n_step=8)
    restored.load_state_dict(load_checkpoint(tmp_path / "state.npz")["state"])
    sinks[1].parts.clear()
    restored.collect(n_step=30)
    return sinks


# ---- wrappers ----


@pytest.mark.parametrize(
    "wrap",
    [
        NormalizeObservation,
        NormalizeReward,
        lambda envs: NormalizeReward(NormalizeObservation(envs), gamma=0.9),
        lambda envs: NormalizeObservation(RecordEpisodeStatistics(envs)),
    ],
)
def test_what_normalising_wrappers_know_is_saved(wrap, tmp_path):
    expected, got = continued(lambda: wrap(snapshots()), tmp_path)
    assert_same(got.columns(), expected.columns())


def test_episode_statistics_of_a_wrapper_go_on(tmp_path):
    lengths = []

    class Listening(VectorWrapper):
        def step(self, actions):
            *outcome, infos = self.env.step(actions)
            if "episode" in infos:
                lengths.append(infos["episode"]["l"].tolist())
            return *outcome, infos

    def make():
        return Listening(RecordEpisodeStatistics(snapshots()))

    collector = collector_of(make())
    collector.collect(n_step=4)
    state = collector.state_dict()
    collector.collect(n_step=12)
    expected, lengths[:] = list(lengths), []
    restored = collector_of(make())
    restored.load_state_dict(state)
    restored.collect(n_step=12)
    assert lengths == expected == [[3, 0], [0, 4], [3, 0], [0, 5]]


def test_a_frozen_normalisation_stays_frozen():
    envs = NormalizeObservation(snapshots())
    envs.update_running_mean = False
    state = collector_of(envs).state_dict()
    other = NormalizeObservation(snapshots())
    collector_of(other).load_state_dict(state)
    assert not other.update_running_mean


NORMALISED = [
    gym.wrappers.NormalizeObservation,
    gym.wrappers.NormalizeReward,
    lambda env: gym.wrappers.NormalizeReward(gym.wrappers.NormalizeObservation(env)),
]


@pytest.fixture
def processes():
    """``processes(*wraps)``: a sub-environment in a process for each of ``wraps``."""
    made = []

    def make(*wraps):
        makers = [functools.partial(lambda wrap, i: wrap(CountingEnv(i)), wrap, i) for i, wrap in enumerate(wraps)]
        made.append(AsyncVectorEnv(makers))
        return made[-1]

    yield make
    for envs in made:
        envs.close()


def known(envs, *names):
    """What the normalisations of all sub-environments know: attribute, part -> arrays."""
    return {
        (name, part): np.array([getattr(average, part) for average in envs.get_attr(name)])
        for name in names
        for part in ("mean", "var", "count")
    }


@pytest.mark.parametrize("wrap", NORMALISED)
def test_normalisations_inside_processes_are_saved(wrap, processes, tmp_path):
    """They were forgotten without a word, while those of a SyncVectorEnv were saved."""
    envs, others = processes(wrap, wrap), processes(wrap, wrap)
    names = [name for name in ("obs_rms", "return_rms") if all(envs.call("has_wrapper_attr", name))]
    collector, other = collector_of(envs), collector_of(others)
    collector.collect(n_step=20)
    save_checkpoint(tmp_path / "state.npz", collector.state_dict())
    other.load_state_dict(load_checkpoint(tmp_path / "state.npz"))
    expected, got = known(envs, *names), known(others, *names)
    assert len(expected) == 3 * len(names) > 0
    for key, value in expected.items():
        np.testing.assert_array_equal(got[key], value)
    for collectors in (collector, other):
        collectors.reset(seed=3)
        collectors.collect(n_step=10)
    for key, value in known(envs, *names).items():
        np.testing.assert_array_equal(known(others, *names)[key], value)
        assert not np.array_equal(value, expected[key])


def test_processes_with_other_wrappers_are_refused(processes):
    normalised, plain = gym.wrappers.NormalizeReward, gym.Wrapper
    state = collector_of(processes(normalised, normalised)).state_dict()
    with pytest.raises(ValueError, match="stateful wrappers"):
        collector_of(processes(plain, plain)).load_state_dict(state)
    with pytest.warns(UserWarning, match="only some of the sub-environments have the normalisation of .*return_rms"):
        collector_of(processes(normalised, plain)).state_dict()


@pytest.mark.parametrize("mode", list(AutoresetMode))
def test_single_environments_that_save_themselves_go_on_in_the_middle_of_their_episodes(mode, tmp_path):
    """At every step, so before and after each kind of an episode's end, that of a time limit too."""

    def make():
        single = [lambda i=i: gym.wrappers.TimeLimit(CountingEnv(i, lengths=(3, 9)), 5) for i in range(2)]
        return SyncVectorEnv(single, autoreset_mode=mode)

    for steps in range(2, 24, 2):
        expected, got = continued(make, tmp_path, before=steps)
        assert_same(got.columns(), expected.columns())


class MadeByReset(CountingEnv):
    """Whose attributes come into being in its first reset."""

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        del self.t

    def get_state(self):
        assert self.t >= 0
        return super().get_state()


MADE = EnvSpec("Made-v0", entry_point=MadeByReset, max_episode_steps=5, kwargs={"lengths": (3, 9)})


def made_by_gymnasium(mode="NextStep"):
    """In the wrappers of ``gymnasium.make``: time limit, order of calls, and the checker of the first calls."""
    make = [functools.partial(gym.make, MADE, env_id=i) for i in range(2)]
    return SyncVectorEnv(make, autoreset_mode=AutoresetMode(mode))


@pytest.mark.parametrize("mode", list(AutoresetMode))
def test_environments_of_gymnasium_make_go_on_in_a_new_process(mode):
    """They refuse to step where reset was never called."""
    for steps in range(2, 14, 2):
        sinks = Recorder(), Recorder()
        original, restored = (collector_of(made_by_gymnasium(mode), sink) for sink in sinks)
        original.collect(n_step=steps)
        restored.load_state_dict(original.state_dict())
        sinks[0].parts.clear()
        original.collect(n_step=14)
        restored.collect(n_step=14)
        assert_same(sinks[1].columns(), sinks[0].columns())


def test_normalisations_inside_a_sync_vector_env_are_saved():

    def make():
        return SyncVectorEnv([lambda i=i: gym.wrappers.NormalizeObservation(CountingEnv(i)) for i in range(2)])

    collector = collector_of(make())
    collector.collect(n_step=20)
    envs = make()
    other = collector_of(envs)
    other.load_state_dict(collector.state_dict())
    for got, expected in zip(envs.envs, collector.envs.envs, strict=True):
        np.testing.assert_array_equal(got.obs_rms.mean, expected.obs_rms.mean)
        assert got.obs_rms.count == expected.obs_rms.count > 5


class Counter(VectorWrapper):
    """Adds the number of steps to every reward; ``scale`` never changes."""

    def __init__(self, envs):
        super().__init__(envs)
        self.count, self.scale = 0, np.ones(2)

    def step(self, actions):
        obs, rewards, *rest = self.env.step(actions)
        self.count += 1
        return obs, self.scale * rewards + self.count, *rest


class SavedCounter(Counter):
    def get_state(self):
        return {"count": self.count}

    def set_state(self, state):
        self.count = int(state["count"])


def test_a_wrapper_with_a_state_of_its_own_takes_part(tmp_path):
    expected, got = continued(lambda: SavedCounter(snapshots()), tmp_path)
    assert_same(got.columns(), expected.columns())


def test_a_wrapper_that_changes_and_cannot_be_saved_is_named():
    collector = collector_of(Counter(snapshots()))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        collector.state_dict()  # nothing has changed yet
    collector.collect(n_step=4)
    with pytest.warns(UserWarning, match=r"Counter changes its count while.*get_state\(\) and set_state\(state\)"):
        collector.state_dict()


def zeros(obs):
    return np.zeros((len(obs), 2, 2), np.float32)


class SingleCounter(gym.Wrapper):
    """Adds the steps of the running episode to every reward."""

    def reset(self, **kwargs):
        self.count = 0
        return self.env.reset(**kwargs)

    def step(self, action):
        obs, reward, *rest = self.env.step(action)
        self.count += 1
        return obs, reward + self.count, *rest


class SavedSingleCounter(SingleCounter):
    get_state, set_state = SavedCounter.get_state, SavedCounter.set_state


def around_each(*wraps, env=CountingEnv):
    def single(i):
        return functools.reduce(lambda inner, wrap: wrap(inner), wraps, env(i, lengths=(5,)))

    return SyncVectorEnv([functools.partial(single, i) for i in range(2)])


def test_a_wrapper_around_single_environments_takes_part(tmp_path):
    expected, got = continued(lambda: around_each(SavedSingleCounter, gym.Wrapper), tmp_path, before=8)
    assert_same(got.columns(), expected.columns())


def test_what_gymnasium_counts_of_single_environments_goes_on():
    def time_aware(env):
        return gym.wrappers.TimeAwareObservation(gym.wrappers.TimeLimit(env, 9))

    envs = [around_each(time_aware, gym.wrappers.RecordEpisodeStatistics) for _ in range(2)]
    original, restored = (QMPCollector(each, zeros, None, switch=OwnPolicy(), num_tasks=2) for each in envs)
    original.collect(n_step=6)
    restored.load_state_dict(original.state_dict())
    assert [(env.episode_lengths, env.env.timesteps) for env in envs[1].envs] == [(3, 3), (3, 3)]
    assert [env.episode_returns for env in envs[1].envs] == [3.0, 51.0]  # rewards of 0, 1, 2 and 16, 17, 18


class Unsaved(CountingEnv):
    get_state = set_state = None


@pytest.mark.parametrize(
    ("wrap", "said", "in_new_episodes"),
    [
        (SingleCounter, "SingleCounter changes its count", True),
        (lambda env: gym.wrappers.FrameStackObservation(env, 2), "FrameStackObservation changes its obs_queue", False),
        (lambda env: gym.wrappers.DelayObservation(env, 1), "DelayObservation changes its observation_queue", False),
        (lambda env: gym.wrappers.StickyAction(env, 0.5), "StickyAction changes its .*last_action", False),
    ],
)
def test_a_wrapper_around_single_environments_that_cannot_be_saved_is_named(wrap, said, in_new_episodes):
    """Those of Gymnasium forget with the episode, so that it matters only where episodes go on."""
    for env in (CountingEnv, Unsaved):
        collector = QMPCollector(around_each(wrap, env=env), zeros, None, switch=OwnPolicy(), num_tasks=2)
        collector.state_dict()  # nothing has changed yet
        collector.collect(n_step=6)
        if env is CountingEnv or in_new_episodes:
            with pytest.warns(UserWarning, match=said) as warned:
                collector.state_dict()
            assert len(warned) == 1
        else:
            collector.state_dict()


@pytest.mark.parametrize(
    ("first", "then"),
    [
        (deque([np.zeros(2)], maxlen=1), deque([np.ones(2)], maxlen=1)),
        ([0, 1], [0, 2]),
        ({"a": (0.0, "x")}, {"a": (0.0, "y")}),
        (None, 3),
        (3, None),
        (np.random.default_rng(0), np.random.default_rng(1)),
    ],
)
def test_changes_are_seen_in_containers_too(first, then):
    envs = type("Remembering", (VectorWrapper,), {})(snapshots())
    envs.memory, envs.same = first, (copy.deepcopy(first), [float("nan")])
    collector = collector_of(envs)
    envs.memory = copy.deepcopy(first)
    collector.state_dict()
    envs.memory = then
    with pytest.warns(UserWarning, match="Remembering changes its memory while"):
        collector.state_dict()


def test_a_state_of_other_wrappers():
    state = collector_of(NormalizeObservation(snapshots())).state_dict()
    for envs in (snapshots(), NormalizeReward(snapshots())):
        with pytest.raises(ValueError, match=r"stateful wrappers \['NormalizeObservation'\].*has \["):
            collector_of(envs).load_state_dict(state)


class Refusing(SavedSingleCounter):
    """Takes no state of a count of 5; the environment and the wrapper of the row before have taken theirs by then."""

    def set_state(self, state):
        if state["count"] == 5 and self.env.env_id == 1:
            raise OverflowError
        super().set_state(state)


def test_a_wrapper_that_refuses_leaves_all_as_it_was():
    sinks = Recorder(), Recorder()
    expected, collector = (collector_of(NormalizeReward(around_each(Refusing)), sink) for sink in sinks)
    for each in (expected, collector):
        each.collect(n_step=4)
    ahead = collector_of(NormalizeReward(around_each(Refusing)), seed=5)
    ahead.collect(n_step=10)
    with pytest.raises(OverflowError):
        collector.load_state_dict(ahead.state_dict())
    np.testing.assert_equal(collector.state_dict()["environment"], expected.state_dict()["environment"])
    for each in (expected, collector):
        each.collect(n_step=12)
    assert_same(sinks[1].columns(), sinks[0].columns())


class Live(CountingEnv):
    """Its state is what it writes to."""

    def reset(self, **kwargs):
        self.sum = np.zeros(2)
        return super().reset(**kwargs)

    def step(self, action):
        self.sum += action
        return super().step(action)

    def get_state(self):
        return super().get_state() | {"sum": self.sum}

    def set_state(self, state):
        super().set_state(state)
        self.sum = state["sum"]


class LiveVectorEnv(SyncVectorEnv):
    def get_state(self):
        return {"singles": [env.get_state() for env in self.envs]}

    def set_state(self, state):
        for env, single in zip(self.envs, state["singles"], strict=True):
            env.set_state(single)


@pytest.mark.parametrize(
    "vector", [SyncVectorEnv, LiveVectorEnv, lambda make: ConcatVectorEnv([LiveVectorEnv([fn]) for fn in make])]
)
def test_a_state_is_not_changed_by_later_steps(vector):
    def make():
        return collector_of(vector([lambda: Live(lengths=(99,))] * 2))

    collector, other = make(), make()
    collector.collect(n_step=4)
    state = collector.state_dict()
    before = copy.deepcopy(state)
    collector.collect(n_step=4)
    other.reset()
    other.load_state_dict(state)
    other.collect(n_step=4)
    np.testing.assert_equal(state, before)


# ---- before the first reset, and without a state of the environment ----


class NotYet(SnapshotVectorEnv):
    """Has no state before its first reset, and says so."""

    def get_state(self):
        if self._env_obs[0] is None:
            raise RuntimeError("get_state() before the first reset()")
        return super().get_state()


def test_a_state_before_the_first_reset():
    state = collector_of(make_envs(*SETTINGS, vector=NotYet), seed=5).state_dict()
    assert state["environment"]["envs"] is None
    restored = collector_of(make_envs(*SETTINGS, vector=NotYet), seed=9)
    restored.load_state_dict(state)
    expected = collector_of(make_envs(*SETTINGS, vector=NotYet), seed=5)
    np.testing.assert_array_equal(restored.reset()[0], expected.reset()[0])


def test_a_state_after_a_quota_still_holds_the_environments_random_numbers():
    def part(through):
        sink = Recorder()
        collector = collector_of(snapshots(), sink)
        collector.collect(n_episode=2)
        if through:
            state = collector.state_dict()
            collector = collector_of(snapshots(), sink, seed=8)
            collector.load_state_dict(state)
        collector.collect(n_episode=2)
        return sink.columns()

    assert_same(part(True), part(False))


def test_a_state_of_an_environment_for_one_that_takes_none():
    state = collector_of(snapshots())
    state.collect(n_step=4)
    with pytest.raises(ValueError, match="has no set_state"):
        collector_of(make_envs(*SETTINGS, mode="NextStep")).load_state_dict(state.state_dict())


# ---- altered leaves ----


def leaves(tree: Any, path: tuple[Any, ...] = ()):
    items = tree.items() if isinstance(tree, dict) else enumerate(tree) if isinstance(tree, list) else None
    if items is None:
        yield path, tree
    else:
        for key, value in items:
            yield from leaves(value, (*path, key))


def alterations(value):
    """Other shapes, dtypes and kinds."""
    if isinstance(value, np.ndarray):
        yield np.concatenate([value, value])
        yield value.astype(np.complex64)
        yield "text"
    else:
        yield "text" if not isinstance(value, str) else 3
        yield None if value is not None else np.zeros(7)


@pytest.mark.parametrize("mode", ["NextStep", "Disabled"])
def test_every_altered_leaf_is_refused_and_nothing_changes(mode):
    """Of shapes, dtypes and kinds; what is inside the environment's own state is the environment's to check."""
    envs = make_envs(*SETTINGS, mode=mode, vector=SnapshotVectorEnv)
    envs = NormalizeObservation(envs) if mode == "NextStep" else envs
    collector = collector_of(envs)
    collector.collect(n_step=23)
    collector.collect(n_step=23)
    state = collector.state_dict()
    before = copy.deepcopy(state)
    accepted = []
    for path, value in leaves(state):
        if path[:2] == ("environment", "envs"):
            continue
        for other in alterations(value):
            altered = copy.deepcopy(state)
            place = altered
            for key in path[:-1]:
                place = place[key]
            place[path[-1]] = other
            try:
                collector.load_state_dict(altered)
                accepted.append((path, other))
            except ValueError:
                np.testing.assert_equal(collector.state_dict(), before, err_msg=str(path))
    assert accepted == []


@pytest.mark.parametrize(
    ("path", "value", "said"),
    [
        (("mixture", "hold_left"), np.array([0, 3]), "expected fewer than the horizon 3"),
        (("mixture", "held"), np.array([0, 2]), "only 2 policies"),
        (("next_obs",), np.zeros((2, 5)), r"observations of shape \(2, 5\), expected \(2, 4\)"),
        (("stats", "stretch", "lens"), np.zeros(99, np.int64), "one entry per episode"),
    ],
)
def test_a_state_that_cannot_be_of_such_a_collector(path, value, said):
    collector = collector_of(snapshots())
    collector.collect(n_step=8)
    state = collector.state_dict()
    place = state
    for key in path[:-1]:
        place = place[key]
    place[path[-1]] = value
    with pytest.raises(ValueError, match=said):
        collector_of(snapshots()).load_state_dict(state)


@pytest.mark.parametrize("gone", ["environment", "episodes", "mixture", "stats", "next_obs", "num_steps"])
def test_a_state_that_lacks_a_part(gone):
    collector = collector_of(snapshots())
    collector.collect(n_step=8)
    state = collector.state_dict()
    del state[gone]
    with pytest.raises(ValueError, match=f"damaged, or of another version.*{gone}"):
        collector.load_state_dict(state)
    collector.collect(n_step=8)


def test_autoreset_modes_share_no_state():
    """Rows that wait for the environment's reset in one mode are nothing in another."""
    collector = collector_of(snapshots("NextStep"))
    collector.collect(n_step=5)
    assert collector.state_dict()["episodes"]["ignored"].any()
    for mode in (AutoresetMode.SAME_STEP, AutoresetMode.DISABLED):
        with pytest.raises(ValueError, match="NextStep"):
            collector_of(snapshots(mode)).load_state_dict(collector.state_dict())
