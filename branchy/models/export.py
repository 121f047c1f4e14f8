"""Writing a stage: as a Keras file, and as a LiteRT model with named inputs and outputs."""

from __future__ import annotations

import json
import re
import shutil
import tempfile
import zipfile
from pathlib import Path
from typing import Any, Literal

from branchy.core.cascade import Array, TensorSpec
from branchy.errors import ConversionError
from branchy.models.backend import quiet, tf, writing

SIGNATURE = "serve"
Numbers = Literal["float32", "float16", "int8"]


def write_keras(model: Any, path: Path) -> None:
    """Write a model as `.keras`, the same model as the same bytes.

    Keras puts into its file when it was saved, and where shared objects lay in memory.

    Args:
        model: a Keras model.
        path: ends in `.keras`.

    Raises:
        OSError: the disk is full or the like.
    """
    with tempfile.TemporaryDirectory(dir=path.parent) as scratch:
        saved = Path(scratch) / path.name
        model.save(saved)
        with zipfile.ZipFile(saved) as source, zipfile.ZipFile(path, "w") as target:
            for name in source.namelist():
                with source.open(name) as what, target.open(zipfile.ZipInfo(name), "w", force_zip64=True) as where:
                    if name.endswith(".json"):
                        where.write(json.dumps(_lasting(json.load(what), {})).encode())
                    else:
                        shutil.copyfileobj(what, where)


def _lasting(value: Any, numbers: dict[int, int]) -> Any:
    """JSON of a `.keras` without its date, and with shared objects numbered in the order in which they come."""
    if isinstance(value, list):
        return [_lasting(each, numbers) for each in value]
    if not isinstance(value, dict):
        return value
    return {
        key: numbers.setdefault(each, len(numbers)) if key == "shared_object_id" else _lasting(each, numbers)
        for key, each in value.items()
        if key != "date_saved"
    }


def write_litert(
    model: Any,
    took: TensorSpec,
    path: Path,
    numbers: Numbers = "float32",
    seen: Array | None = None,
) -> None:
    """Convert a model to LiteRT, for any batch size, and write it.

    Its one signature, `serve`, takes a tensor by the name in `took` and gives the model's outputs
    by theirs: LiteRT does not keep their order. Whatever it computes in, its input has the dtype in
    `took` and its outputs are float32, so that tiers with other formats understand each other.

    Args:
        model: a functional Keras model.
        took: its input.
        path: where to write it.
        numbers: `float16` keeps the weights in it and computes in float32; `int8` computes in integers,
            weights by channel and activations by tensor (Jacob et al., 2018).
        seen: for int8, (n, *took.shape) inputs by which the activations' ranges are found.

    Raises:
        ConversionError: the converter does not know one of the model's operations.
        OSError: the disk is full or the like.
    """
    spec = tf.TensorSpec((None, *took.shape), took.dtype, name=took.name)
    holder = tf.Module()
    holder.serve = tf.function(lambda batch: model(batch, training=False), input_signature=[spec])
    # The variables themselves: tracked through Keras' layers only, the converter would leave them
    # as variables that LiteRT never initialises, in place of constants.
    holder.weights = [weight.value for weight in model.variables]
    with tempfile.TemporaryDirectory() as scratch, quiet():
        with writing():
            tf.saved_model.save(holder, scratch, signatures={SIGNATURE: holder.serve})
        converter = tf.lite.TFLiteConverter.from_saved_model(scratch, signature_keys=[SIGNATURE])
        if numbers != "float32":
            converter.optimizations = [tf.lite.Optimize.DEFAULT]
        if numbers == "float16":
            converter.target_spec.supported_types = [tf.float16]
        if numbers == "int8":
            rows = () if seen is None else seen
            converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS_INT8]
            converter.representative_dataset = lambda: ({took.name: row[None]} for row in rows)
        try:
            data: bytes = converter.convert()
        except OSError:
            raise  # a full disk is no trait of the model
        except Exception as error:
            raise ConversionError(f"{path.name}: LiteRT cannot express this stage: {_reason(str(error))}") from error
    path.write_bytes(data)


def _reason(text: str) -> str:
    """The operations that the converter does not know, or the first line of what it says."""
    operations = re.findall(r"'tf\.(\w+)' op is neither", text)
    if operations:
        return f"it has no {', '.join(dict.fromkeys(operations))}"
    return (text.strip().splitlines() or ["the converter does not say why"])[0][:300]
