"""The seam between task sets and MuJoCo: everything that steps physics goes through `Engine`."""

from __future__ import annotations

import ctypes
import os
import weakref
from collections.abc import Sequence
from types import EllipsisType
from typing import Any

import mujoco
import mujoco.rollout
import numpy as np
import numpy.typing as npt

# MuJoCo answers a diverging simulation by resetting it to time 0 with nothing but a printed warning. Episodes
# start at this time instead, so that even a divergence in the first step shows as a clock that ran backwards.
CLOCK_START = 1.0

_STATE = mujoco.mjtState.mjSTATE_FULLPHYSICS.value
CONTROL = mujoco.mjtState.mjSTATE_CTRL.value


class Engine:
    """Steps N simulations in one native call.

    The arrays below are allocated once; callers read and write them in place.

    Args:
        models: one compiled model shared by all, or N models with equal sizes.
        num_envs: N.
        frame_skip: physics steps per control step.
        control_spec: MuJoCo state bits that make up a control vector (e.g. CTRL | MOCAP_POS). What it leaves
            out is taken from the model's defaults at every call.
        nthread: native threads; 0 steps on the calling thread, which is faster below about 0.3 ms of physics
            per thread and call.

    Attributes:
        state: (N, nstate) float64, MuJoCo's FULLPHYSICS state: time, qpos, qvel, ...
        qpos, qvel: (N, nq) and (N, nv) views of ``state``.
        control: (N, frame_skip, ncontrol) float64, applied by the next `step`.
        sensordata: (N, nsensor) float64. As after a plain ``mj_step`` it describes the state *before* the
            last physics step; after `sense` the current one.
    """

    def __init__(
        self,
        models: mujoco.MjModel | Sequence[mujoco.MjModel],
        num_envs: int,
        *,
        frame_skip: int = 1,
        control_spec: int = CONTROL,
        nthread: int = 0,
    ) -> None:
        self.models = [models] * num_envs if isinstance(models, mujoco.MjModel) else list(models)
        if len(self.models) != num_envs:
            raise ValueError(f"expected one model or one per sub-environment ({num_envs}), got {len(self.models)}")
        if nthread < 0:
            raise ValueError(f"nthread must be 0 (the calling thread) or positive, got {nthread}")
        first = self.models[0]
        expected = _sizes(first)
        for i, model in enumerate(self.models):
            # MuJoCo checks a few of these sizes only, and writes out of bounds where others differ.
            if model is not first and (sizes := _sizes(model)) != expected:
                differing = {k: (expected[k], sizes[k]) for k in expected if sizes[k] != expected[k]}
                raise ValueError(
                    f"models must have equal sizes, but those of sub-environments 0 and {i} differ in {differing}; "
                    "compile them from one spec"
                )
        nstate = mujoco.mj_stateSize(first, _STATE)
        self.frame_skip = frame_skip
        self.state = np.zeros((num_envs, nstate))
        self.control = np.zeros((num_envs, frame_skip, mujoco.mj_stateSize(first, control_spec)))
        self.sensordata = np.zeros((num_envs, first.nsensordata))
        self._states = np.zeros((num_envs, frame_skip, nstate))
        self._sensors = np.zeros((num_envs, frame_skip, first.nsensordata)) if first.nsensordata else None
        self._min_advance = (frame_skip - 0.5) * min(model.opt.timestep for model in self.models)
        self._control_spec = control_spec
        self._nthread = nthread
        self._attach()

    def _attach(self) -> None:
        """Make what cannot be pickled, and the views, which pickling would turn into copies."""
        first = self.models[0]
        self.qpos = self.state[:, 1 : 1 + first.nq]
        self.qvel = self.state[:, 1 + first.nq : 1 + first.nq + first.nv]
        self._data = [mujoco.MjData(first) for _ in range(max(1, self._nthread))]
        self._chunk_size = -(-len(self.models) // max(1, self._nthread))
        self._rollout: mujoco.rollout.Rollout | None = None
        if self._nthread:
            _THREADED.add(self)

    def _pool(self) -> mujoco.rollout.Rollout:
        if self._rollout is None:
            self._rollout = mujoco.rollout.Rollout(nthread=self._nthread)
        return self._rollout

    def __getstate__(self) -> dict[str, Any]:
        made = ("qpos", "qvel", "_data", "_rollout")
        return {key: value for key, value in self.__dict__.items() if key not in made}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._attach()

    def step(self) -> npt.NDArray[np.bool_] | None:
        """Advance all simulations by one control step, or none if one of them diverges.

        Returns:
            None, or an (N,) mask of the simulations that diverged. Then ``state`` and ``sensordata`` are as before:
            `take` carries on with those that did not.
        """
        self._pool().rollout(
            self.models,
            self._data,
            self.state,
            self.control,
            control_spec=self._control_spec,
            skip_checks=True,
            nstep=self.frame_skip,
            state=self._states,
            sensordata=self._sensors,
            chunk_size=self._chunk_size,
        )
        advance = self._states[:, -1, 0] - self.state[:, 0]
        if advance.min() > self._min_advance:
            self.take(...)
            return None
        diverged: npt.NDArray[np.bool_] = ~(advance > self._min_advance)  # the negation lets a NaN clock count too
        return diverged

    def take(self, rows: npt.NDArray[np.bool_] | EllipsisType) -> None:
        """Let ``rows`` be where the last `step` led."""
        self.state[rows] = self._states[:, -1][rows]
        if self._sensors is not None:
            self.sensordata[rows] = self._sensors[:, -1][rows]

    def run(self, row: int | np.intp, controls: npt.NDArray[np.float64]) -> None:
        """Step simulation ``row`` alone, with ``controls`` (steps, ncontrol), one for each physics step."""
        states = np.empty((1, len(controls), self.state.shape[1]))
        self._pool().rollout(
            self.models[row : row + 1],
            self._data,
            self.state[row : row + 1],
            controls[None],
            control_spec=self._control_spec,
            skip_checks=True,
            nstep=len(controls),
            state=states,
            chunk_size=1,
        )
        self.state[row] = states[0, -1]

    def restart(self, rows: npt.NDArray[np.intp]) -> None:
        """Set ``rows`` of ``state`` to their models' reference pose, at rest, at the time episodes start."""
        for i in rows:
            self.state[i] = 0.0
            self.qpos[i] = self.models[i].qpos0
        self.state[rows, 0] = CLOCK_START

    def sense(self, rows: npt.NDArray[np.intp]) -> None:
        """Evaluate the sensors of ``rows`` at their current state, without stepping."""
        if self._sensors is not None:
            for i in rows:
                self.sensordata[i] = self.evaluate(i).sensordata

    def evaluate(self, row: int) -> mujoco.MjData:
        """All quantities of one simulation at its current state, without stepping. Valid until the next call."""
        model, data = self.models[row], self._data[0]
        mujoco.mj_resetData(model, data)
        mujoco.mj_setState(model, data, self.state[row], _STATE)
        mujoco.mj_setState(model, data, self.control[row, -1], self._control_spec)
        mujoco.mj_forward(model, data)
        return data

    def close(self) -> None:
        """Stop the native threads; the next step starts them anew."""
        self._rollout = None


# Engines with native threads, which a forked process does not have: it would wait for them for ever, in a step and
# even when it deletes their pool. So there the pool is left to itself, never deleted, and made anew when needed.
_THREADED: weakref.WeakSet[Engine] = weakref.WeakSet()


def _leave_pools() -> None:
    for engine in _THREADED:
        if engine._rollout is not None:
            ctypes.pythonapi.Py_IncRef(ctypes.py_object(engine._rollout))
            engine._rollout = None


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_leave_pools)


def _sizes(model: mujoco.MjModel) -> dict[str, int]:
    """Every size that the layout of simulation data may depend on."""
    texts = ("nnames", "nnames_map", "npaths", "nbuffer")
    sizes = {name: getattr(model, name) for name in dir(model) if name.startswith("n") and name not in texts}
    return {name: size for name, size in sizes.items() if isinstance(size, int)}
