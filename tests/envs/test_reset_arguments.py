"""What reset can be given: treated alike in all sets, natively batched or not, and as Gymnasium does."""

from __future__ import annotations

from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.utils.env_checker import data_equivalence
from gymnasium.vector import SyncVectorEnv

import qmp_envs
from qmp_collect import QMPCollector
from qmp_collect.runs.checkpoint import load_checkpoint, save_checkpoint

IDS = ["PointReach-v0", "Maze3-v0", "Walker4-v0", "MetaWorldMT10-v0"]
SETS = [
    *((env_id, {}) for env_id in IDS),
    *(("MetaWorldMT10-v0", {"vector_strategy": strategy}) for strategy in ("sync", "async")),
]
N = 3


def make(env_id: str, **kwargs: Any) -> Any:
    return gym.make_vec(env_id, num_envs=N, **kwargs)


@pytest.mark.parametrize(("env_id", "kwargs"), SETS)
def test_seeds(env_id: str, kwargs: dict[str, Any]) -> None:
    envs = make(env_id, **kwargs)
    expected = envs.reset(seed=4)[0]
    for seed in (np.int64(4), np.array(4), [4, 5, 6], (4, 5, 6), np.array([4, 5, 6])):
        np.testing.assert_array_equal(envs.reset(seed=seed)[0], expected)
    before = envs.get_state()
    for seed, error in (
        (1.5, TypeError),
        ("abc", TypeError),
        ([1, 2.5, 3], TypeError),
        (-1, ValueError),
        ([1, 2, -3], ValueError),
        ([1, 2], ValueError),
        (range(4), ValueError),
    ):
        with pytest.raises(error):
            envs.reset(seed=seed)
        assert data_equivalence(envs.get_state(), before, exact=True)  # generators too
    envs.close()


@pytest.mark.parametrize("env_id", IDS)
def test_seeds_of_single_environments(env_id: str) -> None:
    env = gym.make(env_id)
    expected = env.reset(seed=4)[0]
    np.testing.assert_array_equal(env.unwrapped.reset(seed=np.int64(4))[0], expected)  # type: ignore[arg-type]
    assert env.unwrapped.np_random_seed == 4
    for seed, error in ((1.5, TypeError), (-1, ValueError)):
        with pytest.raises(error):
            env.unwrapped.reset(seed=seed)  # type: ignore[arg-type]


@pytest.mark.parametrize(("env_id", "kwargs"), SETS)
def test_options(env_id: str, kwargs: dict[str, Any]) -> None:
    """As `SyncVectorEnv`, but that the mask stays in the caller's dictionary, for the next call."""
    envs, other = (
        make(env_id, **kwargs),
        SyncVectorEnv([lambda t=t: gym.make(env_id, task=t % T[env_id]) for t in range(N)]),
    )
    for env in (envs, other):
        env.reset(seed=0)
        env.step(np.full(envs.action_space.shape, 0.5, np.float32))
    mask = np.array([True, False, True])
    for options in (None, {}, {"unknown": 1}, {"reset_mask": mask}, {"reset_mask": mask, "unknown": 1}):
        given = None if options is None else dict(options)
        theirs = None if options is None else dict(options)
        for seed in (3, None, [None, 5, 6]):
            result, expected = envs.reset(seed=seed, options=given), other.reset(seed=seed, options=theirs)
            theirs = None if options is None else dict(options)
            np.testing.assert_array_equal(result[0], expected[0])
            assert result[1].keys() == expected[1].keys()
            for key in expected[1]:
                np.testing.assert_array_equal(result[1][key], expected[1][key])
        assert given == options
    envs.close()


T = {env_id: qmp_envs.TASK_SETS[env_id].num_tasks for env_id in IDS}


@pytest.mark.parametrize(("env_id", "kwargs"), SETS)
def test_the_state_before_the_first_reset(env_id: str, kwargs: dict[str, Any], tmp_path: Any) -> None:
    """It can be saved; a collector that continues from it resets with its seed, whatever its environment did before."""
    size = make(env_id).single_action_space.shape

    def collector(seed: int) -> QMPCollector:
        policies = [lambda obs: np.zeros((len(obs), *size), np.float32)] * T[env_id]
        scores = [lambda obs, actions: np.zeros(len(obs))] * T[env_id]
        return QMPCollector(make(env_id, **kwargs), policies, scores, seed=seed)

    new, used, plain = collector(5), collector(9), collector(5)
    save_checkpoint(tmp_path / "state.npz", new.state_dict())
    used.collect(n_step=6)
    used.load_state_dict(load_checkpoint(tmp_path / "state.npz"))
    np.testing.assert_array_equal(used.reset()[0], plain.reset()[0])
    assert used.num_steps == 0
    used.envs.unwrapped.set_state(new.envs.unwrapped.get_state())  # type: ignore[attr-defined]
    with pytest.raises(RuntimeError, match="before the first reset"):
        used.envs.step(np.zeros(used.envs.action_space.shape, np.float32))
    for each in (new, used, plain):
        each.envs.close()


@pytest.mark.parametrize("env_id", IDS)
def test_a_single_environment_before_its_first_reset(env_id: str) -> None:
    new, used = (gym.make(env_id).unwrapped for _ in range(2))
    used.reset(seed=0)
    used.set_state(new.get_state())  # type: ignore[attr-defined]
    with pytest.raises(RuntimeError, match="before the first reset"):
        used.step(used.action_space.sample())
    np.testing.assert_array_equal(used.reset(seed=3)[0], new.reset(seed=3)[0])


@pytest.mark.parametrize("key", ["elapsed", "finished", "physics", "sensordata", "mocap", "rng"])
def test_states_that_do_not_fit_change_nothing(key: str) -> None:
    envs: Any = make("MetaWorldCDS-v0").unwrapped
    envs.reset(seed=0)
    before, state = envs.get_state(), envs.get_state()
    envs.step(np.ones((N, 4)))
    after = envs.get_state()
    place = state["episode"] if key == "mocap" else state
    for wrong in [place[key][:1]] if key == "rng" else [place[key][:1], place[key][0], place[key] * 1j]:
        with pytest.raises(ValueError, match="expected .* generators" if key == "rng" else f"a state whose '{key}' is"):
            envs.set_state(state | ({"episode": place | {key: wrong}} if key == "mocap" else {key: wrong}))
        assert data_equivalence(envs.get_state(), after, exact=True)
    before.pop("diverged")  # as saved by earlier versions
    envs.set_state(before)
    assert data_equivalence(envs.get_state(), state, exact=True)
