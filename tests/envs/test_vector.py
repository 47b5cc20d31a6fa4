"""The batched base environment: autoreset, seeds, infos, saving and errors, shown on the maze."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.utils.env_checker import data_equivalence
from gymnasium.vector import AutoresetMode, SyncVectorEnv
from hypothesis import example, given, settings
from hypothesis import strategies as st

from qmp_envs.maze import MazeEnv, MazeVectorEnv

MODES = list(AutoresetMode)
NEXT_STEP, SAME_STEP, DISABLED = AutoresetMode.NEXT_STEP, AutoresetMode.SAME_STEP, AutoresetMode.DISABLED
Step = tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, dict[str, Any]]


def held_actions(steps: int, num_envs: int, seed: int = 0) -> np.ndarray:
    """Forces that change every few steps: (steps, N, 2)."""
    rng = np.random.default_rng(seed)
    return np.repeat(rng.uniform(-1, 1, (-(-steps // 15), num_envs, 2)), 15, axis=0)[:steps].astype(np.float32)


def near_goal(envs: MazeVectorEnv, *indices: int) -> None:
    """Put the balls of some sub-environments on their goals."""
    state = envs.get_state()
    for i in indices:
        state["physics"][i, 1:3] = envs.task_set.goals[envs.task_ids[i]]
    envs.set_state(state)


def assert_same_step(ours: Step, theirs: Step, where: str) -> None:
    for name, a, b in zip(("obs", "rewards", "terminations", "truncations"), ours, theirs, strict=False):
        assert a.dtype == b.dtype, (where, name)
        np.testing.assert_array_equal(a, b, err_msg=f"{where}, {name}")
    mine, reference = dict(ours[4]), dict(theirs[4])
    assert mine.keys() == reference.keys(), where
    for key in mine.keys() & {"final_obs"}:
        ours_obs, theirs_obs = mine.pop(key), reference.pop(key)
        assert ours_obs.dtype == theirs_obs.dtype == object
        assert ours_obs.shape == theirs_obs.shape
        for a, b in zip(ours_obs, theirs_obs, strict=True):
            assert (a is None) == (b is None)
            assert a is None or (a.dtype == b.dtype and np.array_equal(a, b)), where
    assert data_equivalence(mine, reference, exact=True), (where, mine, reference)


# ---------------------------------------------------------------------- autoreset


@pytest.mark.parametrize("mode", MODES)
def test_everything_is_as_in_a_loop_over_single_environments(mode: AutoresetMode) -> None:
    num_envs, horizon, steps = 5, 40, 250
    makers: list[Callable[[], gym.Env[Any, Any]]] = [
        lambda i=i: MazeEnv("Maze3-v0", task=i % 3, max_episode_steps=horizon) for i in range(num_envs)
    ]
    loop = SyncVectorEnv(makers, autoreset_mode=mode)
    envs = MazeVectorEnv("Maze3-v0", num_envs, autoreset_mode=mode, max_episode_steps=horizon)
    assert envs.observation_space == loop.observation_space
    assert envs.action_space == loop.action_space
    assert data_equivalence(envs.reset(seed=3), loop.reset(seed=3), exact=True)
    endings = {"terminated": 0, "truncated": 0}
    for t, actions in enumerate(held_actions(steps, num_envs)):
        if t % 61 == 30:  # success is rare under random forces: help
            near_goal(envs, t % num_envs)
            single = loop.envs[t % num_envs]
            assert isinstance(single, MazeEnv)
            near_goal(single._batch, 0)  # type: ignore[arg-type]
        ours, theirs = envs.step(actions), loop.step(actions)
        assert_same_step(ours, theirs, f"step {t}")
        done = ours[2] | ours[3]
        endings["terminated"] += int(ours[2].sum())
        endings["truncated"] += int(ours[3].sum())
        if mode is DISABLED and done.any():
            mine = envs.reset(options={"reset_mask": done})
            reference = loop.reset(options={"reset_mask": done.copy()})
            assert data_equivalence(mine, reference, exact=True), t
    assert endings["terminated"] >= 3
    assert endings["truncated"] >= 10


def test_next_step_literally() -> None:
    envs = MazeVectorEnv("Maze3-v0", 3, max_episode_steps=2)
    first, _ = envs.reset(seed=0)
    idle = np.zeros((3, 2))
    truncated, rewarded, moved = [], [], []
    last = first
    for _ in range(6):
        observations, rewards, terminations, truncations, infos = envs.step(idle)
        assert not terminations.any()
        assert infos["_success"].all()
        truncated.append(truncations.tolist())
        rewarded.append((rewards < 0).tolist())
        moved.append(bool((np.abs(observations[:, :2] - last[:, :2]).max(axis=1) > 0.005).any()))
        last = observations
    assert truncated == [[False] * 3, [True] * 3, [False] * 3] * 2
    assert rewarded == [[True] * 3, [True] * 3, [False] * 3] * 2
    assert moved == [False, False, True] * 2


def test_next_step_resets_finished_rows_only() -> None:
    envs = MazeVectorEnv("Maze3-v0", 3)
    envs.reset(seed=0)
    near_goal(envs, 1)
    idle = np.zeros((3, 2))
    _, rewards, terminations, _, infos = envs.step(idle)
    assert terminations.tolist() == infos["success"].tolist() == [False, True, False]
    assert rewards[1] == pytest.approx(0.0, abs=0.02)
    before = envs.get_state()
    observations, rewards, terminations, truncations, infos = envs.step(np.full((3, 2), 0.5))
    assert rewards[1] == 0.0
    assert not (terminations | truncations | infos["success"])[1]
    assert np.abs(observations[1, :2] - (5, 6)).max() <= 0.1 + 1e-6
    after = envs.get_state()
    np.testing.assert_array_equal(after["elapsed"], [2, 0, 2])
    assert before["rng"][0] == after["rng"][0]
    assert before["rng"][1] != after["rng"][1]


def test_next_step_ignores_the_action_of_a_finished_row() -> None:
    results = []
    for ignored in (0.0, 1.0, np.nan):
        envs = MazeVectorEnv("Maze3-v0", 2)
        envs.reset(seed=0)
        near_goal(envs, 0)
        envs.step(np.zeros((2, 2)))
        actions = np.full((2, 2), 0.25)
        actions[0] = ignored
        results.append(envs.step(actions)[0])
        np.testing.assert_array_equal(actions, [[ignored] * 2, [0.25] * 2])  # the caller's array is left alone
    np.testing.assert_array_equal(results[0], results[1])
    np.testing.assert_array_equal(results[0], results[2])


def test_same_step_keeps_the_true_successor() -> None:
    envs = MazeVectorEnv("Maze3-v0", 3, autoreset_mode=SAME_STEP, max_episode_steps=2)
    loop = MazeVectorEnv("Maze3-v0", 3, autoreset_mode=DISABLED, max_episode_steps=2)
    for each in (envs, loop):
        each.reset(seed=0)
        each.step(np.full((3, 2), 0.5))
        near_goal(each, 2)
    observations, _, terminations, truncations, infos = envs.step(np.full((3, 2), 0.5))
    successors, *_ = loop.step(np.full((3, 2), 0.5))
    assert terminations.tolist() == [False, False, True]
    assert truncations.tolist() == [True, True, False]
    np.testing.assert_array_equal(np.stack(list(infos["final_obs"])), successors)
    assert infos["final_info"]["success"].tolist() == [False, False, True]
    assert not infos["success"].any()  # a new episode has no outcome yet
    assert np.abs(observations[:, :2] - (5, 6)).max() <= 0.1 + 1e-6


def test_disabled_raises_for_finished_sub_envs() -> None:
    envs = MazeVectorEnv("Maze3-v0", 3, autoreset_mode=DISABLED, max_episode_steps=1)
    envs.reset(seed=0)
    envs.step(np.zeros((3, 2)))
    envs.reset(options={"reset_mask": np.array([True, False, True])})
    with pytest.raises(RuntimeError, match=r"sub-environments \[1\] have finished: reset them first"):
        envs.step(np.zeros((3, 2)))
    envs.reset(options={"reset_mask": np.array([False, True, False])})
    envs.step(np.zeros((3, 2)))


def test_the_three_modes_make_the_same_transitions() -> None:
    """Transition by transition, when every sub-environment meets the same actions in the same order."""
    actions = held_actions(200, 1)[:, 0]
    transitions = {}
    for mode in MODES:
        envs = MazeVectorEnv("Maze3-v0", 2, autoreset_mode=mode, max_episode_steps=30)
        observations, _ = envs.reset(seed=0)
        rows, resetting, count = [], False, 0
        while count < len(actions):
            following, rewards, terminations, truncations, infos = envs.step(np.tile(actions[count], (2, 1)))
            done = terminations | truncations
            assert done.all() == done.any()
            if not resetting:
                true = np.stack(list(infos["final_obs"])) if "final_obs" in infos else following
                rows.append(np.column_stack((observations, rewards, true, terminations, truncations)))
                count += 1
            resetting = mode is NEXT_STEP and bool(done.any())
            if mode is DISABLED and done.any():
                following, _ = envs.reset(options={"reset_mask": done})
            observations = following
        transitions[mode] = np.array(rows)
    assert transitions[SAME_STEP][:, :, -1].sum() == 2 * (200 // 30)
    np.testing.assert_array_equal(transitions[NEXT_STEP], transitions[SAME_STEP])
    np.testing.assert_array_equal(transitions[NEXT_STEP], transitions[DISABLED])


def test_autoreset_mode_is_found_where_learners_look() -> None:
    for mode in MODES:
        envs = MazeVectorEnv("Maze3-v0", 3, autoreset_mode=mode)
        assert envs.autoreset_mode is envs.metadata["autoreset_mode"] is mode
    assert MazeVectorEnv("Maze3-v0", 3).autoreset_mode is NEXT_STEP
    assert MazeVectorEnv.metadata["autoreset_mode"] is NEXT_STEP
    assert MazeVectorEnv("Maze3-v0", 3, autoreset_mode="SameStep").autoreset_mode is SAME_STEP


# ---------------------------------------------------------------------- seeds and tasks


def test_seeds() -> None:
    envs = MazeVectorEnv("Maze3-v0", 3)
    from_int, _ = envs.reset(seed=7)
    from_list, _ = envs.reset(seed=[7, 8, 9])
    from_numpy, _ = envs.reset(seed=np.int64(7))  # type: ignore[arg-type]
    np.testing.assert_array_equal(from_int, from_list)
    np.testing.assert_array_equal(from_int, from_numpy)
    assert len(np.unique(from_int[:, 0])) == 3
    going_on, _ = envs.reset()
    assert not np.isclose(going_on, from_int).any()
    np.testing.assert_array_equal(envs.reset(seed=7)[0], from_int)
    np.testing.assert_array_equal(envs.reset()[0], going_on)
    partly, _ = envs.reset(seed=[None, 8, None])
    np.testing.assert_array_equal(partly[1], from_int[1])
    assert not np.isclose(partly[0], from_int[0]).any()
    unseeded = [MazeVectorEnv("Maze3-v0", 3).reset()[0] for _ in range(2)]
    assert (unseeded[0] != unseeded[1]).all()


def test_single_and_batched_noise_agree() -> None:
    batch, _ = MazeVectorEnv("Maze3-v0", 3).reset(seed=11)
    for task in range(3):
        single, _ = MazeEnv("Maze3-v0", task=task).reset(seed=11 + task)
        np.testing.assert_array_equal(single, batch[task])


def test_global_random_state_is_neither_used_nor_changed() -> None:
    np.random.seed(0)
    before = np.random.get_state()[1].copy()  # type: ignore[union-attr, index]
    envs = MazeVectorEnv("Maze3-v0", 3)
    first, _ = envs.reset(seed=0)
    envs.step(np.zeros((3, 2)))
    np.testing.assert_array_equal(np.random.get_state()[1], before)  # type: ignore[index]
    np.random.seed(1)
    np.testing.assert_array_equal(MazeVectorEnv("Maze3-v0", 3).reset(seed=0)[0], first)


def test_task_assignment() -> None:
    assert MazeVectorEnv("Maze3-v0", 7).task_ids.tolist() == [0, 1, 2, 0, 1, 2, 0]
    envs = MazeVectorEnv("Maze3-v0", 4, task_ids=[2, 2, 0, 1])
    assert envs.task_ids.tolist() == [2, 2, 0, 1]
    assert envs.task_ids.dtype == np.int64
    assert envs.num_tasks == 3
    assert envs.task_names == envs.task_set.task_names
    envs.reset(seed=0)
    near_goal(envs, 0, 3)
    assert envs.step(np.zeros((4, 2)))[2].tolist() == [True, False, False, True]


def test_sub_envs_do_not_depend_on_their_neighbours() -> None:
    order = np.array([4, 0, 3, 1, 2])
    ids, seeds = np.array([0, 1, 2, 1, 0]), [10, 11, 12, 13, 14]
    a = MazeVectorEnv("Maze3-v0", 5, task_ids=ids, max_episode_steps=20)
    b = MazeVectorEnv("Maze3-v0", 5, task_ids=ids[order], max_episode_steps=20)
    a.reset(seed=seeds)
    b.reset(seed=[seeds[i] for i in order])
    for actions in held_actions(100, 5):
        for x, y in zip(a.step(actions)[:4], b.step(actions[order])[:4], strict=True):
            np.testing.assert_array_equal(x[order], y)


# ---------------------------------------------------------------------- arrays


def test_returned_arrays_are_the_callers_to_keep() -> None:
    envs = MazeVectorEnv("Maze3-v0", 3, max_episode_steps=5, autoreset_mode=SAME_STEP)
    kept = [envs.reset(seed=0)[0]]
    for actions in held_actions(12, 3):
        *arrays, infos = envs.step(actions)
        kept += [*arrays, infos["success"], infos["_success"]]
        if "final_obs" in infos:
            kept += [
                infos["_final_obs"],
                infos["_final_info"],
                infos["final_info"]["success"],
                *infos["final_obs"],
            ]
    copies = copy.deepcopy(kept)
    state = envs.get_state()
    unmoved = copy.deepcopy(state)
    for actions in held_actions(12, 3, seed=1):
        envs.step(actions)
    assert data_equivalence(kept, copies, exact=True)
    assert data_equivalence(state, unmoved, exact=True)
    for i, a in enumerate(kept):
        for b in kept[:i]:
            assert not np.shares_memory(a, b)
    # And writing to them changes nothing.
    envs.set_state(unmoved)
    expected = envs.step(np.ones((3, 2)))[0]
    envs.set_state(unmoved)
    for array in kept:
        array[...] = 1
    np.testing.assert_array_equal(envs.step(np.ones((3, 2)))[0], expected)


def test_dtypes_and_shapes() -> None:
    envs = MazeVectorEnv("Maze3-v0", 4)
    observations, _ = envs.reset(seed=0)
    following, rewards, terminations, truncations, infos = envs.step(envs.action_space.sample())
    assert observations.dtype == following.dtype == np.float32
    assert observations.shape == following.shape == (4, 4)
    assert rewards.dtype == np.float64
    for flags in (terminations, truncations, infos["success"], infos["_success"]):
        assert flags.dtype == np.bool_
        assert flags.shape == (4,)


# ---------------------------------------------------------------------- saving


@settings(max_examples=25, deadline=None)
@given(
    mode=st.sampled_from(MODES),
    before=st.integers(0, 25),
    seed=st.integers(0, 1000),
    through=st.sampled_from(["set_state", "pickle", "deepcopy"]),
)
@example(mode=NEXT_STEP, before=7, seed=0, through="set_state")  # saved between the end and the reset
@example(mode=NEXT_STEP, before=7, seed=0, through="pickle")
def test_saved_environments_continue_exactly(mode: AutoresetMode, before: int, seed: int, through: str) -> None:
    def advance(envs: MazeVectorEnv, actions: np.ndarray) -> list[Step]:
        steps = []
        for action in actions:
            steps.append(envs.step(action))
            done = steps[-1][2] | steps[-1][3]
            if mode is DISABLED and done.any():
                envs.reset(options={"reset_mask": done})
        return steps

    actions = held_actions(60, 4, seed)
    envs = MazeVectorEnv("Maze3-v0", 4, autoreset_mode=mode, max_episode_steps=7)
    envs.reset(seed=seed)
    advance(envs, actions[:before])
    if through == "set_state":
        other = MazeVectorEnv("Maze3-v0", 4, autoreset_mode=mode, max_episode_steps=7)
        other.set_state(pickle.loads(pickle.dumps(envs.get_state())))
    elif through == "pickle":
        other = pickle.loads(pickle.dumps(envs))
    else:
        other = copy.deepcopy(envs)
    for t, (a, b) in enumerate(zip(advance(envs, actions[before:]), advance(other, actions[before:]), strict=True)):
        assert_same_step(a, b, f"step {t}")
    assert data_equivalence(envs.get_state(), other.get_state(), exact=True)


def test_saved_single_environment_continues_exactly() -> None:
    env = MazeEnv("Maze10-v0", task=4, max_episode_steps=8)
    env.reset(seed=1)
    env.step(np.ones(2))
    other = MazeEnv("Maze10-v0", task=4, max_episode_steps=8)
    other.set_state(env.get_state())
    copied = pickle.loads(pickle.dumps(env))
    for _ in range(3):
        results = []
        for each in (env, other, copied):
            steps = [each.step(np.ones(2))[0] for _ in range(4)]
            results.append([*steps, each.reset()[0], each.np_random.random()])
        assert data_equivalence(results[0], results[1], exact=True)
        assert data_equivalence(results[0], results[2], exact=True)


def test_unstarted_environments_can_be_pickled() -> None:
    env = pickle.loads(pickle.dumps(MazeVectorEnv("Maze3-v0", 3)))
    np.testing.assert_array_equal(env.reset(seed=0)[0], MazeVectorEnv("Maze3-v0", 3).reset(seed=0)[0])


def test_state_is_a_plain_tree() -> None:
    envs = MazeVectorEnv("Maze3-v0", 3)
    envs.reset(seed=0)

    def leaves(tree: Any) -> list[Any]:
        if isinstance(tree, dict):
            assert all(isinstance(key, (str, int)) for key in tree)
            return [leaf for value in tree.values() for leaf in leaves(value)]
        if isinstance(tree, (list, tuple)):
            return [leaf for value in tree for leaf in leaves(value)]
        return [tree]

    for leaf in leaves(envs.get_state()):
        assert isinstance(leaf, (np.ndarray, str, int, float, bool)), type(leaf)
        assert not isinstance(leaf, np.ndarray) or leaf.dtype != object


# ---------------------------------------------------------------------- errors


def test_wrong_actions() -> None:
    envs = MazeVectorEnv("Maze3-v0", 3)
    with pytest.raises(RuntimeError, match=r"step\(\) before the first reset"):
        envs.step(np.zeros((3, 2)))
    envs.reset(seed=0)
    with pytest.raises(ValueError, match=r"actions must have shape \(3, 2\), got \(2, 3\)"):
        envs.step(np.zeros((2, 3)))
    bad = np.zeros((3, 2))
    bad[1, 0] = np.nan
    envs.step(np.zeros((3, 2)))
    before = envs.get_state()
    with pytest.raises(ValueError, match=r"NaN: got .* for sub-environment 1 \(task 1 '5_6_to_1_2', step 2"):
        envs.step(bad)
    assert data_equivalence(envs.get_state(), before, exact=True)


@pytest.mark.parametrize("value", [np.nan, np.inf, 1e11])
def test_diverging_physics_are_named(value: float, tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)  # MuJoCo writes a log file where it runs
    envs = MazeVectorEnv("Maze3-v0", 3)
    envs.reset(seed=0)
    envs.step(np.zeros((3, 2)))
    state = envs.get_state()
    state["physics"][2, 1] = value
    envs.set_state(state)
    with pytest.raises(FloatingPointError, match=r"sub-environment 2 \(task 2 '5_6_to_4_1', step 2 of its episode\)"):
        envs.step(np.zeros((3, 2)))
    with pytest.raises(RuntimeError, match=r"sub-environments \[2\] have diverged"):  # it does not go on from anywhere
        envs.step(np.zeros((3, 2)))
    envs.reset(seed=0)
    envs.step(np.zeros((3, 2)))


def test_infinite_actions_are_clipped() -> None:
    envs = [MazeVectorEnv("Maze3-v0", 3) for _ in range(2)]
    for env, largest in zip(envs, (1.0, np.inf), strict=True):
        env.reset(seed=np.arange(3))  # numpy's integers are seeds too
        env.step(np.array([[largest, -largest]] * 3))
    np.testing.assert_array_equal(envs[0]._engine.state, envs[1]._engine.state)


def test_divergence_after_the_end_of_an_episode_does_not_matter(tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    envs = MazeVectorEnv("Maze3-v0", 3, max_episode_steps=1)
    envs.reset(seed=0)
    envs.step(np.zeros((3, 2)))
    state = envs.get_state()
    state["physics"][0, 1] = 1e11
    envs.set_state(state)
    observations, *_ = envs.step(np.zeros((3, 2)))
    assert np.abs(observations[:, :2] - (5, 6)).max() <= 0.1 + 1e-6


def test_wrong_resets() -> None:
    envs = MazeVectorEnv("Maze3-v0", 3)
    with pytest.raises(RuntimeError, match="before the first reset"):
        MazeVectorEnv("Maze3-v0", 3, render_mode="rgb_array").render()
    with pytest.raises(RuntimeError, match="the first reset must be a full one"):
        envs.reset(options={"reset_mask": np.array([True, False, True])})
    envs.reset(seed=0, options={})
    with pytest.raises(TypeError, match="must be a bool numpy array"):
        envs.reset(options={"reset_mask": [True, False, True]})
    with pytest.raises(TypeError, match="must be a bool numpy array"):
        envs.reset(options={"reset_mask": np.array([1, 0, 1])})
    with pytest.raises(ValueError, match=r"must have shape \(3,\) and one True at least"):
        envs.reset(options={"reset_mask": np.array([True, False])})
    with pytest.raises(ValueError, match=r"must have shape \(3,\) and one True at least"):
        envs.reset(options={"reset_mask": np.zeros(3, dtype=bool)})
    with pytest.raises(ValueError, match=r"a seed per sub-environment \(3\) or one integer, got 2"):
        envs.reset(seed=[1, 2])


def test_partial_reset_leaves_the_callers_options_alone() -> None:
    envs = MazeVectorEnv("Maze3-v0", 3)
    envs.reset(seed=0)
    mask = np.array([True, False, False])
    options = {"reset_mask": mask}
    _, infos = envs.reset(options=options)
    assert options == {"reset_mask": mask}
    assert infos["_success"].tolist() == [True, False, False]
    infos["_success"][:] = True
    assert mask.tolist() == [True, False, False]


def test_wrong_states() -> None:
    envs = MazeVectorEnv("Maze3-v0", 3)
    envs.reset(seed=0)
    state = envs.get_state()
    with pytest.raises(ValueError, match=r"expected a state of Maze3-v0 with tasks \[0, 1\], got one of Maze3-v0"):
        MazeVectorEnv("Maze3-v0", 2).set_state(state)
    with pytest.raises(ValueError, match="expected a state of Maze10-v0"):
        MazeVectorEnv("Maze10-v0", 3).set_state(state)


def altered(state: dict[str, Any], name: str, value: Any) -> dict[str, Any]:
    return {**state, name: value(state[name])}


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("rng", lambda rng: rng[:1], "expected 2 generators"),
        ("rng", lambda rng: [rng[0], {"bit_generator": "MT19937"}], "expected the states of PCG64 generators.*at 1"),
        ("rng", lambda rng: [rng[0], {**rng[1], "state": {"state": "x", "inc": 1}}], "PCG64 generators.*at 1"),
        ("rng", lambda rng: [rng[0], None], "PCG64 generators.*at 1"),
        ("elapsed", lambda elapsed: elapsed * -1, r"0 to 600 steps so far, got \[-3, -3\]"),
        ("elapsed", lambda elapsed: elapsed + 598, r"0 to 600 steps so far, got \[601, 601\]"),
        ("physics", lambda physics: physics[:, 1:], "a state whose 'physics' is"),
        ("finished", lambda finished: finished[:1], "a state whose 'finished' is"),
    ],
)
def test_a_damaged_state_changes_nothing(name: str, value: Any, said: str) -> None:
    """A generator that could not be read was found only when all else had been taken over."""
    envs, other = MazeVectorEnv(num_envs=2), MazeVectorEnv(num_envs=2)
    envs.reset(seed=0)
    for _ in range(3):
        envs.step(np.zeros((2, 2)))
    other.reset(seed=5)
    before = pickle.dumps(other.get_state())
    with pytest.raises(ValueError, match=said):
        other.set_state(altered(envs.get_state(), name, value))
    assert pickle.dumps(other.get_state()) == before


def test_wrong_arguments() -> None:
    with pytest.raises(ValueError, match="num_envs must be at least 1, got 0"):
        MazeVectorEnv("Maze3-v0", 0)
    with pytest.raises(ValueError, match="max_episode_steps must be at least 1, got 0"):
        MazeVectorEnv("Maze3-v0", 1, max_episode_steps=0)
    with pytest.raises(ValueError, match="render_mode must be None or 'rgb_array', got 'human'"):
        MazeVectorEnv("Maze3-v0", 1, render_mode="human")
    with pytest.raises(ValueError, match="task_ids must be 2 integers, one per sub-environment"):
        MazeVectorEnv("Maze3-v0", 2, task_ids=[0])
    with pytest.raises(ValueError, match="task_ids must be 1 integers, one per sub-environment"):
        MazeVectorEnv("Maze3-v0", 1, task_ids=[0.5])  # type: ignore[list-item]
    with pytest.raises(ValueError, match=r"task_ids\[1\] is 3, but Maze3-v0 has tasks 0 to 2"):
        MazeVectorEnv("Maze3-v0", 2, task_ids=[0, 3])


def test_closed_environments_do_not_step() -> None:
    envs = MazeVectorEnv("Maze3-v0", 3)
    envs.reset(seed=0)
    envs.close()
    envs.close()
    with pytest.raises(RuntimeError):
        envs.step(np.zeros((3, 2)))
