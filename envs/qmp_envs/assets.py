"""Model files of other packages, and what MuJoCo's versions do differently with them."""

from __future__ import annotations

import importlib.util
import warnings
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import mujoco


def missing(env_id: str, package: str, command: str) -> ModuleNotFoundError:
    """The error that says what to install."""
    return ModuleNotFoundError(f"{env_id} is built on {package}, which is not installed: {command}", name=package)


def warn_of_other_physics(version: str) -> None:
    """For whoever has put a newer MuJoCo over the one that the requirements allow."""
    if tuple(map(int, version.split(".")[:2])) >= (3, 5):
        warnings.warn(
            f"MuJoCo {version} adds the margins of two geoms where 3.3 and 3.4 take the larger one, so that contacts "
            "begin earlier: with the same seed and actions, results are not those of the versions that this package "
            "was tried with: pip install 'mujoco<3.5'",
            stacklevel=2,
        )


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
