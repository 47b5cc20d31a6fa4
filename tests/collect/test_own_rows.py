"""Who acted, in the replay: kept, given, and balanced; against a scalar model with the same random numbers."""

from __future__ import annotations

import gymnasium as gym
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from qmp_collect import OwnPolicy, QMPCollector, TaskReplayBuffer, Transitions, own_rows

OBS, ACTION = gym.spaces.Box(-np.inf, np.inf, (2,)), gym.spaces.Box(-1, 1, (1,))


def rows(task_ids, behavior_ids, first=0):
    """Transitions whose reward is the running number of their row."""
    count = len(task_ids)
    return Transitions(
        obs=np.zeros((count, 2)),
        actions=np.zeros((count, 1), np.float32),
        rewards=np.arange(first, first + count, dtype=np.float64),
        next_obs=np.zeros((count, 2)),
        terminations=np.zeros(count, bool),
        truncations=np.zeros(count, bool),
        task_ids=np.asarray(task_ids, np.int64),
        behavior_ids=np.asarray(behavior_ids, np.int64),
        env_ids=np.zeros(count, np.int64),
    )


class Model:
    """The same in lists: of each task (number, who acted), oldest first."""

    def __init__(self, capacity, tasks):
        self.capacity, self.kept = capacity, [[] for _ in range(tasks)]

    def add(self, task, number, behavior):
        self.kept[task] = [*self.kept[task], (number, behavior)][-self.capacity :]

    def pick(self, candidates, is_own, index, size, fraction, random):
        """Row ``index`` of ``size``, from (task, number, who acted), oldest first within tasks."""
        wanted = int(np.floor(fraction * size + 0.5))
        kinds = [[c for c in candidates if is_own(c)], [c for c in candidates if not is_own(c)]]
        kind = 0 if index * wanted % size < wanted else 1
        of_kind = kinds[kind] or kinds[1 - kind]
        return of_kind[random % len(of_kind)]

    def sample(self, size, fraction, random):
        fraction = np.broadcast_to(fraction, len(self.kept))
        for task, kept in enumerate(self.kept):
            for index in range(size):
                candidates = [(task, *row) for row in kept]
                numbers = candidates, lambda c: c[2] == c[0], index, size, fraction[task], random[task][index]
                yield self.pick(*numbers)

    def sample_joint(self, size, fraction, random):
        candidates = [(task, *row) for task, kept in enumerate(self.kept) for row in kept]
        for index in range(size):
            yield self.pick(candidates, lambda c: c[2] == c[0], index, size, fraction, random[index])


def next_random(buffer, *shape):
    """What the buffer will draw next."""
    generator = torch.Generator().set_state(buffer.state_dict(rows=False)["generator"])
    return torch.randint(2**63 - 1, shape, generator=generator).tolist()


def check(buffer, model, size, fraction):
    """The next batches of both kinds are row by row those of the model."""
    if all(model.kept):
        expected = list(model.sample(size, fraction, next_random(buffer, len(model.kept), size)))
        assert triples(buffer.sample(size, own_fraction=fraction)) == expected
        own = np.array([task == behavior for task, _, behavior in expected]).reshape(-1, size)
        assert buffer.own_share().tolist() == pytest.approx(own.mean(1).tolist())
    if any(model.kept):
        fraction = float(np.max(fraction))
        expected = list(model.sample_joint(size, fraction, next_random(buffer, size)))
        assert triples(buffer.sample_joint(size, own_fraction=fraction)) == expected
        own = [[task == behavior for t, _, behavior in expected if t == task] for task in range(len(model.kept))]
        shares = [sum(of) / len(of) if of else np.nan for of in own]
        assert buffer.own_share().tolist() == pytest.approx(shares, nan_ok=True)


def triples(batch):
    flat = torch.stack([batch.task_ids, batch.rewards.long(), batch.behavior_ids], -1).reshape(-1, 3)
    return [tuple(row) for row in flat.tolist()]


