"""Pictures: what must be visible is found by its colour, where the physics say it is."""

from __future__ import annotations

import gymnasium as gym
import numpy as np
import pytest

from qmp_envs.drawing import blend, blur, capsule, disc, rectangle, rounded
from qmp_envs.maze import AGENT_COLOUR, CELL_PIXELS, GOAL_COLOUR, MAZES, START_COLOUR, MazeEnv, MazeVectorEnv


def pixels_of(frame: np.ndarray, colour: tuple[int, int, int]) -> np.ndarray:
    """Positions (M, 2) of the pixels that have exactly this colour."""
    return np.argwhere((frame == colour).all(axis=2))


def expected_pixel(location: tuple[float, float]) -> np.ndarray:
    """Joint coordinates to pixels: the ball is 0.2 off the centre of its cell."""
    return (np.array(location) + 0.2 + 0.5) * CELL_PIXELS - 0.5


@pytest.mark.parametrize("env_id", MAZES)
def test_start_goal_and_agent_are_where_they_are(env_id: str) -> None:
    task_set = MAZES[env_id]
    envs = MazeVectorEnv(env_id, task_set.num_tasks, render_mode="rgb_array")
    envs.reset(seed=0)
    state = envs.get_state()
    where = (3.1, 3.3) if env_id == "Maze3-v0" else (3.1, 4.0)
    state["physics"][:, 1:3] = where
    envs.set_state(state)
    frames = envs.render()
    assert isinstance(frames, tuple)
    assert len(frames) == envs.num_envs
    for task, frame in enumerate(frames):
        assert frame.dtype == np.uint8
        assert frame.shape == (len(task_set.layout) * CELL_PIXELS, len(task_set.layout[0]) * CELL_PIXELS, 3)
        for colour, location in (
            (AGENT_COLOUR, where),
            (START_COLOUR, task_set.starts[task]),
            (GOAL_COLOUR, task_set.goals[task]),
        ):
            found = pixels_of(frame, colour)
            assert len(found) > 90, (task, colour)
            np.testing.assert_allclose(found.mean(axis=0), expected_pixel(location), atol=1.0)


def test_walls_and_floor_follow_the_layout() -> None:
    env = MazeEnv("Maze10-v0", task=0, render_mode="rgb_array")
    env.reset(seed=0)
    frame = env.render()
    assert frame is not None
    brightness = frame.astype(float).mean(axis=2)
    middles = brightness[CELL_PIXELS // 2 :: CELL_PIXELS, CELL_PIXELS // 2 :: CELL_PIXELS]
    walls = np.array([list(line) for line in MAZES["Maze10-v0"].layout]) == "#"
    assert middles[walls].max() < 90
    assert middles[~walls].min() > 120


def test_frames_move_with_the_agent_and_are_fresh() -> None:
    env = MazeEnv("Maze10-v0", task=0, render_mode="rgb_array")
    env.reset(seed=0)
    first = env.render()
    again = env.render()
    assert first is not None
    assert again is not None
    np.testing.assert_array_equal(first, again)
    assert not np.shares_memory(first, again)
    before = pixels_of(first, AGENT_COLOUR).mean(axis=0)
    for _ in range(30):
        observation = env.step(np.array([0.0, -1.0]))[0]
    frame = env.render()
    assert frame is not None
    after = pixels_of(frame, AGENT_COLOUR).mean(axis=0)
    np.testing.assert_allclose(after, expected_pixel(observation[:2]), atol=1.0)
    assert after[1] < before[1] - CELL_PIXELS


def test_frame_rate_is_real_time() -> None:
    assert MazeEnv.metadata["render_fps"] == MazeVectorEnv.metadata["render_fps"] == 100
    assert MazeVectorEnv("Maze3-v0", 1).metadata["render_fps"] == 100


def test_render_without_a_mode_warns() -> None:
    envs = MazeVectorEnv("Maze3-v0", 3)
    envs.reset(seed=0)
    with pytest.warns(UserWarning, match="render_mode='rgb_array'"):
        assert envs.render() is None


def test_gymnasiums_video_collection_works() -> None:
    env = gym.make("Maze3-v0", render_mode="rgb_array_list")
    env.reset(seed=0)
    env.step(np.zeros(2, dtype=np.float32))
    frames = env.render()
    assert isinstance(frames, list)
    assert [frame.shape for frame in frames] == [(320, 320, 3)] * 2


def test_blending_is_linear() -> None:
    image = np.full((1, 3, 3), 100.0)
    blend(image, (200, 0, 100), np.array([[0.0, 0.5, 1.0]]))
    np.testing.assert_allclose(image, [[[100, 100, 100], [150, 50, 100], [200, 0, 100]]])


def test_discs_have_their_area_and_may_lie_outside() -> None:
    image = np.zeros((40, 60, 3))
    disc(image, (20.0, 30.0), 10.0, (1, 1, 1))
    assert image[..., 0].sum() == pytest.approx(np.pi * 100, rel=0.01)
    assert image[20, 30, 0] == 1.0
    half = np.zeros((40, 60, 3))
    disc(half, (0.0, 30.0), 10.0, (1, 1, 1))
    assert half[..., 0].sum() == pytest.approx(np.pi * 50, rel=0.02)
    disc(outside := np.zeros((40, 60, 3)), (-50.0, 90.0), 10.0, (1, 1, 1))
    assert not outside.any()


def test_capsules_have_their_area_wherever_they_point() -> None:
    for end in ((20.0, 50.0), (35.0, 20.0), (5.0, 40.0), (20.0, 20.0)):
        image = np.zeros((60, 80, 3))
        capsule(image, (20.0, 20.0), end, 4.0, (1, 1, 1))
        length = np.hypot(end[0] - 20, end[1] - 20)
        assert image[..., 0].sum() == pytest.approx(np.pi * 16 + 8 * length, rel=0.02)
        assert image[(20 + round(end[0])) // 2, (20 + round(end[1])) // 2, 0] == 1.0
    capsule(outside := np.zeros((60, 80, 3)), (-30.0, 10.0), (-20.0, 90.0), 10.0, (1, 1, 1))
    assert not outside.any()


def test_rectangles_have_their_area_and_may_lie_outside() -> None:
    image = np.zeros((40, 60, 3))
    rectangle(image, (10.5, -5.0), (20.0, 7.25), (1, 1, 1), opacity=0.5)
    assert image[..., 0].sum() == pytest.approx(0.5 * 9.5 * 7.25)
    assert image[10, 3, 0] == pytest.approx(0.25)
    assert image[15, 7, 0] == pytest.approx(0.125)
    assert not image[:10].any()
    rectangle(outside := np.zeros((40, 60, 3)), (50.0, 0.0), (60.0, 9.0), (1, 1, 1))
    assert not outside.any()


def test_blur_keeps_mass_and_rounding_keeps_straight_edges() -> None:
    mask = np.zeros((60, 60))
    mask[20:40, 20:40] = 1.0
    assert blur(mask, 2.0).sum() == pytest.approx(400.0)
    shape = rounded(mask, 2.0)
    np.testing.assert_allclose(shape[30], mask[30], atol=0.3)
    assert shape[30, 30] == 1.0
    assert shape[20, 20] < 0.1  # the corner is cut
