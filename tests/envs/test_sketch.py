"""The software renderer: shapes where a pinhole camera sees them, hidden and lit as they should be."""

from __future__ import annotations

import mujoco
import numpy as np
import pytest

from qmp_envs.sketch import Camera, Marker, Sketch

SIDE = Camera(lookat=(0.0, 0.0, 0.0), distance=2.0, azimuth=90.0, elevation=0.0, fovy=90.0, size=(100, 120))
RED = (1.0, 0.0, 0.0, 1.0)


def scene(*geoms: str, assets: str = "") -> tuple[Sketch, mujoco.MjData]:
    text = (
        f"<mujoco><asset>{assets}</asset><worldbody>{''.join(f'<geom {geom}/>' for geom in geoms)}</worldbody></mujoco>"
    )
    model = mujoco.MjModel.from_xml_string(text)
    data = mujoco.MjData(model)
    mujoco.mj_forward(model, data)
    return Sketch(model), data


def reddish(picture: np.ndarray) -> np.ndarray:
    """Share of red, 0 to 1, per pixel."""
    values = picture.astype(float)
    return np.clip((values[..., 0] - values[..., 1]) / np.maximum(values.max(axis=2), 1), 0, 1)


def test_projection_is_a_pinhole() -> None:
    # 2 m away and 90 degrees high: 100 pixels cover 4 m.
    points = np.array([(0, 0, 0), (1, 0, 0), (0, 0, 1), (1, 2, -1)], dtype=float)
    expected = [(60, 50, 2), (85, 50, 2), (60, 25, 2), (72.5, 62.5, 4)]
    np.testing.assert_allclose(SIDE.project(points), expected, atol=1e-9)
    np.testing.assert_allclose(SIDE.position, (0, -2, 0), atol=1e-12)
    above = Camera(lookat=(1.0, 2.0, 0.0), distance=3.0, azimuth=0.0, elevation=-90.0)
    np.testing.assert_allclose(above.position, (1, 2, 3), atol=1e-12)
    axes = Camera(lookat=(1.0, 2.0, 0.0), distance=3.0, azimuth=37.0, elevation=-21.0).axes
    np.testing.assert_allclose(axes @ axes.T, np.eye(3), atol=1e-12)
    assert np.linalg.det(axes) == pytest.approx(-1)  # right, up, forward


@pytest.mark.parametrize(
    ("geom", "area", "centre"),
    [
        # Silhouettes in m^2 at 2 m distance, where a pixel is 0.04 m, and their centres (right, down).
        ('type="sphere" size="0.4"', np.pi * 0.4**2, (60, 50)),
        ('type="sphere" size="0.4" pos="0.4 0 0.6"', np.pi * 0.4**2, (70, 35)),
        ('type="ellipsoid" size="0.6 0.05 0.3"', np.pi * 0.6 * 0.3, (60, 50)),
        ('type="capsule" size="0.2 0.5"', np.pi * 0.2**2 + 0.4, (60, 50)),
        ('type="capsule" size="0.2" fromto="-0.5 0 0.2 0.5 0 0.2"', np.pi * 0.2**2 + 0.4, (60, 45)),
        ('type="cylinder" size="0.2 0.5"', 0.4, (60, 50)),
        ('type="box" size="0.5 0.01 0.3" pos="0.2 0 0"', 0.6, (65, 50)),
        ('type="box" size="0.01 0.4 0.3" euler="0 0 90"', 0.48, (60, 50)),
    ],
)
def test_silhouettes_have_their_size_and_place(geom: str, area: float, centre: tuple[float, float]) -> None:
    sketch, data = scene(f'{geom} rgba="1 0 0 1"')
    cover = reddish(sketch.draw(data, SIDE)) > 0.5
    assert cover.sum() * 0.04**2 == pytest.approx(area, rel=0.12)  # nearer parts look larger
    down, right = np.argwhere(cover).mean(axis=0) + 0.5
    np.testing.assert_allclose((right, down), centre, atol=0.8)


def test_meshes_keep_their_hollows() -> None:
    # An L of two boxes: the convex hull would fill the corner.
    vertices = [(x, y, z) for y in (0, 0.1) for x, z in ((0, 0), (1, 0), (1, 0.3), (0.3, 0.3), (0.3, 1), (0, 1))]
    outline = list(range(6))
    caps = [(0, 1, 2), (0, 2, 3), (0, 3, 4), (0, 4, 5)]
    faces = caps + [(a + 6, c + 6, b + 6) for a, b, c in caps]
    faces += [f for i in outline for f in ((i, i + 6, (i + 1) % 6), ((i + 1) % 6, i + 6, (i + 1) % 6 + 6))]
    numbers = " ".join(str(n) for v in vertices for n in v), " ".join(str(i) for f in faces for i in f)
    mesh = f'<mesh name="l" vertex="{numbers[0]}" face="{numbers[1]}"/>'
    sketch, data = scene('type="mesh" mesh="l" rgba="1 0 0 1"', assets=mesh)
    cover = reddish(sketch.draw(data, SIDE)) > 0.5
    assert cover.sum() * 0.04**2 == pytest.approx(0.51, rel=0.12)


