"""Time-outs do not end the world: a critic learns 1 / (1 - gamma) from data in which every episode is cut."""

from __future__ import annotations

import numpy as np
import pytest
from collect_envs import MODES, Recorder, RingEnv
from gymnasium.vector import SyncVectorEnv

from qmp_collect import QMPCollector

GAMMA, SIZE = 0.95, 3


def ring_data(mode) -> Recorder:
    """Two tasks on a ring of states: reward 1 at every step, a time-out after every fourth."""
    sink = Recorder()
    envs = SyncVectorEnv([lambda: RingEnv(SIZE, limit=4)] * 2, autoreset_mode=mode)
    policies = [lambda obs: np.zeros(len(obs), np.int64), lambda obs: np.ones(len(obs), np.int64)]
    q_functions = [lambda obs: np.zeros((len(obs), 2))] * 2
    QMPCollector(envs, policies, q_functions, buffer=sink, seed=0).collect(n_step=240)
    return sink


def learned_values(sink: Recorder, cut: np.ndarray) -> np.ndarray:
    """Tabular TD(0), `cut` saying which transitions do not bootstrap: the value of every state."""
    values = np.zeros(SIZE)
    state, successor, reward = (sink.column(field) for field in ("obs", "next_obs", "rewards"))
    for _ in range(500):
        targets = reward + GAMMA * ~cut * values[successor]
        values = np.bincount(state, targets, minlength=SIZE) / np.bincount(state, minlength=SIZE)
    return values


@pytest.mark.parametrize("mode", MODES)
def test_truncated_episodes_are_worth_their_infinite_future(mode):
    sink = ring_data(mode)
    assert sink.column("truncations").sum() == len(sink) // 4 > 0
    np.testing.assert_allclose(learned_values(sink, sink.column("terminations")), 1 / (1 - GAMMA), atol=0.01)
    np.testing.assert_array_equal(sink.column("next_obs"), (sink.column("obs") + 1) % SIZE)


@pytest.mark.parametrize("mode", MODES)
def test_time_outs_taken_for_terminals_are_off_by_more_than_one(mode):
    """What the test above would miss if it could not fail."""
    sink = ring_data(mode)
    wrong = learned_values(sink, sink.column("terminations") | sink.column("truncations"))
    assert (1 / (1 - GAMMA) - wrong > 1).all()
