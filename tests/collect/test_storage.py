"""A collector over a vector env stores what a scalar loop over its sub-envs stores, whatever the autoreset mode."""

from __future__ import annotations

import gymnasium as gym
import numpy as np
import pytest
from collect_envs import (
    BOX,
    FIELDS,
    MODES,
    VECTORS,
    Recorder,
    assert_rows,
    assert_same,
    episodes_of,
    make_envs,
    policy,
    q_function,
    scalar_loop,
)
from gymnasium.vector import AutoresetMode, SyncVectorEnv

from qmp_collect import OwnPolicy, QMPCollector

TASKS = [0, 1, 0]  # two envs of task 0, one of task 1
LENGTHS = [(2, 3), (1, 4), (5,)]  # env 1 has episodes of a single step
ENDS = {"terminated": ("terminated",), "truncated": ("truncated",), "mixed": ("both", "truncated", "terminated")}
SEED = 3


def settings_for(ends="mixed", space=BOX):
    return [{"lengths": lengths, "ends": ENDS[ends], "action_space": space} for lengths in LENGTHS]


def callables(space=BOX):
    return [policy(k, space) for k in range(3)], [q_function(t, space) for t in range(2)]


def collector_for(envs, buffer, space=BOX, **kwargs):
    return QMPCollector(envs, *callables(space), task_ids=TASKS, buffer=buffer, seed=0, **kwargs)


def by_hand(settings, space=BOX, episodes=3, **kwargs):
    """(rows, episodes) of each env."""
    policies, qs = callables(space)
    return [
        scalar_loop(options, i, task, policies, qs[task], episodes=episodes, seed=SEED, **kwargs)
        for i, (options, task) in enumerate(zip(settings, TASKS, strict=True))
    ]


@pytest.mark.filterwarnings("ignore:This process:DeprecationWarning")  # Python 3.12 on forks beside other threads
@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("vector", VECTORS)
@pytest.mark.parametrize("ends", ENDS)
def test_n_episode_stores_exactly_the_quota_of_a_scalar_loop(mode, vector, ends):
    settings, sink = settings_for(ends), Recorder()
    envs = make_envs(*settings, mode=mode, vector=VECTORS[vector])
    try:
        collector = collector_for(envs, sink)
        collector.reset(seed=SEED)
        stats = collector.collect(n_episode=3)
    finally:
        envs.close()

    expected = by_hand(settings)
    for i, (rows, _) in enumerate(expected):
        assert_rows(sink.of_env(i), rows)
    assert episodes_of(stats) == sorted(episode for _, episodes in expected for episode in episodes)
    assert stats.n_collected_episodes == collector.num_episodes == 9
    assert stats.n_collected_steps == collector.num_steps == len(sink) == (2 + 3 + 2) + (1 + 4 + 1) + (5 + 5 + 5)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("space", [gym.spaces.Discrete(4), gym.spaces.Discrete(4, start=-2)], ids=str)
def test_discrete_actions_are_stored_as_executed(mode, space):
    settings, sink = settings_for(space=space), Recorder()
    collector = collector_for(make_envs(*settings, mode=mode), sink, space)
    collector.reset(seed=SEED)
    collector.collect(n_episode=3)
    for i, (rows, _) in enumerate(by_hand(settings, space)):
        assert_rows(sink.of_env(i), rows)
    assert np.issubdtype(sink.column("actions").dtype, np.integer)


# In NEXT_STEP mode the envs of lengths (2, 3), (1, 4) and (5,) are reset in the vector steps 3, 2 and 6, so the vector
# steps store 3, 2, 2, 3, 3, 2, ... rows; in the other two modes every vector step stores 3.
@pytest.mark.parametrize(
    ("mode", "n_step", "stored"),
    [
        (AutoresetMode.NEXT_STEP, 1, 3),
        (AutoresetMode.NEXT_STEP, 4, 5),
        (AutoresetMode.NEXT_STEP, 5, 5),
        (AutoresetMode.NEXT_STEP, 6, 7),
        (AutoresetMode.NEXT_STEP, 12, 13),
        (AutoresetMode.SAME_STEP, 1, 3),
        (AutoresetMode.SAME_STEP, 6, 6),
        (AutoresetMode.SAME_STEP, 13, 15),
        (AutoresetMode.DISABLED, 6, 6),
        (AutoresetMode.DISABLED, 13, 15),
    ],
)
def test_n_step_counts_stored_transitions(mode, n_step, stored):
    settings, sink = settings_for(), Recorder()
    collector = collector_for(make_envs(*settings, mode=mode), sink)
    collector.reset(seed=SEED)
    stats = collector.collect(n_step=n_step)
    assert stats.n_collected_steps == collector.num_steps == len(sink) == stored


