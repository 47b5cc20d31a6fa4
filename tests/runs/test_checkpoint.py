"""Checkpoints: every kind of leaf comes back exactly, a killed save harms nothing, damage is noticed."""

from __future__ import annotations

import math
import os
import random
import signal
import subprocess
import sys
import zipfile

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from qmp_collect.runs import StopSignal, load_checkpoint, rng_state, save_checkpoint, set_rng_state
from qmp_collect.runs.checkpoint import atomic_file


def same(left, right):
    """Equal in type, value and order, bit for bit in arrays, NaN being equal to NaN."""
    if type(left) is not type(right):
        return False
    if isinstance(left, dict):
        return [*left] == [*right] and all(same(left[key], right[key]) for key in left)
    if isinstance(left, list | tuple):
        return len(left) == len(right) and all(map(same, left, right))
    if isinstance(left, torch.Tensor):
        as_bytes = [tensor.contiguous().reshape(-1).view(torch.uint8) for tensor in (left, right)]
        return left.dtype == right.dtype and left.shape == right.shape and torch.equal(*as_bytes)
    if isinstance(left, np.ndarray | np.generic):
        return left.dtype == right.dtype and left.shape == right.shape and left.tobytes() == right.tobytes()
    if isinstance(left, float):
        return (left == right and math.copysign(1, left) == math.copysign(1, right)) or left != left != right
    return left == right


def round_trip(tree, folder):
    save_checkpoint(folder / "state.ckpt", tree)
    return load_checkpoint(folder / "state.ckpt")


def test_the_oracle_tells_differences():
    assert not same((1,), [1])
    assert not same({"a": 1, "b": 2}, {"b": 2, "a": 1})
    assert not same(1, 1.0)
    assert not same(True, 1)
    assert not same(0.0, -0.0)
    assert not same(torch.zeros(2), torch.zeros(2, dtype=torch.float64))
    assert not same(np.zeros(2), np.zeros((1, 2)))
    assert same([math.nan], [math.nan])


def test_a_literal_tree_comes_back(tmp_path):
    tree = {
        "python": [None, True, False, 0, -1, 2**127 + 1, -(2**200), 0.1, -0.0, 1e-320, "", "é\ud800\n"],
        "not finite": (math.nan, math.inf, -math.inf),
        0: {1: {"1": "int and str keys stay apart"}, -5: ()},
        "empty": [{}, [], ()],
        "looks like a tag": {"array": "array0", "tensor": ["array0", "float32"]},
        "numpy": [
            np.arange(6).reshape(2, 3).T,
            np.float32([math.nan, -0.0]),
            np.array(3, np.uint8),
            np.zeros((0, 4)),
        ],
        "numpy scalars": [np.float64(0.1), np.float32(0.1), np.int64(-3), np.bool_(True)],
        "text": np.array(["ab", "c"]),
        "torch": [
            torch.arange(6).reshape(2, 3).T,
            torch.tensor(2.5),
            torch.zeros(0, 3),
            torch.tensor([True, False]),
        ],
    }
    assert same(round_trip(tree, tmp_path), tree)


@pytest.mark.parametrize("shape", [(), (5,), (2, 0), (3, 2)])
@pytest.mark.parametrize(
    "dtype",
    [
        torch.bfloat16,
        torch.float16,
        torch.float64,
        torch.float8_e4m3fn,
        torch.complex64,
        torch.uint8,
        torch.bool,
    ],
)
def test_tensors_of_any_dtype_and_rank_come_back(dtype, shape, tmp_path):
    tensor = (torch.arange(math.prod(shape)).reshape(shape) - 1.5).to(dtype)
    loaded = round_trip([tensor], tmp_path)[0]
    assert loaded.dtype == dtype
    assert loaded.shape == shape
    assert loaded.tolist() == tensor.tolist()


