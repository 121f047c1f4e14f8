"""From any Keras classifier to a model with exits: preprocessing before it, cuts in it, heads on the cuts."""

from __future__ import annotations

import logging
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from branchy.core.cascade import InputSpec
from branchy.errors import ArchitectureError
from branchy.models.backend import keras
from branchy.models.branching import BranchyModel, Build, Stage, Tensor, ancestors
from branchy.models.cuts import AUTO, find_cuts
from branchy.models.functions import one_line
from branchy.models.graph import calls, inlined, is_graph, name_apart
from branchy.models.heads import INPUT, head, pool_dense
from branchy.models.logits import Closing, check, opened
from branchy.models.preprocessing import preprocessed, unit_scaled
from branchy.models.wanted import Wanted
from branchy.models.zoo import Architecture, Backbone

log = logging.getLogger(__name__)

CHECKED = 4
"""Random samples on which a model without its softmax is held against the model."""


@dataclass(frozen=True)
class Flat:
    """A Keras model as one graph, from the data set's own values to its output.

    Attributes:
        model: as it came.
        sample: (batch, height, width, channels) float32 in the data set's declared range.
        source: what the model itself takes, after the preprocessing.
        output: what it gives.
    """

    model: Any
    sample: Tensor
    source: Tensor
    output: Tensor


def adapted(architecture: Architecture, sample: InputSpec, wanted: Wanted) -> Build:
    """An architecture as one that keeps the contract: what is no BranchyModel yet gets cuts and heads.

    The function that comes back raises ArchitectureError where the model cannot be cut as wanted, has
    several inputs or outputs, gives other classes than the data has, or is not what its logits say.

    Args:
        architecture: see `branchy.models.zoo.find`.
        sample: shape, dtype and range of the data set's own values.
        wanted: cuts, heads and preprocessing.
    """

    def build(input_shape: tuple[int, ...], classes: int) -> BranchyModel:
        if wanted.label_mode == "binary" and classes != 2:
            raise ArchitectureError(f"--label-mode binary needs two classes, and the data set has {classes}")
        if wanted.freeze_backbone and architecture.random:
            raise ArchitectureError(
                f"--freeze-backbone keeps the weights that a model came with, and those of {architecture.name} are "
                "random; give a trained one"
            )
        made = architecture.build(input_shape, classes)
        if isinstance(made, BranchyModel):
            return _with_own_exits(made, wanted)
        flat = flattened(made, sample, wanted.preprocessing or architecture.preprocessing, wanted)
        logits = _classified(flat, sample, classes, wanted, features=isinstance(made, Backbone))
        built = _with_exits(flat, logits, sample, classes, wanted)
        return replace(built, pretrained=architecture.is_pretrained(made))

    return build


def flattened(made: Any, sample: InputSpec, preprocessing: str | None, wanted: Wanted) -> Flat:
    """Put a model after its preprocessing, with the models in it inlined.

    Args:
        made: a Keras model, or a Backbone.
        sample: shape, dtype and range of the data set's own values.
        preprocessing: see `preprocessing.preprocessed`; None where nothing is known.
        wanted: with `freeze_backbone` its dropout is left out.

    Raises:
        ArchitectureError: it is no Keras model of one input and one output, or takes other samples.
    """
    model = made.model if isinstance(made, Backbone) else made
    _check_kind(model)
    if preprocessing is None:
        raise ArchitectureError(
            "branchy cannot know which values this model takes: give --preprocessing none (the data set's own, "
            f"{sample.low:g}..{sample.high:g}), keras:NAME (as keras.applications.NAME) or module:function"
        )
    start = keras.Input(sample.tensor.shape)
    source = preprocessed(preprocessing, start, sample)
    _check_size(model, tuple(source.shape[1:]))
    output = inlined(model, source, as_in_use=wanted.freeze_backbone)
    name_apart(calls([output]))
    return Flat(model, start, source, output)


def tier_names(count: int) -> tuple[str, ...]:
    """What stages are called unless told: edge, fog, cloud, with more fogs or none."""
    fogs = [f"fog-{i}" for i in range(1, count - 1)] if count > 3 else ["fog"] * (count - 2)
    return (*["edge"] * (count > 1), *fogs, "cloud")


def _classified(flat: Flat, sample: InputSpec, classes: int, wanted: Wanted, *, features: bool) -> Tensor:
    """The logits of a model without its softmax, or those of a new classifier on its features."""
    if features:
        trained, logits = flat.output, pool_dense(flat.output, classes)
    else:
        logits, closing = opened(flat.output, classes, binary=wanted.label_mode == "binary")
        trained = logits
        _check_same(flat, logits, closing, sample)
    if wanted.freeze_backbone:
        _freeze(trained)
    return logits


