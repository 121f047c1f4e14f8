"""What was promised of a cascade's thresholds, of exactly which variant, and from which samples."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from branchy.core.cascade import CascadeSpec, ExitSettings, FormatName, PolicyName, StageSpec, Uplink
from branchy.core.tuning import LossName
from branchy.errors import BundleError

Guarantee = Literal["probability", "expected"]
Method = Literal["binomial", "betting", "conformal"]

_BOUNDED: Mapping[LossName, str] = {
    "gap": "accuracy is at most {} % below the full model's",
    "disagreement": "at most {} % of the answers name another class than the full model",
    "error": "at most {} % of the answers are wrong",
}


@dataclass(frozen=True, slots=True)
class CertifiedThresholds:
    """One vector of the certified set.

    Attributes:
        thresholds: of each early exit, by stage; the last exit always answers.
        loss: mean over the samples that it was certified with.
        cost: mean over the same samples, in the unit of the certificate.
    """

    thresholds: Mapping[str, float]
    loss: float
    cost: float


@dataclass(frozen=True, slots=True)
class Certificate:
    """A promise about every vector of thresholds in a set, and the variant of the cascade that it is about.

    Attributes:
        loss: what is bounded: accuracy gap to the full model, disagreement with it, or error.
        guarantee: `probability`: with probability 1 - delta over the samples no vector of the set loses more
            than alpha; `expected`: the loss is at most alpha on average over samples, and there is no delta.
        method: of the test: exact binomial, betting, or conformal risk control.
        alpha: the bound.
        delta: probability that the promise does not hold; None for `expected`.
        samples: how many it was certified with.
        dataset: their data set's name, and
        data_sha256: the digest of these samples and their labels, in the order of the data set.
        seed: of the order in which they were bet on.
        formats: by stage.
        uplinks: by stage, what each cut sends and in which dtype.
        policy: of the early exits.
        temperatures: of the exits, by stage.
        cost: what `CertifiedThresholds.cost` counts.
        certified: the set, safest first. The promise holds for all of them at once, so that one may be taken
            for another at any time, for all exits together and not by what a sample looks like.
    """

    loss: LossName
    guarantee: Guarantee
    method: Method
    alpha: float
    delta: float | None
    samples: int
    dataset: str
    data_sha256: str
    seed: int
    formats: Mapping[str, FormatName]
    uplinks: Mapping[str, Uplink]
    policy: PolicyName
    temperatures: Mapping[str, float]
    cost: Literal["bytes", "flops"]
    certified: tuple[CertifiedThresholds, ...]

    def promise(self, spec: CascadeSpec) -> str:
        """What is promised of a cascade that passes `check`, for people.

        Args:
            spec: with the thresholds of one of the certified vectors.
        """
        how = "on average" if self.delta is None else f"with probability {100 * (1 - self.delta):g} %"
        count, number = len(self.certified), self.vectors.index(self._early_thresholds(spec)) + 1
        which = "these thresholds" if count == 1 else f"these thresholds, {number} of {count} from safe to cheap"
        bounded = _BOUNDED[self.loss].format(f"{100 * self.alpha:g}")
        return f"promised {how}: {bounded}; {which}, by {self.samples:,} samples ({self.method})"

    def check(self, spec: CascadeSpec) -> None:
        """Hold a cascade's own settings against what was certified.

        Args:
            spec: the cascade of the bundle that the certificate is in.

        Raises:
            BundleError: it is about another variant, or other thresholds.
        """
        exits = self._exits(spec)
        early = list(exits.values())[:-1]
        found = {
            "uplinks": ({s.name: s.uplink for s in spec.stages if s.uplink is not None}, self.uplinks),
            "temperatures": ({name: e.temperature for name, e in exits.items()}, self.temperatures),
            "policies": ({e.policy for e in early} or {self.policy}, {self.policy}),
        }
        for what, (has, certified) in found.items():
            if has != certified:
                raise BundleError(f"certificate: it is about other {what} than the bundle's; tune the bundle again")
        if self._early_thresholds(spec) not in self.vectors:
            raise BundleError("certificate: the bundle's thresholds are not among the certified; tune the bundle again")

    @property
    def vectors(self) -> list[Mapping[str, float]]:
        """The certified set, each vector by stage."""
        return [each.thresholds for each in self.certified]

    def _exits(self, spec: CascadeSpec) -> dict[str, ExitSettings]:
        return {s.name: e for s in spec.stages if (e := s.exit_settings(self._format(s))) is not None}

    def _early_thresholds(self, spec: CascadeSpec) -> dict[str, float]:
        *early, _ = self._exits(spec).items()
        return {name: settings.threshold for name, settings in early}

    def _format(self, stage: StageSpec) -> FormatName:
        if stage.name not in self.formats:
            raise BundleError(
                f"certificate: expected a format of stage {stage.name}, found none; tune the bundle again"
            )
        return self.formats[stage.name]


def runs_as_certified(
    certificate: Certificate | None,
    spec: CascadeSpec,
    stages: Sequence[StageSpec],
    fmt: FormatName,
    exits: Mapping[str, ExitSettings],
) -> bool:
    """Whether these stages, run in one format with these exits' settings, are what a bundle's certificate is about.

    Every vector of the certified set will do, but all exits must have the thresholds of the same one. A tier
    that runs all early exits knows that they have. One that runs some of them cannot know of the others', but
    for what is written in the bundle, which all tiers have: it must run with the bundle's own. The last exit
    answers whatever its threshold is. The full model alone is never certified.

    What was certified begins at the first stage. A tier that takes samples cannot tell one that comes from the
    tier before it from one that skipped that: who asks it directly has to leave the mark aside.

    Args:
        certificate: the bundle's.
        spec: the bundle's cascade, as it was certified.
        stages: those of the tier.
        fmt: their format.
        exits: their exits' settings, as they run.
    """
    if certificate is None or any(
        certificate.formats.get(stage.name) != fmt or stage.uplink != spec.stage(stage.name).uplink for stage in stages
    ):
        return False
    own = {name: spec.stage(name).exit_settings(fmt) for name in exits}
    if any(has is None or replace(has, threshold=exits[name].threshold) != exits[name] for name, has in own.items()):
        return False
    early = [name for name in exits if spec.stage(name).successors]
    thresholds = {name: exits[name].threshold for name in early}
    return all(exits[name] == own[name] for name in early) or thresholds in certificate.vectors
