"""A simulation that diverges: nothing else moves, nothing goes on unnoticed; or the episode ends, and is counted."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.utils.env_checker import data_equivalence
from gymnasium.vector import AutoresetMode

from qmp_collect import OwnPolicy, QMPCollector, Transitions
from qmp_envs.engine import Engine

SETS: dict[str, dict[str, Any]] = {
    "Maze3-v0": {},
    "Reacher5-v0": {},
    "Walker4-v0": {"force_probability": 0.5},
    "MetaWorldCDS-v0": {},
    "Kitchen10-v0": {"nthread": 0},
}


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)  # MuJoCo writes a log file where it runs


def make(env_id: str, **kwargs: Any) -> Any:
    return gym.make_vec(env_id, num_envs=3, **SETS.get(env_id, {}), **kwargs).unwrapped


def break_row(envs: Any, row: int) -> None:
    """Let ``row`` diverge in the next step, by velocities that nothing survives (Maze clips them: by positions)."""
    if hasattr(envs, "_engine"):
        (envs._engine.qpos if "Maze" in envs.task_set.env_id else envs._engine.qvel)[row] = 1e12
    else:
        state = envs.get_state()
        state["envs"][row]["simulation"]["physics"][17:20] = 1e12
        envs.set_state(state)


def actions_of(envs: Any, seed: int) -> Any:
    return np.random.default_rng(seed).uniform(-1, 1, envs.action_space.shape).astype(np.float32)


META_WORLD = [("MetaWorldMT10-v0", {"vector_strategy": strategy}) for strategy in ("batched", "sync", "async")]
ALL = [*((env_id, {}) for env_id in SETS), *META_WORLD]


@pytest.mark.parametrize(("env_id", "kwargs"), ALL)
@pytest.mark.parametrize("mode", list(AutoresetMode))
def test_the_step_did_not_happen(env_id: str, kwargs: dict[str, Any], mode: AutoresetMode) -> None:
    """Another environment that is reset in the same row, and had no such step, goes on alike in all rows."""
    envs, other = (make(env_id, autoreset_mode=mode, **kwargs) for _ in range(2))
    for env in (envs, other):
        env.reset(seed=0)
        for seed in range(2):
            env.step(actions_of(env, seed))
    break_row(envs, 1)
    before = envs.get_state()
    with pytest.raises(FloatingPointError, match=r"sub-environment 1 \(task 1 .*, step 3 of its episode\) diverged"):
        envs.step(actions_of(envs, 2))
    after = envs.get_state()
    if "envs" in before:
        for env in before["envs"]:
            env.pop("observation"), env.pop("details")
        assert [env["diverged"] for env in after["envs"]] == [False, True, False]
        for i in (0, 2):
            assert all(
                data_equivalence(after["envs"][i][key], before["envs"][i][key], exact=True) for key in before["envs"][i]
            )
    else:
        assert after["diverged"].tolist() == after["finished"].tolist() == [False, True, False]
        for key in before.keys() - {"diverged", "finished"}:
            assert data_equivalence(after[key], before[key], exact=True), key
    for _ in range(2):
        with pytest.raises(RuntimeError, match=r"sub-environments \[1\] have diverged: reset them first"):
            envs.step(actions_of(envs, 2))
    resumed = make(env_id, autoreset_mode=mode, **kwargs)
    resumed.set_state(after)
    with pytest.raises(RuntimeError, match="have diverged"):
        resumed.step(actions_of(envs, 2))
    for env in (envs, other, resumed):
        env.reset(seed=[None, 7, None], options={"reset_mask": np.array([False, True, False])})
    for seed in range(3):
        expected = other.step(actions_of(envs, seed))
        assert data_equivalence(envs.step(actions_of(envs, seed)), expected, exact=True)
        assert data_equivalence(resumed.step(actions_of(envs, seed)), expected, exact=True)
    for env in (envs, other, resumed):
        env.close()


@pytest.mark.parametrize(("env_id", "kwargs"), ALL)
@pytest.mark.parametrize("mode", list(AutoresetMode))
def test_the_episode_ends_and_is_counted(env_id: str, kwargs: dict[str, Any], mode: AutoresetMode) -> None:
    envs = make(env_id, autoreset_mode=mode, on_divergence="end", **kwargs)
    assert envs.episode_metrics["diverged"] == "any"
    _, infos = envs.reset(seed=0)
    assert infos["diverged"].tolist() == [False] * 3
    observations, *_, infos = envs.step(actions_of(envs, 0))
    assert infos["diverged"].tolist() == [False] * 3
    break_row(envs, 1)
    next_observations, rewards, terminations, truncations, infos = envs.step(actions_of(envs, 1))
    assert not terminations.any()
    assert truncations.tolist() == [False, True, False]
    assert rewards[1] == envs.task_set.min_reward
    told, last = infos, next_observations[1]
    if mode is AutoresetMode.SAME_STEP:
        told, last = infos["final_info"], infos["final_obs"][1]
        assert infos["diverged"].tolist() == [False] * 3
    assert (told["diverged"][1], told["success"][1]) == (True, False)
    assert np.isfinite(last).all()
    if env_id not in ("Kitchen10-v0", "Walker4-v0"):  # noise, and velocities of which the test has broken all
        quiet = slice(2, 4) if env_id == "Maze3-v0" else slice(None, 2)
        np.testing.assert_array_equal(last[quiet], observations[1][quiet])
    if mode is AutoresetMode.DISABLED:
        with pytest.raises(RuntimeError, match=r"sub-environments \[1\] have finished"):
            envs.step(actions_of(envs, 2))
        envs.reset(options={"reset_mask": np.array([False, True, False])})
    *_, truncations, infos = envs.step(actions_of(envs, 2))
    assert not truncations.any()
    assert infos["diverged"].tolist() == [False] * 3
    envs.close()


def test_single_environments() -> None:
    for env_id in ("Maze3-v0", "MetaWorldMT10-v0"):
        env: Any = gym.make(env_id, task=1).unwrapped
        env.reset(seed=0)
        physics = env._batch._engine.qpos if env_id == "Maze3-v0" else env._simulation.data.qvel
        physics[...] = 1e12
        with pytest.raises(FloatingPointError, match=r"the physics of task 1 .*, step 1 of its episode diverged"):
            env.step(env.action_space.sample())
        with pytest.raises(RuntimeError, match=r"call reset\(\) first"):
            env.step(env.action_space.sample())
        env.reset()
        env.step(env.action_space.sample())


def test_what_was_told_before_a_divergence_is_told_again() -> None:
    env: Any = gym.make("MetaWorldMT10-v0", task=1, on_divergence="end").unwrapped
    env.reset(seed=0)
    observation, *_, before = env.step(np.zeros(4))
    env._simulation.data.qvel[:] = 1e12
    last, reward, terminated, truncated, info = env.step(np.zeros(4))
    np.testing.assert_array_equal(last, observation)
    assert (reward, terminated, truncated) == (0.0, False, True)
    assert info == before | {"diverged": True}
    assert before["obj_to_target"] > 0


def test_the_collector_counts_them() -> None:
    envs = make("Maze3-v0", on_divergence="end", autoreset_mode="SameStep", max_episode_steps=5)
    policies = [lambda obs: np.zeros((len(obs), 2), np.float32)] * 3
    collector = QMPCollector(envs, policies, None, switch=OwnPolicy(), own_policy=None, seed=0)
    rows: list[Transitions] = []
    collector._on_step = rows.append
    collector.collect(n_step=3)
    break_row(envs, 2)
    stats = collector.collect(n_episode=1) + collector.collect(n_step=3)
    assert stats.metrics["diverged"].tolist() == [False, False, False]  # n_episode begins with new episodes
    break_row(envs, 2)
    stats = collector.collect(n_step=12)
    assert sorted(zip(stats.episode_task_ids.tolist(), stats.metrics["diverged"].tolist(), strict=True))[-1] == (2, 1.0)
    assert not rows[-4].terminations.any()


def test_unknown_ways() -> None:
    for env_id in ("Maze3-v0", "PointReach-v0", "MetaWorldMT10-v0"):
        with pytest.raises(ValueError, match=r"on_divergence must be one of \('raise', 'end'\), got 'repair'"):
            gym.make_vec(env_id, num_envs=1, on_divergence="repair")


def test_engine_leaves_everything_where_it_was() -> None:
    envs = make("Maze3-v0")
    envs.reset(seed=0)
    engine: Engine = envs._engine
    engine.qvel[2, 0] = np.nan
    before = engine.state.copy()
    lost = engine.step()
    assert lost is not None
    assert lost.tolist() == [False, False, True]
    np.testing.assert_array_equal(engine.state, before)
    engine.take(~lost)
    assert (engine.state[:2, 0] == before[:2, 0] + 0.01).all()
    np.testing.assert_array_equal(engine.state[2], before[2])
