"""Checkpoints without pickled code: one file of arrays and JSON, at any moment the old one or the new one."""

from __future__ import annotations

import json
import os
import random
import sys
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["atomic_file", "load_checkpoint", "rng_state", "save_checkpoint", "set_rng_state"]

_FORMAT = "qmp_collect checkpoint 1"


def save_checkpoint(path: str | os.PathLike[str], tree: Any) -> None:
    """Write `tree` to `path`; whatever happens meanwhile, `path` holds the old checkpoint or the new one.

    The file is a numpy ``.npz`` container. Folders are created as needed. A temporary file ``.NAME.tmp``
    beside it is filled, synchronised to disk and renamed; one that a killed process leaves behind is
    overwritten by the next save. One process at a time may save to a path.

    Args:
        path: the file, with any extension.
        tree: nested dict (keys str or int), list and tuple of numpy arrays and scalars, torch tensors, str,
            int of any size, float, bool and None. Subclasses of the containers come back as plain ones,
            tensors on the CPU and without gradient.

    Raises:
        TypeError: for anything else, naming its place in the tree.
    """
    arrays: dict[str, NDArray[Any]] = {}
    document = {"format": _FORMAT, "tree": _encode(tree, "tree", arrays)}
    header = np.frombuffer(json.dumps(document).encode(), np.uint8)
    with atomic_file(path) as file, zipfile.ZipFile(file, "w") as archive:
        for name, array in {"header": header, **arrays}.items():
            with archive.open(f"{name}.npy", "w", force_zip64=True) as entry:
                np.lib.format.write_array(entry, array, allow_pickle=False)


def load_checkpoint(path: str | os.PathLike[str]) -> Any:
    """Read back what `save_checkpoint` wrote. Executes no code from the file.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if the file is not a checkpoint, or a damaged one.
    """
    path = Path(path)
    if not path.exists():
        raise FileNotFoundError(f"no checkpoint at {path}; expected a file written by save_checkpoint")
    try:
        with open(path, "rb") as file, np.load(file, allow_pickle=False) as content:
            document = json.loads(content["header"].tobytes())
            if document["format"] != _FORMAT:
                raise ValueError(f"expected format {_FORMAT!r}, got {document['format']!r}")
            return _decode(document["tree"], content)
    except (
        ValueError,
        TypeError,
        LookupError,
        AttributeError,
        RuntimeError,
        OSError,
        EOFError,
        zipfile.BadZipFile,
    ) as error:
        raise ValueError(f"{path} is not a readable checkpoint of save_checkpoint: {error}") from error


@contextmanager
def atomic_file(path: str | os.PathLike[str]) -> Iterator[IO[bytes]]:
    """A file to write that takes the name `path` when the block ends well; until then the old file stays.

    What is written goes to ``.NAME.tmp`` in the same folder, reaches the disk, and is then renamed.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.tmp")
    try:
        with open(temporary, "wb") as file:
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
    """Continue the global generators from a `rng_state` tree. Devices that this machine lacks are skipped."""
    random.setstate(tree["python"])
    np.random.set_state(tree["numpy"])
    if "torch" in tree:
        import torch

        torch.set_rng_state(tree["torch"])
        torch.cuda.set_rng_state_all(tree.get("cuda", [])[: torch.cuda.device_count()])


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


def _decode(node: Any, content: Any) -> Any:
    if not isinstance(node, dict):
        return node
    ((tag, value),) = node.items()
    if tag == "dict":
        return {key: _decode(item, content) for key, item in value}
    if tag in ("list", "tuple"):
        items = [_decode(item, content) for item in value]
        return items if tag == "list" else tuple(items)
    if tag == "array":
        return content[value]
    if tag == "scalar":
        return content[value][()]
    if tag == "tensor":
        import torch

        name, dtype = value
        return torch.from_numpy(content[name]).view(getattr(torch, dtype))
    raise ValueError(f"unknown tag {tag!r}")


def _bits(torch: Any, itemsize: int) -> Any:
    return {1: torch.uint8, 2: torch.int16, 4: torch.int32, 8: torch.int64}[itemsize]
