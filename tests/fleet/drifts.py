"""Collectors that a fleet's tests run: NumPy only, in an environment whose whole state can be saved."""

from __future__ import annotations

import os
import sys
import time
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np

from qmp_collect import QMPCollector, Transitions
from qmp_collect.fleet import Shard
from qmp_collect.host import Recorder, seeded, shard_seed

T, LENGTH, SEED = 3, 7, 5


class Drift(gym.Env):
    """Observation (task, t, position); the position moves by the action and by noise of the environment."""

    observation_space = gym.spaces.Box(-np.inf, np.inf, (3,), np.float64)
    action_space = gym.spaces.Box(-5.0, 5.0, (1,), np.float64)

    def __init__(self, task: int, before_step: Any) -> None:
        self.task, self.before_step = task, before_step
        self.t, self.total, self.position = 0, 0, 0.0

    def _obs(self) -> np.ndarray:
        return np.array([self.task, self.t, self.position])

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.t, self.position = 0, self.np_random.normal()
        return self._obs(), {}

    def step(self, action):
        self.before_step(self.task, self.total)
        self.t, self.total = self.t + 1, self.total + 1
        self.position += float(action[0]) + self.np_random.normal()
        return self._obs(), -abs(self.position - self.task), False, self.t == LENGTH, {"success": self.position > 0}


class Drifts(gym.vector.SyncVectorEnv):
    def get_state(self) -> dict[str, Any]:
        envs = [env.unwrapped for env in self.envs]
        return {
            "envs": [[e.t, e.total, e.position] for e in envs],
            "rng": [e.np_random.bit_generator.state for e in envs],
            "obs": np.stack(self._env_obs),
            "over": self._autoreset_envs.copy(),
        }

    def set_state(self, state: dict[str, Any]) -> None:
        for env, (t, total, position), rng in zip(self.envs, state["envs"], state["rng"], strict=True):
            env.unwrapped.t, env.unwrapped.total, env.unwrapped.position = int(t), int(total), float(position)
            env.unwrapped.np_random.bit_generator.state = rng
        self._env_obs, self._autoreset_envs = list(np.asarray(state["obs"])), np.array(state["over"])


@dataclass
class Make:
    """A ``make_collector`` of all T tasks on each host, with something that may happen in the environments.

    Attributes:
        traps: folder: a host that is about to make the step of a file ``HOST-STEP.armed`` renames it to ``.sprung``,
            with the id of its Ray node in it, and sleeps until it is killed.
        fails: host, task and step with which an environment raises.
        slow: host, and seconds that each of its steps takes.
    """

    traps: str | None = None
    fails: tuple[int, int, int] | None = None
    slow: tuple[int, float] = (-1, 0.0)

    def __call__(self, shard: Shard) -> tuple[QMPCollector, Any]:
        def before_step(task: int, step: int) -> None:
            if (shard.host, task, step) == self.fails:
                raise ArithmeticError("the arm is stuck")
            if self.traps is not None and task == 0:
                armed = Path(self.traps, f"{shard.host}-{step}.armed")
                if armed.exists():
                    armed.write_text(ray_node())
                    os.replace(armed, armed.with_suffix(".sprung"))
                    time.sleep(3600)
            if shard.host == self.slow[0]:
                time.sleep(self.slow[1])

        envs = Drifts([lambda task=task: Drift(task, before_step) for task in range(T)])
        learner: dict[str, np.ndarray] = {}  # empty: whoever acts without weights fails

        def policy(task):
            def act(obs):
                noise = np.random.normal(size=len(obs))  # of the global generator, as torch.randn is
                return (learner["gain"][task] * (task - obs[:, 2]) + noise)[:, None].clip(-5, 5)

            return act

        def q_function(task):
            return lambda obs, actions: -((obs[:, 2] + actions[:, 0] - task) ** 2) * learner["scale"][task]

        collector = QMPCollector(
            envs,
            [policy(task) for task in range(T)],
            [q_function(task) for task in range(T)],
            buffer=shard.buffer,
            seed=shard.seed,
        )
        return collector, lambda weights: learner.update({name: np.array(array) for name, array in weights.items()})


def ray_node() -> str:
    ray: Any = sys.modules.get("ray")
    return ray.get_runtime_context().get_node_id() if ray else ""


def weights(version: int) -> dict[str, np.ndarray]:
    return {"gain": np.linspace(0.1, 0.9, T) / (1 + version), "scale": np.ones(T)}


def digest(transitions: Transitions) -> list[tuple[str, bytes]]:
    """All bytes, and of which types."""
    columns = [getattr(transitions, field.name) for field in fields(transitions)]
    return [(str(column.dtype), column.tobytes()) for column in columns]


def one_process(hosts: int, rounds: int, n_step: int) -> list[Any]:
    """What a synchronous fleet must collect: a loop that knows no hosts, of collectors with the same shards."""
    made = []
    for host in range(hosts):
        recorder = Recorder()
        made.append((*Make()(Shard(host, hosts, shard_seed(SEED, host), recorder)), recorder))
    found = []
    for version in range(rounds):
        for host, (collector, set_weights, recorder) in enumerate(made):
            set_weights(weights(version))
            with seeded(SEED, host, version):
                stats = collector.collect(n_step=n_step // hosts + (host < n_step % hosts))
            found.append((host, version, version, digest(recorder.take()), stats.returns.tolist()))
    return found


def told(part: Any) -> Any:
    """A part as `one_process` tells of it."""
    return part.host, part.sequence, part.version, digest(part.transitions), part.stats.returns.tolist()
