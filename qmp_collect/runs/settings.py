"""The settings that all training scripts share, and how a command line becomes settings: presets, runs to resume."""

from __future__ import annotations

import argparse
import json
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, TypeVar, get_args, get_origin, get_type_hints

import gymnasium as gym

import qmp_envs
from qmp_collect.extras import needs
from qmp_collect.runs.console import say
from qmp_collect.runs.folder import finished, folders_of_seeds
from qmp_collect.runs.modules import named_module
from qmp_collect.runs.provenance import OF_THE_STARTER
from qmp_collect.runs.ranges import check_ranges
from qmp_collect.runs.scripts import did_you_mean
from qmp_collect.runs.tracker import tracker_module

with needs("train"):
    import tyro

ArgsT = TypeVar("ArgsT", bound="RunArgs")


@dataclass
class RunArgs:
    """Settings of every training script, CleanRL's first; a script adds those of its method."""

    # Those of which 0 leaves the value to the run, which decides when it starts.
    LEFT_OPEN: ClassVar[tuple[str, ...]] = ("checkpoint_every", "eval_every", "eval_envs_per_task")

    exp_name: str = "run"
    """name of the experiment, part of the run's name"""
    seed: int = 1
    """seed of networks, environments, replay and switch"""
    torch_deterministic: bool = True
    """ask cuDNN for deterministic algorithms"""
    cuda: bool = True
    """train on the GPU if there is one"""
    track: bool = False
    """also log to Weights & Biases"""
    tracker: Annotated[str | None, tyro.conf.arg(metavar="MODULE")] = None
    """also log to this module, used like wandb: init(project=, name=, config=), log(values, step=), finish()"""
    wandb_project_name: str = "qmp"
    """Weights & Biases project, or another tracker's"""
    wandb_entity: str | None = None
    """Weights & Biases entity (team)"""
    capture_video: bool = False
    """with each checkpoint and at the end, film an evaluation episode of each task, as RUN_DIR/videos/TASK.gif and for
    TensorBoard and Weights & Biases"""

    # Run
    run_dir_root: str = "runs"
    """folder in which the run gets its own folder"""
    run_dir: str | None = None
    """the run's own folder: the same command starts a run in it, continues one that was stopped or killed, and does
    nothing if it is finished"""
    resume: str | None = None
    """folder of a run to continue with its own settings, of which only --total-timesteps may be changed; where to track
    it is said anew"""
    checkpoint_every: int = 0
    """env steps between checkpoints (0: a twentieth of the run)"""
    eval_every: int = 0
    """env steps between evaluations (0: a hundredth of the run)"""
    eval_episodes: int = 10
    """evaluation episodes of each task"""
    eval_envs_per_task: int = 0
    """parallel evaluation environments of each task, a divisor of --eval-episodes (0: one per episode)"""
    torch_threads: int = 0
    """CPU threads of torch (0: as torch decides)"""
    matmul_precision: Literal["auto", "highest", "high", "medium"] = "auto"
    """torch.set_float32_matmul_precision (auto: the fastest that really computes in float32)"""
    compile: bool = False
    """use torch.compile"""
    cudagraphs: bool = False
    """record updates and acting as CUDA graphs (needs a GPU and tensordict)"""

    env_id: str = "Maze10-v0"
    """task set"""
    import_: Annotated[str | None, tyro.conf.arg(name="import", metavar="MODULE")] = None
    """module that registers a task set of your own for --env-id; looked for in the current folder, too"""
    total_timesteps: int = 12_000_000
    """env steps of the run, summed over tasks like every other count of env steps"""


