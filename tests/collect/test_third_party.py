"""Learners that know nothing of this library: Stable-Baselines3's SAC, and Q-learning in NumPy alone."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import gymnasium as gym
import numpy as np
import pytest
from collect_envs import CountingEnv, Recorder, make_envs

from qmp_collect import QMPCollector, evaluate

SPACE = gym.spaces.Box(-2.0, 2.0, (2,), np.float32)
TASKS = [0, 1, 0]
SETTINGS = [
    {"lengths": (4,), "action_space": SPACE},
    {"lengths": (3, 5), "ends": ("terminated", "truncated"), "action_space": SPACE},
    {"lengths": (2, 7), "ends": ("both", "truncated"), "action_space": SPACE},
]


def test_a_learner_without_torch_learns():
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    script = Path(__file__).with_name("numpy_learner.py")
    done = subprocess.run([sys.executable, str(script)], capture_output=True, text=True, env=env, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == ["learned"]


@pytest.fixture(scope="module")
def sac():
    """Two SAC models of Stable-Baselines3, one per task, whose actions lie in [-2, 2]."""
    sb3 = pytest.importorskip("stable_baselines3")

    def model(seed):
        env = CountingEnv(action_space=SPACE)
        return sb3.SAC("MlpPolicy", env, buffer_size=400, batch_size=16, seed=seed, policy_kwargs={"net_arch": [16]})

    return [model(seed) for seed in range(2)]


def test_stable_baselines_models_share_behaviour_and_train(sac):
    import torch

    from qmp_collect.adapters import sb3_agents

    policies, q_functions, sinks = sb3_agents(sac)
    recorder = Recorder()

    class Both:
        def __init__(self, sink):
            self.sink = sink

        def add(self, transitions):
            self.sink.add(transitions)
            recorder.add(transitions)

    collector = QMPCollector(
        make_envs(*SETTINGS, mode="NextStep"),
        policies,
        q_functions,
        task_ids=TASKS,
        buffer=[Both(sink) for sink in sinks],
        seed=0,
    )
    stats = collector.collect(n_step=300)
    assert (stats.behavior_counts > 0).all(), "the two models are meant to share behaviour"

    for task, model in enumerate(sac):
        rows, buffer = recorder.of_task(task), model.replay_buffer
        n = len(rows["obs"])
        assert buffer.size() == model.num_timesteps == n > 90
        np.testing.assert_allclose(buffer.observations[:n, 0], rows["obs"], rtol=1e-6)
        np.testing.assert_allclose(buffer.next_observations[:n, 0], rows["next_obs"], rtol=1e-6)
        np.testing.assert_allclose(buffer.rewards[:n, 0], rows["rewards"], rtol=1e-6)
        # What the models learn from: actions in [-1, 1], and dones that are true ends only.
        np.testing.assert_allclose(buffer.actions[:n, 0], rows["actions"] / 2, atol=1e-6)
        np.testing.assert_array_equal((buffer.dones * (1 - buffer.timeouts))[:n, 0], rows["terminations"])
        np.testing.assert_array_equal(buffer.dones[:n, 0], rows["terminations"] | rows["truncations"])
        assert rows["truncations"].any()
        assert task == 0 or rows["terminations"].any()

        before = [p.detach().clone() for p in model.policy.parameters()]
        model.train(gradient_steps=3, batch_size=16)
        moved = [bool((a != b).any()) for a, b in zip(before, model.policy.parameters(), strict=True)]
        assert any(moved)
        assert all(torch.isfinite(p).all() for p in model.policy.parameters())

    own = [lambda obs, m=model: 2 * m.actor(obs, deterministic=True) for model in sac]
    results = [evaluate(make_envs(*SETTINGS), own, task_ids=TASKS, backend="torch", seed=0).returns for _ in range(2)]
    np.testing.assert_array_equal(*results)
