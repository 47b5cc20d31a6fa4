"""Damaged and hostile checkpoints of a real run: one clear error each, little memory, and nothing is touched.

    python benchmark/reliability/damaged_checkpoints.py       # 500 flips and truncations, and each hostile kind

Each trial is a process of its own, forked from this one, which loads the damaged folder. It ends well if a ValueError
names the damaged file, or if all that is loaded is equal bit for bit (the flip hit bytes that do not matter); if memory
grew by less than twice the size of the undamaged run's files; and if every file is as it was. Else the exit code is 1.
"""

from __future__ import annotations

import hashlib
import json
import multiprocessing
import os
import random
import shutil
import struct
import subprocess
import sys
import tempfile
import zipfile
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import tyro
from torch.utils._pytree import tree_flatten_with_path

from qmp_collect.runs.checkpoint import load_checkpoint, save_checkpoint, set_rng_state
from qmp_collect.runs.forms import check_form
from qmp_collect.runs.provenance import provenance
from qmp_collect.runs.replay_files import load_run_state

ROOT = Path(__file__).parents[2]
RUN = (
    "--env-id Maze3 --env-steps-per-round 100 --gradient-steps-per-round 2 --min-buffer-size 100 --batch-size 16 "
    "--eval-episodes 1 --eval-every 10000 --torch-threads 1 --total-timesteps 900 --checkpoint-every 300"
)


@dataclass
class Args:
    damages: int = 500
    """random flips and truncations, in all"""
    hidden_dim: int = 400
    """of the run whose checkpoint is damaged: decides its size"""
    seed: int = 1
    """of the damages"""
    out: Path = ROOT / "benchmark" / "results" / "reliability" / "damaged_checkpoints.json"
    """where the result is written"""


def npy(dtype: str, shape: str, body: bytes = b"") -> bytes:
    header = f"{{'descr': '{dtype}', 'fortran_order': False, 'shape': {shape}, }}".encode()
    header += b" " * (-(len(header) + 11) % 64) + b"\n"
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(header)) + header + body


def forged(path: Path, tree: bytes, *arrays: bytes, compression: int = zipfile.ZIP_STORED) -> None:
    header = b'{"format":"qmp_collect checkpoint 1","tree":' + tree + b"}"
    with zipfile.ZipFile(path, "w", compression, compresslevel=1) as archive:
        archive.writestr("header.npy", npy("|u1", f"({len(header)},)", header))
        for index, array in enumerate(arrays):
            archive.writestr(f"array{index}.npy", array)


def bomb(path: Path) -> None:
    """A quarter of a gigabyte of zeros, compressed to a two hundredth."""
    zeros = npy("|u1", f"({1 << 28},)", bytes(1 << 28))
    forged(path, b'{"array":"array0"}', zeros, compression=zipfile.ZIP_DEFLATED)


def shared(path: Path) -> None:
    """One array that the tree names a thousand times."""
    tree = b'{"list":[' + b",".join([b'{"array":"array0"}'] * 1000) + b"]}"
    forged(path, tree, npy("|u1", f"({10 << 20},)", bytes(10 << 20)))


def overlapping(path: Path) -> None:
    """Entries of the archive's directory that all lie on the same bytes."""
    with zipfile.ZipFile(path, "w") as archive:
        header = b'{"format":"qmp_collect checkpoint 1","tree":0}'
        archive.writestr("header.npy", npy("|u1", f"({len(header)},)", header))
        archive.writestr("array0.npy", npy("|u1", f"({10 << 20},)", bytes(10 << 20)))
        info = archive.getinfo("array0.npy")
        for index in range(1, 500):
            again = zipfile.ZipInfo(f"array{index}.npy")
            again.header_offset, again.CRC = info.header_offset, info.CRC
            again.file_size = again.compress_size = info.file_size
            archive.filelist.append(again)


def pipe(path: Path) -> None:
    """A pipe to which nobody writes."""
    path.unlink()
    os.mkfifo(path)


def endless(path: Path) -> None:
    """A link to a device that never ends."""
    path.unlink()
    path.symlink_to("/dev/zero")


def a_folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


