"""A cascade in this process: what its tiers would answer, by their rules and through their wire."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from branchy.core import wire
from branchy.core.cascade import FULL, Array, CascadeSpec, DType, FormatName, PolicyName, StageSpec
from branchy.core.messages import Answer, EncodedSample, Hop, Reason, Request, is_certified
from branchy.core.policies import Verdict, judge
from branchy.errors import EngineError, UsageError
from branchy.runner.events import Stamper, new_traceparent, uuid7
from branchy.runner.tier_loading import load_tier
from branchy.store.bundle import Bundle
from branchy.transport.base import Message

BATCH = 32


class Cascade:
    """Inference with a bundle in this process, by the rules of its tiers and through their wire.

    The exits run in order and only the unsure samples go on; where a stage has an exit its cut
    is crossed by a message, encoded and decoded as between two tiers, so answers are the tiers'
    own to the last bit of the uplink's dtype. Not shared between threads.

    Example:
        >>> cascade = Cascade(Bundle.load(Path("saved_models/digits")))
        >>> answer = cascade.predict(images[:1])[0]
        >>> answer.label, answer.exit, answer.hops[0].bytes_up
        ('7', 'edge', 0)
    """

    def __init__(
        self,
        bundle: Bundle,
        fmt: FormatName = "litert",
        threads: int = 1,
        *,
        stage: str | None = None,
        policy: PolicyName | None = None,
        thresholds: Mapping[str, float] | float | None = None,
    ) -> None:
        """Open the stages' engines.

        Args:
            bundle: a loaded bundle.
            fmt: which of its formats is run.
            threads: how many threads one batch may use.
            stage: None lets every sample leave at the first sure exit; a stage's name sends all of
                them to that exit, and `full` through the full model.
            policy: instead of the bundle's.
            thresholds: instead of the bundle's, one for every exit or by stage.

        Raises:
            UsageError: no such stage, a stage without an exit, or a threshold outside its policy's range
                or of no use.
            BundleError: a stage is not exported in that format.
            EngineError: an engine cannot be opened.
        """
        if stage is not None and (policy is not None or thresholds is not None):
            raise UsageError(f"with stage {stage} every sample goes to one exit: leave policy and threshold out")
        loaded = load_tier(bundle, _way_to(bundle.spec, stage), fmt, threads, policy, thresholds)
        self.bundle = bundle
        self.spec = loaded.spec
        self.stages = loaded.model.stages
        self.leaves_early = stage is None
        self.certified = loaded.model.certified and self.leaves_early
        self.exits = loaded.model.exits
        self._engines = {name: opened for (_, name), opened in loaded.engines.items()}

    @property
    def tiers(self) -> tuple[str, ...]:
        """Names of the tiers: a stage without an exit shares one with the stage after it."""
        behind = (None, *self.stages[:-1])
        return tuple(s.name for s, b in zip(self.stages, behind, strict=True) if b is None or b.logits is not None)

    def predict(self, samples: Array, batch_size: int = BATCH) -> list[Answer]:
        """What the cascade answers.

        Args:
            samples: (n, *shape) of `bundle.spec.input`'s dtype.
            batch_size: most samples computed at once.

        Returns:
            An `ok` answer a sample, in order. Each hop's `compute_ms` is the sample's share of its
            batch, and its `total_ms` has the codec and the hops further up in it.

        Raises:
            EngineError: another shape or dtype, or a model that gives logits that are not finite.
        """
        starts = range(0, len(samples), batch_size)
        return [answer for start in starts for answer in self._batch(samples[start : start + batch_size])]

    def request_bytes(self, sample: Array) -> int:
        """Headers and body of the request with which a device would send a sample (*shape)."""
        first = self.stages[0]
        payload = {first.inputs[0].tensor: sample}
        return self._message(_Case(uuid7(), new_traceparent()), first, payload, "device", None).size_bytes

    def close(self) -> None:
        """Free the engines; may be called twice."""
        for engine in self._engines.values():
            engine.close()

    def _batch(self, samples: Array) -> list[Answer]:
        cases = [_Case(uuid7(), new_traceparent()) for _ in samples]
        under_way, inputs = cases, samples
        tier, compute_ms = "", 0.0
        for stage in self.stages:
            started = time.perf_counter()
            outputs = self._engines[stage.name].run(inputs)
            tier, compute_ms = tier or stage.name, compute_ms + _ms_since(started) / len(inputs)
            if stage.logits is None:
                inputs = outputs[_activation(stage)]
                continue
            for case, verdict in zip(under_way, self._judge(stage, outputs[stage.logits.name]), strict=True):
                case.steps.append(_Step(tier, stage.name, verdict, compute_ms))
            rows = [row for row, case in enumerate(under_way) if self._goes_on(stage, case)]
            if not rows:
                break
            under_way, activations = [under_way[row] for row in rows], outputs[_activation(stage)][rows]
            inputs = np.stack([self._cross(stage, c, a) for c, a in zip(under_way, activations, strict=True)])
            tier, compute_ms = "", 0.0
        return [self._answer(case) for case in cases]

    def _judge(self, stage: StageSpec, logits: Array) -> list[Verdict]:
        if not np.isfinite(logits.astype(np.float32)).all():
            raise EngineError(f"stage {stage.name} gave logits that are not finite; train the bundle again")
        return judge(logits, self.exits[stage.name])

    def _goes_on(self, stage: StageSpec, case: _Case) -> bool:
        return stage is not self.stages[-1] and not (self.leaves_early and case.steps[-1].verdict.sure)

    def _cross(self, stage: StageSpec, case: _Case, activation: Array) -> Array:
        """Send a sample's activation over the cut after a stage; returns it as the next stage takes it."""
        started = time.perf_counter()
        step, above = case.steps[-1], self.spec.stage(stage.successors[0])
        dtype = stage.uplink.dtype if stage.uplink else None
        message = self._message(case, above, {_activation(stage): activation}, step.tier, dtype)
        came = wire.decode_request(
            message.headers, message.body, model=self.bundle.digest, stage=above.name, new_id=uuid7
        )
        if isinstance(came.payload, EncodedSample):
            raise EngineError(f"stage {above.name} expects an activation, got an image")
        received = wire.check_tensor(came.payload, above.inputs[0].tensor, above.input)
        step.bytes_up, step.wire_ms = message.size_bytes, _ms_since(started)
        return received

    def _message(
        self, case: _Case, to: StageSpec, payload: Mapping[str, Array], sender: str, dtype: DType | None
    ) -> Message:
        request = Request(case.id, self.bundle.digest, to.name, wire.DEFAULT_BUDGET_MS, payload, case.traceparent)
        return Message(*wire.encode_request(request, Stamper(f"/branchy/{sender}")(), dtype))

    def _answer(self, case: _Case) -> Answer:
        step = case.steps[-1]
        reason: Reason = "final" if step.exit == self.stages[-1].name else "confident"
        return Answer(
            request=case.id,
            status="ok",
            reason=reason,
            tier=step.tier,
            model=self.bundle.digest,
            label=self.spec.labels[step.verdict.index],
            index=step.verdict.index,
            confidence=step.verdict.confidence,
            probabilities=step.verdict.probabilities,
            exit=step.exit,
            hops=case.hops(),
            certified=is_certified(reason, certified_tier=self.certified),
        )


