"""`python -m branchy.brokers.guard DATA`: end a cluster's nodes when the process that started them is gone.

It reads standard input, a pipe from that process. Its end means that the process ended, however:
the nodes are stopped. A byte means that they are to go on without it.
"""

from __future__ import annotations

import contextlib
import subprocess
import sys
from pathlib import Path

from branchy.brokers.running import node_files, stop_processes


class Guard:
    """A guard for a data folder, in a process of its own; start it before the first node."""

    def __init__(self, data: Path) -> None:
        command = [sys.executable, "-m", "branchy.brokers.guard", str(data)]
        # In a session of its own: a Ctrl-C here is not for it.
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, bufsize=0, start_new_session=True)

    def release(self) -> None:
        """Let the nodes go on when this process ends."""
        self._close(b"x")

    def close(self) -> None:
        """Stop the nodes that still run; may be called twice."""
        self._close(b"")

    def _close(self, last_word: bytes) -> None:
        if self._process.stdin is not None and not self._process.stdin.closed:
            with self._process.stdin as pipe, contextlib.suppress(BrokenPipeError):  # gone, it guards nothing
                pipe.write(last_word)
        self._process.wait()


def main() -> None:
    """Wait for the pipe's byte or its end."""
    if not sys.stdin.buffer.read(1):
        stop_processes(node_files(Path(sys.argv[1])))


if __name__ == "__main__":
    main()
