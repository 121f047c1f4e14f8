"""A cascade as data: stages, exits, tensors and what each cut sends up.

These frozen records are what a bundle's manifest holds (`branchy.store` reads and
writes them as JSON) and what every tier decides by. Stages form a graph with named
tensors; today each stage has one input and at most one successor.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray

from branchy.errors import BundleError, UsageError

Array = NDArray[np.generic]
DType = Literal["float32", "float16", "uint8"]
PolicyName = Literal["max_prob", "margin", "entropy"]
UplinkKind = Literal["activation", "bottleneck", "sample"]
FormatName = Literal["keras", "litert", "litert-float16", "litert-int8"]

FULL = "full"
"""Name of the whole model as a stage of its own, and so of a tier that runs only it."""


@dataclass(frozen=True, slots=True)
class TensorSpec:
    """A named tensor: shape without the batch axis, dtype by NumPy's name."""

    name: str
    shape: tuple[int, ...]
    dtype: DType = "float32"

    @property
    def values(self) -> int:
        """Number of values in one sample of this tensor."""
        return math.prod(self.shape)

    @property
    def size_bytes(self) -> int:
        """Bytes of one sample of this tensor, uncompressed."""
        return self.values * np.dtype(self.dtype).itemsize


@dataclass(frozen=True, slots=True)
class InputSpec:
    """What a device sends and how it makes it from an image file.

    `low` and `high` are the data set's declared range; scaling to it happens in the
    graph and nowhere else. The resize words are recorded because two libraries'
    bilinear resize differ by several grey levels.
    """

    tensor: TensorSpec
    low: float
    high: float
    channel_order: Literal["L", "RGB"] = "RGB"
    resize: Literal["bilinear"] = "bilinear"
    antialias: bool = True
    exif_transpose: bool = True


@dataclass(frozen=True, slots=True)
class Source:
    """Where a stage's input comes from: a tensor of another stage, or the sample (stage None)."""

    stage: str | None
    tensor: str


@dataclass(frozen=True, slots=True)
class Uplink:
    """What a stage sends up at its cut and the dtype it travels in.

    An activation's `uint8` is affine: value = offset + scale * q, scale and offset found per message. A
    `sample` travels as it came, in its own dtype; a `bottleneck`'s codes as the bytes that they are packed into.
    """

    kind: UplinkKind = "activation"
    dtype: DType = "float32"


@dataclass(frozen=True, slots=True)
class ExitSettings:
    """How one exit decides, for one stage in one format.

    Attributes:
        policy: `max_prob` and `margin` leave at >= threshold, `entropy` at <= threshold (nats).
        threshold: in [0, 1]; for `entropy` in [0, ln classes].
        temperature: T > 0 of softmax(logits / T) (Guo et al., 2017).
        accuracy: top-1 share on held-out samples, None where not measured.
        samples: how many samples `accuracy` was measured on.
    """

    policy: PolicyName = "max_prob"
    threshold: float = 0.8
    temperature: float = 1.0
    accuracy: float | None = None
    samples: int = 0

    @property
    def rule(self) -> str:
        """When a sample leaves, for people: `max_prob >= 0.8`."""
        return f"{self.policy} {'<=' if self.policy == 'entropy' else '>='} {self.threshold:.4g}"

    def check(self, classes: int) -> None:
        """Raise `UsageError` when the threshold or temperature is outside the policy's range."""
        high = math.log(classes) if self.policy == "entropy" else 1.0
        if not (0.0 <= self.threshold <= high):
            raise UsageError(
                f"threshold for policy {self.policy} must be in 0..{high:.4g}"
                f"{' (ln of the number of classes)' if self.policy == 'entropy' else ''}, got {self.threshold:g}"
            )
        if not (math.isfinite(self.temperature) and self.temperature > 0):
            raise UsageError(f"temperature must be finite and above 0, got {self.temperature:g}")


@dataclass(frozen=True, slots=True)
class StageFile:
    """One format of a stage on disk.

    A stage that cannot be had in a format stands in it with the nearest form that it has, so that what
    follows is measured behind what will run: its path is then that of another format.

    Attributes:
        path: inside the bundle.
        sha256: of the file.
        size_bytes: of the file.
        exit: its exit's settings, fitted behind the stages before it in the same format.
        compute_ms: median for one sample where it was trained; None where not measured.
        logits_off: how far its logits were at most from Keras', for the same inputs.
    """

    path: str
    sha256: str
    size_bytes: int
    exit: ExitSettings | None
    compute_ms: float | None = None
    logits_off: float = 0.0

    @property
    def engine(self) -> Literal["keras", "litert"]:
        """What runs the file."""
        return "keras" if self.path.endswith(".keras") else "litert"