def parse_args(
    args_class: type[ArgsT],
    presets: Mapping[str, Mapping[str, Any]],
    env_ids: Iterable[str],
    argv: Sequence[str] | None = None,
) -> ArgsT:
    """The command line on top of the preset of ``--env-id`` or, with ``--resume RUN_DIR``, of that run's settings.

    So ``--help`` shows the values that a run would use, and any flag overrides them. Of a resumed run only
    ``total_timesteps`` may be changed; what is `OF_THE_STARTER` is not taken from its folder. With ``--run-dir`` the
    settings are the command line's alone, and must be those of the run that the folder holds, if it does: of that
    run, ``resume`` is set then.

    Args:
        args_class: A dataclass with the fields ``env_id``, ``resume`` and ``total_timesteps``, among others.
        presets: By environment id without version, the fields that differ from the class's defaults.
        env_ids: The known ids, with version, asked after the module of ``--import``. ``--env-id`` may leave out
            ``-v0``.
        argv: Default: the program's.

    Raises:
        SystemExit: With a message, for an unknown id, a number that cannot be meant, a damaged ``config.json`` or a
            change that a resumed run cannot have; with code 0, for a run that is finished.
    """
    first = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    first.add_argument("--env-id", "--env_id", default=args_class.env_id)
    first.add_argument("--resume")
    first.add_argument("--run-dir", "--run_dir")
    first.add_argument("--import", dest="module")
    given, _ = first.parse_known_args(argv)
    if given.resume is not None and given.run_dir is not None:
        raise SystemExit("--resume takes a run's settings from its folder, --run-dir from here: give one of them")
    if given.module is not None:
        import_own(given.module)
    if given.resume is not None:
        return _resumed(args_class, _folder("--resume", given.resume), list(env_ids), argv)
    env_id = _full_id(given.env_id, list(env_ids))
    preset = {"env_id": env_id, **presets.get(env_id.split("-v")[0], {})}
    args = tyro.cli(args_class, default=args_class(**preset), args=argv)
    args.env_id = env_id
    _check_ranges(args)
    if args.run_dir is not None:
        _continue(args, _folder("--run-dir", args.run_dir), list(env_ids))
    return args


def _folder(flag: str, folder: str) -> Path:
    """A folder, there or not; `SystemExit` if one may not look into it, or its name is too long."""
    try:
        os.stat(Path(folder, "config.json"))  # which raises; whether Path.exists does hangs on Python's version
    except (FileNotFoundError, NotADirectoryError):
        pass
    except OSError as error:
        raise SystemExit(f"{flag} {folder}: {error.strerror or error}") from error
    return Path(folder)


def import_own(module: str) -> None:
    """Import a module of one's own, from the current folder if it is nowhere else: it registers task sets.

    Raises:
        SystemExit: There is no such module.
    """
    try:
        named_module(module)
    except ModuleNotFoundError as error:
        if error.name != module:
            raise
        raise SystemExit(f"--import {error}") from error


def _check_ranges(args: RunArgs) -> None:
    try:
        check_ranges(vars(args))
    except ValueError as error:
        raise SystemExit(str(error)) from error


def tracker_of(args: RunArgs) -> str | None:
    """Name of the module that the run is sent to."""
    return args.tracker or ("wandb" if args.track else None)


def check_tracker(args: RunArgs) -> None:
    """Refuse a module that the run could not be sent to.

    Raises:
        SystemExit: There is no such module, or it is no tracker. What it misses itself passes through.
    """
    if (tracker := tracker_of(args)) is None:
        return
    try:
        tracker_module(tracker)
    except (ModuleNotFoundError, TypeError) as error:
        if getattr(error, "name", tracker) != tracker:
            raise
        raise SystemExit(f"--tracker {error}") from error


def full_id(env_id: str, known: Sequence[str]) -> str:
    """The id among ``known`` that is meant, which may be given without its version.

    Raises:
        ValueError: There is none.
    """
    ids = (env_id, f"{env_id}-v0")
    for candidate in ids:
        if candidate in known:
            return candidate
    if plain := [name for name in ids if name in gym.registry and name not in qmp_envs.TASK_SETS]:
        raise ValueError(
            f"--env-id {env_id}: {plain[0]} is registered with Gymnasium alone, which does not say what its tasks are: "
            "write qmp_envs.register(task_set, vector_class), or register_envs(task_set, constructors) for single "
            "environments, instead of gymnasium.register (docs/guides/task_set.md)"
        )
    raise ValueError(
        f"--env-id {env_id}:{did_you_mean(env_id, [name.removesuffix('-v0') for name in known])} expected one of "
        f"{', '.join(known)}; or --import the module that registers one of your own"
    )


def _full_id(env_id: str, known: list[str]) -> str:
    try:
        return full_id(env_id, known)
    except ValueError as error:
        raise SystemExit(str(error)) from error


def of_the_run(args: RunArgs) -> dict[str, Any]:
    """What makes the run what it is: all settings but those `OF_THE_STARTER`."""
    return {name: value for name, value in vars(args).items() if name not in OF_THE_STARTER}


def num_seeds(args: RunArgs) -> int:
    """How many seeds one process trains, from ``args.seed`` on: one, unless the script has a setting for it."""
    return int(getattr(args, "num_seeds", 1))


