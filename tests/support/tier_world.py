"""A world for the tier machine that Hypothesis drives: deliveries, executor, front, brokers, and the rules it checks.

Not a test itself: `test_tier_machine_rules.py` runs it on the real machine and on broken ones.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace
from typing import Literal

import numpy as np
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from branchy.core import tier_events as ev
from branchy.core.cascade import ExitSettings, Source, StageSpec, TensorSpec, Uplink
from branchy.core.deadline import LONGEST_GRACE_S
from branchy.core.messages import Answer, EncodedSample, Request
from branchy.core.outbox import KEPT_S
from branchy.core.settlement import SettlementTracker
from branchy.core.tier_machine import TierMachine
from branchy.core.tier_model import TierLimits, TierModel

DIGEST = "d" * 64
LABELS = ("a", "b", "c")
SURE, SURE_OF_B, UNSURE, BROKEN = (9.0, 0.0, 0.0), (0.0, 9.0, 0.0), (0.1, 0.0, 0.0), (math.nan, 0.0, 0.0)


def stage(name: str, before: str | None, after: str | None, *, exit_: bool = True) -> StageSpec:
    """A stage of a toy cascade: four values in, four values up, three classes."""
    tensor = "sample" if before is None else "activation"
    dtype = "uint8" if before is None else "float32"
    return StageSpec(
        name=name,
        inputs=(Source(before, tensor),),
        input=TensorSpec(tensor, (4,), dtype),
        activation=TensorSpec("activation", (4,)) if after else None,
        logits=TensorSpec("logits", (3,)) if exit_ else None,
        successors=(after,) if after else (),
        uplink=Uplink() if after else None,
        parameters=1,
        flops=1,
    )


def handing_on(spec: StageSpec) -> StageSpec:
    """The stage with the sample as its uplink."""
    return replace(spec, activation=spec.input, uplink=Uplink("sample", "uint8"))


def taking_samples(spec: StageSpec) -> StageSpec:
    """The stage behind one whose uplink is the sample."""
    first = stage("edge", None, None)
    return replace(spec, inputs=first.inputs, input=first.input)


TIERS = {
    "first": (stage("edge", None, "fog"),),
    "two": (stage("edge", None, "fog"), stage("fog", "edge", "cloud")),
    "blind": (stage("edge", None, "fog", exit_=False), stage("fog", "edge", "cloud")),
    "last": (stage("cloud", "fog", None),),
    "handing-on": (handing_on(stage("edge", None, "fog")),),
    "handed": (taking_samples(stage("fog", "edge", "cloud")),),
}


def model_of(stages: tuple[StageSpec, ...], *, certified: bool = False) -> TierModel:
    """A tier's model whose exits leave at max_prob >= 0.8."""
    exits = {s.name: ExitSettings() for s in stages if s.logits}
    return TierModel(DIGEST, LABELS, stages, exits, certified, behind=stages[0].name != "edge")


def request(
    stages: tuple[StageSpec, ...], number: int, budget_ms: float = 1000.0, *, fill: int = 0, **changes
) -> Request:
    """A good request for a tier's first stage."""
    first = stages[0]
    payload = {first.inputs[0].tensor: np.full(4, fill, first.input.dtype)}
    fields = {"id": f"r{number}", "model": DIGEST, "stage": first.name, "budget_ms": budget_ms, "payload": payload}
    return Request(**{**fields, **changes})


def front_answer(number_of: str, **changes) -> Answer:
    """What a good front answers to the request of that id."""
    fields = {"request": number_of, "status": "ok", "reason": "final", "tier": "cloud", "model": DIGEST}
    return Answer(**{**fields, "label": "b", "index": 1, "confidence": 0.9, **changes})


@dataclass
class Delivery:
    """What the world knows of a token it handed in."""

    request: str
    reply_to: str
    correlation: bytes | None
    expires: float
    terminal: object = None
    acknowledged: bool = False
    settled: bool = False
    failed: object = None
    gone: bool = False
    payload: str = ""
    wanted_until: float = math.inf

    @property
    def asks(self) -> tuple[str, bytes | None, str, str]:
        """Only for the same of all these may one delivery be answered in the place of another."""
        return (self.reply_to, self.correlation, self.request, self.payload)


