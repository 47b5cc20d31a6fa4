"""Meta-World's multi-task benchmarks MT10 and MT50: a robot arm and 10 or 50 manipulation tasks.

Dynamics, rewards (version 2) and success are those of the package ``metaworld`` 3. Paper: section 6.1, appendix D.3.
"""

from __future__ import annotations

import multiprocessing
import operator
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Literal

import gymnasium as gym
import numpy as np
import numpy.typing as npt

from qmp_envs.arguments import (
    OnDivergence,
    Renderer,
    assign_tasks,
    check_modes,
    checked_limit,
    checked_seed,
    diverged,
    outer_limit,
)
from qmp_envs.assets import missing
from qmp_envs.cores import usable_cores
from qmp_envs.task_set import Array, TaskSet

if TYPE_CHECKING:
    from qmp_envs.meta_world_batch import MetaWorldBatchedVectorEnv
    from qmp_envs.meta_world_vector import MetaWorldAsyncVectorEnv, MetaWorldSyncVectorEnv
    from qmp_envs.sawyer import Sawyer

_MT10 = (
    "reach", "push", "pick-place", "door-open", "drawer-open", "drawer-close", "button-press-topdown",
    "peg-insert-side", "window-open", "window-close",
)  # fmt: skip
_MT50 = (
    "assembly", "basketball", "bin-picking", "box-close", "button-press-topdown", "button-press-topdown-wall",
    "button-press", "button-press-wall", "coffee-button", "coffee-pull", "coffee-push", "dial-turn", "disassemble",
    "door-close", "door-lock", "door-open", "door-unlock", "hand-insert", "drawer-close", "drawer-open", "faucet-open",
    "faucet-close", "hammer", "handle-press-side", "handle-press", "handle-pull-side", "handle-pull", "lever-pull",
    "pick-place-wall", "pick-out-of-hole", "pick-place", "plate-slide", "plate-slide-side", "plate-slide-back",
    "plate-slide-back-side", "peg-insert-side", "peg-unplug-side", "soccer", "stick-push", "stick-pull", "push",
    "push-wall", "push-back", "reach", "reach-wall", "shelf-place", "sweep-into", "sweep", "window-open",
    "window-close",
)  # fmt: skip


def _task_set(env_id: str, tasks: tuple[str, ...]) -> TaskSet:
    return TaskSet(
        env_id=env_id,
        task_names=tuple(f"{task}-v3" for task in tasks),
        horizon=500,
        success_rule="Meta-World's, of the current state; an episode counts if any of its steps succeeds",
        min_reward=0.0,
        reward_version="v2",
        source="Meta-World 3 (package metaworld 3.1)",
        episode_metrics={"near_object": "any", "grasp_success": "any", "obj_to_target": "last"},
    )


def _alone(task: str) -> TaskSet:
    """One task as a set of its own: ``pick-place`` is ``MetaWorldPickPlace-v0``."""
    return _task_set(f"MetaWorld{task.title().replace('-', '')}-v0", (task,))


# id -> task set
META_WORLD: dict[str, TaskSet] = {
    task_set.env_id: task_set
    for task_set in (
        _task_set("MetaWorldMT10-v0", _MT10),
        _task_set("MetaWorldMT50-v0", _MT50),
        *(_alone(task) for task in _MT10),
    )
}

MT10 = frozenset(META_WORLD["MetaWorldMT10-v0"].task_names)  # what is judged in batches
GOALS = 50  # of a sub-environment, as in Meta-World's benchmarks
INFO = ("near_object", "grasp_success", "grasp_reward", "in_place_reward", "obj_to_target")
ASYNC_CORES = 4  # from this many cores on, processes of their own are faster than a loop
ASYNC_ENVS_PER_CORE = 16  # a process takes about 20 MB; more of them only wait for each other

# Hand, opening of the gripper, two objects. Meta-World clips the observed hand, opening and goal to such bounds.
_FRAME_LOW = [-0.525, 0.348, -0.0525, 0.0, *[-np.inf] * 14]
_FRAME_HIGH = [0.525, 1.025, 0.7, 1.0, *[np.inf] * 14]
# The smallest box around the goal boxes of all 50 tasks.
_GOAL_LOW, _GOAL_HIGH = [-0.5, 0.4, -0.15], [0.51, 1.0, 0.5]


