"""What goes wrong around a collector: interrupted steps, callers' code that writes or reuses arrays, mixed dtypes."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import fields

import gymnasium as gym
import numpy as np
import pytest
from collect_envs import (
    BOX,
    FIELDS,
    EngineError,
    Recorder,
    SnapshotVectorEnv,
    endless,
    make_envs,
    policy,
    q_function,
)
from gymnasium.vector import SyncVectorEnv, VectorWrapper
from gymnasium.vector.utils import batch_space
from gymnasium.wrappers.vector import DictInfoToList

from qmp_collect import (
    CollectStats,
    FixedSwitch,
    OwnPolicy,
    QMPCollector,
    QSwitch,
    SoftmaxQSwitch,
    UniformSwitch,
    check_callables,
    evaluate,
)
from qmp_collect.runs import RunLogger, load_checkpoint, save_checkpoint

POLICIES = [policy(0), policy(1)]
QS = [q_function(0), q_function(1)]
OBS = gym.spaces.Box(-1.0, 1.0, (4,), np.float32)


def constant(value, dtype=np.float32):
    return lambda obs: np.full((len(obs), 2), value, dtype)


def steps(rows):
    """Each row as "episode:t>episode:t"."""
    sides = (np.asarray(rows[field])[:, 1:3].astype(int) for field in ("obs", "next_obs"))
    return [f"{a}:{b}>{c}:{d}" for (a, b), (c, d) in zip(*sides, strict=True)]


def collected(envs, policies=POLICIES, q_functions=QS, *, n_step=2, **options):
    sink = Recorder()
    QMPCollector(envs, policies, q_functions, **{"buffer": sink, "seed": 0, **options}).collect(n_step=n_step)
    return sink


# ---- interrupted steps, and loops that mix `act` with `collect` ----


class BreaksOnce(SnapshotVectorEnv):
    """Interrupted by the user at the end of its third step."""

    calls = 0

    def step(self, actions):
        outcome = super().step(actions)
        self.calls += 1
        if self.calls == 3:
            raise KeyboardInterrupt
        return outcome


class FullOnce(Recorder):
    """A disk that is full at the third vector step."""

    calls = 0

    def add(self, transitions):
        self.calls += 1
        if self.calls == 3:
            raise OSError("disk full")
        super().add(transitions)


@pytest.mark.parametrize("checkpoint", [False, True])
@pytest.mark.parametrize("place", ["sub-environment", "envs.step", "sink"])
def test_after_an_interrupted_step_collect_starts_new_episodes(place, checkpoint):
    envs = endless(2, vector=BreaksOnce if place == "envs.step" else SnapshotVectorEnv)
    sink = FullOnce() if place == "sink" else Recorder()
    collector = QMPCollector(envs, POLICIES, QS, buffer=sink, seed=0)
    if place == "sub-environment":
        envs.envs[1].fail_at = 2  # when sub-environment 0 has made its step
    with pytest.raises((EngineError, KeyboardInterrupt, OSError)):
        collector.collect(n_step=100)
    envs.envs[1].fail_at = 20_000
    if checkpoint:
        collector.load_state_dict(collector.state_dict())
    collector.collect(n_step=4)
    for env_id in (0, 1):
        assert steps(sink.of_env(env_id)) == ["0:0>0:1", "0:1>0:2", "1:0>1:1", "1:1>1:2"]
    assert (collector.num_steps, collector.num_episodes) == (8, 0)


FIRST_EPISODE = ["0:0>0:1", "0:1>0:2", "0:2>0:3"]


@pytest.mark.parametrize(
    ("mode", "own_resets", "second_episode"),
    [
        ("NextStep", False, ["1:0>1:1", "1:1>1:2"]),  # one of the six steps only resets
        ("NextStep", True, ["1:0>1:1", "1:1>1:2", "1:2>1:3"]),
        ("SameStep", False, ["1:0>1:1", "1:1>1:2", "1:2>1:3"]),
        ("Disabled", True, ["1:0>1:1", "1:1>1:2", "1:2>1:3"]),
    ],
)
def test_episode_start_may_repeat_the_dones(mode, own_resets, second_episode):
    envs, sink = make_envs({}, {}, mode=mode), Recorder()
    collector = QMPCollector(envs, POLICIES, QS, buffer=sink)
    obs, _ = collector.reset(seed=0)
    start = np.ones(2, np.bool_)
    for _ in range(6):
        obs, rewards, terminations, truncations, infos = envs.step(collector.act(obs, episode_start=start))
        collector.observe(obs, rewards, terminations, truncations, infos)
        start = terminations | truncations
        if own_resets and start.any():
            obs, _ = envs.reset(options={"reset_mask": start.copy()})
    for env_id in (0, 1):
        assert steps(sink.of_env(env_id)) == FIRST_EPISODE + second_episode


@pytest.mark.parametrize("before", [0, 4])
def test_collect_goes_on_from_the_observation_given_to_act(before):
    envs, sink = endless(2), Recorder()
    collector = QMPCollector(envs, POLICIES, QS, buffer=sink, seed=0)
    if before:
        collector.collect(n_step=before)
    obs, _ = envs.reset()
    collector.act(obs, episode_start=np.ones(2, np.bool_))
    collector.collect(n_step=4)
    now = "1" if before else "0"
    assert steps(sink.of_env(0))[before // 2 :] == [f"{now}:0>{now}:1", f"{now}:1>{now}:2"]


# ---- callers' code that writes to what it is given, or to what it gave ----


class WritingSwitch:
    """Chooses the other one of two policies."""

    needs_scores = True

    def __call__(self, scores, own, rng):
        scores[:] = 0
        own[:] = 1 - own
        return own


def test_a_switch_may_write_to_its_arguments():
    sink, q_functions = Recorder(), [lambda obs, actions: actions.sum(-1), lambda obs, actions: -actions.sum(-1)]
    policies = [constant(0.25), constant(0.75)]
    collector = QMPCollector(endless(2), policies, q_functions, switch=WritingSwitch(), buffer=sink, seed=0)
    stats = collector.collect(n_step=6)
    assert collector.task_ids.tolist() == [0, 1]
    assert sink.column("task_ids").tolist() == [0, 1] * 3
    assert sink.column("behavior_ids").tolist() == [1, 0] * 3
    assert stats.q_gap.tolist() == [1.0, 1.0]


@pytest.mark.parametrize("backend", ["numpy", "torch"])
def test_a_batched_q_function_may_write_to_its_arguments(backend):
    xp = pytest.importorskip(backend)

    def q(obs, actions, task_ids):
        obs *= 2
        actions *= 2
        task_ids *= 2
        return actions.sum(-1)

    sink = collected(endless(2), lambda obs: xp.full((2, 2, 2), 0.5), q, n_step=4, num_tasks=2, backend=backend)
    assert sink.column("actions").tolist() == [[0.5, 0.5]] * 4
    assert sink.column("task_ids").tolist() == [0, 1] * 2
    assert steps(sink.of_env(0)) == ["0:0>0:1", "0:1>0:2"]


class Erasing:
    """A sink that uses its arrays as scratch memory."""

    def add(self, transitions):
        for field in FIELDS:
            getattr(transitions, field)[...] = 0


@pytest.mark.parametrize("mode", ["SameStep", "NextStep"])
def test_a_sink_may_write_to_its_arrays(mode):
    envs = make_envs({"lengths": (2,)}, {"lengths": (2,)}, mode=mode)
    switch = FixedSwitch([[0, 1], [1, 0]])  # each task acts with the other's policy
    policies = [constant(0.25), constant(0.75)]
    stats = QMPCollector(envs, policies, QS, switch=switch, horizon=2, buffer=Erasing(), seed=0).collect(n_step=8)
    assert stats.returns.tolist() == [1.5 + 2.5, 16.5 + 17.5, 5.5 + 6.5, 20.5 + 21.5]
    assert stats.behavior_counts.tolist() == [[0, 4], [4, 0]]


@pytest.mark.parametrize("backend", ["numpy", "torch"])
def test_samples_of_a_policy_that_returns_the_same_array_every_time(backend):
    xp = pytest.importorskip(backend)
    answer, seen = xp.zeros((2, 2, 2)), []

    def reusing(obs):
        nonlocal answer
        answer += 1
        return answer

    def q(obs, actions, task_ids):
        seen.append(float(actions[0, 0, 0]))
        return actions.sum(-1)

    options = {"num_tasks": 2, "switch": QSwitch(samples=3), "backend": backend}
    sink = collected(endless(2), reusing, q, **options)
    assert seen == [2.0, 3.0, 4.0]
    assert sink.column("actions").tolist() == [[1.0, 1.0]] * 2


# ---- dtypes ----


@pytest.mark.parametrize("options", [{"switch": OwnPolicy()}, {"warmup_steps": 100}])
def test_a_task_with_integer_actions_leaves_the_others_their_fractions(options):
    sink = collected(endless(2), [constant(0, np.int64), constant(0.75)], **options)
    assert sink.column("actions").tolist() == [[0.0, 0.0], [0.75, 0.75]]


CANDIDATES = [constant(0.25), constant(0.5), constant(0.75)]


@pytest.mark.parametrize("dtype", [np.int64, np.float16])
def test_a_coarse_q_function_leaves_the_others_their_precision(dtype):
    q_functions = [
        lambda obs, actions: np.zeros(len(obs), dtype),
        lambda obs, actions: (1000 + actions[:, 0] / 8).astype(np.float32),
    ]
    assert collected(endless(2), CANDIDATES, q_functions).column("behavior_ids").tolist() == [0, 2]


@pytest.mark.filterwarnings("ignore:invalid value encountered")
def test_integer_scores_with_a_broken_candidate():
    policies = [*CANDIDATES[:2], constant(np.nan)]
    sink = collected(endless(2), policies, lambda *_: np.array([[0, 1, 2]] * 2), task_ids=[0, 1], num_tasks=2)
    assert sink.column("behavior_ids").tolist() == [1, 1]


def networks(policy_dtype, q_dtype, num=2, device=None):
    """``num`` linear policies and Q-functions."""
    torch = pytest.importorskip("torch")

    class Network(torch.nn.Module):
        def __init__(self, inputs, outputs, dtype):
            super().__init__()
            self.layer = torch.nn.Linear(inputs, outputs, dtype=getattr(torch, dtype), device=device)

        def forward(self, *inputs):
            return torch.sigmoid(self.layer(torch.cat(inputs, -1)))

    kinds = ((4, 2, policy_dtype), (6, 1, q_dtype))
    return [torch.nn.ModuleList([Network(*kind) for _ in range(num)]) for kind in kinds]


@pytest.mark.parametrize(
    ("policy_dtype", "q_dtype", "options"),
    [
        ("float64", "float64", {"backend": "torch"}),
        ("bfloat16", "bfloat16", {"device": "cpu"}),
        ("bfloat16", "float32", {}),
        ("float32", "float64", {}),
        ("float64", "float32", {"backend": "torch", "device": "cpu"}),
    ],
)
def test_modules_are_given_their_own_dtype(policy_dtype, q_dtype, options):
    sink = collected(endless(2), *networks(policy_dtype, q_dtype), **options)
    assert sink.column("task_ids").tolist() == [0, 1]


def test_modules_are_given_their_own_device_where_torch_is_asked_for_by_name():
    torch = pytest.importorskip("torch")
    seen = []

    class Elsewhere(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.weight = torch.nn.Parameter(torch.zeros(1, device="meta"))

        def forward(self, obs, task_ids):
            seen.extend([obs.device.type, task_ids.device.type])
            return torch.zeros(len(obs), 2)

    collected(endless(2), None, None, num_tasks=2, own_policy=Elsewhere(), switch=OwnPolicy(), backend="torch")
    assert seen == ["meta", "meta"]


@pytest.mark.parametrize("default", ["dtype", "device"])
def test_a_buffer_keeps_its_dtype_and_device_under_torch_defaults(default):
    torch = pytest.importorskip("torch")
    from qmp_collect import TaskReplayBuffer

    if default == "dtype":
        torch.set_default_dtype(torch.float64)
    else:
        torch.set_default_device("meta")  # stands for "cuda"
    try:
        buffer = TaskReplayBuffer(5, 2, gym.spaces.Box(-9, 9, (4,)), BOX, seed=0)
        collected(endless(2), buffer=buffer)
        again = TaskReplayBuffer(5, 2, gym.spaces.Box(-9, 9, (4,)), BOX, seed=1)
        again.load_state_dict(buffer.state_dict())
        obs = again.sample(1).obs
    finally:
        torch.set_default_dtype(torch.float32)
        torch.set_default_device(None)
    assert (obs.dtype, obs.device.type) == (torch.float32, "cpu")
    assert obs[:, 0, :3].tolist() == [[0, 0, 0], [1, 0, 0]]


# ---- what callers' code may get wrong ----


class Stacked(VectorWrapper):
    """Two frames at a time; forgets that the final observations are observations too."""

    def __init__(self, envs):
        super().__init__(envs)
        self.single_observation_space = gym.spaces.Box(-np.inf, np.inf, (2, 4), np.float64)
        self.observation_space = batch_space(self.single_observation_space, envs.num_envs)

    def reset(self, **options):
        obs, infos = self.env.reset(**options)
        return np.stack([obs, obs], 1), infos

    def step(self, actions):
        obs, *rest = self.env.step(actions)
        return np.stack([obs, obs], 1), *rest


def test_final_observations_of_another_shape():
    q = lambda obs, actions: actions.sum(-1)  # noqa: E731
    with pytest.raises(ValueError, match=r"final_obs.*\(4,\).*\(2, 4\)"):
        collected(Stacked(make_envs({}, {})), [constant(0.5)] * 2, [q, q], n_step=6)


def test_infos_as_a_list():
    with pytest.raises(TypeError, match=r"dict.*list.*DictInfoToList"):
        evaluate(DictInfoToList(make_envs({}, {}, mode="NextStep")), POLICIES)


class FlatInfos(VectorWrapper):
    """An environment in SAME_STEP mode with final observations but no final infos."""

    def step(self, actions):
        *outcome, infos = self.env.step(actions)
        return *outcome, {"final_obs": infos["final_obs"], "success": np.array([True, False])}


def test_success_without_final_infos():
    envs = FlatInfos(make_envs({"lengths": (1,)}, {"lengths": (1,)}))
    assert evaluate(envs, POLICIES).successes.tolist() == [True, False]


@pytest.mark.parametrize("needs_scores", [True, False])
@pytest.mark.parametrize("answer", [[-1, -1], [0, 2], [0.0, 1.0], [0], [[0, 1]], [True, False]])
def test_a_switch_that_does_not_answer_with_policies(answer, needs_scores):
    class Wrong:
        def __call__(self, scores, own, rng):
            return np.array(answer)

    Wrong.needs_scores = needs_scores
    with pytest.raises(ValueError, match=r"Wrong.* must return 2 policy indices from 0 to 1"):
        collected(endless(2), switch=Wrong())


@pytest.mark.parametrize(
    ("switch", "horizon", "broken_at", "behaviors"),
    [
        (FixedSwitch([[0, 1], [0, 1]]), 1, [1], [1, 0, 1, 1, 1, 1]),
        (FixedSwitch([[0, 1], [0, 1]]), 4, [1], [1, 0, 1, 1, 1, 1]),  # the hold ends where its policy breaks
        (QSwitch(), 4, [1], [1, 0, 1, 1, 1, 1]),
        (UniformSwitch(), 1, range(6), [0] * 6),
    ],
)
def test_the_own_policy_acts_where_a_chosen_foreign_one_breaks(switch, horizon, broken_at, behaviors):
    def breaking(obs):
        return np.where((obs[:, :1] == 0) & np.isin(obs[:, 2:3], broken_at), np.nan, 0.75).repeat(2, axis=1)

    q = lambda obs, actions: actions.sum(-1)  # noqa: E731
    sink = collected(endless(2), [constant(0.25), breaking], [q, q], switch=switch, horizon=horizon, n_step=12)
    rows = sink.of_env(0)
    assert rows["behavior_ids"].tolist() == behaviors
    assert rows["actions"][:, 0].tolist() == [(0.25, 0.75)[k] for k in behaviors]
    assert sink.of_env(1)["task_ids"].tolist() == [1] * 6


def test_listed_q_functions_that_return_a_pair():
    twin = lambda obs, actions: (actions[:, 0], actions[:, 1])  # noqa: E731
    with pytest.raises(TypeError, match=r"q_functions\[0\] must return an array of shape \(2,\), got tuple"):
        collected(endless(2), q_functions=[twin, twin])


MULTI = gym.spaces.MultiDiscrete([3, 4])


@pytest.mark.parametrize(
    "use",
    [
        lambda policies, q: check_callables(policies, q, OBS, MULTI, num_tasks=2),
        lambda policies, q: collected(endless(2, action_space=MULTI), policies, q),
    ],
)
def test_fractional_actions_for_a_space_of_integers(use):
    q = lambda obs, actions: actions.sum(-1)  # noqa: E731
    with pytest.raises(TypeError, match=r"policies\[0\] returned float32 actions.*integers.*MultiDiscrete"):
        use([constant(0.7), constant(0.7)], [q, q])


def test_a_state_with_more_policies():
    def collector(num_policies):
        switch = FixedSwitch([[0.0] * (num_policies - 1) + [1.0]] * 2)
        policies = [policy(k) for k in range(num_policies)]
        return QMPCollector(endless(2, vector=SnapshotVectorEnv), policies, QS, switch=switch, horizon=9, seed=1)

    larger = collector(4)
    larger.collect(n_step=4)
    with pytest.raises(ValueError, match="the state is of 4 policies, this collector has 2"):
        collector(2).load_state_dict(larger.state_dict())


@pytest.mark.parametrize("temperature", [1e-40, 1e-46, 1e-300])
def test_softmax_at_the_lowest_temperatures_takes_the_best(temperature):
    scores, own = np.array([[0.0, -np.inf, 1.0]] * 9, np.float32), np.zeros(9, np.int64)
    chosen = SoftmaxQSwitch(temperature)(scores, own, np.random.default_rng(0))
    assert chosen.tolist() == [2] * 9


@pytest.mark.parametrize("temperature", [1e39, 1e300, np.inf])
def test_softmax_at_the_highest_temperatures_takes_any_but_the_broken(temperature):
    scores, own = np.array([[-np.inf, 0.0, 1.0]] * 1000, np.float32), np.ones(1000, np.int64)
    counts = np.bincount(SoftmaxQSwitch(temperature)(scores, own, np.random.default_rng(0)), minlength=3)
    assert counts[0] == 0
    assert 400 < counts[1] < 600


# ---- seeds ----


def test_a_numpy_integer_is_a_seed():
    def rows(seed):
        return collected(endless(2), switch=UniformSwitch(), n_step=20, seed=seed).columns()

    expected, got = rows(3), rows(np.int64(3))
    for field in FIELDS:
        np.testing.assert_array_equal(got[field], expected[field])
    envs = make_envs({}, {})
    assert (
        evaluate(envs, POLICIES, seed=np.int64(3)).returns.tolist() == evaluate(envs, POLICIES, seed=3).returns.tolist()
    )


def test_a_numpy_integer_seeds_a_buffer():
    torch = pytest.importorskip("torch")
    from qmp_collect import TaskReplayBuffer

    states = [TaskReplayBuffer(5, 2, BOX, BOX, seed=seed).state_dict()["generator"] for seed in (3, np.int64(3))]
    assert torch.equal(*states)


class StartsLate(SyncVectorEnv):
    """Not there yet at the first reset."""

    calls = 0

    def reset(self, **options):
        self.calls += 1
        if self.calls == 1:
            raise ConnectionError("not up yet")
        return super().reset(**options)


def test_the_seed_outlives_a_reset_that_fails():
    collector = QMPCollector(endless(2, vector=StartsLate), POLICIES, QS, seed=3)
    with pytest.raises(ConnectionError):
        collector.reset()
    np.testing.assert_array_equal(collector.reset()[0], endless(2).reset(seed=3)[0])


def test_environments_switch_and_random_actions_draw_different_numbers():
    drawn = []

    class Drawing:
        needs_scores = False

        def __call__(self, scores, own, rng):
            drawn.append(rng.random())
            return own

    sink = Recorder()
    collector = QMPCollector(endless(2), POLICIES, QS, switch=Drawing(), buffer=sink, seed=3)
    collector.collect(n_step=2, random=True)
    collector.collect(n_step=2)
    first_numbers = [sink.column("obs")[0, 3], drawn[0], sink.column("actions")[0, 0]]
    assert len(set(np.float32(first_numbers).tolist())) == 3


# ---- evaluation ----


class Modeless(VectorWrapper):
    """Does not say how it resets."""

    unwrapped = None
    metadata = {}


def test_evaluate_is_told_the_autoreset_mode():
    envs = Modeless(make_envs({"lengths": (2,)}, {"lengths": (2,)}))
    with pytest.raises(ValueError, match="autoreset_mode="):
        evaluate(envs, [constant(0.25)] * 2)
    assert evaluate(envs, [constant(0.25)] * 2, autoreset_mode="SameStep").returns.tolist() == [2.0, 34.0]


def test_more_listed_policies_than_the_tasks_given():
    envs, policies = make_envs({"lengths": (2,)}, {"lengths": (2,)}), [constant(0.25)] * 3
    stats = evaluate(envs, policies, task_ids=[0, 1])
    assert stats.per_task(stats.returns).tolist() == [2.0, 34.0]
    collector = QMPCollector(envs, policies, lambda obs, actions, task_ids: actions.sum(-1), task_ids=[0, 1])
    assert (collector.num_tasks, collector.num_policies) == (2, 3)


# ---- long runs ----


def test_stats_are_the_sum_of_what_every_collect_returned():
    envs = make_envs({"lengths": (2, 3)}, {"lengths": (1, 4)}, vector=SnapshotVectorEnv)
    collector = QMPCollector(envs, POLICIES, QS, seed=0)
    collector.collect(n_step=10)
    assert collector.stats(clear=True).n_collected_steps == 10
    total = CollectStats.empty(2, 2)
    for k in range(30):
        part = collector.collect(n_step=1 + k % 7) if k % 3 else collector.collect(n_episode=2, random=k % 2 == 0)
        total = total + part
        part.returns[:] = part.steps_per_task[:] = part.behavior_counts[:] = -1  # the caller's own arrays
        if k == 20:
            collector.load_state_dict(collector.state_dict())
    for stats in (collector.stats(), collector.stats()):
        for field in fields(CollectStats):
            expected = getattr(total, field.name)
            if field.name.endswith("_time"):
                assert getattr(stats, field.name) == pytest.approx(expected)
            else:
                np.testing.assert_array_equal(getattr(stats, field.name), expected, err_msg=field.name)


@pytest.mark.parametrize("switch", [QSwitch(), OwnPolicy()])
@pytest.mark.parametrize("num_tasks", [2, 5])
def test_a_vector_step_takes_one_array_to_the_device(monkeypatch, num_tasks, switch):
    torch = pytest.importorskip("torch")
    collector = QMPCollector(endless(num_tasks), *networks("float32", "float32", num_tasks), switch=switch, seed=0)
    collector.collect(n_step=num_tasks)
    made, tensor = [], torch.tensor
    monkeypatch.setattr(torch, "tensor", lambda *args, **options: made.append(args) or tensor(*args, **options))
    collector.collect(n_step=3 * num_tasks)
    assert len(made) == 3


# ---- files and imports ----


def damaged(path, offset, value):
    """Overwrite a field of the archive's first directory entry."""
    content = bytearray(path.read_bytes())
    content[content.index(b"PK\x01\x02") + offset] = value
    path.write_bytes(content)