@dataclass
class World:
    """Everything around one machine; every effect is checked as it comes out."""

    machine: TierMachine
    stages: tuple[StageSpec, ...]
    limits: TierLimits
    now: float = 100.0
    tokens: dict[int, Delivery] = field(default_factory=dict)
    works: dict[int, ev.Submit] = field(default_factory=dict)
    forwards: dict[bytes, str] = field(default_factory=dict)
    sends: dict[int, object] = field(default_factory=dict)
    tracker: SettlementTracker = field(default_factory=SettlementTracker)
    paused: bool = False

    def handle(self, event: ev.Event) -> None:
        for effect in self.machine.handle(event, self.now):
            self.check(effect)

    def advance(self, seconds: float = 0.0) -> None:
        self.now += seconds
        for effect in self.machine.advance(self.now):
            self.check(effect)
        for token, delivery in self.tokens.items():
            overdue = delivery.terminal is None and delivery.expires <= self.now
            assert not overdue, f"token {token} outlived its deadline"

    def arrive(
        self,
        message: Request,
        *,
        age_s: float = 0.0,
        reply_to: str = "device",
        correlation: bytes | Literal["fresh"] | None = "fresh",
    ) -> int:
        token = len(self.tokens)
        if correlation == "fresh":
            correlation = b"fresh %d" % token
        expires = self.now + (message.budget_ms / 1e3 - age_s)
        self.tokens[token] = Delivery(
            message.id,
            reply_to,
            correlation,
            expires,
            payload=repr(message.payload),
            wanted_until=self.now + message.budget_ms / 1e3 + LONGEST_GRACE_S,
        )
        self.tracker.track("p", token)
        self.handle(ev.Came(token, message, reply_to, correlation, age_s))
        return token

    def garbage(self, body_bytes: int = 0) -> int:
        token = len(self.tokens)
        self.tokens[token] = Delivery("x", "device", b"g", math.inf)
        self.tracker.track("p", token)
        self.handle(ev.Malformed(token, None, "device", b"g", "body", "not safetensors", body_bytes))
        assert isinstance(self.tokens[token].terminal, ev.DeadLetter), "garbage must be dead-lettered at once"
        return token

    def compute(self, work: int, rows: list[tuple[float, ...]], failures: dict[int, str]) -> None:
        submit = self.works.pop(work)
        spec = next(s for s in self.stages if s.name == submit.stage)
        good = [row for i, row in enumerate(rows) if i not in failures]
        outputs: dict[str, np.ndarray] = {}
        if good and spec.logits:
            outputs["logits"] = np.asarray(good, np.float32)
        if good and spec.activation:
            outputs[spec.activation.name] = np.zeros((len(good), 4), spec.activation.dtype)
        self.handle(ev.Computed(work, outputs, self.now, self.now + 0.001, failures))

    # --- what comes out ------------------------------------------------------------------------------------------

    def check(self, effect: ev.Effect) -> None:
        match effect:
            case ev.Submit(work, model, name, inputs):
                assert model == DIGEST
                assert name in {s.name for s in self.stages}
                assert 0 < len(inputs) <= self.limits.batch_size
                assert not self.works, "one worker was given two batches"
                self.works[work] = effect
            case ev.Forward(correlation, message, _):
                assert correlation not in self.forwards, "a correlation must be fresh"
                assert message.stage == self.stages[-1].successors[0]
                assert 0 < message.budget_ms <= 30_000
                self.forwards[correlation] = message.id
            case ev.SendAnswer(token=None):
                assert effect.answer.status == "error"
            case ev.SendAnswer(token, reply_to, correlation, answer, _):
                delivery = self.terminal(token, effect)
                assert (reply_to, correlation) == (delivery.reply_to, delivery.correlation)
                assert answer.request == delivery.request
                assert (answer.status == "ok") == (answer.label is not None)
                wanted = [d.wanted_until for d in self.tokens.values() if d.asks == delivery.asks]
                assert min(wanted) <= effect.wanted_until <= max(wanted)
                self.sends[token] = effect
            case ev.DeadLetter(token):
                self.terminal(token, effect)
                self.sends[token] = effect
            case ev.Forget(token, superseded):
                self.terminal(token, effect)
                if superseded:
                    newer = [d for t, d in self.tokens.items() if t > token and d.asks == self.tokens[token].asks]
                    assert newer, "superseded by nothing"
                    assert None not in newer[0].asks, "superseded by who knows what"
                    self.settle(token)
            case ev.Settle(token):
                assert self.tokens[token].acknowledged, "settled before the broker had the answer"
                self.settle(token)
            case ev.Pause():
                assert not self.paused
                self.paused = True
            case ev.Resume():
                assert self.paused
                self.paused = False
            case ev.PurgeFront():
                pass

    def terminal(self, token: int, effect: object) -> Delivery:
        delivery = self.tokens[token]
        again = delivery.failed is not None and effect == delivery.failed
        assert delivery.terminal is None or again, f"token {token}: {delivery.terminal}, then {effect}"
        delivery.terminal, delivery.failed = effect, None
        return delivery

    def settle(self, token: int) -> None:
        delivery = self.tokens[token]
        assert not delivery.settled, f"token {token} settled twice"
        delivery.settled = True
        self.tracker.settle("p", token)
        committable = self.tracker.committable("p")
        for other, d in self.tokens.items():
            if committable is not None and other < committable:
                superseded = isinstance(d.terminal, ev.Forget) and d.terminal.superseded
                assert d.acknowledged or superseded, f"commit {committable} passes token {other}, which is not answered"


