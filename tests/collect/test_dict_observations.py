"""Observations of several parts, bit for bit from environment to learner, against a model of what each step shows."""

from __future__ import annotations

import functools

import gymnasium as gym
import numpy as np
import pytest
import torch
from gymnasium.vector import AsyncVectorEnv, AutoresetMode, SyncVectorEnv

from qmp_collect import (
    ConcatVectorEnv,
    QMPCollector,
    TaskReplayBuffer,
    as_dict,
    check_callables,
    evaluate,
)
from qmp_collect.records import record_dtype
from qmp_collect.replay_records import RecordCells
from qmp_collect.runs import load_checkpoint, save_checkpoint

LARGE = 2**40  # no float32, and not one of 2**24


class Camera(gym.Env):
    """What is seen after ``steps`` steps of episode ``episode``, with the action ``done`` before, is `seen`."""

    observation_space = gym.spaces.Dict(
        {
            "view": gym.spaces.Dict(
                {
                    "image": gym.spaces.Box(0, 255, (2, 3, 1), np.uint8),
                    "depth": gym.spaces.Tuple([gym.spaces.Box(-9, 9, (2,), np.float64), gym.spaces.MultiBinary(3)]),
                }
            ),
            "state": gym.spaces.Box(-np.inf, np.inf, (3,), np.float32),
            "phase": gym.spaces.Discrete(5, start=LARGE),
        }
    )
    action_space = gym.spaces.Box(-9, 9, (1,), np.float32)

    def __init__(self, task):
        self.task, self.episode = task, -1

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.episode, self.steps = self.episode + 1, 0
        return seen(self.task, self.episode, 0, 0.0), {}

    def step(self, action):
        self.steps += 1
        observation = seen(self.task, self.episode, self.steps, float(action[0]))
        return observation, float(self.steps), self.steps == 3 + self.task, False, {}


def seen(task, episode, steps, done):
    image = np.arange(6).reshape(2, 3, 1) + 100 * task + 10 * steps + episode
    return {
        "view": {
            "image": image.astype(np.uint8),
            "depth": (np.array([1 / 3 + steps, done]), np.array([task, steps % 2, 1], np.int8)),
        },
        "state": np.array([task, episode + 0.1, steps], np.float32),
        "phase": np.int64(LARGE + steps),
    }


def chosen(task, episode, steps):
    """By `policy`: of all parts something."""
    return np.float32(episode + 0.1) + np.float32(steps) + np.float32(100 * task + 10 * steps + episode) / 100


def policy(obs):
    assert set(obs) == {"view", "state", "phase"}
    assert isinstance(obs["view"]["depth"], tuple)
    assert not np.any(obs["phase"] - LARGE - obs["state"][:, 2])
    return obs["state"][:, 1:2] + obs["state"][:, 2:] + obs["view"]["image"][:, 0, 0] / 100


def flat(obs):
    """All numbers and dtypes of an observation."""
    view, (near, far) = obs["view"], obs["view"]["depth"]
    parts = [np.asarray(part) for part in (view["image"], near, far, obs["state"], obs["phase"])]
    return [(part.dtype.str, part.shape, part.tobytes()) for part in parts]


def row(obs, i):
    view = obs["view"]
    depth = view["depth"]
    depth = depth.values() if isinstance(depth, dict) else depth
    view = {"image": view["image"][i], "depth": tuple(part[i] for part in depth)}
    return {"view": view, "state": obs["state"][i], "phase": obs["phase"][i]}


def values(obs, actions):
    assert len(obs["state"]) == len(obs["view"]["depth"][0]) == len(actions)
    return -actions[:, 0]


def environments(kind, mode):
    one = [functools.partial(Camera, task) for task in (0, 1)]
    if kind == "concat":
        return ConcatVectorEnv([SyncVectorEnv([make], autoreset_mode=mode) for make in one])
    return (AsyncVectorEnv if kind == "async" else SyncVectorEnv)(one, autoreset_mode=mode)


def check(transitions, episodes, steps):
    """Rows of two tasks against `seen`; counts on ``episodes`` and ``steps``, ``(2,)``."""
    obs, next_obs = as_dict(transitions.obs), as_dict(transitions.next_obs)
    for i, task in enumerate(transitions.task_ids.tolist()):
        episode, step = int(episodes[task]), int(steps[task])
        action = transitions.actions[i, 0]
        before = 0.0 if step == 0 else float(chosen(task, episode, step - 1))
        if transitions.behavior_ids[i] >= 0:
            np.testing.assert_allclose(action, chosen(task, episode, step), rtol=1e-6)
        got, expected = row(obs, i), seen(task, episode, step, before)
        np.testing.assert_allclose(got["view"]["depth"][0], expected["view"]["depth"][0], rtol=1e-6)
        got["view"]["depth"] = expected["view"]["depth"] = (np.zeros(2), expected["view"]["depth"][1])
        assert flat(got) == flat(expected)
        assert flat(row(next_obs, i)) == flat(seen(task, episode, step + 1, float(action)))
        steps[task] += 1
        if transitions.terminations[i]:
            episodes[task], steps[task] = episode + 1, 0


