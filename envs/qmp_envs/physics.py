"""Vector environments that MuJoCo simulates: one native physics call per step."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import gymnasium as gym
import mujoco
import numpy as np
import numpy.typing as npt

from qmp_envs.arguments import diverged
from qmp_envs.engine import CONTROL, Engine
from qmp_envs.pictures import picture_of
from qmp_envs.sketch import Camera, Marker
from qmp_envs.task_set import TaskSet
from qmp_envs.vector import Array, BatchedVectorEnv, Rows


class PhysicsVectorEnv(BatchedVectorEnv):
    """Base of the task sets that MuJoCo simulates, with one model or with models of equal sizes.

    A subclass calls ``__init__`` with its models and spaces, and implements `_start`, `_judge`, `_observe`,
    `_draw`, and `_apply` where actions are more than controls.

    Args:
        task_set: the facts of the task set.
        models: one compiled model, or one per sub-environment.
        observation_space, action_space: of a single sub-environment.
        num_envs: N.
        nthread: native physics threads, 0 for the calling thread.
        kwargs: see `BatchedVectorEnv`.

    Raises:
        ValueError: arguments out of range.
    """

    frame_skip: ClassVar[int] = 1
    control_spec: ClassVar[int] = CONTROL

    def __init__(
        self,
        task_set: TaskSet,
        models: mujoco.MjModel | Sequence[mujoco.MjModel],
        observation_space: gym.spaces.Box,
        action_space: gym.spaces.Box,
        *,
        num_envs: int,
        nthread: int = 0,
        **kwargs: Any,
    ) -> None:
        super().__init__(task_set, observation_space, action_space, num_envs=num_envs, **kwargs)
        self._engine = Engine(
            models, num_envs, frame_skip=self.frame_skip, control_spec=self.control_spec, nthread=nthread
        )

    def _start(self, rows: Rows) -> None:
        """Write the start state of ``rows`` into the engine (already in the reference pose, at rest)."""
        raise NotImplementedError

    def _apply(self, actions: Array) -> None:
        """Turn ``actions`` (N, *A) float64, not to be written to, into ``engine.control``.

        Also the place to look at or to edit ``engine.state`` before the step. As it stands: clip to the
        action space and repeat for each physics step.
        """
        control = self._engine.control
        np.maximum(actions[:, None], self._action_low, out=control)  # quicker than np.clip
        np.minimum(control, self._action_high, out=control)

    def _advance(self, actions: Array) -> None:
        before = {key: values.copy() for key, values in self._episode.items()}
        self._apply(actions)
        lost = self._engine.step()
        if lost is None:
            return
        # Nothing has moved yet. A simulation that diverged stays where it was, not in MuJoCo's reset pose; so do all
        # if that is an error: nobody would get their step. What a finished one does on its way to a reset is nothing.
        self._diverged = lost & ~self._finished
        fails = self.on_divergence == "raise" and self._diverged.any()
        stay = np.ones_like(lost) if fails else self._diverged
        self._engine.take(~(stay | lost))
        for key, values in self._episode.items():
            values[stay] = before[key][stay]
        if fails:
            self._finished[self._diverged] = self._any_finished = True
            raise FloatingPointError(diverged(self._where(int(self._diverged.argmax()))))

    def _begin(self, rows: Rows) -> None:
        self._engine.restart(rows)
        super()._begin(rows)
        self._engine.sense(rows)

    def _photograph(self, index: int, camera: Camera, markers: Sequence[Marker]) -> npt.NDArray[np.uint8]:
        """Picture (H, W, 3) of one sub-environment's model as it is, by ``self.renderer``."""
        return picture_of(self._engine.models[index], self.renderer).draw(self._engine.evaluate(index), camera, markers)

    def get_state(self) -> dict[str, Any]:
        """See `BatchedVectorEnv.get_state`; MuJoCo's states are an array (N, ...) under ``physics``."""
        engine = self._engine
        return super().get_state() | {"physics": engine.state.copy(), "sensordata": engine.sensordata.copy()}

    def _saved(self, state: Mapping[str, Any]) -> dict[str, tuple[Array, Array]]:
        return super()._saved(state) | {
            "physics": (self._engine.state, np.asarray(state["physics"])),
            "sensordata": (self._engine.sensordata, np.asarray(state["sensordata"])),
        }

    def close_extras(self, **kwargs: Any) -> None:
        """Stop the physics threads."""
        if hasattr(self, "_engine"):  # Gymnasium also closes what could not be made
            self._engine.close()
