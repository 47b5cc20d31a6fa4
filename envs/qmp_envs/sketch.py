"""Pictures of MuJoCo scenes with nothing but numpy: no OpenGL, no window, the same picture on every machine.

A depth buffer over triangles with smooth shading, outlines, a shadow on the floor, and 2 x 2 samples per pixel.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import mujoco
import numpy as np
import numpy.typing as npt

from qmp_envs.drawing import blur

Array = npt.NDArray[np.float64]

_SAMPLES = 2  # per pixel and direction
_SEGMENTS = 32  # of a circle
_NEAR = 0.01
_LIGHT = np.array([-0.35, -0.45, 0.82]) / np.linalg.norm([-0.35, -0.45, 0.82])  # towards the light
_SKY, _FLOOR, _CHECK, _INK = np.array(
    [(253, 252, 249), (242, 238, 230), (229, 223, 211), (20, 24, 32)], dtype=np.float64
)


@dataclass(frozen=True, kw_only=True)
class Camera:
    """A free camera in MuJoCo's terms: metres and degrees; an elevation below 0 looks down.

    Attributes:
        lookat: point in the middle of the picture.
        distance: from there to the camera.
        azimuth, elevation: direction of the view; azimuth 90 looks along y.
        fovy: vertical field of view.
        size: height and width of the picture in pixels.
    """

    lookat: Sequence[float] | Array
    distance: float
    azimuth: float = 90.0
    elevation: float = -25.0
    fovy: float = 45.0
    size: tuple[int, int] = (400, 400)

    @property
    def axes(self) -> Array:
        """Rows: the view's right, up and forward directions in the world."""
        a, e = np.radians((self.azimuth, self.elevation))
        forward = np.array([np.cos(e) * np.cos(a), np.cos(e) * np.sin(a), np.sin(e)])
        right = np.array([np.sin(a), -np.cos(a), 0.0])
        return np.stack((right, np.cross(right, forward), forward))

    @property
    def position(self) -> Array:
        """Where the camera is in the world."""
        position: Array = np.asarray(self.lookat) - self.distance * self.axes[2]
        return position

    def project(self, points: Array) -> Array:
        """Pixels (right, down) and depth (..., 3) of points (..., 3) of the world."""
        local = (points - self.position) @ self.axes.T
        depth = local[..., 2]
        scale = 0.5 * self.size[0] / np.tan(np.radians(self.fovy) / 2) / np.maximum(depth, _NEAR)
        right, down = self.size[1] / 2 + scale * local[..., 0], self.size[0] / 2 - scale * local[..., 1]
        return np.stack((right, down, depth), axis=-1)


@dataclass(frozen=True)
class Marker:
    """A sphere that is drawn without being part of the model, for goals and the like."""

    position: Sequence[float] | Array
    radius: float
    rgba: tuple[float, float, float, float]