class TierRules(RuleBasedStateMachine):
    """Any order of events, within reason; the world checks the rules as they happen."""

    machine_class: type[TierMachine] = TierMachine

    @initialize(kind=st.sampled_from(sorted(TIERS)))
    def start(self, kind: str) -> None:
        limits = TierLimits(batch_size=3, pending=2, backlog=4, unsettled=12, way_back_s=0.01, probe_s=0.5)
        stages = TIERS[kind]
        machine = self.machine_class(stages[0].name, [model_of(stages)], limits, b"p")
        self.world = World(machine, stages, limits)
        self.count = 0

    @rule(budget_ms=st.sampled_from([0.0, 5.0, 50.0, 1000.0]), age_s=st.sampled_from([0.0, 0.04, 2.0]))
    def arrive(self, budget_ms: float, age_s: float) -> None:
        self.count += 1
        message = request(self.world.stages, self.count, budget_ms)
        self.world.arrive(message, age_s=age_s, correlation=b"c%d" % self.count)

    @precondition(lambda self: self.count)
    @rule(data=st.data())
    def arrive_again(self, data: st.DataObject) -> None:
        """Redelivered by the broker, sent again by the device, or another's under the same ids."""
        number = data.draw(st.integers(1, self.count))
        message = request(self.world.stages, number, 500.0, fill=data.draw(st.sampled_from([0, 0, 1])))
        correlation = data.draw(st.sampled_from([b"c%d" % number, b"c%d" % number, b"other", None]))
        self.world.arrive(message, correlation=correlation)

    @rule(
        changes=st.sampled_from(
            [
                {"model": "e" * 64},
                {"stage": "nowhere"},
                {"payload": {}},
                {"payload": {"sample": np.zeros(3, np.uint8), "activation": np.zeros(3, np.float32)}},
                {"payload": EncodedSample("image/png", b"not an image")},
            ]
        )
    )
    def arrive_wrong(self, changes: dict) -> None:
        self.count += 1
        self.world.arrive(request(self.world.stages, self.count, **changes))

    @rule()
    def arrive_garbage(self) -> None:
        self.world.garbage()

    @rule()
    def arrive_unsure(self) -> None:
        """One with time enough that no exit here is sure of."""
        self.arrive(1000.0, 0.0)
        self.world.advance()
        if self.world.works:
            work, submit = next(iter(self.world.works.items()))
            self.world.compute(work, [UNSURE] * len(submit.inputs), {})

    @precondition(lambda self: self.world.works)
    @rule(data=st.data())
    def compute(self, data: st.DataObject) -> None:
        work, submit = next(iter(self.world.works.items()))
        n = len(submit.inputs)
        rows = data.draw(st.lists(st.sampled_from([SURE, UNSURE, UNSURE, BROKEN]), min_size=n, max_size=n))
        failing = data.draw(st.sets(st.integers(0, n - 1), max_size=1))
        self.world.compute(work, rows, dict.fromkeys(failing, "cannot"))

    @precondition(lambda self: self.world.forwards)
    @rule(data=st.data(), changes=st.sampled_from([{}, {}, {"status": "rejected"}, {"model": "e"}, {"index": 9}, None]))
    def front_answers(self, data: st.DataObject, changes: dict | None) -> None:
        """To a forward that waits, or one that was given up or answered long ago."""
        correlation = data.draw(st.sampled_from(sorted(self.world.forwards)))
        answer = None if changes is None else front_answer(self.world.forwards[correlation], **changes)
        self.world.handle(ev.FrontAnswered(correlation, answer))

    @precondition(lambda self: self.world.forwards)
    @rule(data=st.data())
    def forward_fails(self, data: st.DataObject) -> None:
        correlation = data.draw(st.sampled_from(sorted(self.world.forwards)))
        self.world.handle(ev.ForwardFailed(correlation, "no broker"))

    @precondition(lambda self: self.world.sends)
    @rule(data=st.data())
    def acknowledge(self, data: st.DataObject) -> None:
        token = data.draw(st.sampled_from(sorted(self.world.sends)))
        del self.world.sends[token]
        self.world.tokens[token].acknowledged = True
        self.world.handle(ev.Acknowledged(token))

    @precondition(lambda self: self.world.sends)
    @rule(data=st.data(), permanent=st.booleans(), too_large=st.booleans())
    def send_fails(self, data: st.DataObject, permanent: bool, too_large: bool) -> None:
        token = data.draw(st.sampled_from(sorted(self.world.sends)))
        effect = self.world.sends.pop(token)
        delivery = self.world.tokens[token]
        if isinstance(effect, ev.SendAnswer) and (permanent or effect.wanted_until <= self.world.now):
            delivery.acknowledged = True  # nothing more can be done for it: it counts as finished
        else:
            smaller = permanent and too_large and isinstance(effect, ev.DeadLetter)
            delivery.failed = replace(effect, bare=True) if smaller else effect
        self.world.handle(ev.SendFailed(token, permanent, "broker said no", permanent and too_large))

    @precondition(lambda self: self.world.tokens)
    @rule(data=st.data(), lost=st.booleans())
    def taken_away(self, data: st.DataObject, lost: bool) -> None:
        """A partition goes to another replica: all that is not settled of it."""
        open_tokens = [t for t, d in self.world.tokens.items() if not d.settled and not d.gone]
        if not open_tokens:
            return
        tokens = frozenset(data.draw(st.lists(st.sampled_from(open_tokens), unique=True)))
        self.world.handle(ev.TakenAway(tokens, lost))
        for token in tokens:
            delivery = self.world.tokens[token]
            assert delivery.terminal is not None, f"token {token} was taken away and is still held"
            delivery.gone = True
            if lost:
                self.world.sends.pop(token, None)
            delivery.failed = delivery.failed if token in self.world.sends else None

    @rule(full=st.booleans())
    def back_full(self, full: bool) -> None:
        self.world.handle(ev.BackFull(full))

    @rule(seconds=st.sampled_from([0.0, 0.001, 0.03, 0.3, 2.0, KEPT_S, LONGEST_GRACE_S + 1.0]))
    def time_passes(self, seconds: float) -> None:
        self.world.advance(seconds)

    @rule()
    def wake_up(self) -> None:
        """What `wakeup` promises: nothing is due before it, and at it things move on."""
        wakeup = self.world.machine.wakeup()
        live = [d.expires for d in self.world.tokens.values() if d.terminal is None]
        if live:
            assert wakeup is not None
            assert wakeup <= min(live)
            self.world.advance(max(0.0, wakeup - self.world.now))

    @invariant()
    def bounded(self) -> None:
        if hasattr(self, "world"):
            machine, limits = self.world.machine, self.world.limits
            assert machine.pending <= limits.pending
            assert machine.idle == (not any(map(machine.holds, self.world.tokens)))

    def teardown(self) -> None:
        """Told to stop, it ends everything it holds: each token has its one terminal effect."""
        if not hasattr(self, "world"):
            return
        world = self.world
        world.handle(ev.Drain())
        world.advance()
        while world.works:
            work, submit = next(iter(world.works.items()))
            world.compute(work, [UNSURE] * len(submit.inputs), {})
            world.advance()
        world.advance(KEPT_S)  # what the brokers did not take is tried again
        for token in list(world.sends):
            del world.sends[token]
            world.tokens[token].acknowledged = True
            world.handle(ev.Acknowledged(token))
        held = [t for t, d in world.tokens.items() if d.terminal is None]
        assert not held, f"still held at the end: {held}"
        assert world.machine.idle
        kept = [t for t, d in world.tokens.items() if d.acknowledged and not d.settled and not d.gone]
        assert not kept, f"answered but never settled: {kept}"
