"""A tier's part of a bundle, in one format: its engines, held against the golden inputs, and its decisions' data."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from branchy.core.cascade import CascadeSpec, FormatName, PolicyName, StageSpec, override_exits
from branchy.core.certificate import runs_as_certified
from branchy.core.tier_model import TierModel
from branchy.engines import open_engine
from branchy.engines.base import Engine
from branchy.errors import EngineError, MissingExtraError
from branchy.store.bundle import Bundle

GOLDEN_TOLERANCE = 1e-3
"""How far logits may be from those of training, as a share of them and beyond it; float32 on other machines."""


@dataclass(frozen=True)
class Loaded:
    """A tier's part of a bundle, ready to run: its decisions' data, its engines, and the whole cascade."""

    spec: CascadeSpec
    model: TierModel
    engines: Mapping[tuple[str, str], Engine]

    def close(self) -> None:
        """Free the engines; may be called twice."""
        for engine in self.engines.values():
            engine.close()


def load_tier(
    bundle: Bundle,
    names: tuple[str, ...],
    fmt: FormatName = "litert",
    threads: int = 1,
    policy: PolicyName | None = None,
    thresholds: Mapping[str, float] | float | None = None,
) -> Loaded:
    """Open the engines of a tier's stages and hold each against the bundle's golden inputs.

    Raises:
        UsageError: a stage that the bundle has not, stages that are not consecutive, or a threshold
            outside its policy's range.
        BundleError: a stage is not exported in that format.
        EngineError: an engine cannot be opened, or gives other logits than it gave at training.
        MissingExtraError: a stage is a Keras file, and TensorFlow is not installed.
    """
    spec = override_exits(bundle.spec, fmt, policy=policy, thresholds=thresholds)
    stages = spec.tier(names)
    exits = {s.name: settings for s in stages if (settings := s.exit_settings(fmt)) is not None}
    engines: dict[tuple[str, str], Engine] = {}
    try:
        for stage in stages:
            engines[bundle.digest, stage.name] = opened = _open(bundle, stage, fmt, threads)
            if stage.logits is not None:
                _check_golden(opened, bundle, stage, fmt)
    except BaseException:
        for opened in engines.values():
            opened.close()
        raise
    certified = runs_as_certified(bundle.manifest.certificate, bundle.spec, stages, fmt, exits)
    behind = any(stage.successors == (stages[0].name,) for stage in spec.stages)
    return Loaded(spec, TierModel(bundle.digest, spec.labels, stages, exits, certified, behind), engines)


def _open(bundle: Bundle, stage: StageSpec, fmt: FormatName, threads: int) -> Engine:
    path, engine = bundle.file(stage, fmt), stage.files[fmt].engine
    try:
        return open_engine(stage, path, engine, threads)
    except MissingExtraError:
        raise MissingExtraError(f"stage {stage.name} in format {fmt}, which is a Keras file,", "train") from None


def _check_golden(engine: Engine, bundle: Bundle, stage: StageSpec, fmt: FormatName) -> None:
    """Twice as far from Keras as at training is allowed to a format that is not Keras' own to the last bit."""
    inputs, expected = bundle.golden(stage.name)
    logits = engine.run(inputs)[stage.logits.name if stage.logits else ""]
    allowed = GOLDEN_TOLERANCE + 2 * stage.files[fmt].logits_off
    if not np.allclose(logits, expected, rtol=GOLDEN_TOLERANCE, atol=allowed):
        off = float(np.max(np.abs(np.asarray(logits, np.float64) - np.asarray(expected, np.float64))))
        raise EngineError(
            f"stage {stage.name}: its golden inputs give logits that are off by {off:.3g} on this machine in format "
            f"{fmt}; expected those of training; export the bundle again or use another format"
        )
