"""A training's history as TensorBoard reads it; TensorBoard itself need not be installed."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType

from branchy.models.backend import tf, writing


class EventLog:
    """An event file in a folder; a context manager."""

    def __init__(self, folder: Path) -> None:
        """Open a new file in it; those of before stay.

        Raises:
            OSError: it cannot be written.
        """
        from tensorflow.core.framework.summary_pb2 import SummaryMetadata

        plugin = SummaryMetadata.PluginData(plugin_name="scalars")
        self._metadata = SummaryMetadata(plugin_data=plugin).SerializeToString()
        with writing():
            self._writer = tf.summary.create_file_writer(str(folder))

    def __enter__(self) -> EventLog:
        """Ready."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close the file."""
        with contextlib.suppress(tf.errors.OpError):  # of what could not be written, which `write` has said
            self._writer.close()

    def write(self, history: Mapping[str, list[float]]) -> None:
        """Add the last epoch of a history, and flush: a scalar a name, with the epoch (from 1) as its step.

        Args:
            history: by name a value an epoch.

        Raises:
            OSError: it cannot be written.
        """
        with writing(), self._writer.as_default():
            for name, values in history.items():
                tf.summary.write(name, values[-1], step=len(values), metadata=self._metadata)
            self._writer.flush()