@pytest.mark.parametrize("mode", MODES)
def test_collecting_in_pieces_continues_the_episodes(mode):
    """Ten small calls store a prefix of the scalar loop; an episode that spans calls is counted once, when it ends."""
    settings, sink = settings_for(), Recorder()
    collector = collector_for(make_envs(*settings, mode=mode), sink)
    collector.reset(seed=SEED)
    stats = [collector.collect(n_step=n) for n in (1, 2, 3, 4, 1, 5, 3, 3, 6, 2)]
    finished = []
    for i, (rows, episodes) in enumerate(by_hand(settings, episodes=20)):
        stored = sink.of_env(i)
        assert len(stored["obs"]) >= 8
        assert_rows(stored, rows[: len(stored["obs"])])
        finished += episodes[: int((stored["terminations"] | stored["truncations"]).sum())]
    assert sorted(episode for part in stats for episode in episodes_of(part)) == sorted(finished)
    assert sum(part.n_collected_episodes for part in stats) == collector.num_episodes == len(finished)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("amount", [{"n_episode": 1}, {"n_step": 6}], ids=str)
def test_envs_are_reset_after_a_quota(mode, amount):
    """The next call starts every env at the first step of an episode, however far it had run ahead."""
    sink = Recorder()
    settings = [{"lengths": (n,)} for n in (3, 2, 5)]
    collector = collector_for(make_envs(*settings, mode=mode), sink)
    collector.reset(seed=SEED)
    collector.collect(n_episode=1)
    before = len(sink.parts)
    collector.collect(**amount)
    sink.parts = sink.parts[before:]
    lengths = (2, 2, 2) if "n_step" in amount else (3, 2, 5)
    assert len(sink) == sum(lengths)
    for i, length in enumerate(lengths):
        np.testing.assert_array_equal(sink.of_env(i)["obs"][:, 2], np.arange(length))


@pytest.mark.parametrize("mode", MODES)
def test_a_quota_begins_with_fresh_episodes(mode):
    """Episodes that were under way are given up: every env adds whole episodes only."""
    sink = Recorder()
    collector = collector_for(make_envs(*settings_for(), mode=mode), sink)
    collector.reset(seed=SEED)
    collector.collect(n_step=4)
    before = len(sink.parts)
    stats = collector.collect(n_episode=2)
    sink.parts = sink.parts[before:]
    assert stats.n_collected_episodes == 6
    assert stats.n_collected_steps == len(sink) == stats.lens.sum()
    for i in range(3):
        rows = sink.of_env(i)
        starts = np.flatnonzero(rows["obs"][:, 2] == 0)
        ends = np.flatnonzero(rows["terminations"] | rows["truncations"])
        np.testing.assert_array_equal(starts, [0, ends[0] + 1])
        assert ends[1] == len(rows["obs"]) - 1


@pytest.mark.parametrize(
    ("mode", "resetter"), [*((mode, "envs") for mode in MODES), (AutoresetMode.DISABLED, "collector")]
)
@pytest.mark.parametrize("horizon", [1, 3])
@pytest.mark.parametrize("asked_twice", [False, True])
def test_act_and_observe_in_a_loop_equal_collect(mode, resetter, horizon, asked_twice):
    """The caller may also act without stepping: what was never observed leaves no trace."""
    settings = settings_for()
    loop_sink, collect_sink = Recorder(), Recorder()

    envs = make_envs(*settings, mode=mode)
    looped = collector_for(envs, loop_sink, horizon=horizon)
    obs, _ = looped.reset(seed=SEED)
    returned = []
    for _ in range(14):
        if asked_twice:
            looped.act(obs)
        actions = looped.act(obs)
        assert actions.shape == (3, 2)
        obs, rewards, terminations, truncations, infos = envs.step(actions)
        returned.append(looped.observe(obs, rewards, terminations, truncations, infos))
        done = terminations | truncations
        if mode == AutoresetMode.DISABLED and done.any():
            obs, _ = {"envs": envs, "collector": looped}[resetter].reset(options={"reset_mask": done})

    collected = collector_for(make_envs(*settings, mode=mode), collect_sink, horizon=horizon)
    collected.reset(seed=SEED)
    collected.collect(n_step=len(loop_sink))
    assert_same(loop_sink.columns(), collect_sink.columns())
    assert [len(part) for part in returned] == [len(part) for part in collect_sink.parts]
    a, b = looped.stats(), collected.stats()
    assert episodes_of(a) == episodes_of(b)
    np.testing.assert_array_equal(a.behavior_counts, b.behavior_counts)
    np.testing.assert_array_equal(a.q_gap, b.q_gap)


