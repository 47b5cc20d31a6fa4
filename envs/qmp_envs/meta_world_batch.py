"""N Meta-World tasks at once in one process: native physics, and quicker ways to what Meta-World's Python says.

For the tasks of MT10 (see `qmp_envs.meta_world_tasks`). The others are stepped one by one, in the same environment.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import mujoco
import numpy as np
import numpy.typing as npt

from qmp_envs.arguments import check_same_tasks, diverged
from qmp_envs.cores import usable_cores
from qmp_envs.meta_world import INFO, META_WORLD, draw_goal, spaces
from qmp_envs.meta_world_judge import Judge
from qmp_envs.meta_world_tasks import TASKS
from qmp_envs.sawyer import GRIP_DOWN, STATE, simulation
from qmp_envs.vector import Array, BatchedVectorEnv, Rows

# What an action becomes: two controls of the gripper, position and orientation of the hand's target.
_INPUTS = (
    mujoco.mjtState.mjSTATE_CTRL.value
    | mujoco.mjtState.mjSTATE_MOCAP_POS.value
    | mujoco.mjtState.mjSTATE_MOCAP_QUAT.value
)


class MetaWorldBatchedVectorEnv(BatchedVectorEnv):
    """N sub-environments of MT10 or MT50 without a Python call of Meta-World's per step where that is possible.

    Numbers, seeds and states are those of `MetaWorldSyncVectorEnv`, bit for bit: see `make_vector_env`. Resets are
    Meta-World's own code.

    Args:
        env_id: which task set, a key of `META_WORLD`.
        num_envs: N.
        nthread: native physics threads, 0 for the calling thread; default one per core.
        kwargs: see `BatchedVectorEnv`.

    Raises:
        ModuleNotFoundError: the package ``metaworld`` is missing.
        ValueError: arguments out of range.
    """

    metadata = {**BatchedVectorEnv.metadata, "render_fps": 80}
    renderers = ("numpy", "mujoco")
    info_types: Mapping[str, type] = {"success": bool, **dict.fromkeys(INFO, float)}

    def __init__(self, env_id: str, num_envs: int = 1, *, nthread: int | None = None, **kwargs: Any) -> None:
        if env_id not in META_WORLD:
            raise ValueError(f"env_id must be one of {list(META_WORLD)}, got {env_id!r}")
        if nthread is not None and nthread < 0:
            raise ValueError(f"nthread must be 0 (the calling thread), positive or None, got {nthread}")
        super().__init__(META_WORLD[env_id], *spaces(), num_envs=num_envs, **kwargs)
        threads = min(num_envs, usable_cores()) if nthread is None else nthread
        self._nthread = 0 if threads == 1 else threads
        # The generator of each sub-environment that its 50 goals were drawn with, and their seed.
        self._goals: list[tuple[np.random.Generator | None, int]] = [(None, 0)] * num_envs
        self._observations = np.zeros((num_envs, 39), dtype=np.float32)
        self._frames = np.zeros((num_envs, 18))  # the last ones, not clipped
        self._table = np.zeros((2 + len(INFO), num_envs))  # rewards, success, what else is told
        self._inputs = np.zeros((num_envs, 9))
        self._inputs[:, 5:] = GRIP_DOWN
        self._simulate()

    def _simulate(self) -> None:
        """Make the simulations, and what holds on to their memory."""
        names = [self.task_names[task] for task in self.task_ids]
        self._simulations = [simulation(name) for name in names]
        batched = [i for i, name in enumerate(names) if name in TASKS]
        self._batched = np.array(batched, dtype=np.intp)
        self._alone = np.array([i for i, name in enumerate(names) if name not in TASKS], dtype=np.intp)
        self._judge_rows = Judge([self._simulations[i] for i in batched], [names[i] for i in batched])
        self._place = {row: i for i, row in enumerate(batched)}  # of a row among the batched ones
        # What undoes a step: MuJoCo's state, or `Sawyer.state` of those that step alone.
        self._before: list[Any] = [np.zeros(mujoco.mj_stateSize(x.model, STATE)) for x in self._simulations]
        # What a step of each needs, looked up once.
        self._stepped = [
            (x.model, x.data, before, inputs)
            for x, before, inputs in zip(self._simulations, self._before, self._inputs, strict=True)
        ]
        self._hand_low = np.array([x.mocap_low for x in self._simulations])
        self._hand_high = np.array([x.mocap_high for x in self._simulations])
        self._pool: tuple[int, ThreadPoolExecutor] | None = None

    # ------------------------------------------------------------------ hooks of `BatchedVectorEnv`

    def _start(self, rows: Rows) -> None:
        for i in rows:
            drawn_with, seed = self._goals[i]
            seed, goal = draw_goal(self.rngs[i], seed if drawn_with is self.rngs[i] else None)  # None: seeded since
            self._goals[i] = (self.rngs[i], seed)
            self._observations[i] = self._simulations[i].start(goal)
            self._table[:, i] = 0.0
            self._take_up(i)

    def _take_up(self, row: int) -> None:
        """Go on from where simulation ``row`` was put."""
        x = self._simulations[row]
        self._frames[row] = x._prev_obs
        self._inputs[row, 2:5] = x.data.mocap_pos[0]
        if row in self._place:
            self._judge_rows.begin(self._place[row])

    def _advance(self, actions: Array) -> None:
        single = np.minimum(np.maximum(actions.astype(np.float32), -1.0), 1.0)
        inputs, before = self._inputs, self._inputs.copy()
        # The float32 product is Meta-World's.
        moved = before[:, 2:5] + single[:, :3] * self._simulations[0].action_scale
        np.minimum(np.maximum(moved, self._hand_low), self._hand_high, out=inputs[:, 2:5])
        inputs[:, 0] = single[:, 3]
        np.negative(inputs[:, 0], out=inputs[:, 1])
        # Who has finished is reset after this step, wherever it would have led.
        batched, alone = self._batched, self._alone
        if self._any_finished:
            batched, alone = batched[~self._finished[batched]], alone[~self._finished[alone]]
        lost = self._physics(batched.tolist())
        outcomes = {}
        for i in alone.tolist():
            self._before[i] = self._simulations[i].state()
            outcomes[i] = self._simulations[i].advance(single[i])
            if outcomes[i] is None:
                lost.append(i)
        if lost:
            self._lose(lost, before, [*batched.tolist(), *outcomes])
            batched = batched[~np.isin(batched, lost)]
        if batched.size:
            self._tell(batched, single)
        for i, outcome in outcomes.items():
            if outcome is not None:
                observation, reward, info = outcome
                self._observations[i], self._frames[i] = observation, self._simulations[i]._prev_obs
                self._table[:, i] = [reward, info["success"], *(info[key] for key in INFO)]

    def _tell(self, moved: Rows, actions: npt.NDArray[np.float32]) -> None:
        """Observe and judge the batched rows that have ``moved``."""
        rows, judge = self._batched, self._judge_rows
        judge(actions[rows, 3])
        place: slice | npt.NDArray[np.bool_] = slice(None)
        if moved.size < rows.size:
            place = np.isin(rows, moved)
        which = slice(None) if moved.size == self.num_envs else moved
        self._observations[which, 18:36] = self._observations[which, :18]
        self._observations[which, :18] = judge.frames[place]
        self._observations[which, :3] = judge.hands[place]
        self._frames[which], self._table[:, which] = judge.frames[place], judge.table[:, place]

    def _judge(self) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.bool_], dict[str, Array]]:
        rewards, success, *told = self._table.copy()
        outcome: dict[str, Array] = {"success": success > 0, **dict(zip(INFO, told, strict=True))}
        return rewards, np.zeros(self.num_envs, dtype=np.bool_), outcome

    def _observe(self) -> Array:
        return self._observations.copy()

    def _draw(self, index: int) -> npt.NDArray[np.uint8]:
        return self._simulations[index].picture(self.renderer)

    # ------------------------------------------------------------------ physics

    def _physics(self, rows: list[int]) -> list[int]:
        """Step the simulations of ``rows``; those that diverged."""
        if self._nthread == 0:
            return self._step_rows(rows)
        if self._pool is None or self._pool[0] != os.getpid():  # a forked process has no threads
            self._pool = (os.getpid(), ThreadPoolExecutor(self._nthread))
        shares = [rows[k :: self._nthread] for k in range(self._nthread)]
        return [i for lost in self._pool[1].map(self._step_rows, shares) for i in lost]

    def _step_rows(self, rows: Iterable[int]) -> list[int]:
        # As Meta-World does; `mujoco.rollout` would lose the solver's warm start, which decides the last digits. Each
        # call lets other threads run.
        lost = []
        for i in rows:
            model, data, before, inputs = self._stepped[i]
            mujoco.mj_getState(model, data, before, STATE)
            mujoco.mj_setState(model, data, inputs, _INPUTS)
            time = data.time
            mujoco.mj_step(model, data, 5)
            if data.time <= time:  # MuJoCo has reset a simulation that it could not go on with
                lost.append(i)
            else:
                mujoco.mj_forward(model, data)
        return lost

    def _lose(self, lost: list[int], inputs: Array, stepped: list[int]) -> None:
        """Put the ``lost`` simulations back, or all if that is an error: to before a step of ``stepped``."""
        fails = self.on_divergence == "raise"
        for i in stepped if fails else lost:
            put = self._simulations[i].rewind if i in self._place else self._simulations[i].resume
            put(self._before[i])
            self._inputs[i] = inputs[i]
        self._diverged[lost] = True
        if fails:
            self._finished[lost] = self._any_finished = True
            raise FloatingPointError(diverged(self._where(min(lost))))

    def close_extras(self, **kwargs: Any) -> None:
        """Stop the physics threads."""
        pool = getattr(self, "_pool", None)  # Gymnasium also closes what could not be made
        if pool is not None and pool[0] == os.getpid():
            pool[1].shutdown()
        self._pool = None

    # ------------------------------------------------------------------ saving and restoring

    def get_state(self) -> dict[str, Any]:
        """Everything that the future depends on, as of `MetaWorldSyncVectorEnv`; see `MetaWorldEnv.get_state`."""
        return {
            "env_id": self.task_set.env_id,
            "task_ids": self.task_ids.copy(),
            "envs": [self._row_state(i) for i in range(self.num_envs)],
        }

    def _row_state(self, i: int) -> dict[str, Any]:
        x = self._simulations[i]
        x._prev_obs = self._frames[i].copy()
        return {
            "env_id": self.task_set.env_id,
            "task": int(self.task_ids[i]),
            "goals_seed": self._goals[i][1] if self.rngs else None,
            "elapsed": int(self._elapsed[i]),
            "finished": bool(self._finished[i] and not self._diverged[i]),
            "diverged": bool(self._diverged[i]),
            "observation": self._observations[i].copy(),
            "details": dict(zip(INFO, self._table[2:, i].tolist(), strict=True)),
            "rng": self.rngs[i].bit_generator.state if self.rngs else None,
            "simulation": x.state() if self.rngs else None,
        }

    def set_state(self, state: Mapping[str, Any]) -> None:
        """Restore what `get_state` returned, here or of another of MT10's and MT50's vector environments.

        Raises:
            ValueError: the state is of another task set, or of sub-environments with other tasks.
        """
        check_same_tasks(self.task_set, self.task_ids, state)
        if any(env["goals_seed"] is None for env in state["envs"]):  # before the first reset
            self.rngs = []
            self._finished[:] = self._diverged[:] = self._any_finished = False
            return
        self.rngs = [np.random.Generator(np.random.PCG64()) for _ in state["envs"]]
        for i, env in enumerate(state["envs"]):
            self.rngs[i].bit_generator.state = env["rng"]
            self._goals[i] = (self.rngs[i], env["goals_seed"])
            self._elapsed[i] = env["elapsed"]
            # There are states of before they had some of the entries.
            self._diverged[i] = env.get("diverged", False)
            self._finished[i] = env["finished"] or self._diverged[i]
            x = self._simulations[i]
            x.resume(env["simulation"])
            self._observations[i] = env["observation"] if "observation" in env else x.observation()
            details = env.get("details", {})
            self._table[2:, i] = [details.get(key, 0.0) for key in INFO]
            self._take_up(i)
        self._any_finished = bool(self._finished.any())

    def __getstate__(self) -> dict[str, Any]:
        made = ("_simulations", "_judge_rows", "_before", "_stepped", "_pool")
        return {key: value for key, value in self.__dict__.items() if key not in made} | {"saved": self.get_state()}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update({key: value for key, value in state.items() if key != "saved"})
        self._simulate()
        self.set_state(state["saved"])
