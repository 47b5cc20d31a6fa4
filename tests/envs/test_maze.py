"""The maze's tasks, start states, rewards and endings, as literal numbers."""

from __future__ import annotations

from collections import deque

import gymnasium as gym
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import qmp_envs
from qmp_envs.maze import MAZES, MazeEnv, MazeVectorEnv

# start, goal, length of the shortest path in cells
TASKS = {
    "Maze10-v0": [
        ((1, 3), (5, 8), 9),
        ((1, 10), (2, 4), 9),
        ((4, 1), (1, 7), 9),
        ((7, 4), (4, 10), 9),
        ((1, 3), (7, 4), 11),
        ((1, 7), (7, 10), 11),
        ((5, 4), (7, 9), 11),
        ((7, 1), (2, 6), 12),
        ((1, 2), (3, 10), 14),
        ((7, 2), (6, 8), 15),
    ],
    "Maze3-v0": [((5, 6), (5, 3), 5), ((5, 6), (1, 2), 8), ((5, 6), (4, 1), 8)],
    "Maze5-v0": [
        ((4, 1), (1, 7), 9),
        ((3, 3), (7, 8), 9),
        ((1, 3), (7, 5), 10),
        ((7, 5), (3, 3), 8),
        ((5, 10), (1, 3), 11),
    ],
    "Maze20-v0": [
        ((1, 4), (2, 10), 11),
        ((1, 4), (5, 4), 12),
        ((1, 4), (5, 10), 10),
        ((1, 4), (7, 1), 11),
        ((1, 4), (7, 10), 12),
        ((2, 10), (1, 3), 12),
        ((2, 10), (5, 1), 14),
        ((2, 10), (5, 4), 13),
        ((2, 10), (7, 6), 9),
        ((2, 10), (7, 10), 9),
        ((5, 1), (1, 10), 13),
        ((5, 1), (3, 8), 13),
        ((5, 1), (5, 8), 11),
        ((5, 1), (7, 4), 13),
        ((5, 1), (7, 10), 15),
        ((7, 5), (1, 1), 12),
        ((7, 5), (1, 10), 11),
        ((7, 5), (4, 1), 11),
        ((7, 5), (7, 2), 15),
        ((7, 5), (7, 10), 9),
    ],
    "MazeMT10-v0": [
        ((1, 10), (7, 10), 10),
        ((1, 10), (5, 4), 14),
        ((1, 10), (1, 1), 13),
        ((5, 4), (7, 10), 12),
        ((5, 4), (1, 1), 15),
        ((1, 3), (5, 10), 11),
        ((1, 3), (7, 4), 11),
        ((7, 2), (2, 8), 15),
        ((7, 2), (7, 4), 16),
        ((7, 2), (1, 4), 10),
    ],
}
RIGHT, LEFT = np.array([0.0, 1.0], dtype=np.float32), np.array([0.0, -1.0], dtype=np.float32)
SINK = 0.08  # a step at full speed is 0.053
STAY = np.zeros(2, dtype=np.float32)


def path_length(layout: tuple[str, ...], start: tuple[int, int], goal: tuple[int, int]) -> int:
    """Steps between two cells by breadth-first search over free neighbours."""
    lengths, queue = {start: 0}, deque([start])
    while queue:
        row, column = queue.popleft()
        for cell in ((row + 1, column), (row - 1, column), (row, column + 1), (row, column - 1)):
            if layout[cell[0]][cell[1]] != "#" and cell not in lengths:
                lengths[cell] = lengths[row, column] + 1
                queue.append(cell)
    return lengths[goal]


def placed(env: MazeEnv, x: float, y: float, vx: float = 0.0, vy: float = 0.0) -> MazeEnv:
    """Put the ball of a freshly reset environment at rest, or moving, somewhere."""
    env.reset(seed=0)
    state = env.get_state()
    state["physics"][0, 1:] = x, y, vx, vy
    env.set_state(state)
    return env


@pytest.mark.parametrize("env_id", TASKS)
def test_tasks_lie_in_free_cells_at_known_distances(env_id: str) -> None:
    task_set = MAZES[env_id]
    layout = task_set.layout
    assert task_set.horizon == 600
    assert [(s, g) for s, g, _ in TASKS[env_id]] == list(zip(task_set.starts, task_set.goals, strict=True))
    for start, goal, length in TASKS[env_id]:
        assert layout[start[0]][start[1]] == layout[goal[0]][goal[1]] == "."
        assert path_length(layout, start, goal) == length
    assert layout == MAZES["Maze3-v0" if env_id == "Maze3-v0" else "Maze10-v0"].layout


