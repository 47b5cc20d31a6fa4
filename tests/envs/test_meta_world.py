"""MT10 and MT50 against Meta-World's own environments, and what this package adds to them."""

from __future__ import annotations

import copy
import json
import os
import pickle
import signal
import subprocess
import sys
import time
import warnings
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env, data_equivalence
from gymnasium.vector import AsyncVectorEnv, AutoresetMode, SyncVectorEnv

pytest.importorskip("metaworld")

from metaworld.env_dict import MT10_V3, MT50_V3
from metaworld.policies import ENV_POLICY_MAP
from metaworld.types import Task

import qmp_envs
from qmp_collect.runs.checkpoint import load_checkpoint, save_checkpoint
from qmp_envs import meta_world
from qmp_envs.meta_world import INFO, META_WORLD, MetaWorldEnv, make_vector_env
from qmp_envs.vector import BatchedVectorEnv

pytestmark = pytest.mark.filterwarnings("ignore:Constant\\(s\\) may be too high")
MT50 = META_WORLD["MetaWorldMT50-v0"].task_names
ROOT = Path(__file__).parents[2]


def meta_worlds_own(name: str, goal: np.ndarray) -> Any:
    """Meta-World's environment of one task, with a goal of a multi-task benchmark (it is observed)."""
    env = MT50_V3[name]()
    env.set_task(Task(name, pickle.dumps({"rand_vec": goal, "env_cls": MT50_V3[name], "partially_observable": False})))
    return env


def test_tasks_are_those_of_meta_world_in_its_order() -> None:
    assert list(MT10_V3) == list(META_WORLD["MetaWorldMT10-v0"].task_names)
    assert list(MT50_V3) == list(MT50)
    assert {key: qmp_envs.TASK_SETS[key] for key in META_WORLD} == META_WORLD
    for task_set in META_WORLD.values():
        assert (task_set.horizon, task_set.min_reward, task_set.reward_version) == (500, 0.0, "v2")


# ---------------------------------------------------------------------- parity


@pytest.mark.parametrize("task", range(50), ids=MT50)
def test_every_number_is_meta_worlds(task: int) -> None:
    """Bit for bit, along the way of Meta-World's scripted policy with noise, in a first and in a later episode."""
    name = MT50[task]
    ours = MetaWorldEnv("MetaWorldMT50-v0", task)
    ours.reset(seed=1000 + task)
    for _ in range(3):
        ours.step(np.ones(4))
    policy, rng = ENV_POLICY_MAP[name](), np.random.default_rng(task)
    observation, info = ours.reset(seed=2000 + task)
    theirs = meta_worlds_own(name, ours._simulation.rand_vec)
    for field in ("body_mass", "body_inertia", "body_ipos", "body_iquat", "dof_invweight0", "dof_damping"):
        np.testing.assert_array_equal(getattr(ours._simulation.model, field), getattr(theirs.model, field), field)
    expected, _ = theirs.reset()
    np.testing.assert_array_equal(observation, expected.astype(np.float32))
    assert info == {"success": False, **dict.fromkeys(INFO, 0.0)}
    for _ in range(40):
        action = np.clip(policy.get_action(expected) + rng.normal(0.0, 0.1, 4), -1.0, 1.0).astype(np.float32)
        expected, reward, _, _, details = theirs.step(action)
        observation, *rest = ours.step(action)
        assert observation.dtype == np.float32
        np.testing.assert_array_equal(observation, expected.astype(np.float32))
        assert rest[:3] == [reward, False, False]
        assert rest[3] == {"success": details["success"] == 1.0, **{key: float(details[key]) for key in INFO}}
        assert type(rest[3]["success"]) is bool
        assert 0.0 <= rest[0] <= 10.0
        assert ours.observation_space.contains(observation)
    # A state restored elsewhere continues bit for bit; the other environment was in the midst of something else.
    state = ours.get_state()
    actions = rng.uniform(-1.0, 1.0, (8, 4)).astype(np.float32)
    after = [ours.step(action) for action in actions]
    other = MetaWorldEnv("MetaWorldMT50-v0", task)
    other.reset(seed=3)
    other.step(actions[0])
    other.set_state(state)
    assert data_equivalence([other.step(action) for action in actions], after, exact=True)
    assert data_equivalence(other.reset(), ours.reset(), exact=True)


