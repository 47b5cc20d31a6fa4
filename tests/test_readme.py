"""The README's Python runs as it is printed, and every file that it names exists."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"```python\n(.*?)```", README, flags=re.DOTALL)


def test_the_example_runs_as_it_is_printed(capsys):
    pytest.importorskip("mujoco")
    (example,) = BLOCKS
    names = {}
    exec(example, names)
    # These critics value a force in the first direction, which is policy 0's.
    assert capsys.readouterr().out == "[[1. 0. 0.]\n [1. 0. 0.]\n [1. 0. 0.]]\n"
    assert names["collector"].num_steps == 300
    assert len(names["transitions"]) == 3


def test_the_example_is_short():
    assert len([line for line in BLOCKS[0].splitlines() if line.strip()]) <= 20


@pytest.mark.parametrize("target", re.findall(r"\]\((\w[\w.-]*/[\w./-]+)\)", README))
def test_linked_files_exist(target):
    assert (ROOT / target).exists()
