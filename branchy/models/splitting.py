"""Cutting a model into stages: one Keras model a stage, which share their weights with the whole."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from branchy.core.cascade import FULL, Array, InputSpec, Source, StageSpec, TensorSpec, Uplink
from branchy.errors import ArchitectureError
from branchy.models.backend import keras, tf
from branchy.models.bottleneck import Bottleneck
from branchy.models.branching import BranchyModel, Stage, Tensor

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
        full: the whole as one stage; its only output is the last exit's logits. No bottleneck is in it.
        built: what it was made of.
    """

    trained: Any
    stages: tuple[StageModel, ...]
    full: StageModel
    built: BranchyModel


def split(built: BranchyModel, sample: InputSpec, uplinks: Sequence[Uplink]) -> Network:
    """Put the scaling from the declared range before a model, and cut it at its stages' cuts.

    Behind a cut that sends the sample the next stage has all of the model from there on, and the
    stage before only what its own exit needs.

    Args:
        built: a checked model.
        sample: what goes in; (x - low) / (high - low) becomes part of the graph of a stage that takes it,
            unless the model takes samples as they are.
        uplinks: what each cut sends.

    Raises:
        ArchitectureError: a stage needs more than the cut before it, or an uplink cannot be had.
    """
    origin, scaled = built.model.inputs[0], built.scaled
    exits = {s.name: s.logits for s in built.stages if s.logits is not None}
    _check_uplinks(built.stages, uplinks)
    stages: list[StageModel] = []
    source, inputs = origin, Source(None, SAMPLE)
    for i, stage in enumerate(built.stages):
        last = i == len(built.stages) - 1
        uplink = None if last else uplinks[i]
        sends_sample = uplink is not None and uplink.kind == "sample"
        outputs = {ACTIVATION: None if sends_sample else stage.cut, LOGITS: stage.logits}
        model = _model(source, outputs, sample if source is origin else None, scaled)
        took = sample.tensor if source is origin else TensorSpec(ACTIVATION, _shape(source))
        handed_on = took if sends_sample else TensorSpec(ACTIVATION, _shape(stage.cut)) if uplink else None
        spec = StageSpec(
            name=stage.name,
            inputs=(inputs,),
            input=took,
            activation=handed_on,
            logits=None if stage.logits is None else TensorSpec(LOGITS, _shape(stage.logits)),
            successors=() if last else (built.stages[i + 1].name,),
            uplink=uplink,
            parameters=model.count_params(),
            flops=flops(model, took),
            custom_objects=needs_custom_objects(model),
        )
        stages.append(StageModel(spec, model))
        if not sends_sample:
            source, inputs = stage.cut, Source(stage.name, ACTIVATION)
    full = _model(origin, {LOGITS: built.stages[-1].logits}, sample, scaled)
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
    trained = _model(origin, exits, sample, scaled)
    return Network(trained, tuple(stages), StageModel(full_spec, full), built)


def squeezed(network: Network, cut: int, bottleneck: Bottleneck) -> Network:
    """A network with a bottleneck in place of a cut's activation: its encoder in the stage before, its decoder behind.

    Args:
        network: that sends the activation there.
        cut: the position of the stage before it.
        bottleneck: made for that activation.
    """
    before, behind = network.stages[cut : cut + 2]
    codes = TensorSpec(ACTIVATION, (bottleneck.size_bytes,), "uint8")
    start = keras.Input(before.spec.input.shape, dtype=before.spec.input.dtype, name=before.spec.input.name)
    outputs = before.model(start)
    encoding = keras.Model(start, {**outputs, ACTIVATION: bottleneck.packed(outputs[ACTIVATION])})
    start = keras.Input(codes.shape, dtype=codes.dtype, name=codes.name)
    decoding = keras.Model(start, behind.model(bottleneck.unpacked(start)))
    pair = (
        _remade(before, encoding, activation=codes, uplink=Uplink("bottleneck", codes.dtype)),
        _remade(behind, decoding, input=codes),
    )
    return replace(network, stages=(*network.stages[:cut], *pair, *network.stages[cut + 2 :]))


def _remade(stage: StageModel, model: Any, **changes: Any) -> StageModel:
    spec = replace(stage.spec, parameters=model.count_params(), **changes)
    return StageModel(replace(spec, flops=flops(model, spec.input)), model)


def _check_uplinks(stages: Sequence[Stage], uplinks: Sequence[Uplink]) -> None:
    """The sample goes up from where it is, and a stage that computes nothing needs no place of its own."""
    made = None
    for stage, uplink in zip(stages[:-1], uplinks, strict=True):
        if uplink.kind != "sample":
            made = made or stage.name
        elif made is not None:
            raise ArchitectureError(
                f"--uplink: stage {stage.name} cannot send the sample, as {made} before it sends an activation; "
                "cuts that send the sample must come first"
            )
        elif stage.logits is None:
            raise ArchitectureError(
                f"--uplink: stage {stage.name} has no exit, so with the sample as its uplink it would do nothing; "
                "leave it out, or give it an exit"
            )


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
    """Floating point operations for one sample, by TensorFlow's profiler; a multiply-add counts two.

    Args:
        model: a Keras model.
        took: shape and dtype of its input, without the batch.
    """
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
    """A stage's model as a function, traced once for all batch sizes.

    Args:
        stage: whose outputs are `activation` and `logits`, where it has them.

    Returns:
        From a batch (n, *input) of the dtype in the stage's spec to its outputs by name, (n, ...) float32, or
        uint8 for codes of a bottleneck; where the stage sends the sample on, that is among them.
    """
    spec = tf.TensorSpec((None, *stage.spec.input.shape), stage.spec.input.dtype)
    traced = tf.function(lambda batch: stage.model(batch, training=False), input_signature=[spec])

    def run(batch: Array) -> Mapping[str, Array]:
        outputs = traced(tf.convert_to_tensor(batch))
        return stage.spec.completed(batch, {name: np.array(output) for name, output in outputs.items()})

    return run
