"""Sinks for other libraries' replay buffers: literal content, time-outs kept apart."""

from __future__ import annotations

import copy
import dataclasses
import importlib
import sys
import types

import gymnasium as gym
import numpy as np
import pytest

from qmp_collect.adapters import FunctionSink, SB3Sink, TianshouSink, TorchRLSink
from qmp_collect.transitions import Transitions, joined

OBS, ACTION = gym.spaces.Box(-10, 10, (2,)), gym.spaces.Box(-1, 1, (1,))

FOUR_ROWS = Transitions(
    obs=np.array([[0.0, 0.5], [1.0, 1.5], [2.0, 2.5], [3.0, 3.5]]),
    actions=np.array([[-1.0], [-0.5], [0.25], [1.0]], np.float32),
    rewards=np.array([10.0, 11.0, 12.0, 13.0]),
    next_obs=np.array([[5.0, 5.5], [6.0, 6.5], [7.0, 7.5], [8.0, 8.5]]),
    terminations=np.array([False, True, False, True]),
    truncations=np.array([False, False, True, True]),
    task_ids=np.array([2, 2, 2, 2]),
    behavior_ids=np.array([0, 1, 2, -1]),
    env_ids=np.array([4, 5, 4, 5]),
)


def sb3_buffer(name="ReplayBuffer", action_space=ACTION, **options):
    buffers = pytest.importorskip("stable_baselines3.common.buffers")
    return getattr(buffers, name)(8, OBS, action_space, device="cpu", **options)


def test_sb3_buffer_gets_the_rows_in_order():
    buffer = sb3_buffer()
    SB3Sink(buffer).add(FOUR_ROWS)
    assert buffer.size() == 4
    assert buffer.observations[:4, 0].tolist() == FOUR_ROWS.obs.tolist()
    assert buffer.next_observations[:4, 0].tolist() == FOUR_ROWS.next_obs.tolist()
    assert buffer.actions[:4, 0].tolist() == [[-1.0], [-0.5], [0.25], [1.0]]
    assert buffer.rewards[:4, 0].tolist() == [10.0, 11.0, 12.0, 13.0]


def test_sb3_infos_say_who_acted():
    buffer, seen = sb3_buffer(), []
    add = buffer.add
    buffer.add = lambda *row: (seen.append(row[-1]), add(*row))
    SB3Sink(buffer).add(FOUR_ROWS)
    assert [[info["behavior_id"] for info in infos] for infos in seen] == [[0], [1], [2], [-1]]


def test_sb3_samples_are_done_at_terminations_only():
    buffer = sb3_buffer()
    SB3Sink(buffer).add(FOUR_ROWS)
    assert buffer.dones[:4, 0].tolist() == [0.0, 1.0, 1.0, 1.0]
    assert buffer.timeouts[:4, 0].tolist() == [0.0, 0.0, 1.0, 0.0]
    samples = buffer._get_samples(np.arange(4))
    assert samples.dones.tolist() == [[0.0], [1.0], [0.0], [1.0]]


def test_sb3_actions_are_stored_as_its_learners_expect_them():
    space = gym.spaces.Box(np.array([0.0, -4.0], np.float32), np.array([2.0, 4.0], np.float32))
    buffer = sb3_buffer(action_space=space)
    executed = np.array([[0.0, -4.0], [1.0, 0.0], [1.5, 2.0], [2.0, 4.0]], np.float32)
    SB3Sink(buffer, scale_actions=True).add(dataclasses.replace(FOUR_ROWS, actions=executed))
    assert buffer.actions[:4, 0].tolist() == [[-1.0, -1.0], [0.0, 0.0], [0.5, 0.5], [1.0, 1.0]]


@pytest.mark.parametrize(
    ("space", "actions"),
    [
        (gym.spaces.Discrete(4), np.array([3, 0, 1, 2])),
        (gym.spaces.MultiDiscrete([4, 2]), np.array([[3, 1], [0, 0], [1, 1], [2, 0]])),
        (gym.spaces.Box(-np.inf, np.inf, (1,)), np.array([[30.0], [0.0], [1.0], [-2.0]])),
    ],
)
def test_sb3_actions_without_bounds_are_stored_as_they_are(space, actions):
    buffer = sb3_buffer(action_space=space)
    SB3Sink(buffer).add(dataclasses.replace(FOUR_ROWS, actions=actions))
    assert buffer.actions[:4, 0].tolist() == actions.reshape(4, -1).tolist()