def _resumed(args_class: type[ArgsT], run_dir: Path, env_ids: list[str], argv: Sequence[str] | None) -> ArgsT:
    folders = folders_of_seeds(run_dir)
    config = folders[0] / "config.json"
    if not config.is_file():
        raise SystemExit(f"--resume {run_dir}: there is no {config}, expected the folder of an earlier run")
    if not (run_dir / "checkpoint.npz").exists():
        raise SystemExit(f"--resume {run_dir}: it stopped before its first checkpoint, start it anew")
    beside: dict[str, Any] = {"num_seeds": len(folders)} if len(folders) > 1 else {}
    default = args_class(**_read(args_class, config, env_ids), **beside, resume=str(run_dir))
    args = tyro.cli(args_class, default=default, args=argv)
    args.env_id = _full_id(args.env_id, env_ids)
    _check_ranges(args)
    may_change = {"total_timesteps", *OF_THE_STARTER} - {"num_seeds"}
    changed = [k for k, v in vars(args).items() if v != getattr(default, k) and k not in may_change]
    if changed:
        raise SystemExit(f"--resume continues with the settings in {config}: {', '.join(changed)} cannot be changed")
    _end_if_finished(args, run_dir)
    return args


def _continue(args: RunArgs, run_dir: Path, env_ids: list[str]) -> None:
    """Have ``args`` resume the run in this folder, if it has come to a checkpoint."""
    done, checkpoint = finished(run_dir), (run_dir / "checkpoint.npz").exists()
    if not done and not checkpoint:
        return
    folders = folders_of_seeds(run_dir)
    saved = _read(type(args), folders[0] / "config.json", env_ids) | {"num_seeds": len(folders)}
    for name in args.LEFT_OPEN:
        setattr(args, name, getattr(args, name) or saved[name])
    now = of_the_run(args) | {"num_seeds": num_seeds(args)}
    if differ := [k for k, v in now.items() if v != saved[k] and k != "total_timesteps"]:
        said = ", ".join(f"{name} {saved[name]} and now {now[name]}" for name in differ)
        raise SystemExit(f"--run-dir {run_dir}: it holds a run with {said}")
    _end_if_finished(args, run_dir)
    if not checkpoint:
        raise SystemExit(
            f"--run-dir {run_dir}: it holds a run of {saved['total_timesteps']} steps, finished and without a "
            f"checkpoint, which cannot become one of {args.total_timesteps}"
        )
    args.resume = str(run_dir)


def _end_if_finished(args: RunArgs, run_dir: Path) -> None:
    if (done := finished(run_dir)) and done.get("total_timesteps") == args.total_timesteps:
        say(f"{run_dir} is finished: nothing to do (a larger --total-timesteps makes it longer)")
        raise SystemExit(0)


def _read(args_class: type[RunArgs], config: Path, env_ids: list[str]) -> dict[str, Any]:
    """The settings in ``config.json``, each of the kind that the script expects."""
    try:
        saved = json.loads(config.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise SystemExit(f"{config} is damaged: {error}") from error
    try:
        return checked_settings(args_class, saved, env_ids)
    except ValueError as error:
        raise SystemExit(f"{config}: {error}") from error


def checked_settings(args_class: type[RunArgs], saved: Mapping[str, Any], env_ids: Iterable[str]) -> dict[str, Any]:
    """Settings that were saved by a run, each of the kind and in the range that the script expects.

    Raises:
        ValueError: They are not those of this script.
    """
    if not isinstance(saved, Mapping):
        raise ValueError(f"damaged: expected an object, got {type(saved).__name__}")
    expected = {field.name for field in fields(args_class)} - set(OF_THE_STARTER)
    if differ := saved.keys() ^ expected:
        made_by = f"; it is one of {saved['exp_name']!r:.80}" if "exp_name" in saved else ""
        raise ValueError(f"a run of another script or version, differing in {sorted(differ)}{made_by}")
    hints = get_type_hints(args_class)
    for name, value in saved.items():
        if not _fits(value, hints[name]):
            raise ValueError(f"damaged: {name} is {value!r:.80}, expected {hints[name]}")
    if saved["env_id"] not in env_ids:
        raise ValueError(
            f"env_id is {saved['env_id']!r:.80}, expected one of {', '.join(env_ids)}; if it is one of your own, "
            "import the module that registers it first (--import MODULE)"
        )
    check_ranges(saved)
    return dict(saved)


def _fits(value: Any, hint: Any) -> bool:
    """Whether a value that JSON held is one of a field with this annotation."""
    if get_origin(hint) is Literal:
        return any(type(value) is type(choice) and value == choice for choice in get_args(hint))
    if get_args(hint):
        return any(_fits(value, choice) for choice in get_args(hint))
    return type(value) is hint or (hint is float and type(value) is int)
