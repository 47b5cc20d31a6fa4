"""Callables and the arrays that they are given: each in the backend that it needs, converted once a step."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
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

    def of(self, rows: Shared, backend: Backend, count: int = 1) -> Any:
        """Some rows of the array, each ``count`` times in a row; a copy."""
        taken = self.on(backend)[rows.on(backend)]
        return taken if count == 1 else backend.repeat(taken, count)


class SharedParts:
    """As `Shared`, of observations that are a dict or tuple of arrays, nested or not."""

    def __init__(self, parts: dict[Any, Any] | tuple[Any, ...]) -> None:
        self._parts = parts

    def on(self, backend: Backend) -> Any:
        return self._each(lambda part: part.on(backend))

    def copy(self, backend: Backend) -> Any:
        return self._each(lambda part: part.copy(backend))

    def of(self, rows: Shared, backend: Backend, count: int = 1) -> Any:
        return self._each(lambda part: part.of(rows, backend, count))

    def _each(self, fn: Callable[[Any], Any]) -> Any:
        if isinstance(self._parts, tuple):
            return tuple(fn(part) for part in self._parts)
        return {key: fn(part) for key, part in self._parts.items()}


class Asked:
    """A callable, and the backend of what it is given: known from the start, or learned from its first call."""

    def __init__(self, name: str, fn: Callable[..., Any], backend: Backend | None, fallback: Backend | None) -> None:
        self._name, self._fn, self._backend, self._fallback = name, fn, backend, fallback

    def __call__(self, arguments: Callable[[Backend], tuple[Any, ...]]) -> Any:
        """Its answer to ``arguments``, which are made for its backend.

        What it raises has a note that says which callable it was, and of what arguments.
        """
        if self._backend is not None:
            return self._answer(arguments(self._backend))
        self._backend, answer = call_first(lambda backend: self._answer(arguments(backend)), self._fallback)
        return answer

    def _answer(self, arguments: tuple[Any, ...]) -> Any:
        try:
            return self._fn(*arguments)
        except Exception as error:
            given = ", ".join(f"{x.dtype} {tuple(x.shape)}" for x in arguments)
            error.add_note(f"raised by {self._name}, which was called with {given}")
            raise

    @property
    def known(self) -> Backend:
        assert self._backend is not None, "asked for the backend before the first call"
        return self._backend


def asking(groups: Mapping[str, Any], backend: str | None, device: Any) -> list[Any]:
    """Every callable of the named ``groups`` (one, a list, or ``None``) as `Asked`.

    Without ``backend`` and ``device``, a module is given torch arrays on its device and in its dtype, and any other
    callable what its first call accepts. With them, all are given what is named, modules still in their own dtype.
    """
    present = [group for group in groups.values() if group is not None]
    everything = [fn for group in present for fn in (group if isinstance(group, list) else [group])]
    named = None if backend is None and device is None else make_backend(backend or "torch", device)
    torch_allowed = backend in (None, "torch")
    of_modules = module_backend(everything, device) if torch_allowed else None
    default = named and (of_modules or named)

    def ask(name: str, fn: Any) -> Asked:
        own = module_backend([fn], device) if torch_allowed else None
        if own is not None and own.dtype is None:  # a module without parameters goes where the others are
            own = of_modules
        return Asked(name, fn, own or default, fallback=of_modules)

    def of_group(name: str, group: Any) -> Any:
        if isinstance(group, list):
            return [ask(f"{name}[{index}]", fn) for index, fn in enumerate(group)]
        return None if group is None else ask(name, group)

    return [of_group(name, group) for name, group in groups.items()]


def common(backends: Sequence[Backend]) -> Backend:
    """The backend in whose arrays answers from all of ``backends`` can stand side by side."""
    torch = next((backend for backend in backends if isinstance(backend, TorchBackend)), None)
    if torch is None or all(backend.key == torch.key for backend in backends):
        return backends[0]
    return TorchBackend(torch.device)
