"""Child processes that never outlive this one: not after an error, not after Ctrl-C, not after a SIGKILL."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import FrameType, TracebackType

from branchy.errors import BranchyError

GRACE_S = 5.0
"""How long a process that was told to stop may take; then it is killed."""

LOOK_S = 0.02
"""How often a file that another process writes is looked for."""


class Interrupts:
    """SIGINT, SIGTERM and SIGHUP as one `KeyboardInterrupt`, held back while processes come or go.

    Only the first signal counts: the ones after it would cut short the tidying up that it began.
    """

    SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)

    def __init__(self) -> None:
        self._holds = 0
        self._caught = False
        self._raised = False

    def __enter__(self) -> Interrupts:
        """Take over the signals; in the main thread only."""
        self._before = [signal.signal(number, self._catch) for number in self.SIGNALS]
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        """Give the signals back; one that is still held back is raised."""
        for number, handler in zip(self.SIGNALS, self._before, strict=True):
            signal.signal(number, handler)
        if kind is None:
            self._raise_caught()

    @contextmanager
    def held(self) -> Iterator[None]:
        """Nothing is raised in this block, but at its end."""
        self._holds += 1
        try:
            yield
        finally:
            self._holds -= 1
        self._raise_caught()

    def _catch(self, number: int, frame: FrameType | None) -> None:
        self._caught = True
        self._raise_caught()

    def _raise_caught(self) -> None:
        if self._caught and not self._raised and not self._holds:
            self._raised = True
            raise KeyboardInterrupt


@dataclass(frozen=True, slots=True)
class Child:
    """A process of `Processes`.

    Attributes:
        name: what messages call it.
        popen: the process.
        log: the file that gets its output; None where that is our own.
        stop_signal: what tells it to stop.
    """

    name: str
    popen: subprocess.Popen[bytes]
    log: Path | None
    stop_signal: signal.Signals = signal.SIGTERM

    @property
    def is_alive(self) -> bool:
        """Whether it still runs."""
        return self.popen.poll() is None

    def last_words(self, lines: int = 5) -> str:
        """The end of its log, for an error message."""
        if self.log is None:
            return ""
        return " | ".join(self.log.read_text(errors="replace").splitlines()[-lines:])


def branchy(*arguments: str | Path) -> list[str]:
    """The command line of `branchy ARGUMENTS...` with this very Python."""
    return [sys.executable, "-m", "branchy", *map(str, arguments)]


class Processes:
    """Starts processes and stops them all at the end.

    A child has a session of its own, so that Ctrl-C in a terminal reaches this process alone,
    which then stops its children in order; and it dies with this process (see `tether`).

    Args:
        interrupts: entered by the caller, around this.
        folder: where logs and ready files go; must exist.
    """

    def __init__(self, interrupts: Interrupts, folder: Path) -> None:
        self._interrupts = interrupts
        self._folder = folder
        self._children: list[Child] = []

    def __enter__(self) -> Processes:
        """Itself."""
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        """Stop every child that is left, the last one started first."""
        with self._interrupts.held():
            self.stop(*reversed(self._children))

    def start(
        self, name: str, line: Sequence[str], *, is_quiet: bool = True, stop_signal: signal.Signals = signal.SIGTERM
    ) -> Child:
        """Start a process.

        Args:
            name: what messages call it; its log is `NAME.log`, gone on with when it was started before.
            line: program (a full path) and arguments.
            is_quiet: whether its output goes to the log; otherwise to our own standard output and error.
            stop_signal: what tells it to stop.
        """
        log = self._folder / f"{name}.log" if is_quiet else None
        mode = "ab" if any(child.name == name for child in self._children) else "wb"
        tether = [sys.executable, "-m", "branchy.runner.tether", str(os.getpid())]
        with self._interrupts.held(), ExitStack() as stack:
            output = stack.enter_context(log.open(mode)) if log else None
            popen = subprocess.Popen(
                [*tether, *line], stdin=subprocess.DEVNULL, stdout=output, stderr=output, start_new_session=True
            )
            child = Child(name, popen, log, stop_signal)
            self._children.append(child)
        return child

    def wait_for_file(self, child: Child, path: Path, timeout_s: float) -> None:
        """Wait until the child has written a file.

        Raises:
            BranchyError: it ended before, or took too long.
        """
        end = time.monotonic() + timeout_s
        while not path.exists():
            if not child.is_alive:
                raise BranchyError(f"{child.name} ended with {child.popen.returncode}: {child.last_words()}")
            if time.monotonic() > end:
                raise BranchyError(f"{child.name} was not ready within {timeout_s:g} s: {child.last_words()}")
            time.sleep(LOOK_S)

    def wait(self, child: Child) -> int:
        """Wait until a child has ended by itself; its exit code."""
        return child.popen.wait()

    def kill(self, child: Child) -> None:
        """End a child with SIGKILL and reap it."""
        child.popen.kill()
        child.popen.wait()

    def stop(self, *children: Child) -> None:
        """Tell children to stop, wait for all of them, and kill what does not within `GRACE_S`."""
        for child in children:
            child.popen.send_signal(child.stop_signal)
        end = time.monotonic() + GRACE_S
        for child in children:
            try:
                child.popen.wait(max(0.0, end - time.monotonic()))
            except subprocess.TimeoutExpired:
                self.kill(child)
