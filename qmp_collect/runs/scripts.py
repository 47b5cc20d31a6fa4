"""Where the training scripts lie: in the checkout, in the installed package, or where their user says."""

from __future__ import annotations

import difflib
import importlib.util
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
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


def load_script(script: str | Path) -> ModuleType:
    """A script as a module: its settings and networks. Its training does not run.

    Args:
        script: the name of one of `scripts`; or a ``Path``, the file of one's own, which is executed. What a file says
            is a name, so a path is never taken from there.

    Raises:
        ValueError: There is none of that name.
        FileNotFoundError: There is no such file.
    """
    path = (script if isinstance(script, Path) else script_path(script)).resolve()
    if not path.is_file():
        raise FileNotFoundError(f"there is no script {script}")
    module_name = f"qmp_scripts.{path if isinstance(script, Path) else script}"
    if module_name not in sys.modules:
        spec = importlib.util.spec_from_file_location(module_name, path)
        if spec is None or spec.loader is None:
            raise ValueError(f"{script} is no script: expected a file of Python, NAME.py")
        module = importlib.util.module_from_spec(spec)
        sys.modules[module_name] = module  # where dataclasses look up their annotations
        try:
            with _first_on_path(path.parent):
                spec.loader.exec_module(module)
        except BaseException:
            del sys.modules[module_name]
            raise
    return sys.modules[module_name]


def own_script(settings: type) -> Path | None:
    """The file of the script whose settings these are; `None` if its name says it, or it is in no file."""
    file = getattr(sys.modules.get(settings.__module__), "__file__", None)
    if file is None or Path(file).resolve() in {path.resolve() for path in scripts().values()}:
        return None
    return Path(file)


@contextmanager
def _first_on_path(folder: Path) -> Iterator[None]:
    """As `python PATH` has it: a script imports what lies beside it."""
    sys.path.insert(0, str(folder))
    try:
        yield
    finally:
        sys.path.remove(str(folder))
