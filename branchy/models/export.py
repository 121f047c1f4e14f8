"""Writing a stage: as a Keras file, and as a LiteRT float32 model with named inputs and outputs."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

from branchy.core.cascade import TensorSpec
from branchy.errors import TrainingError
from branchy.models.backend import quiet, tf

SIGNATURE = "serve"


def write_keras(model: Any, path: Path) -> None:
    """Write a model as `.keras`."""
    model.save(path)


def write_litert(model: Any, took: TensorSpec, path: Path) -> None:
    """Convert a model to LiteRT float32, for any batch size, and write it.

    Its one signature, `serve`, takes a tensor by the name in `took` and gives the model's outputs
    by theirs: LiteRT does not keep their order.

    Raises:
        TrainingError: the converter does not know one of the model's operations.
    """
    spec = tf.TensorSpec((None, *took.shape), took.dtype, name=took.name)
    holder = tf.Module()
    holder.serve = tf.function(lambda batch: model(batch, training=False), input_signature=[spec])
    # The variables themselves: tracked through Keras' layers only, the converter would leave them
    # as variables that LiteRT never initialises, in place of constants.
    holder.weights = [weight.value for weight in model.variables]
    with tempfile.TemporaryDirectory() as scratch, quiet():
        try:
            tf.saved_model.save(holder, scratch, signatures={SIGNATURE: holder.serve})
            data: bytes = tf.lite.TFLiteConverter.from_saved_model(scratch, signature_keys=[SIGNATURE]).convert()
        except Exception as error:
            reason = str(error).strip().splitlines()
            raise TrainingError(
                f"{path.name}: LiteRT cannot express this stage: {reason[0][:300] if reason else type(error).__name__}"
            ) from error
    path.write_bytes(data)
