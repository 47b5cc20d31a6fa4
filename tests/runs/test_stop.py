"""What asks a run to stop, and what must not end it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys

import pytest

from qmp_collect.runs import StopSignal

BOTH = "import os, signal\nfrom qmp_collect.runs import StopSignal\n"


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2])
def test_what_asks_to_stop(number: signal.Signals) -> None:
    former = signal.getsignal(number)
    with StopSignal() as stop:
        assert not stop
        os.kill(os.getpid(), number)
        assert stop
        if number != signal.SIGINT:
            os.kill(os.getpid(), number)  # a scheduler may say it twice
    assert signal.getsignal(number) == former


def test_a_second_interrupt_does_not_wait() -> None:
    with StopSignal():
        os.kill(os.getpid(), signal.SIGINT)
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGINT)


@pytest.mark.parametrize("number", [signal.SIGHUP, signal.SIGINT])
def test_what_nohup_or_a_shell_had_ignored_stays_ignored(number: signal.Signals) -> None:
    program = (
        "with StopSignal() as stop:\n"
        f"    os.kill(os.getpid(), {int(number)})\n"
        "    assert not stop\n"
        f"assert signal.getsignal({int(number)}) is signal.SIG_IGN\n"
    )
    ignoring = (
        f"import os, signal, sys; signal.signal({int(number)}, signal.SIG_IGN); os.execv(sys.executable, sys.argv[1:])"
    )
    subprocess.run([sys.executable, "-c", ignoring, sys.executable, "-c", BOTH + program], check=True)
