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

_OWN = ("qmp_collect", "qmp_envs")
_GIT = ("GIT_DIR", "GIT_WORK_TREE", "GIT_INDEX_FILE", "GIT_COMMON_DIR", "GIT_PREFIX", "GIT_OBJECT_DIRECTORY")
_PACKAGES = ("qmp-collect", "numpy", "gymnasium", "mujoco", "torch")


# Said by whoever starts or resumes a run, never by its folder: where it lies, what code is imported for it, whether
# and to whom it is uploaded, and how many seeds are trained beside each other.
OF_THE_STARTER = (
    *("run_dir", "run_dir_root", "resume", "import_", "num_seeds"),
    *("track", "tracker", "wandb_project_name", "wandb_entity"),
)

# Settings that say who somebody is, or where on a machine something lies.
_PERSONAL = ("wandb_project_name", "wandb_entity")


def provenance(settings: Iterable[str] = ()) -> dict[str, Any]:
    """What to keep beside results so that others can repeat them; plain values, neither paths nor secrets.

    Args:
        settings: names of the program's settings. Of the command line, only their flags are kept.

    Returns:
        ``command``: the program and the flags of ``settings``, of a path only its last part; ``commit`` of the checkout
        that the program lies in and whether it was ``modified``, or is in no commit yet (both ``None`` outside a
        checkout); ``packages``, the same of those of this project that were imported from elsewhere; ``cpu``,
        ``cores``, ``gpu``; ``versions`` of Python and of the packages used.
    """
    return {
        "command": published(["python", *sys.argv], settings),
        **_sources(),
        "cpu": _cpu(),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "gpu": _gpu(),
        "versions": {"python": platform.python_version(), **_versions()},
    }


def published(command: Sequence[str], settings: Iterable[str]) -> str:
    """A command without paths and secrets: ``python PROGRAM`` and the flags of ``settings``, see `provenance`."""
    program, words = command[:2], list(command[2:])
    return shlex.join([*map(_last_part, program), *_known(words, {*settings, "num_seeds"})])


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


def _sources() -> dict[str, Any]:
    """What the program and this project's packages were made from. They need not lie in one checkout."""
    program = Path(sys.argv[0]).resolve()
    files = {
        name: Path(file).resolve()
        for name in _OWN
        if (file := getattr(sys.modules.get(name), "__file__", None)) is not None
    }
    root, own = _checkout(program)
    found = {name: _checkout(file) for name, file in files.items()}
    elsewhere = {name: made_from for name, (where, made_from) in found.items() if where != root}
    return {**own, **({"packages": elsewhere} if elsewhere else {})}


def _checkout(file: Path) -> tuple[str | None, dict[str, Any]]:
    """The root of the checkout that ``file`` lies in, its commit, and whether anything there is not in it.

    A folder that the checkout ignores, such as an environment with installed packages, is no part of it.
    """
    # Git's own variables, as a hook has them, may name another repository.
    environment = {name: value for name, value in os.environ.items() if name not in _GIT}

    def git(*words: str) -> str:
        return subprocess.run(
            ["git", "-C", str(file if file.is_dir() else file.parent), *words],
            capture_output=True, text=True, check=True, timeout=10, env=environment,
        ).stdout.strip()  # fmt: skip

    try:
        root, commit = git("rev-parse", "--show-toplevel"), git("rev-parse", "HEAD")
        untracked = not git("ls-files", "--", str(file))
        if untracked and git("status", "--porcelain", "--ignored", "--", str(file)).startswith("!!"):
            return None, {"commit": None, "modified": None}
        return root, {"commit": commit, "modified": untracked or bool(git("status", "--porcelain", "-uno"))}
    except (OSError, subprocess.SubprocessError):
        return None, {"commit": None, "modified": None}


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
