"""The settings that all training scripts share, and how a command line becomes settings: presets, runs to resume."""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Literal, TypeVar

import tyro

ArgsT = TypeVar("ArgsT", bound="RunArgs")


@dataclass
class RunArgs:
    """Settings of every training script, CleanRL's first; a script adds those of its method."""

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
    wandb_project_name: str = "qmp"
    """Weights & Biases project"""
    wandb_entity: str | None = None
    """Weights & Biases entity (team)"""
    capture_video: bool = False
    """at the end, save one evaluation episode of each task as RUN_DIR/videos/TASK.gif"""

    # Run
    run_dir_root: str = "runs"
    """folder in which the run gets its own folder"""
    resume: str | None = None
    """folder of a run to continue with its own settings, of which only --total-timesteps may be changed"""
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
    ``total_timesteps`` may be changed.

    Args:
        args_class: A dataclass with the fields ``env_id``, ``resume`` and ``total_timesteps``, among others.
        presets: By environment id without version, the fields that differ from the class's defaults.
        env_ids: The known ids, with version. ``--env-id`` may leave out ``-v0``.
        argv: Default: the program's.

    Raises:
        SystemExit: With a message, for an unknown id or a change that a resumed run cannot have.
    """
    first = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    first.add_argument("--env-id", "--env_id", default=args_class.env_id)
    first.add_argument("--resume")
    given, _ = first.parse_known_args(argv)
    if given.resume is not None:
        return _resumed(args_class, Path(given.resume), argv)
    env_id = _full_id(given.env_id, list(env_ids))
    preset = {"env_id": env_id, **presets.get(env_id.split("-v")[0], {})}
    args = tyro.cli(args_class, default=args_class(**preset), args=argv)
    args.env_id = env_id
    return args


def _full_id(env_id: str, known: list[str]) -> str:
    for candidate in (env_id, f"{env_id}-v0"):
        if candidate in known:
            return candidate
    raise SystemExit(f"--env-id {env_id}: expected one of {', '.join(known)}")


def _resumed(args_class: type[ArgsT], run_dir: Path, argv: Sequence[str] | None) -> ArgsT:
    config = run_dir / "config.json"
    if not config.exists():
        raise SystemExit(f"--resume {run_dir}: there is no {config}, expected the folder of an earlier run")
    if not (run_dir / "checkpoint.npz").exists():
        raise SystemExit(f"--resume {run_dir}: it stopped before its first checkpoint, start it anew")
    saved = json.loads(config.read_text(encoding="utf-8"))
    if differ := saved.keys() ^ {field.name for field in fields(args_class)}:
        raise SystemExit(f"--resume {run_dir}: a run of another script or version, differing in {sorted(differ)}")
    default = args_class(**saved | {"resume": str(run_dir)})
    args = tyro.cli(args_class, default=default, args=argv)
    changed = [k for k, v in vars(args).items() if v != getattr(default, k) and k not in ("total_timesteps", "resume")]
    if changed:
        raise SystemExit(f"--resume continues with the settings in {config}: {', '.join(changed)} cannot be changed")
    return args
