"""Checkpoints without pickled code: one file of arrays and JSON, at any moment the old one or the new one."""

from __future__ import annotations

import io
import json
import math
import os
import random
import re
import secrets
import socket
import stat
import sys
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["atomic_file", "check_rng_state", "load_checkpoint", "rng_state", "save_checkpoint", "set_rng_state"]

_FORMAT = "qmp_collect checkpoint 1"
# What is outside of arrays multiplies when it is read; with these bounds it stays within some 15 MB.
_MOST_ARRAYS = 10_000
_MOST_VALUES = 100_000
_LONGEST_HEADER = 1 << 22
_CHUNK = 1 << 20
_NPY_HEADER = re.compile(
    r"\{'descr': '([<>|=][biufcSUmM]\d+(?:\[\w+\])?)', 'fortran_order': (True|False), 'shape': \(([\d, ]*)\), \} *\n"
)


def save_checkpoint(path: str | os.PathLike[str], tree: Any) -> None:
    """Write `tree` to `path`; whatever happens meanwhile, `path` holds the old checkpoint or the new one.

    The file is a numpy ``.npz`` container. Folders are created as needed. See `atomic_file` for how it is written.

    Args:
        path: the file, with any extension.
        tree: nested dict (keys str or int), list and tuple of numpy arrays and scalars, torch tensors, str,
            int, float, bool and None. Subclasses of the containers come back as plain ones,
            tensors on the CPU and without gradient. At most 10 000 arrays and 100 000 other values.

    Raises:
        TypeError: for anything else, naming its place in the tree.
        ValueError: for more arrays or values than that, or more than 4 MiB of other values.
    """
    arrays: dict[str, NDArray[Any]] = {}
    document = {"format": _FORMAT, "tree": _encode(tree, "tree", arrays)}
    header = json.dumps(document, separators=(",", ":")).encode()
    if len(arrays) > _MOST_ARRAYS or _values(header) > _MOST_VALUES or len(header) > _LONGEST_HEADER:
        raise ValueError(
            f"expected at most {_MOST_ARRAYS} arrays, and outside of them {_MOST_VALUES} values of {_LONGEST_HEADER} "
            f"bytes, got {len(arrays)} and about {_values(header)} of {len(header)} bytes: put long lists of numbers "
            "into arrays, and small arrays into larger ones"
        )
    with atomic_file(path) as file, zipfile.ZipFile(file, "w") as archive:
        for name, array in {"header": np.frombuffer(header, np.uint8), **arrays}.items():
            with archive.open(f"{name}.npy", "w", force_zip64=True) as entry:
                np.lib.format.write_array(entry, array, allow_pickle=False)


def load_checkpoint(path: str | os.PathLike[str]) -> Any:
    """Read back what `save_checkpoint` wrote. Executes no code from the file.

    Every byte of every array is compared with its checksum, and no memory is claimed that the file does not fill:
    whatever the file holds, less than twice its size and some 15 MB.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if the file is not a checkpoint, or a damaged one.
    """
    path = Path(path)
    if not path.exists():
        raise FileNotFoundError(f"no checkpoint at {path}; expected a file written by save_checkpoint")
    try:
        with _SmallReads(regular_file(path)) as file, zipfile.ZipFile(file) as archive:
            entries = archive.infolist()
            _check_entries(entries, file.size)
            document = _read_document(_read_array(archive, entries[0]))
            arrays = {entry.filename.removesuffix(".npy"): _read_array(archive, entry) for entry in entries[1:]}
        tree = _decode(document["tree"], arrays)
        if arrays:
            raise ValueError(f"{len(arrays)} arrays have no place in it")
        return tree
    except Exception as error:  # a damaged file can make any layer below fail in any way
        raise ValueError(f"{path} is not a readable checkpoint of save_checkpoint: {error}") from error


class _SmallReads(io.BufferedReader):
    """A file that gives little at once: a directory of the archive that claims to be long is refused unread."""

    def __init__(self, raw: io.FileIO) -> None:
        super().__init__(raw)
        self.size = os.fstat(raw.fileno()).st_size

    def read(self, size: int | None = -1, /) -> bytes:
        if size is None or size < 0:
            size = max(self.size - self.tell(), 0)
        if size > _CHUNK:
            raise ValueError(f"expected parts of at most {_CHUNK} bytes, one claims {size}")
        return super().read(size)


def regular_file(path: Path) -> io.FileIO:
    """A file to read. ``ValueError`` for what is none: a pipe, a device."""
    # Without O_NONBLOCK, opening a pipe that lies there waits for a writer for ever.
    file = io.FileIO(os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)), "rb")
    if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
        file.close()
        raise ValueError("expected a regular file")
    return file


