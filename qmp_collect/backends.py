"""NumPy, PyTorch and JAX arrays behind four functions, so that nothing else needs to know which one a learner uses.

Neither PyTorch nor JAX is imported unless it is asked for or the caller's program has it already.
"""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable, Iterable, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any, Literal, Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

BackendName = Literal["numpy", "torch", "jax"]
T = TypeVar("T")


class Backend(Protocol):
    """What callables are given, and how what they return comes back."""

    name: BackendName
    # Equal for backends whose arrays need no conversion for each other.
    key: tuple[Any, ...]

    def array(self, x: Any) -> Any:
        """``x`` as an array of this backend, never sharing memory with a NumPy ``x``."""

    def copy(self, x: Any) -> Any:
        """A copy that a callable may write to."""

    def stack(self, arrays: Sequence[Any], axis: int) -> Any: ...

    def repeat(self, x: Any, count: int) -> Any:
        """``(M, ...) -> (M * count, ...)``, each row ``count`` times in a row."""

    def host(self, *arrays: Any) -> tuple[NDArray[Any], ...]:
        """NumPy arrays of the same shapes, by one transfer from an accelerator, however many arrays there are."""


class NumpyBackend:
    name: BackendName = "numpy"
    key: tuple[Any, ...] = ("numpy",)

    def array(self, x: Any) -> NDArray[Any]:
        return np.array(to_numpy(x))

    def copy(self, x: Any) -> Any:
        return x.copy()

    def stack(self, arrays: Sequence[Any], axis: int) -> NDArray[Any]:
        return np.stack([to_numpy(a) for a in arrays], axis=axis)

    def repeat(self, x: Any, count: int) -> NDArray[Any]:
        return np.repeat(x, count, axis=0)

    def host(self, *arrays: Any) -> tuple[NDArray[Any], ...]:
        return tuple(to_numpy(a) for a in arrays)


class TorchBackend:
    """Floating-point inputs arrive in ``dtype``, by default PyTorch's default dtype, on ``device``."""

    name: BackendName = "torch"

    def __init__(self, device: Any = None, dtype: Any = None) -> None:
        import torch

        self._device = torch.device("cpu" if device is None else device)
        self._dtype = dtype
        self.key = ("torch", self._device, dtype)

    @property
    def _torch(self) -> Any:  # modules cannot be pickled
        return sys.modules["torch"]

    def array(self, x: Any) -> Any:
        torch = self._torch
        if isinstance(x, torch.Tensor):
            return x.to(self._device, self._dtype if x.is_floating_point() else None)
        x = to_numpy(x)
        dtype = (self._dtype or torch.get_default_dtype()) if x.dtype.kind == "f" else None
        return torch.tensor(x, dtype=dtype, device=self._device)

    def copy(self, x: Any) -> Any:
        return x.clone()

    def stack(self, arrays: Sequence[Any], axis: int) -> Any:
        return self._torch.stack([self.array(a) for a in arrays], dim=axis)

    def repeat(self, x: Any, count: int) -> Any:
        return x.repeat_interleave(count, dim=0)

    def host(self, *arrays: Any) -> tuple[NDArray[Any], ...]:
        if not all(isinstance(a, self._torch.Tensor) and a.is_cuda for a in arrays) or len(arrays) == 1:
            return tuple(to_numpy(a) for a in arrays)
        # Integers pass through float64 unharmed up to 2**53; float32 needs no wider pack than itself.
        exact = self._torch.float32 if all(a.dtype == self._torch.float32 for a in arrays) else self._torch.float64
        pack = self._torch.cat([a.reshape(-1).to(exact) for a in arrays]).cpu().numpy()
        parts = np.split(pack, np.cumsum([a.numel() for a in arrays])[:-1])
        return tuple(
            part.reshape(tuple(a.shape)).astype(_numpy_dtype(a), copy=False)
            for part, a in zip(parts, arrays, strict=True)
        )


class JaxBackend:
    name: BackendName = "jax"
    key: tuple[Any, ...] = ("jax",)

    @property
    def _jax(self) -> Any:
        import jax

        return jax

    def array(self, x: Any) -> Any:
        return self._jax.numpy.array(x)

    def copy(self, x: Any) -> Any:
        return x  # JAX arrays cannot be written to

    def stack(self, arrays: Sequence[Any], axis: int) -> Any:
        return self._jax.numpy.stack([self.array(a) for a in arrays], axis=axis)

    def repeat(self, x: Any, count: int) -> Any:
        return self._jax.numpy.repeat(x, count, axis=0)

    def host(self, *arrays: Any) -> tuple[NDArray[Any], ...]:
        return tuple(np.asarray(a) for a in self._jax.device_get(arrays))


def make_backend(name: str, device: Any = None) -> Backend:
    """The backend of that name. ``ValueError`` for another name or for a device that it has no use for."""
    if name == "torch":
        return TorchBackend(device)
    if name not in ("numpy", "jax"):
        raise ValueError(f'backend must be "numpy", "torch" or "jax", got {name!r}')
    if device is not None:
        raise ValueError(f'device={device!r} is for backend="torch"; the backend here is {name!r}')
    return NumpyBackend() if name == "numpy" else JaxBackend()


def module_backend(callables: Iterable[Any], device: Any = None) -> Backend | None:
    """The torch backend, on the parameters' device and in their dtype, if any of ``callables`` is a module's."""
    torch = sys.modules.get("torch")
    if torch is None:
        return None
    for fn in callables:
        while isinstance(fn, functools.partial):
            fn = fn.func
        owner = getattr(fn, "__self__", fn)
        if isinstance(owner, torch.nn.Module):
            parameter = next((p for p in owner.parameters() if p.is_floating_point()), None)
            if parameter is None:
                return TorchBackend(device)
            return TorchBackend(parameter.device if device is None else device, parameter.dtype)
    return None


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
    """A NumPy view of any array, a tensor that requires gradients or lies on an accelerator included."""
    if hasattr(x, "detach"):
        x = x.detach().cpu()
        return x.float().numpy() if _is_bfloat16(x) else x.numpy()  # type: ignore[no-any-return]
    return np.asarray(x)


def no_grad() -> AbstractContextManager[Any]:
    """``torch.no_grad()`` where the program uses PyTorch: collection never builds a graph."""
    torch = sys.modules.get("torch")
    return torch.no_grad() if torch is not None else nullcontext()


def _is_bfloat16(x: Any) -> bool:
    return str(x.dtype) == "torch.bfloat16"


def _numpy_dtype(x: Any) -> np.dtype[Any]:
    return np.dtype(np.float32) if _is_bfloat16(x) else np.dtype(str(x.dtype).removeprefix("torch."))