@dataclass(frozen=True, slots=True)
class StageSpec:
    """A contiguous segment of the network.

    Attributes:
        inputs: where the input tensors come from (exactly one today).
        input: spec of that tensor as this stage's graph names and types it.
        activation: what goes to the successor, None for the last stage. The stage's graph makes it, or, with
            the uplink `sample`, it is the sample that the stage took.
        logits: the exit's output (unscaled), None for a stage without an exit.
        successors: stages that take `activation` (at most one today).
        uplink: what is sent at the cut, None for the last stage.
        files: the formats this stage exists in.
        flops: floating point operations for one sample, exit included.
    """

    name: str
    inputs: tuple[Source, ...]
    input: TensorSpec
    activation: TensorSpec | None
    logits: TensorSpec | None
    successors: tuple[str, ...]
    uplink: Uplink | None
    parameters: int
    flops: int
    files: Mapping[FormatName, StageFile] = field(default_factory=dict)
    custom_objects: bool = False

    @property
    def outputs(self) -> tuple[TensorSpec, ...]:
        """What its graph gives: its activation and its logits, where it has them; never the sample."""
        return tuple(t for t in (None if self._hands_on else self.activation, self.logits) if t is not None)

    def completed(self, inputs: Array, outputs: Mapping[str, Array]) -> Mapping[str, Array]:
        """What its graph gave for a batch, and with it what goes to the successor where that is the batch itself.

        Args:
            inputs: (n, *input.shape), what went in.
            outputs: by name, each (n, *shape).
        """
        if not self._hands_on or self.activation is None:
            return outputs
        return {**outputs, self.activation.name: inputs}

    @property
    def _hands_on(self) -> bool:
        return self.uplink is not None and self.uplink.kind == "sample"

    def exit_settings(self, fmt: FormatName) -> ExitSettings | None:
        """Settings of this stage's exit in one format; raises `BundleError` when it is not exported."""
        if fmt not in self.files:
            raise BundleError(f"stage {self.name} has no format {fmt}; it has {', '.join(self.files) or 'none'}")
        return self.files[fmt].exit


@dataclass(frozen=True, slots=True)
class CascadeSpec:
    """The whole cascade: its name, labels, input, stages in order, and the full model as one stage."""

    name: str
    labels: tuple[str, ...]
    input: InputSpec
    stages: tuple[StageSpec, ...]
    full: StageSpec

    def __post_init__(self) -> None:
        """Check the graph: a chain of named stages, each with one input and at most one successor."""
        names = [s.name for s in self.stages]
        if not names or len(set(names)) != len(names) or FULL in names:
            raise BundleError(f"stage names must be unique, at least one, and not '{FULL}'; got {names}")
        for i, stage in enumerate(self.stages):
            if len(stage.inputs) != 1 or len(stage.successors) > 1:
                raise BundleError(
                    f"stage {stage.name}: one input and at most one successor are supported today, "
                    f"got {len(stage.inputs)} and {len(stage.successors)}"
                )
            want = (names[i + 1],) if i + 1 < len(names) else ()
            if stage.successors != want:
                raise BundleError(f"stage {stage.name}: expected successors {want}, got {stage.successors}")
        if self.stages[-1].logits is None:
            raise BundleError(f"the last stage {names[-1]} must have an exit")
        for a, b in itertools.pairwise(self.stages):
            _check_sample(a, b)

    def stage(self, name: str) -> StageSpec:
        """The stage of that name (or the full model); raises `UsageError` naming those there are."""
        if name == FULL:
            return self.full
        for stage in self.stages:
            if stage.name == name:
                return stage
        raise UsageError(f"no stage '{name}' in this bundle; it has {', '.join(s.name for s in self.stages)}, {FULL}")

    def tier(self, names: tuple[str, ...]) -> tuple[StageSpec, ...]:
        """The stages a tier runs; raises `UsageError` unless they are consecutive and end in an exit."""
        stages = tuple(self.stage(n) for n in names)
        if not stages:
            raise UsageError("a tier needs at least one stage")
        for a, b in itertools.pairwise(stages):
            if a.successors != (b.name,):
                raise UsageError(f"a tier's stages must be consecutive; {b.name} does not follow {a.name}")
        if stages[-1].logits is None:
            raise UsageError(f"a tier must end in a stage with an exit; {stages[-1].name} has none")
        return stages