def _check_entries(entries: list[zipfile.ZipInfo], size: int) -> None:
    """The archive holds what `save_checkpoint` puts into it, as it is, once."""
    names = [f"array{index}.npy" for index in range(len(entries) - 1)]
    if [entry.filename for entry in entries] != ["header.npy", *names]:
        raise ValueError("expected the entries header.npy, array0.npy, array1.npy, ...")
    if any(entry.compress_type != zipfile.ZIP_STORED or entry.file_size != entry.compress_size for entry in entries):
        raise ValueError("expected entries without compression")
    if (claimed := sum(entry.file_size for entry in entries)) > size:
        raise ValueError(f"its entries claim {claimed} bytes, the file has {size}")


def _read_array(archive: zipfile.ZipFile, entry: zipfile.ZipInfo) -> NDArray[Any]:
    """The array of an entry, which is read to its end: only then its checksum is compared."""
    with archive.open(entry) as file:
        start = file.read(10)
        length = int.from_bytes(start[8:], "little")
        found = _NPY_HEADER.fullmatch(file.read(length).decode("ascii"))
        if start[:8] != b"\x93NUMPY\x01\x00" or found is None:
            raise ValueError(f"{entry.filename}: expected an array of numbers, bools or strings")
        dtype, shape = np.dtype(found[1]), tuple(int(number) for number in found[3].split(",") if number.strip())
        count, left = math.prod(shape), entry.file_size - len(start) - length
        if count * dtype.itemsize != left or (count and not dtype.itemsize):
            raise ValueError(f"{entry.filename}: {dtype} of shape {shape} is not what its {left} bytes hold")
        array = np.empty(count, dtype)
        target = memoryview(array.view(np.uint8).data if count else bytearray())
        for first in range(0, left, _CHUNK):
            piece = target[first : first + _CHUNK]
            piece[:] = file.read(len(piece))
        if file.read(1):
            raise ValueError(f"{entry.filename}: there is more than its array")
    if dtype.kind == "b" and count and int(array.view(np.uint8).max()) > 1:
        raise ValueError(f"{entry.filename}: bools other than 0 and 1")
    return array.reshape(shape[::-1]).T if found[2] == "True" else array.reshape(shape)


def _read_document(header: NDArray[Any]) -> dict[str, Any]:
    if header.dtype != np.uint8 or header.nbytes > _LONGEST_HEADER:
        raise ValueError(f"expected a header of at most {_LONGEST_HEADER} bytes")
    text = header.tobytes()
    if _values(text) > _MOST_VALUES:
        raise ValueError(f"expected a header of at most {_MOST_VALUES} values")
    document = json.loads(text.decode("ascii"))
    if document["format"] != _FORMAT:
        raise ValueError(f"expected format {_FORMAT!r}, got {document['format']!r}")
    return dict(document)


def _values(header: bytes) -> int:
    """At most how many objects this JSON becomes in memory, before it is parsed."""
    return sum(header.count(mark) for mark in (b",", b"[", b"{"))


