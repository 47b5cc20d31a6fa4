"""Where a number came from: the command, commit, hardware and versions behind a run."""

from __future__ import annotations

import os
import platform
import shlex
import subprocess
import sys
from collections.abc import Iterable, Iterator, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

_PACKAGES = ("qmp-collect", "numpy", "gymnasium", "mujoco", "torch")


# Settings that say who somebody is, or where on a machine something lies.
_PERSONAL = ("wandb_project_name", "wandb_entity")


def provenance(settings: Iterable[str] = ()) -> dict[str, Any]:
    """What to keep beside results so that others can repeat them; plain values, neither paths nor secrets.

    Args:
        settings: names of the program's settings. Of the command line, only their flags are kept.

    Returns:
        ``command``: the program and the flags of ``settings``, of a path only its last part; ``commit`` of the checkout
        that the program lies in and whether it was ``modified`` (``None`` outside a checkout); ``cpu``, ``cores``,
        ``gpu``; ``versions`` of Python and of the packages used.
    """
    return {
        "command": published(["python", *sys.argv], settings),
        **_checkout(Path(sys.argv[0]).resolve().parent),
        "cpu": _cpu(),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "gpu": _gpu(),
        "versions": {"python": platform.python_version(), **_versions()},
    }


def published(command: Sequence[str], settings: Iterable[str]) -> str:
    """A command without paths and secrets: ``python PROGRAM`` and the flags of ``settings``, see `provenance`."""
    program, words = command[:2], list(command[2:])
    return shlex.join([*map(_last_part, program), *_known(words, set(settings))])


def _known(words: list[str], settings: set[str]) -> Iterator[str]:
    """The flags of ``settings`` and their values; what follows any other flag is left out with it."""
    kept = False
    for word in words:
        flag, equals, value = word.partition("=")
        if flag.startswith("--"):
            name = flag[2:].replace("-", "_")
            kept = {name, name.removeprefix("no_")} & (settings - set(_PERSONAL)) != set()
            if kept:
                yield flag + equals + _last_part(value)
        elif kept:
            yield _last_part(word)


def _last_part(value: str) -> str:
    return value.rstrip("/\\").replace("\\", "/").rpartition("/")[2]


def _checkout(folder: Path) -> dict[str, Any]:
    def git(*words: str) -> str:
        return subprocess.run(
            ["git", "-C", str(folder), *words], capture_output=True, text=True, check=True, timeout=10
        ).stdout.strip()

    try:
        return {"commit": git("rev-parse", "HEAD"), "modified": bool(git("status", "--porcelain", "-uno"))}
    except (OSError, subprocess.SubprocessError):
        return {"commit": None, "modified": None}


def _cpu() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()


def _gpu() -> str | None:
    torch = sys.modules.get("torch")
    return torch.cuda.get_device_name() if torch is not None and torch.cuda.is_available() else None


def _versions() -> dict[str, str]:
    found = {}
    for package in _PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found
