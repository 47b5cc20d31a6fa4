"""Callables and the arrays that they are given: each in the backend that it needs, converted once a step."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from qmp_collect.backends import Backend, TorchBackend, call_first, make_backend, module_backend


class Shared:
    """An array that several callables are given, in whatever backend each of them needs."""

    def __init__(self, source: Any, floating: bool = False) -> None:
        self._source, self._floating = source, floating
        self._made: dict[str, Any] = {}

    def on(self, backend: Backend) -> Any:
        """The array in ``backend``, the same one at every call: to index, not to hand out."""
        made = self._made.get(backend.key)
        if made is None or backend.spent(made):
            made = self._made[backend.key] = backend.array(self._source, self._floating)
        return made

    def copy(self, backend: Backend) -> Any:
        """The array in ``backend`` for one callable, which may write to it or use its memory up."""
        return backend.copy(self.on(backend))


class Asked:
    """A callable, and the backend of what it is given: known from the start, or learned from its first call."""

    def __init__(self, fn: Callable[..., Any], backend: Backend | None, fallback: Backend | None) -> None:
        self._fn, self._backend, self._fallback = fn, backend, fallback

    def __call__(self, arguments: Callable[[Backend], tuple[Any, ...]]) -> Any:
        """Its answer to ``arguments``, which are made for its backend."""
        if self._backend is not None:
            return self._fn(*arguments(self._backend))
        self._backend, answer = call_first(lambda backend: self._fn(*arguments(backend)), self._fallback)
        return answer

    @property
    def known(self) -> Backend:
        assert self._backend is not None, "asked for the backend before the first call"
        return self._backend


def asking(groups: Sequence[Any], name: str | None, device: Any) -> list[Any]:
    """Every callable of ``groups`` (one, a list, or ``None``) as `Asked`.

    Without ``name`` and ``device``, a module is given torch arrays on its device and in its dtype, and any other
    callable what its first call accepts. With them, all are given what is named, modules still in their own dtype.
    """
    everything = [fn for group in groups if group is not None for fn in (group if isinstance(group, list) else [group])]
    named = None if name is None and device is None else make_backend(name or "torch", device)
    torch_allowed = name in (None, "torch")
    of_modules = module_backend(everything, device) if torch_allowed else None
    default = named and (of_modules or named)

    def ask(fn: Any) -> Asked:
        own = module_backend([fn], device) if torch_allowed else None
        if own is not None and own.dtype is None:  # a module without parameters goes where the others are
            own = of_modules
        return Asked(fn, own or default, fallback=of_modules)

    return [None if g is None else [ask(fn) for fn in g] if isinstance(g, list) else ask(g) for g in groups]


def common(backends: Sequence[Backend]) -> Backend:
    """The backend in whose arrays answers from all of ``backends`` can stand side by side."""
    torch = next((backend for backend in backends if isinstance(backend, TorchBackend)), None)
    if torch is None or all(backend.key == torch.key for backend in backends):
        return backends[0]
    return TorchBackend(torch.device)
