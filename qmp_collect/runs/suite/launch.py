"""``python launch.py PARENT NICE CORES COMMAND...`` becomes COMMAND, which is asked to stop when its parent dies.

A program of its own, because Python code between fork and exec of a larger one is not safe. Imports nothing of ours.
"""

import ctypes
import os
import signal
import sys

PR_SET_PDEATHSIG = 1


def main(parent: str, nice: str, cores: str, *command: str) -> None:
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(PR_SET_PDEATHSIG, int(signal.SIGTERM))
        if os.getppid() != int(parent):  # it died before that
            sys.exit(-signal.SIGTERM)
        if cores:
            os.sched_setaffinity(0, map(int, cores.split(",")))
    os.nice(int(nice))
    os.execv(command[0], command)


if __name__ == "__main__":
    main(*sys.argv[1:])
