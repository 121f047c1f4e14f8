"""A trained network's stages as files of a format, opened as they will run."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from branchy.core.cascade import FULL, Array, FormatName, StageSpec
from branchy.datasets import Part
from branchy.engines import open_engine
from branchy.errors import ConversionError
from branchy.runner.calibration import Run, walk

if TYPE_CHECKING:
    from branchy.models.export import Numbers
    from branchy.models.splitting import Network, StageModel

log = logging.getLogger(__name__)

FORMS: Mapping[FormatName, tuple[FormatName, ...]] = {
    "litert": ("litert", "keras"),
    "litert-float16": ("litert-float16", "litert", "keras"),
    "litert-int8": ("litert-int8", "litert", "keras"),
    "keras": ("keras",),
}
"""What a stage is in each format: the first of these that it can be had in."""

SEEN_SAMPLES = 200
"""Training samples by which the ranges of int8's activations are found, unless one activation of them all takes more
than SEEN_BYTES; never fewer than LEAST_SEEN."""
SEEN_BYTES = 256 * 1024 * 1024
LEAST_SEEN = 16


@dataclass(frozen=True)
class Exported:
    """A network in one format: by stage the file's name in the bundle, and what runs it."""

    files: dict[str, str]
    runs: dict[str, Run]


class Exporter:
    """Writes a network's stages in one format after the other; what one has written the next need not."""

    def __init__(self, network: Network, train: Part, folder: Path, stack: ExitStack) -> None:
        """Take the samples for int8; engines are closed by the stack."""
        self._network, self._folder, self._stack = network, folder, stack
        self._models: dict[str, StageModel] = {s.spec.name: s for s in (*network.stages, network.full)}
        self._samples = _seen(network, train)
        self._refused: set[tuple[str, FormatName]] = set()

    def export(self, fmt: FormatName) -> Exported:
        """Write every stage, and the full model, in a format, or in the nearest form that it can be had in.

        For int8 each stage is converted when the samples arrive there: behind the stages before it, in
        int8, and through the uplinks' codecs, as they will where it runs (quantisation of weights and
        activations: Jacob et al., 2018).

        Args:
            fmt: the format.

        Returns:
            For every stage, and for `full`, its file, already written, and what runs that: from a batch
            (n, *input) to outputs by name, (n, ...).

        Raises:
            ConversionError: LiteRT cannot express a stage, and Keras could not load it.
            OSError: the disk is full or the like.
        """
        made = Exported({}, {})
        if fmt == "litert-int8":
            for chain in (self._network.stages, (self._network.full,)):
                specs = [stage.spec for stage in chain]
                for _ in walk(specs, {s.name: partial(self._make, made, s, fmt) for s in specs}, self._samples):
                    pass
        else:
            for name, model in self._models.items():
                made.files[name], made.runs[name] = self._stage(model.spec, fmt, None)
        return made

    def _make(self, made: Exported, stage: StageSpec, fmt: FormatName, seen: Array) -> Mapping[str, Array]:
        made.files[stage.name], run = self._stage(stage, fmt, seen)
        made.runs[stage.name] = run
        return run(seen)

    def _stage(self, stage: StageSpec, fmt: FormatName, seen: Array | None) -> tuple[str, Run]:
        from branchy.models.splitting import runner

        form = self._write(stage, fmt, seen)
        path = self._folder / file_name(stage.name, form)
        if form == "keras":
            return path.name, runner(self._models[stage.name])
        engine = open_engine(stage, path, "litert")
        self._stack.callback(engine.close)
        return path.name, engine.run

    def _write(self, stage: StageSpec, fmt: FormatName, seen: Array | None) -> FormatName:
        """The form in which a stage was written for a format."""
        from branchy.models import export

        model = self._models[stage.name].model
        for form, instead in pairwise((*FORMS[fmt], "keras")):
            path = self._folder / file_name(stage.name, form)
            if form == "keras" and not path.exists():
                export.write_keras(model, path)
            if path.exists():
                return form
            if (stage.name, form) in self._refused:
                continue
            try:
                export.write_litert(model, stage.input, path, _NUMBERS[form], seen)
                return form
            except ConversionError as error:
                if stage.custom_objects and instead == "keras":
                    raise  # whose file Keras could not load
                self._refused.add((stage.name, form))
                log.warning("%s; in format %s it runs as %s", error, form, instead)
        raise AssertionError("every format ends in Keras")


_NUMBERS: Mapping[FormatName, Numbers] = {"litert": "float32", "litert-float16": "float16", "litert-int8": "int8"}


def file_name(stage: str, form: FormatName) -> str:
    """A stage's file in a bundle."""
    name = "model" if stage == FULL else stage
    return f"{name}.keras" if form == "keras" else f"{name}{form.removeprefix('litert')}.tflite"


def _seen(network: Network, train: Part) -> Array:
    """Training samples, drawn by the same rule each time: (n, *shape) of the data set's dtype."""
    largest = max((s.spec.activation.size_bytes for s in network.stages if s.spec.activation), default=1)
    count = min(len(train), SEEN_SAMPLES, max(LEAST_SEEN, SEEN_BYTES // largest))
    samples, _ = train.read(np.sort(np.random.default_rng(0).permutation(len(train))[:count]))
    return samples
