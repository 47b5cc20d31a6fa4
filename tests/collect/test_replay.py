"""TaskReplayBuffer against one deque per task, literal batches, uniformity, exact continuation."""

from __future__ import annotations

import dataclasses
from collections import deque

import gymnasium as gym
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from qmp_collect.replay import Batch, TaskReplayBuffer
from qmp_collect.transitions import Transitions

OBS, ACTION = gym.spaces.Box(-np.inf, np.inf, (2,)), gym.spaces.Box(-1, 1, (1,))


def rows(task_ids, first=0):
    """Transitions whose every field tells the running number of its row."""
    task_ids = np.asarray(task_ids, np.int64)
    number = np.arange(first, first + len(task_ids))
    return Transitions(
        obs=np.stack([number, number + 0.25], axis=1).astype(np.float64),
        actions=-number[:, None].astype(np.float32),
        rewards=number * 10.0,
        next_obs=np.stack([number + 0.5, number + 0.75], axis=1).astype(np.float64),
        terminations=number % 3 == 0,
        truncations=number % 2 == 0,
        task_ids=task_ids,
        behavior_ids=np.full(len(task_ids), -1),
        env_ids=np.zeros(len(task_ids), np.int64),
    )


def expected_fields(number):
    return (number, number + 0.25, -number, number * 10, number + 0.5, number + 0.75, float(number % 3 == 0))


def fields(batch: Batch, *lead):
    """Every sampled row as a tuple of its fields, with the lead shape's index put in front."""
    flat = torch.cat(
        [batch.obs, batch.actions, batch.rewards[..., None], batch.next_obs, batch.terminations[..., None]],
        dim=-1,
    )
    return [tuple(row) for row in flat[lead].reshape(-1, 7).tolist()]


@settings(max_examples=60, deadline=None)
@given(
    capacity=st.integers(1, 6),
    calls=st.lists(st.lists(st.integers(0, 2), max_size=15), max_size=12),
)
def test_keeps_what_one_deque_per_task_keeps(capacity, calls):
    buffer = TaskReplayBuffer(capacity, 3, OBS, ACTION, seed=0)
    oracle = [deque(maxlen=capacity) for _ in range(3)]
    number = 0
    for task_ids in calls:
        buffer.add(rows(task_ids, first=number))
        for task in task_ids:
            oracle[task].append(expected_fields(number))
            number += 1
    assert buffer.sizes.tolist() == [len(kept) for kept in oracle]
    assert len(buffer) == sum(len(kept) for kept in oracle)
    if len(buffer):
        joint = buffer.sample_joint(1200)
        for task, kept in enumerate(oracle):
            assert set(fields(joint, joint.task_ids == task)) == set(kept)
    if all(oracle):
        batch = buffer.sample(400)
        for task, kept in enumerate(oracle):
            assert set(fields(batch, task)) == set(kept)
            assert batch.task_ids[task].tolist() == [task] * 400


def test_more_rows_than_capacity_in_one_call_keep_the_newest():
    buffer = TaskReplayBuffer(2, 2, OBS, ACTION, seed=0)
    buffer.add(rows([0, 1, 0, 0, 0]))
    assert buffer.sizes.tolist() == [2, 1]
    assert set(buffer.sample(100).rewards[0].tolist()) == {30.0, 40.0}
    assert set(buffer.sample(100).rewards[1].tolist()) == {10.0}
    buffer.add(rows([0], first=7))  # overwrites the older one, number 3
    assert set(buffer.sample(100).rewards[0].tolist()) == {40.0, 70.0}


def test_one_call_writes_no_row_twice():
    # A device scatters rows in any order: which of two writes to a row would stay is left to chance.
    buffer = TaskReplayBuffer(2, 2, OBS, ACTION, seed=0)
    buffer.add(rows([0]))
    target, taken, added = buffer._place(np.array([0, 1, 0, 0, 0]))
    assert dict(zip(target.tolist(), taken.tolist(), strict=True)) == {0: 4, 1: 3, 2: 1}
    assert len(target) == 3
    assert added.tolist() == [5, 1]