def test_same_step_without_any_end_needs_no_final_observation():
    """`infos` has no `final_obs` key on a step where nobody finishes."""
    sink = Recorder()
    collector = collector_for(make_envs(*[{"lengths": (9,)}] * 3, mode="SameStep"), sink)
    collector.reset(seed=SEED)
    collector.collect(n_step=6)
    np.testing.assert_array_equal(sink.column("next_obs")[:, 2], [1, 1, 1, 2, 2, 2])


@pytest.mark.parametrize("mode", MODES)
def test_observations_are_copied_on_receipt(mode):
    """`SyncVectorEnv(copy=False)` hands out one array that it overwrites at every step and every reset."""
    settings, sink = settings_for(), Recorder()
    collector = collector_for(make_envs(*settings, mode=mode, copy=False), sink)
    collector.reset(seed=SEED)
    collector.collect(n_episode=3)
    for i, (rows, _) in enumerate(by_hand(settings)):
        assert_rows(sink.of_env(i), rows)


def test_the_stored_action_survives_whoever_reuses_the_array():
    """An env that overwrites the actions it is given, and policies that refill one output array at every call."""
    settings, sink = [{**options, "scribble": True} for options in settings_for()], Recorder()
    policies, qs = callables()

    def refilling(inner):
        out = {}

        def act(obs):
            array = out.setdefault(len(obs), np.empty((len(obs), 2), np.float32))
            array[...] = inner(obs)
            return array

        return act

    collector = QMPCollector(
        make_envs(*settings), [refilling(p) for p in policies], qs, task_ids=TASKS, buffer=sink, seed=0
    )
    collector.reset(seed=SEED)
    collector.collect(n_episode=3)
    for i, (rows, _) in enumerate(by_hand(settings_for())):
        assert_rows(sink.of_env(i), rows)
    before = len(sink.parts)
    collector.collect(n_step=9, random=True)
    sink.parts = sink.parts[before:]
    assert sink.column("actions").min() >= 0


def scribbling(function):
    """The same callable, which ruins its observations once it has read them."""

    def f(obs, *rest):
        answer = function(obs, *rest)
        obs[...] = -1.0
        return answer

    return f


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("form", ["listed", "batched", "own"])
def test_callables_may_write_into_their_observations(mode, form):
    """An in-place normalisation reaches neither what is stored nor what the next callable sees."""
    policies, qs = callables()
    settings, sink, kwargs = settings_for(), Recorder(), {}
    if form == "listed":
        given = [scribbling(p) for p in policies], [scribbling(q) for q in qs]
    elif form == "batched":

        def all_policies(obs):
            return np.stack([p(obs) for p in policies], 1)

        def all_qs(obs, actions, task_ids):
            return np.stack(
                [[qs[t](o[None], a[None])[0] for a in row] for o, row, t in zip(obs, actions, task_ids, strict=True)]
            )

        given = scribbling(all_policies), scribbling(all_qs)
    else:

        def own_policy(obs, task_ids):
            return np.stack([policies[t](o[None])[0] for o, t in zip(obs, task_ids, strict=True)])

        given = None, None
        kwargs = {"own_policy": scribbling(own_policy), "switch": OwnPolicy()}
    envs = make_envs(*settings, mode=mode)
    collector = QMPCollector(envs, *given, task_ids=TASKS, num_tasks=2, buffer=sink, **kwargs)
    collector.reset(seed=SEED)
    collector.collect(n_episode=2)
    for i, task in enumerate(TASKS):
        if form == "own":  # a mixture of one policy
            rows, _ = scalar_loop(settings[i], i, 0, [policies[task]], qs[task], episodes=2, seed=SEED)
            rows = [row._replace(task_ids=task, behavior_ids=task) for row in rows]
        else:
            rows, _ = scalar_loop(settings[i], i, task, policies, qs[task], episodes=2, seed=SEED)
        assert_rows(sink.of_env(i), rows)


