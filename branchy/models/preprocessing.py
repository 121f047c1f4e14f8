"""What goes in front of a Keras model that has its own idea of a sample's range.

It is part of the first stage's graph, so that the data set's own values (uint8 pixels) go in
when the model is served.
"""

from __future__ import annotations

from collections.abc import Callable
from types import ModuleType
from typing import Any

from branchy.core.cascade import InputSpec
from branchy.errors import ArchitectureError
from branchy.models import functions
from branchy.models.backend import keras
from branchy.models.branching import Tensor

NONE = "none"
KERAS = "keras:"


def preprocessed(name: str, sample: Tensor, spec: InputSpec) -> Tensor:
    """A sample as a model takes it.

    Args:
        name: `none` for the data set's values as they are; `keras:NAME` for the `preprocess_input` of
            that model in `keras.applications`; or `path/to/file.py:function` or `module:function`,
            called with `sample`.
        sample: (batch, height, width, channels) float32, symbolic, in the data set's declared range.
        spec: that range.

    Raises:
        ArchitectureError: there is no such model or function, or it failed.
    """
    if name == NONE:
        return sample
    if name.startswith(KERAS):
        function = application_module(name.removeprefix(KERAS)).preprocess_input
        sample = _rescaled(sample, spec, 255.0)  # which is what every preprocess_input expects
    else:
        function = functions.load(name)
    try:
        found = function(sample)
    except Exception as error:
        raise ArchitectureError(
            f"--preprocessing {name} failed on a symbolic float32 {sample.shape[1:]}: {functions.one_line(error)}"
        ) from error
    if not keras.backend.is_keras_tensor(found):
        raise ArchitectureError(
            f"--preprocessing {name} must turn one symbolic Keras tensor into another (use keras.ops), "
            f"got {type(found).__name__}"
        )
    return found


def unit_scaled(sample: Tensor, spec: InputSpec) -> Tensor:
    """A sample scaled to 0..1.

    Args:
        sample: (batch, height, width, channels) float32, symbolic, in the declared range.
        spec: that range.

    Returns:
        The same shape, float32, symbolic.
    """
    return _rescaled(sample, spec, 1.0)


def application_model(name: str) -> Callable[..., Any]:
    """The function of `keras.applications` that builds the model of this name, such as MobileNetV2.

    Raises:
        ArchitectureError: there is none.
    """
    model: Any = vars(keras.applications).get(name)
    if not callable(model):
        raise ArchitectureError(f"keras.applications has no model '{name}'; expected a name such as MobileNetV2")
    made: Callable[..., Any] = model
    return made


def application_module(name: str) -> ModuleType:
    """The module of `keras.applications` with the `preprocess_input` of the model of this name.

    It is the one that has the model; else the one of the longest name that the model's begins with, as
    `mobilenet_v3` is without its models.

    Raises:
        ArchitectureError: there is no such model, or none of the modules is its own.
    """
    application_model(name)
    found = {
        module_name.replace("_", ""): module
        for module_name, module in vars(keras.applications).items()
        if isinstance(module, ModuleType) and hasattr(module, "preprocess_input")
    }
    having = [module for module in found.values() if name in vars(module)]
    named = sorted((each for each in found if name.lower().startswith(each)), key=len)
    if not having and not named:
        raise ArchitectureError(f"keras.applications has no preprocessing for {name}; give one by --preprocessing")
    return having[0] if having else found[named[-1]]


def _rescaled(sample: Tensor, spec: InputSpec, high: float) -> Tensor:
    """From the declared range to 0..high."""
    if (spec.low, spec.high) == (0.0, high):
        return sample
    scale = high / (spec.high - spec.low)
    return keras.layers.Rescaling(scale, offset=-spec.low * scale)(sample)
