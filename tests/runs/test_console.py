"""A terminal that closes, or a pipe that nobody reads, takes no run with it."""

from __future__ import annotations

import os
import subprocess
import sys

PROGRAM = """
import sys
from qmp_collect.runs.console import Console, say
say("begins")
sys.stdin.readline()
console = Console(100, 0)
for step in range(100):
    console.advance(step, {"SPS": step})
    say(str(step))
console.close()
open(sys.argv[1], "w").write("saved")
raise SystemExit(75)
"""


def test_a_pipe_that_nobody_reads(tmp_path) -> None:
    run = subprocess.Popen(
        [sys.executable, "-c", PROGRAM, tmp_path / "kept"],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip
    assert run.stdout.readline() == b"begins\n"
    run.stdout.close()
    run.stderr.close()
    run.stdin.write(b"\n")
    run.stdin.close()
    assert run.wait() == 75  # not 120, of a flush at exit that fails
    assert (tmp_path / "kept").read_text() == "saved"


def test_a_terminal_that_closed(tmp_path) -> None:
    """Writing to it is an error from then on; here SIGHUP, which comes too, is ignored."""
    terminal, its_end = os.openpty()
    go, hold = os.pipe()
    run = subprocess.Popen([sys.executable, "-c", PROGRAM, tmp_path / "kept"], stdin=go, stdout=its_end, stderr=its_end)
    os.close(its_end)
    said = b""
    while not said.endswith(b"\n"):  # a terminal hands over what is there, which may be a part of a line
        said += os.read(terminal, 8)
    assert said == b"begins\r\n"
    os.close(terminal)
    os.write(hold, b"\n")
    assert run.wait() == 75
    assert (tmp_path / "kept").read_text() == "saved"
    os.close(go)
    os.close(hold)
