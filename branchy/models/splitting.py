"""Cutting a model into stages: one Keras model a stage, which share their weights with the whole."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from branchy.core.cascade import FULL, Array, InputSpec, Source, StageSpec, TensorSpec, Uplink
from branchy.errors import ArchitectureError
from branchy.models.backend import keras, tf
from branchy.models.branching import BranchyModel, Tensor

SAMPLE, ACTIVATION, LOGITS = "sample", "activation", "logits"


@dataclass(frozen=True)
class StageModel:
    """A stage as data and as a Keras model from its input to a dict of its outputs."""

    spec: StageSpec
    model: Any


@dataclass(frozen=True)
class Network:
    """A branchy model with the scaling in front, whole and cut.

    Attributes:
        trained: from the sample to every exit's logits, by stage name.
        stages: from the device to the cloud.
        full: the whole as one stage; its only output is the last exit's logits.
        pretrained: whether it classifies before any training.
    """

    trained: Any
    stages: tuple[StageModel, ...]
    full: StageModel
    pretrained: bool = False


def split(built: BranchyModel, sample: InputSpec, uplink: Uplink) -> Network:
    """Put the scaling from the declared range before a model, and cut it at its stages' cuts.

    Args:
        built: a checked model.
        sample: what goes in; (x - low) / (high - low) becomes part of the first stage's graph, unless the
            model takes samples as they are.
        uplink: what every stage but the last sends up.

    Raises:
        ArchitectureError: a stage needs more than the cut before it.
    """
    source, scaled = built.model.inputs[0], built.scaled
    exits = {s.name: s.logits for s in built.stages if s.logits is not None}
    stages: list[StageModel] = []
    for i, stage in enumerate(built.stages):
        last = i == len(built.stages) - 1
        before = built.stages[i - 1] if i else None
        model = _model(
            source, {ACTIVATION: stage.cut, LOGITS: stage.logits}, sample if before is None else None, scaled
        )
        took = sample.tensor if before is None else TensorSpec(ACTIVATION, _shape(source))
        spec = StageSpec(
            name=stage.name,
            inputs=(Source(before.name, ACTIVATION) if before else Source(None, SAMPLE),),
            input=took,
            activation=None if last else TensorSpec(ACTIVATION, _shape(stage.cut)),
            logits=None if stage.logits is None else TensorSpec(LOGITS, _shape(stage.logits)),
            successors=() if last else (built.stages[i + 1].name,),
            uplink=None if last else uplink,
            parameters=model.count_params(),
            flops=flops(model, took),
            custom_objects=needs_custom_objects(model),
        )
        stages.append(StageModel(spec, model))
        source = stage.cut
    full = _model(built.model.inputs[0], {LOGITS: built.stages[-1].logits}, sample, scaled)
    full_spec = StageSpec(
        name=FULL,
        inputs=(Source(None, SAMPLE),),
        input=sample.tensor,
        activation=None,
        logits=stages[-1].spec.logits,
        successors=(),
        uplink=None,
        parameters=full.count_params(),
        flops=flops(full, sample.tensor),
        custom_objects=needs_custom_objects(full),
    )
    trained = _model(built.model.inputs[0], exits, sample, scaled)
    return Network(trained, tuple(stages), StageModel(full_spec, full), built.pretrained)


def _model(source: Tensor, outputs: Mapping[str, Tensor | None], sample: InputSpec | None, scaled: bool) -> Any:
    """A Keras model from one tensor of a graph to others; with a sample's spec, scaling or a cast goes first."""
    wanted = {name: tensor for name, tensor in outputs.items() if tensor is not None}
    try:
        segment = keras.Model(source, wanted)
    except ValueError as error:
        raise ArchitectureError(f"the model cannot be cut at {source.name}: {' '.join(str(error).split())}") from None
    if sample is None:
        start = keras.Input(_shape(source), name=ACTIVATION)
        return keras.Model(start, segment(start))
    start = keras.Input(sample.tensor.shape, dtype=sample.tensor.dtype, name=SAMPLE)
    if not scaled:
        return keras.Model(start, segment(keras.ops.cast(start, "float32")))
    span = sample.high - sample.low
    return keras.Model(start, segment(keras.layers.Rescaling(1.0 / span, offset=-sample.low / span)(start)))


def _shape(tensor: Tensor) -> tuple[int, ...]:
    return tuple(int(side) for side in tensor.shape[1:])


def flops(model: Any, took: TensorSpec) -> int:
    """Floating point operations for one sample (a multiply-add counts two), by TensorFlow's profiler."""
    traced = tf.function(lambda x: model(x, training=False))
    graph = traced.get_concrete_function(tf.TensorSpec((1, *took.shape), took.dtype)).graph
    options = tf.compat.v1.profiler.ProfileOptionBuilder.float_operation()
    options = tf.compat.v1.profiler.ProfileOptionBuilder(options).with_empty_output().build()
    return int(tf.compat.v1.profiler.profile(graph, options=options).total_float_ops)


def needs_custom_objects(model: Any) -> bool:
    """Whether Keras could not load the model without the user's code (or would have to run code from the file)."""
    for layer in model._flatten_layers():
        if type(layer).__module__.partition(".")[0] != "keras" or isinstance(layer, keras.layers.Lambda):
            return True
    return False


def runner(stage: StageModel) -> Callable[[Array], Mapping[str, Array]]:
    """A stage's model as a function from a batch to its outputs by name, traced once for all batch sizes."""
    spec = tf.TensorSpec((None, *stage.spec.input.shape), stage.spec.input.dtype)
    traced = tf.function(lambda batch: stage.model(batch, training=False), input_signature=[spec])
    return lambda batch: {name: np.array(output) for name, output in traced(tf.convert_to_tensor(batch)).items()}