def test_sb3_learner_trains_on_collected_rows():
    sb3 = pytest.importorskip("stable_baselines3")
    learner = sb3.SAC("MlpPolicy", "Pendulum-v1", buffer_size=50, batch_size=8, device="cpu", seed=0)
    sink = SB3Sink(learner)
    rng = np.random.default_rng(0)
    for _ in range(5):
        rows = dataclasses.replace(
            FOUR_ROWS,
            obs=rng.normal(size=(4, 3)),
            next_obs=rng.normal(size=(4, 3)),
            actions=rng.uniform(-2, 2, (4, 1)).astype(np.float32),
        )
        sink.add(rows)
    assert learner.replay_buffer.size() == 20
    assert learner.replay_buffer.actions[16:20, 0] == pytest.approx(rows.actions / 2)  # Pendulum's bounds are -2, 2
    learner.train(gradient_steps=2, batch_size=8)
    assert learner._n_updates == 2


def test_sb3_buffers_that_would_mix_things_up_are_refused():
    with pytest.raises(ValueError, match="got n_envs=2"):
        SB3Sink(sb3_buffer(n_envs=2))
    with pytest.raises(ValueError, match="optimize_memory_usage=False, got True"):
        SB3Sink(sb3_buffer(handle_timeout_termination=False, optimize_memory_usage=True))
    with pytest.raises(ValueError, match="n-step buffer with handle_timeout_termination=True"):
        SB3Sink(sb3_buffer("NStepReplayBuffer", n_steps=3, handle_timeout_termination=False))
    with pytest.raises(TypeError, match=r"expected an off-policy model .* got RolloutBuffer"):
        SB3Sink(sb3_buffer("RolloutBuffer"))


def test_sb3_rows_go_where_the_model_has_its_buffer_now(tmp_path):
    sb3 = pytest.importorskip("stable_baselines3")
    env = type("Env", (gym.Env,), {"observation_space": OBS, "action_space": ACTION})  # nobody steps it
    model = sb3.SAC("MlpPolicy", env(), buffer_size=8, device="cpu", policy_kwargs={"net_arch": [2]})
    sink = SB3Sink(model)
    sink.add(FOUR_ROWS)
    model.save_replay_buffer(tmp_path / "replay")
    model.load_replay_buffer(tmp_path / "replay")
    sink.add(FOUR_ROWS[:2])
    assert sink.replay_buffer is model.replay_buffer
    assert model.replay_buffer.rewards[:6, 0].tolist() == [10.0, 11.0, 12.0, 13.0, 10.0, 11.0]
    assert model.num_timesteps == 6
    with pytest.raises(ValueError, match="rows of task 0 after rows of task 2"):
        sink.add(dataclasses.replace(FOUR_ROWS, task_ids=np.zeros(4, np.int64)))
    model.replay_buffer = sb3_buffer(n_envs=2)
    with pytest.raises(ValueError, match="got n_envs=2"):
        sink.add(FOUR_ROWS)


def test_a_buffer_that_ignores_time_outs_is_given_terminations_alone():
    buffer = sb3_buffer(handle_timeout_termination=False)  # as CleanRL's scripts make theirs
    SB3Sink(buffer).add(FOUR_ROWS)
    assert buffer.dones[:4, 0].tolist() == [0.0, 1.0, 0.0, 1.0]
    assert buffer._get_samples(np.arange(4)).dones.tolist() == [[0.0], [1.0], [0.0], [1.0]]


def test_how_actions_are_stored_is_the_callers_choice():
    space = gym.spaces.Box(-2, 2, (1,))
    rows = dataclasses.replace(FOUR_ROWS, actions=2 * FOUR_ROWS.actions)
    with pytest.raises(ValueError, match=r"SB3Sink\(buffer, scale_actions=False\) for CleanRL's"):
        SB3Sink(sb3_buffer(action_space=space))
    for scale, stored in ((False, [-2.0, -1.0, 0.5, 2.0]), (True, [-1.0, -0.5, 0.25, 1.0])):
        buffer = sb3_buffer(action_space=space)
        SB3Sink(buffer, scale_actions=scale).add(rows)
        assert buffer.actions[:4, 0, 0].tolist() == stored
    with pytest.raises(ValueError, match="needs bounds"):
        SB3Sink(sb3_buffer(action_space=gym.spaces.Box(-np.inf, np.inf, (1,))), scale_actions=True)


