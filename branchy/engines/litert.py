"""Runs a stage with LiteRT (TensorFlow Lite's successor), without TensorFlow."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from ai_edge_litert.interpreter import Interpreter

from branchy.core.cascade import Array, StageSpec
from branchy.engines.base import Port, check_batch, check_ports
from branchy.errors import EngineError

SIZES = (16, 4, 1)
"""Batch sizes that have an interpreter, made when first needed; a batch of 21 runs as 16, 4 and 1.

One interpreter a size, as resizing plans the memory anew. Each packs the weights for itself, so
there are few; and no batch is padded, as a convolution costs the same a sample in any batch.
"""


class _Runner:
    """An interpreter for one batch size. LiteRT's own signature runner plans the memory anew with each call."""

    def __init__(self, model: bytes, threads: int) -> None:
        self._interpreter = Interpreter(model_content=model, num_threads=threads)
        signature = self._interpreter.get_signature_runner()
        self.inputs: Mapping[str, Mapping[str, Any]] = signature.get_input_details()
        self.outputs: Mapping[str, Mapping[str, Any]] = signature.get_output_details()

    def prepare(self, size: int) -> _Runner:
        """Plan the memory for batches of `size`."""
        for detail in self.inputs.values():
            self._interpreter.resize_tensor_input(detail["index"], [size, *detail["shape"][1:]])
        self._interpreter.allocate_tensors()
        return self

    def __call__(self, batch: Array) -> dict[str, Array]:
        """The outputs, copied, by name."""
        for detail in self.inputs.values():
            self._interpreter.set_tensor(detail["index"], batch)
        self._interpreter.invoke()
        return {name: self._interpreter.get_tensor(detail["index"]) for name, detail in self.outputs.items()}


class LiteRTEngine:
    """One stage in LiteRT; an interpreter releases the GIL while it computes."""

    def __init__(self, stage: StageSpec, path: Path, threads: int = 1) -> None:
        """Load the file and check that it is this stage.

        Raises:
            EngineError: LiteRT cannot load it, or its inputs and outputs are not the stage's.
        """
        self.stage = stage
        self._threads = threads
        try:
            self._model = path.read_bytes()
            runner = _Runner(self._model, threads)
        except (OSError, ValueError, RuntimeError) as error:
            raise EngineError(f"stage {stage.name}: LiteRT cannot load {path}: {_line(error)}") from None
        check_ports(stage, _ports(runner.inputs), _ports(runner.outputs))
        self._runners = {1: runner.prepare(1)}

    def run(self, batch: Array) -> Mapping[str, Array]:
        """Run one batch; see `Engine.run`."""
        check_batch(self.stage, batch)
        try:
            runner = self._runners.get(len(batch))
            outputs = self._run_parts(batch) if runner is None else runner(batch)
        except (ValueError, RuntimeError) as error:
            raise EngineError(f"stage {self.stage.name}: LiteRT failed: {_line(error)}") from None
        return self.stage.completed(batch, outputs)

    def close(self) -> None:
        """Free the interpreters; may be called twice."""
        self._runners.clear()
        self._model = b""

    def _run_parts(self, batch: Array) -> dict[str, Array]:
        parts = [self._runner(size)(part) for size, part in _parts(batch)]
        return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}

    def _runner(self, size: int) -> _Runner:
        runner = self._runners.get(size)
        if runner is None:
            runner = self._runners[size] = _Runner(self._model, self._threads).prepare(size)
        return runner


def _parts(batch: Array) -> Iterator[tuple[int, Array]]:
    start = 0
    for size in SIZES:
        while len(batch) - start >= size:
            yield size, batch[start : start + size]
            start += size


def _ports(details: Mapping[str, Mapping[str, Any]]) -> dict[str, Port]:
    return {
        name: Port(tuple(int(n) for n in detail["shape"][1:]), np.dtype(detail["dtype"]).name)
        for name, detail in details.items()
    }


def _line(error: Exception) -> str:
    return " ".join(str(error).split())[:300]
