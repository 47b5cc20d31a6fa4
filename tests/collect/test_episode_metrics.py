"""Episode metrics: what environments report in infos, reduced over the steps of an episode."""

from __future__ import annotations

import dataclasses
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from collect_envs import MODES
from gymnasium.vector import AutoresetMode, SyncVectorEnv

from qmp_collect import CollectStats, QMPCollector, evaluate

EVERY = {"hit": "any", "stage": "last", "speed": "mean", "height": "max"}
NAN = float("nan")


class ReportingEnv(gym.Env[Any, Any]):
    """Reports what its script says, step by step; None: nothing. Resets report what must not be counted."""

    observation_space = gym.spaces.Box(-9.0, 9.0, (1,), np.float32)
    action_space = gym.spaces.Box(-1.0, 1.0, (1,), np.float32)

    def __init__(self, *episodes: list[dict[str, Any]]) -> None:
        self.episodes, self.episode, self.t = episodes, -1, 0

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.episode, self.t = (self.episode + 1) % len(self.episodes), 0
        return np.zeros(1, np.float32), dict.fromkeys(EVERY, 99.0)

    def step(self, action):
        report = {key: value for key, value in self.episodes[self.episode][self.t].items() if value is not None}
        self.t += 1
        return np.zeros(1, np.float32), 1.0, False, self.t == len(self.episodes[self.episode]), report


def still(obs: np.ndarray) -> np.ndarray:
    return np.zeros((len(obs), 1), np.float32)


def collector_of(*envs: Any, mode: AutoresetMode = AutoresetMode.SAME_STEP, **kwargs: Any) -> QMPCollector:
    vector = SyncVectorEnv([(lambda env=env: env) for env in envs], autoreset_mode=mode)
    return QMPCollector(vector, [still] * len(envs), [lambda obs, actions: actions[:, 0]] * len(envs), **kwargs)


FIRST = [
    {"hit": False, "stage": 1, "speed": 1.0, "height": -3.0},
    {"hit": True, "stage": 3, "speed": 2.0, "height": -1.0},
    {"hit": False, "stage": 2, "speed": 6.0, "height": -2.0},
]
SECOND = [{"hit": False, "stage": 0, "speed": -1.0, "height": -5.0}]
OTHER = [{"hit": True, "stage": 7, "speed": 0.5, "height": 2.0}] * 2


@pytest.mark.parametrize("mode", MODES)
def test_reductions(mode):
    collector = collector_of(ReportingEnv(FIRST, SECOND), ReportingEnv(OTHER), mode=mode, episode_metrics=EVERY)
    stats = collector.collect(n_episode=2)
    order = np.argsort(stats.episode_task_ids, kind="stable")
    assert {name: values[order].tolist() for name, values in stats.metrics.items()} == {
        "hit": [1.0, 0.0, 1.0, 1.0],
        "stage": [2.0, 0.0, 7.0, 7.0],
        "speed": [3.0, -1.0, 0.5, 0.5],
        "height": [-1.0, -5.0, 2.0, 2.0],
    }
    assert {name: values.tolist() for name, values in stats.episode_means().items()} == {
        "return": [2.0, 2.0],
        "length": [2.0, 2.0],
        "hit": [0.5, 1.0],
        "stage": [1.0, 7.0],
        "speed": [1.0, 0.5],
        "height": [-3.0, 2.0],
    }
    scalars = stats.scalars(["a", "b"])
    assert scalars["charts/stage"] == 4.0
    assert (scalars["tasks/a/stage"], scalars["tasks/b/height"]) == (1.0, 2.0)


def test_reports_may_be_missing_in_some_steps():
    sparse = [
        {"hit": None, "stage": 5, "speed": 1.0, "height": None},
        {"hit": None, "stage": None, "speed": None, "height": -4.0},
        {"hit": 0, "stage": None, "speed": 3.0, "height": None},
    ]
    stats = collector_of(ReportingEnv(sparse), ReportingEnv(OTHER), episode_metrics=EVERY).collect(n_episode=1)
    assert {name: values[stats.episode_task_ids == 0].tolist() for name, values in stats.metrics.items()} == {
        "hit": [0.0],
        "stage": [5.0],
        "speed": [2.0],
        "height": [-4.0],
    }


@pytest.mark.parametrize("mode", MODES)
def test_a_key_that_infos_never_hold(mode):
    collector = collector_of(ReportingEnv(FIRST), mode=mode, episode_metrics={"hits": "any"})
    message = r"infos never held 'hits' in the episode that sub-environment 0 just ended; infos hold \[.*'hit', 'speed'"
    with pytest.raises(ValueError, match=message):
        collector.collect(n_episode=1)
    assert collector.num_steps == 2  # the episode's last step was not stored


