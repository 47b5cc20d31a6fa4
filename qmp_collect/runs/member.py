"""One seed of a training run: its folder, and what is written there besides the checkpoint."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from qmp_collect.runs.console import say
from qmp_collect.runs.folder import RunFolder
from qmp_collect.runs.logger import RunLogger
from qmp_collect.runs.policy import FILE as POLICY_FILE
from qmp_collect.runs.policy import TrainedPolicy, save_policy
from qmp_collect.runs.settings import RunArgs, of_the_run, tracker_of
from qmp_collect.runs.video import save_task
from qmp_collect.stats import CollectStats


class Member:
    """One seed of a run, which leaves what a run of its own would: settings, logs, policy, films.

    Args:
        folder: its own.
        args: settings of the run.
        seed: instead of that of ``args``.
        task_names: ``T`` names.
        script: name of the training script.

    Attributes:
        scalars: by tag, of the round that was collected, until `end_round` logs them.
        logger: once it is open.
    """

    def __init__(self, folder: RunFolder, args: RunArgs, seed: int, task_names: Sequence[str], script: str) -> None:
        self.folder, self.dir, self.seed = folder, folder.path, seed
        self._args, self._task_names, self._script = args, list(task_names), script
        self.scalars: dict[str, float] = {}
        self.logger: RunLogger

    @property
    def settings(self) -> dict[str, Any]:
        """What makes it what it is: those of a run of this seed alone."""
        return of_the_run(self._args) | {"seed": self.seed}

    def open(self, rows: int | None) -> RunLogger:
        """Begin to log; of a run that goes on, after so many rows.

        Raises:
            ValueError: Its log has fewer.
        """
        wandb = {"wandb_project": self._args.wandb_project_name, "wandb_entity": self._args.wandb_entity}
        track = {"track": tracker_of(self._args) or False, **wandb}
        self.logger = RunLogger(self.dir, self.settings, resume_rows=rows, **track)  # type: ignore[arg-type]
        return self.logger

    def evaluated(self, step: int, stats: CollectStats, mixture: NDArray[np.float64] | None) -> dict[str, float]:
        """Log an evaluation.

        Args:
            step: env steps so far.
            stats: of the evaluation.
            mixture: ``(T, K)`` who acted since the last one; ``None`` before there was a step.

        Returns:
            What was logged, by tag.
        """
        scalars, matrices = dict[str, float](), {}
        for name, per_task in stats.episode_means().items():
            scalars[f"eval/{name}"] = float(per_task.mean())
            scalars |= {f"eval/{task}/{name}": float(v) for task, v in zip(self._task_names, per_task, strict=True)}
        if mixture is not None:
            matrices["qmp/mixture"] = mixture
            self.logger.log_image(step, "qmp/mixture", _picture(mixture))
        self.logger.log(step, scalars, matrices)
        return scalars

    def collected(self, stats: CollectStats) -> None:
        """Take note of a round's env steps."""
        times = {"time/act": stats.act_time, "time/env": stats.env_time, "time/store": stats.store_time}
        self.scalars = stats.scalars(self._task_names) | times

    def end_round(
        self, step: int, losses: Mapping[str, torch.Tensor], values: Iterator[float], times: dict[str, float]
    ) -> None:
        """Log a round.

        Args:
            step: env steps so far.
            losses: by name, a number, or ``(T,)`` of each task; nothing in a round without gradient steps.
            values: those of the losses, one after the other, and of each task the share of the last batch that its
                own policy had collected, where there is a replay buffer.
            times: seconds, by tag.
        """
        for name, loss in losses.items():
            own = [next(values) for _ in range(loss.numel())]
            self.scalars[f"losses/{name}"] = sum(own) / len(own)
            if loss.ndim:
                self.scalars |= {f"tasks/{t}/{name}": v for t, v in zip(self._task_names, own, strict=True)}
        if shares := {t: v for t, v in zip(self._task_names, values, strict=False) if not math.isnan(v)}:
            self.scalars["replay/own_share"] = sum(shares.values()) / len(shares)
            self.scalars |= {f"tasks/{task}/own_share": share for task, share in shares.items()}
        self.logger.log(step, self.scalars | times)

    def film(self, step: int, mean_policy: Callable[..., Any], device: torch.device, stop: Callable[[], bool]) -> None:
        """An episode of each task, until ``stop`` says so."""
        policy = TrainedPolicy(mean_policy, self._facts(step), device)
        say(f"filming into {self.dir / 'videos'}")
        for task, name in enumerate(self._task_names):
            if stop():
                return
            path = self.dir / "videos" / f"{name}.gif"
            save_task(policy, task, path, seed=self.seed)
            self.logger.log_video(step, f"videos/{name}", path)

    def save_policy(self, step: int, actor: Mapping[str, torch.Tensor]) -> None:
        """Write the policy with these parameters, for `qmp_collect.runs.policy.load_policy`."""
        save_policy(self.dir / POLICY_FILE, actor, **self._facts(step))

    def _facts(self, step: int) -> dict[str, Any]:
        return {
            "script": self._script,
            "settings": self.settings,
            "task_names": self._task_names,
            "global_step": step,
        }


def _picture(mixture: NDArray[np.float64]) -> NDArray[np.uint8]:
    """A square for each entry of a ``(T, K)`` mixture, white for 0 to dark blue for 1."""
    image = 255 - np.nan_to_num(mixture)[..., None] * np.array([247, 207, 148])
    picture: NDArray[np.uint8] = image.astype(np.uint8).repeat(24, 0).repeat(24, 1)
    return picture
