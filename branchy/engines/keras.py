"""Runs a stage with Keras, for formats that only Keras has and to compare with; needs `branchy[train]`."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from branchy.core.cascade import Array, StageSpec
from branchy.engines.base import Port, check_batch, check_ports
from branchy.errors import EngineError, MissingExtraError

try:
    import keras
    import tensorflow as tf
except ModuleNotFoundError:
    raise MissingExtraError("the keras engine", "train") from None

_log = logging.getLogger(__name__)


class KerasEngine:
    """One stage in Keras, traced once for every batch size.

    The model takes one input and returns a dict; its outputs are bound by that dict's names.
    """

    def __init__(self, stage: StageSpec, path: Path, threads: int = 1) -> None:
        """Load the file in safe mode (nothing in it is executed) and check that it is this stage.

        Raises:
            EngineError: Keras cannot load it, or its inputs and outputs are not the stage's.
        """
        self.stage = stage
        _set_threads(threads)
        try:
            model = keras.saving.load_model(path, compile=False, safe_mode=True)
        except Exception as error:
            hint = "; its layers need code of your own, so run it with engine litert" if stage.custom_objects else ""
            raise EngineError(f"stage {stage.name}: Keras cannot load {path}: {_line(error)}{hint}") from error
        if not isinstance(model.output, dict):
            raise EngineError(f"stage {stage.name}: {path} must return its outputs by name, as a dict")
        check_ports(stage, _ports({tensor.name: tensor for tensor in model.inputs}), _ports(model.output))
        signature = tf.TensorSpec((None, *stage.input.shape), stage.input.dtype)
        self._function = tf.function(lambda batch: model(batch, training=False), input_signature=[signature])

    def run(self, batch: Array) -> Mapping[str, Array]:
        """Run one batch; see `Engine.run`."""
        check_batch(self.stage, batch)
        try:
            outputs = self._function(tf.convert_to_tensor(batch))
        except (tf.errors.OpError, ValueError, TypeError) as error:
            raise EngineError(f"stage {self.stage.name}: Keras failed: {_line(error)}") from None
        # A tensor's own memory may not be written to or kept: hand out copies.
        return self.stage.completed(batch, {name: np.array(output) for name, output in outputs.items()})

    def close(self) -> None:
        """Free the model; may be called twice."""
        self._function = None


def _set_threads(threads: int) -> None:
    try:
        tf.config.threading.set_intra_op_parallelism_threads(threads)
        tf.config.threading.set_inter_op_parallelism_threads(1)
    except RuntimeError:
        _log.debug("TensorFlow has started already in this process, with its own number of threads")


def _ports(tensors: Mapping[str, keras.KerasTensor]) -> dict[str, Port]:
    return {name: Port(tuple(tensor.shape[1:]), tensor.dtype) for name, tensor in tensors.items()}


def _line(error: Exception) -> str:
    return " ".join(str(error).split())[:300]
