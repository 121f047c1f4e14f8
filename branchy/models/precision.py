"""Mixed precision: layers compute in float16, weights and logits stay float32 (Micikevicius et al., 2018)."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

from branchy.models.backend import keras, tf

MIXED = "mixed_float16"


def worthwhile() -> bool:
    """Whether a GPU is here that computes faster in float16 (compute capability 7.0 or above)."""
    for device in gpus():
        capability = tf.config.experimental.get_device_details(device).get("compute_capability")
        if capability is not None and tuple(capability) >= (7, 0):
            return True
    return False


def gpus() -> list[Any]:
    """The GPUs that TensorFlow sees."""
    return list(tf.config.list_physical_devices("GPU"))


@contextlib.contextmanager
def mixed(model: Any) -> Iterator[None]:
    """While the block runs, have a model's layers compute in float16.

    What comes before the first weights (the scaling) and the layers that give the model's outputs
    (the logits) stay float32. Weights are float32 all along, and afterwards every layer is as it was.

    Args:
        model: functional; models in it are looked into.
    """
    changed = _changeable(model)
    before = [layer.dtype_policy for layer in changed]
    for layer in changed:
        layer.dtype_policy = keras.dtype_policies.DTypePolicy(MIXED)
    try:
        yield
    finally:
        for layer, policy in zip(changed, before, strict=True):
            layer.dtype_policy = policy


def _changeable(model: Any) -> list[Any]:
    """The layers between scaling and logits that compute in float32 now."""
    layers = [layer for layer in model._flatten_layers(include_self=False) if not isinstance(layer, keras.Model)]
    first = next((i for i, layer in enumerate(layers) if layer.variables), len(layers))
    last = {id(layer) for layer in _output_layers(model)}
    return [layer for layer in layers[first:] if id(layer) not in last and layer.dtype_policy.name == "float32"]


def _output_layers(model: Any) -> Iterator[Any]:
    """The layers that a model's outputs come from, those of the models in it among them."""
    for tensor in model.outputs:
        operation = tensor._keras_history.operation
        if isinstance(operation, keras.Model):
            yield from _output_layers(operation)
        else:
            yield operation
