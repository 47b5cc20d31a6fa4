"""Signals that ask a run to stop become a flag that its loop looks at."""

from __future__ import annotations

import signal
from collections.abc import Callable
from types import FrameType, TracebackType
from typing import Any, final

# What ends a process from outside: kill and schedulers; Ctrl-C; a terminal that closes; Slurm's --signal=B:USR1@60, or
# USR2 as submitit has it.
_NAMES = ("SIGTERM", "SIGINT", "SIGHUP", "SIGUSR1", "SIGUSR2")
STOP_SIGNALS = tuple(signal.Signals[name] for name in _NAMES if name in signal.Signals.__members__)

SAVED = 75  # exit code of a run that was stopped, EX_TEMPFAIL of sysexits.h: a checkpoint is saved, run me again


@final
class StopSignal:
    """SIGTERM, SIGINT, SIGHUP, SIGUSR1 and SIGUSR2 become a flag: a loop finishes its step and saves before it ends.

    A second SIGINT raises KeyboardInterrupt. A signal that whoever started the process had it ignore stays ignored, as
    SIGHUP under nohup. The former handlers come back on exit. Main thread only.

    Examples:
        >>> with StopSignal() as stop:
        ...     for _ in range(3):
        ...         if stop:
        ...             break
    """

    def __init__(self) -> None:
        self.requested = False
        self._interrupts = 0
        self._former: dict[signal.Signals, Any] = {}

    def __bool__(self) -> bool:
        return self.requested

    def __enter__(self) -> StopSignal:
        for number in STOP_SIGNALS:
            if signal.getsignal(number) is not signal.SIG_IGN:
                self._former[number] = signal.signal(number, self._handle)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for number, handler in self._former.items():
            # None stands for a handler that was not installed from Python and cannot be put back.
            signal.signal(number, signal.SIG_DFL if handler is None else handler)

    def _handle(self, number: int, frame: FrameType | None) -> None:
        self.requested = True
        self._interrupts += number == signal.SIGINT
        if self._interrupts > 1:
            raise KeyboardInterrupt


@final
class Watched:
    """Whether to stop, as ``stop`` says; ``look`` is called whenever somebody asks, which is before every step."""

    def __init__(self, stop: StopSignal, look: Callable[[], None]) -> None:
        self._stop, self._look = stop, look

    def __bool__(self) -> bool:
        self._look()
        return bool(self._stop)