@pytest.mark.parametrize(
    ("offset", "value"),
    [(6, 99), (8, 1), (10, 99), (10, 12)],
    ids=["version", "encrypted", "unknown compression", "bzip2"],
)
def test_damaged_archive_directory(tmp_path, offset, value):
    path = tmp_path / "checkpoint.npz"
    save_checkpoint(path, {"a": np.arange(3)})
    damaged(path, offset, value)
    with pytest.raises(ValueError, match="is not a readable checkpoint"):
        load_checkpoint(path)


def test_logger_resumes_after_bytes_that_are_no_text(tmp_path):
    with RunLogger(tmp_path, {}, tensorboard=False) as logger:
        logger.log(1, {"a": 1})
    with open(tmp_path / "metrics.jsonl", "ab") as file:
        file.write(b'{"global_step": 2, "a\xff\xfe')
    with RunLogger(tmp_path, {}, tensorboard=False, resume_rows=1) as logger:
        logger.log(3, {"a": 3})
    rows = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert [(row["global_step"], row["a"]) for row in rows] == [(1, 1), (3, 3)]


def test_star_import_without_torch():
    code = "import sys; sys.modules['torch'] = None; from qmp_collect import *; print(QMPCollector.__name__)"
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=env, check=False)
    assert done.stdout.split() == ["QMPCollector"], done.stderr
