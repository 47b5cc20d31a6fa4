"""Environments in processes and threads: forks, killed workers, daemons, unguarded scripts, pictures in threads."""

from __future__ import annotations

import multiprocessing
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gymnasium as gym
import mujoco
import numpy as np
import pytest

import qmp_envs  # noqa: F401
from qmp_envs import meta_world

ROOT = Path(__file__).parents[2]
posix = pytest.mark.skipif(os.name != "posix", reason="forks and signals")


def python(*arguments: str) -> subprocess.CompletedProcess[str]:
    paths = [str(ROOT), str(ROOT / "envs"), os.environ.get("PYTHONPATH", "")]
    environment = dict(os.environ, PYTHONPATH=os.pathsep.join(paths))
    return subprocess.run([sys.executable, *arguments], capture_output=True, text=True, env=environment, check=False)


# ---------------------------------------------------------------------- forks

FORK = """
import gc, multiprocessing, sys
import gymnasium as gym, numpy as np, qmp_envs
envs = gym.make_vec(sys.argv[1], num_envs=4, nthread=2)
other = gym.make_vec(sys.argv[1], num_envs=4, nthread=0)
for env in (envs, other):
    env.reset(seed=0)
    env.step(np.zeros(env.action_space.shape))

def step():
    for _ in range(3):
        a, b = (env.step(np.ones(env.action_space.shape))[0] for env in (envs, other))
        assert np.array_equal(a, b)

def forget():
    global envs
    del envs
    gc.collect()

def close():
    envs.close()

for job in (step, forget, close):
    child = multiprocessing.get_context("fork").Process(target=job)
    child.start()
    child.join()
    assert child.exitcode == 0, job
step()  # here the threads are still there
print("all went on")
"""


@posix
@pytest.mark.parametrize("env_id", ["Maze3-v0", "MetaWorldMT10-v0"])
def test_a_forked_process_steps_forgets_and_closes(env_id: str) -> None:
    done = python("-W", "ignore", "-c", FORK, env_id)
    assert (done.stdout, done.returncode) == ("all went on\n", 0), done.stderr


# ---------------------------------------------------------------------- Meta-World's processes


@pytest.fixture
def envs() -> Any:
    made = gym.make_vec("MetaWorldMT10-v0", num_envs=3, vector_strategy="async").unwrapped
    made.reset(seed=0)
    yield made
    made.close()


ZEROS = np.zeros((3, 4), np.float32)
NAN = np.array([[0.0] * 4, [np.nan] * 4, [0.0] * 4])


@pytest.mark.parametrize("strategy", ["batched", "sync", "async"])
def test_what_is_refused_changes_nothing(strategy: str) -> None:
    envs: Any = gym.make_vec("MetaWorldMT10-v0", num_envs=3, vector_strategy=strategy, max_episode_steps=2).unwrapped
    other: Any = gym.make_vec("MetaWorldMT10-v0", num_envs=3, vector_strategy="sync", max_episode_steps=2).unwrapped
    refused: list[tuple[type[Exception], str, Callable[[], Any]]] = [
        (ValueError, "NaN: got .* for sub-environment 1", lambda: envs.step(NAN)),
        (ValueError, r"must have shape \(3, 4\), got \(2, 4\)", lambda: envs.step(ZEROS[:2])),
        (ValueError, "a seed per sub-environment", lambda: envs.reset(seed=[1, 2])),
        (ValueError, "must not be negative", lambda: envs.reset(seed=-1)),
        (TypeError, "integer", lambda: envs.reset(seed=1.5)),
        (TypeError, "bool numpy array", lambda: envs.reset(options={"reset_mask": [True, False, True]})),
    ]
    with pytest.raises(RuntimeError, match="before the first reset"):
        envs.step(ZEROS)
    with pytest.raises(RuntimeError, match="the first reset must be a full one"):
        envs.reset(options={"reset_mask": np.array([True, False, False])})
    for env in (envs, other):
        env.reset(seed=0)
    for error, text, call in refused:
        with pytest.raises(error, match=text):
            call()
        np.testing.assert_array_equal(envs.step(ZEROS)[0], other.step(ZEROS)[0])
    envs.step(NAN) if other.get_state()["envs"][0][
        "finished"
    ] else None  # rows that are reset in a step are not looked at
    envs.close()


