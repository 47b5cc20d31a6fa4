"""NumPy, PyTorch and JAX arrays behind a few functions, so that nothing else needs to know which one a learner uses.

Neither PyTorch nor JAX is imported unless it is asked for or the caller's program has it already.
"""

from __future__ import annotations

import functools
import itertools
import math
import sys
from collections.abc import Callable, Iterable, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any, Literal, Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

from qmp_collect.extras import needs

BackendName = Literal["numpy", "torch", "jax"]
T = TypeVar("T")


class Backend(Protocol):
    """What callables are given."""

    name: BackendName
    # Equal for backends whose arrays need no conversion for each other.
    key: str

    def array(self, x: Any, floating: bool = False) -> Any:
        """``x`` as an array of this backend, never sharing memory with a NumPy ``x``.

        Args:
            floating: Integers become floating-point numbers, as those of a ``Box`` are to a network.
        """

    def copy(self, x: Any) -> Any:
        """A copy that a callable may write to."""

    def spent(self, x: Any) -> bool:
        """Whether a callable that was given ``x`` has used its memory for something else."""

    def stack(self, arrays: Sequence[Any], axis: int) -> Any: ...

    def repeat(self, x: Any, count: int) -> Any:
        """``(M, ...) -> (M * count, ...)``, each row ``count`` times in a row."""


class NumpyBackend:
    name: BackendName = "numpy"
    key = "numpy"

    def array(self, x: Any, floating: bool = False) -> NDArray[Any]:
        x = to_numpy(x)
        return np.array(x, np.float32 if floating and x.dtype.kind in "biu" else None)

    def copy(self, x: Any) -> Any:
        return x.copy()

    def spent(self, x: Any) -> bool:
        return False

    def stack(self, arrays: Sequence[Any], axis: int) -> NDArray[Any]:
        return np.stack([to_numpy(a) for a in arrays], axis=axis)

    def repeat(self, x: Any, count: int) -> NDArray[Any]:
        return np.repeat(x, count, axis=0)


class TorchBackend:
    """Floating-point inputs arrive in ``dtype``, by default PyTorch's default dtype, on ``device``."""

    name: BackendName = "torch"

    def __init__(self, device: Any = None, dtype: Any = None) -> None:
        with needs("train"):
            import torch

        self.device = torch.device("cpu" if device is None else device)
        self.dtype = dtype
        self.key = f"torch {self.device} {dtype}"

    @property
    def _torch(self) -> Any:  # modules cannot be pickled
        return sys.modules["torch"]

    def array(self, x: Any, floating: bool = False) -> Any:
        torch = self._torch
        if isinstance(x, torch.Tensor):
            return x.to(self.device, self.dtype if floating or x.is_floating_point() else None)
        x = _forwards(to_numpy(x))
        dtype = self.dtype or torch.get_default_dtype()
        if floating and x.dtype.kind in "biu":  # bytes of an image cross as bytes
            return torch.tensor(x, device=self.device).to(dtype)
        return torch.tensor(x, dtype=dtype if x.dtype.kind == "f" else None, device=self.device)

    def copy(self, x: Any) -> Any:
        return x.clone()

    def spent(self, x: Any) -> bool:
        return False

    def stack(self, arrays: Sequence[Any], axis: int) -> Any:
        return self._torch.stack([self._torch.as_tensor(_forwards(a), device=self.device) for a in arrays], dim=axis)

    def repeat(self, x: Any, count: int) -> Any:
        return x.repeat_interleave(count, dim=0)


class JaxBackend:
    name: BackendName = "jax"
    key = "jax"

    @property
    def _jax(self) -> Any:
        import jax

        return jax

    def array(self, x: Any, floating: bool = False) -> Any:
        x = self._jax.numpy.array(x)
        return x.astype(self._jax.numpy.float32) if floating and x.dtype.kind in "biu" else x

    def copy(self, x: Any) -> Any:
        return x  # JAX arrays cannot be written to

    def spent(self, x: Any) -> bool:
        return bool(x.is_deleted())  # a jitted callable may donate its arguments' memory

    def stack(self, arrays: Sequence[Any], axis: int) -> Any:
        return self._jax.numpy.stack([self._jax.numpy.asarray(a) for a in arrays], axis=axis)

    def repeat(self, x: Any, count: int) -> Any:
        return self._jax.numpy.repeat(x, count, axis=0)


def make_backend(name: str, device: Any = None) -> Backend:
    """The backend of that name. ``ValueError`` for another name or for a device that it has no use for."""
    if name == "torch":
        return TorchBackend(device)
    if name not in ("numpy", "jax"):
        raise ValueError(f'backend must be "numpy", "torch" or "jax", got {name!r}')
    if device is not None:
        raise ValueError(f'device={device!r} is for backend="torch"; the backend here is {name!r}')
    return NumpyBackend() if name == "numpy" else JaxBackend()


