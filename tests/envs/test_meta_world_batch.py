"""MT10's tasks stepped and judged in batches: to the last digit what Meta-World's own Python says."""

from __future__ import annotations

import pickle
from typing import Any

import gymnasium as gym
import mujoco
import numpy as np
import pytest
from gymnasium.utils.env_checker import data_equivalence
from gymnasium.vector import AutoresetMode

pytest.importorskip("metaworld")

from metaworld.env_dict import MT10_V3
from metaworld.policies import ENV_POLICY_MAP
from scipy.spatial.transform import Rotation

from qmp_envs.meta_world import INFO, META_WORLD
from qmp_envs.meta_world_batch import MetaWorldBatchedVectorEnv
from qmp_envs.meta_world_formulas import quaternion
from qmp_envs.meta_world_judge import Judge
from qmp_envs.meta_world_tasks import TASKS
from qmp_envs.sawyer import Sawyer, simulation

pytestmark = pytest.mark.filterwarnings("ignore:Constant\\(s\\) may be too high")
ENV_ID = "MetaWorldMT10-v0"
ALL = list(MT10_V3)


def test_all_of_mt10_is_judged_in_batches() -> None:
    assert sorted(TASKS) == sorted(META_WORLD[ENV_ID].task_names) == sorted(ALL)


def test_quaternions_are_scipys() -> None:
    rotations = Rotation.random(400, random_state=0)
    turned = np.concatenate((rotations.as_matrix(), np.eye(3)[None], np.array([np.diag((1.0, -1.0, -1.0))])))
    assert len({int(m.argmax()) for m in (np.append(np.diagonal(t), np.trace(t)) for t in turned)}) == 4  # all cases
    computed = [quaternion(matrix) for matrix in turned.reshape(-1, 9).tolist()]
    np.testing.assert_array_equal(computed, Rotation.from_matrix(turned).as_quat())


def scatter(x: Any, rng: np.random.Generator) -> None:
    """Put arm, fingers, object and goal anywhere, mostly where something is decided."""
    model, data, peg = x.model, x.data, hasattr(x, "peg_head_pos_init")
    data.qpos[:7] += rng.normal(0.0, 0.04, 7) * rng.integers(0, 2)
    closed = rng.uniform(0.0, 0.04)
    data.qpos[7:9] += closed, -closed
    mujoco.mj_forward(model, data)
    if model.nq == 10:
        low, high = model.jnt_range[9]
        data.qpos[9] = rng.choice((low, high, rng.uniform(low, high)))
    else:
        targets = [x.tcp_center, x._target_pos, np.add(x.obj_init_pos, (0.0, 0.0, 0.1))]
        if peg:
            targets.append(x._get_site_pos(f"bottom_right_corner_collision_box_{rng.integers(1, 3)}"))
        at = rng.integers(len(targets))
        seen = x._get_site_pos("pegHead") if at == 3 else x._get_pos_objects()
        data.qpos[9:12] += targets[at] + rng.normal(0.0, rng.choice((0.001, 0.01, 0.05)), 3) - seen
    mujoco.mj_forward(model, data)
    if rng.random() < 0.2:
        goes = x._get_site_pos("pegHead") if peg else x.tcp_center if "Reach" in x.task_name else x._get_pos_objects()
        x._target_pos = goes + rng.normal(0.0, 0.02, 3)


def in_a_box(x: Any) -> bool:
    """Whether the head of the peg is in one of the boxes that it may not go through."""
    head = x._get_site_pos("pegHead")
    corners = [
        [x._get_site_pos(f"{corner}_corner_collision_box_{box}") for corner in ("bottom_right", "top_left")]
        for box in (1, 2)
    ]
    return any((np.min(pair, axis=0) <= head).all() and (head <= np.max(pair, axis=0)).all() for pair in corners)


@pytest.mark.parametrize("name", ALL)
def test_judgement_of_any_state_is_meta_worlds(name: str) -> None:
    rng = np.random.default_rng(len(name))
    rows: list[Sawyer] = [simulation(name) for _ in range(3)]
    judge = Judge(rows, [name] * 3)
    for x in rows:
        x.start(rng)
    starts = [(x.data.qpos.copy(), x.obj_init_pos.copy()) for x in rows]  # type: ignore[union-attr]
    told: list[Any] = []
    for _ in range(80):
        actions = np.clip(rng.normal(0.3, 0.7, (3, 4)), -1.0, 1.0).astype(np.float32)
        for x, (start, place) in zip(rows, starts, strict=True):
            x.data.qpos[:] = start
            x.obj_init_pos = np.add(place, (0.0, 0.0, rng.choice((0.0, 0.3))))  # so that it is not lifted by now
            scatter(x, rng)
        for row in range(3):
            judge.begin(row)
        judge(actions[:, 3])
        for row, (x, action) in enumerate(zip(rows, actions, strict=True)):
            observation = np.clip(x._get_obs(), x._low, x._high)
            reward, info = x.evaluate_state(observation, action)
            np.testing.assert_array_equal(judge.frames[row], x._prev_obs)
            np.testing.assert_array_equal(judge.hands[row], observation[:3])
            expected = [reward, info["success"], *(info[key] for key in INFO)]
            np.testing.assert_array_equal(judge.table[:, row], np.array(expected, dtype=np.float64))
            told.append((type(reward), *expected, name.startswith("peg") and in_a_box(x)))
    # Nothing of the above is for nothing: there were successes and failures, and of what is to be grasped some was
    # grasped and some not, some rewards are in single precision, and some pegs are in the box.
    assert {bool(row[2]) for row in told} == {False, True}
    if name in ("push-v3", "pick-place-v3", "peg-insert-side-v3"):
        assert len({row[4] for row in told}) == 2
        # NumPy 1 makes double precision of a single one and a Python number.
        assert (np.float32 in {row[0] for row in told}) == (np.lib.NumpyVersion(np.__version__) >= "2.0.0")
    assert any(row[-1] for row in told) == (name == "peg-insert-side-v3")


