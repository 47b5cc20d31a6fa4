"""Watch what a run has learned: ``python -m qmp_collect.runs enjoy RUN_DIR``.

Each task's own policy is evaluated with its mean actions; ``--gifs`` films an episode of each task. With ``--mixture``
the episodes filmed are those that training collects: the Q-switch chooses, and the frames are framed in the colour of
the policy that acts (as in the paper's figure 9b), as a GIF and as a strip of pictures.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import gymnasium as gym
import numpy as np
import torch
import tyro
from numpy.typing import NDArray

import qmp_envs
from qmp_collect import QMPCollector, QSwitch, evaluate
from qmp_collect.runs.checkpoint import load_checkpoint
from qmp_collect.runs.console import say
from qmp_collect.runs.folder import checked_name
from qmp_collect.runs.policy import build_agent, load_policy, script_of
from qmp_collect.runs.schedule import linear
from qmp_collect.runs.scripts import load_script
from qmp_collect.runs.settings import import_own
from qmp_collect.runs.video import check_filmable, save_task
from qmp_collect.runs.who_acted import Frame, WhoActed

_DIVERGENCE: dict[str, Any] = {"on_divergence": "end"}  # as in training


@dataclass
class Args:
    run_dir: Annotated[Path, tyro.conf.Positional]
    """folder of a run"""
    episodes: int = 10
    """evaluation episodes of each task"""
    gifs: bool = False
    """film an episode of each task"""
    mixture: bool = False
    """film episodes as training collects them, and show who acts"""
    out: Path | None = None
    """where the pictures go (default: RUN_DIR/enjoy)"""
    max_steps: int | None = None
    """with --mixture: frames are taken of so many steps at most (default: of the whole episode)"""
    speed: float = 1.0
    """with --mixture: how fast the films run, as a multiple of the environment's own time"""
    seed: int = 0
    """of the episodes"""
    device: str = "cpu"
    """where the networks run"""
    script: Path | None = None
    """file of the script that trained it, if it is one of your own: it is imported"""
    import_: Annotated[str | None, tyro.conf.arg(name="import", metavar="MODULE")] = None
    """module that registers the run's task set, if it is one of your own"""


def main(args: Args) -> None:
    """Print the table, and make the pictures that are asked for."""
    if args.import_ is not None:
        import_own(args.import_)
    policy = load_policy(args.run_dir, args.device, script=args.script)
    out = args.out or args.run_dir / "enjoy"
    if args.out is None and out.is_symlink():
        raise ValueError(f"{out} is a link to elsewhere: say with --out where pictures go")
    if args.gifs or args.mixture:
        check_filmable(policy.env_id)
    say(f"{policy}: {args.episodes} episodes of each task")
    envs = gym.make_vec(policy.env_id, num_envs=len(policy.task_names), **_DIVERGENCE)
    means = evaluate(envs, policy, episodes_per_env=args.episodes, seed=args.seed).episode_means()
    envs.close()
    for line in _table(policy.task_names, means):
        print(line)
    if args.gifs:
        for task, name in enumerate(policy.task_names):
            path = out / f"{checked_name(name)}.gif"
            save_task(policy, task, path, seed=args.seed)
            say(f"{path}")
    if args.mixture:
        chosen: dict[str, Any] = {name: getattr(args, name) for name in ("seed", "max_steps", "speed", "device")}
        for path in film_mixture(args.run_dir, out, script=args.script, **chosen):
            say(f"{path}")


