"""Modules that a run's numbers are sent to as they are made: Weights & Biases, or any that is used like it."""

from __future__ import annotations

import inspect
import json
import re
import uuid
from collections.abc import Mapping
from pathlib import Path
from typing import Any, final

from qmp_collect.extras import command_for
from qmp_collect.runs.checkpoint import atomic_file
from qmp_collect.runs.modules import named_module

_FUNCTIONS = ("init", "log", "finish")


def tracker_module(name: str) -> Any:
    """The module of this name, installed or in the current folder.

    Raises:
        ModuleNotFoundError: There is none.
        TypeError: It has no functions ``init``, ``log`` and ``finish``.
    """
    try:
        module = named_module(name)
    except ModuleNotFoundError as error:
        if error.name != "wandb":
            raise
        raise ModuleNotFoundError(
            f"wandb is not installed: {command_for('track')} brings it", name=error.name
        ) from error
    if lacking := [function for function in _FUNCTIONS if not callable(getattr(module, function, None))]:
        raise TypeError(
            f"{name}: expected a module with the functions init(project=, name=, config=), log(values, step=) and "
            f"finish(), got {module!r} without {' and '.join(lacking)}"
        )
    return module


@final
class Tracker:
    """One run at a tracker.

    The run's id there is drawn once and kept in ``RUN_DIR/tracker.json``: a resumed run goes on, and no two runs share
    one. It is told with the run's folder and ``resume="allow"`` to trackers whose ``init`` takes ``id``, ``dir`` and
    ``resume``; others know the run by its name.

    Args:
        module: name of the module, see `tracker_module`.
        run_dir: folder of the run.
        config: its settings, values that JSON can hold.
        project, entity: where to; ``entity`` only if it is given.
        name: of the run, the name of `run_dir` by default.

    Raises:
        ModuleNotFoundError, TypeError: see `tracker_module`.
        ValueError: if ``tracker.json`` is damaged.
    """

    def __init__(
        self,
        module: str,
        run_dir: Path,
        config: Mapping[str, Any],
        *,
        project: str | None = None,
        entity: str | None = None,
        name: str | None = None,
    ) -> None:
        self._module = tracker_module(module)
        options = {
            "project": project,
            "name": name or run_dir.resolve().name,
            "config": dict(config),
            **({} if entity is None else {"entity": entity}),
        }
        known = {"dir": str(run_dir), "id": _id(run_dir / "tracker.json"), "resume": "allow"}
        self._module.init(**options, **{key: known[key] for key in known if _takes(self._module.init, key)})
        self._knows_exit_codes = _takes(self._module.finish, "exit_code")
        self._own_axis = hasattr(self._module, "define_metric")
        if self._own_axis:
            # An own axis instead of wandb's step counter, which refuses the steps that a resumed run repeats.
            self._module.define_metric("*", step_metric="global_step")

    def log(self, step: int, values: Mapping[str, Any]) -> None:
        """Send values at a step."""
        if self._own_axis:
            self._module.log({"global_step": step, **values})
        else:
            self._module.log(dict(values), step=step)

    def log_media(self, step: int, tag: str, kind: str, content: Any) -> None:
        """Send what the module has a class for, such as ``Image``; left out if it has none of this name."""
        if (maker := getattr(self._module, kind, None)) is not None:
            self.log(step, {tag: maker(content)})

    def finish(self, failed: bool = False) -> None:
        """There is no more to come; of a run that ``failed``, trackers are told that know of exit codes."""
        if failed and self._knows_exit_codes:
            self._module.finish(exit_code=1)
        else:
            self._module.finish()


def _takes(function: Any, keyword: str) -> bool:
    parameters = inspect.signature(function).parameters
    return keyword in parameters or any(p.kind is p.VAR_KEYWORD for p in parameters.values())


def _id(kept: Path) -> str:
    if not kept.exists():
        with atomic_file(kept) as file:
            file.write((json.dumps({"id": uuid.uuid4().hex}) + "\n").encode())
    try:
        run_id = json.loads(kept.read_text(encoding="utf-8"))["id"]
        if not isinstance(run_id, str) or not re.fullmatch("[0-9a-f]{32}", run_id):
            raise ValueError(f"expected 32 hexadecimal digits, got {run_id!r:.80}")
    except (ValueError, LookupError, TypeError) as error:
        raise ValueError(f"{kept} does not hold the id that a tracker knows the run by: {error}") from error
    return run_id