@settings(max_examples=40, deadline=None)
@given(data=st.data(), tasks=st.integers(1, 3), capacity=st.integers(1, 6), at_once=st.integers(1, 5))
def test_batches_are_those_of_a_scalar_model(data, tasks, capacity, at_once):
    fractions = st.floats(0, 1) | st.lists(st.floats(0, 1), min_size=tasks, max_size=tasks)
    ids = st.tuples(st.integers(0, tasks - 1), st.integers(-1, 4) | st.just(0))
    buffer, model, number = TaskReplayBuffer(capacity, tasks, OBS, ACTION, seed=0), Model(capacity, tasks), 0
    own_rows._AT_ONCE, before = at_once, own_rows._AT_ONCE
    try:
        for _ in range(data.draw(st.integers(1, 6))):
            new = data.draw(st.lists(ids, max_size=12))
            for offset, (task, behavior) in enumerate(new):
                model.add(task, number + offset, behavior)
            buffer.add(rows([task for task, _ in new], [behavior for _, behavior in new], number))
            number += len(new)
            if data.draw(st.booleans()):
                check(buffer, model, data.draw(st.integers(1, 9)), data.draw(fractions))
            if data.draw(st.integers(0, 3)) == 0:  # saved and loaded, over whatever was there
                state, buffer = buffer.state_dict(), TaskReplayBuffer(capacity, tasks, OBS, ACTION, seed=7)
                buffer.add(rows([0] * 3, [0, 1, 0], 900))
                buffer.sample_joint(2, own_fraction=0.5)
                buffer.load_state_dict(state)
        check(buffer, model, 5, data.draw(fractions))
    finally:
        own_rows._AT_ONCE = before


def test_more_own_rows_than_32_bits_count():
    buffer = TaskReplayBuffer(4, 1, OBS, ACTION, seed=0)
    buffer.add(rows([0], [0]))
    buffer.sample(1, own_fraction=0.5)
    buffer._own_rows._own += 2**32 - 4  # as if so many had come and gone
    buffer._own_rows._before -= 4
    buffer.add(rows([0] * 6, [0, 1, 0, 0, 1, 0], 1))
    assert set(triples(buffer.sample(400, own_fraction=0.5))) == {(0, 3, 0), (0, 4, 0), (0, 5, 1), (0, 6, 0)}


def test_literal_batches_of_before():
    """Without `own_fraction` the same rows are drawn as when there was none."""
    buffer = TaskReplayBuffer(5, 2, OBS, ACTION, seed=3)
    buffer.add(rows([0] * 8 + [1] * 3, [0, 1] * 5 + [-1]))
    assert buffer.sample(6).rewards.tolist() == [[7, 6, 7, 3, 6, 6], [9, 8, 8, 8, 10, 10]]
    joint = buffer.sample_joint(8)
    assert joint.rewards.tolist() == [5, 8, 9, 7, 10, 6, 6, 5]
    assert joint.behavior_ids.tolist() == [1, 0, 1, 1, -1, 0, 0, 1]


def test_own_rows_lie_evenly_in_a_batch():
    buffer = TaskReplayBuffer(9, 2, OBS, ACTION, seed=0)
    buffer.add(rows([0, 0, 1, 1], [0, 1, 2, 1]))
    batch = buffer.sample(8, own_fraction=(0.5, 0.25))
    assert (batch.behavior_ids == batch.task_ids).int().tolist() == [[1, 0, 1, 0, 1, 0, 1, 0], [1, 0, 0, 0, 1, 0, 0, 0]]
    assert buffer.own_share().tolist() == [0.5, 0.25]


def test_in_groups_who_acted_is_numbered_within_them():
    buffer = TaskReplayBuffer(9, 4, OBS, ACTION, seed=0, num_groups=2)
    buffer.add(rows([0, 0, 1, 1, 2, 2, 3, 3], [0, 1, 1, 0, 1, 0, 0, 1]))
    assert buffer.sample(4, own_fraction=1).rewards.tolist() == [[0] * 4, [2] * 4, [5] * 4, [7] * 4]
    assert buffer.own_share().tolist() == [1] * 4
    assert set(buffer.sample_joint(40, own_fraction=0.0).rewards.tolist()) == {1, 3, 4, 6}
    with pytest.raises(ValueError, match="4 tasks are no 3 groups of equally many"):
        TaskReplayBuffer(9, 4, OBS, ACTION, num_groups=3)


def test_a_buffer_that_knows_of_other_groups_is_refused():
    envs = gym.vector.SyncVectorEnv([lambda: gym.make("Pendulum-v1", disable_env_checker=True)] * 4)
    spaces = envs.single_observation_space, envs.single_action_space
    settings = {"own_policy": lambda obs, task_ids: np.zeros((len(obs), 1)), "switch": OwnPolicy()}
    settings |= {"task_ids": range(4), "own_ids": [0, 1, 0, 1], "num_tasks": 4, "seed": [0, 1]}
    collector = QMPCollector(envs, None, None, buffer=TaskReplayBuffer(9, 4, *spaces, num_groups=2), **settings)
    assert collector.collect(n_step=8).own_fraction.tolist() == [1] * 4
    with pytest.raises(ValueError, match=r"made for 1 group\(s\) of tasks, but own_ids make 2: .* num_groups=2"):
        QMPCollector(envs, None, None, buffer=TaskReplayBuffer(9, 4, *spaces), **settings)


