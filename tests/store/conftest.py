from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from branchy.core.cascade import (
    CascadeSpec,
    ExitSettings,
    FormatName,
    InputSpec,
    Source,
    StageFile,
    StageSpec,
    TensorSpec,
    Uplink,
)
from branchy.store.bundle import Bundle
from branchy.store.manifest import Split, TrainingInfo
from branchy.store.writer import write_bundle

SAMPLE = TensorSpec("sample", (4, 4, 1), "uint8")
LOGITS = TensorSpec("logits", (3,))
INFO = TrainingInfo("branchy train digits", 1, "digits", "0.1.0")
SPLITS = {"train": Split(10, "a" * 64), "test": Split(4, "b" * 64)}
GOLDEN = {
    name: (np.full((2, 4, 4, 1), i, np.uint8), np.full((2, 3), i, np.float32))
    for i, name in enumerate(("edge", "full"))
} | {"cloud": (np.ones((2, 8), np.float32), np.zeros((2, 3), np.float32))}


def _files(stem: str, exit_: ExitSettings) -> dict[FormatName, StageFile]:
    return {"keras": StageFile(f"{stem}.keras", "", 0, exit_), "litert": StageFile(f"{stem}.tflite", "", 0, exit_)}


def spec(threshold: float = 0.9) -> CascadeSpec:
    activation = TensorSpec("activation", (8,))
    edge = StageSpec(
        "edge",
        (Source(None, "sample"),),
        SAMPLE,
        activation,
        LOGITS,
        ("cloud",),
        Uplink(),
        20,
        40,
        _files("edge", ExitSettings(threshold=threshold, temperature=1.5, accuracy=0.875, samples=8)),
    )
    cloud = StageSpec(
        "cloud",
        (Source("edge", "activation"),),
        activation,
        None,
        LOGITS,
        (),
        None,
        30,
        60,
        _files("cloud", ExitSettings()),
    )
    full = StageSpec(
        "full", (Source(None, "sample"),), SAMPLE, None, LOGITS, (), None, 50, 100, _files("model", ExitSettings())
    )
    return CascadeSpec("digits", ("zero", "un", "zwölf"), InputSpec(SAMPLE, 0.0, 16.0, "L"), (edge, cloud), full)


def fill(directory: Path, threshold: float = 0.9) -> CascadeSpec:
    made = spec(threshold)
    for stage in (*made.stages, made.full):
        for file in stage.files.values():
            (directory / file.path).write_bytes(f"weights of {file.path}".encode())
    (directory / "plots").mkdir()
    (directory / "plots" / "history.csv").write_text("epoch;loss\n1;0.5\n")
    return made


def write(target: Path, **changes: Any) -> Bundle:
    arguments: dict[str, Any] = {"fill": fill, "training": INFO, "splits": SPLITS, "golden": GOLDEN} | changes
    return write_bundle(target, arguments.pop("fill"), **arguments)


@pytest.fixture(scope="session")
def write_toy() -> Callable[..., Bundle]:
    """`write_bundle` of two stages whose files are a few bytes of text; any argument can be given otherwise."""
    return write


@pytest.fixture(scope="session")
def fill_toy() -> Callable[..., CascadeSpec]:
    """What fills in those files; takes the directory and the edge's threshold."""
    return fill


@pytest.fixture
def toy(tmp_path: Path) -> Bundle:
    return write(tmp_path / "models" / "digits")
