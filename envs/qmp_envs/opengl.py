"""Pictures by MuJoCo's own renderer, for ``renderer="mujoco"``: textures, lights, reflections, and a need of OpenGL.

`Scene` draws what `qmp_envs.sketch.Sketch` draws, which needs nothing and is the default.
"""

from __future__ import annotations

import atexit
import copy
import ctypes
import os
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from importlib import import_module
from typing import Any

import mujoco
import mujoco.gl_context
import numpy as np
import numpy.typing as npt

from qmp_envs.sketch import Camera, Marker

_MOST = 16  # models that are kept in the memory of OpenGL

# A context of OpenGL belongs to one thread, and does not survive a fork: all are this thread's of this process.
_thread = ThreadPoolExecutor(1, thread_name_prefix="qmp-opengl")
_process: int | None = None
_canvases: dict[Scene, _Canvas] = {}


class Scene:
    """Draws one model; see `qmp_envs.sketch.Sketch`.

    OpenGL is started at the first picture, with EGL or else OSMesa, or as the environment variable ``MUJOCO_GL`` says.

    Args:
        model: may change its bodies' places later on, but not what it consists of.
        groups: geoms of these groups are drawn.
    """

    def __init__(self, model: mujoco.MjModel, *, groups: Sequence[int] = (0, 1, 2)) -> None:
        self.model, self.groups = copy.copy(model), groups
        if not model.nlight:
            self.model.vis.headlight.ambient[:], self.model.vis.headlight.diffuse[:] = 0.45, 0.55

    def draw(self, data: mujoco.MjData, camera: Camera, markers: Sequence[Marker] = ()) -> npt.NDArray[np.uint8]:
        """Picture (H, W, 3) of a state.

        Args:
            data: after ``mj_forward``, or ``mj_kinematics`` and ``mj_camlight``.
            camera: where from, and how large.
            markers: drawn too.

        Raises:
            RuntimeError: OpenGL does not work here, or was started by the process that this one was forked from.
        """
        global _process
        _process = _process or os.getpid()
        if os.getpid() != _process:
            raise RuntimeError(
                "renderer='mujoco': OpenGL was started before this process was forked, and cannot be used in both: "
                "draw here only, start processes with the method 'spawn', or leave renderer out"
            )
        return _thread.submit(_draw, self, data, camera, markers).result()


def _draw(scene: Scene, data: mujoco.MjData, camera: Camera, markers: Sequence[Marker]) -> npt.NDArray[np.uint8]:
    canvas = _canvases.pop(scene, None)
    if canvas is not None and canvas.size != camera.size:
        canvas.free()
        canvas = None
    if canvas is None:
        canvas = _Canvas(scene, camera.size)
        _free_at_exit()
    _canvases[scene] = canvas  # behind all others: the first one is the one unused for longest
    if len(_canvases) > _MOST:
        _canvases.pop(next(iter(_canvases))).free()
    return canvas.draw(data, camera, markers)


class _Canvas:
    """A model in the memory of OpenGL, and a picture to draw it into."""

    def __init__(self, scene: Scene, size: tuple[int, int]) -> None:
        self.size, self._model = size, scene.model
        height, width = size
        view = self._model.vis.global_
        view.offheight, view.offwidth = height, width
        try:
            self.context = _context_class()(width, height)
            self.context.make_current()
            self._buffers = mujoco.MjrContext(self._model, mujoco.mjtFontScale.mjFONTSCALE_100.value)
        except Exception as error:  # whatever the libraries raise, PyOpenGL's AttributeErrors included
            raise RuntimeError(
                f"renderer='mujoco' needs OpenGL without a window, which does not work here ({error}): install EGL or "
                "OSMesa (on Debian and Ubuntu: apt-get install libegl1 libgl1-mesa-dri, or libosmesa6 and the "
                "environment variable MUJOCO_GL=osmesa), or leave renderer out: the default draws without OpenGL"
            ) from error
        mujoco.mjr_setBuffer(mujoco.mjtFramebuffer.mjFB_OFFSCREEN.value, self._buffers)
        self._scene = mujoco.MjvScene(self._model, maxgeom=10_000)
        self._option = mujoco.MjvOption()
        self._option.geomgroup[:] = [group in scene.groups for group in range(len(self._option.geomgroup))]
        self._option.sitegroup[:] = 0

    def draw(self, data: mujoco.MjData, camera: Camera, markers: Sequence[Marker]) -> npt.NDArray[np.uint8]:
        self.context.make_current()
        self._model.vis.global_.fovy = camera.fovy
        eye = mujoco.MjvCamera()
        eye.lookat[:] = camera.lookat
        eye.distance, eye.azimuth, eye.elevation = camera.distance, camera.azimuth, camera.elevation
        everything = mujoco.mjtCatBit.mjCAT_ALL.value
        mujoco.mjv_updateScene(self._model, data, self._option, None, eye, everything, self._scene)
        for marker in markers:
            geom = self._scene.geoms[self._scene.ngeom]
            size, turn = np.full(3, marker.radius), np.eye(3).ravel()
            rgba = np.array(marker.rgba, dtype=np.float32)
            mujoco.mjv_initGeom(geom, mujoco.mjtGeom.mjGEOM_SPHERE, size, np.array(marker.position), turn, rgba)
            self._scene.ngeom += 1
        height, width = self.size
        everywhere = mujoco.MjrRect(0, 0, width, height)
        mujoco.mjr_render(everywhere, self._scene, self._buffers)
        picture = np.empty((height, width, 3), dtype=np.uint8)
        mujoco.mjr_readPixels(picture, None, everywhere, self._buffers)
        return picture[::-1].copy()  # OpenGL begins at the bottom

    def free(self) -> None:
        """Give the memory back."""
        self.context.make_current()
        self._buffers.free()
        self.context.free()


def _context_class() -> Any:
    """MuJoCo's class of contexts for what is there, or for what ``MUJOCO_GL`` asks."""
    name = os.environ.get("MUJOCO_GL", "").lower()
    if not name and sys.platform == "linux":
        name = "egl" if _loads("libEGL.so.1") else "osmesa"
    module = import_module(f"mujoco.{name}") if name in ("egl", "osmesa") else mujoco.gl_context
    return module.GLContext


def _loads(library: str) -> bool:
    try:
        ctypes.CDLL(library)
    except OSError:
        return False
    return True


@cache
def _free_at_exit() -> None:
    """Asked for after the first context, which has MuJoCo end EGL at exit: what is asked for later is done before."""
    atexit.register(_free)


def _free() -> None:
    while _process == os.getpid() and _canvases:
        _canvases.popitem()[1].context.free()