@dataclass(slots=True)
class _Step:
    """What one tier did for one sample."""

    tier: str
    exit: str
    verdict: Verdict
    compute_ms: float
    wire_ms: float = 0.0
    bytes_up: int = 0


@dataclass(slots=True)
class _Case:
    """One sample on its way through the cascade."""

    id: str
    traceparent: str
    steps: list[_Step] = field(default_factory=list)

    def hops(self) -> tuple[Hop, ...]:
        """Its hops, the nearest the device first; a hop's total has those further up in it."""
        hops: list[Hop] = []
        total_ms = 0.0
        for step in reversed(self.steps):
            total_ms += step.compute_ms + step.wire_ms
            verdict = step.verdict
            hops.append(
                Hop(
                    tier=step.tier,
                    exit=step.exit,
                    index=verdict.index,
                    confidence=verdict.confidence,
                    queue_ms=0.0,
                    compute_ms=step.compute_ms,
                    total_ms=total_ms,
                    bytes_up=step.bytes_up,
                )
            )
        return tuple(reversed(hops))


def _way_to(spec: CascadeSpec, stage: str | None) -> tuple[str, ...]:
    """Names of the stages that a sample may pass."""
    if stage == FULL:
        return (FULL,)
    names = tuple(s.name for s in spec.stages)
    return names if stage is None else names[: names.index(spec.stage(stage).name) + 1]


def _activation(stage: StageSpec) -> str:
    if stage.activation is None:
        raise EngineError(f"stage {stage.name} has nothing to send up")
    return stage.activation.name


def _ms_since(started: float) -> float:
    return (time.perf_counter() - started) * 1e3
