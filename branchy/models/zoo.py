"""What `--arch` means: an architecture of the zoo, the user's own file, a saved model, or one of keras.applications."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from branchy.errors import ArchitectureError
from branchy.models import functions
from branchy.models.b_alexnet import b_alexnet
from branchy.models.b_lenet import b_lenet
from branchy.models.b_lenet_paper import b_lenet_paper
from branchy.models.b_resnet import b_resnet, of_depth
from branchy.models.backend import keras
from branchy.models.branching import Build
from branchy.models.branchy_mobilenet import branchy_mobilenet
from branchy.models.branchy_vgg16 import branchy_vgg16
from branchy.models.preprocessing import KERAS, application_model

ZOO: dict[str, Build] = {
    "b-lenet": b_lenet,
    "b-lenet-paper": b_lenet_paper,
    "b-alexnet": b_alexnet,
    "b-resnet": b_resnet,
    "branchy-vgg16": branchy_vgg16,
    "branchy-mobilenet": branchy_mobilenet,
}
_OF_DEPTH = "b-resnet:"


@dataclass(frozen=True)
class Backbone:
    """A Keras model that ends in features; branchy adds the classifier."""

    model: Any


@dataclass(frozen=True)
class Architecture:
    """A function that builds a model, and what is known of it.

    Attributes:
        name: as the user gave it.
        build: called with (height, width, channels) and the number of classes; gives a BranchyModel, a
            Keras model or a Backbone.
        preprocessing: what a Keras model needs in front, where that is known.
        random: whether its weights are known to be random.
    """

    name: str
    build: Callable[[tuple[int, ...], int], Any]
    preprocessing: str | None = None
    random: bool = False

    def is_pretrained(self, made: Any) -> bool:
        """Whether what it built may classify as it came."""
        return not self.random and not isinstance(made, Backbone)


def find(name: str) -> Architecture:
    """The architecture that `--arch` names.

    Args:
        name: a name of the zoo, `b-resnet:DEPTH` among them; `path/to/file.py:function`; `path/to/model.keras`; or
            `keras:NAME[:WEIGHTS]`, a model of `keras.applications` with random weights, or with those of a
            file, for these classes or without its top.

    Raises:
        ArchitectureError: there is no such name, file or function, or the file cannot be run.
    """
    if name in ZOO:
        return Architecture(name, ZOO[name], random=True)
    if name.startswith(_OF_DEPTH):
        return Architecture(name, of_depth(name.removeprefix(_OF_DEPTH)), random=True)
    if name.startswith(KERAS):
        return _application(name)
    if name.endswith(".keras"):
        return Architecture(name, lambda input_shape, classes: _saved(Path(name)))
    if not name.rpartition(":")[0].endswith(".py"):
        raise ArchitectureError(
            f"no architecture '{name}': expected one of {', '.join(ZOO)}, b-resnet:DEPTH, or path/to/file.py:function, "
            "path/to/model.keras or keras:NAME for your own"
        )
    return Architecture(name, functions.load(name))


def _saved(path: Path) -> Any:
    """A model from its file; nothing in the file is run."""
    if not path.is_file():
        raise ArchitectureError(f"no file {path}; expected a model that Keras has saved")
    try:
        return keras.saving.load_model(path, compile=False, safe_mode=True)
    except Exception as error:
        holds = "a Lambda layer, which is code" if "Lambda" in str(error) else "something that it does not know"
        raise ArchitectureError(
            f"Keras cannot load {path}, which holds {holds} ({functions.one_line(error)[:160]}); code is not run from "
            "a file: give --arch path/to/file.py:function, a function that makes these layers and loads the weights"
        ) from error


def _application(name: str) -> Architecture:
    model_name, _, weights = name.removeprefix(KERAS).partition(":")
    make = application_model(model_name)
    if weights and not Path(weights).is_file():
        raise ArchitectureError(f"no file {weights}; expected weights of keras.applications.{model_name}")

    def build(input_shape: tuple[int, ...], classes: int) -> Any:
        if not weights:
            return make(input_shape=input_shape, classes=classes, weights=None)
        return _weighted(make, input_shape, classes, weights)

    return Architecture(name, build, preprocessing=KERAS + model_name, random=not weights)


def _weighted(make: Callable[..., Any], input_shape: tuple[int, ...], classes: int, weights: str) -> Any:
    """With weights that fit these classes; or else as features, with weights without a top."""
    try:
        return make(input_shape=input_shape, classes=classes, weights=weights)
    except (ValueError, OSError) as with_top:
        try:
            return Backbone(make(input_shape=input_shape, include_top=False, weights=weights))
        except (ValueError, OSError):
            raise ArchitectureError(
                f"{weights} fits neither the model for {classes} classes nor the model without its top: "
                f"{functions.one_line(with_top)[:200]}"
            ) from with_top