def many_entries(path: Path) -> None:
    """Fifty thousand entries of nothing."""
    with zipfile.ZipFile(path, "w") as archive:
        for index in range(50_000):
            archive.writestr(f"{index}", b"")


FORGED: dict[str, Callable[[Path], None]] = {
    "zeros that were compressed": bomb,
    "one array named a thousand times": shared,
    "entries that overlap": overlapping,
    "50 000 empty entries": many_entries,
    "a pipe in its place": pipe,
    "a link to /dev/zero": endless,
    "claims 2**60 numbers": lambda path: forged(path, b'{"array":"array0"}', npy("<f4", f"({2**60},)", bytes(16))),
    "claims 1 TB": lambda path: forged(path, b'{"array":"array0"}', npy("<f4", f"({2**38},)", bytes(16))),
    "a smaller shape than its data": lambda path: forged(path, b'{"array":"array0"}', npy("<f4", "(4,)", bytes(64))),
    "an npy header that does not parse": lambda path: forged(
        path, b'{"array":"array0"}', npy("<f4", "(4,(", bytes(16))
    ),
    "objects": lambda path: forged(path, b'{"array":"array0"}', npy("|O", "(1,)", b"\x80\x04N.")),
    "ten million brackets": lambda path: forged(path, b'{"list":[' + b"[]," * 10_000_000 + b"0]}"),
    "brackets 100 000 deep": lambda path: forged(path, b"[" * 100_000),
    "a folder in its place": a_folder,
}


def other_leaves(path: Path) -> dict[str, Any]:
    """Trees whose checksums are right, each with a leaf of another form."""
    tree = load_checkpoint(path)
    moments = tree["agent"]["actor_optimizer"]["state"][0]

    def changed(owner: Any, key: Any, value: Any) -> Any:
        before, owner[key] = owner[key], value
        copy = json_safe(tree)
        owner[key] = before
        return copy

    return {
        "moments of another shape": changed(moments, "exp_avg", torch.zeros(1)),
        "moments of another precision": changed(moments, "exp_avg_sq", moments["exp_avg_sq"].double()),
        "a layer of another shape": changed(tree["agent"]["actor"], "fc1.weight", torch.zeros(3, 4, 1)),
        "a text for a number": changed(tree["run"], "updates_due", "0"),
        "a random generator beyond its end": changed(tree["rng"]["numpy"]["state"], "pos", 10**9),
    }


def json_safe(tree: Any) -> Any:
    return {k: json_safe(v) for k, v in tree.items()} if isinstance(tree, dict) else tree


def digest(tree: Any) -> str:
    """Of every leaf's place, form and bits."""
    total = hashlib.blake2b()
    for place, leaf in tree_flatten_with_path(tree)[0]:
        content = leaf.numpy().tobytes() if isinstance(leaf, torch.Tensor) else getattr(leaf, "tobytes", lambda: b"")()
        total.update(repr((place, type(leaf), None if content else leaf)).encode())
        total.update(content)
    return total.hexdigest()


def files(folder: Path) -> dict[str, Any]:
    paths = sorted(folder.rglob("*"))
    return {str(p): (p.lstat().st_mode, p.read_bytes() if p.is_file() else None) for p in paths}


def status(name: str) -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(name))


def growth(memory: int, of_files: int) -> int:
    """Peak of what was allocated since. A child has the libraries' pages mapped anew as it comes to use them.

    How many at a time, the page cache decides: after an installation it was 24 MB more than a day later.
    """
    return status("VmHWM") - memory - (status("RssFile") - of_files)


def load(folder: Path, honest: Any, form: Any, answer: Any) -> None:
    """In a process of its own: what came of it, and by how much memory grew."""
    Path("/proc/self/clear_refs").write_text("5")  # the peak begins anew
    before = status("VmRSS"), status("RssFile")
    try:
        tree = load_run_state(folder)
        if form is not None:  # as a resumed run does before it takes anything
            path = folder / "checkpoint.npz"
            check_form(tree, form, str(path))
            set_rng_state(tree["rng"])
        grown = growth(*before)
        outcome = "identical" if digest(tree) == honest else "LOADED SOMETHING ELSE"
    except ValueError as error:
        grown = growth(*before)
        named = str(folder) in str(error) or "states of generators" in str(error)
        outcome = "refused" if named else f"ERROR WITHOUT THE FILE: {error}"
    except BaseException as error:
        grown, outcome = growth(*before), f"{type(error).__name__}: {error}"
    answer.send((outcome[:300], grown))


