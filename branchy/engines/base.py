"""The contract of an engine: one loaded stage that turns a batch into its named outputs."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple, Protocol

from branchy.core.cascade import Array, FormatName, StageSpec
from branchy.errors import EngineError


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
            By tensor name: `stage.activation.name` and/or `stage.logits.name`, each (n, *shape): float32,
            but for a sample that is handed on (`StageSpec.completed`).

        Raises:
            EngineError: wrong shape or dtype, or the model failed.
        """

    def close(self) -> None:
        """Free what it holds; may be called twice."""


class OpenEngine(Protocol):
    """How an engine is opened: a stage, its file (already verified), its format, and how many threads."""

    def __call__(self, stage: StageSpec, path: Path, fmt: FormatName, threads: int) -> Engine:
        """Open the engine; raises `EngineError` when the file cannot be loaded."""


class Port(NamedTuple):
    """Shape (without the batch axis) and dtype (by NumPy's name) of a model's input or output."""

    shape: tuple[int, ...]
    dtype: str


def check_batch(stage: StageSpec, batch: Array) -> None:
    """Raise `EngineError` unless the batch is (n >= 1, *stage.input.shape) of stage.input.dtype."""
    want = stage.input
    if batch.ndim == 0 or len(batch) == 0 or batch.shape[1:] != want.shape or batch.dtype != want.dtype:
        shape = ", ".join(["n", *map(str, want.shape)])
        raise EngineError(
            f"stage {stage.name}: expected a batch ({shape}) of {want.dtype}, n >= 1, "
            f"got {batch.shape} of {batch.dtype}"
        )


def check_ports(stage: StageSpec, inputs: Mapping[str, Port], outputs: Mapping[str, Port]) -> None:
    """Raise `EngineError` unless a loaded model has the input and the outputs that the stage's spec names.

    Args:
        stage: what the model should be.
        inputs: shape (without the batch axis) and dtype of each input, by name.
        outputs: the same of each output; more than the spec names are refused too.
    """
    for kind, specs, found in (
        ("inputs", (stage.input,), inputs),
        ("outputs", stage.outputs, outputs),
    ):
        want = {spec.name: Port(spec.shape, spec.dtype) for spec in specs}
        if want != found:
            raise EngineError(f"stage {stage.name}: expected {kind} {_text(want)}, the model has {_text(found)}")


def _text(ports: Mapping[str, Port]) -> str:
    return ", ".join(f"{name} {port.shape} {port.dtype}" for name, port in sorted(ports.items())) or "none"
