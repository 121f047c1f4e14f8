"""What runs a stage: LiteRT by default, Keras where its extra is installed."""

from __future__ import annotations

from pathlib import Path

from branchy.core.cascade import FormatName, StageSpec
from branchy.engines.base import Engine


def open_engine(stage: StageSpec, path: Path, fmt: FormatName, threads: int = 1) -> Engine:
    """Open a stage with the engine of its format; LiteRT never loads TensorFlow.

    Args:
        stage: what the file holds.
        path: the file, already verified (`Bundle.file`).
        fmt: its format; every `litert...` one is run by LiteRT.
        threads: how many threads one batch may use.

    Raises:
        EngineError: the file cannot be loaded, or is not the stage that the spec describes.
        MissingExtraError: Keras is not installed.
    """
    if fmt == "keras":
        from branchy.engines.keras import KerasEngine

        return KerasEngine(stage, path, threads)
    from branchy.engines.litert import LiteRTEngine

    return LiteRTEngine(stage, path, threads)