def test_nearer_things_hide_farther_ones() -> None:
    near, far = 'size="0.3" pos="0 -0.5 0" rgba="1 0 0 1"', 'size="0.5" pos="0 0.5 0" rgba="0 0 1 1"'
    for geoms in ((near, far), (far, near)):
        sketch, data = scene(*geoms)
        picture = sketch.draw(data, SIDE)
        assert reddish(picture)[50, 60] > 0.9
    back = Camera(lookat=(0.0, 0.0, 0.0), distance=2.0, azimuth=-90.0, elevation=0.0, fovy=90.0, size=(100, 120))
    assert reddish(sketch.draw(data, back)).max() < 0.1
    # They cut through one another: each is in front on its side.
    sketch, data = scene('size="0.4" pos="-0.2 0 0" rgba="1 0 0 1"', 'size="0.4" pos="0.2 0 0" rgba="0 0 1 1"')
    shares = reddish(sketch.draw(data, SIDE))[50]
    assert shares[56] > 0.9
    assert shares[64] < 0.1


def test_what_is_behind_the_camera_or_in_hidden_groups_is_not_drawn() -> None:
    sketch, data = scene('size="0.3" pos="0 -3 0"', 'size="0.3" group="3"', 'size="0.3" rgba="1 0 0 0"')
    assert len(np.unique(sketch.draw(data, SIDE).reshape(-1, 3), axis=0)) == 1


def test_floor_is_hidden_by_what_stands_on_it_and_carries_its_shadow() -> None:
    camera = Camera(lookat=(0.0, 0.0, 0.0), distance=3.0, azimuth=90.0, elevation=-50.0, size=(120, 120))
    floor = 'type="plane" size="0 0 1"'
    sketch, data = scene(floor, 'size="0.3" pos="0 0 1" rgba="1 0 0 1"')
    bare, data_bare = scene(floor)
    with_ball, empty = sketch.draw(data, camera).astype(float), bare.draw(data_bare, camera).astype(float)
    right, down, _ = camera.project(np.array([0.0, 0.0, 1.0]))
    assert reddish(with_ball)[int(down), int(right)] > 0.9
    darker = (with_ball.mean(axis=2) < empty.mean(axis=2) - 20) & (reddish(with_ball) < 0.3)
    assert darker.sum() > 100
    # Light comes from -x, -y: the shadow falls towards x, y.
    where = np.argwhere(darker).mean(axis=0)
    np.testing.assert_allclose(where[::-1], camera.project(np.array([0.43, 0.55, 0.0]))[:2], atol=3)
    # A ball below the floor is not seen.
    below, data_below = scene(floor, 'size="0.3" pos="0 0 -0.5" rgba="1 0 0 1"')
    np.testing.assert_array_equal(below.draw(data_below, camera), empty)


def test_markers_are_drawn_and_may_be_translucent() -> None:
    sketch, data = scene('type="box" size="1 0.01 1" rgba="0 0 1 1"')
    solid = sketch.draw(data, SIDE, [Marker((0.4, -0.5, 0.4), 0.2, RED)])
    right, down, _ = SIDE.project(np.array([0.4, -0.5, 0.4]))
    cover = reddish(solid) > 0.5
    np.testing.assert_allclose(np.argwhere(cover).mean(axis=0) + 0.5, (down, right), atol=0.5)
    mixed = sketch.draw(data, SIDE, [Marker((0.4, -0.5, 0.4), 0.2, (1.0, 0.0, 0.0, 0.5))]).astype(float)
    plain = sketch.draw(data, SIDE).astype(float)
    at = int(down), int(right)
    np.testing.assert_allclose(mixed[at], 0.5 * plain[at] + 0.5 * solid[at], atol=1.5)
    hidden = sketch.draw(data, SIDE, [Marker((0.4, 0.5, 0.4), 0.2, (1.0, 0.0, 0.0, 0.5))])
    np.testing.assert_array_equal(hidden, plain)


def test_light_comes_from_above() -> None:
    sketch, data = scene('type="box" size="0.5 0.5 0.5" rgba="0.8 0.8 0.8 1"')
    camera = Camera(lookat=(0.0, 0.0, 0.0), distance=4.0, azimuth=90.0, elevation=-40.0, size=(100, 100))
    picture = sketch.draw(data, camera).astype(float).mean(axis=2)
    top, front = (camera.project(np.array(p)) for p in ((0.0, 0.0, 0.5), (0.0, -0.5, 0.0)))
    assert picture[int(top[1]), int(top[0])] > picture[int(front[1]), int(front[0])] + 15


def test_edges_are_smooth_and_pictures_are_repeatable() -> None:
    sketch, data = scene('size="0.5" rgba="1 0 0 1"')
    picture = sketch.draw(data, SIDE)
    assert picture.dtype == np.uint8
    assert picture.shape == (100, 120, 3)
    shares = reddish(picture)
    assert ((shares > 0.1) & (shares < 0.9)).sum() > 40
    np.testing.assert_array_equal(picture, sketch.draw(data, SIDE))


def test_colours_come_from_materials_and_their_textures() -> None:
    red = '<texture name="t" type="2d" builtin="flat" rgb1="1 0 0" width="8" height="8"/>'
    for assets in (f'{red}<material name="m" texture="t"/>', '<material name="m" rgba="1 0 0 1"/>'):
        sketch, data = scene('size="0.5" material="m"', assets=assets)
        assert reddish(sketch.draw(data, SIDE))[50, 60] > 0.9
