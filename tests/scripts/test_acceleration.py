"""``--compile`` and ``--cudagraphs`` change how fast a script computes, and nothing that it computes."""

from __future__ import annotations

import functools
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

RunScript = Callable[..., None]
pytestmark = pytest.mark.usefixtures("short_episodes")
SETTINGS = {
    "env-id": "Maze3", "total-timesteps": 300, "env-steps-per-round": 50,
    "min-buffer-size": 50, "batch-size": 9, "hidden-dim": 16, "eval-every": 300, "eval-episodes": 1, "torch-threads": 1,
}  # fmt: skip
WORDS = [f"--{flag}={value}" for flag, value in SETTINGS.items()]
SCRIPTS = ["sac_qmp_separate", "sac_qmp_multihead", "sac_shared", "pcgrad_qmp", "mcal_qmp", "decaf", "uds_qmp", "dnc"]
# Generating code for what was captured takes torch ten times as long as capturing it, which is what a script can be in
# the way of: its branches, its random numbers, its gradients. Without a GPU "aot_eager" captures forward and backward
# graphs and runs them as they are, and one method of one script is compiled to the end; with a GPU all are.
TO_THE_END = ("sac_qmp_separate", "own_policy")
torch_compile = torch.compile

needs_a_compiler = pytest.mark.skipif(
    shutil.which(os.environ.get("CXX", "g++")) is None, reason="torch.compile needs a C++ compiler on the CPU"
)
needs_a_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")


def by_shape(x: torch.Tensor) -> torch.Tensor:
    """In place of random numbers, which compiled code may draw in another order."""
    return torch.linspace(-1, 1, x.numel(), device=x.device).view(x.shape)


def captured(script: str, method: Callable[..., Any]) -> Callable[..., Any]:
    """In place of ``torch.compile``."""
    to_the_end = (script, method.__name__) == TO_THE_END
    return torch_compile(method, backend="inductor" if to_the_end else "aot_eager")


def losses(run_script: RunScript, root: Path, name: str, *flags: str) -> list[dict[str, float]]:
    run_script(name, *WORDS, "--run-dir-root", root, *flags)
    (run_dir,) = root.iterdir()
    rows = map(json.loads, (run_dir / "metrics.jsonl").read_text().splitlines())
    return [{k: v for k, v in row.items() if k.startswith("losses/")} for row in rows if "time/sps" in row]


@pytest.mark.filterwarnings("ignore:::torch")  # what torch says to itself, which changes with its version and
@pytest.mark.filterwarnings("ignore:::tensordict")  # with the hardware
@pytest.mark.parametrize(
    ("gradient_steps", "flags"),
    [
        pytest.param(2, "--compile", marks=needs_a_compiler),
        pytest.param(20, "--cudagraphs", marks=needs_a_gpu),  # the first five are not yet recorded
        pytest.param(20, "--compile --cudagraphs", marks=needs_a_gpu),
    ],
)
@pytest.mark.parametrize("name", SCRIPTS)
def test_accelerated_runs_learn_the_same(
    name: str,
    gradient_steps: int,
    flags: str,
    run_script: RunScript,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    torch._dynamo.reset()
    if "--compile" in flags:
        monkeypatch.setattr(torch, "randn_like", by_shape)
        monkeypatch.setattr(torch, "rand_like", by_shape)
        if not torch.cuda.is_available():
            monkeypatch.setattr(torch, "compile", functools.partial(captured, name))
            # A fused step, which these are, is not captured: only what torch does around it would be, for a third of
            # the time.
            monkeypatch.setattr(torch.optim.Adam, "step", torch._dynamo.disable(torch.optim.Adam.step))
    steps = [f"--gradient-steps-per-round={gradient_steps}", *(["--distill-steps=2"] if name == "dnc" else [])]
    plain = losses(run_script, tmp_path / "plain", name, *steps)
    accelerated = losses(run_script, tmp_path / "accelerated", name, *steps, *flags.split())
    assert "losses/qf_loss" in plain[-1]
    assert len(plain) == len(accelerated) == 2
    for expected, actual in zip(plain, accelerated, strict=True):
        assert actual == pytest.approx(expected, rel=1e-3, abs=1e-5)