def spaces() -> tuple[gym.spaces.Box, gym.spaces.Box]:
    """Of observations and of actions, the same for all tasks."""
    low = np.array([*_FRAME_LOW, *_FRAME_LOW, *_GOAL_LOW], dtype=np.float32)
    high = np.array([*_FRAME_HIGH, *_FRAME_HIGH, *_GOAL_HIGH], dtype=np.float32)
    return gym.spaces.Box(low, high), gym.spaces.Box(-1.0, 1.0, (4,), np.float32)


def draw_goal(rng: np.random.Generator, goals_seed: int | None) -> tuple[int, np.random.Generator]:
    """One of a sub-environment's goals: the seed of all of them (drawn if there is none), where this one comes from."""
    if goals_seed is None:
        goals_seed = int(rng.integers(2**63))
    return goals_seed, np.random.default_rng([goals_seed, int(rng.integers(GOALS))])


class MetaWorldEnv(gym.Env[Array, Array]):
    """One Meta-World task: ``MetaWorldEnv("MetaWorldMT10-v0", task=3)``.

    Observation (39,) float32: a frame, the frame of the step before (after a reset the same one), the goal's
    position. A frame (18,): the hand's position (3), opening of the gripper (1), position and orientation of two
    objects (7 each, zeros where there is no second one). Metres, metres / 0.1 for the opening; the order of a
    quaternion's components differs between tasks, as in Meta-World. Action (4,): movement of the hand in x, y, z
    (centimetres per step) and closing of the gripper. A step is 0.0125 s. Reward: Meta-World's version 2, in [0, 10].
    No termination; truncation after 500 steps.

    ``reset(seed=)`` fixes 50 goals, and which of them each following episode is given: one drawn at every reset, with
    replacement. Environments with different seeds have different goals.

    Args:
        env_id: which task set, a key of `META_WORLD`.
        task: index of the task, 0 to T - 1.
        max_episode_steps: truncation after this many steps instead of the task set's horizon.
        on_divergence: "raise", an error in the step where the simulation diverges, or "end": the episode is truncated
            there, with the observation before the step and a reward of 0; ``info["diverged"]`` tells.
        autoreset: whether a step after the end of an episode starts a new one, as Gymnasium's vector environments do
            in mode NEXT_STEP, instead of being an error.
        render_mode: None or "rgb_array".
        renderer: "numpy" or "mujoco", see `BatchedVectorEnv`.

    Raises:
        ModuleNotFoundError: the package ``metaworld`` is missing.
        TypeError, ValueError: arguments of a wrong type or out of range.
    """

    metadata: dict[str, Any] = {"render_modes": ["rgb_array"], "render_fps": 80}

    def __init__(
        self,
        env_id: str,
        task: int = 0,
        *,
        max_episode_steps: int | None = None,
        on_divergence: OnDivergence = "raise",
        autoreset: bool = False,
        render_mode: str | None = None,
        renderer: Renderer = "numpy",
    ) -> None:
        if env_id not in META_WORLD:
            raise ValueError(f"env_id must be one of {list(META_WORLD)}, got {env_id!r}")
        check_modes(render_mode, on_divergence, renderer)
        self.task_set = META_WORLD[env_id]
        self.task = int(assign_tasks(self.task_set, 1, [operator.index(task)])[0])
        self.max_episode_steps = self._limit = checked_limit(max_episode_steps, self.task_set)
        self.on_divergence = on_divergence
        self.render_mode = render_mode
        self.renderer = renderer
        self.metadata = {**type(self).metadata, "task_attribute": "task"}  # as `qmp_envs.single.SingleEnv`
        self.observation_space, self.action_space = spaces()
        self._autoreset = autoreset
        self._simulation = _simulation(self.task_set.task_names[self.task])
        self._goals_seed: int | None = None  # None: before the first reset
        self._elapsed = 0
        self._finished = self._diverged = False
        self._observation = np.zeros(39, dtype=np.float32)  # the last one, and
        self._details = dict.fromkeys(INFO, 0.0)  # what was told with it
        self._before: dict[str, Any] | None = None  # the state before the last step

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Array, dict[str, Any]]:
        """Start a new episode with one of the 50 goals; with ``seed`` these are new ones. ``options`` are not used.

        The limit of a `gymnasium.wrappers.TimeLimit` around this environment takes the place of its own.
        """
        if self._autoreset and self._finished:
            self._before = self.get_state()
        super().reset(seed=checked_seed(seed))
        self.max_episode_steps = outer_limit() or self._limit
        self._goals_seed, goal = draw_goal(self.np_random, None if seed is not None else self._goals_seed)
        observation = self._simulation.start(goal)
        self._elapsed, self._finished, self._diverged = 0, False, False
        self._observation, self._details = observation.astype(np.float32), dict.fromkeys(INFO, 0.0)
        return self._observation.copy(), self._info(success=False)

    def step(self, action: Array) -> tuple[Array, float, bool, bool, dict[str, Any]]:
        """A control step; ``action`` (4,) is clipped to [-1, 1].

        Raises:
            ValueError: an action of a wrong shape or with NaN.
            RuntimeError: before the first reset, or the episode is over.
            FloatingPointError: the simulation diverged (``on_divergence="raise"``); it must be reset.
        """
        self._require_reset("step")
        action = np.asarray(action, dtype=np.float32)
        if action.shape != (4,):
            raise ValueError(f"the action must have shape (4,), got {action.shape}")
        if self._diverged:
            raise RuntimeError("the simulation has diverged: call reset() first")
        if self._finished:
            if not self._autoreset:
                raise RuntimeError("the episode is over: call reset() first")
            observation, info = self.reset()
            return observation, 0.0, False, False, info
        if np.isnan(action).any():
            raise ValueError(f"the action must not be NaN: got {action} for {self._where()}")
        self._before = self.get_state()
        outcome = self._simulation.advance(np.clip(action, -1.0, 1.0))
        if outcome is None:
            return self._diverge()
        self._elapsed += 1
        self._finished = self._elapsed >= self.max_episode_steps
        state, reward, details = outcome
        self._observation, self._details = state.astype(np.float32), {key: float(details[key]) for key in INFO}
        info = self._info(success=bool(details["success"]))
        return self._observation.copy(), float(reward), False, self._finished, info

    def _diverge(self) -> tuple[Array, float, bool, bool, dict[str, Any]]:
        assert self._before is not None
        self.set_state(self._before)  # MuJoCo has put the simulation into its reset pose
        if self.on_divergence == "raise":
            self._diverged = True
            raise FloatingPointError(diverged(self._where()))
        self._elapsed += 1
        self._finished = True
        return self._observation.copy(), self.task_set.min_reward, False, True, self._info(success=False, diverged=True)

    def _info(self, *, success: bool, diverged: bool = False) -> dict[str, Any]:
        info = {"success": success, **self._details}
        return info | {"diverged": diverged} if self.on_divergence == "end" else info

    def render(self) -> npt.NDArray[np.uint8] | None:
        """Picture (H, W, 3) uint8, or None without a render mode."""
        if self.render_mode is None:
            gym.logger.warn("render() needs render_mode='rgb_array', given when the environment is made")
            return None
        self._require_reset("render")
        return self._simulation.picture(self.renderer)

    def get_state(self) -> dict[str, Any]:
        """Everything that the future depends on, as a tree of arrays, numbers and strings.

        Restoring it with `set_state`, here or in another process, continues bit-exactly. Before the first reset that
        is little: an environment that is given such a state must be reset first.
        """
        started = self._goals_seed is not None
        return {
            "env_id": self.task_set.env_id,
            "task": self.task,
            "goals_seed": self._goals_seed,
            "elapsed": self._elapsed,
            "finished": self._finished,
            "diverged": self._diverged,
            "observation": self._observation.copy(),
            "details": self._details.copy(),
            "rng": self.np_random.bit_generator.state if started else None,
            "simulation": self._simulation.state() if started else None,
        }

    def set_state(self, state: Mapping[str, Any]) -> None:
        """Restore what `get_state` returned.

        Raises:
            ValueError: the state is of another task set or task.
        """
        if (state["env_id"], state["task"]) != (self.task_set.env_id, self.task):
            raise ValueError(
                f"expected a state of {self.task_set.env_id} with task {self.task}, "
                f"got one of {state['env_id']} with task {state['task']}"
            )
        self._goals_seed, self._elapsed, self._finished = state["goals_seed"], state["elapsed"], state["finished"]
        self._diverged = state.get("diverged", False)  # not in states of before there were these entries
        self._observation = np.array(state.get("observation", np.zeros(39)), dtype=np.float32)
        self._details = dict(state.get("details", dict.fromkeys(INFO, 0.0)))
        if self._goals_seed is None:  # as new
            self._np_random = self._np_random_seed = None
            return
        self._simulation.resume(state["simulation"])
        self.np_random.bit_generator.state = state["rng"]

    def __getstate__(self) -> dict[str, Any]:
        kept = {key: value for key, value in self.__dict__.items() if key != "_simulation"}
        return kept | {"saved": None if self._goals_seed is None else self._simulation.state()}

    def __setstate__(self, state: dict[str, Any]) -> None:
        saved = state["saved"]
        self.__dict__.update({key: value for key, value in state.items() if key != "saved"})
        self._simulation = _simulation(self.task_set.task_names[self.task])
        if saved is not None:
            self._simulation.resume(saved)

    # What vector environments hand out one by one are attributes.
    state = property(get_state, set_state)

    @property
    def before(self) -> dict[str, Any] | None:
        """The state before the last step, or before the reset that an ``autoreset`` step was."""
        return self._before

    def _require_reset(self, method: str) -> None:
        if self._goals_seed is None:
            raise RuntimeError(f"{method}() before the first reset(): call reset() first")

    def _where(self) -> str:
        return f"task {self.task} {self.task_set.task_names[self.task]!r}, step {self._elapsed + 1} of its episode"


