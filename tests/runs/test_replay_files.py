"""Replay in files: whatever stops a run, its buffer comes back; each row is written once; damage is refused."""

from __future__ import annotations

import dataclasses
import os
import zlib

import gymnasium as gym
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from qmp_collect import TaskReplayBuffer, Transitions
from qmp_collect.runs import load_checkpoint, save_checkpoint
from qmp_collect.runs.replay_files import ReplayFiles, load_run_state, read_rows

OBS, ACTION = gym.spaces.Box(-np.inf, np.inf, (2,)), gym.spaces.Box(-1, 1, (1,))


def rows(task_ids, first=0):
    """Transitions whose reward is the running number of their row."""
    count = len(task_ids)
    number = np.arange(first, first + count, dtype=np.float64)
    return Transitions(
        obs=np.stack([number, -number], 1),
        actions=np.zeros((count, 1), np.float32),
        rewards=number,
        next_obs=np.stack([number, -number], 1) + 0.5,
        terminations=np.zeros(count, bool),
        truncations=np.zeros(count, bool),
        task_ids=np.asarray(task_ids, np.int64),
        behavior_ids=np.full(count, -1),
        env_ids=np.zeros(count, np.int64),
    )


def buffer_of(capacity=5, seed=0):
    return TaskReplayBuffer(capacity, 3, OBS, ACTION, seed=seed)


def save(files, path):
    save_checkpoint(path, files.state_dict())
    files.remove_unused()


@settings(max_examples=60, deadline=None)
@given(
    st.lists(
        st.one_of(
            st.lists(st.integers(0, 2), max_size=14),  # rows of these tasks come
            st.sampled_from(["save", "killed before the checkpoint", "killed after the checkpoint"]),
        ),
        max_size=14,
    )
)
def test_whatever_happens_a_resumed_buffer_is_that_of_its_checkpoint(tmp_path_factory, steps):
    folder = tmp_path_factory.mktemp("run")
    buffer, number = buffer_of(), 0
    files, expected = ReplayFiles(folder / "replay", buffer), None
    for step in steps:
        if isinstance(step, list):
            buffer.add(rows(step, number))
            number += len(step)
            continue
        if step == "save":
            save(files, folder / "checkpoint.npz")
            expected = buffer.state_dict()
            continue
        state = files.state_dict()
        if step == "killed after the checkpoint":
            save_checkpoint(folder / "checkpoint.npz", state)
            expected = buffer.state_dict()
        if expected is None:
            continue
        buffer = buffer_of(seed=9)
        buffer.add(rows([0, 1, 1], 900))  # must be forgotten
        files = ReplayFiles(folder / "replay", buffer)
        saved = load_checkpoint(folder / "checkpoint.npz")
        files.check_state(saved)
        files.load_state_dict(saved)
        got = buffer.state_dict()
        assert torch.equal(got["rows"], expected["rows"])
        assert np.array_equal(read_rows(folder / "replay", saved), expected["rows"].numpy())
        assert got["added"].tolist() == expected["added"].tolist()
        assert torch.equal(got["generator"], expected["generator"])


def test_each_row_is_written_once_and_what_nobody_needs_goes(tmp_path):
    buffer = buffer_of(capacity=100)
    files, sizes = ReplayFiles(tmp_path / "replay", buffer), []
    for _ in range(8):
        buffer.add(rows([0, 1, 2] * 20))
        save(files, tmp_path / "checkpoint.npz")
        sizes.append({name: os.stat(tmp_path / "replay" / name).st_size for name in os.listdir(tmp_path / "replay")})
    assert all(set(of.values()) == {60 * 8 * 4} for of in sizes)
    assert sorted(sizes[0]) == ["rows-000000.f4"]
    assert sorted(sizes[4]) == [f"rows-00000{n}.f4" for n in range(5)]
    assert sorted(sizes[7]) == [f"rows-00000{n}.f4" for n in range(3, 8)]
    before = set(os.listdir(tmp_path / "replay"))
    save(files, tmp_path / "checkpoint.npz")
    assert set(os.listdir(tmp_path / "replay")) == before


def saved_run(tmp_path):
    buffer = buffer_of()
    files = ReplayFiles(tmp_path / "replay", buffer)
    for number in range(3):
        buffer.add(rows([0, 1, 2], 10 * number))
        save(files, tmp_path / "checkpoint.npz")
    return load_checkpoint(tmp_path / "checkpoint.npz"), tmp_path / "replay" / "rows-000001.f4"


def refused(tmp_path, state, message):
    buffer = buffer_of()
    buffer.add(rows([2, 2], 70))
    before = buffer.state_dict()
    with pytest.raises(ValueError, match=message):
        ReplayFiles(tmp_path / "replay", buffer).check_state(state)
    with pytest.raises(ValueError, match=message):
        read_rows(tmp_path / "replay", state)
    after = buffer.state_dict()
    assert torch.equal(before["rows"], after["rows"])
    assert before["added"].tolist() == after["added"].tolist()


@pytest.mark.parametrize("kind", ["flipped", "cut", "longer", "gone", "a pipe", "a folder"])
def test_a_damaged_file_is_named_and_nothing_changes(tmp_path, kind):
    state, path = saved_run(tmp_path)
    content = bytearray(path.read_bytes())
    path.unlink()
    if kind == "flipped":
        content[7] ^= 4
        path.write_bytes(content)
    elif kind == "cut":
        path.write_bytes(content[:-1])
    elif kind == "longer":
        path.write_bytes(content + b"0")
    elif kind == "a pipe":
        os.mkfifo(path)
    elif kind == "a folder":
        path.mkdir()
    refused(tmp_path, state, r"rows-000001\.f4|regular file")