@pytest.mark.parametrize("task", range(50), ids=MT50)
def test_every_task_passes_gymnasiums_check(task: int) -> None:
    env = gym.make("MetaWorldMT50-v0", task=task)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        # Objects have no bound that holds in every case.
        warnings.filterwarnings("ignore", message=".*A Box observation space m.* value is .*infinity.*")
        check_env(env.unwrapped, skip_render_check=True)


@pytest.mark.parametrize("name", ["reach-v3", "push-v3", "door-open-v3", "window-close-v3", "drawer-open-v3"])
def test_scripted_policies_succeed(name: str) -> None:
    env = gym.make("MetaWorldMT10-v0", task=list(MT10_V3).index(name))
    policy = ENV_POLICY_MAP[name]()
    observation, info = env.reset(seed=0)
    while not info["success"]:
        action = np.clip(policy.get_action(observation.astype(np.float64)), -1.0, 1.0)
        observation, _, _, truncated, info = env.step(action.astype(np.float32))
        assert not truncated


# ---------------------------------------------------------------------- goals and seeds


def test_seed_fixes_fifty_goals_and_their_order() -> None:
    env = MetaWorldEnv("MetaWorldMT10-v0", 5)

    def goals(number: int, seed: int) -> list[tuple[float, ...]]:
        env.reset(seed=seed)
        drawn = [tuple(env._simulation.rand_vec)]
        for _ in range(number - 1):
            env.reset()
            drawn.append(tuple(env._simulation.rand_vec))
        return drawn

    first = goals(40, 1)
    # 40 draws with replacement from 50 hit 50 * (1 - 0.98 ** 40) = 28 of them; the deviation is about 2.5.
    assert 18 <= len(set(first)) <= 38
    assert goals(5, 1) == first[:5]
    assert not set(first) & set(goals(5, 2))
    space = env._simulation._random_reset_space
    assert space is not None
    assert all(space.contains(np.array(goal)) for goal in first)


def test_two_processes_agree_and_need_nothing_but_the_seed() -> None:
    code = (
        "import gymnasium as gym, numpy as np, qmp_envs, json\n"
        "np.random.seed(1)\n"
        "env = gym.make('MetaWorldMT10-v0', task=2)\n"
        "out = [env.reset(seed=7)[0]] + [env.step(np.full(4, x, np.float32))[0] for x in (0.5, -1, 1)]\n"
        "print(json.dumps(np.array(out).astype(float).tolist()))"
    )
    paths = [str(ROOT / "envs"), os.environ.get("PYTHONPATH", "")]
    there = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        env=dict(os.environ, PYTHONPATH=os.pathsep.join(paths)),
    )
    env = gym.make("MetaWorldMT10-v0", task=2)
    env.reset(seed=8)
    here = [env.reset(seed=7)[0], *(env.step(np.full(4, x, np.float32))[0] for x in (0.5, -1, 1))]
    np.testing.assert_array_equal(np.array(json.loads(there.stdout), dtype=np.float32), here, there.stderr)


def test_goal_is_observed_and_within_the_space() -> None:
    for task_set in META_WORLD.values():
        space = MetaWorldEnv(task_set.env_id).observation_space
        assert isinstance(space, gym.spaces.Box)
        assert (space.low[36:] < space.high[36:]).all()
    boxes = [MetaWorldEnv("MetaWorldMT50-v0", task)._simulation.goal_space for task in range(50)]
    np.testing.assert_array_equal(space.low[36:], np.min([box.low for box in boxes], axis=0).astype(np.float32))
    np.testing.assert_array_equal(space.high[36:], np.max([box.high for box in boxes], axis=0).astype(np.float32))


# ---------------------------------------------------------------------- episodes


def test_horizon_truncates() -> None:
    env = gym.make("MetaWorldMT10-v0", task=0)
    env.reset(seed=0)
    endings = [env.step(np.zeros(4, dtype=np.float32))[2:4] for _ in range(500)]
    assert endings == [(False, False)] * 499 + [(False, True)]
    with pytest.raises(RuntimeError, match=r"the episode is over: call reset\(\) first"):
        env.step(np.zeros(4, dtype=np.float32))