def test_tensors_come_back_without_gradient_but_with_values(tmp_path):
    parameter = torch.nn.Parameter(torch.tensor([1.0, 2.0]))
    loaded = round_trip({"weight": parameter, "conjugate": torch.tensor([1 + 2j]).conj()}, tmp_path)
    assert type(loaded["weight"]) is torch.Tensor
    assert not loaded["weight"].requires_grad
    assert loaded["weight"].tolist() == [1.0, 2.0]
    assert loaded["conjugate"].tolist() == [1 - 2j]


leaves = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(2**200), 2**200),
    st.floats(),
    st.text(max_size=5),
    arrays.arrays(arrays.scalar_dtypes(), arrays.array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=3)),
    arrays.arrays(np.float32, arrays.array_shapes(min_dims=0, max_dims=2, max_side=3)).map(torch.from_numpy),
    arrays.arrays(np.int64, arrays.array_shapes(min_dims=0, max_dims=2, max_side=3)).map(
        lambda array: torch.from_numpy(array).to(torch.bfloat16)
    ),
)
trees = st.recursive(
    leaves,
    lambda branch: st.one_of(
        st.lists(branch, max_size=4),
        st.lists(branch, max_size=4).map(tuple),
        st.dictionaries(st.one_of(st.text(max_size=4), st.integers()), branch, max_size=4),
    ),
    max_leaves=12,
)


@settings(max_examples=60, deadline=None)
@given(tree=trees)
def test_random_trees_come_back(tree, tmp_path_factory):
    folder = tmp_path_factory.mktemp("tree")
    assert same(round_trip(tree, folder), tree)


@pytest.mark.parametrize(
    ("tree", "message"),
    [
        ({"a": [1, {"b": {1, 2}}]}, r"tree\['a'\]\[1\]\['b'\]: cannot save set"),
        ({3: (0, lambda: 0)}, r"tree\[3\]\[1\]: cannot save function"),
        ([np.array([None])], r"tree\[0\]: cannot save an array of dtype object"),
        ({True: 1}, r"tree: expected dict keys of type str or int, got True \(bool\)"),
        ({"a": {(1, 2): 0}}, r"tree\['a'\]: expected dict keys .* got \(1, 2\)"),
        ({"a": torch.eye(2).to_sparse()}, r"tree\['a'\]: expected a dense tensor, got torch.sparse_coo"),
        ({"a": torch.empty(2, device="meta")}, r"tree\['a'\]: expected a dense tensor, .* on meta"),
        (b"bytes", r"tree: cannot save bytes"),
    ],
)
def test_an_unsupported_leaf_is_named_and_the_old_file_stays(tree, message, tmp_path):
    save_checkpoint(tmp_path / "state.ckpt", "old")
    with pytest.raises(TypeError, match=message):
        save_checkpoint(tmp_path / "state.ckpt", tree)
    assert load_checkpoint(tmp_path / "state.ckpt") == "old"
    assert [entry.name for entry in tmp_path.iterdir()] == ["state.ckpt"]


def test_a_failing_write_leaves_the_old_file_and_no_other(tmp_path, monkeypatch):
    save_checkpoint(tmp_path / "state.ckpt", "old")

    def full(*arguments, **options):
        raise OSError("no space left")

    monkeypatch.setattr(np.lib.format, "write_array", full)
    with pytest.raises(OSError, match="no space left"):
        save_checkpoint(tmp_path / "state.ckpt", "new")
    monkeypatch.undo()
    assert load_checkpoint(tmp_path / "state.ckpt") == "old"
    assert [entry.name for entry in tmp_path.iterdir()] == ["state.ckpt"]


KILLED_SAVE = """
import os, signal, sys
import numpy as np
from qmp_collect.runs.checkpoint import save_checkpoint

path, owner, name = sys.argv[1:]
save_checkpoint(path, {"step": 1, "data": np.arange(100_000)})
owner = {"os": os, "format": np.lib.format}[owner]
original = getattr(owner, name)
calls = 0

def killed(*arguments, **options):
    global calls
    calls += 1
    if calls == 2 or owner is os:
        os.kill(os.getpid(), signal.SIGKILL)
    return original(*arguments, **options)

setattr(owner, name, killed)
save_checkpoint(path, {"step": 2, "data": np.arange(100_000)})
"""


