"""`python -m branchy.runner.tether PARENT PROGRAM ARGUMENT...`: run a program that dies with its parent.

Used by `branchy.runner.processes`, so that not even a SIGKILL of the parent leaves a process behind.
A step of its own, since code between fork and exec is not safe in a process with threads.
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys

PR_SET_PDEATHSIG = 1
"""Of prctl(2): the signal to get when the thread that started this process ends; survives exec."""


def die_with(parent: int) -> None:
    """Ask the kernel for SIGKILL when `parent` dies; only Linux can, elsewhere nothing is asked."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != parent:  # it died before it could be asked for
        raise SystemExit(1)


def main() -> None:
    """Tie this process to its parent and become the program."""
    parent, *command = sys.argv[1:]
    die_with(int(parent))
    os.execv(command[0], command)


if __name__ == "__main__":
    main()
