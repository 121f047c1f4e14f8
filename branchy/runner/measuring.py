"""What every exit of a bundle says of every sample: run once, as the tiers would, and kept as numbers."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import Literal

import numpy as np

from branchy.core.cascade import FULL, Array, CascadeSpec, ExitSettings, FormatName, PolicyName, StageSpec
from branchy.core.policies import probabilities, score
from branchy.core.tuning import ExitOutputs
from branchy.datasets import Part
from branchy.datasets.dataset import Samples
from branchy.errors import EngineError, UsageError
from branchy.runner.calibration import Run, exit_logits
from branchy.runner.request_sizes import body_bytes
from branchy.runner.tier_loading import load_tier
from branchy.store.bundle import Bundle

CostName = Literal["bytes", "flops"]


@dataclass
class _Digesting:
    """Samples that are read, and their digest in the order in which they were."""

    samples: Samples
    digest: hashlib._Hash = field(default_factory=hashlib.sha256)

    def read(self, index: int) -> Array:
        sample = self.samples.read(index)
        self.digest.update(np.ascontiguousarray(sample).tobytes())
        return sample

    def raw(self, index: int) -> bytes:
        return self.samples.raw(index)


@dataclass(frozen=True)
class Measured:
    """What the exits say of a part of a data set.

    Attributes:
        outputs: of the exits and the full model.
        sha256: of the samples and their labels.
        logits: (n, classes) by stage, those of the full model too.
    """

    outputs: ExitOutputs
    sha256: str
    logits: Mapping[str, Array]


def measure(
    bundle: Bundle, parts: Sequence[Part], fmt: FormatName, threads: int, policy: PolicyName | None
) -> list[Measured]:
    """Run every stage and the full model over some parts of a data set, activations through the uplinks' codecs.

    Args:
        bundle: a loaded bundle.
        parts: of a data set that fits it.
        fmt: which of the bundle's formats is run.
        threads: how many threads one batch may use.
        policy: that the exits' scores are for; None takes the bundle's.

    Returns:
        Of each part, in order.

    Raises:
        UsageError: no policy is given, and the bundle's exits have different ones.
        EngineError: logits that are not finite, or see `tier_loading.load_tier`.
        DatasetError: a sample cannot be read.
    """
    with ExitStack() as stack:
        runs: dict[str, Run] = {}
        chains = (tuple(stage.name for stage in bundle.spec.stages), (FULL,))
        for names in chains:
            for (_, name), opened in load_tier(bundle, names, fmt, threads).engines.items():
                stack.callback(opened.close)
                runs[name] = opened.run
        return [_measure(bundle.spec, runs, part, fmt, policy) for part in parts]


def _measure(
    spec: CascadeSpec, runs: dict[str, Run], part: Part, fmt: FormatName, policy: PolicyName | None
) -> Measured:
    settings = exits_of(spec, fmt)
    chosen = policy or _own_policy(settings)
    seen = _Digesting(part.samples)
    logits = exit_logits(spec.stages, runs, Part(seen, part.indices, part.labels), "every exit")
    seen.digest.update(part.labels.astype("<i8").tobytes())
    full = exit_logits([spec.full], runs, part, "the full model")
    for name, each in {**logits, **full}.items():
        if not np.isfinite(np.asarray(each, np.float32)).all():
            raise EngineError(f"stage {name} gave logits that are not finite; train the bundle again")
    probs = {name: probabilities(each, settings[name].temperature) for name, each in logits.items()}
    outputs = ExitOutputs(
        names=tuple(probs),
        policy=chosen,
        scores=np.stack([score(p, chosen) for p in probs.values()]),
        predictions=np.stack([p.argmax(axis=-1) for p in probs.values()]),
        full=np.asarray(full[FULL]).argmax(axis=-1),
        labels=part.labels,
        classes=len(spec.labels),
    )
    return Measured(outputs, seen.digest.hexdigest(), {**logits, **full})


def _own_policy(settings: dict[str, ExitSettings]) -> PolicyName:
    *early, last = (each.policy for each in settings.values())
    policies = set(early) or {last}
    if len(policies) > 1:
        raise UsageError(f"the bundle's exits have different policies ({', '.join(early)}): name one with --policy")
    return policies.pop()


def exits_of(spec: CascadeSpec, fmt: FormatName) -> dict[str, ExitSettings]:
    """The settings of the exits in one format, the last exit included.

    Args:
        spec: the cascade.
        fmt: one that all its stages have.

    Returns:
        By stage, in order.

    Raises:
        BundleError: a stage is not exported in that format.
    """
    return {s.name: settings for s in spec.stages if (settings := s.exit_settings(fmt)) is not None}


def exit_costs(spec: CascadeSpec, cost: CostName) -> tuple[float, ...]:
    """What a sample has cost when it leaves at each exit.

    Args:
        spec: the cascade.
        cost: `flops`, or `bytes` of the message bodies sent up on the way, before any compression.

    Returns:
        (exits,).
    """
    out, spent = [], 0.0
    for stage in spec.stages:
        spent += stage.flops if cost == "flops" else 0
        if stage.logits is not None:
            out.append(spent)
            spent += _sent_bytes(stage) if cost == "bytes" else 0
    return tuple(out)


def _sent_bytes(stage: StageSpec) -> int:
    if stage.activation is None or stage.uplink is None:
        return 0
    return body_bytes(stage.activation, stage.uplink.dtype)