def test_ids_and_names() -> None:
    assert set(MAZES) == set(TASKS) <= set(qmp_envs.TASK_SETS)
    assert MAZES["Maze3-v0"].task_names == ("5_6_to_5_3", "5_6_to_1_2", "5_6_to_4_1")
    assert len({len(line) for line in MAZES["Maze10-v0"].layout}) == 1


@pytest.mark.parametrize("env_id", TASKS)
def test_start_noise(env_id: str) -> None:
    task_set = MAZES[env_id]
    num_envs = 40 * task_set.num_tasks
    envs = MazeVectorEnv(env_id, num_envs)
    observations, _ = envs.reset(seed=0)
    starts = np.array(task_set.starts)[envs.task_ids]
    offsets, speeds = observations[:, :2] - starts, observations[:, 2:]
    assert 0.09 < np.abs(offsets).max() <= 0.1 + 1e-6
    assert np.abs(offsets.mean(axis=0)).max() < 0.03
    # Normal with deviation 0.1, not uniform: a third beyond one deviation, and some beyond two.
    assert 0.25 < (np.abs(speeds) > 0.1).mean() < 0.4
    assert np.abs(speeds).max() > 0.2
    assert abs(speeds.std() - 0.1) < 0.015
    assert len(np.unique(observations[:, 0])) == num_envs


def test_rewards_are_literal() -> None:
    # Task 0 ends at (5, 8). At rest without force the ball stays where it is.
    env = MazeEnv("Maze10-v0", task=0)
    for (x, y), reward in {
        (5.0, 8.0): 0.0,
        (5.0, 7.0): -0.6321205588285577,
        (3.0, 8.0): -0.8646647167633873,
        (1.0, 5.0): -0.9932620530009145,
    }.items():
        _, got, terminated, _, _ = placed(env, x, y).step(STAY)
        assert got == pytest.approx(reward, abs=1e-12)
        assert terminated == (reward == 0.0)


def test_sparse_rewards_are_literal() -> None:
    env = MazeEnv("Maze10-v0", task=0, reward="sparse")
    assert placed(env, 5.0, 7.0).step(STAY)[1] == 0.0
    assert placed(env, 5.0, 7.75).step(STAY)[1:3] == (1.0, True)
    assert (env.task_set.min_reward, env.task_set.reward_version) == (0.0, "sparse")
    dense = MazeEnv("Maze10-v0", task=0).task_set
    assert (dense.min_reward, dense.reward_version) == (-1.0, "dense")


@pytest.mark.parametrize(("y", "reached"), [(7.5, True), (7.499999, False), (7.6, True), (7.3, False), (8.2, True)])
def test_goal_radius_is_half_a_metre_inclusive(y: float, reached: bool) -> None:
    env = MazeEnv("Maze10-v0", task=0)
    _, _, terminated, truncated, info = placed(env, 5.0, y).step(STAY)
    assert (terminated, truncated, info["success"]) == (reached, False, reached)


def test_goal_is_two_dimensional() -> None:
    env = MazeEnv("Maze10-v0", task=0)
    assert placed(env, 5.2, 7.6).step(STAY)[2]  # 0.447 away
    assert not placed(env, 4.69, 7.6).step(STAY)[2]  # 0.506 away


def test_observation_is_position_and_velocity() -> None:
    observation, _, _, _, _ = placed(MazeEnv("Maze10-v0"), 3.0, 4.0).step(RIGHT)
    # 100 N on 4.18879 kg for 0.01 s, damped implicitly by 1 N s/m: v = 100 dt / (m + dt).
    speed = 100 * 0.01 / (4 / 3 * np.pi * 0.1**3 * 1000 + 0.01)
    np.testing.assert_allclose(observation, [3.0, 4.0 + 0.01 * speed, 0.0, speed], rtol=1e-6)
    assert observation.dtype == np.float32


def test_actions_are_clipped() -> None:
    env = MazeEnv("Maze10-v0")
    expected = placed(env, 3.0, 3.0).step(RIGHT)[0]
    np.testing.assert_array_equal(placed(env, 3.0, 3.0).step(7 * RIGHT)[0], expected)
    np.testing.assert_array_equal(placed(env, 3.0, 3.0).step(np.array([0, np.inf]))[0], expected)