def test_actions_are_clipped() -> None:
    env = MetaWorldEnv("MetaWorldMT10-v0", 0)
    env.reset(seed=0)
    state = env.get_state()
    wide = env.step(np.array([9.0, -9.0, 3.0, 2.0]))
    env.set_state(state)
    assert data_equivalence(env.step(np.array([1.0, -1.0, 1.0, 1.0])), wide, exact=True)


def test_steps_give_fresh_arrays() -> None:
    env = MetaWorldEnv("MetaWorldMT10-v0", 0)
    observation, _ = env.reset(seed=0)
    kept = observation.copy()
    env.step(np.ones(4))
    np.testing.assert_array_equal(observation, kept)


def test_wrong_arguments() -> None:
    with pytest.raises(ValueError, match="env_id must be one of"):
        MetaWorldEnv("MetaWorldMT11-v0")
    with pytest.raises(ValueError, match=r"task is 10, but MetaWorldMT10-v0 has tasks 0 to 9"):
        MetaWorldEnv("MetaWorldMT10-v0", 10)
    with pytest.raises(ValueError, match="max_episode_steps must be at least 1, got 0"):
        MetaWorldEnv("MetaWorldMT10-v0", max_episode_steps=0)
    with pytest.raises(ValueError, match="render_mode must be None or 'rgb_array', got 'human'"):
        MetaWorldEnv("MetaWorldMT10-v0", render_mode="human")
    with pytest.raises(ValueError, match="vector_strategy must be 'batched', 'sync', 'async' or None, got 'threads'"):
        make_vector_env("MetaWorldMT10-v0", 2, vector_strategy="threads")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="num_envs must be at least 1, got 0"):
        make_vector_env("MetaWorldMT10-v0", 0)


def test_wrong_use() -> None:
    env = MetaWorldEnv("MetaWorldMT10-v0", 1)
    with pytest.raises(RuntimeError, match="before the first reset"):
        env.step(np.zeros(4))
    env.reset(seed=0)
    with pytest.raises(ValueError, match=r"the action must have shape \(4,\), got \(3,\)"):
        env.step(np.zeros(3))
    with pytest.raises(ValueError, match=r"must not be NaN: got .* for task 1 'push-v3', step 1 of its episode"):
        env.step(np.array([0.0, np.nan, 0.0, 0.0]))
    with pytest.raises(ValueError, match=r"expected a state of MetaWorldMT10-v0 with task 0, got one of .* task 1"):
        MetaWorldEnv("MetaWorldMT10-v0", 0).set_state(env.get_state())


def test_diverging_physics_are_named(tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)  # MuJoCo writes a log file where it runs
    env = MetaWorldEnv("MetaWorldMT10-v0", 1)
    first, _ = env.reset(seed=0)
    env._simulation.data.qvel[:] = 1e12
    with pytest.raises(FloatingPointError, match="the physics of task 1 'push-v3', step 1 of its episode diverged"):
        env.step(np.zeros(4))
    np.testing.assert_array_equal(env.reset(seed=0)[0], first)


def test_meta_world_is_optional(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "metaworld", None)
    for name in [name for name in sys.modules if name.startswith(("metaworld.", "qmp_envs.sawyer"))]:
        monkeypatch.delitem(sys.modules, name)
    with pytest.raises(ImportError, match=r"which is not installed: pip install metaworld==3\.1\.1"):
        MetaWorldEnv("MetaWorldMT10-v0")


# ---------------------------------------------------------------------- pictures


def test_pictures_show_the_state_and_leave_it_alone() -> None:
    env = gym.make("MetaWorldMT10-v0", task=9, render_mode="rgb_array")
    env.reset(seed=0)
    before = env.unwrapped.get_state()  # type: ignore[attr-defined]
    first = env.render()
    assert isinstance(first, np.ndarray)
    assert (first.shape, first.dtype) == ((400, 400, 3), np.uint8)
    assert data_equivalence(env.unwrapped.get_state(), before, exact=True)  # type: ignore[attr-defined]
    for _ in range(10):
        env.step(np.array([1.0, 0.0, 0.0, 0.0], dtype=np.float32))
    assert (env.render() != first).any(axis=2).mean() > 0.01
    env.reset()  # another window and another goal
    assert (env.render() != first).any(axis=2).mean() > 0.01


