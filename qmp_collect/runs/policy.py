"""A trained policy as a file of its own, ``policy.safetensors``: parameters and settings."""

from __future__ import annotations

import inspect
import json
import os
import shlex
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, cast

import gymnasium as gym
import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from safetensors import SafetensorError, safe_open
from safetensors.torch import save

import qmp_envs
from qmp_collect.runs.checkpoint import atomic_file
from qmp_collect.runs.folder import folders_of_seeds
from qmp_collect.runs.forms import check_form
from qmp_collect.runs.scripts import load_script, scripts
from qmp_collect.runs.settings import RunArgs, checked_settings

FILE = "policy.safetensors"


class TrainedPolicy:
    """The policies of a run, one per task: ``policy(obs (N, *O), task_ids (N,)) -> mean actions (N, *A)``, in NumPy.

    ``evaluate(envs, policy)`` takes it as it is, and so does `QMPCollector` as ``own_policy``; `of_task` gives one
    task's policy, a candidate for other learners.

    Attributes:
        env_id: the task set that it was trained on.
        task_names: ``T`` names.
        script: the training script.
        settings: of the run.
        global_step: env steps of the run so far, summed over tasks.
        device: where it runs.
    """

    def __init__(self, mean_policy: Callable[..., Any], facts: Mapping[str, Any], device: torch.device) -> None:
        self._mean_policy = mean_policy
        self.env_id: str = facts["settings"]["env_id"]
        self.task_names: list[str] = facts["task_names"]
        self.script: str = facts["script"]
        self.settings: dict[str, Any] = facts["settings"]
        self.global_step: int = facts["global_step"]
        self.device = device

    def __call__(self, obs: ArrayLike, task_ids: ArrayLike) -> NDArray[np.float32]:
        """Mean actions; see the class.

        Raises:
            ValueError: A single observation instead of rows, or not one task id for each row.
            IndexError: A task id outside 0 to ``T - 1``.
        """
        rows, tasks = torch.as_tensor(np.asarray(obs, np.float32)), torch.as_tensor(np.asarray(task_ids))
        if rows.ndim != 2:
            raise ValueError(f"expected rows of observations, got shape {tuple(rows.shape)}; of one obs pass obs[None]")
        num_tasks, n = len(self.task_names), len(rows)
        if tasks.shape != (n,):
            raise ValueError(f"expected task_ids of shape ({n},), one for each row of obs, got {tuple(tasks.shape)}")
        if n and not 0 <= int(tasks.min()) <= int(tasks.max()) < num_tasks:
            raise IndexError(f"task_ids must be from 0 to {num_tasks - 1}, got {tasks.tolist()}")
        every = torch.arange(num_tasks, device=self.device).repeat(n)  # scripts' rows: i has task i mod T
        with torch.no_grad():
            actions = self._mean_policy(rows.to(self.device).repeat_interleave(num_tasks, 0), every)
        own = actions.unflatten(0, (n, num_tasks))[torch.arange(n), tasks]
        return cast(NDArray[np.float32], own.cpu().numpy())

    def of_task(self, task: int | str) -> Callable[[ArrayLike], NDArray[np.float32]]:
        """One task's policy, by its number or its name: ``(M, *O) -> (M, *A)``.

        Raises:
            IndexError: There is no such task.
        """
        numbers = {name: number for number, name in enumerate(self.task_names)}
        number = numbers.get(task, -1) if isinstance(task, str) else task
        if not 0 <= number < len(numbers):
            raise IndexError(f"there is no task {task!r}: expected one of {list(numbers)}, or its number from 0")
        return lambda obs: self(obs, np.full(len(np.asarray(obs)), number))

    def __repr__(self) -> str:
        return f"TrainedPolicy({self.env_id}, {self.script}, {self.global_step} steps)"


def save_policy(
    path: Path,
    parameters: Mapping[str, torch.Tensor],
    *,
    script: str,
    settings: Mapping[str, Any],
    task_names: Sequence[str],
    global_step: int,
) -> None:
    """Write what `load_policy` reads: ``parameters`` as in ``actor.state_dict()``, for any reader of safetensors."""
    facts = {"script": script, "settings": settings, "task_names": list(task_names), "global_step": global_step}
    tensors = {name: value.detach().contiguous().cpu() for name, value in parameters.items()}
    with atomic_file(path) as file:
        file.write(save(tensors, metadata={name: json.dumps(fact) for name, fact in facts.items()}))


