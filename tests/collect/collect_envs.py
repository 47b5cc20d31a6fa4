"""Environments with known trajectories, the callables that act in them, and the scalar loops they are judged by.

Everything is exact in binary floating point (actions and rewards are multiples of 1/16), so that what a collector
stores can be compared with `==`.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import gymnasium as gym
import numpy as np
from gymnasium.vector import AsyncVectorEnv, AutoresetMode, SyncVectorEnv

BOX = gym.spaces.Box(0.0, 1.0, (2,), np.float32)
FIELDS = (
    "obs",
    "actions",
    "rewards",
    "next_obs",
    "terminations",
    "truncations",
    "task_ids",
    "behavior_ids",
    "env_ids",
)
MODES = list(AutoresetMode)


class CountingEnv(gym.Env[Any, Any]):
    """Observation (env id, episode, t, noise); the noise comes from the env's own seeded generator.

    Episode e lasts ``lengths[e % len(lengths)]`` steps and ends as ``ends[e % len(ends)]`` says ("terminated",
    "truncated" or "both"). ``success`` is true only at step ``e % 4`` (in the middle, at the last step or never,
    by the episode's length) and, as a trap, in the info of every reset. ``scribble`` overwrites the action given.
    Step number ``fail_at`` fails; the default ends what would otherwise collect forever.
    """

    def __init__(
        self,
        env_id: int = 0,
        lengths: tuple[int, ...] = (3,),
        ends: tuple[str, ...] = ("truncated",),
        action_space: gym.Space[Any] = BOX,
        fail_at: int = 20_000,
        scribble: bool = False,
    ) -> None:
        self.env_id, self.lengths, self.ends = env_id, lengths, ends
        self.fail_at, self.scribble = fail_at, scribble
        self.observation_space = gym.spaces.Box(-np.inf, np.inf, (4,), np.float64)
        self.action_space = action_space
        self.episode, self.t, self.total = -1, 0, 0

    def _obs(self) -> np.ndarray:
        return np.array([self.env_id, self.episode, self.t, self.np_random.random()])

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.episode = 0 if seed is not None else self.episode + 1
        self.t = 0
        return self._obs(), {"success": True}

    def step(self, action):
        if self.total == self.fail_at:
            raise EngineError(f"env {self.env_id} diverged")
        self.total += 1
        length, end = (cycle[self.episode % len(cycle)] for cycle in (self.lengths, self.ends))
        if self.t >= length:
            raise RuntimeError(f"env {self.env_id} was stepped past the end of its episode")
        reward = 16.0 * self.env_id + 4.0 * self.episode + self.t + float(np.sum(action))
        if self.scribble:
            action[...] = -7
        success = self.t == self.episode % 4
        self.t += 1
        done = self.t == length
        return self._obs(), reward, done and end != "truncated", done and end != "terminated", {"success": success}

    def get_state(self) -> dict[str, Any]:
        return {"count": [self.episode, self.t, self.total], "rng": self.np_random.bit_generator.state}

    def set_state(self, state: dict[str, Any]) -> None:
        self.episode, self.t, self.total = (int(x) for x in state["count"])
        self.np_random.bit_generator.state = state["rng"]


class EngineError(Exception):
    """What a physics engine raises in the middle of a step."""


class SnapshotVectorEnv(SyncVectorEnv):
    """A vector env whose whole state can be saved and restored."""

    def get_state(self) -> dict[str, Any]:
        return {
            "envs": [env.unwrapped.get_state() for env in self.envs],
            "obs": np.stack(self._env_obs),
            "done": self._autoreset_envs.copy(),
        }

    def set_state(self, state: dict[str, Any]) -> None:
        for env, env_state in zip(self.envs, state["envs"], strict=True):
            env.unwrapped.set_state(env_state)
        self._env_obs = list(np.asarray(state["obs"]))
        self._autoreset_envs = np.array(state["done"])


class RingEnv(gym.Env[Any, Any]):
    """Infinite horizon: `size` states in a ring, reward 1 forever, cut by a time-out every `limit` steps."""

    def __init__(self, size: int = 3, limit: int = 4) -> None:
        self.size, self.limit = size, limit
        self.observation_space = gym.spaces.Discrete(size)
        self.action_space = gym.spaces.Discrete(2)
        self.state = self.t = 0

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.state, self.t = int(self.np_random.integers(self.size)), 0
        return self.state, {}

    def step(self, action):
        self.state, self.t = (self.state + 1) % self.size, self.t + 1
        return self.state, 1.0, False, self.t == self.limit, {}


def make_envs(*settings: dict[str, Any], mode: AutoresetMode | str = "SameStep", vector=SyncVectorEnv, **kwargs: Any):
    """One `CountingEnv` per settings dict (its env id is the position unless given)."""

    def maker(i: int, options: dict[str, Any]):
        return lambda: CountingEnv(**{"env_id": i, **options})

    fns = [maker(i, options) for i, options in enumerate(settings)]
    return vector(fns, autoreset_mode=AutoresetMode(mode), **kwargs)


def endless(num_envs: int, *, action_space: gym.Space[Any] = BOX, **kwargs: Any) -> SyncVectorEnv:
    """`num_envs` counting envs whose first episode outlasts every test."""
    return make_envs(*[{"lengths": (10**6,), "action_space": action_space}] * num_envs, **kwargs)


# ---- callables: plain functions of the observation, so a scalar loop can repeat what the collector asked ----


def _mix(obs: np.ndarray, k: int) -> np.ndarray:
    """A number in [0, 1) that depends on every part of the observation and on k."""
    weights = np.array([0.37, 0.71, 1.13, 5.9]) * (k + 1)
    return np.abs(np.sin((obs * weights).sum(-1) + k)) % 1.0


def policy(k: int, space: gym.Space[Any] = BOX):
    """Deterministic policy k: (M, 4) -> (M, *A), exact in float32."""

    def act(obs):
        if isinstance(space, gym.spaces.Discrete):
            return (space.start + np.floor(space.n * _mix(obs, k))).astype(space.dtype)
        return np.stack([np.floor(16 * _mix(obs, k + 10 * d)) / 16 for d in range(2)], -1).astype(space.dtype)

    return act


def q_function(t: int, space: gym.Space[Any] = BOX):
    """Critic t; its favourite action moves with the state, so that every policy wins now and then."""
    if isinstance(space, gym.spaces.Discrete):
        return lambda obs: np.stack([_mix(obs, 20 + t + 3 * a) for a in range(space.n)], -1)
    return lambda obs, actions: -((actions.sum(-1) - 2 * _mix(obs, 30 + t)) ** 2)


def best_policy(obs: np.ndarray, own: int, policies, q, space: gym.Space[Any] = BOX) -> int:
    """The Q-switch for one state, by hand: best score, ties to the own policy, then to the lowest index."""
    actions = [p(obs[None]) for p in policies]
    if isinstance(space, gym.spaces.Discrete):
        scores = [float(q(obs[None])[0, a[0] - space.start]) for a in actions]
    else:
        scores = [float(q(obs[None], a)[0]) for a in actions]
    return own if scores[own] == max(scores) else int(np.argmax(scores))


class Row(NamedTuple):
    obs: np.ndarray
    actions: np.ndarray
    rewards: float
    next_obs: np.ndarray
    terminations: bool
    truncations: bool
    task_ids: int
    behavior_ids: int
    env_ids: int


class Episode(NamedTuple):
    task: int
    ret: float
    length: int
    success: bool


def scalar_loop(
    settings: dict[str, Any], env_id: int, task: int, policies, q, *, episodes: int, seed: int = 0, horizon: int = 1
) -> tuple[list[Row], list[Episode]]:
    """What one person stepping one env by hand with the Q-switch stores in `episodes` episodes."""
    env = CountingEnv(**{"env_id": env_id, **settings})
    rows: list[Row] = []
    done_episodes: list[Episode] = []
    obs, _ = env.reset(seed=seed + env_id)
    for _ in range(episodes):
        total, length, success, over, chosen = 0.0, 0, False, False, task
        while not over:
            if length % horizon == 0:
                chosen = best_policy(obs, task, policies, q, env.action_space)
            action = policies[chosen](obs[None])[0]
            next_obs, reward, terminated, truncated, info = env.step(action.copy())
            rows.append(Row(obs, action, reward, next_obs, terminated, truncated, task, chosen, env_id))
            total, length, success = total + reward, length + 1, success or info["success"]
            obs, over = next_obs, terminated or truncated
        done_episodes.append(Episode(task, total, length, success))
        obs, _ = env.reset()
    return rows, done_episodes


# ---- what came out ----


class Recorder:
    """A sink that keeps every `Transitions` it is given, by reference."""

    def __init__(self) -> None:
        self.parts: list[Any] = []

    def add(self, transitions: Any) -> None:
        self.parts.append(transitions)

    def __len__(self) -> int:
        return sum(len(part) for part in self.parts)

    def column(self, field: str) -> np.ndarray:
        return np.concatenate([getattr(part, field) for part in self.parts])

    def columns(self, where: np.ndarray | slice = slice(None)) -> dict[str, np.ndarray]:
        return {field: self.column(field)[where] for field in FIELDS}

    def of_env(self, env_id: int) -> dict[str, np.ndarray]:
        return self.columns(self.column("env_ids") == env_id)

    def of_task(self, task: int) -> dict[str, np.ndarray]:
        return self.columns(self.column("task_ids") == task)


def assert_same(actual: dict[str, np.ndarray], expected: dict[str, np.ndarray]) -> None:
    for field in FIELDS:
        np.testing.assert_array_equal(actual[field], expected[field], err_msg=field)


def assert_rows(actual: dict[str, np.ndarray], rows: list[Row]) -> None:
    assert len(actual["obs"]) == len(rows)
    assert_same(actual, {field: np.array([getattr(row, field) for row in rows]) for field in FIELDS})


def episodes_of(stats: Any) -> list[Episode]:
    """The finished episodes in `stats`, sorted, as the scalar loop describes them."""
    fields = (stats.episode_task_ids, stats.returns, stats.lens, stats.successes)
    columns = [np.asarray(field).tolist() for field in fields]
    return sorted(Episode(t, r, n, bool(s)) for t, r, n, s in zip(*columns, strict=True))


VECTORS = {"sync": SyncVectorEnv, "async": AsyncVectorEnv}