@pytest.mark.parametrize(
    ("metrics", "message"),
    [
        ({"hit": "sum"}, r"episode_metrics\['hit'\] must be one of \['any', 'last', 'mean', 'max'\], got 'sum'"),
        ({"success": "any"}, "'success' is measured of every episode"),
        ({"return": "last"}, "'return' is measured of every episode"),
    ],
)
def test_wrong_metrics(metrics, message):
    with pytest.raises(ValueError, match=message):
        collector_of(ReportingEnv(FIRST), episode_metrics=metrics)


def test_reports_that_are_no_numbers():
    with pytest.raises(ValueError, match=r"infos\['stage'\] must hold one number per sub-environment, shape \(1,\)"):
        collector_of(ReportingEnv([{"stage": np.zeros(3)}]), episode_metrics={"stage": "last"}).collect(n_step=1)


def test_success_as_an_array_of_one_element():
    class OneElement(ReportingEnv):
        def reset(self, *, seed=None, options=None):
            return super().reset(seed=seed)[0], {}

    episode = [{"success": np.array([False])}, {"success": np.array([True])}]
    envs = [OneElement(episode), OneElement(episode[:1])]
    assert collector_of(*envs).collect(n_episode=1).successes.tolist() == [False, True]


def test_nan_is_kept_and_left_out_of_logs():
    stats = collector_of(ReportingEnv([{"speed": NAN}]), episode_metrics={"speed": "mean"}).collect(n_episode=1)
    assert np.isnan(stats.metrics["speed"]).tolist() == [True]
    assert "charts/speed" not in stats.scalars()


def test_sums_of_statistics():
    collector = collector_of(ReportingEnv(FIRST, SECOND), episode_metrics=EVERY)
    first, second = collector.collect(n_step=3), collector.collect(n_step=1)
    both = first + second
    assert both.metrics["stage"].tolist() == [2.0, 0.0]
    assert both.returns.tolist() == [3.0, 1.0]
    assert collector.stats().metrics["stage"].tolist() == [2.0, 0.0]
    with pytest.raises(ValueError, match=r"these statistics have the metrics \['height', .*, those .* have \[\]"):
        first + CollectStats.empty(1, 1)


def test_state_in_the_middle_of_an_episode():
    collector, other = (collector_of(ReportingEnv(FIRST, SECOND), episode_metrics=EVERY) for _ in range(2))
    collector.collect(n_step=2)
    other.collect(n_step=2)
    state = collector.state_dict()
    collector.collect(n_step=1)
    other.load_state_dict(state)
    assert other._episodes.values["speed"].tolist() == [3.0]
    assert other._episodes.reports["speed"].tolist() == [2]
    plain = collector_of(ReportingEnv(FIRST))
    plain.reset()
    with pytest.raises(ValueError, match=r"the state is of the episode metrics \['height', .* expected \[\]"):
        plain.load_state_dict(state)


def test_the_environment_states_its_metrics():
    pytest.importorskip("qmp_envs")
    envs = gym.make_vec("Reacher5-v0", num_envs=5, max_episode_steps=3)
    stats = evaluate(envs, lambda obs, task_ids: np.zeros((len(obs), 6), np.float32), seed=0)
    assert {name: values.shape for name, values in stats.metrics.items()} == {
        "any_hit": (5,),
        "stages": (5,),
        "hit_fraction": (5,),
    }
    assert stats.metrics["any_hit"][stats.episode_task_ids == 4].tolist() == [1.0]  # "stay" begins on its target
    quiet = evaluate(envs, lambda obs, task_ids: np.zeros((len(obs), 6), np.float32), episode_metrics={})
    assert quiet.metrics == {}


def test_means_of_tasks_with_unequal_numbers_of_episodes():
    none = CollectStats.empty(3, 3)
    stats = dataclasses.replace(
        none,
        returns=np.array([1.0, 2.0, 3.0, 10.0]),
        lens=np.ones(4, np.int64),
        successes=np.array([True, False, False, True]),
        episode_task_ids=np.array([0, 0, 0, 1]),
    )
    assert stats.per_task(stats.returns).tolist()[:2] == [2.0, 10.0]
    assert stats.per_task(stats.successes).tolist()[:2] == pytest.approx([1 / 3, 1.0])
    assert np.isnan(stats.per_task(stats.returns)[2])