def test_sb3_sink_refuses_a_second_task_and_stores_none_of_it():
    buffer = sb3_buffer()
    sink = SB3Sink(buffer)
    with pytest.raises(ValueError, match="rows of task 0 after rows of task 2"):
        sink.add(dataclasses.replace(FOUR_ROWS, task_ids=np.array([2, 2, 0, 2])))
    sink.add(FOUR_ROWS)
    with pytest.raises(ValueError, match="rows of task 1 after rows of task 2"):
        sink.add(dataclasses.replace(FOUR_ROWS, task_ids=np.array([1, 1, 1, 1])))
    with pytest.raises(ValueError, match="rows of task 1 after rows of task 2"):  # whichever sink they come through
        SB3Sink(buffer).add(dataclasses.replace(FOUR_ROWS, task_ids=np.array([1, 1, 1, 1])))
    assert buffer.size() == 4


@pytest.mark.parametrize("name", ["obs", "next_obs", "actions"])
def test_sb3_rows_of_another_shape_are_not_broadcast(name):
    buffer = sb3_buffer(action_space=gym.spaces.Box(-1, 1, (2,)))
    rows = dataclasses.replace(FOUR_ROWS, actions=np.zeros((4, 2), np.float32))
    with pytest.raises(ValueError, match=rf"transitions.{name} has shape \(4, 1\), the replay buffer expects \(4, 2\)"):
        SB3Sink(buffer).add(dataclasses.replace(rows, **{name: np.zeros((4, 1), np.float32)}))
    assert buffer.size() == 0


def test_a_function_is_a_sink():
    received = []
    FunctionSink(received.append).add(FOUR_ROWS)
    assert received == [FOUR_ROWS]
    with pytest.raises(TypeError, match="expected a function that stores Transitions, got list"):
        FunctionSink([])


class HalfPolicy:
    def map_action_inverse(self, actions):
        return actions / 2


@pytest.mark.parametrize("parts", [1, 2])
def test_tianshou_buffer_gets_every_sub_environment_in_its_own_part(parts):
    data = pytest.importorskip("tianshou.data")
    buffer = data.VectorReplayBuffer(16, 2) if parts == 2 else data.ReplayBuffer(8)
    rows = FOUR_ROWS if parts == 2 else FOUR_ROWS[np.array([0, 2])]
    rows = dataclasses.replace(rows, next_obs=np.concatenate([rows.obs[parts:], rows.next_obs[parts:]]))  # running on
    TianshouSink(buffer, HalfPolicy()).add(rows)
    order = [0, 2, 1, 3] if parts == 2 else [0, 1]
    places = [0, 1, 8, 9][: len(order)]
    assert buffer.act[places].flatten().tolist() == (rows.actions[order] / 2).flatten().tolist()
    assert buffer.obs_next[places].tolist() == rows.next_obs[order].tolist()
    assert buffer.terminated[places].tolist() == rows.terminations[order].tolist()
    assert buffer.truncated[places].tolist() == rows.truncations[order].tolist()
    assert buffer.info.behavior_id[places].tolist() == rows.behavior_ids[order].tolist()
    with pytest.raises(ValueError, match=f"has parts for {parts} sub-environments"):
        TianshouSink(data.ReplayBuffer(8) if parts == 1 else buffer, HalfPolicy()).add(
            dataclasses.replace(FOUR_ROWS, env_ids=np.arange(4))
        )


class Part(list):
    """Stands for a part of a Tianshou buffer, of which the sink asks how long it is."""


