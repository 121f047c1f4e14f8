"""Measuring a cascade's exits as they will run: through the uplink's codec, in each format.

Activations lose precision on the wire, so temperatures, thresholds and accuracies of later
stages are fitted on what arrives there, not on what left.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from branchy.core import wire
from branchy.core.calibration import always, fit_temperature, share_thresholds
from branchy.core.cascade import Array, ExitSettings, FormatName, PolicyName, StageSpec
from branchy.core.policies import is_sure, probabilities, score
from branchy.core.reliability import Calibration
from branchy.datasets import Part
from branchy.errors import TrainingError, WireError

Run = Callable[[Array], Mapping[str, Array]]
"""A loaded stage: a batch to its outputs by name."""

BATCH = 64
FORMAT_TOLERANCE: Mapping[FormatName, float] = {
    "keras": 1e-4,
    "litert": 1e-4,
    "litert-float16": 0.03,
    "litert-int8": 0.5,
}
"""How far a format's outputs may be from Keras', as a share of the largest output.

float32 rounding gives 1e-6, float16 weights 1e-3, int8 a few hundredths: what is looked for is a converter
that makes another model of it. What int8 costs is told by its accuracy.
"""


CODES_TOLERANCE: Mapping[FormatName, float] = {
    "keras": 0.01,
    "litert": 0.01,
    "litert-float16": 0.25,
    "litert-int8": 1.0,
}
"""Share of a bottleneck's bytes that may be others than in Keras.

Half of all that int8 gives in 8 bits are (by one, mostly): what that costs is told by its accuracy too.
"""


@dataclass(frozen=True, slots=True)
class Thresholds:
    """How exits shall decide: a threshold (for all or by stage), or shares of the answers, one an exit."""

    policy: PolicyName
    given: Mapping[str, float] | float
    shares: tuple[float, ...] | None = None


@dataclass(frozen=True, slots=True)
class Calibrated:
    """The exits of some stages in one format.

    Attributes:
        exits: by stage its exit's settings.
        shares: by stage, of the tune part, what leaves there with them.
        calibration: by stage, of the tune part, before and after the temperature.
    """

    exits: dict[str, ExitSettings]
    shares: dict[str, float]
    calibration: dict[str, tuple[Calibration, Calibration]]


@dataclass(frozen=True, slots=True)
class Step:
    """What went into one stage and what came out, for a batch, on its way through the cascade."""

    stage: StageSpec
    inputs: Array
    outputs: Mapping[str, Array]
    body_bytes: int
    """Size of one sample's message body at the cut after this stage; 0 after the last."""


def walk(stages: Sequence[StageSpec], runs: Mapping[str, Run], samples: Array) -> Iterator[Step]:
    """Send a batch through every stage; where two tiers can meet, activations are encoded and decoded as on the wire.

    A stage without an exit shares a tier with the next one, so nothing is encoded between them.

    Args:
        stages: consecutive, the first one's input being the samples.
        runs: by stage.
        samples: (n, *shape) as the first stage takes them.

    Yields:
        A step a stage, in order.

    Raises:
        TrainingError: an activation cannot travel in the uplink's dtype.
    """
    inputs = samples
    for i, stage in enumerate(stages):
        outputs = runs[stage.name](inputs)
        if stage.activation is None:
            yield Step(stage, inputs, outputs, 0)
            return
        activations = outputs[stage.activation.name]
        if stage.logits is None:
            yield Step(stage, inputs, outputs, 0)
            inputs = activations
            continue
        bodies = [_encode(stage, activation) for activation in activations]
        yield Step(stage, inputs, outputs, max(len(body) for body in bodies))
        source = stages[i + 1].inputs[0].tensor
        inputs = np.stack([wire.check_tensor(wire.decode_tensors(b), source, stages[i + 1].input) for b in bodies])


def _encode(stage: StageSpec, activation: Array) -> bytes:
    name = stage.activation.name if stage.activation else ""
    try:
        return wire.encode_tensors({name: activation}, stage.uplink.dtype if stage.uplink else None)
    except WireError as error:
        dtype = stage.uplink.dtype if stage.uplink else "its own dtype"
        raise TrainingError(
            f"stage {stage.name}: its activation cannot be sent as {dtype}: {error}; "
            "try --uplink-dtype float32, or normalise before the cut"
        ) from None