def _with_exits(flat: Flat, logits: Tensor, sample: InputSpec, classes: int, wanted: Wanted) -> BranchyModel:
    cuts = find_cuts(flat.source, logits).chosen(wanted.cut or AUTO)
    names = tier_names(len(cuts) + 1)
    heads = wanted.heads or ("pool-dense",)
    if len(heads) not in (1, len(cuts)):
        raise ArchitectureError(f"--head: expected one for all or one for each of {len(cuts)} cuts, got {len(heads)}")
    if INPUT in heads[1:] or (heads == (INPUT,) and len(cuts) > 1):
        raise ArchitectureError(
            f"--head {INPUT} looks at the sample, which only the first stage has: give {INPUT},pool-dense"
        )
    stages = []
    for name, cut, kind in zip(names, cuts, heads * len(cuts) if len(heads) == 1 else heads, strict=False):
        looked_at = unit_scaled(flat.sample, sample) if kind == INPUT else cut.tensor
        stages.append(Stage(name, cut.tensor, _attached(kind, looked_at, classes)))
    stages.append(Stage(names[-1], None, logits))
    outputs = [stage.logits for stage in stages]
    name_apart(calls([logits, *outputs]))
    log.info("cut after %s", ", ".join(f"{cut.layer} ({cut.flops_share:.0%} of the FLOPs)" for cut in cuts))
    return BranchyModel(keras.Model(flat.sample, outputs), stages, scaled=False)


def _attached(kind: str, looked_at: Tensor, classes: int) -> Tensor:
    attach = head(kind)
    try:
        return attach(looked_at, classes)
    except Exception as error:
        if isinstance(error, ArchitectureError):
            raise
        raise ArchitectureError(f"--head {kind} failed on {looked_at.shape[1:]}: {one_line(error)}") from error


def _with_own_exits(made: BranchyModel, wanted: Wanted) -> BranchyModel:
    given = {"--cut": wanted.cut, "--head": wanted.heads, "--preprocessing": wanted.preprocessing}
    for flag, value in given.items():
        if value is not None:
            raise ArchitectureError(
                f"{flag} is for a plain Keras model; this architecture says itself where it is cut and left"
            )
    if wanted.freeze_backbone:
        _freeze(made.stages[-1].logits)
        if not made.model.trainable_weights:
            raise ArchitectureError("--freeze-backbone leaves nothing to train: no exit has weights of its own")
    return made


def _freeze(output: Tensor) -> None:
    """Keep the weights of all that a tensor comes from, batch statistics among them."""
    for tensor in ancestors([output]):
        if isinstance(tensor._keras_history.operation, keras.Layer):
            tensor._keras_history.operation.trainable = False


def _check_kind(model: Any) -> None:
    if isinstance(model, BranchyModel):
        raise ArchitectureError("the architecture says itself where it is cut: there is no cut to choose")
    if not isinstance(model, keras.Model):
        raise ArchitectureError(
            f"the architecture function must return a BranchyModel or a Keras model, got {type(model).__name__}"
        )
    if not is_graph(model):
        raise ArchitectureError(
            f"the model must be functional or Sequential, got {type(model).__name__} with a call of its own, "
            "in which no cut can be found"
        )
    unbuilt = isinstance(model, keras.Sequential) and not model.built
    if not unbuilt and (len(model.inputs) != 1 or len(model.outputs) != 1):
        raise ArchitectureError(
            f"the model must have one input and one output, got {len(model.inputs)} "
            f"({', '.join(t.name for t in model.inputs)}) and {len(model.outputs)}"
        )


def _check_size(model: Any, shape: tuple[int, ...]) -> None:
    if isinstance(model, keras.Sequential) and not model.built:
        model.build((None, *shape))
    if not _takes(model, shape):
        size = _shape(model)[:2]
        resize = f"; give --height {size[0]} --width {size[1]}" if _takes(model, (*size, shape[-1])) else ""
        raise ArchitectureError(f"the model takes samples {_shape(model)}, and gets {shape}{resize}")


def _shape(model: Any) -> tuple[int | None, ...]:
    return tuple(model.inputs[0].shape[1:])


def _takes(model: Any, shape: tuple[int | None, ...]) -> bool:
    wants = _shape(model)
    return len(wants) == len(shape) and all(w in (None, s) for w, s in zip(wants, shape, strict=True))


def _check_same(flat: Flat, logits: Tensor, closing: Closing, sample: InputSpec) -> None:
    """The inlined model without its softmax must be the model as it came."""
    rng = np.random.default_rng(0)
    samples = rng.uniform(sample.low, sample.high, (CHECKED, *sample.tensor.shape)).astype(np.float32)
    taken, ours = (np.asarray(keras.Model(flat.sample, t)(samples)) for t in (flat.source, logits))
    theirs = keras.Model(flat.model.inputs[0], flat.model.outputs[0])(taken)
    check(closing, ours, np.asarray(theirs))
