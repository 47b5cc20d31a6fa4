"""``renderer="mujoco"``: the same scene from the same place, and what is said where OpenGL does not work."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import gymnasium as gym
import numpy as np
import pytest

import qmp_envs  # noqa: F401 (registers them)
from qmp_envs.maze import BALL_OFFSET, MEDIUM, _camera

# In a process of its own: OpenGL would stay in this one, and what it forks.
DRAW = """
import json, os, sys
import gymnasium, numpy, qmp_envs
envs = gymnasium.make_vec("Maze3-v0", num_envs=3, render_mode="rgb_array", renderer="mujoco")
observations, _ = envs.reset(seed=0)
try:
    picture = envs.render()[2]
except RuntimeError as error:
    sys.exit(str(error))
ball = (picture[..., 0] > 1.5 * picture[..., 1]) & (picture[..., 0] > 100)
pipe = os.pipe()
if os.fork() == 0:
    try:
        envs.render()
    except RuntimeError as error:
        os.write(pipe[1], str(error).encode())
    os._exit(0)
json.dump({
    "observation": observations[2].tolist(),
    "shape": picture.shape,
    "ball": (numpy.argwhere(ball).mean(axis=0) + 0.5).tolist(),
    "again": bool((picture == envs.render()[2]).all()),
    "forked": os.read(pipe[0], 1000).decode(),
}, sys.stdout)
"""


def draw(**variables: str) -> subprocess.CompletedProcess[str]:
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))} | variables
    return subprocess.run([sys.executable, "-c", DRAW], env=environment, capture_output=True, text=True, check=False)


def test_mujoco_draws_the_same_scene_from_the_same_place() -> None:
    done = draw()
    if "OpenGL without a window, which does not work here" in done.stderr:
        pytest.skip(f"no OpenGL: {done.stderr.strip()}")
    assert (done.returncode, done.stderr) == (0, "")
    seen = json.loads(done.stdout)
    assert seen["shape"] == [320, 320, 3]
    assert seen["again"]
    x, y = np.array(seen["observation"][:2]) + BALL_OFFSET
    right, down, _ = _camera(MEDIUM).project(np.array([x, y, 0.0]))
    np.testing.assert_allclose(seen["ball"], (down, right), atol=1.5)
    assert "OpenGL was started before this process was forked" in seen["forked"]


def test_without_opengl_the_error_says_what_to_install() -> None:
    done = draw(MUJOCO_GL="disabled")
    assert done.returncode == 1
    (said,) = done.stderr.splitlines()
    assert said.startswith("renderer='mujoco' needs OpenGL without a window, which does not work here (")
    assert "apt-get install libegl1" in said
    assert said.endswith("or leave renderer out: the default draws without OpenGL")


@pytest.mark.parametrize(
    ("env_id", "renderer", "said"),
    [
        ("Maze3-v0", "opengl", "renderer must be 'numpy' or 'mujoco', got 'opengl'"),
        ("PointReach-v0", "mujoco", "renderer must be 'numpy', got 'mujoco'"),
    ],
)
def test_unknown_renderers_are_refused(env_id: str, renderer: str, said: str) -> None:
    for make in (gym.make, lambda *args, **kwargs: gym.make_vec(*args, num_envs=1, **kwargs)):
        with pytest.raises(ValueError, match=said):
            make(env_id, renderer=renderer)