class Sketch:
    """Draws one model; its triangles are prepared once.

    Args:
        model: planes, spheres, capsules, cylinders, ellipsoids, boxes and meshes are drawn, other types are not.
        groups: geoms of these groups are drawn.
        tile: edge of the floor's squares in metres.
    """

    def __init__(self, model: mujoco.MjModel, *, groups: Sequence[int] = (0, 1, 2), tile: float = 0.25) -> None:
        colours = _colours(model)
        shown = [g for g in range(model.ngeom) if model.geom_group[g] in groups and colours[g, 3] > 0.02]
        self._planes = [g for g in shown if model.geom_type[g] == mujoco.mjtGeom.mjGEOM_PLANE]
        self._model = model
        self._tile = tile
        parts = [(g, *part) for g in shown if (part := _triangles(model, g)) is not None]
        self._geoms = np.concatenate([np.full(len(corners), g) for g, corners, _ in parts] or [np.zeros(0, int)])
        self._corners = np.concatenate([corners for _, corners, _ in parts] or [np.zeros((0, 3, 3))])
        self._normals = np.concatenate([normals for _, _, normals in parts] or [np.zeros((0, 3, 3))])
        self._colours = colours

    def draw(self, data: mujoco.MjData, camera: Camera, markers: Sequence[Marker] = ()) -> npt.NDArray[np.uint8]:
        """Picture (H, W, 3) of a state.

        Args:
            data: after ``mj_forward`` or ``mj_kinematics``.
            camera: where from, and how large.
            markers: drawn too.
        """
        turned = data.geom_xmat.reshape(-1, 3, 3)[self._geoms].transpose(0, 2, 1)
        corners = self._corners @ turned + data.geom_xpos[self._geoms][:, None]
        normals = self._normals @ turned
        rgba = self._colours[self._geoms]
        owners = self._geoms
        for k, marker in enumerate(markers):
            ball, directions = _lathe(_BALL, _BALL)
            corners = np.concatenate((corners, marker.radius * ball + np.asarray(marker.position)))
            normals = np.concatenate((normals, directions))
            rgba = np.concatenate((rgba, np.broadcast_to(marker.rgba, (len(ball), 4))))
            owners = np.concatenate((owners, np.full(len(ball), self._model.ngeom + k)))

        fine = replace(camera, size=(_SAMPLES * camera.size[0], _SAMPLES * camera.size[1]))
        screen = fine.project(corners)
        solid = rgba[:, 3] > 0.98
        image, floor = self._backdrop(data, camera, corners[rgba[:, 3] > 0.5])
        limit = _keys(floor).repeat(_SAMPLES, axis=0).repeat(_SAMPLES, axis=1)
        near = _rasterise(screen, np.flatnonzero(solid), fine.size)
        near[near < limit] = 0
        _paint(image, near, screen, normals, rgba)
        ids = np.zeros(fine.size, dtype=np.intp)
        ids[near > 0] = owners[(near[near > 0] & _ID).astype(np.intp)] + 1
        edge = np.zeros(fine.size)
        edge[:, 1:] += ids[:, 1:] != ids[:, :-1]
        edge[1:] += ids[1:] != ids[:-1]
        image += 0.3 * _pooled(edge)[..., None] * (_INK - image)
        if not solid.all():
            clear = _rasterise(screen, np.flatnonzero(~solid), fine.size)
            clear[clear < np.maximum(near, limit)] = 0
            _paint(image, clear, screen, normals, rgba)
        picture: npt.NDArray[np.uint8] = np.rint(image.clip(0, 255)).astype(np.uint8)
        return picture

    def _backdrop(self, data: mujoco.MjData, camera: Camera, casting: Array) -> tuple[Array, Array]:
        """Sky and planes: colours (H, W, 3) and inverse depths (H, W)."""
        height, width = camera.size
        right, down = np.arange(width) + 0.5 - width / 2, np.arange(height)[:, None] + 0.5 - height / 2
        unit = 2 * np.tan(np.radians(camera.fovy) / 2) / height
        image = np.tile(_SKY, (height, width, 1))
        nearest = np.zeros((height, width))
        for g in self._planes:
            origin, axes = data.geom_xpos[g], data.geom_xmat[g].reshape(3, 3)
            # A ray is (unit * right, -unit * down, 1) in the camera's frame: what it does along the plane's axes.
            along = [unit * (x * right - y * down) + z for x, y, z in (camera.axes @ axes).T]
            start = (camera.position - origin) @ axes
            inverse = along[2] / -start[2]
            seen = (inverse > nearest) & (inverse > 1e-3)
            depth = 1 / np.where(seen, inverse, 1.0)
            wave = np.ones_like(depth)
            for axis, limit in enumerate(self._model.geom_size[g, :2]):
                local = start[axis] + along[axis] * depth
                seen &= (np.abs(local) <= limit) | (limit == 0)
                # Edges of about one pixel; squares fade where they get smaller than that.
                wave *= (np.sin(np.pi * local / self._tile) * self._tile / (unit * depth)).clip(-1.0, 1.0)
            colour = _FLOOR + (0.5 + 0.5 * wave[..., None]) * (_CHECK - _FLOOR)
            if axes[2, 2] > 0.99:
                colour += 0.3 * _shadow(camera, casting, origin[2])[..., None] * (_INK - colour)
            opacity = seen * (1.6 * camera.distance * inverse - 0.25).clip(0.0, 1.0)
            image += opacity[..., None] * (colour - image)
            nearest = np.where(seen, inverse, nearest)
        return image, nearest


def _shadow(camera: Camera, corners: Array, floor: float) -> Array:
    """How dark, 0 to 1, (H, W), the shadow of triangles ``corners`` (F, 3, 3) on a floor is."""
    drop = corners[..., 2:] - floor
    fallen = camera.project((corners - drop / _LIGHT[2] * _LIGHT)[(drop[..., 0] > 0).any(axis=1)])
    both = np.concatenate((fallen, fallen[:, ::-1]))  # they may face either way
    return blur((_rasterise(both, np.arange(len(both)), camera.size) > 0).astype(np.float64), 2.0)


