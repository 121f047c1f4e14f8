"""A classifier's closing softmax or sigmoid: found, taken off, and the rest checked to be its logits.

An exit's confidence is softmax(logits / T), applied where it is decided. A softmax left in the
model would be a second one: softmax of [0.999, 0.001, 0, ...] over ten classes is 23 %.
"""

from __future__ import annotations

from typing import Any, Literal, NamedTuple

import numpy as np

from branchy.core.cascade import Array
from branchy.core.policies import probabilities
from branchy.errors import ArchitectureError
from branchy.models.backend import keras
from branchy.models.branching import Tensor, activation_of
from branchy.models.functions import one_line

Closing = Literal["softmax", "sigmoid", "none"]
TOLERANCE = 1e-5
"""How far softmax(logits) may be from the model's own output, as probabilities (float32 rounding gives 1e-7)."""


class Opened(NamedTuple):
    """Logits (batch, classes), and what the model had after them."""

    logits: Tensor
    closing: Closing


def opened(output: Tensor, classes: int, *, binary: bool) -> Opened:
    """Take off the softmax or sigmoid that a model's output ends in, if it does.

    Args:
        output: (batch, classes) probabilities or logits; or (batch, 1), a sigmoid z or its input,
            which becomes the two logits 0 and z.
        classes: how many there are.
        binary: whether one output for two classes is what the user meant.

    Raises:
        ArchitectureError: another number of outputs, a softmax before the last one, or a sigmoid for each class.
    """
    _check_width(output, classes, binary=binary)
    closing = _closing(output)
    single = output.shape[-1] == 1
    if (closing, single) in (("sigmoid", False), ("softmax", True)):
        raise ArchitectureError(
            f"the model ends in a {closing} over {output.shape[-1]} outputs; expected a softmax over the classes, or a "
            "sigmoid of one output with --label-mode binary"
        )
    logits = output if closing == "none" else _before(output)
    if _closing(logits) != "none":
        raise ArchitectureError(
            f"the model applies a {_closing(logits)} before its closing {closing}: one too many; remove one of them"
        )
    return Opened(keras.ops.pad(logits, ((0, 0), (1, 0))) if single else logits, closing)


def check(closing: Closing, logits: Array, output: Array) -> None:
    """Hold logits against the output of the model that they were taken from, for the same inputs.

    Args:
        closing: what was taken off.
        logits: (n, classes) of ours.
        output: (n, classes) or (n, 1), what the model gives as it came.

    Raises:
        ArchitectureError: they are not what the model gives, or are still probabilities.
    """
    ours, theirs = (np.asarray(values, np.float64) for values in (logits, output))
    single = theirs.shape[-1] == 1
    expected = ours if closing == "none" else probabilities(ours)
    found = expected[:, 1:] if single else expected
    off = float(np.abs(found - theirs).max())
    if not off <= TOLERANCE * max(1.0, float(np.abs(theirs).max())):
        raise ArchitectureError(
            f"without its closing {closing} the model does not give the same: its output differs by {off:.2g}; "
            "give an architecture function whose model ends in logits"
        )
    if not single and bool((ours >= 0).all()) and np.allclose(ours.sum(axis=-1), 1.0, atol=1e-4):
        raise ArchitectureError(
            "the model's outputs sum to 1: probabilities, made by something else than a softmax that branchy knows "
            "(a layer of your own, a Lambda, or a softmax before the last layer); let it end in logits"
        )


def _check_width(output: Tensor, classes: int, *, binary: bool) -> None:
    shape = tuple(output.shape[1:])
    if shape == (classes,) or (shape == (1,) and classes == 2 and binary):
        return
    if shape == (1,) and classes == 2:
        raise ArchitectureError(
            "the model has one output for two classes; if it is a sigmoid, give --label-mode binary"
        )
    hint = "its last layer must be a Dense of that many outputs"
    if len(shape) > 1:
        hint = "it ends before a classifier (include_top=False); add pooling and a Dense"
    raise ArchitectureError(f"the data set has {classes} classes, and the model gives {shape} for a sample: {hint}")


def _closing(tensor: Tensor) -> Closing:
    known: dict[str, Closing] = {"softmax": "softmax", "sigmoid": "sigmoid"}
    return known.get(activation_of(tensor), "none")


def _before(output: Tensor) -> Tensor:
    """What the closing activation is applied to."""
    history = output._keras_history
    layer, (taken, *_) = history.operation, history.operation._inbound_nodes[history.node_index].input_tensors
    if not isinstance(layer, keras.Layer) or isinstance(layer, keras.layers.Activation | keras.layers.Softmax):
        return taken
    return _linear(layer, taken)


def _linear(layer: Any, taken: Tensor) -> Tensor:
    """The same layer without its activation, with the same weights: the model's own layer stays as it is."""
    try:
        plain = type(layer).from_config({**layer.get_config(), "activation": "linear"})
        output = plain(taken)
        plain.set_weights(layer.get_weights())
    except Exception as error:
        raise ArchitectureError(
            f"cannot take the activation off {layer.name}: {one_line(error)}; let the model end in logits"
        ) from error
    return output
