"""Packages that only a part of this one needs: a missing one is named together with what installs it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def needs(extra: str) -> Iterator[None]:
    """Around imports of packages that ``pip install 'qmp-collect[extra]'`` brings.

    Raises:
        ModuleNotFoundError: One is missing, saying so.
    """
    try:
        yield
    except ModuleNotFoundError as error:
        command = f"pip install 'qmp-collect[{extra}]'"
        if command in str(error):
            raise
        raise ModuleNotFoundError(f"{error}: {command} brings it", name=error.name) from error
