"""A terminal that closes, or a pipe that nobody reads, takes no run with it."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

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


@pytest.mark.parametrize("closed", [(1,), (2,), (0, 1, 2)])
def test_without_standard_streams(closed, tmp_path) -> None:
    """As a service, or ``>&-`` in a shell, starts it: Python has None for them then."""
    (tmp_path / "program.py").write_text(PROGRAM.replace("sys.stdin.readline()", ""))
    shell = " ".join(f"{number}>&-" for number in closed).replace("0>", "0<")
    run = subprocess.run(
        ["sh", "-c", f'exec "$@" {shell}', "sh", sys.executable, tmp_path / "program.py", tmp_path / "kept"],
        capture_output=True, check=False,
    )  # fmt: skip
    assert run.returncode == 75, run.stderr
    assert (tmp_path / "kept").read_text() == "saved"


@pytest.mark.parametrize(
    ("encoding", "shown"), [("ascii", rb"runs/\xe9t\xe9 \udcff"), ("utf-8", "runs/été ".encode() + rb"\udcff")]
)
def test_what_a_terminal_cannot_show_is_escaped(encoding: str, shown: bytes) -> None:
    program = r"from qmp_collect.runs.console import say; say('runs/\xe9t\xe9 \udcff')"
    environment = os.environ | {"PYTHONIOENCODING": encoding}
    run = subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, check=True)
    assert run.stdout == shown + b"\n"


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