def test_disabled_envs_are_reset_by_a_fresh_mask_of_the_finished():
    masks = []

    class Spy(SyncVectorEnv):
        def reset(self, *, seed=None, options=None):
            if options is not None:
                masks.append((id(options), options, set(options), options["reset_mask"].copy()))
            return super().reset(seed=seed, options=options)

    collector = collector_for(make_envs(*settings_for(), mode="Disabled", vector=Spy), None)
    collector.reset(seed=SEED)
    collector.collect(n_step=15)  # five vector steps: lengths (2, 3), (1, 4) and (5,)
    assert all(keys == {"reset_mask"} for _, _, keys, _ in masks)
    assert len({address for address, *_ in masks}) == len(masks)
    # A reset after the very last step may be put off until the next call.
    expected = [[0, 1, 0], [1, 0, 0], [1, 1, 1]]
    np.testing.assert_array_equal([mask for *_, mask in masks][:2], expected[:2])
    collector.collect(n_step=1)
    np.testing.assert_array_equal([mask for *_, mask in masks], expected)


def delegating(envs, metadata):
    """A vector env that says its autoreset mode in its metadata only (or nowhere)."""

    class Delegating(gym.vector.VectorEnv):
        num_envs = envs.num_envs
        single_observation_space, single_action_space = envs.single_observation_space, envs.single_action_space
        observation_space, action_space = envs.observation_space, envs.action_space

        def __init__(self):
            self.metadata = metadata

        def reset(self, **kwargs):
            return envs.reset(**kwargs)

        def step(self, actions):
            return envs.step(actions)

    return Delegating()


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("source", ["attribute", "metadata", "argument", "argument as text", "wrapped"])
def test_where_the_autoreset_mode_is_found(mode, source):
    """The argument is asked first, then `envs.unwrapped.autoreset_mode`, then the metadata, which others overwrite."""
    settings, sink, kwargs = settings_for(), Recorder(), {}
    wrong = AutoresetMode.SAME_STEP if mode == AutoresetMode.NEXT_STEP else AutoresetMode.NEXT_STEP
    envs = make_envs(*settings, mode=mode)
    if source in ("attribute", "wrapped"):
        envs.metadata = {**envs.metadata, "autoreset_mode": wrong}
        envs = gym.wrappers.vector.RecordEpisodeStatistics(envs) if source == "wrapped" else envs
    elif source == "metadata":
        envs = delegating(envs, {"autoreset_mode": mode})
    else:
        envs = delegating(envs, {"autoreset_mode": wrong})
        kwargs = {"autoreset_mode": mode if source == "argument" else mode.value}
    collector = collector_for(envs, sink, **kwargs)
    collector.reset(seed=SEED)
    collector.collect(n_episode=2)
    for i, (rows, _) in enumerate(by_hand(settings, episodes=2)):
        assert_rows(sink.of_env(i), rows)


def test_transitions_are_arrays_of_the_documented_types():
    sink = Recorder()
    collector = collector_for(make_envs(*settings_for()), sink)
    collector.reset(seed=SEED)
    collector.collect(n_step=6)
    part = sink.parts[0]
    assert len(part) == 3
    for field in FIELDS:
        array = getattr(part, field)
        assert isinstance(array, np.ndarray), field
        assert len(array) == 3, field
    assert part.obs.shape == part.next_obs.shape == (3, 4)
    assert part.obs.dtype == np.float64
    assert part.actions.dtype == np.float32
    assert part.terminations.dtype == part.truncations.dtype == np.bool_
    assert part.task_ids.dtype == part.behavior_ids.dtype == part.env_ids.dtype == np.int64
    with pytest.raises(AttributeError):
        part.obs = None