def test_shapes_and_dtypes_of_batches():
    buffer = TaskReplayBuffer(4, 3, gym.spaces.Box(0, 255, (4, 3, 2), np.uint8), gym.spaces.MultiDiscrete([3, 5]))
    transitions = dataclasses.replace(
        rows([0, 1, 2]),
        obs=np.full((3, 4, 3, 2), 255, np.uint8),
        next_obs=np.arange(72, dtype=np.uint8).reshape(3, 4, 3, 2),
        actions=np.array([[2, 4]] * 3),
    )
    buffer.add(transitions)
    shapes = [tuple(field.shape) for field in buffer.sample(5)]
    assert shapes == [(3, 5, 4, 3, 2), (3, 5, 2), (3, 5), (3, 5, 4, 3, 2), (3, 5), (3, 5), (3, 5)]
    joint = buffer.sample_joint(5)
    assert [tuple(field.shape) for field in joint] == [(5, 4, 3, 2), (5, 2), (5,), (5, 4, 3, 2), (5,), (5,), (5,)]
    f, i = torch.float32, torch.int64
    assert [field.dtype for field in buffer.sample(5)] == [f, i, f, f, f, i, i]
    assert [field.dtype for field in joint] == [f, i, f, f, f, i, i]
    assert joint.actions.tolist() == [[2, 4]] * 5
    assert buffer.sample(1).next_obs[2, 0].flatten().tolist() == list(range(48, 72))


def test_discrete_actions_and_observations_keep_their_numbers():
    buffer = TaskReplayBuffer(3, 1, gym.spaces.Discrete(2**24), gym.spaces.Discrete(3, start=-1), seed=0)
    buffer.add(
        dataclasses.replace(
            rows([0, 0, 0]),
            obs=np.array([0, 5, 2**24 - 1]),
            next_obs=np.array([1, 6, 2**24 - 1]),
            actions=np.array([-1, 0, 1]),
        )
    )
    batch = buffer.sample(64)
    assert batch.actions.shape == (1, 64)
    assert batch.obs.dtype == torch.int64
    pairs = zip(batch.obs[0].tolist(), batch.actions[0].tolist(), batch.next_obs[0].tolist(), strict=True)
    assert set(pairs) == {(0, -1, 1), (5, 0, 6), (2**24 - 1, 1, 2**24 - 1)}


def test_time_outs_are_not_terminations():
    buffer = TaskReplayBuffer(4, 1, OBS, ACTION, seed=0)
    ends = np.array([[False, False], [False, True], [True, False], [True, True]])
    buffer.add(dataclasses.replace(rows([0] * 4), terminations=ends[:, 0], truncations=ends[:, 1]))
    batch = buffer.sample(100)
    seen = set(zip(batch.rewards[0].tolist(), batch.terminations[0].tolist(), strict=True))
    assert seen == {(0.0, 0.0), (10.0, 0.0), (20.0, 1.0), (30.0, 1.0)}


def test_fields_are_views_of_one_gathered_array_and_not_of_the_buffer():
    buffer = TaskReplayBuffer(4, 2, OBS, ACTION, seed=0)
    buffer.add(rows([0, 1]))
    batch = buffer.sample(3)
    assert len({field.untyped_storage().data_ptr() for field in batch[:5]}) == 1
    batch.obs.fill_(-99.0)
    assert -99.0 not in buffer.sample(50).obs


@pytest.mark.parametrize("sizes", [(1, 4, 7), (7, 7, 7), (0, 5, 2)])
def test_joint_sampling_is_uniform_over_rows(sizes):
    buffer = TaskReplayBuffer(7, 3, OBS, ACTION, seed=3)
    buffer.add(rows(np.repeat([0, 1, 2], sizes)))
    total, draws = sum(sizes), 60_000
    numbers = (buffer.sample_joint(draws).rewards / 10).long()
    counts = np.bincount(numbers.numpy(), minlength=total)
    assert len(counts) == total
    spread = np.sqrt(draws / total * (1 - 1 / total))
    assert np.abs(counts - draws / total).max() < 4.5 * spread


def test_each_task_is_sampled_uniformly_whatever_its_size():
    sizes = (1, 3, 7)
    buffer = TaskReplayBuffer(7, 3, OBS, ACTION, seed=5)
    buffer.add(rows(np.repeat([0, 1, 2], sizes)))
    draws = 40_000
    rewards = (buffer.sample(draws).rewards / 10).long()
    for task, (start, size) in enumerate(zip((0, 1, 4), sizes, strict=True)):
        counts = np.bincount(rewards[task].numpy() - start, minlength=size)
        assert len(counts) == size
        spread = np.sqrt(draws / size * (1 - 1 / size))
        assert np.abs(counts - draws / size).max() <= 4.5 * spread