class TianshouBuffer:
    """What Tianshou's ``VectorReplayBuffer(4 * parts, parts)`` shows of itself, where it is not installed."""

    def __init__(self, parts):
        self.buffer_num, self.buffers = parts, [Part() for _ in range(parts)]
        self.last_index = 4 * np.arange(parts)

    def add(self, batch, buffer_ids):
        if not hasattr(self, "done"):
            self.obs_next = np.zeros((4 * len(self.buffers), 2), np.float32)
            self.rew = np.zeros(4 * len(self.buffers))
            self.done, self.terminated, self.truncated = (np.zeros(len(self.rew), np.bool_) for _ in range(3))
            self.info = types.SimpleNamespace(env_id=np.zeros(len(self.rew), np.int64))
        for row, slot in enumerate(buffer_ids):
            place = self.last_index[slot] = 4 * slot + len(self.buffers[slot])
            self.buffers[slot].append(place)
            for name in ("obs_next", "rew", "terminated", "truncated"):
                getattr(self, name)[place] = getattr(batch, name)[row]
            self.done[place] = batch.terminated[row] | batch.truncated[row]
            self.info.env_id[place] = batch.info[row]["env_id"]


@pytest.fixture
def tianshou_buffer(monkeypatch):
    """A buffer with two parts of four rows."""
    try:
        return importlib.import_module("tianshou.data").VectorReplayBuffer(8, 2)
    except ModuleNotFoundError:
        data = types.SimpleNamespace(Batch=types.SimpleNamespace)
        monkeypatch.setitem(sys.modules, "tianshou.data", data)
        monkeypatch.setitem(sys.modules, "tianshou", types.SimpleNamespace(data=data))
        return TianshouBuffer(2)


def of(env_id, rows):
    return dataclasses.replace(rows, env_ids=np.full(len(rows), env_id))


def test_tianshou_parts_are_those_of_the_loaded_buffer(tianshou_buffer):
    buffer = tianshou_buffer
    TianshouSink(buffer, HalfPolicy()).add(joined([of(0, stream(1.0)), of(1, stream(2.0))]))
    again = TianshouSink(copy.deepcopy(buffer), HalfPolicy())  # saved, and loaded into a new program
    again.add(of(1, stream(3.0, at=1.0)))  # the other one has just ended its episode, and is reset
    with pytest.raises(ValueError, match=r"parts for 2 sub-environments, got rows of \[0, 1, 7\]"):
        again.add(of(7, stream(9.0)))
    again.add(joined([of(1, stream(5.0, 6.0, at=2.0)), of(0, stream(4.0, at=1.0))]))
    assert again.replay_buffer.rew.tolist() == [1.0, 4.0, 0.0, 0.0, 2.0, 3.0, 5.0, 6.0]
    assert not again.replay_buffer.done.any()


def test_tianshou_episodes_that_were_given_up_end(tianshou_buffer):
    buffer = tianshou_buffer
    sink = TianshouSink(buffer, HalfPolicy())
    sink.add(joined([of(0, stream(1.0, 1.0)), of(1, stream(1.0, 1.0))]))
    TianshouSink(buffer, HalfPolicy()).add(joined([of(1, stream(1.0, at=2.0)), of(0, stream(1.0, 1.0, at=-7.0))]))
    assert buffer.truncated.tolist() == [False, True, False, False, False, False, False, False]
    assert buffer.done.tolist() == buffer.truncated.tolist()
    assert not buffer.terminated.any()


def test_tianshou_sink_says_what_it_needs():
    with pytest.raises(TypeError, match=r"with map_action_inverse, got SimpleNamespace: .* algorithm\.policy"):
        TianshouSink(set(), types.SimpleNamespace())


def test_sb3_n_step_buffer_takes_one_stream_only():
    rows = dataclasses.replace(FOUR_ROWS, env_ids=np.array([4, 4, 4, 4]))
    sink = SB3Sink(sb3_buffer("NStepReplayBuffer", n_steps=3))
    sink.add(rows)
    sink.add(rows)
    with pytest.raises(ValueError, match="got rows of 5 after rows of 4"):
        sink.add(FOUR_ROWS)
    SB3Sink(sb3_buffer("NStepReplayBuffer", n_steps=1)).add(FOUR_ROWS)


def stream(*rewards, at=0.0):
    """A running episode of one sub-environment from position ``at``, which nothing has ended."""
    here = np.arange(at, at + len(rewards))
    return Transitions(
        obs=np.stack([here, here], 1).astype(np.float32),
        actions=np.zeros((len(rewards), 1), np.float32),
        rewards=np.array(rewards),
        next_obs=np.stack([here, here], 1).astype(np.float32) + 1,
        terminations=np.zeros(len(rewards), np.bool_),
        truncations=np.zeros(len(rewards), np.bool_),
        task_ids=np.zeros(len(rewards), np.int64),
        behavior_ids=np.zeros(len(rewards), np.int64),
        env_ids=np.zeros(len(rewards), np.int64),
    )