@pytest.mark.parametrize("mode", AutoresetMode)
@pytest.mark.parametrize("kind", ["sync", "async", "concat"])
def test_every_part_of_every_row(kind, mode):
    rows, episodes, steps = [], np.zeros(2, int), np.zeros(2, int)
    envs = environments(kind, mode)
    collector = QMPCollector(envs, [policy] * 2, [values] * 2, on_step=rows.append, seed=0)
    stats = collector.collect(n_step=24)
    for transitions in rows:
        check(transitions, episodes, steps)
    assert len(stats.lens) >= 5
    envs.close()


def test_torch_callables_and_replay_get_the_same_numbers():
    asked = []

    def network(obs):
        asked.append({"image": obs["view"]["image"], "state": obs["state"], "phase": obs["phase"]})
        assert obs["view"]["image"].dtype == obs["view"]["depth"][0].dtype == torch.float32
        assert obs["phase"].dtype == torch.int64
        assert obs["view"]["depth"][1].dtype == torch.int8
        return obs["state"][:, 1:2] + obs["state"][:, 2:] + obs["view"]["image"][:, 0, 0] / 100

    envs = environments("sync", AutoresetMode.SAME_STEP)
    buffer = TaskReplayBuffer(50, 2, envs.single_observation_space, envs.single_action_space, seed=0)
    collector = QMPCollector(
        envs, [network] * 2, [lambda o, a: o["state"][:, 0] - a[:, 0]] * 2, buffer=buffer, backend="torch"
    )
    collector.collect(n_step=20)
    # image 6 bytes, depth 2 float32, 3 int8, state 3 float32, phase one int64, in cells of 4 bytes
    assert buffer.row_width == 2 * (2 + 2 + 1 + 3 + 2) + 4
    batch = buffer.sample(64)
    assert batch.obs["view"]["image"].shape == (2, 64, 2, 3, 1)
    assert isinstance(batch.obs["view"]["depth"], tuple)
    for obs in (batch.obs, batch.next_obs):
        task, episode, steps = obs["state"].unbind(-1)
        episode = episode.round()
        assert torch.equal(obs["phase"], LARGE + steps.long())
        first = 100 * task + 10 * steps + episode
        torch.testing.assert_close(obs["view"]["image"][..., 0, 0, 0], first, rtol=0, atol=0)
        torch.testing.assert_close(obs["view"]["depth"][0][..., 0], (1 / 3 + steps.double()).float(), rtol=0, atol=0)
        assert torch.equal(obs["view"]["depth"][1], torch.stack([task, steps % 2, steps * 0 + 1], -1).long())
    assert torch.equal(batch.next_obs["state"][..., 2], batch.obs["state"][..., 2] + 1)
    seen_by_policy = {tuple(r) for obs in asked for r in torch.cat([obs["image"].flatten(1), obs["state"]], 1).tolist()}
    stored = torch.cat([batch.obs["view"]["image"].flatten(2), batch.obs["state"]], 2).flatten(0, 1)
    assert {tuple(r) for r in stored.tolist()} <= seen_by_policy

    other = TaskReplayBuffer(50, 2, envs.single_observation_space, envs.single_action_space, seed=1)
    other.load_state_dict(buffer.state_dict())
    again, expected = other.sample(8), buffer.sample(8)
    assert torch.equal(again.obs["phase"], expected.obs["phase"])
    assert torch.equal(again.obs["view"]["image"], expected.obs["view"]["image"])


@pytest.mark.parametrize("mode", AutoresetMode)
def test_a_loop_of_ones_own_with_masks_and_a_state(mode, tmp_path):
    shown = []

    def mask(obs, task_ids):
        shown.append(obs["view"]["image"].dtype)
        return np.ones((len(task_ids), 2), bool)

    def make():
        envs = environments("sync", mode)
        return envs, QMPCollector(envs, [policy] * 2, [values] * 2, candidate_mask=mask, seed=0)

    envs, collector = make()
    episodes, steps = np.zeros(2, int), np.zeros(2, int)
    obs, _ = collector.reset()
    for _ in range(3):
        obs, *outcome = envs.step(collector.act(obs))
        check(collector.observe(obs, *outcome), episodes, steps)
    assert set(shown) == {np.dtype(np.uint8)}
    if mode is not AutoresetMode.DISABLED:
        assert flat(row(collector.obs, 1)) == flat(row(obs, 1))
    save_checkpoint(tmp_path / "state", collector.state_dict())
    state = load_checkpoint(tmp_path / "state")
    _, other = make()
    other.load_state_dict(state)
    again, before = other.state_dict()["next_obs"], collector.state_dict()["next_obs"]
    assert {path: part.tobytes() for path, part in again.items()} == {k: part.tobytes() for k, part in before.items()}
    assert before["['view']['image']"].tobytes() == obs["view"]["image"].tobytes()
    state["next_obs"]["['phase']"] = np.zeros(2, np.float32)
    with pytest.raises(ValueError, match=r"next_obs\.\['phase'\].*: expected an array \(\(2,\), dtype\('int64'\)\)"):
        other.load_state_dict(state)


