"""Modules that a user names: installed ones, or files in the current folder."""

from __future__ import annotations

import importlib
import os
import sys
from types import ModuleType


def named_module(name: str) -> ModuleType:
    """Import a module by its name, from the current folder if it is nowhere else.

    Raises:
        ModuleNotFoundError: There is none. An error of the module's own passes through as it is.
    """
    if os.getcwd() not in sys.path:
        sys.path.append(os.getcwd())
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name is None or not f"{name}.".startswith(f"{error.name}."):
            raise
        raise ModuleNotFoundError(
            f"{name}: there is no such module, neither installed nor in {os.getcwd()} (a name as in an import "
            "statement, without .py)",
            name=name,
        ) from error
