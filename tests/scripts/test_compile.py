"""``--compile`` changes how fast a script computes, and nothing that it computes."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch._inductor import config as inductor

RunScript = Callable[..., None]
SETTINGS = {
    "env-id": "Maze3", "total-timesteps": 300, "env-steps-per-round": 50, "gradient-steps-per-round": 2,
    "min-buffer-size": 50, "batch-size": 9, "hidden-dim": 16, "eval-episodes": 1, "torch-threads": 1,
}  # fmt: skip
WORDS = [f"--{flag}={value}" for flag, value in SETTINGS.items()]
SCRIPTS = ["sac_qmp_separate", "sac_qmp_multihead", "sac_shared", "pcgrad_qmp", "mcal_qmp", "decaf", "uds_qmp", "dnc"]

needs_a_compiler = pytest.mark.skipif(
    shutil.which(os.environ.get("CXX", "g++")) is None, reason="torch.compile needs a C++ compiler on the CPU"
)


def losses(run_script: RunScript, root: Path, name: str, *flags: str) -> list[dict[str, float]]:
    run_script(name, *WORDS, "--run-dir-root", root, *flags)
    (run_dir,) = root.iterdir()
    rows = map(json.loads, (run_dir / "metrics.jsonl").read_text().splitlines())
    return [{k: v for k, v in row.items() if k.startswith("losses/")} for row in rows if "time/sps" in row]


@needs_a_compiler
@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf")  # what torch does
@pytest.mark.filterwarnings("ignore:`torch._prims_common.check` is deprecated")  # to itself
@pytest.mark.parametrize("name", SCRIPTS)
def test_compiled_runs_learn_the_same(name: str, run_script: RunScript, tmp_path: Path) -> None:
    torch._dynamo.reset()
    plain = losses(run_script, tmp_path / "plain", name)
    with inductor.patch(fallback_random=True):  # the noise of a run that is not compiled
        compiled = losses(run_script, tmp_path / "compiled", name, "--compile")
    assert "losses/qf_loss" in plain[-1]
    assert len(plain) == len(compiled) == 2
    for expected, actual in zip(plain, compiled, strict=True):
        assert actual == pytest.approx(expected, rel=1e-3, abs=1e-5)