def exit_logits(stages: Sequence[StageSpec], runs: Mapping[str, Run], part: Part, what: str) -> dict[str, Array]:
    """What every exit says of every sample of a part.

    Args:
        stages: as for `walk`.
        runs: by stage.
        part: n samples.
        what: is measured, for the progress bar.

    Returns:
        By stage with an exit its logits, (n, classes).

    Raises:
        TrainingError: see `walk`.
        DatasetError: a sample cannot be read.
    """
    found: dict[str, list[Array]] = {stage.name: [] for stage in stages if stage.logits is not None}
    batches = tqdm(
        part.batches(BATCH), total=-(-len(part) // BATCH), desc=f"measuring {what}", unit="batch", leave=False
    )
    for samples, _ in batches:
        for step in walk(stages, runs, samples):
            if step.stage.logits is not None:
                found[step.stage.name].append(step.outputs[step.stage.logits.name])
    return {name: np.concatenate(parts) for name, parts in found.items()}


def calibrate(
    stages: Sequence[StageSpec],
    runs: Mapping[str, Run],
    temperature: Part,
    tune: Part,
    wanted: Thresholds,
    what: str,
) -> Calibrated:
    """Fit every exit's temperature, set its threshold, and measure its accuracy.

    Temperatures (Guo et al., 2017) are fitted on one part and thresholds on another. Neither changes which class
    an exit names, so the accuracy is that on both. What temperatures are worth is measured on the other part.

    Args:
        stages: the whole cascade, or the full model alone.
        runs: by stage, all in one format.
        temperature: the part to fit temperatures on.
        tune: the part for thresholds.
        wanted: how exits shall decide.
        what: is measured, for the progress bar.

    Raises:
        TrainingError: see `walk`.
        DatasetError: a sample cannot be read.
    """
    fitting, tuning = (exit_logits(stages, runs, part, what) for part in (temperature, tune))
    exits: dict[str, ExitSettings] = {}
    for name, logits in tuning.items():
        right = (logits.argmax(axis=1) == tune.labels).sum() + (
            fitting[name].argmax(axis=1) == temperature.labels
        ).sum()
        count = len(tune) + len(temperature)
        exits[name] = ExitSettings(
            policy=wanted.policy,
            temperature=fit_temperature(fitting[name], temperature.labels),
            accuracy=float(right) / count,
            samples=count,
        )
    scores = {name: _scores(tuning[name], exits[name]) for name in exits}
    classes = next(iter(tuning.values())).shape[1]
    exits = _with_thresholds(exits, scores, wanted, classes)
    calibration = {
        name: (_calibration(tuning[name], tune.labels, 1.0), _calibration(tuning[name], tune.labels, found.temperature))
        for name, found in exits.items()
    }
    return Calibrated(exits, _shares(exits, scores), calibration)


def _calibration(logits: Array, labels: NDArray[np.int64], temperature: float) -> Calibration:
    probs = probabilities(logits, temperature)
    return Calibration.of(probs.max(axis=1), probs.argmax(axis=1) == labels)


def _scores(logits: Array, settings: ExitSettings) -> NDArray[np.float64]:
    return score(probabilities(logits, settings.temperature), settings.policy)


def _with_thresholds(
    exits: Mapping[str, ExitSettings], scores: Mapping[str, NDArray[np.float64]], wanted: Thresholds, classes: int
) -> dict[str, ExitSettings]:
    """The last exit always answers, whatever was asked for."""
    if wanted.shares is not None and len(exits) > 1:
        found = share_thresholds([scores[name] for name in exits], wanted.shares, wanted.policy, classes)
        return {name: replace(exits[name], threshold=f.threshold) for name, f in zip(exits, found, strict=True)}
    *early, last = exits
    given = {name: wanted.given[name] if isinstance(wanted.given, Mapping) else wanted.given for name in early}
    given[last] = always(wanted.policy, classes)
    return {name: replace(exits[name], threshold=given[name]) for name in exits}


def _shares(exits: Mapping[str, ExitSettings], scores: Mapping[str, NDArray[np.float64]]) -> dict[str, float]:
    staying = np.ones(len(next(iter(scores.values()))), dtype=bool)
    shares: dict[str, float] = {}
    for name, settings in exits.items():
        leaving = staying & is_sure(scores[name], settings)
        staying &= ~leaving
        shares[name] = float(leaving.mean())
    return shares


def _check_codes(stage: StageSpec, found: Array, expected: Array, fmt: FormatName) -> None:
    """Codes are rounded, so that any two formats differ in some: by a little noise, not in most of them."""
    differ = float((found != expected).mean())
    if differ > CODES_TOLERANCE[fmt]:
        raise TrainingError(
            f"stage {stage.name}: {differ:.1%} of the codes that it sends in format {fmt} are not Keras', expected at "
            f"most {CODES_TOLERANCE[fmt]:.0%}; the converter changed the model: use other layers there"
        )


def check_format(stage: StageSpec, run: Run, inputs: Array, expected: Mapping[str, Array], fmt: FormatName) -> float:
    """Hold one format of a stage against Keras.

    Args:
        stage: which.
        run: the stage in that format, loaded from its file.
        inputs: (n, *stage.input.shape) validation samples as they reach this stage.
        expected: what Keras gives for them, by name.
        fmt: the format.

    Returns:
        How far a logit is from Keras' at most; 0 for a stage without an exit.

    Raises:
        TrainingError: an output is further away than the format's `FORMAT_TOLERANCE` of the largest, or not finite.
    """
    found, logits_off = run(inputs), 0.0
    for name, want in expected.items():
        if want.dtype == np.uint8:
            _check_codes(stage, found[name], want, fmt)
            continue
        allowed = FORMAT_TOLERANCE[fmt] * max(1.0, float(np.abs(np.asarray(want, np.float64)).max()))
        off = float(np.abs(np.asarray(found[name], np.float64) - np.asarray(want, np.float64)).max())
        if not off <= allowed:
            raise TrainingError(
                f"stage {stage.name}: its {name} in format {fmt} is off by {off:.3g} from Keras, expected at most "
                f"{allowed:.3g}; the converter changed the model: use other layers there"
            )
        if stage.logits is not None and name == stage.logits.name:
            logits_off = off
    return logits_off