@contextmanager
def _needs_meta_world() -> Iterator[None]:
    try:
        yield
    except ModuleNotFoundError as error:
        package = (error.name or "").partition(".")[0]
        commands = {"metaworld": "pip install metaworld==3.1.1", "mujoco": "pip install 'qmp-collect[metaworld]'"}
        if package not in commands:
            raise
        raise missing("MetaWorldMT10-v0 and MetaWorldMT50-v0", package, commands[package]) from error


def _simulation(task_name: str) -> Sawyer:
    with _needs_meta_world():
        from qmp_envs.sawyer import simulation
    return simulation(task_name)


def make_vector_env(
    env_id: str,
    num_envs: int = 1,
    *,
    vector_strategy: Literal["batched", "sync", "async"] | None = None,
    **kwargs: Any,
) -> MetaWorldBatchedVectorEnv | MetaWorldSyncVectorEnv | MetaWorldAsyncVectorEnv:
    """N sub-environments of MT10 or MT50; sub-environment ``i`` has task ``i % T``.

    Each is seeded by itself: ``reset(seed=s)`` gives ``s + i`` to sub-environment ``i``. All strategies give the same
    numbers, and each continues from the others' states.

    Args:
        env_id: which task set, a key of `META_WORLD`.
        num_envs: N.
        vector_strategy: "batched" steps the physics of all in native threads and judges the tasks of MT10
            without Meta-World's Python, other tasks with it, one after the other; "sync" steps one after the other with
            Meta-World's Python, "async" in N processes. None is "async" if not all tasks are MT10's, there are
            at least `ASYNC_CORES` cores that this process may use, and 2 sub-environments or more, but no more than
            `ASYNC_ENVS_PER_CORE` for each core, and this process may start others (a daemonic one may not); else
            "batched".
        kwargs: ``task_ids``, (N,) task of each sub-environment; ``autoreset_mode``, one of Gymnasium's three;
            ``max_episode_steps``, ``on_divergence``, ``render_mode`` and ``renderer``, see `MetaWorldEnv`; ``nthread``,
            see `MetaWorldBatchedVectorEnv` ("batched" only).

    Raises:
        ModuleNotFoundError: the package ``metaworld`` is missing.
        RuntimeError: "async" where no processes can be started.
        ValueError: arguments out of range.
    """
    if vector_strategy not in (None, "batched", "sync", "async"):
        raise ValueError(f"vector_strategy must be 'batched', 'sync', 'async' or None, got {vector_strategy!r}")
    if env_id not in META_WORLD:
        raise ValueError(f"env_id must be one of {list(META_WORLD)}, got {env_id!r}")
    if vector_strategy is None:
        tasks = assign_tasks(META_WORLD[env_id], num_envs, kwargs.get("task_ids"))
        cores = usable_cores()
        unbatched = not all(META_WORLD[env_id].task_names[task] in MT10 for task in tasks)
        worthwhile = unbatched and cores >= ASYNC_CORES and 2 <= num_envs <= ASYNC_ENVS_PER_CORE * cores
        allowed = not multiprocessing.current_process().daemon
        vector_strategy = "async" if worthwhile and allowed else "batched"
    if vector_strategy == "batched":
        with _needs_meta_world():
            from qmp_envs.meta_world_batch import MetaWorldBatchedVectorEnv
        return MetaWorldBatchedVectorEnv(env_id, num_envs, **kwargs)
    from qmp_envs.meta_world_vector import MetaWorldAsyncVectorEnv, MetaWorldSyncVectorEnv

    vector_class = MetaWorldAsyncVectorEnv if vector_strategy == "async" else MetaWorldSyncVectorEnv
    return vector_class(env_id, num_envs, **kwargs)