@posix
def test_a_killed_process_is_named_and_the_rest_can_be_closed(envs: Any) -> None:
    os.kill(envs.processes[1].pid, signal.SIGKILL)
    envs.processes[1].join()
    message = r"the process of sub-environment 1 \(task 1 'push-v3'\) has ended \(exit code -9, killed: .*close\(\)"
    for call in (lambda: envs.step(ZEROS), envs.reset, envs.get_state, lambda: envs.set_attr("task", 0)):
        with pytest.raises(RuntimeError, match=message):
            call()
    envs.close()
    assert not any(process.is_alive() for process in envs.processes)


@posix
def test_sigterm_is_for_the_main_process(envs: Any) -> None:
    for process in envs.processes:
        os.kill(process.pid, signal.SIGTERM)
    envs.step(ZEROS)
    assert len(envs.get_state()["envs"]) == 3


@posix
@pytest.mark.parametrize("end", ["", "envs.close(terminate=True)", "del envs", "raise SystemExit(0)"])
def test_processes_end_with_the_main_process(end: str) -> None:
    """By `kill`: they ignore SIGTERM. Whoever ends last closes the pipe that is read here to its end."""
    done = python(
        "-c",
        "import gymnasium as gym, numpy as np, qmp_envs\n"
        "envs = gym.make_vec('MetaWorldMT10-v0', num_envs=2, vector_strategy='async')\n"
        f"envs.reset(seed=0)\n{end}",
    )
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.filterwarnings("ignore:.*:UserWarning")
def test_after_an_error_in_a_process(envs: Any) -> None:
    with pytest.raises(AttributeError):
        envs.get_attr("no_such_thing")
    with pytest.raises(RuntimeError, match=r"was ended by an earlier error.*close"):
        envs.step(ZEROS)
    envs.close()


def _default_strategy(queue: Any) -> None:
    meta_world.usable_cores = lambda: 8
    made = gym.make_vec("MetaWorldMT50-v0", num_envs=2)
    made.reset(seed=0)
    try:
        gym.make_vec("MetaWorldMT10-v0", num_envs=2, vector_strategy="async")
    except RuntimeError as error:
        queue.put((type(made.unwrapped).__name__, str(error)))


def test_daemonic_processes_start_none() -> None:
    context = multiprocessing.get_context("spawn")
    queue = context.Queue()
    process = context.Process(target=_default_strategy, args=(queue,), daemon=True)
    process.start()
    process.join()
    name, error = queue.get()
    assert name == "MetaWorldBatchedVectorEnv"
    assert error == "a daemonic process may not start others: use vector_strategy='sync'"


def test_a_script_without_a_guard_is_told(tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text(
        "import multiprocessing\n"
        "multiprocessing.set_start_method('spawn', force=True)\n"
        "import gymnasium as gym, qmp_envs\n"
        "gym.make_vec('MetaWorldMT10-v0', num_envs=2, vector_strategy='async')\n"
    )
    done = python(str(script))
    assert done.returncode == 1
    last = done.stderr.strip().splitlines()[-1]
    assert last.startswith("RuntimeError: the process of sub-environment")
    assert "did not start (exit code 1): " in last
    assert "if __name__ == '__main__':" in last


# ---------------------------------------------------------------------- threads


def test_pictures_in_threads_are_each_environments_own(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where one could write between another's writing and drawing, it is let in, if it can come."""
    envs = [gym.make("MetaWorldMT10-v0", task=0, render_mode="rgb_array") for _ in range(2)]
    for env, direction in zip(envs, (1.0, -1.0), strict=True):
        env.reset(seed=1)
        for _ in range(20):
            env.step(np.array([direction, 0.0, 0.0, 0.0], np.float32))
    expected: list[Any] = [env.render() for env in envs]
    kinematics, inside = mujoco.mj_kinematics, threading.Semaphore(0)
    drawn: dict[int, Any] = {}

    def draw(i: int) -> None:
        drawn[i] = envs[i].render()

    second = threading.Thread(target=draw, args=(1,))

    def interrupted(model: Any, data: Any) -> None:
        kinematics(model, data)
        if threading.current_thread() is not second:
            second.start()
            inside.acquire(timeout=1.0)  # the other one has drawn, or waits for its turn
        else:
            inside.release()

    monkeypatch.setattr(mujoco, "mj_kinematics", interrupted)
    draw(0)
    second.join()
    for i in range(2):
        np.testing.assert_array_equal(drawn[i], expected[i])
    assert not np.array_equal(expected[0], expected[1])