@pytest.mark.parametrize(("owner", "name"), [("format", "write_array"), ("os", "fsync"), ("os", "replace")])
def test_a_process_killed_while_saving_leaves_the_old_checkpoint(owner, name, tmp_path):
    path = tmp_path / "state.ckpt"
    child = subprocess.run([sys.executable, "-c", KILLED_SAVE, path, owner, name], check=False)
    assert child.returncode == -signal.SIGKILL
    loaded = load_checkpoint(path)
    assert loaded["step"] == 1
    assert loaded["data"].tolist() == list(range(100_000))
    save_checkpoint(path, "later")  # takes the abandoned temporary file's place
    assert load_checkpoint(path) == "later"
    assert [entry.name for entry in tmp_path.iterdir()] == ["state.ckpt"]


def test_folders_are_created_and_the_name_is_kept(tmp_path):
    save_checkpoint(tmp_path / "runs" / "a" / "name.without.npz", 1)
    assert [entry.name for entry in (tmp_path / "runs" / "a").iterdir()] == ["name.without.npz"]


def test_a_missing_checkpoint_is_said_to_be_missing(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"no checkpoint at .*absent"):
        load_checkpoint(tmp_path / "absent")


def damage(kind, path):
    if kind == "flipped byte":
        content = bytearray(path.read_bytes())
        content[content.index(b"\x07" * 64) + 5] ^= 1
        path.write_bytes(content)
    elif kind == "cut off":
        path.write_bytes(path.read_bytes()[:-100])
    elif kind == "npy":
        with open(path, "wb") as file:
            np.save(file, np.zeros(3))
    elif kind == "another npz":
        with open(path, "wb") as file:
            np.savez(file, weights=np.zeros(3))
    elif kind == "another format":
        with open(path, "wb") as file:
            np.savez(file, header=np.frombuffer(b'{"format": "other 1", "tree": 0}', np.uint8))
    elif kind == "pickle inside":
        with open(path, "wb") as file:
            np.savez(file, header=np.array([print], dtype=object))
    elif kind == "lost array":
        with zipfile.ZipFile(path) as archive:
            header = archive.read("header.npy")
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("header.npy", header)
    else:
        path.write_bytes({"empty": b"", "text": b"hello", "torch": b"\x80\x02}q\x00."}[kind])


@pytest.mark.parametrize(
    "kind",
    [
        *("flipped byte", "cut off", "lost array", "empty", "text", "torch"),
        *("npy", "another npz", "another format", "pickle inside"),
    ],
)
def test_damage_is_a_value_error_naming_the_file(kind, tmp_path):
    path = tmp_path / "state.ckpt"
    save_checkpoint(path, {"data": np.full(1000, 7, np.uint8)})
    damage(kind, path)
    with pytest.raises(ValueError, match=r"state\.ckpt is not a readable checkpoint"):
        load_checkpoint(path)


def test_optimizer_and_module_continue_exactly(tmp_path):
    def make():
        torch.manual_seed(0)
        module = torch.nn.Linear(3, 2)
        return module, torch.optim.Adam(module.parameters(), lr=0.1)

    def train(module, optimizer):
        optimizer.zero_grad()
        module(torch.ones(1, 3)).square().sum().backward()
        optimizer.step()

    module, optimizer = make()
    train(module, optimizer)
    tree = {"module": module.state_dict(), "optimizer": optimizer.state_dict()}
    loaded = round_trip(tree, tmp_path)
    train(module, optimizer)
    module_2, optimizer_2 = make()
    module_2.load_state_dict(loaded["module"])
    optimizer_2.load_state_dict(loaded["optimizer"])
    train(module_2, optimizer_2)
    assert torch.equal(module.weight, module_2.weight)


