"""Errors of a caller's functions say which of them it was."""

from __future__ import annotations

from types import TracebackType
from typing import Any


class RaisedBy:
    """Around a call of a caller's function: what it raises gets a note, "raised by NAME, WHAT", and passes through.

    Costs next to nothing where nothing is raised: the note is written when it is needed.

    Args:
        name: of the argument that the function was given as.
        what: what else tells which one it is, or what it was called with: objects, of which the note has the `repr`.
    """

    __slots__ = ("_name", "_what")

    def __init__(self, name: str, *what: Any) -> None:
        self._name, self._what = name, what

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        if isinstance(error, Exception) and hasattr(error, "add_note"):  # Python 3.11
            error.add_note(", ".join([f"raised by {self._name}", *map(_told, self._what)]))


def _told(what: Any) -> str:
    """An array by its type and shape, in dicts and tuples too."""
    if isinstance(what, dict):
        return f"{{{', '.join(f'{key!r}: {_told(part)}' for key, part in what.items())}}}"
    if isinstance(what, tuple):
        return f"({', '.join(map(_told, what))})"
    return f"{what.dtype} {tuple(what.shape)}" if hasattr(what, "dtype") and hasattr(what, "shape") else repr(what)