def load_policy(
    path: str | os.PathLike[str],
    device: str | torch.device = "cpu",
    *,
    script: str | os.PathLike[str] | None = None,
) -> TrainedPolicy:
    """The trained policies of a run: of its folder, or of a copy of its ``policy.safetensors``.

    Nothing of the file is executed: the networks are those of the script of that name in this installation.

    Args:
        path: of the folder, or of the file.
        device: where the networks run.
        script: the file of the script that trained it, if it is one of your own; it is imported.

    Raises:
        OSError: There is no such file.
        ValueError: It is damaged, or of another version of its script.
    """
    given, device = Path(path), torch.device(device)
    path = given / FILE if given.is_dir() else given
    if not path.exists():
        if (folders := folders_of_seeds(path.parent)) != [path.parent]:
            raise FileNotFoundError(
                f"{path.parent}: it is the folder of several seeds: expected one of theirs, such as {folders[0]}"
            )
        raise FileNotFoundError(
            f"there is no {path}: expected the folder of a run, or the {FILE} that it writes with its first checkpoint"
        )
    try:
        with safe_open(path, framework="pt", device="cpu") as file:
            facts = {name: json.loads(fact) for name, fact in (file.metadata() or {}).items()}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (not a mapping)
        settings, script = facts["settings"], script_of(facts["script"], script, given)
        # Its form is compared before networks of the size that it claims are made.
        with torch.device("meta"):
            expected = build_agent(script, settings, torch.device("meta")).actor.state_dict()
        check_form(tensors, dict(expected), "policy")
        agent = build_agent(script, settings, device)
        names = list(qmp_envs.TASK_SETS[facts["settings"]["env_id"]].task_names)
        if facts["task_names"] != names or type(facts["global_step"]) is not int:
            raise ValueError(f"its tasks are {facts['task_names']!r:.80}, expected {names}; or its step is no number")
        actor: torch.nn.Module = agent.actor
        actor.load_state_dict(tensors)
        return TrainedPolicy(agent.mean_policy, facts, device)
    except (SafetensorError, ValueError, TypeError, LookupError, RecursionError) as error:
        raise ValueError(f"{path}: {error}") from error


def script_of(recorded: Any, given: str | os.PathLike[str] | None, path: Path) -> str | Path:
    """Which script a policy or a checkpoint is of: the file that its user gives, else the one of the recorded name.

    Raises:
        ValueError: There is none of that name, and none is given.
    """
    if given is not None:
        return Path(given)
    if recorded not in scripts():
        file = f"PATH/{Path(str(recorded)).name:.80}.py"
        raise ValueError(
            f"there is no script {recorded!r:.80} in this installation. If it is one of your own, say where it lies: "
            f"qmp enjoy {shlex.quote(str(path))} --script {shlex.quote(file)}, or load_policy(..., script={file!r})"
        )
    return str(recorded)


def build_agent(script: str | Path, settings: Mapping[str, Any], device: torch.device) -> Any:
    """The agent of a script, by its name or as a file of one's own, untrained, with these settings.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: There is no such script, it has no ``Args`` or ``Agent``, or the settings are not its.
    """
    module = load_script(script)
    if lacking := [name for name in ("Args", "Agent") if not hasattr(module, name)]:
        raise ValueError(f"{script} is no training script: it has no {' and no '.join(lacking)}")
    args: RunArgs = module.Args(**checked_settings(module.Args, settings, qmp_envs.TASK_SETS))
    with gym.make(args.env_id, task=0) as env:
        dims = {"obs_dim": env.observation_space.shape[0], "action_dim": env.action_space.shape[0]}  # type: ignore[index]
    given = {"args": args, "num_tasks": qmp_envs.TASK_SETS[args.env_id].num_tasks, "device": device, **dims}
    return module.Agent(**{name: given[name] for name in inspect.signature(module.Agent).parameters if name in given})