def test_a_task_with_one_kind_of_rows_gives_those():
    buffer = TaskReplayBuffer(2, 2, OBS, ACTION, seed=0)
    assert buffer.own_share().isnan().all()
    buffer.add(rows([0, 1, 1], [0, 5, -1]))
    for fraction in (0, 0.5, 1):
        buffer.sample(4, own_fraction=fraction)
        assert buffer.own_share().tolist() == [1, 0]
    buffer.add(rows([1, 0, 0], [1, 1, 1]))  # task 0's own one is overwritten, of task 1's others the older one
    buffer.sample(4, own_fraction=0.5)
    assert buffer.own_share().tolist() == [0, 0.5]


@pytest.mark.parametrize("fraction", [-0.1, 1.1, float("nan"), [0.5], [0.5, 0.5, 0.5]])
def test_no_fraction(fraction):
    buffer = TaskReplayBuffer(2, 2, OBS, ACTION, seed=0)
    buffer.add(rows([0, 1], [0, 1]))
    with pytest.raises(ValueError, match=r"^own_fraction: .* in \[0, 1\], or one for each of 2 tasks, got"):
        buffer.sample(2, own_fraction=fraction)
    with pytest.raises(ValueError, match=r"^own_fraction: .* in \[0, 1\], got"):
        buffer.sample_joint(2, own_fraction=fraction)


def test_a_state_of_before_loads_and_who_acted_is_not_known():
    source = TaskReplayBuffer(3, 2, OBS, ACTION, seed=0)
    source.add(rows([0, 0, 1], [0, 1, 1]))
    old = {name: value for name, value in source.state_dict().items() if name != "known_from"}
    old["rows"] = old["rows"][:, :-1].clone()
    buffer = TaskReplayBuffer(3, 2, OBS, ACTION, seed=1)
    buffer.load_state_dict(old)
    buffer.add(rows([0], [0], 10))
    assert set(triples(buffer.sample(50))) == {(0, 0, -2), (0, 1, -2), (0, 10, 0), (1, 2, -2)}
    again = TaskReplayBuffer(3, 2, OBS, ACTION, seed=1)
    again.load_state_dict(buffer.state_dict())
    for one in (buffer, again):
        with pytest.raises(ValueError, match=r"rows of task\(s\) \[0, 1\] is not known who acted"):
            one.sample(2, own_fraction=0.5)
        one.add(rows([0, 0, 1, 1], [1, 0, 1, 0], 20))
        with pytest.raises(ValueError, match=r"rows of task\(s\) \[1\] is"):
            one.sample_joint(2, own_fraction=0.5)
        one.add(rows([1], [1], 24))
        assert set(triples(one.sample(50, own_fraction=0.5))) == {
            (0, 10, 0),
            (0, 20, 1),
            (0, 21, 0),
            (1, 22, 1),
            (1, 23, 0),
            (1, 24, 1),
        }


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_on_cuda_nothing_waits_for_the_device():
    buffer = TaskReplayBuffer(6, 3, OBS, ACTION, device="cuda", seed=0)
    buffer.add(rows([0, 1, 2], [0, 1, 1]))
    torch.cuda.set_sync_debug_mode("error")
    try:
        for number in range(20):
            buffer.add(rows([0, 1, 2, 2, 1], [0, 0, 2, 1, 1], 3 + 5 * number))
            batch, joint = buffer.sample(8, own_fraction=(0.5, 0.25, 1)), buffer.sample_joint(8, own_fraction=0.5)
            share = buffer.own_share()
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert (batch.behavior_ids == batch.task_ids).float().mean(1).tolist() == [1, 0.25, 1]
    assert (joint.behavior_ids == joint.task_ids).sum() == 4
    assert share.shape == (3,)


def test_large_ids_are_kept_exactly():
    buffer = TaskReplayBuffer(3, 1, OBS, ACTION, seed=0)
    buffer.add(rows([0] * 3, [2**24, -1, 40_001]))
    assert set(buffer.sample(60).behavior_ids[0].tolist()) == {2**24, -1, 40_001}
