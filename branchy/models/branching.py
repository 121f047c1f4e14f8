"""The contract of an architecture: a functional Keras model and where it is cut and left.

An architecture is a function `build(input_shape, classes) -> BranchyModel`. It gets samples as
float32 in 0..1; branchy puts the scaling from the data set's declared range before it, so that
uint8 pixels go in.

Example:
    >>> def build(input_shape, classes):
    ...     sample = keras.Input(input_shape)
    ...     x = keras.layers.Conv2D(8, 3, activation="relu")(sample)
    ...     near = keras.layers.Dense(classes)(keras.layers.Flatten()(x))
    ...     y = keras.layers.Conv2D(16, 3, activation="relu")(x)
    ...     far = keras.layers.Dense(classes)(keras.layers.Flatten()(y))
    ...     model = keras.Model(sample, [near, far])
    ...     return BranchyModel(model, (Stage("edge", x, near), Stage("cloud", None, far)))
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from branchy.core.cascade import FULL
from branchy.errors import ArchitectureError
from branchy.models.backend import keras

Tensor = Any
"""A symbolic Keras tensor (keras.KerasTensor), or None."""

_NAME = re.compile(r"[a-z][a-z0-9-]{0,30}")
RESERVED = (FULL, "model", "device")
"""Names that files and topics have for something else."""


@dataclass(frozen=True)
class Stage:
    """One contiguous segment of a model.

    Attributes:
        name: of the stage, and of the tier that starts with it.
        cut: (batch, ...) float32, what goes on to the next stage; None for the last.
        logits: (batch, classes) float32 of the exit, before any softmax; None for a stage without
            an exit, which the last cannot be.
    """

    name: str
    cut: Tensor
    logits: Tensor


@dataclass(frozen=True)
class BranchyModel:
    """A functional Keras model of one input, with its stages from the device to the cloud.

    Attributes:
        model: has the last stage's logits among its outputs.
        stages: in order.
        scaled: whether it takes samples scaled to 0..1; else in the data set's declared range, as float32.
        pretrained: whether it came with trained weights, so that it classifies before any training.
    """

    model: Any
    stages: Sequence[Stage]
    scaled: bool = True
    pretrained: bool = False


Build = Callable[[tuple[int, ...], int], BranchyModel]


def build(architecture: Build, input_shape: tuple[int, ...], classes: int, tiers: Sequence[str] | None) -> BranchyModel:
    """Call an architecture function and check what it returns.

    Args:
        architecture: the function.
        input_shape: (height, width, channels).
        classes: number of classes.
        tiers: the stages' names; None leaves the architecture's own.

    Returns:
        The model with its stages named.

    Raises:
        ArchitectureError: it failed, or what it returned is not what the contract says.
    """
    built = called(architecture, input_shape, classes)
    if not isinstance(built, BranchyModel):
        raise ArchitectureError(f"the architecture function must return a BranchyModel, got {type(built).__name__}")
    built = _named(built, tiers)
    _check_model(built.model, input_shape)
    _check_stages(built, classes)
    return built


def called(architecture: Callable[..., Any], input_shape: tuple[int, ...], classes: int) -> Any:
    """What an architecture function returns; raises `ArchitectureError` where it fails."""
    try:
        return architecture(input_shape, classes)
    except Exception as error:
        if isinstance(error, ArchitectureError):
            raise
        raise ArchitectureError(f"the architecture function failed: {type(error).__name__}: {_line(error)}") from error


def check_size(name: str, input_shape: tuple[int, ...], least: int) -> None:
    """Raise `ArchitectureError` where samples are smaller than an architecture of that name can take."""
    if min(input_shape[:2]) < least:
        raise ArchitectureError(f"{name} needs samples of at least {least} x {least}, got {input_shape}")


def check_names(names: Sequence[str]) -> None:
    """Raise `ArchitectureError` unless these can name stages: in files and in topics."""
    for name in names:
        if not isinstance(name, str) or not _NAME.fullmatch(name) or name in RESERVED:
            raise ArchitectureError(
                f"a stage's name must be lower-case letters, digits and '-', at most 31, and none of "
                f"{', '.join(RESERVED)}; got {name!r}"
            )
    if len(set(names)) != len(names):
        raise ArchitectureError(f"stages must have different names, got {', '.join(names)}")


def _named(built: BranchyModel, tiers: Sequence[str] | None) -> BranchyModel:
    if not isinstance(built.stages, (list, tuple)) or not all(isinstance(s, Stage) for s in built.stages):
        raise ArchitectureError("BranchyModel.stages must be a list or tuple of Stage")
    stages = tuple(built.stages)
    if not stages:
        raise ArchitectureError("a BranchyModel needs at least one stage, got none")
    if tiers is not None:
        if len(tiers) != len(stages):
            raise ArchitectureError(
                f"expected a name for each of the {len(stages)} stages ({', '.join(str(s.name) for s in stages)}), "
                f"got {len(tiers)} ({', '.join(tiers)})"
            )
        stages = tuple(replace(stage, name=name) for stage, name in zip(stages, tiers, strict=True))
    check_names([stage.name for stage in stages])
    return replace(built, stages=stages)


def _check_model(model: Any, input_shape: tuple[int, ...]) -> None:
    if not isinstance(model, keras.Model):
        raise ArchitectureError(f"BranchyModel.model must be a keras.Model, got {type(model).__name__}")
    inputs = getattr(model, "inputs", None)
    if not inputs or not model.outputs:
        raise ArchitectureError(
            "BranchyModel.model must be a functional keras.Model, made with keras.Model(inputs, outputs)"
        )
    if len(inputs) != 1 or tuple(inputs[0].shape[1:]) != tuple(input_shape):
        raise ArchitectureError(
            f"the model must have one input of shape {input_shape}, got {', '.join(str(i.shape[1:]) for i in inputs)}"
        )
    if inputs[0].dtype != "float32":
        raise ArchitectureError(f"the model's input must be float32 (samples come as float32), got {inputs[0].dtype}")


def _check_stages(built: BranchyModel, classes: int) -> None:
    sample = built.model.inputs[0]
    source = sample
    for i, stage in enumerate(built.stages):
        last = i == len(built.stages) - 1
        if last and (stage.cut is not None or stage.logits is None):
            raise ArchitectureError(f"the last stage ({stage.name}) must have logits and no cut")
        if not last and stage.cut is None:
            raise ArchitectureError(f"stage {stage.name} must have a cut: only the last stage has none")
        if stage.cut is not None:
            _check_cut(f"stage {stage.name}: its cut", stage.cut, source, sample)
        if stage.logits is not None:
            later = [t for s in built.stages[i + 1 :] for t in (s.cut, s.logits) if t is not None]
            _check_logits(f"stage {stage.name}: its logits", stage.logits, source, sample, later, classes)
        source = stage.cut
    if not any(output is built.stages[-1].logits for output in built.model.outputs):
        raise ArchitectureError("the last stage's logits must be among the model's outputs")


def _check_cut(what: str, cut: Tensor, source: Tensor, sample: Tensor) -> None:
    _check_path(what, cut, source, sample)
    if cut is source:
        raise ArchitectureError(f"{what} is its own input, so that the stage would compute nothing")
    if None in cut.shape[1:] or cut.dtype != "float32":
        raise ArchitectureError(f"{what} must be float32 of a known shape, got {cut.dtype} {cut.shape[1:]}")


def _check_logits(what: str, logits: Tensor, source: Tensor, sample: Tensor, later: list[Tensor], classes: int) -> None:
    _check_path(what, logits, source, sample)
    if tuple(logits.shape[1:]) != (classes,) or logits.dtype != "float32":
        raise ArchitectureError(
            f"{what} must be float32 of shape ({classes},), one for each class, got {logits.dtype} {logits.shape[1:]}"
        )
    if any(t is other for t in ancestors([logits]) for other in later):
        raise ArchitectureError(f"{what} come from a later stage")
    if activation_of(logits) in ("softmax", "sigmoid"):
        raise ArchitectureError(
            f"{what} must be unscaled, got the output of a {activation_of(logits)}; remove it, "
            "as branchy applies the softmax with the calibrated temperature"
        )


def _check_path(what: str, tensor: Tensor, source: Tensor, sample: Tensor) -> None:
    """A stage's outputs must be computed from its input, and from nothing else."""
    if not keras.backend.is_keras_tensor(tensor):
        raise ArchitectureError(f"{what} must be a tensor of the model, got {type(tensor).__name__}")
    if not any(t is source for t in ancestors([tensor])):
        before = "the model's input" if source is sample else f"the cut before it ({source.name})"
        raise ArchitectureError(f"{what} ({tensor.name}) does not come from {before}")
    for start in ancestors([tensor], stop=[source]):
        if not start._keras_history.operation._inbound_nodes[start._keras_history.node_index].input_tensors:
            raise ArchitectureError(
                f"{what} ({tensor.name}) needs {start.name} beside what reaches the stage ({source.name}); "
                "a cut must be the only way past it"
            )


def ancestors(tensors: Iterable[Tensor], stop: Sequence[Tensor] = ()) -> list[Tensor]:
    """These symbolic tensors and all they are computed from.

    Args:
        tensors: of one graph.
        stop: those not to go past.
    """
    found: dict[int, Tensor] = {}
    todo = list(tensors)
    while todo:
        tensor = todo.pop()
        if id(tensor) in found or any(tensor is s for s in stop):
            continue
        found[id(tensor)] = tensor
        history = tensor._keras_history
        todo += history.operation._inbound_nodes[history.node_index].input_tensors
    return list(found.values())


def activation_of(tensor: Tensor) -> str:
    """The activation that gave a tensor, as `relu`: a layer's own, or the layer or operation itself by its type."""
    operation = tensor._keras_history.operation
    name = getattr(getattr(operation, "activation", None), "__name__", type(operation).__name__)
    return str(name).replace("_", "").lower()


def _line(error: Exception) -> str:
    return " ".join(str(error).split())[:300]
