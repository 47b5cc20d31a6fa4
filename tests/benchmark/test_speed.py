"""The speed harness measures what it says and writes what it measured. Never a time: those are the machine's."""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("mujoco")
pytest.importorskip("torch")
pytest.importorskip("tyro")

ROOT = Path(__file__).parents[2]
SECTIONS = {"reference": 2, "act": 4, "physics": 1, "meta_world": 3, "round": 2, "update": 4, "replay": 2}


@pytest.fixture(scope="module")
def output(tmp_path_factory):
    """What a smoke test prints, and the JSON it writes."""
    out = tmp_path_factory.mktemp("speed") / "folder" / "speed.json"
    paths = [str(ROOT), str(ROOT / "envs"), *filter(None, [os.environ.get("PYTHONPATH")])]
    done = subprocess.run(
        [sys.executable, str(ROOT / "benchmark" / "speed.py"), "--quick", "--threads", "1", "--out", str(out)],
        env=os.environ | {"PYTHONPATH": os.pathsep.join(paths)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout, json.loads(out.read_text())


def test_every_section_is_measured(output):
    _, report = output
    sections = [comparison["section"] for comparison in report["comparisons"]]
    assert {section: sections.count(section) for section in sections} == SECTIONS
    assert report["quick"] is True


def test_the_machine_and_the_code_are_named(output):
    _, report = output
    machine = report["machine"]
    assert {"command", "cpu", "cores", "versions", "commit", "modified", "load_average"} <= machine.keys()
    assert machine["torch_threads"] == 1
    assert machine["commit"]


def test_ratios_follow_from_the_raw_samples(output):
    for comparison in output[1]["comparisons"]:
        sides = [comparison["ours"], *comparison["others"]]
        assert {len(side["seconds_per_unit"]) for side in sides} == {2}
        assert all(sample > 0 for side in sides for sample in side["seconds_per_unit"])

        ours, *others = (statistics.median(side["seconds_per_unit"]) for side in sides)
        ratio = min(others) / ours if comparison["kind"] == "speedup" else ours / min(others)
        assert comparison["ratio"] == pytest.approx(ratio)
        low, high = comparison["ratio_range"]
        assert low <= high
        at_least = comparison["kind"] == "speedup"
        assert comparison["met"] == (ratio >= comparison["target"] if at_least else ratio <= comparison["target"])


def test_every_ratio_is_printed_with_its_target(output):
    text, report = output
    lines = text.splitlines()
    for comparison in report["comparisons"]:
        (line,) = (line for line in lines if line.strip().startswith(comparison["name"] + " "))
        assert f"= {comparison['target']:g}: {'met' if comparison['met'] else 'MISSED'}" in line
