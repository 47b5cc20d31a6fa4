"""Model files of other packages, and what MuJoCo's versions do differently with them."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import mujoco


def missing(env_id: str, package: str, command: str) -> ModuleNotFoundError:
    """The error that says what to install."""
    return ModuleNotFoundError(f"{env_id} is built on {package}, which is not installed: {command}", name=package)


def package_folder(env_id: str, package: str, command: str) -> Path:
    """Where ``package`` is installed, found without importing it: that may take seconds, and register environments.

    Args:
        env_id: who needs it.
        command: what to type if it is not there.

    Raises:
        ModuleNotFoundError: it is not installed.
    """
    spec = importlib.util.find_spec(package)
    if spec is None or not spec.submodule_search_locations:
        raise missing(env_id, package, command)
    return Path(spec.submodule_search_locations[0])


def delete(spec: mujoco.MjSpec, elements: Iterable[Any]) -> None:
    """Remove elements from a spec; MuJoCo moved this method from the elements to the spec within its versions 3.3."""
    for element in list(elements):
        (spec.delete if hasattr(spec, "delete") else type(element).delete)(element)
