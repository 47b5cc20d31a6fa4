"""Plain single environments, one class a task, as a task set."""

from __future__ import annotations

import dataclasses
import sys

import gymnasium as gym
import numpy as np
import pytest

import qmp_envs
from qmp_collect.runs.__main__ import main as qmp
from qmp_envs import TaskSet

LINE = TaskSet(
    env_id="Line2-v0",
    task_names=("left", "right"),
    horizon=5,
    success_rule="beyond 1 on the task's side",
    min_reward=-9.0,
    reward_version="position",
    source="a test",
    episode_metrics={"place": "last"},
)


class Left(gym.Env):
    observation_space = gym.spaces.Box(-9, 9, (1,))
    action_space = gym.spaces.Box(-1, 1, (1,))
    metadata = {"render_modes": ["rgb_array"], "render_fps": 5}
    sign = -1.0

    def __init__(self, render_mode=None):
        self.render_mode = render_mode

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.place = self.np_random.uniform(-0.1, 0.1, 1)
        return self.place.astype(np.float32), {}

    def step(self, action):
        self.place = self.place + action
        there = bool(self.sign * self.place[0] > 1)
        info = {"success": there, "place": float(self.place[0])}
        return self.place.astype(np.float32), self.sign * float(self.place[0]), there, False, info

    def render(self):
        return np.zeros((20, 30, 3), np.uint8)


class Right(Left):
    sign = 1.0


@pytest.fixture
def registered():
    qmp_envs.register_envs(LINE, [Left, Right])
    qmp_envs.register_envs(dataclasses.replace(LINE), [Left, Right])  # a module may run twice
    yield
    del qmp_envs._OWN["Line2-v0"], gym.registry["Line2-v0"]


@pytest.mark.usefixtures("registered")
def test_it_is_made_like_the_others():
    assert qmp_envs.TASK_SETS["Line2-v0"] is not None
    envs = gym.make_vec("Line2-v0", num_envs=3, on_divergence="end", autoreset_mode="SameStep")
    assert envs.unwrapped.task_ids.tolist() == [0, 1, 0]
    assert (envs.unwrapped.num_tasks, envs.unwrapped.episode_metrics) == (2, {"place": "last"})
    first, _ = envs.reset(seed=4)
    rewards = envs.step(np.full((3, 1), 0.9, np.float32))[1]
    assert rewards == pytest.approx([-1, 1, -1] * (first[:, 0] + 0.9), abs=1e-6)
    env = gym.make("Line2-v0", task=1, on_divergence="end")
    obs, _ = env.reset(seed=5)
    assert obs == pytest.approx(first[1]), "sub-environment 1 was seeded with 5"
    ends = [env.step(np.zeros(1, np.float32))[2:4] for _ in range(5)]
    assert ends == [(False, False)] * 4 + [(False, True)]
    assert gym.make_vec("Line2-v0", num_envs=1, task_ids=[1], max_episode_steps=2).reset(seed=1)[0].shape == (1, 1)


@pytest.mark.usefixtures("registered")
def test_a_script_as_it_is_and_its_films(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["qmp"])  # which the command changes
    tiny = (
        "--env-id Line2 --total-timesteps 40 --env-steps-per-round 10 --gradient-steps-per-round 1 --eval-every 40 "
        "--min-buffer-size 10 --batch-size 8 --hidden-dim 8 --eval-episodes 1 --matmul-precision highest --run-dir"
    )
    qmp(["train", "sac_qmp_separate", *tiny.split(), str(tmp_path / "run")])
    capsys.readouterr()
    qmp(["enjoy", str(tmp_path / "run"), "--episodes", "1", "--gifs", "--mixture"])
    assert "place" in capsys.readouterr().out
    pictures = {path.name for path in (tmp_path / "run" / "enjoy").iterdir()}
    assert pictures == {f"{task}.{kind}" for task in ("mixture_left", "mixture_right") for kind in ("gif", "png")} | {
        "left.gif",
        "right.gif",
    }


def test_what_cannot_be_registered():
    with pytest.raises(ValueError, match="expected 2 constructors, one for each task, got 1"):
        qmp_envs.register_envs(LINE, [Left])
    with pytest.raises(TypeError, match=r"functions or classes that make an environment, got <.*Left"):
        qmp_envs.register_envs(LINE, [Left(), Right()])
    with pytest.raises(ValueError, match="'Maze3-v0' is another task set's id"):
        qmp_envs.register_envs(dataclasses.replace(LINE, env_id="Maze3-v0"), [Left, Right])
    assert "Line2-v0" not in qmp_envs.TASK_SETS