@pytest.mark.parametrize("how", ["row by row", "another sink", "one batch"])
def test_sb3_n_step_returns_end_with_an_episode_that_was_given_up(how):
    buffer = sb3_buffer("NStepReplayBuffer", n_steps=3, gamma=1.0)
    first, second = stream(1.0, 1.0, 1.0), stream(10.0, 10.0, 10.0, at=-5.0)
    if how == "one batch":
        SB3Sink(buffer).add(joined([first, second]))
    else:
        sink = SB3Sink(buffer)
        for row in range(3):
            sink.add(first[row : row + 1])
        sink = sink if how == "row by row" else SB3Sink(buffer)
        for row in range(3):
            sink.add(second[row : row + 1])
    samples = buffer._get_samples(np.arange(6))
    assert samples.rewards[:, 0].tolist() == [3.0, 2.0, 1.0, 30.0, 20.0, 10.0]
    assert samples.next_observations[:, 0].tolist() == [3.0, 3.0, 3.0, -2.0, -2.0, -2.0]
    assert samples.dones[:, 0].tolist() == [0.0] * 6
    assert buffer.timeouts[:6, 0].tolist() == [0.0, 0.0, 1.0, 0.0, 0.0, 0.0]


def test_torchrl_layout():
    pytest.importorskip("tensordict")
    import torch

    received = []

    class Recorder:
        extend = received.append

    TorchRLSink(Recorder).add(FOUR_ROWS)
    (batch,) = received
    assert tuple(batch.batch_size) == (4,)
    assert {key: (tuple(value.shape), value.dtype) for key, value in batch.items(True, True)} == {
        "observation": ((4, 2), torch.float32),
        "action": ((4, 1), torch.float32),
        "task_id": ((4,), torch.int64),
        "behavior_id": ((4,), torch.int64),
        "env_id": ((4,), torch.int64),
        ("next", "observation"): ((4, 2), torch.float32),
        ("next", "reward"): ((4, 1), torch.float32),
        ("next", "done"): ((4, 1), torch.bool),
        ("next", "terminated"): ((4, 1), torch.bool),
        ("next", "truncated"): ((4, 1), torch.bool),
    }
    assert batch["next", "done"].flatten().tolist() == [False, True, True, True]
    assert batch["next", "terminated"].flatten().tolist() == [False, True, False, True]
    assert batch["next", "truncated"].flatten().tolist() == [False, False, True, True]
    assert batch["next", "observation"].tolist() == FOUR_ROWS.next_obs.tolist()
    assert batch["behavior_id"].tolist() == [0, 1, 2, -1]


def test_torchrl_buffer_samples_what_was_added():
    data = pytest.importorskip("torchrl.data")
    buffer = data.TensorDictReplayBuffer(storage=data.LazyTensorStorage(6), batch_size=64)
    sink = TorchRLSink(buffer)
    sink.add(FOUR_ROWS)
    sink.add(dataclasses.replace(FOUR_ROWS, rewards=FOUR_ROWS.rewards + 10))
    assert len(buffer) == 6
    sample = buffer.sample()
    seen = set(zip(sample["next", "reward"].flatten().tolist(), sample["observation"][:, 0].tolist(), strict=True))
    assert seen == {(12.0, 2.0), (13.0, 3.0), (20.0, 0.0), (21.0, 1.0), (22.0, 2.0), (23.0, 3.0)}


def test_torchrl_gets_copies_and_no_empty_batches():
    pytest.importorskip("tensordict")
    received = []

    class Recorder:
        extend = received.append

    rows = dataclasses.replace(FOUR_ROWS, actions=FOUR_ROWS.actions.copy())
    sink = TorchRLSink(Recorder)
    sink.add(rows)
    rows.actions[:] = 99
    assert received[0]["action"].flatten().tolist() == [-1.0, -0.5, 0.25, 1.0]
    sink.add(Transitions(**{key: value[:0] for key, value in dataclasses.asdict(FOUR_ROWS).items()}))
    assert len(received) == 1
