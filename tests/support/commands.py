"""Runs branchy's commands in processes of their own, and tells which modules they had loaded at the end."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

TIMEOUT_S = 60.0
_LISTING = """
import sys
from pathlib import Path
from branchy.cli.main import main
target = Path(sys.argv.pop(1))
try:
    main()
finally:
    target.write_text("\\n".join(sorted(sys.modules)))
"""


class Command:
    """`branchy ARGUMENTS...` in the background; ended when the `with` ends."""

    def __init__(self, folder: Path, *arguments: object) -> None:
        self.modules_file = folder / f"modules-{time.monotonic_ns()}"
        self.log_file = self.modules_file.with_suffix(".log")
        env = {name: value for name, value in os.environ.items() if not name.startswith("BRANCHY_")}
        command = [sys.executable, "-c", _LISTING, str(self.modules_file), *map(str, arguments)]
        with self.log_file.open("wb") as log:
            self.process = subprocess.Popen(command, stdout=log, stderr=log, cwd=folder, env=env)

    def wait_for(self, file: Path) -> None:
        """Until a file is there that the command writes."""
        until = time.monotonic() + TIMEOUT_S
        while not file.exists():
            assert self.process.poll() is None, self.log()
            assert time.monotonic() < until, self.log()
            with suppress(subprocess.TimeoutExpired):
                self.process.wait(0.02)

    def wait_for_log(self, words: str) -> None:
        """Until the command has said something."""
        until = time.monotonic() + TIMEOUT_S
        while words not in self.log():
            assert self.process.poll() is None, self.log()
            assert time.monotonic() < until, self.log()
            with suppress(subprocess.TimeoutExpired):
                self.process.wait(0.02)

    def stop(self, number: int = signal.SIGTERM) -> int:
        """Signal it and wait; returns its exit code."""
        self.process.send_signal(number)
        return self.process.wait(TIMEOUT_S)

    def log(self) -> str:
        return self.log_file.read_text(errors="replace")

    def modules(self) -> set[str]:
        """The modules it had loaded when it ended."""
        return set(self.modules_file.read_text().split())

    def __enter__(self) -> Command:
        return self

    def __exit__(self, *exception: object) -> None:
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait(TIMEOUT_S)