def module_backend(callables: Iterable[Any], device: Any = None) -> TorchBackend | None:
    """The torch backend, on the device and in the dtype of the first parameters, if any of ``callables`` is a module's.

    Without parameters, and without buffers of floating-point numbers, it is the default one.
    """
    torch = sys.modules.get("torch")
    if torch is None:
        return None
    found = None
    for fn in callables:
        while isinstance(fn, functools.partial):
            fn = fn.func
        owner = getattr(fn, "__self__", fn)
        if isinstance(owner, torch.nn.Module):
            numbers = (x for x in itertools.chain(owner.parameters(), owner.buffers()) if x.is_floating_point())
            if (first := next(numbers, None)) is not None:
                return TorchBackend(first.device if device is None else device, first.dtype)
            found = TorchBackend(device)
    return found


def call_first(fn: Callable[[Backend], T], fallback: Backend | None = None) -> tuple[Backend, T]:
    """Run ``fn`` with the backend that it can use: NumPy, or PyTorch (``fallback``) where NumPy arrays are refused.

    Returns that backend and the result. If both are refused, both errors are shown.
    """
    numpy: Backend = NumpyBackend()
    try:
        return numpy, fn(numpy)
    except (TypeError, AttributeError, RuntimeError, AssertionError) as refused:  # as libraries refuse NumPy
        if "torch" not in sys.modules:
            raise
        torch = fallback or TorchBackend()
        try:
            return torch, fn(torch)
        except Exception as error:
            raise error from refused


def to_numpy(x: Any) -> NDArray[Any]:
    """A NumPy view of any array, a tensor that requires gradients or lies on an accelerator included.

    Half-precision numbers that NumPy has no type for (bfloat16) become float32, which holds them exactly.
    """
    if type(x) is np.ndarray and x.dtype.kind != "V":
        return x
    if hasattr(x, "detach"):
        x = x.detach().cpu()
        return x.float().numpy() if _is_bfloat16(x) else x.numpy()  # type: ignore[no-any-return]
    array: NDArray[Any] = np.asarray(x)
    return array.astype(np.float32) if array.dtype.kind == "V" and "float" in array.dtype.name else array


def host(*arrays: Any) -> list[NDArray[Any]]:
    """NumPy arrays of the same shapes and kinds, by one transfer from each accelerator, however many lie there."""
    found: dict[int, NDArray[Any]] = {}
    there: dict[Any, list[int]] = {}
    for i, x in enumerate(arrays):
        if getattr(x, "is_cuda", False):
            there.setdefault(x.device, []).append(i)
    for group in there.values():
        if len(group) > 1:
            found |= zip(group, unpack(*pack([arrays[i] for i in group])), strict=True)
    return [found[i] if i in found else to_numpy(x) for i, x in enumerate(arrays)]


def pack(tensors: Sequence[Any]) -> tuple[NDArray[np.uint8], list[tuple[tuple[int, ...], np.dtype[Any]]]]:
    """The bytes of tensors on one device as one NumPy array, and their shapes and dtypes."""
    torch = sys.modules["torch"]
    tensors = [t.float() if _is_bfloat16(t) else t for t in tensors]
    content = torch.cat([t.reshape(-1).view(torch.uint8) for t in tensors]).cpu().numpy()
    return content, [(tuple(t.shape), np.dtype(str(t.dtype).removeprefix("torch."))) for t in tensors]


def unpack(content: NDArray[np.uint8], kinds: list[tuple[tuple[int, ...], np.dtype[Any]]]) -> list[NDArray[Any]]:
    """What `pack` packed."""
    ends = np.cumsum([math.prod(shape) * dtype.itemsize for shape, dtype in kinds])
    parts = np.split(content, ends[:-1])
    return [part.copy().view(dtype).reshape(shape) for part, (shape, dtype) in zip(parts, kinds, strict=True)]


def no_grad() -> AbstractContextManager[Any]:
    """``torch.no_grad()`` where the program uses PyTorch: collection never builds a graph."""
    torch = sys.modules.get("torch")
    return torch.no_grad() if torch is not None else nullcontext()


def _forwards(x: Any) -> Any:
    """A NumPy array that steps backwards, ``x[..., ::-1]``, copied: PyTorch takes none."""
    backwards = isinstance(x, np.ndarray) and any(stride < 0 for stride in x.strides)
    return x.copy() if backwards else x


def _is_bfloat16(x: Any) -> bool:
    return str(x.dtype) == "torch.bfloat16"