def test_random_actions_evaluation_and_the_checker():
    envs = environments("sync", AutoresetMode.SAME_STEP)
    rows = []
    collector = QMPCollector(envs, [policy] * 2, [values] * 2, on_step=rows.append, seed=0)
    collector.collect(n_step=8, random=True)
    assert {int(i) for transitions in rows for i in transitions.behavior_ids} == {-1}
    assert evaluate(environments("sync", AutoresetMode.NEXT_STEP), [policy] * 2).lens.tolist() == [3, 4]

    def own(obs, task_ids):
        return np.clip(obs["state"][:, :1], -1, 1)

    check_callables(
        [lambda obs: np.clip(obs["state"][:, :1], -1, 1)] * 2,
        [values] * 2,
        envs.single_observation_space,
        envs.single_action_space,
        num_tasks=2,
        own_policy=own,
    )


@pytest.mark.parametrize(
    ("part", "values"),
    [
        (gym.spaces.MultiDiscrete([200, 255], dtype=np.uint8), [133, 254]),
        (gym.spaces.MultiDiscrete([90, 127], dtype=np.int8, start=[-100, -128]), [-11, -128]),
        (gym.spaces.MultiDiscrete([60_000, 2], dtype=np.uint16), [59_999, 1]),
        (gym.spaces.MultiDiscrete([2**40, 2], dtype=np.uint64), [2**40 - 1, 1]),
        (gym.spaces.Discrete(255, dtype=np.uint8), 254),
        (gym.spaces.Discrete(100, dtype=np.int8, start=-100), -100),
        (gym.spaces.MultiBinary(2), [1, 0]),
        (gym.spaces.Box(0, 255, (2,), np.uint8), [133.0, 255.0]),
        (gym.spaces.Box(-128, 127, (2,), np.int8), [-128.0, 127.0]),
        (gym.spaces.Box(0, 60_000, (2,), np.uint16), [59_999.0, 0.0]),
        (gym.spaces.Box(0, 1, (2,), np.bool_), [1.0, 0.0]),
    ],
    ids=str,
)
def test_integers_of_every_width_come_back(part, values):
    space = gym.spaces.Dict(part=part)
    cells = RecordCells(space)
    record = np.zeros(1, record_dtype(space))
    record["part"] = np.array(values).astype(part.dtype)
    read = cells.read(torch.from_numpy(cells.write("obs", record, lambda name, values: values)))["part"]
    assert read.tolist() == [values]
    assert read.dtype == (torch.float32 if isinstance(part, gym.spaces.Box) else torch.int64)


def test_what_the_space_cannot_hold_is_refused():
    envs = environments("sync", AutoresetMode.SAME_STEP)
    collector = QMPCollector(envs, [policy] * 2, [values] * 2, seed=0)
    obs, _ = collector.reset()
    collector.act(obs | {"state": obs["state"].astype(np.float64)})
    wrong = obs | {"view": obs["view"] | {"image": obs["view"]["image"].astype(int) + 256}}
    for broken, message in (
        (wrong, r"observations\['view'\]\['image'\] is int64 with numbers that its space"),
        ({"state": obs["state"]}, r"observations\['phase'\] is missing: .* a dict of \['state'\]"),
        (obs | {"state": obs["state"][:, :2]}, r"\['state'\] of shape \(2, 3\), one row per .*, got \(2, 2\)"),
    ):
        with pytest.raises(ValueError, match=message):
            collector.act(broken)
    spoilt = obs | {"state": np.full((2, 3), np.nan, np.float32)}
    with pytest.raises(FloatingPointError, match=r"the observation\['state'\] \[nan, nan, nan\] in sub-environment 0"):
        collector.observe(spoilt, np.zeros(2), np.zeros(2, bool), np.zeros(2, bool), {}, actions=np.zeros((2, 1)))