def _check_sample(stage: StageSpec, successor: StageSpec) -> None:
    """A stage whose uplink is the sample must have it, and its successor must take it; no other stage may."""
    sends = stage.uplink is not None and stage.uplink.kind == "sample"
    if sends and (stage.inputs[0].stage is not None or stage.activation != stage.input):
        raise BundleError(f"stage {stage.name} sends the sample up, so expected that it takes it, and as it came")
    if sends != (successor.inputs[0].stage is None):
        what = "the sample" if sends else f"what {stage.name} makes of it, not the sample"
        raise BundleError(f"stage {successor.name}: expected that it takes {what}, which {stage.name} sends up")


def parse_formats(text: str) -> tuple[FormatName, ...]:
    """Formats as a person gives them, with commas between; raises `UsageError` for others, or one twice."""
    known = {name: name for name in get_args(FormatName)}
    names = [part.strip() for part in text.split(",")]
    if not set(names) <= set(known) or len(set(names)) < len(names):
        raise UsageError(f"--formats: expected some of {', '.join(known)}, each once, got {text!r}")
    return tuple(known[name] for name in names)


def parse_thresholds(values: Sequence[str]) -> Mapping[str, float] | float | None:
    """Thresholds as a person gives them: one number for every exit, or `STAGE=NUMBER` for each.

    Args:
        values: what followed each `--threshold`; one may hold several, with commas between.

    Returns:
        None when there are none.

    Raises:
        UsageError: neither form, both mixed, or a stage twice.
    """
    parts = [part.strip() for value in values for part in value.split(",")]
    if not parts:
        return None
    by_stage: dict[str, float] = {}
    for part in parts:
        stage, equals, text = part.rpartition("=")
        try:
            number = float(text)
        except ValueError:
            number = math.nan
        if math.isnan(number) or bool(equals) != bool(stage) or (len(parts) > 1 and not stage) or stage in by_stage:
            raise UsageError(f"threshold: expected one number, or STAGE=NUMBER once a stage, got {', '.join(values)}")
        by_stage[stage] = number
    return by_stage.get("", by_stage)


def override_exits(
    spec: CascadeSpec,
    fmt: FormatName | None,
    *,
    policy: PolicyName | None,
    thresholds: Mapping[str, float] | float | None,
) -> CascadeSpec:
    """The cascade with other policies and thresholds; temperatures and accuracies stay.

    Args:
        spec: the cascade as it is.
        fmt: the format whose exits are changed, None for all.
        policy: for every exit; None keeps each exit's own.
        thresholds: one for every exit, or by stage; a stage that is not named keeps its own.

    Raises:
        UsageError: a stage is not there or has no exit, a threshold is outside its policy's range,
            or a policy is changed but not the threshold that was set for the old one.
    """
    if isinstance(thresholds, Mapping):
        for name in thresholds:
            if name == FULL or spec.stage(name).logits is None:
                raise UsageError(f"threshold of stage {name}: only a stage with an early exit has one")
    last = spec.stages[-1]
    stages = []
    for stage in spec.stages:
        threshold = thresholds.get(stage.name) if isinstance(thresholds, Mapping) else thresholds
        # The last stage always answers, so it needs no threshold of its own with another policy.
        wanted = policy if stage is not last or threshold is not None else None
        files = {
            f: _overridden(stage, file, wanted, threshold, len(spec.labels)) if fmt in (None, f) else file
            for f, file in stage.files.items()
        }
        stages.append(replace(stage, files=files))
    return replace(spec, stages=tuple(stages))


def _overridden(
    stage: StageSpec, file: StageFile, policy: PolicyName | None, threshold: float | None, classes: int
) -> StageFile:
    old = file.exit
    if old is None:
        return file
    if threshold is None and policy not in (None, old.policy):
        raise UsageError(
            f"stage {stage.name}: its threshold {old.threshold:g} was set for policy {old.policy}; "
            f"give one for policy {policy} as well"
        )
    new = replace(
        old,
        policy=old.policy if policy is None else policy,
        threshold=old.threshold if threshold is None else threshold,
    )
    try:
        new.check(classes)
    except UsageError as error:
        raise UsageError(f"stage {stage.name}: {error}") from None
    return replace(file, exit=new)