def test_tasks_draw_independently():
    buffer = TaskReplayBuffer(10, 2, OBS, ACTION, seed=0)
    buffer.add(rows([0] * 10 + [1] * 10))
    first, second = (buffer.sample(20_000).rewards / 10).numpy()
    assert abs(np.corrcoef(first, second)[0, 1]) < 0.03


def test_same_seed_same_batches_other_seed_others():
    def draw(seed):
        buffer = TaskReplayBuffer(50, 1, OBS, ACTION, seed=seed)
        buffer.add(rows([0] * 50))
        return buffer.sample(20).rewards.tolist(), buffer.sample_joint(20).rewards.tolist()

    assert draw(1) == draw(1)
    assert draw(1) != draw(2)
    assert draw(None) != draw(None)


def test_the_global_generators_are_left_alone():
    buffer = TaskReplayBuffer(5, 1, OBS, ACTION, seed=0)
    before = torch.get_rng_state(), np.random.get_state()[1]
    buffer.add(rows([0, 0]))
    buffer.sample(3)
    buffer.sample_joint(3)
    assert torch.equal(before[0], torch.get_rng_state())
    assert np.array_equal(before[1], np.random.get_state()[1])


@settings(max_examples=25, deadline=None)
@given(task_ids=st.lists(st.integers(0, 2), max_size=30), more=st.lists(st.integers(0, 2), max_size=12))
def test_a_loaded_buffer_continues_exactly(task_ids, more):
    original = TaskReplayBuffer(5, 3, OBS, ACTION, seed=0)
    original.add(rows([0, 1, 2, *task_ids]))
    original.sample(3)
    state = original.state_dict()
    copy = TaskReplayBuffer(5, 3, OBS, ACTION, seed=9)
    copy.add(rows([1, 1, 0], first=500))  # must be forgotten
    copy.load_state_dict(state)
    for buffer in (original, copy):
        buffer.add(rows(more, first=100))
    assert copy.sizes.tolist() == original.sizes.tolist()
    drawn = [(*buffer.sample(9), *buffer.sample_joint(9)) for buffer in (original, copy)]
    assert all(torch.equal(left, right) for left, right in zip(*drawn, strict=True))


def test_the_state_holds_stored_rows_only_and_is_a_copy():
    buffer = TaskReplayBuffer(1000, 2, OBS, ACTION, seed=0)
    buffer.add(rows([0, 0, 1]))
    state = buffer.state_dict()
    assert state["rows"].shape == (3, 8)
    assert state["added"].tolist() == [2, 1]
    buffer.add(rows([0] * 998, first=50))
    assert state["rows"][:, 0].tolist() == [0.0, 1.0, 2.0]
    assert state["added"].tolist() == [2, 1]


def test_a_state_of_another_kind_of_device_brings_its_data_and_a_warning():
    source = TaskReplayBuffer(5, 1, OBS, ACTION, seed=0)
    source.add(rows([0, 0]))
    state = source.state_dict() | {"device_type": "cuda", "generator": torch.zeros(16, dtype=torch.uint8)}
    target = TaskReplayBuffer(5, 1, OBS, ACTION, seed=0)
    with pytest.warns(UserWarning, match="saved on 'cuda' and is loaded on 'cpu'"):
        target.load_state_dict(state)
    assert set(target.sample(50).rewards[0].tolist()) == {0.0, 10.0}