class Flat(gym.Env):
    """Parts side by side, as Stable-Baselines3 has them."""

    observation_space = gym.spaces.Dict(
        camera=gym.spaces.Box(0, 255, (1, 2, 2), np.uint8), state=gym.spaces.Box(-9, 9, (2,), np.float32)
    )
    action_space = gym.spaces.Box(-1, 1, (1,), np.float32)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.steps = 0
        return self._obs(), {}

    def _obs(self):
        return {"camera": np.full((1, 2, 2), 60 * self.steps, np.uint8), "state": np.array([self.steps, 1], np.float32)}

    def step(self, action):
        self.steps += 1
        return self._obs(), 0.0, self.steps == 3, False, {}


def collected(sink):
    envs = SyncVectorEnv([Flat], autoreset_mode=AutoresetMode.SAME_STEP)
    fixed = [lambda obs: obs["state"][:, :1] / 3]
    QMPCollector(envs, fixed, [lambda obs, actions: actions[:, 0]], buffer=sink).collect(n_step=5)


def test_other_libraries_buffers():
    sb3 = pytest.importorskip("stable_baselines3")
    from qmp_collect.adapters import SB3Sink

    buffers = sb3.common.buffers
    buffer = buffers.DictReplayBuffer(8, Flat.observation_space, Flat.action_space, n_envs=1)
    collected(SB3Sink(buffer))
    assert buffer.observations["camera"][:5, 0, 0, 0, 0].tolist() == [0, 60, 120, 0, 60]
    assert buffer.next_observations["state"][:5, 0, 0].tolist() == [1, 2, 3, 1, 2]
    with pytest.raises(ValueError, match="has the parts"):
        collected(SB3Sink(buffers.DictReplayBuffer(8, gym.spaces.Dict(state=OTHER), Flat.action_space)))
    her = sb3.HerReplayBuffer.__new__(sb3.HerReplayBuffer)
    vars(her).update(n_envs=1, handle_timeout_termination=True, action_space=None, observation_space=None)
    her.n_sampled_goal = 4
    with pytest.raises(TypeError, match="HerReplayBuffer relabels whole episodes"):
        SB3Sink(her)


OTHER = gym.spaces.Box(-9, 9, (2,), np.float32)


def test_torchrl_has_the_parts_by_name():
    data = pytest.importorskip("torchrl.data")
    from qmp_collect.adapters import TorchRLSink

    buffer = data.TensorDictReplayBuffer(storage=data.LazyTensorStorage(8))
    collected(TorchRLSink(buffer))
    stored = buffer[:]
    assert stored["camera"].dtype == torch.uint8
    assert stored["camera"][:, 0, 0, 0].tolist() == [0, 60, 120, 0, 60]
    assert stored["next", "state"][:, 0].tolist() == [1, 2, 3, 1, 2]


class Goal(gym.Env):
    """Place and goal on a line, and what was done; four steps."""

    observation_space = gym.spaces.Dict(
        {
            "observation": gym.spaces.Box(-9, 9, (2,), np.float32),
            "achieved_goal": gym.spaces.Box(-9, 9, (1,), np.float32),
            "desired_goal": gym.spaces.Box(-9, 9, (1,), np.float32),
        }
    )
    action_space = gym.spaces.Box(-1, 1, (1,), np.float32)

    def __init__(self, goal):
        self.goal = goal

    def _obs(self, action):
        parts = {"observation": [action, self.steps], "achieved_goal": [self.place], "desired_goal": [self.goal]}
        return {name: np.array(values, np.float32) for name, values in parts.items()}

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.place, self.steps = 0.0, 0
        return self._obs(0.0), {}

    def step(self, action):
        self.place, self.steps = self.place + float(action[0]), self.steps + 1
        return self._obs(float(action[0])), 0.0, False, self.steps == 2, {}


@pytest.mark.parametrize("mode", AutoresetMode)
def test_flattened_sub_environments(mode):
    def towards_the_goal(rows):
        return np.clip(rows[:, 1:2] - rows[:, :1], -1, 1)

    envs = SyncVectorEnv(
        [lambda g=g: gym.wrappers.FlattenObservation(Goal(g)) for g in (5.0, -5.0)], autoreset_mode=mode
    )
    buffer = TaskReplayBuffer(8, 2, envs.single_observation_space, envs.single_action_space)
    QMPCollector(envs, [towards_the_goal] * 2, [lambda obs, actions: actions[:, 0]] * 2, buffer=buffer).collect(
        n_step=6
    )
    batch = buffer.sample(40)
    for task, sign in ((0, 1.0), (1, -1.0)):  # achieved goal, desired goal, action before, steps
        seen = {
            (*map(tuple, rows),) for rows in zip(batch.obs[task].tolist(), batch.next_obs[task].tolist(), strict=True)
        }
        first, second, last = (0.0, 5 * sign, 0, 0), (sign, 5 * sign, sign, 1), (2 * sign, 5 * sign, sign, 2)
        assert seen == {(first, second), (second, last)}