@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("first", lambda a: a - 1),
        ("first", lambda a: a + 1),
        ("end", lambda a: a - 1),
        ("end", lambda a: a + 10**12),
        ("first", lambda a: a.astype(np.int32)),
        ("number", lambda a: a[:-1]),
        ("number", lambda a: a - 1),
        ("checksum", lambda a: a + 1),
        ("end", lambda a: a[:, :2]),
        ("first", lambda a: a.tolist()),
    ],
)
def test_ranges_that_are_not_those_of_the_files_are_refused(tmp_path, name, change):
    state, _ = saved_run(tmp_path)
    state["files"][name] = change(state["files"][name])
    refused(tmp_path, state, ".")


def test_a_link_in_the_place_of_the_folder_is_not_followed(tmp_path):
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "rows-000009.f4").write_bytes(b"somebody's")
    (tmp_path / "replay").symlink_to(elsewhere)
    buffer = buffer_of()
    buffer.add(rows([0, 1, 2]))
    files = ReplayFiles(tmp_path / "replay", buffer)
    with pytest.raises(OSError, match="is a link"):
        files.state_dict()
    files.remove_unused()
    assert [path.name for path in elsewhere.iterdir()] == ["rows-000009.f4"]


def test_only_files_of_its_own_are_removed(tmp_path):
    (tmp_path / "replay").mkdir()
    for name in ("notes.txt", "rows-000007.f4", "rows-7.f4", ".rows-000003.f4.0123abcd-99-0a.tmp"):
        (tmp_path / "replay" / name).write_bytes(b"x")
    saved_run(tmp_path)
    left = sorted(os.listdir(tmp_path / "replay"))
    assert left == ["notes.txt", "rows-000000.f4", "rows-000001.f4", "rows-000002.f4", "rows-7.f4"]


def test_a_failed_write_is_made_up_for(tmp_path, monkeypatch):
    buffer = buffer_of()
    files = ReplayFiles(tmp_path / "replay", buffer)
    buffer.add(rows([0, 1, 2]))

    def full(descriptor):
        raise OSError("no space left")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="no space left"):
        files.state_dict()
    monkeypatch.undo()
    assert os.listdir(tmp_path / "replay") == []
    state = files.state_dict()
    assert np.array_equal(read_rows(tmp_path / "replay", state), buffer.state_dict()["rows"].numpy())


def test_rows_are_views_in_the_order_of_their_numbers():
    buffer = buffer_of(capacity=3)
    buffer.add(rows([1, 1, 1, 0, 1]))
    parts = list(buffer.spans(np.array([0, 1, 0]), np.array([1, 4, 0])))
    assert [part[:, 3].tolist() for part in parts] == [[3.0], [1.0, 2.0], [4.0]]
    assert all(part.untyped_storage().data_ptr() == buffer._rows.untyped_storage().data_ptr() for part in parts)


def test_a_larger_ring_goes_on_as_long_as_nothing_was_overwritten(tmp_path):
    buffer = buffer_of(capacity=4)
    files = ReplayFiles(tmp_path / "replay", buffer)
    buffer.add(rows([0, 1, 2] * 4))
    state = files.state_dict()
    larger = buffer_of(capacity=9)
    again = ReplayFiles(tmp_path / "replay", larger)
    again.check_state(state)
    again.load_state_dict(state)
    assert torch.equal(larger.sample(30).rewards, buffer.sample(30).rewards)
    larger.add(dataclasses.replace(rows([1])))
    buffer.add(rows([1]))
    with pytest.raises(ValueError, match=r"got \(4, 3, 8\)"):
        ReplayFiles(tmp_path / "replay", buffer_of(capacity=9)).check_state(files.state_dict())


def test_files_of_before_are_read_and_a_run_does_not_go_on_with_them(tmp_path):
    """Rows that do not say who acted: as the version before wrote them, two rows of 7 numbers."""
    content = np.arange(14, dtype="<f4").tobytes()
    (tmp_path / "replay").mkdir()
    (tmp_path / "replay" / "rows-000000.f4").write_bytes(content)
    files = {
        "number": np.array([0]),
        "checksum": np.array([zlib.crc32(content)]),
        "first": np.zeros((1, 3), np.int64),
        "end": np.array([[1, 0, 1]]),
    }
    state = buffer_of().state_dict(rows=False) | {"added": files["end"][0], "row_width": 7, "files": files}
    del state["known_from"]
    save_checkpoint(tmp_path / "checkpoint.npz", {"buffer": state})
    with pytest.raises(ValueError, match=r"older version.* a run cannot go on"):
        ReplayFiles(tmp_path / "replay", buffer_of()).check_state(state)
    buffer = buffer_of(seed=5)
    buffer.load_state_dict(load_run_state(tmp_path)["buffer"])
    batch = buffer.sample_joint(40)
    seen = zip(batch.task_ids.tolist(), batch.rewards.tolist(), batch.behavior_ids.tolist(), strict=True)
    assert set(seen) == {(0, 3.0, -2), (2, 10.0, -2)}