def make(strategy: str, **kwargs: Any) -> Any:
    return gym.make_vec(ENV_ID, vector_strategy=strategy, **kwargs).unwrapped


def follow(environments: list[Any], steps: int, noise: float = 0.1) -> None:
    """Step all with Meta-World's scripted policies and noise; they must tell the same."""
    first = environments[0]
    policies = [ENV_POLICY_MAP[first.task_names[task]]() for task in first.task_ids]
    results: list[Any] = [envs.reset(seed=7) for envs in environments]
    rng = np.random.default_rng(3)
    for _ in range(steps):
        wanted = [p.get_action(o.astype(np.float64)) for p, o in zip(policies, results[0][0], strict=True)]
        actions = (np.stack(wanted) + rng.normal(0.0, noise, (first.num_envs, 4))).astype(np.float32)
        results = [envs.step(actions) for envs in environments]
        assert all(data_equivalence(results[0], result, exact=True) for result in results[1:])
    states = [envs.get_state() for envs in environments]
    assert all(data_equivalence(states[0], state, exact=True) for state in states[1:])


def test_every_step_is_that_of_the_other_strategies() -> None:
    """Through ends of episodes, with two rows of some tasks, in an order that is not that of the batches."""
    kwargs: dict[str, Any] = {"num_envs": 12, "task_ids": [9, 7, 2, 1, 0, 3, 4, 5, 6, 8, 2, 7], "max_episode_steps": 35}
    mode = AutoresetMode.SAME_STEP
    follow([make("sync", autoreset_mode=mode, **kwargs), make("batched", nthread=2, autoreset_mode=mode, **kwargs)], 45)


def test_other_tasks_step_alone_beside_them() -> None:
    tasks = [
        META_WORLD["MetaWorldMT50-v0"].task_names.index(f"{name}-v3") for name in ("bin-picking", "push", "hammer")
    ]
    made = [
        gym.make_vec(
            "MetaWorldMT50-v0", num_envs=4, task_ids=[*tasks, tasks[0]], vector_strategy=strategy, max_episode_steps=9
        ).unwrapped
        for strategy in ("sync", "batched")
    ]
    follow(made, 15)
    made[1].set_state(made[0].get_state())
    actions = np.random.default_rng(0).uniform(-1, 1, (3, 4, 4)).astype(np.float32)
    for action in actions:
        assert data_equivalence(*(envs.step(action) for envs in made), exact=True)


def test_a_step_that_diverges_alone_or_in_a_batch_is_undone(tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)  # MuJoCo writes a log file where it runs
    names = META_WORLD["MetaWorldMT50-v0"].task_names
    tasks = [names.index("push-v3"), names.index("hammer-v3"), names.index("reach-v3")]
    envs = MetaWorldBatchedVectorEnv("MetaWorldMT50-v0", 3, task_ids=tasks)
    envs.reset(seed=0)
    envs.step(np.ones((3, 4)))
    for lost in (0, 1):
        before = envs.get_state()
        envs._simulations[lost].data.qvel[:] = 1e12
        with pytest.raises(FloatingPointError, match=f"sub-environment {lost} "):
            envs.step(-np.ones((3, 4)))
        after = envs.get_state()
        for row in set(range(3)) - {lost}:
            assert data_equivalence(after["envs"][row], before["envs"][row], exact=True)
        envs.set_state(before)
        envs.step(np.ones((3, 4)))


def test_a_state_of_before_it_held_observations() -> None:
    envs, other = (make("batched", num_envs=2) for _ in range(2))
    envs.reset(seed=0)
    envs.step(np.ones((2, 4)))
    state = envs.get_state()
    for env in state["envs"]:
        del env["observation"], env["details"], env["diverged"]
    other.set_state(state)
    assert data_equivalence(envs.step(np.ones((2, 4))), other.step(np.ones((2, 4))), exact=True)


def test_pickled_environments_go_on_alike() -> None:
    envs = make("batched", num_envs=3, nthread=2)
    new = pickle.loads(pickle.dumps(envs))
    for made in (envs, new):
        made.reset(seed=1)
        made.step(np.ones((3, 4)))
    copied = pickle.loads(pickle.dumps(new))
    for made in (new, copied):
        assert data_equivalence(envs.get_state(), made.get_state(), exact=True)
    results = [made.step(-np.ones((3, 4))) for made in (envs, new, copied)]
    assert all(data_equivalence(results[0], result, exact=True) for result in results[1:])


def test_no_task_of_mt10() -> None:
    envs = MetaWorldBatchedVectorEnv("MetaWorldMT50-v0", 1, task_ids=[0])
    single = gym.make("MetaWorldMT50-v0", task=0)
    assert data_equivalence(envs.reset(seed=0)[0][0], single.reset(seed=0)[0], exact=True)
    action = np.ones(4, dtype=np.float32)
    assert data_equivalence(envs.step(action[None])[0][0], single.step(action)[0], exact=True)


def test_wrong_threads() -> None:
    with pytest.raises(ValueError, match=r"nthread must be 0 .*, got -1"):
        make("batched", num_envs=1, nthread=-1)


def test_pictures() -> None:
    envs = make("batched", num_envs=2, render_mode="rgb_array")
    with pytest.raises(RuntimeError, match="before the first reset"):
        envs.render()
    envs.reset(seed=0)
    single = gym.make(ENV_ID, task=1, render_mode="rgb_array")
    single.reset(seed=1)
    np.testing.assert_array_equal(envs.render()[1], single.render())
