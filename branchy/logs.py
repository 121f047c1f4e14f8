"""Logging for the commands: one line an event on standard error, progress bars left whole."""

from __future__ import annotations

import logging
import sys


class _TqdmHandler(logging.Handler):
    """Writes each record above any progress bar that is being drawn."""

    def emit(self, record: logging.LogRecord) -> None:
        from tqdm import tqdm

        try:
            tqdm.write(self.format(record), file=sys.stderr)
        except (BrokenPipeError, ValueError):  # standard error was closed: there is nobody to tell
            return


def setup(verbose: bool = False) -> None:
    """Send branchy's log records to standard error; `verbose` adds the debug ones."""
    handler = _TqdmHandler()
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))
    root = logging.getLogger("branchy")
    root.handlers[:] = [handler]
    root.setLevel(logging.DEBUG if verbose else logging.INFO)
    root.propagate = False
