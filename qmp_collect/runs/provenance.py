"""Where a number came from: the command, commit, hardware and versions behind a run."""

from __future__ import annotations

import os
import platform
import shlex
import subprocess
import sys
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

_PACKAGES = ("qmp-collect", "numpy", "gymnasium", "mujoco", "torch")


def provenance() -> dict[str, Any]:
    """What to keep beside results so that others can repeat them; plain values, no paths but those of the command.

    Returns:
        ``command`` as typed; ``commit`` of the checkout that the program lies in and whether it was ``modified``
        (``None`` outside a checkout); ``cpu``, ``cores``, ``gpu``; ``versions`` of Python and of the packages used.
    """
    return {
        "command": shlex.join(["python", *sys.argv]),
        **_checkout(Path(sys.argv[0]).resolve().parent),
        "cpu": _cpu(),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "gpu": _gpu(),
        "versions": {"python": platform.python_version(), **_versions()},
    }


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