def test_generators_continue_exactly(tmp_path):
    generator = np.random.default_rng(3)

    def draw():
        return random.random(), random.gauss(0, 1), np.random.normal(), torch.rand(2).tolist(), generator.normal()

    draw()  # leaves half a pair of gaussians behind in Python's generator and numpy's
    loaded = round_trip({"global": rng_state(), "own": generator.bit_generator.state}, tmp_path)
    first = draw()
    assert draw() != first
    set_rng_state(loaded["global"])
    generator.bit_generator.state = loaded["own"]
    assert draw() == first


def test_without_torch_nothing_imports_it(tmp_path):
    program = (
        "import sys, numpy as np\n"
        "from qmp_collect.runs import *\n"
        "save_checkpoint(sys.argv[1], {'rng': rng_state(), 'data': np.zeros(3)})\n"
        "set_rng_state(load_checkpoint(sys.argv[1])['rng'])\n"
        "assert 'torch' not in sys.modules\n"
    )
    subprocess.run([sys.executable, "-c", program, tmp_path / "state.ckpt"], check=True)


def test_stop_signal_turns_signals_into_a_flag_and_gives_handlers_back():
    former = signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT)
    with StopSignal() as stop:
        assert not stop
        assert stop.requested is False
        os.kill(os.getpid(), signal.SIGTERM)
        assert stop
        assert stop.requested is True
        os.kill(os.getpid(), signal.SIGTERM)
        os.kill(os.getpid(), signal.SIGINT)  # the first interrupt: still only the flag
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGINT)
    assert (signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT)) == former
    assert stop.requested


def test_stop_signal_gives_handlers_back_after_an_error():
    former = signal.getsignal(signal.SIGINT)
    with pytest.raises(RuntimeError), StopSignal():
        raise RuntimeError
    assert signal.getsignal(signal.SIGINT) == former


def test_a_generator_beyond_its_end_is_refused_before_any_is_set():
    # numpy takes the position, and then reads beyond its numbers: another stream, or the end of the process.
    state, before = rng_state(), rng_state()
    state["python"] = random.Random(5).getstate()
    for position in (10**9, -5, 625):
        state["numpy"] = {**state["numpy"], "state": {**before["numpy"]["state"], "pos": position}}
        with pytest.raises(ValueError, match=r"position in 0\.\.624"):
            set_rng_state(state)
    assert random.getstate() == before["python"]


def test_temporary_files_are_a_process_s_own_and_no_link_is_followed(tmp_path):
    path, victim = tmp_path / "state.ckpt", tmp_path / "victim"
    victim.write_text("precious")
    (tmp_path / ".state.ckpt.tmp").symlink_to(victim)
    with atomic_file(path) as first, atomic_file(path) as second:
        first.write(b"first")
        second.write(b"second")
    assert path.read_bytes() == b"first"
    assert victim.read_text() == "precious"
    assert sorted(os.listdir(tmp_path)) == [".state.ckpt.tmp", "state.ckpt", "victim"]


def test_two_savers_at_once_leave_one_of_two_whole_checkpoints(tmp_path):
    program = (
        "import sys, numpy as np\nfrom qmp_collect.runs import save_checkpoint\n"
        "for _ in range(15): save_checkpoint(sys.argv[1], {'who': int(sys.argv[2]), "
        "'data': np.full(200_000, int(sys.argv[2]))})\n"
    )
    path = tmp_path / "state.ckpt"
    savers = [subprocess.Popen([sys.executable, "-c", program, path, str(who)]) for who in (1, 2)]
    while any(saver.poll() is None for saver in savers):
        if path.exists():
            tree = load_checkpoint(path)
            assert (tree["data"] == tree["who"]).all()
    assert [saver.returncode for saver in savers] == [0, 0]
    assert [entry.name for entry in tmp_path.iterdir()] == ["state.ckpt"]


def test_what_multiplies_in_memory_is_refused_when_it_is_saved(tmp_path):
    for tree in ([0] * 100_001, [np.zeros(1)] * 10_001, "x" * (1 << 22)):
        with pytest.raises(ValueError, match="put long lists of numbers into arrays"):
            save_checkpoint(tmp_path / "state.ckpt", tree)
    assert not list(tmp_path.iterdir())