def trial(folder: Path, honest: str, form: Any, most: int) -> tuple[str, int]:
    before = files(folder)
    context = multiprocessing.get_context("fork")
    receiver, sender = context.Pipe(False)
    child = context.Process(target=load, args=(folder, honest, form, sender))
    child.start()
    sender.close()
    try:
        outcome, grown = receiver.recv()
    except EOFError:
        outcome, grown = "THE PROCESS DIED", 0
    child.join()
    if files(folder) != before:
        outcome = f"FILES CHANGED: {outcome}"
    if grown > most:
        outcome = f"{grown / 1e6:.0f} MB: {outcome}"
    return outcome, grown


def damage(path: Path, rng: random.Random) -> str:
    content = bytearray(path.read_bytes())
    if rng.random() < 0.25:
        path.write_bytes(content[: rng.randrange(len(content))])
        return "truncated"
    # As often in the directory at the end as anywhere: there the structure is.
    start = max(len(content) - 4096, 0) if rng.random() < 0.4 else 0
    content[rng.randrange(start, len(content))] ^= 1 << rng.randrange(8)
    path.write_bytes(content)
    return "flipped"


def main(args: Args) -> int:
    rng = random.Random(args.seed)
    table: dict[str, Counter[str]] = {}
    peak: dict[str, int] = {}
    with tempfile.TemporaryDirectory() as work:
        root = Path(work)
        flags = [*RUN.split(), "--hidden-dim", str(args.hidden_dim), "--run-dir-root", str(root / "runs")]
        script = ROOT / "cleanrl_scripts" / "sac_qmp_separate.py"
        subprocess.run(
            [sys.executable, script, *flags], check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        (run,) = (root / "runs").iterdir()
        whole = root / "whole"
        whole.mkdir()
        shutil.copy(run / "checkpoint.npz", whole)
        shutil.copytree(run / "replay", whole / "replay")
        size = sum(p.stat().st_size for p in whole.rglob("*") if p.is_file())
        form = load_run_state(whole)
        honest = digest(form)

        def run_trial(kind: str, folder: Path, form: Any = None) -> None:
            outcome, grown = trial(folder, honest, form, 2 * size)
            table.setdefault(kind, Counter())[outcome] += 1
            peak[kind] = max(peak.get(kind, 0), grown)
            shutil.rmtree(folder)

        def copy() -> Path:
            return Path(shutil.copytree(whole, root / "trial"))

        run_trial("undamaged", copy(), form)
        for _ in range(args.damages):
            folder = copy()
            target = rng.choice([folder / "checkpoint.npz"] * 4 + [sorted((folder / "replay").iterdir())[0]])
            kind = f"{damage(target, rng)} {'checkpoint' if target.suffix == '.npz' else 'replay'}"
            run_trial(kind, folder)
        for kind, forge in FORGED.items():
            folder = copy()
            forge(folder / "checkpoint.npz")
            run_trial(kind, folder)
        for kind, tree in other_leaves(whole / "checkpoint.npz").items():
            folder = copy()
            save_checkpoint(folder / "checkpoint.npz", tree)
            run_trial(kind, folder, form)

    good = all(set(outcomes) <= {"refused", "identical"} for outcomes in table.values())
    good = good and all(table[kind]["refused"] for kind in table if kind != "undamaged")
    for kind, outcomes in table.items():
        print(f"{kind:40} {peak[kind] / size:5.2f} x  {dict(outcomes)}")
    print(f"files of {size / 1e6:.1f} MB; {'all as documented' if good else 'NOT as documented'}")
    rows = {kind: {"outcomes": dict(table[kind]), "peak_over_size": round(peak[kind] / size, 2)} for kind in table}
    args.out.parent.mkdir(parents=True, exist_ok=True)
    result = {"provenance": provenance(), "size": size, "good": good, "kinds": rows}
    args.out.write_text(json.dumps(result, indent=1) + "\n")
    return 0 if good else 1


if __name__ == "__main__":
    raise SystemExit(main(tyro.cli(Args)))