@pytest.mark.parametrize(
    ("capacity", "num_tasks", "obs_space"), [(6, 2, OBS), (5, 3, OBS), (5, 2, gym.spaces.Box(-1, 1, (3,)))]
)
def test_a_state_of_another_layout_is_refused(capacity, num_tasks, obs_space):
    full = TaskReplayBuffer(5, 2, OBS, ACTION)
    full.add(rows([0] * 6))
    state = full.state_dict()
    buffer = TaskReplayBuffer(capacity, num_tasks, obs_space, ACTION)
    with pytest.raises(ValueError, match=r"got \(5, 2, 8\)"):
        buffer.load_state_dict(state)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"added": np.array([2.0, 1.0])}, "int64"),
        ({"added": np.array([2, -1])}, "sizes from 0"),
        ({"added": np.array([3, 1])}, "expected 4 rows, got 3"),
        ({"capacity": 5.0}, "integer capacity"),
        ({"capacity": 0}, "capacity from 1"),
        ({"rows": torch.zeros(3, 8, dtype=torch.float64)}, "float64 rows"),
        ({"rows": torch.zeros(2, 8)}, "expected 3 rows, got 2"),
        ({"rows": torch.zeros(3, 7)}, r"\(5, 2, 8\), got \(5, 2, 7\)"),
        ({"rows": torch.zeros(21)}, "float32 rows"),
        ({"known_from": np.array([0, 2])}, r"numbers from 0 to \[2 1\], got array\(\[0, 2\]\)"),
        ({"known_from": np.zeros(2)}, "known_from to be int64"),
        ({"generator": torch.zeros(16, dtype=torch.uint8)}, "state of a generator of cpu"),
        ({"generator": torch.zeros(5056, dtype=torch.uint8)}, "state of a generator of cpu"),
        ({"generator": None}, "tensor of bytes"),
        ({"more": 1}, "entries"),
    ],
)
def test_a_damaged_state_changes_nothing(change, message):
    source = TaskReplayBuffer(5, 2, OBS, ACTION, seed=0)
    source.add(rows([0, 0, 1]))
    buffer = TaskReplayBuffer(5, 2, OBS, ACTION, seed=1)
    buffer.add(rows([1, 1], first=7))
    before = buffer.state_dict()
    with pytest.raises(ValueError, match=message):
        buffer.load_state_dict(source.state_dict() | change)
    after = buffer.state_dict()
    assert before["added"].tolist() == after["added"].tolist() == [0, 2]
    assert all(torch.equal(before[name], after[name]) for name in ("rows", "generator"))


def test_a_larger_ring_takes_over_one_that_nobody_filled():
    small, large = (TaskReplayBuffer(capacity, 2, OBS, ACTION, seed=0) for capacity in (3, 8))
    small.add(rows([0, 0, 0, 1]))
    large.load_state_dict(small.state_dict())
    assert torch.equal(small.sample(40).rewards, large.sample(40).rewards)
    large.add(rows([0], first=9))
    assert set(large.sample(200).rewards[0].tolist()) == {0.0, 10.0, 20.0, 90.0}


def test_the_generator_has_a_stream_of_its_own():
    buffer = TaskReplayBuffer(5, 1, OBS, ACTION, seed=3)
    torch.manual_seed(3)
    assert not torch.equal(buffer.state_dict()["generator"], torch.get_rng_state())
    plain = torch.Generator().manual_seed(3)
    buffer.add(rows([0] * 5))
    drawn = torch.randint(2**63 - 1, (1, 100), generator=plain) % 5
    assert buffer.sample(100).rewards.div(10).long().tolist() != drawn.tolist()
    with pytest.raises(ValueError, match="seed must be at least 0"):
        TaskReplayBuffer(5, 1, OBS, ACTION, seed=-1)