@contextmanager
def atomic_file(path: str | os.PathLike[str]) -> Iterator[IO[bytes]]:
    """A file to write that takes the name `path` when the block ends well; until then the old file stays.

    What is written goes to a file of this process beside it, ``.NAME.HOST-PROCESS-RANDOM.tmp``, which did not exist
    before, reaches the disk, and is then renamed. Those that killed processes of this host left behind are removed.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    _remove_abandoned(path)
    host = zlib.crc32(socket.gethostname().encode())
    temporary = path.with_name(f".{path.name}.{host:08x}-{os.getpid()}-{secrets.token_hex(4)}.tmp")
    try:
        with open(temporary, "xb") as file:  # x: never through a link or into a file that lies there
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    if os.name == "posix":  # the rename itself is durable once the folder is synchronised
        folder = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)


def _remove_abandoned(path: Path) -> None:
    if os.name != "posix":
        return
    own = re.compile(rf"\.{re.escape(path.name)}\.{zlib.crc32(socket.gethostname().encode()):08x}-(\d+)-\w+\.tmp")
    for name in os.listdir(path.parent):
        if (found := own.fullmatch(name)) and not _alive(int(found[1])):
            with suppress(OSError):
                path.with_name(name).unlink()


def _alive(process: int) -> bool:
    try:
        os.kill(process, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except PermissionError:
        pass
    return True


def rng_state() -> dict[str, Any]:
    """States of the global generators: Python's, numpy's and, if it is imported, torch's (CPU, all of CUDA).

    A tree that `save_checkpoint` takes. CUDA is left out as long as the process has not used it.
    """
    state: dict[str, Any] = {"python": random.getstate(), "numpy": np.random.get_state(legacy=False)}
    torch = sys.modules.get("torch")
    if torch is not None:
        state["torch"] = torch.get_rng_state()
        if torch.cuda.is_initialized():
            state["cuda"] = torch.cuda.get_rng_state_all()
    return state


def set_rng_state(tree: dict[str, Any]) -> None:
    """Continue the global generators from a `rng_state` tree. Devices that this machine lacks are skipped.

    Raises:
        ValueError: if it is not such a tree; then no generator has changed.
    """
    devices = check_rng_state(tree)
    random.setstate(tree["python"])
    np.random.set_state(tree["numpy"])
    if "torch" in tree:
        import torch

        torch.set_rng_state(tree["torch"])
        for device, state in enumerate(devices):
            torch.cuda.set_rng_state(state, device)


def check_rng_state(tree: dict[str, Any]) -> list[Any]:
    """``ValueError`` unless `set_rng_state` will take this tree; the states for the devices of this machine."""
    try:
        random.Random().setstate(tree["python"])
        np.random.RandomState().set_state(tree["numpy"])
        # Numpy takes any position, and then reads numbers from beyond its 624, or ends the process.
        if tree["numpy"]["bit_generator"] != "MT19937" or not 0 <= tree["numpy"]["state"]["pos"] <= 624:
            raise ValueError(f"expected MT19937 at a position in 0..624, got {tree['numpy']['state']['pos']}")
        if "torch" not in tree:
            return []
        import torch

        torch.Generator().set_state(tree["torch"])
        devices: list[Any] = tree.get("cuda", [])[: torch.cuda.device_count()]
        for device, state in enumerate(devices):
            torch.Generator(f"cuda:{device}").set_state(state)
        return devices
    except Exception as error:
        raise ValueError(f"expected states of generators, as rng_state gives them: {error!r}") from error


def _encode(node: Any, place: str, arrays: dict[str, NDArray[Any]]) -> Any:
    """JSON form of a tree, its arrays put into `arrays`. All but JSON scalars become ``{tag: content}``."""
    if isinstance(node, np.generic):  # before float: np.float64 is one
        return {"scalar": _put(np.asarray(node), place, arrays)}
    if node is None or isinstance(node, bool | int | float | str):
        return node
    if isinstance(node, dict):
        for key in node:
            if type(key) not in (str, int):
                raise TypeError(f"{place}: expected dict keys of type str or int, got {key!r} ({type(key).__name__})")
        return {"dict": [[key, _encode(value, f"{place}[{key!r}]", arrays)] for key, value in node.items()]}
    if isinstance(node, list | tuple):
        items = [_encode(value, f"{place}[{index}]", arrays) for index, value in enumerate(node)]
        return {"list" if isinstance(node, list) else "tuple": items}
    if isinstance(node, np.ndarray):
        return {"array": _put(node, place, arrays)}
    torch = sys.modules.get("torch")
    if torch is not None and isinstance(node, torch.Tensor):
        if node.layout is not torch.strided or node.is_quantized or node.is_meta:
            raise TypeError(f"{place}: expected a dense tensor, got {node.layout} of {node.dtype} on {node.device}")
        tensor = node.detach().cpu().resolve_conj().resolve_neg()
        try:
            array = tensor.numpy()
        except TypeError:  # bfloat16 and the 8-bit floats have no numpy type: keep their bits
            array = tensor.contiguous().view(_bits(torch, tensor.itemsize)).numpy()
        return {"tensor": [_put(array, place, arrays), str(node.dtype).removeprefix("torch.")]}
    raise TypeError(
        f"{place}: cannot save {type(node).__name__}; expected dict, list, tuple, numpy array, torch tensor,"
        " str, int, float, bool or None (convert it, for example with its state_dict() or numpy.asarray)"
    )


def _put(array: NDArray[Any], place: str, arrays: dict[str, NDArray[Any]]) -> str:
    if array.dtype.kind not in "biufcSUmM" or array.dtype.isbuiltin == 2:
        raise TypeError(f"{place}: cannot save an array of dtype {array.dtype}; expected numbers, bools or strings")
    name = f"array{len(arrays)}"
    arrays[name] = array
    return name


def _decode(node: Any, arrays: dict[str, NDArray[Any]]) -> Any:
    """The tree of its JSON form; takes out of `arrays` what it needs, so that no array comes twice."""
    if isinstance(node, list):
        raise ValueError("expected a list under a tag")
    if not isinstance(node, dict):
        return node
    ((tag, value),) = node.items()
    if tag == "dict":
        decoded = {key: _decode(item, arrays) for key, item in value}
        if len(decoded) != len(value) or any(type(key) not in (str, int) for key in decoded):
            raise ValueError("expected dict keys of type str or int, each once")
        return decoded
    if tag in ("list", "tuple"):
        items = [_decode(item, arrays) for item in value]
        return items if tag == "list" else tuple(items)
    if tag == "array":
        return arrays.pop(value)
    if tag == "scalar":
        array = arrays.pop(value)
        if array.ndim:
            raise ValueError(f"expected a scalar, got shape {array.shape}")
        return array[()]
    if tag == "tensor":
        import torch

        array, dtype = arrays.pop(value[0]), getattr(torch, value[1])
        if dtype.itemsize != array.itemsize:
            raise ValueError(f"expected {dtype} numbers, got {array.dtype}")
        return torch.from_numpy(array).view(dtype)
    raise ValueError(f"unknown tag {tag!r}")


def _bits(torch: Any, itemsize: int) -> Any:
    return {1: torch.uint8, 2: torch.int16, 4: torch.int32, 8: torch.int64}[itemsize]
