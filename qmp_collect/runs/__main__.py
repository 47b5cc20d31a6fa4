"""``qmp COMMAND``, or ``python -m qmp_collect.runs COMMAND``: train, and look at what was trained.

qmp train first            a first run, of minutes; `qmp train` lists what else there is
qmp train SCRIPT [flags]   run a training script, e.g. `qmp train sac_qmp_separate --env-id Maze3`
qmp enjoy RUN_DIR          evaluate a trained policy, film it, show who acts
qmp plot [RUN_DIRS]        learning curves and mixtures of runs
qmp report [RUN_DIRS]      one page about runs: curves, statistics, who acted for whom, origins
qmp suite plan|run|...     many runs: on this machine or a cluster, stopped and continued
"""

from __future__ import annotations

import ast
import os
import runpy
import shlex
import sys
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path

from qmp_collect.extras import missing
from qmp_collect.runs.named import NAMED
from qmp_collect.runs.scripts import script_path, scripts

MODULES = {
    "enjoy": "qmp_collect.runs.enjoy",
    "plot": "qmp_collect.runs.plot",
    "report": "qmp_collect.runs.report.__main__",
    "suite": "qmp_collect.runs.suite.__main__",
}

# Which extra brings what a script may miss; modules of this package say it themselves.
EXTRAS = {
    **dict.fromkeys(("torch", "tyro", "tensorboard", "tqdm", "PIL", "safetensors"), "train"),
    **dict.fromkeys(("mujoco", "qmp_envs"), "envs"),
    **dict.fromkeys(("matplotlib", "scipy"), "report"),
    "metaworld": "metaworld",
    "gymnasium_robotics": "kitchen",
    "tensordict": "gpu",
    "wandb": "track",
}


def main(argv: Sequence[str] | None = None) -> None:
    """Run a command.

    Raises:
        SystemExit: There is no such command or script, or an extra is missing; or whatever the command ends with.
    """
    command, *rest = list(sys.argv[1:] if argv is None else argv) or ["--help"]
    try:
        if command in ("-h", "--help"):
            print(__doc__)
        elif command == "train":
            _train(rest)
        elif command in MODULES:
            _run(command, rest)
        else:
            raise SystemExit(f"qmp {command}: there is no such command\n{__doc__}")
        sys.stdout.flush()
    except BrokenPipeError:  # `qmp ... | head`: what is left to say goes nowhere
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        raise SystemExit(1) from None
    except ModuleNotFoundError as error:
        if "pip install" in str(error):
            raise SystemExit(str(error)) from error
        extra = EXTRAS.get(str(error.name).split(".")[0])
        if extra is None:
            raise
        raise SystemExit(missing(error, extra)) from error


def _run(command: str, rest: Sequence[str]) -> None:
    module = import_module(MODULES[command])
    if command == "suite":
        raise SystemExit(module.main(rest))
    import tyro

    args = tyro.cli(module.Args, prog=f"qmp {command}", description=module.__doc__, args=rest)
    try:
        module.main(args)
    except (OSError, ValueError) as error:
        raise SystemExit(f"qmp {command}: {error}") from error


def _train(rest: Sequence[str]) -> None:
    if not rest or rest[0] in ("-h", "--help"):
        print("qmp train SCRIPT [flags]; `qmp train SCRIPT --help` lists a script's flags\n")
        for name, path in scripts().items():
            print(f"  {name:20} {_first_line(path)}")
        print("\nqmp train NAME [flags]: a script with flags that make\n")
        for name, run in NAMED.items():
            print(f"  {name:20} {run.line}")
        return
    name, flags = rest[0], list(rest[1:])
    if name in NAMED:
        run = NAMED[name]
        if not any(flag.partition("=")[0] == "--resume" for flag in flags):  # a resumed run has its own settings
            flags = [*run.flags.split(), *flags]
        name = run.script
        print(f"{rest[0]}: {run.line}\nqmp train {shlex.join([name, *flags])}", flush=True)
    try:
        path = script_path(name, also=NAMED)
    except ValueError as error:
        raise SystemExit(f"qmp train: {error}") from error
    sys.argv = [str(path), *flags]
    runpy.run_path(str(path), run_name="__main__")


def _first_line(path: Path) -> str:
    return (ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or "").partition("\n")[0]


if __name__ == "__main__":
    main()