def test_sampling_too_early_names_the_empty_tasks():
    buffer = TaskReplayBuffer(5, 3, OBS, ACTION)
    with pytest.raises(ValueError, match="buffer is empty"):
        buffer.sample_joint(1)
    buffer.add(rows([]))
    assert len(buffer) == 0
    buffer.add(rows([1]))
    with pytest.raises(ValueError, match=r"task\(s\) \[0, 2\]"):
        buffer.sample(1)
    assert buffer.sample_joint(3).task_ids.tolist() == [1, 1, 1]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"task_ids": np.array([0, 2])}, r"task_ids\[1\]: expected 0\.\.1, got 2"),
        ({"task_ids": np.array([-1, 0])}, r"task_ids\[0\]: expected 0\.\.1, got -1"),
        ({"obs": np.zeros((2, 3))}, r"obs: expected shape \(2, 2\), got \(2, 3\)"),
        ({"next_obs": np.zeros((2,))}, r"next_obs: expected shape \(2, 2\), got \(2,\)"),
        ({"actions": np.zeros((2,))}, r"actions: expected shape \(2, 1\), got \(2,\)"),
        ({"rewards": np.zeros((2, 1))}, r"rewards: expected shape \(2,\), got \(2, 1\)"),
        ({"behavior_ids": np.array([0, -2])}, r"behavior_ids\[1\]: expected -1\.\.16777216, got -2"),
        ({"behavior_ids": np.array([2**24 + 1, 0])}, r"behavior_ids\[0\]: expected -1\.\.16777216, got 16777217"),
        ({"behavior_ids": np.zeros(1, np.int64)}, r"behavior_ids: expected shape \(2,\), got \(1,\)"),
    ],
)
def test_a_refused_add_changes_nothing(change, message):
    buffer = TaskReplayBuffer(5, 2, OBS, ACTION, seed=0)
    buffer.add(rows([0, 1]))
    with pytest.raises(ValueError, match=message):
        buffer.add(dataclasses.replace(rows([0, 1], first=5), **change))
    assert buffer.sizes.tolist() == [1, 1]
    assert set(buffer.sample_joint(50).rewards.tolist()) == {0.0, 10.0}


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ((0, 1, OBS, ACTION), ValueError, r"^capacity must be positive \(at least 1\), got 0$"),
        ((1, 0, OBS, ACTION), ValueError, r"^num_tasks must be positive \(at least 1\), got 0$"),
        ((1e6, 1, OBS, ACTION), TypeError, r"^capacity must be an integer, got 1000000\.0$"),
        ((1, 1, gym.spaces.Dict(a=gym.spaces.Text(3)), ACTION), TypeError, "a part is of the space Text"),
        ((1, 1, OBS, gym.spaces.Tuple((ACTION,))), TypeError, "action_space: "),
        ((1, 1, OBS, gym.spaces.Discrete(2**24 + 2)), ValueError, "action_space: .*16777216"),
        ((1, 1, OBS, gym.spaces.MultiDiscrete([2, 2**24 + 2])), ValueError, "action_space: .*16777216"),
    ],
)
def test_refused_constructions(arguments, error, message):
    with pytest.raises(error, match=message):
        TaskReplayBuffer(*arguments)


def test_a_seed_that_is_none():
    with pytest.raises(ValueError, match=r"^seed must be at least 0, got -1$"):
        TaskReplayBuffer(1, 1, OBS, ACTION, seed=-1)


@pytest.mark.parametrize("draw", ["sample", "sample_joint"])
def test_batch_sizes(draw):
    buffer = TaskReplayBuffer(5, 1, OBS, ACTION, seed=0)
    buffer.add(rows([0]))
    assert getattr(buffer, draw)(np.int32(3)).rewards.shape[-1] == 3
    for size, error, message in (
        (0, ValueError, "must be positive"),
        (-1, ValueError, "must be positive"),
        (2.5, TypeError, "must be an integer"),
    ):
        with pytest.raises(error, match=f"^batch_size {message}.*, got {size}$"):
            getattr(buffer, draw)(size)


def test_numbers_of_numpy_are_numbers():
    """A capacity of NumPy's int64 made a state that the buffer itself refused."""
    buffer = TaskReplayBuffer(np.int64(5), np.int32(2), OBS, ACTION, seed=np.int64(0))
    buffer.add(rows([0, 1]))
    state = buffer.state_dict()
    assert type(state["capacity"]) is int
    buffer.load_state_dict(state)
    assert buffer.sizes.tolist() == [1, 1]


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_on_cuda_nothing_waits_for_the_device():
    buffer = TaskReplayBuffer(6, 3, OBS, ACTION, device="cuda", seed=0)
    buffer.add(rows([0, 1, 2]))
    torch.cuda.set_sync_debug_mode("error")
    try:
        for number in range(20):
            buffer.add(rows([0, 1, 2, 2, 1], first=3 + 5 * number))
            batch, joint = buffer.sample(400), buffer.sample_joint(1200)
    finally:
        torch.cuda.set_sync_debug_mode("default")
    numbers = (np.arange(100) + 3).reshape(20, 5)
    for task, columns in enumerate(([0], [1, 4], [2, 3])):
        newest = {expected_fields(number) for number in numbers[:, columns].flatten()[-6:].tolist()}
        assert set(fields(Batch(*(field.cpu() for field in batch)), task)) == newest
        assert set(fields(Batch(*(field.cpu() for field in joint)), joint.task_ids.cpu() == task)) == newest
    copy = TaskReplayBuffer(6, 3, OBS, ACTION, device="cuda", seed=1)
    copy.load_state_dict(buffer.state_dict())
    assert all(torch.equal(left, right) for left, right in zip(buffer.sample(9), copy.sample(9), strict=True))
