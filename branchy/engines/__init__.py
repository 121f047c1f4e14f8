"""What runs a stage: LiteRT by default, Keras where its extra is installed."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from branchy.core.cascade import StageSpec
from branchy.engines.base import Engine


def open_engine(stage: StageSpec, path: Path, engine: Literal["keras", "litert"], threads: int = 1) -> Engine:
    """Open a stage; LiteRT never loads TensorFlow.

    Args:
        stage: what the file holds.
        path: the file, already verified (`Bundle.file`).
        engine: what runs it (`StageFile.engine`).
        threads: how many threads one batch may use.

    Raises:
        EngineError: the file cannot be loaded, or is not the stage that the spec describes.
        MissingExtraError: Keras is not installed.
    """
    if engine == "keras":
        from branchy.engines.keras import KerasEngine

        return KerasEngine(stage, path, threads)
    from branchy.engines.litert import LiteRTEngine

    return LiteRTEngine(stage, path, threads)
