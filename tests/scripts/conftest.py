"""Scripts as programs in this process."""

from __future__ import annotations

import runpy
import sys
from collections.abc import Callable, Iterator

import gymnasium as gym
import pytest
import torch
from script_files import SCRIPTS, shortened


@pytest.fixture
def run_script(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., None]]:
    """``run_script(name, *arguments)`` runs it as ``python name.py arguments`` would, in this process."""

    def run(name: str, *arguments: object) -> None:
        monkeypatch.setattr(sys, "argv", [name, *map(str, arguments)])
        runpy.run_path(str(SCRIPTS / f"{name}.py"), run_name="__main__")

    precision, threads = torch.get_float32_matmul_precision(), torch.get_num_threads()
    yield run
    torch.set_float32_matmul_precision(precision)
    torch.set_num_threads(threads)


@pytest.fixture
def short_episodes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gym, "make_vec", shortened)


@pytest.fixture
def float64() -> Iterator[None]:
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)