def _pooled(samples: Array) -> Array:
    """Means (H, W) over the samples of each pixel."""
    height, width = (n // _SAMPLES for n in samples.shape)
    means: Array = samples.reshape(height, _SAMPLES, width, _SAMPLES).mean(axis=(1, 3))
    return means


_SHIFT, _ID = np.uint64(32), np.uint64(0xFFFFFFFF)


def _affine(screen: Array) -> tuple[Array, Array]:
    """Doubled signed areas (F,), and ((F, 2, 3)) what weighs a triangle's corners 1 and 2 at (right, down, 1)."""
    origin, first, second = screen[:, 0, :2], screen[:, 1, :2] - screen[:, 0, :2], screen[:, 2, :2] - screen[:, 0, :2]
    area = first[:, 0] * second[:, 1] - first[:, 1] * second[:, 0]
    safe = np.where(area == 0, 1.0, area)
    linear = np.stack(
        (
            np.stack((second[:, 1], -second[:, 0]), axis=-1) / safe[:, None],
            np.stack((-first[:, 1], first[:, 0]), axis=-1) / safe[:, None],
        ),
        axis=1,
    )
    constant = -(linear @ origin[..., None])
    return area, np.concatenate((linear, constant), axis=2)


def _rasterise(screen: Array, chosen: npt.NDArray[np.intp], size: tuple[int, int]) -> npt.NDArray[np.uint64]:
    """Nearest of the ``chosen`` triangles at every sample: inverse depth (float32 bits), then index; 0 for none."""
    height, width = size
    buffer = np.zeros(height * width, dtype=np.uint64)
    area, _ = _affine(screen[chosen])
    # Behind the camera, or seen from behind (screen coordinates run downwards).
    chosen = chosen[(screen[chosen, :, 2].min(axis=1) > _NEAR) & (area < 0)]
    triangles = screen[chosen]
    _, weights = _affine(triangles)
    inverse = 1.0 / triangles[..., 2]
    # Inverse depth is affine in the picture.
    plane = (weights * (inverse[:, 1:] - inverse[:, :1])[..., None]).sum(axis=1)
    plane[:, 2] += inverse[:, 0]
    owner, row = _spans(triangles[..., 1].min(axis=1), triangles[..., 1].max(axis=1), height)
    middle = row + 0.5
    left, right = np.full(len(row), np.inf), np.full(len(row), -np.inf)
    for a, b in ((0, 1), (1, 2), (2, 0)):
        start, end = triangles[owner, a], triangles[owner, b]
        with np.errstate(divide="ignore", invalid="ignore"):
            along = (middle - start[:, 1]) / (end[:, 1] - start[:, 1])
            crossing = start[:, 0] + along * (end[:, 0] - start[:, 0])
        meets = (along >= 0) & (along <= 1)
        left = np.where(meets, np.minimum(left, crossing), left)
        right = np.where(meets, np.maximum(right, crossing), right)
    span, column = _spans(left, right, width)
    owner, row = owner[span], row[span]
    value = plane[owner, 0] * (column + 0.5) + plane[owner, 1] * (row + 0.5) + plane[owner, 2]
    np.maximum.at(buffer, row * width + column, _keys(np.maximum(value, 1e-9)) | chosen[owner].astype(np.uint64))
    return buffer.reshape(size)


def _keys(values: Array) -> npt.NDArray[np.uint64]:
    """Numbers that sort as ``values``, which must not be negative, with their lower half free."""
    keys: npt.NDArray[np.uint64] = values.astype(np.float32).view(np.uint32).astype(np.uint64) << _SHIFT
    return keys


def _spans(low: Array, high: Array, size: int) -> tuple[npt.NDArray[np.intp], npt.NDArray[np.intp]]:
    """Sample centres k + 0.5 in each interval: index of the interval, and k."""
    empty = ~(low <= high)
    first = np.ceil(np.where(empty, 0.0, low).clip(0, size) - 0.5).astype(np.intp)
    last = np.floor(np.where(empty, -1.0, high).clip(-1, size) - 0.5).clip(max=size - 1).astype(np.intp)
    counts = np.maximum(last - first + 1, 0)
    owner = np.repeat(np.arange(len(low)), counts)
    return owner, first[owner] + np.arange(len(owner)) - (np.cumsum(counts) - counts)[owner]


def _paint(image: Array, buffer: npt.NDArray[np.uint64], screen: Array, normals: Array, rgba: Array) -> None:
    """Shade the triangles that ``buffer`` names, and mix them into ``image`` in place."""
    down, right = np.nonzero(buffer)
    pixels = (down // _SAMPLES) * image.shape[1] + right // _SAMPLES
    used, index = np.unique((buffer[down, right] & _ID).astype(np.intp), return_inverse=True)
    weights = _affine(screen[used])[1][index]
    weights = weights[..., 0] * (right + 0.5)[:, None] + weights[..., 1] * (down + 0.5)[:, None] + weights[..., 2]
    corners = normals[used][index]
    normal = corners[:, 0] + np.einsum("pi,pij->pj", weights, corners[:, 1:] - corners[:, :1])
    slope = (normal @ _LIGHT) / np.maximum(np.sqrt(np.einsum("pi,pi->p", normal, normal)), 1e-9)
    # Half-Lambert: sides that face away from the light keep their form.
    lit = 0.42 + 0.62 * (0.5 + 0.5 * slope.clip(-1.0, 1.0)) ** 1.5
    colour = rgba[used][index]
    share = colour[:, 3] / _SAMPLES**2
    flat = image.reshape(-1, 3)
    flat *= 1 - np.bincount(pixels, share, len(flat))[:, None]
    for channel in range(3):
        flat[:, channel] += np.bincount(pixels, share * 255 * lit * colour[:, channel], len(flat))


def _colours(model: mujoco.MjModel) -> Array:
    """RGBA (ngeom, 4) of geoms, from their materials and the mean of those' textures where they have one."""
    colours: Array = model.geom_rgba.astype(np.float64)
    for g in np.flatnonzero(model.geom_matid >= 0):
        material = model.geom_matid[g]
        colours[g] = model.mat_rgba[material]
        texture = model.mat_texid[material][int(mujoco.mjtTextureRole.mjTEXROLE_RGB)]
        if texture >= 0:
            channels = model.tex_nchannel[texture]
            start, size = model.tex_adr[texture], model.tex_height[texture] * model.tex_width[texture] * channels
            texels = model.tex_data[start : start + size].reshape(-1, channels)[:, :3]
            colours[g, :3] *= texels.mean(axis=0) / 255
    return colours


def _triangles(model: mujoco.MjModel, g: int) -> tuple[Array, Array] | None:
    """Corners and normals (F, 3, 3) of a geom in its own frame; outward is counterclockwise."""
    kind, size = mujoco.mjtGeom(int(model.geom_type[g])), model.geom_size[g]
    if kind == mujoco.mjtGeom.mjGEOM_SPHERE:
        return _lathe(size[0] * _BALL, _BALL)
    if kind == mujoco.mjtGeom.mjGEOM_CAPSULE:
        half = len(_BALL) // 2
        directions = np.concatenate((_BALL[: half + 1], _BALL[half:]))
        ends = np.repeat(((0.0, size[1]), (0.0, -size[1])), half + 1, axis=0)
        return _lathe(size[0] * directions + ends, directions)
    if kind == mujoco.mjtGeom.mjGEOM_CYLINDER:
        ends = np.array([(0, 1), (1, 1), (1, 1), (1, -1), (1, -1), (0, -1)], dtype=np.float64)
        return _lathe(ends * size[:2], np.repeat(((0.0, 1.0), (1.0, 0.0), (0.0, -1.0)), 2, axis=0))
    if kind == mujoco.mjtGeom.mjGEOM_ELLIPSOID:
        ball, _ = _lathe(_BALL, _BALL)
        return ball * size, ball / size
    if kind == mujoco.mjtGeom.mjGEOM_BOX:
        quad = np.array([(-1, -1, 1), (1, -1, 1), (1, 1, 1), (-1, 1, 1)], dtype=np.float64)
        top = quad[[(0, 1, 2), (0, 2, 3)]]
        sides = [sign * np.roll(top, k, axis=2)[:, ::sign] for k in range(3) for sign in (1, -1)]
        facing = [np.full((2, 3, 3), sign * np.roll((0.0, 0.0, 1.0), k)) for k in range(3) for sign in (1, -1)]
        return np.concatenate(sides) * size, np.concatenate(facing)
    if kind == mujoco.mjtGeom.mjGEOM_MESH:
        mesh = model.geom_dataid[g]
        faces = slice(model.mesh_faceadr[mesh], model.mesh_faceadr[mesh] + model.mesh_facenum[mesh])
        vertices: Array = model.mesh_vert[model.mesh_vertadr[mesh] :].astype(np.float64)
        normals: Array = model.mesh_normal[model.mesh_normaladr[mesh] :].astype(np.float64)
        return vertices[model.mesh_face[faces]], normals[model.mesh_facenormal[faces]]
    return None


def _lathe(profile: Array, normals: Array) -> tuple[Array, Array]:
    """Turn a profile (K, 2) of (radius, z), top to bottom, with its normals about z."""
    turn = np.linspace(0, 2 * np.pi, _SEGMENTS + 1)
    around = np.stack((np.cos(turn), np.sin(turn)), axis=-1)

    def turned(curve: Array) -> Array:
        z = np.broadcast_to(curve[:, None, 1:], (len(curve), len(turn), 1))
        grid = np.concatenate((curve[:, None, :1] * around, z), axis=2)
        above, below = grid[:-1], grid[1:]
        first = np.stack((above[:, :-1], below[:, :-1], below[:, 1:]), axis=2)
        second = np.stack((above[:, :-1], below[:, 1:], above[:, 1:]), axis=2)
        return np.concatenate((first, second)).reshape(-1, 3, 3)

    return turned(profile), turned(normals)


_ANGLES = np.linspace(0, np.pi, _SEGMENTS // 2 + 1)
_BALL = np.stack((np.sin(_ANGLES), np.cos(_ANGLES)), axis=-1)
