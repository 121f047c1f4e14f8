"""The contract of an engine: one loaded stage that turns a batch into its named outputs."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Protocol

from branchy.core.cascade import Array, FormatName, StageSpec


class Engine(Protocol):
    """One stage, loaded. Not shared between threads; closed by whoever opened it.

    Outputs are bound by signature name (`activation`, `logits`), never by position.
    """

    stage: StageSpec

    def run(self, batch: Array) -> Mapping[str, Array]:
        """Run one batch.

        Args:
            batch: (n, *stage.input.shape) of stage.input.dtype, n >= 1.

        Returns:
            By tensor name: `stage.activation.name` and/or `stage.logits.name`, each (n, *shape), float32.

        Raises:
            EngineError: wrong shape or dtype, or the model failed.
        """

    def close(self) -> None:
        """Free what it holds; may be called twice."""


class OpenEngine(Protocol):
    """How an engine is opened: a stage, its file (already verified), its format, and how many threads."""

    def __call__(self, stage: StageSpec, path: Path, fmt: FormatName, threads: int) -> Engine:
        """Open the engine; raises `EngineError` when the file cannot be loaded."""
