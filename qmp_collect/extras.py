"""Packages that only a part of this one needs: a missing one is named together with what installs it.

The command is right wherever this package was installed from, a checkout, a wheel or an index: pip takes the
installation that is there, and adds the extra's packages.
"""

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
        if command_for(extra) in str(error):
            raise
        raise ModuleNotFoundError(missing(error, extra), name=error.name) from error


def command_for(extra: str) -> str:
    """What installs an extra."""
    return f"pip install 'qmp-collect[{extra}]'"


def missing(error: ModuleNotFoundError, extra: str) -> str:
    """What to say of a package that an extra brings."""
    return f"{error}: {command_for(extra)} brings it"