def test_pictures_of_vector_environments() -> None:
    envs = gym.make_vec("MetaWorldMT10-v0", num_envs=2, vector_strategy="async", render_mode="rgb_array")
    envs.reset(seed=0)
    frames = envs.render()
    assert frames is not None
    assert [frame.shape for frame in frames] == [(400, 400, 3)] * 2
    envs.close()


def test_no_pictures_without_a_render_mode() -> None:
    env = MetaWorldEnv("MetaWorldMT10-v0")
    env.reset(seed=0)
    with pytest.warns(UserWarning, match="needs render_mode='rgb_array'"):
        assert env.render() is None


# ---------------------------------------------------------------------- vector environments


@pytest.mark.parametrize("strategy", ["batched", "sync", "async"])
def test_make_vec(strategy: str) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        envs = gym.make_vec("MetaWorldMT10-v0", num_envs=3, task_ids=[9, 0, 9], vector_strategy=strategy)
    assert isinstance(envs, {"batched": BatchedVectorEnv, "sync": SyncVectorEnv, "async": AsyncVectorEnv}[strategy])
    assert envs.task_ids.tolist() == [9, 0, 9]
    assert (envs.num_tasks, envs.task_names) == (10, tuple(MT10_V3))
    assert envs.task_set is META_WORLD["MetaWorldMT10-v0"]
    assert envs.autoreset_mode is AutoresetMode.NEXT_STEP
    observations, infos = envs.reset(seed=5)
    assert envs.observation_space.contains(observations)
    assert (infos["success"].dtype, infos["success"].tolist(), infos["_success"].all()) == (bool, [False] * 3, True)
    for i, task in enumerate(envs.task_ids):
        single = gym.make("MetaWorldMT10-v0", task=int(task))
        np.testing.assert_array_equal(observations[i], single.reset(seed=5 + i)[0])
    assert not np.array_equal(observations[0], observations[2])
    envs.close()


def test_any_number_of_sub_environments() -> None:
    envs = gym.make_vec("MetaWorldMT10-v0", num_envs=13, vector_strategy="sync")
    assert envs.unwrapped.task_ids.tolist() == [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 0, 1, 2]  # type: ignore[attr-defined]
    assert envs.spec is not None
    assert envs.spec.id == "MetaWorldMT10-v0"


