"""A task set of one's own stands beside those of the package."""

from __future__ import annotations

import dataclasses

import gymnasium as gym
import numpy as np
import pytest

import qmp_envs
from qmp_collect.runs.video import check_filmable
from qmp_envs import BatchedVectorEnv, TaskSet

CIRCLE = TaskSet(
    env_id="Circle2-v0",
    task_names=("left", "right"),
    horizon=5,
    success_rule="never",
    min_reward=-1.0,
    reward_version="none",
    source="a test",
)


class CircleVectorEnv(BatchedVectorEnv):
    def __init__(self, env_id, num_envs=1, **kwargs):
        super().__init__(CIRCLE, gym.spaces.Box(-9, 9, (1,)), gym.spaces.Box(-1, 1, (1,)), num_envs=num_envs, **kwargs)
        self._episode["angle"] = np.zeros(num_envs)

    def _start(self, rows):
        self._episode["angle"][rows] = [self.rngs[i].uniform(-1, 1) for i in rows]

    def _advance(self, actions):
        self._episode["angle"] += actions[:, 0]

    def _judge(self):
        sign = np.array([-1.0, 1.0])[self.task_ids]
        never = np.zeros(self.num_envs, bool)
        return sign * self._episode["angle"], never, {"success": never.copy()}

    def _observe(self):
        return self._episode["angle"][:, None].astype(np.float32)


@pytest.fixture
def registered():
    before = list(qmp_envs.TASK_SETS)
    qmp_envs.register(CIRCLE, CircleVectorEnv)
    yield
    del qmp_envs._OWN[CIRCLE.env_id], gym.registry[CIRCLE.env_id]
    assert list(qmp_envs.TASK_SETS) == before


@pytest.mark.usefixtures("registered")
def test_it_is_made_like_the_others():
    assert qmp_envs.TASK_SETS["Circle2-v0"] is CIRCLE
    assert "Circle2-v0" in qmp_envs.TASK_SETS
    assert list(qmp_envs.TASK_SETS)[-1] == "Circle2-v0"
    assert len(qmp_envs.TASK_SETS) == len(list(qmp_envs.TASK_SETS))
    envs = gym.make_vec("Circle2-v0", num_envs=3, on_divergence="end", autoreset_mode="SameStep")
    assert envs.unwrapped.task_ids.tolist() == [0, 1, 0]
    first, _ = envs.reset(seed=4)
    assert envs.step(np.full((3, 1), 0.5))[1] == pytest.approx([-1, 1, -1] * (first[:, 0] + 0.5))
    env = gym.make("Circle2-v0", task=1)
    obs, _ = env.reset(seed=5)
    assert obs == pytest.approx(first[1]), "sub-environment 1 was seeded with 5"
    for step in range(5):
        _, _, terminated, truncated, _ = env.step(np.zeros(1, np.float32))
        assert (terminated, truncated) == (False, step == 4)


@pytest.mark.usefixtures("registered")
def test_it_has_pictures_if_it_draws_them():
    assert gym.make("Circle2-v0").metadata["render_modes"] == []
    with pytest.raises(ValueError, match="Circle2-v0 cannot be filmed: its class has no _draw"):
        check_filmable("Circle2-v0")

    class Drawn(CircleVectorEnv):
        metadata = {**CircleVectorEnv.metadata, "render_fps": 3}

        def _draw(self, index):
            return np.full((2, 3, 3), index, np.uint8)

    qmp_envs.register(CIRCLE, Drawn)
    check_filmable("Circle2-v0")
    env = gym.make("Circle2-v0", task=1, render_mode="rgb_array")
    env.reset(seed=1)
    assert env.render().tolist() == np.zeros((2, 3, 3)).tolist()
    assert env.metadata["render_fps"] == 3


@pytest.mark.usefixtures("registered")
def test_a_module_may_run_twice():
    qmp_envs.register(dataclasses.replace(CIRCLE), CircleVectorEnv)
    assert gym.make("Circle2-v0").unwrapped.task_set == CIRCLE


@pytest.mark.usefixtures("registered")
def test_what_cannot_be_registered():
    with pytest.raises(ValueError, match="'Circle2-v0' is another task set's id"):
        qmp_envs.register(dataclasses.replace(CIRCLE, horizon=6), CircleVectorEnv)
    with pytest.raises(ValueError, match="'Maze3-v0' is another task set's id"):
        qmp_envs.register(dataclasses.replace(CIRCLE, env_id="Maze3-v0"), CircleVectorEnv)
    with pytest.raises(ValueError, match=r"env_id must end with a version, such as Circle2-v0, got 'Circle2'"):
        qmp_envs.register(dataclasses.replace(CIRCLE, env_id="Circle2"), CircleVectorEnv)
    with pytest.raises(TypeError, match=r"a subclass of qmp_envs\.BatchedVectorEnv, got <class 'object'>"):
        qmp_envs.register(CIRCLE, object)
