"""A manifest: the runs of a plan, one JSON object a line."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any, Literal, get_args

from qmp_collect.runs.folder import checked_name
from qmp_collect.runs.scripts import did_you_mean

Device = Literal["cpu", "cuda"]


@dataclass(frozen=True)
class Run:
    """One run of a plan.

    Attributes:
        name: of this run alone, within the manifest.
        run_dir: its folder; in a manifest, relative to the manifest's.
        argv: the script, by its name or by its path in the checkout, and its flags.
        device: what it trains on.
        hours: that it is expected to take.
    """

    name: str
    run_dir: str
    argv: tuple[str, ...]
    device: Device
    hours: float

    @property
    def dir(self) -> Path:
        """Its folder."""
        return Path(self.run_dir)

    @property
    def script(self) -> Path:
        """Where it lies in the checkout."""
        given = Path(self.argv[0])
        return given if given.suffix == ".py" else Path("cleanrl_scripts", f"{given}.py")

    def beside(self, suffix: str) -> Path:
        """A file of the suite's about this run: beside its folder, which is the run's alone."""
        return self.dir.with_name(self.dir.name + suffix)

    def flag(self, name: str) -> str | None:
        """The value that the command gives this flag, the last one if there are several."""
        value = None
        for word, following in zip(self.argv, (*self.argv[1:], None), strict=True):
            flag, equals, given = word.partition("=")
            if flag.replace("_", "-") == name:
                value = given if equals else following
        return value


def dump(runs: Iterable[Run]) -> str:
    """The manifest of these runs."""
    return "".join(json.dumps(asdict(run)) + "\n" for run in runs)


def load(manifest: Path, root: Path | None = None) -> list[Run]:
    """The runs of a manifest, their folders found from here.

    Args:
        root: the checkout, if the runs are to be made: their scripts must be there, and know their task sets.

    Raises:
        ValueError: A line is no run, or none that can be made in ``root``; two runs have one name or one folder, or
            one's lies in another's.
    """
    runs = []
    for number, line in enumerate(manifest.read_text(encoding="utf-8").splitlines(), start=1):
        if line.strip():
            try:
                run = _run(json.loads(line))
                if root is not None:
                    _check_script(run, root)
            except (ValueError, TypeError) as error:
                raise ValueError(f"{manifest}: line {number} is no run: {error}") from error
            runs.append(replace(run, run_dir=str(manifest.parent / run.run_dir)))
    names = [run.name for run in runs]
    if twice := {name for name in names if names.count(name) > 1}:
        raise ValueError(f"{manifest}: two runs have the name {min(twice)}")
    folders: dict[Path, Run] = {}
    for run in runs:
        path = Path(os.path.abspath(run.dir))
        if other := folders.get(path):
            raise ValueError(f"{manifest}: two runs have the run_dir {run.run_dir}: {other.name} and {run.name}")
        folders[path] = run
    for path, run in folders.items():
        if other := next((folders[above] for above in path.parents if above in folders), None):
            raise ValueError(f"{manifest}: the run_dir of {run.name} lies in that of {other.name}")
    return runs


def _run(given: Any) -> Run:
    names = [field.name for field in fields(Run)]
    if not isinstance(given, dict) or set(given) != set(names):
        raise ValueError(f"expected an object with {', '.join(names)}")
    run = Run(**given | {"argv": _words(given["argv"])})
    if not isinstance(run.name, str) or not isinstance(run.run_dir, str) or not run.run_dir:
        raise ValueError("expected name and run_dir to be words")
    checked_name(run.name)
    if run.dir.name in ("", ".."):  # its log lies beside it, under its name
        raise ValueError(f"run_dir is {run.run_dir!r}, expected a folder with a name, such as {run.name!r}")
    for flag in ("--run-dir", "--resume"):
        if run.flag(flag) is not None or flag in run.argv:
            raise ValueError(f"argv has {flag}: the folder is said by run_dir")
    if run.device not in get_args(Device):
        raise ValueError(f"device is {run.device!r}, expected one of {', '.join(get_args(Device))}")
    if not isinstance(run.hours, int | float) or not 0 < run.hours < float("inf"):
        raise ValueError(f"hours is {run.hours!r}, expected a positive number")
    return run


def _check_script(run: Run, root: Path) -> None:
    """What can be said of a command without its script, whose flags cost an import of torch."""
    if not (root / run.script).is_file():
        known = sorted(path.stem for path in (root / "cleanrl_scripts").glob("*.py"))
        raise ValueError(f"there is no script {root / run.script}:{did_you_mean(run.argv[0], known)} expected {known}")
    env_id = run.flag("--env-id")
    if env_id is not None and run.script.parent.name == "cleanrl_scripts" and run.flag("--import") is None:
        # Here, since whoever only asks how far runs are, or hands them to a cluster, needs neither.
        import qmp_envs
        from qmp_collect.runs.settings import full_id

        full_id(env_id, list(qmp_envs.TASK_SETS))


def _words(argv: Any) -> tuple[str, ...]:
    if not isinstance(argv, Sequence) or isinstance(argv, str) or not argv or not all(isinstance(w, str) for w in argv):
        raise ValueError(f"argv is {argv!r:.80}, expected a list of words, a script first")
    return tuple(argv)