@pytest.mark.parametrize(
    ("benchmark", "cores", "num_envs", "kind"),
    [
        ("MT10", 4, 2, "Batched"),
        ("MT50", 3, 2, "Batched"),
        ("MT50", 4, 1, "Batched"),
        ("MT50", 4, 2, "Async"),
        ("MT50", 4, 65, "Batched"),
    ],
)
def test_strategy_by_default(
    benchmark: str, cores: int, num_envs: int, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(meta_world, "usable_cores", lambda: cores)
    envs = make_vector_env(f"MetaWorld{benchmark}-v0", num_envs)
    assert type(envs).__name__ == f"MetaWorld{kind}VectorEnv"
    envs.close()


def alike(results: Iterable[Any]) -> Any:
    first, *others = results
    assert all(data_equivalence(first, other, exact=True) for other in others)
    return first


@pytest.mark.parametrize("mode", list(AutoresetMode))
def test_all_strategies_agree_and_resume(mode: AutoresetMode, tmp_path: Path) -> None:
    """Three steps, then saved where one episode has just ended, and continued in new environments of all kinds."""

    def make(strategy: str) -> Any:
        return make_vector_env(
            "MetaWorldMT10-v0", 2, vector_strategy=strategy, autoreset_mode=mode, max_episode_steps=3
        )  # type: ignore[arg-type]

    def steps(envs: Any, number: int, rng: np.random.Generator) -> list[Any]:
        results = []
        for _ in range(number):
            results.append(envs.step(rng.uniform(-1.0, 1.0, (2, 4)).astype(np.float32)))
            done = results[-1][2] | results[-1][3]
            if mode is AutoresetMode.DISABLED and done.any():
                results.append(envs.reset(options={"reset_mask": done}))
        return results

    made = make("sync"), make("async"), make("batched")
    for envs in made:
        envs.reset(seed=0)
    # Out of step with each other, so that one ends its episode where the state is saved.
    alike(steps(envs, 1, np.random.default_rng(0)) for envs in made)
    alike(envs.reset(seed=[1, 2], options={"reset_mask": np.array([True, False])})[1] for envs in made)
    alike(steps(envs, 2, np.random.default_rng(1)) for envs in made)
    state = alike(envs.get_state() for envs in made)
    finished = [env["finished"] for env in state["envs"]]
    assert finished == [False, mode is AutoresetMode.NEXT_STEP]
    expected = alike(steps(envs, 8, np.random.default_rng(2)) for envs in made)
    save_checkpoint(tmp_path / "checkpoint.npz", state)
    saved = load_checkpoint(tmp_path / "checkpoint.npz")
    for envs in (*made[1:], make("sync"), make("batched")):
        envs.set_state(saved)
        assert data_equivalence(steps(envs, 8, np.random.default_rng(2)), expected, exact=True)
    with pytest.raises(ValueError, match=r"expected a state of MetaWorldMT10-v0 with tasks \[0\], got one of"):
        make_vector_env("MetaWorldMT10-v0", 1).set_state(state)
    made[1].close()


def test_finished_environments_do_not_step_without_autoreset() -> None:
    for strategy in ("batched", "sync", "async"):
        envs = make_vector_env(
            "MetaWorldMT10-v0",
            1,
            vector_strategy=strategy,  # type: ignore[arg-type]
            autoreset_mode=AutoresetMode.DISABLED,
            max_episode_steps=1,
        )
        envs.reset(seed=0)
        envs.step(np.zeros((1, 4), dtype=np.float32))
        other = make_vector_env("MetaWorldMT10-v0", 1, autoreset_mode=AutoresetMode.DISABLED, max_episode_steps=1)
        other.set_state(envs.get_state())
        with pytest.raises(RuntimeError, match=r"sub-environments \[0\] have finished: reset them first"):
            other.step(np.zeros((1, 4), dtype=np.float32))
        envs.close()


@pytest.mark.skipif(os.name != "posix", reason="signals to process groups")
@pytest.mark.parametrize("stop", [signal.SIGINT, signal.SIGTERM])
def test_signals_reach_the_main_process_only(stop: signal.Signals, tmp_path: Path) -> None:
    """As by a terminal or by `timeout`, the whole process group gets it; the main process steps on, and saves."""
    script = tmp_path / "train.py"
    script.write_text(
        "import gymnasium as gym, numpy as np, qmp_envs\n"
        "from qmp_collect.runs import StopSignal\n"
        "if __name__ == '__main__':\n"
        "    with StopSignal() as stop:\n"
        "        envs = gym.make_vec('MetaWorldMT10-v0', num_envs=2, vector_strategy='async')\n"
        "        envs.reset(seed=0)\n"
        "        print('ready', flush=True)\n"
        "        while not stop:\n"
        "            envs.step(np.zeros((2, 4), np.float32))\n"
        "        for _ in range(3):\n"
        "            envs.step(np.zeros((2, 4), np.float32))\n"
        "        print('saved', len(envs.unwrapped.get_state()['envs']), flush=True)\n"
        "        envs.close(terminate=True)\n"
        "        print('closed', flush=True)\n"
    )
    paths = [str(ROOT), str(ROOT / "envs"), os.environ.get("PYTHONPATH", "")]
    process = subprocess.Popen(
        [sys.executable, str(script)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        env=dict(os.environ, PYTHONPATH=os.pathsep.join(paths)),
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    time.sleep(0.1)
    os.killpg(process.pid, stop)
    output, errors = process.communicate(timeout=60)
    assert (output, process.returncode) == ("saved 2\nclosed\n", 0), errors
    assert "Traceback" not in errors


@pytest.mark.parametrize("duplicate", [copy.deepcopy, lambda env: pickle.loads(pickle.dumps(env))])
def test_copies_go_on_alike(duplicate: Any) -> None:
    env = MetaWorldEnv("MetaWorldMT10-v0", task=1)
    env.reset(seed=0)
    actions = np.random.default_rng(0).uniform(-1, 1, (8, 4))
    for action in actions:
        env.step(action)
    other = duplicate(env)
    for action in actions:
        (a, *rest), (b, *others) = env.step(action), other.step(action)
        np.testing.assert_array_equal(a, b)
        assert rest == others
    np.testing.assert_array_equal(env.reset()[0], other.reset()[0])