def test_speed_is_clipped_before_the_step() -> None:
    env = MazeEnv("Maze10-v0")
    mass = 4 / 3 * np.pi * 0.1**3 * 1000
    observation = placed(env, 3.0, 3.0, vy=9.0).step(RIGHT)[0]
    assert observation[3] == pytest.approx((5 * mass + 1.0) / (mass + 0.01), rel=1e-6)
    assert observation[3] > 5.2
    observation = placed(env, 3.0, 3.0, vy=-9.0).step(STAY)[0]
    assert observation[3] == pytest.approx(-5 * mass / (mass + 0.01), rel=1e-6)


@pytest.mark.parametrize(
    ("x", "y", "force", "expected"),
    [
        (1.0, 4.0, RIGHT, (1.0, 4.2)),  # the wall's face is 0.5 off the cell's centre, the ball 0.1 thick ...
        (1.0, 1.0, LEFT, (1.0, 0.4)),  # ... and the joint's zero 0.2 off the centre
    ],
)
def test_walls_stop_the_ball(x: float, y: float, force: np.ndarray, expected: tuple[float, float]) -> None:
    env = placed(MazeEnv("Maze10-v0"), x, y)
    for _ in range(200):
        observation = env.step(force)[0]
    np.testing.assert_allclose(observation[:2], expected, atol=0.01)


def test_truncation_at_the_horizon_is_no_termination() -> None:
    env = placed(MazeEnv("Maze10-v0"), 1.0, 3.0)
    for _ in range(599):
        assert env.step(STAY)[2:4] == (False, False)
    _, reward, terminated, truncated, info = env.step(STAY)
    assert (terminated, truncated, info["success"]) == (False, True, False)
    assert reward == pytest.approx(np.exp(-np.hypot(4, 5)) - 1)


def test_goal_in_the_last_step_is_a_termination_only() -> None:
    env = placed(MazeEnv("Maze10-v0", task=0, max_episode_steps=2), 3.0, 8.0)
    env.step(STAY)
    state = env.get_state()
    state["physics"][0, 1:3] = 5.0, 8.0
    env.set_state(state)
    assert env.step(STAY)[2:4] == (True, False)


@settings(max_examples=15, deadline=None)
@given(
    env_id=st.sampled_from(sorted(TASKS)),
    seed=st.integers(0, 2**31),
    hold=st.integers(1, 60),
)
def test_balls_stay_inside_the_maze_and_the_spaces(env_id: str, seed: int, hold: int) -> None:
    envs = MazeVectorEnv(env_id, 20)
    task_set = MAZES[env_id]
    walls = np.array([list(line) for line in task_set.layout]) == "#"
    goals = np.array(task_set.goals)[envs.task_ids]
    rng = np.random.default_rng(seed)
    observations, _ = envs.reset(seed=seed)
    for step in range(200):
        if step % hold == 0:
            actions = rng.uniform(-1, 1, (20, 2)).astype(np.float32)
        assert envs.observation_space.contains(observations)
        observations, rewards, terminations, _, _ = envs.step(actions)
        # In units of cells the ball's centre is at its joint position + 0.2. Its radius is 0.1, and soft
        # contacts let it sink into a wall a little.
        centres = observations[:, :2] + 0.2
        cells = np.rint(centres).astype(int)
        assert not walls[tuple(cells.T)].any()
        for axis in (0, 1):
            side = np.sign(centres[:, axis] - cells[:, axis]).astype(int)
            neighbours = cells.copy()
            neighbours[:, axis] += side
            reach = np.abs(centres[:, axis] - cells[:, axis]) + 0.1
            assert reach[walls[tuple(neighbours.T)]].max(initial=0.0) < 0.5 + SINK
        assert ((rewards <= 0) & (rewards > task_set.min_reward)).all()
        near = np.linalg.norm(observations[:, :2] - goals, axis=1) <= 0.5
        np.testing.assert_array_equal(terminations, near)


def test_wrong_arguments_say_what_was_expected() -> None:
    with pytest.raises(ValueError, match=r"env_id must be one of .*Maze10-v0.*, got 'Maze4-v0'"):
        MazeVectorEnv("Maze4-v0")
    with pytest.raises(ValueError, match="reward must be 'dense' or 'sparse', got 'shaped'"):
        MazeVectorEnv(reward="shaped")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"task is 10, but Maze10-v0 has tasks 0 to 9"):
        MazeEnv("Maze10-v0", task=10)
    with pytest.raises(ValueError, match=r"task is -1"):
        gym.make("Maze10-v0", task=-1)
