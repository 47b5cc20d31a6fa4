"""What all tests begin with."""

from __future__ import annotations

import gc
import multiprocessing
import signal
import sys
from collections.abc import Iterator

import pytest

# A shell starts background jobs with SIGINT ignored, nohup with SIGHUP, and what is ignored stays so in the runs that
# tests start and stop: tests begin with the signals as a terminal leaves them.
for _number in (signal.SIGINT, signal.SIGHUP):
    if signal.getsignal(_number) is signal.SIG_IGN:
        signal.signal(_number, signal.default_int_handler if _number == signal.SIGINT else signal.SIG_DFL)

# Else how processes start would depend on which test comes first: to import torchrl makes them "spawn", each of which
# imports for seconds, and forking is what JAX warns of, once a test has used it.
multiprocessing.set_start_method("forkserver")
multiprocessing.set_forkserver_preload(["gymnasium.vector", "mujoco"])


def pytest_collection_finish() -> None:
    """What was imported by now stays: garbage collection need not look at it, some half a second each time."""
    gc.freeze()


@pytest.fixture(autouse=True)
def denormal_numbers() -> Iterator[None]:
    """A training run has them taken for 0, for as long as the process lives; hypothesis, for one, draws some."""
    yield
    if "torch" in sys.modules:
        sys.modules["torch"].set_flush_denormal(False)
