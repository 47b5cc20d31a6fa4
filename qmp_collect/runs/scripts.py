"""Where the training scripts lie: in the checkout, or in the installed package."""

from __future__ import annotations

import difflib
import importlib.util
import sys
from pathlib import Path
from types import ModuleType

_PACKAGE = Path(__file__).parents[1]


def scripts() -> dict[str, Path]:
    """The training scripts by name. A checkout's come first: there they can be edited."""
    folders = (_PACKAGE.parent / "cleanrl_scripts", _PACKAGE / "scripts")
    folder = next((folder for folder in folders if folder.is_dir()), folders[1])
    return {path.stem: path for path in sorted(folder.glob("*.py"))}


def script_path(name: str) -> Path:
    """The file of a script.

    Raises:
        ValueError: There is none of that name.
    """
    known = scripts()
    if name not in known:
        close = difflib.get_close_matches(name, known, n=1)
        meant = f", did you mean {close[0]}?" if close else ":"
        raise ValueError(f"there is no script {name!r}{meant} expected one of {', '.join(known)}")
    return known[name]


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
