"""Where the training scripts lie: in the checkout, or in the installed package."""

from __future__ import annotations

import difflib
import importlib.util
import sys
from collections.abc import Iterable
from pathlib import Path
from types import ModuleType

_PACKAGE = Path(__file__).parents[1]


def scripts() -> dict[str, Path]:
    """The training scripts by name. A checkout's come first: there they can be edited."""
    folders = (_PACKAGE.parent / "cleanrl_scripts", _PACKAGE / "scripts")
    folder = next((folder for folder in folders if folder.is_dir()), folders[1])
    return {path.stem: path for path in sorted(folder.glob("*.py"))}


def script_path(name: str, also: Iterable[str] = ()) -> Path:
    """The file of a script.

    Args:
        also: other names that would do in its place, for the message.

    Raises:
        ValueError: There is none of that name.
    """
    known = scripts()
    if name not in known:
        names = [*also, *known]
        raise ValueError(
            f"there is no script {name!r}:{did_you_mean(name, names)} expected one of {', '.join(names)}. A script of "
            "your own is started by `python PATH`, and known by its name if it lies in cleanrl_scripts/"
        )
    return known[name]


def did_you_mean(given: str, known: Iterable[str]) -> str:
    """`` did you mean Maze10?``, for a message to go on with; empty if nothing known is close to what was given."""
    names = {name.lower(): name for name in known}
    close = difflib.get_close_matches(given.lower(), names, n=1)
    return f" did you mean {names[close[0]]}?" if close else ""


def load_script(name: str) -> ModuleType:
    """A script as a module: its settings and networks. Its training does not run.

    Raises:
        ValueError: There is none of that name.
    """
    path, module_name = script_path(name), f"qmp_scripts.{name}"
    if module_name not in sys.modules:
        spec = importlib.util.spec_from_file_location(module_name, path)
        assert spec is not None
        assert spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        sys.modules[module_name] = module  # where dataclasses look up their annotations
        try:
            spec.loader.exec_module(module)
        except BaseException:
            del sys.modules[module_name]
            raise
    return sys.modules[module_name]
