"""The README's Python runs, and every file that it names exists."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"```python\n(.*?)```", README, flags=re.DOTALL)


def test_the_examples_run_one_after_the_other(capsys):
    pytest.importorskip("mujoco")
    learned = []
    rng = np.random.default_rng(0)
    names = {
        "policies": [lambda obs: rng.uniform(-1, 1, (len(obs), 2)).astype(np.float32) for _ in range(10)],
        "q_functions": [lambda obs, actions: (actions**2).sum(1)] * 10,
        "learn": learned.append,
    }
    assert len(BLOCKS) == 2
    exec(BLOCKS[0].replace("100_000", "700"), names)
    # 700 vector steps of 10 sub-environments; at most one of each 601 only resets.
    assert 690 * 10 <= sum(map(len, learned)) < 700 * 10
    assert {int(k) for transitions in learned for k in transitions.behavior_ids} == set(range(10))

    exec(BLOCKS[1], names)
    assert names["batch"].obs.shape == (10, 256, 4)
    np.testing.assert_allclose(names["stats"].mixture.sum(axis=1), 1.0)
    assert capsys.readouterr().out.count("[") == 11


def test_the_wrapping_example_has_at_most_twelve_lines():
    lines = [line for line in BLOCKS[0].splitlines() if line.strip()]
    assert len(lines) <= 12


@pytest.mark.parametrize("target", re.findall(r"\]\((\w[\w.-]*/[\w./-]+)\)", README))
def test_linked_files_exist(target):
    assert (ROOT / target).exists()
