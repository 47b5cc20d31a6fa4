"""N Meta-World tasks at once in one process: native physics, and array expressions for what Meta-World's Python says.

For the tasks of MT10 (see `qmp_envs.meta_world_judge`). The others are stepped one by one, in the same environment.
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
from qmp_envs.meta_world_judge import TASKS, Judge
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
        self._rewards = np.zeros(num_envs)
        self._success = np.zeros(num_envs, dtype=np.bool_)
        self._told = np.zeros((len(INFO), num_envs))
        self._inputs = np.zeros((num_envs, 9))
        self._inputs[:, 5:] = GRIP_DOWN
        self._simulate()

    def _simulate(self) -> None:
        """Make the simulations, and what holds on to their memory."""
        names = [self.task_names[task] for task in self.task_ids]
        self._simulations = [simulation(name) for name in names]
        order = list(TASKS)
        batched = [i for i, name in enumerate(names) if name in TASKS]
        self._batched = np.array(sorted(batched, key=lambda i: order.index(names[i])), dtype=np.intp)
        self._single = [i for i, name in enumerate(names) if name not in TASKS]
        self._judge_rows = Judge([self._simulations[i] for i in self._batched], [names[i] for i in self._batched])
        self._place = {int(row): i for i, row in enumerate(self._batched)}  # of a row among the batched ones
        self._before: list[Any] = [np.zeros(mujoco.mj_stateSize(x.model, STATE)) for x in self._simulations]
        self._low, self._high = (
            np.array([getattr(x, f"_{end}") for x in self._simulations]) for end in ("low", "high")
        )
        self._hand_box = np.array([(x.mocap_low, x.mocap_high) for x in self._simulations]).swapaxes(0, 1)
        self._pool: tuple[int, ThreadPoolExecutor] | None = None

    # ------------------------------------------------------------------ hooks of `BatchedVectorEnv`

    def _start(self, rows: Rows) -> None:
        for i in rows:
            drawn_with, seed = self._goals[i]
            if drawn_with is not self.rngs[i]:  # seeded since
                drawn_with = None
            seed, goal = draw_goal(self.rngs[i], None if drawn_with is None else seed)
            self._goals[i] = (self.rngs[i], seed)
            self._observations[i] = self._simulations[i].start(goal)
            self._success[i], self._told[:, i] = False, 0.0
            self._take_up(i)

    def _take_up(self, row: int) -> None:
        """Go on from where simulation ``row`` was put."""
        x = self._simulations[row]
        self._frames[row] = x._prev_obs
        self._inputs[row, 2:5] = x.data.mocap_pos[0]
        if row in self._place:
            self._judge_rows.begin(self._place[row])

    def _advance(self, actions: Array) -> None:
        single = np.clip(actions.astype(np.float32), -1.0, 1.0)
        targets = self._inputs[:, 2:5].copy()
        # The float32 product is Meta-World's.
        moved = targets + single[:, :3] * self._simulations[0].action_scale
        self._inputs[:, 2:5] = np.minimum(np.maximum(moved, self._hand_box[0]), self._hand_box[1])
        self._inputs[:, 0], self._inputs[:, 1] = single[:, 3], -single[:, 3]
        stepping = ~self._finished
        lost = np.zeros(self.num_envs, dtype=np.bool_)
        native = [int(i) for i in self._batched[stepping[self._batched]]]
        lost[self._physics(native)] = True
        outcomes = {}
        for i in self._single:
            if stepping[i]:
                self._before[i] = self._simulations[i].state()
                outcomes[i] = self._simulations[i].advance(single[i])
                lost[i] = outcomes[i] is None
        if lost.any():
            self._inputs[lost, 2:5] = targets[lost]
            self._lose(lost, targets, [*native, *outcomes])
            outcomes = {i: outcome for i, outcome in outcomes.items() if not lost[i]}
        if native:
            self._tell(self._batched, stepping & ~lost, single)
        for i, outcome in outcomes.items():
            observation, self._rewards[i], info = outcome  # type: ignore[misc]
            self._observations[i], self._frames[i] = observation, self._simulations[i]._prev_obs
            self._success[i], self._told[:, i] = bool(info["success"]), [float(info[key]) for key in INFO]

    def _tell(self, rows: Rows, moved: npt.NDArray[np.bool_], actions: npt.NDArray[np.float32]) -> None:
        """Observations and judgement of ``rows``, as far as they have ``moved``."""
        judge = self._judge_rows
        judge(actions[rows, 3])
        observations = np.concatenate((judge.frames, self._frames[rows], judge.goals), axis=1)
        observations = np.minimum(np.maximum(observations, self._low[rows]), self._high[rows])
        which: Any = slice(None)
        if not moved[rows].all():
            which = moved[rows]
            rows = rows[which]
        self._observations[rows] = observations[which]
        self._frames[rows] = judge.frames[which]
        self._rewards[rows], self._success[rows] = judge.rewards[which], judge.success[which]
        for told, key in zip(self._told, INFO, strict=True):
            told[rows] = judge.told[key][which]

    def _judge(self) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.bool_], dict[str, Array]]:
        told = self._told.copy()
        outcome: dict[str, Array] = {"success": self._success.copy(), **dict(zip(INFO, told, strict=True))}
        return self._rewards.copy(), np.zeros(self.num_envs, dtype=np.bool_), outcome

    def _observe(self) -> Array:
        return self._observations.copy()

    def _draw(self, index: int) -> npt.NDArray[np.uint8]:
        return self._simulations[index].picture()

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
            model, data = self._simulations[i].model, self._simulations[i].data
            mujoco.mj_getState(model, data, self._before[i], STATE)
            mujoco.mj_setState(model, data, self._inputs[i], _INPUTS)
            time = data.time
            mujoco.mj_step(model, data, 5)
            if data.time <= time:  # MuJoCo has reset a simulation that it could not go on with
                lost.append(i)
            else:
                mujoco.mj_forward(model, data)
        return lost

    def _lose(self, lost: npt.NDArray[np.bool_], targets: Array, stepped: list[int]) -> None:
        """Put the ``lost`` simulations, or all if that is an error, back to before a step of those of ``stepped``."""
        fails = self.on_divergence == "raise"
        for i in stepped:
            if fails or lost[i]:
                put = self._simulations[i].rewind if i in self._place else self._simulations[i].resume
                put(self._before[i])
                self._inputs[i, 2:5] = targets[i]
        self._diverged = lost
        if fails:
            self._finished[lost] = self._any_finished = True
            raise FloatingPointError(diverged(self._where(int(lost.argmax()))))

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
            "details": dict(zip(INFO, self._told[:, i].tolist(), strict=True)),
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
            # These entries are not in states of before there were they.
            self._diverged[i] = env.get("diverged", False)
            self._finished[i] = env["finished"] or self._diverged[i]
            self._observations[i] = env.get("observation", 0.0)
            details = env.get("details", {})
            self._told[:, i] = [details.get(key, 0.0) for key in INFO]
            self._simulations[i].resume(env["simulation"])
            self._take_up(i)
        self._any_finished = bool(self._finished.any())

    def __getstate__(self) -> dict[str, Any]:
        made = ("_simulations", "_judge_rows", "_before", "_pool")
        return {key: value for key, value in self.__dict__.items() if key not in made} | {"saved": self.get_state()}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update({key: value for key, value in state.items() if key != "saved"})
        self._simulate()
        self.set_state(state["saved"])