def film_mixture(
    run_dir: Path,
    out: Path,
    *,
    seed: int,
    max_steps: int | None,
    speed: float = 1.0,
    device: str = "cpu",
    script: Path | None = None,
) -> list[Path]:
    """An episode of each task, collected as the run does at its present step: ``mixture_TASK.gif`` and ``.png``.

    Args:
        run_dir: of the run.
        out: folder of the pictures.
        seed: of the episodes.
        max_steps: frames are taken of so many steps at most; by default of whole episodes.
        speed: how fast the films run, as a multiple of the environment's own time.
        device: where the networks run.
        script: the file of the run's script, if it is one of your own.

    Raises:
        ValueError: The run's tasks act with their own policies only, or do so at its present step; or what lies there
            is no checkpoint of a run of this version; or no step is to be filmed.
    """
    if not 0 < speed < math.inf:
        raise ValueError(f"speed must be a positive number, got {speed}")
    if max_steps is not None and max_steps < 1:
        raise ValueError(f"max_steps must be 1 or more, got {max_steps}")
    saved = load_checkpoint(run_dir / "checkpoint.npz")
    try:
        run, step, learned = saved["run"], saved["collector"]["num_steps"], saved["agent"]
        which, where = script_of(run["script"], script, run_dir), torch.device(device)
        module, agent = load_script(which), build_agent(which, run["settings"], where)
    except (KeyError, TypeError) as error:
        raise ValueError(f"{run_dir}: its checkpoint is of another version, or of no run: {error!r}") from error
    args, task_set = module.Args(**run["settings"]), qmp_envs.TASK_SETS[run["settings"]["env_id"]]
    if getattr(args, "switch", "own") == "own":
        raise ValueError(f"{run_dir}: in this run every task acts with its own policy, there is no mixture to show")
    own_probability = _own_probability(args, task_set.num_tasks, step)
    if own_probability == 1.0:
        raise ValueError(f"{run_dir}: at step {step} only own policies act, there is no mixture to show yet")
    agent.load_state_dict(learned)
    switch = module.make_switch(args, agent, task_set) if hasattr(module, "make_switch") else QSwitch()
    names = task_set.task_names
    envs = gym.vector.SyncVectorEnv(
        [
            partial(gym.make, args.env_id, task=task, render_mode="rgb_array", **_DIVERGENCE)
            for task in range(len(names))
        ],
        autoreset_mode=gym.vector.AutoresetMode.SAME_STEP,
    )
    collector = QMPCollector(
        envs,
        agent.policies,
        agent.q_functions,
        task_ids=range(len(names)),
        switch=switch,
        candidate_mask=module.make_candidate_mask(args) if hasattr(module, "make_candidate_mask") else None,
        horizon=module.make_horizon(args) if hasattr(module, "make_horizon") else args.horizon,
        own_probability=own_probability,
        backend="torch",
        device=where,
        seed=seed,
    )
    with torch.random.fork_rng(devices=[where] if where.type == "cuda" else []):
        torch.manual_seed(seed)  # of what policies sample
        films = _film(envs, collector, names, seed, max_steps or task_set.horizon)
    fps, scene = envs.metadata.get("render_fps", 25), envs.envs[0].metadata.get("legend")
    envs.close()
    out.mkdir(parents=True, exist_ok=True)
    paths = []
    for task, (name, (frames, actors)) in enumerate(zip(names, films, strict=True)):
        # Not by with_suffix, which takes what follows a dot in the name for one.
        film, strip = (out / f"mixture_{checked_name(name)}.{kind}" for kind in ("gif", "png"))
        episode = WhoActed(task, names, frames, actors, scene)
        episode.save_gif(film, speed * fps)
        episode.save_strip(strip)
        paths += [film, strip]
    return paths


def _own_probability(args: Any, num_tasks: int, step: int) -> float:
    """At a step of the run, how often a decision is the own policy's without a question; 1 during the warm-up."""
    if step < args.warmup_rounds * num_tasks * args.env_steps_per_round:
        return 1.0
    return linear(args.own_probability, args.own_probability_final, args.total_timesteps)(step)


def _film(
    envs: gym.vector.SyncVectorEnv, collector: QMPCollector, names: Sequence[str], seed: int, max_steps: int
) -> list[tuple[list[Frame], list[int]]]:
    """Of each task's first episode: the frames before each step, and who acted in it."""
    films: list[tuple[list[Frame], list[int]]] = [([], []) for _ in names]
    running = np.ones(len(names), np.bool_)
    obs, _ = collector.reset(seed=seed)
    for _ in range(max_steps):
        for task in np.flatnonzero(running):
            films[task][0].append(np.asarray(envs.envs[task].render()))
        outcome = envs.step(collector.act(obs))
        obs, transitions = outcome[0], collector.observe(*outcome)
        for task, actor in zip(transitions.task_ids.tolist(), transitions.behavior_ids.tolist(), strict=True):
            if running[task]:
                films[task][1].append(actor)
        running[transitions.task_ids] &= ~(transitions.terminations | transitions.truncations)
        if not running.any():
            break
    return films


def _table(names: Sequence[str], means: dict[str, NDArray[np.float64]]) -> list[str]:
    """Aligned columns: a line for each task, and the mean over tasks."""
    head = ["task", *means]
    rows = [[name, *(f"{values[t]:.2f}" for values in means.values())] for t, name in enumerate(names)]
    rows.append(["mean", *(f"{values.mean():.2f}" for values in means.values())])
    widths = [max(len(row[column]) for row in (head, *rows)) for column in range(len(head))]
    lines = []
    for name, *cells in (head, *rows):
        numbers = (f"{cell:>{width}}" for cell, width in zip(cells, widths[1:], strict=True))
        lines.append("  ".join([f"{name:<{widths[0]}}", *numbers]))
    return lines
