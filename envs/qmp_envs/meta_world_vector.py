"""N Meta-World tasks at once: Gymnasium's vector environments, made as hard to break as those of this package."""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from multiprocessing import connection, util
from typing import Any, ClassVar, TypeAlias

import gymnasium as gym
import numpy as np
import numpy.typing as npt
from gymnasium.vector import AsyncVectorEnv, AutoresetMode, SyncVectorEnv
from gymnasium.vector.async_vector_env import AsyncState, _async_worker

from qmp_envs.arguments import (
    OnDivergence,
    Renderer,
    assign_tasks,
    check_modes,
    check_same_tasks,
    checked_mask,
    checked_seeds,
    diverged,
)
from qmp_envs.meta_world import META_WORLD, MetaWorldEnv
from qmp_envs.task_set import Array, OfTaskSet, Reduction

# observations (N, 39), rewards (N,), terminations (N,), truncations (N,), infos
Step: TypeAlias = tuple[Array, Array, Array, Array, dict[str, Any]]


def _worker(*args: Any) -> None:
    """Gymnasium's worker, but it leaves being stopped to the main process, which may want to save before it ends."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    if sys.platform != "win32":
        os.setpgrp()  # so does SIGTERM where it is sent to the group of the main process, as by `timeout`
    # A scheduler may send SIGTERM to every process; the main one needs this one to save. It is killed when that ends.
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    _async_worker(*args)


def _kill(processes: Sequence[Any]) -> None:
    for process in processes:
        if process.is_alive():
            process.kill()


class _MetaWorldVectorEnv(OfTaskSet, gym.vector.VectorEnv[Array, Array, Array]):
    """What `MetaWorldSyncVectorEnv` and `MetaWorldAsyncVectorEnv` add to Gymnasium's classes.

    Whatever can be refused is refused before any sub-environment hears of it, and a step in which one diverges is
    undone in all others: Gymnasium's classes would have stepped some of them, and ended the processes of the rest.
    """

    _vector_kwargs: ClassVar[dict[str, Any]] = {}

    def __init__(
        self,
        env_id: str,
        num_envs: int = 1,
        *,
        task_ids: Sequence[int] | npt.NDArray[np.integer[Any]] | None = None,
        autoreset_mode: AutoresetMode | str = AutoresetMode.NEXT_STEP,
        on_divergence: OnDivergence = "raise",
        render_mode: str | None = None,
        renderer: Renderer = "numpy",
        **kwargs: Any,
    ) -> None:
        if env_id not in META_WORLD:
            raise ValueError(f"env_id must be one of {list(META_WORLD)}, got {env_id!r}")
        check_modes(render_mode, on_divergence, renderer)
        self.task_set = META_WORLD[env_id]
        self.task_ids = assign_tasks(self.task_set, num_envs, task_ids)
        self.on_divergence = on_divergence
        mode = AutoresetMode(autoreset_mode)
        make = partial(
            MetaWorldEnv,
            env_id,
            on_divergence="end",  # told here; what is to be raised is raised by this class
            autoreset=mode is AutoresetMode.NEXT_STEP,
            render_mode=render_mode,
            renderer=renderer,
            **kwargs,
        )
        env_fns: list[Callable[[], MetaWorldEnv]] = [partial(make, int(task)) for task in self.task_ids]
        self._started = False  # reset for the first time
        self._finished, self._diverged = np.zeros((2, num_envs), dtype=np.bool_)  # and not reset since
        super().__init__(env_fns, autoreset_mode=mode, **self._vector_kwargs)  # type: ignore[call-arg]

    @property
    def episode_metrics(self) -> Mapping[str, Reduction]:
        """What else than return, length and success to report of episodes: key in ``infos`` -> reduction."""
        ended: dict[str, Reduction] = {"diverged": "any"} if self.on_divergence == "end" else {}
        return {**self.task_set.episode_metrics, **ended}

    def get_state(self) -> dict[str, Any]:
        """Everything that the future depends on; see `MetaWorldEnv.get_state`."""
        return {
            "env_id": self.task_set.env_id,
            "task_ids": self.task_ids.copy(),
            "envs": list(self.call("get_state")),  # type: ignore[attr-defined]
        }

    def set_state(self, state: Mapping[str, Any]) -> None:
        """Restore what `get_state` returned.

        Raises:
            ValueError: the state is of another task set, or of sub-environments with other tasks.
        """
        check_same_tasks(self.task_set, self.task_ids, state)
        self.reset()  # Gymnasium forgets whose turn it is to be reset; the sub-environments know from here on
        self.set_attr("state", list(state["envs"]))  # type: ignore[attr-defined]
        self._started = all(env["goals_seed"] is not None for env in state["envs"])
        for i, env in enumerate(state["envs"]):
            self._finished[i], self._diverged[i] = env["finished"], env.get("diverged", False)

    # ------------------------------------------------------------------ around Gymnasium's reset and step

    def _before_reset(self, seed: Any, options: Mapping[str, Any] | None) -> dict[str, Any]:
        """Arguments for Gymnasium's ``reset``, which takes the mask out of the caller's dictionary."""
        mask, seeds = checked_mask(options, self.num_envs), checked_seeds(seed, self.num_envs)
        if not self._started and not mask.all():
            raise RuntimeError("the first reset must be a full one, without 'reset_mask'")
        self._mask = mask.copy()
        others = {key: value for key, value in (options or {}).items() if key != "reset_mask"}
        return {"seed": seeds, "options": others if mask.all() else others | {"reset_mask": mask}}

    def _after_reset(self, result: tuple[Array, dict[str, Any]]) -> tuple[Array, dict[str, Any]]:
        self._started = True
        self._finished[self._mask] = self._diverged[self._mask] = False
        self._take_divergence(result[1])
        return result

    def _before_step(self, actions: Any) -> npt.NDArray[np.float32]:
        """Checked actions (N, 4)."""
        checked = np.asarray(actions, dtype=np.float32)
        if checked.shape != (self.num_envs, 4):
            raise ValueError(f"actions must have shape {(self.num_envs, 4)}, got {checked.shape}")
        if not self._started:
            raise RuntimeError("step() before the first reset(): call reset() first")
        for what, rows in (("diverged", self._diverged), ("finished", self._finished)):
            if rows.any() and (what == "diverged" or self._mode is AutoresetMode.DISABLED):
                raise RuntimeError(
                    f"sub-environments {np.flatnonzero(rows).tolist()} have {what}: reset them first, with "
                    "reset(options={'reset_mask': mask}), a bool array that is True for them"
                )
        bad = np.isnan(checked).any(axis=1) & ~self._finished
        if bad.any():
            i = int(bad.argmax())
            raise ValueError(f"actions must not be NaN: got {checked[i]} for {self._where(i)}")
        return checked

    def _after_step(self, result: Step) -> Step:
        _, _, terminations, truncations, infos = result
        lost = self._take_divergence(infos)
        if self.on_divergence == "raise" and lost.any():
            states = [state | {"diverged": bool(d)} for state, d in zip(self._call("before"), lost, strict=True)]
            self.set_state({"env_id": self.task_set.env_id, "task_ids": self.task_ids, "envs": states})
            i = int(lost.argmax())
            raise FloatingPointError(diverged(self._where(i, states[i]["elapsed"])))
        if self._mode is not AutoresetMode.SAME_STEP:
            self._finished = terminations | truncations
        return result

    def _take_divergence(self, infos: dict[str, Any]) -> npt.NDArray[np.bool_]:
        """Which sub-environments tell that they diverged (N,); not told on, unless that was asked for."""
        lost = np.zeros(self.num_envs, dtype=np.bool_)
        for told in (infos, infos.get("final_info", {})):
            if "diverged" in told:
                lost |= told["diverged"]
                if self.on_divergence == "raise":
                    del told["diverged"], told["_diverged"]
        return lost

    @property
    def _mode(self) -> AutoresetMode:
        mode: AutoresetMode = self.metadata["autoreset_mode"]
        return mode

    def _call(self, name: str) -> tuple[Any, ...]:
        results: tuple[Any, ...] = self.call(name)  # type: ignore[attr-defined]
        return results

    def _where(self, index: int, elapsed: int | None = None) -> str:
        task = int(self.task_ids[index])
        where = f"task {task} {self.task_names[task]!r}"
        if elapsed is not None:
            where += f", step {elapsed + 1} of its episode"
        return f"sub-environment {index} ({where})"


class MetaWorldSyncVectorEnv(_MetaWorldVectorEnv, SyncVectorEnv):
    """N sub-environments in a loop, `gymnasium.vector.SyncVectorEnv`; arguments as of `make_vector_env`."""

    def reset(self, *, seed: Any = None, options: dict[str, Any] | None = None) -> tuple[Array, dict[str, Any]]:
        """See `BatchedVectorEnv.reset`."""
        return self._after_reset(super().reset(**self._before_reset(seed, options)))

    def step(self, actions: Array) -> Step:
        """See `BatchedVectorEnv.step`."""
        return self._after_step(super().step(self._before_step(actions)))


class MetaWorldAsyncVectorEnv(_MetaWorldVectorEnv, AsyncVectorEnv):
    """N sub-environments in processes of their own, `gymnasium.vector.AsyncVectorEnv`; arguments as of
    `make_vector_env`. They ignore Ctrl-C and SIGTERM, which are for the main process.

    Raises:
        RuntimeError: this process may not start others, one of them did not start, or has ended since.
    """

    _vector_kwargs = {"worker": _worker}
    _broken: str | None = None  # why nothing can be asked of the processes any more

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        if multiprocessing.current_process().daemon:
            raise RuntimeError("a daemonic process may not start others: use vector_strategy='sync'")
        try:
            super().__init__(*args, **kwargs)
            # Before `multiprocessing` ends its processes by SIGTERM, which these ignore.
            self._at_exit = util.Finalize(self, _kill, (self.processes,), exitpriority=100)
        except (EOFError, ConnectionError) as error:
            self._broken = self._ended("did not start")
            raise RuntimeError(
                f"{self._broken}. If the script that is run has no `if __name__ == '__main__':` around what it does, "
                "add it, or use vector_strategy='sync'"
            ) from error

    def reset_async(self, seed: Any = None, options: dict[str, Any] | None = None) -> None:
        """Begin what `reset_wait` completes."""
        with self._watch():
            super().reset_async(**self._before_reset(seed, options))

    def reset_wait(self, timeout: float | None = None) -> tuple[Array, dict[str, Any]]:
        """Complete what `reset_async` began: see `BatchedVectorEnv.reset`."""
        with self._watch():
            return self._after_reset(super().reset_wait(timeout))

    def step_async(self, actions: Array) -> None:
        """Begin what `step_wait` completes."""
        with self._watch():
            super().step_async(self._before_step(actions))

    def step_wait(self, timeout: float | None = None) -> Step:
        """Complete what `step_async` began: see `BatchedVectorEnv.step`."""
        with self._watch():
            return self._after_step(super().step_wait(timeout))

    def call_async(self, name: str, /, *args: Any, **kwargs: Any) -> None:
        """See `gymnasium.vector.AsyncVectorEnv.call_async`."""
        with self._watch():
            super().call_async(name, *args, **kwargs)

    def call_wait(self, timeout: float | None = None) -> tuple[Any, ...]:
        """See `gymnasium.vector.AsyncVectorEnv.call_wait`."""
        with self._watch():
            return tuple(super().call_wait(timeout))

    def set_attr(self, name: str, values: Any) -> None:
        """See `gymnasium.vector.AsyncVectorEnv.set_attr`."""
        with self._watch():
            super().set_attr(name, values)

    def close_extras(self, timeout: float | None = None, terminate: bool = False) -> None:
        """End the processes; without asking them if one has ended already."""
        if not hasattr(self, "parent_pipes"):  # Gymnasium also closes what could not be made
            return
        lost = self._broken or None in self.parent_pipes or not all(process.is_alive() for process in self.processes)
        if lost:
            self._state = AsyncState.DEFAULT  # no answer will complete what is pending
        if terminate or lost:
            _kill(self.processes)
        super().close_extras(timeout=timeout, terminate=terminate or bool(lost))

    @contextmanager
    def _watch(self) -> Iterator[None]:
        """Say what happened where Gymnasium's class would only find a pipe closed; at every later call as well."""
        pipes: list[Any] = self.parent_pipes  # Gymnasium puts None in the place of one whose process had an error
        if self._broken is None and not self.closed and None in pipes:
            self._broken = self._ended("was ended by an earlier error", pipes.index(None))
        if self._broken is not None:
            raise RuntimeError(self._broken)
        try:
            yield
        except (EOFError, ConnectionError) as error:
            self._broken = self._ended("has ended")
            raise RuntimeError(self._broken) from error

    def _ended(self, what: str, index: int | None = None) -> str:
        """What an error says of a process that ``what``; without an index, of the first one that is found dead."""
        sentinels: dict[Any, int] = {process.sentinel: i for i, process in enumerate(self.processes)}
        if index is None and (ready := connection.wait(list(sentinels), timeout=10.0)):
            index = min(sentinels[sentinel] for sentinel in ready)
        if index is None:
            return f"the process of a sub-environment {what}: close() this environment, make a new one"
        self.processes[index].join(timeout=10.0)  # its end may be seen before its exit code is known
        code = self.processes[index].exitcode
        how = "" if code is None else f" (exit code {code}{', killed: perhaps memory ran out' * (code == -9)})"
        return f"the process of {self._where(index)} {what}{how}: close() this environment, make a new one"
