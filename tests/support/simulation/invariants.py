"""What must hold, checked as things happen: of each machine, of each answer handed on, and at the end."""

from __future__ import annotations

import heapq
from collections import defaultdict
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from branchy.core import tier_events as ev
from branchy.core.breaker import Breaker
from branchy.core.messages import Answer, Hop, Request
from branchy.core.tier_machine import TierMachine
from branchy.core.tier_model import TierLimits
from simulation import toy
from simulation.broker import FETCH, Token
from simulation.plan import LABELS, Ask, Shape
from simulation.world import require

if TYPE_CHECKING:
    from simulation.tier import TierProcess

LATE_S = 1e-3
"""A step happens this much after what it is for, at most."""
CLOCKS_APART = 1e-3
"""Two clocks agree on a span of time up to this share."""
FALLBACKS = ("timeout", "unreachable", "rejected", "overload", "handover", "failed")
REFUSALS = {"rejected": ("digest", "expired", "overload"), "error": ("malformed", "failed")}


@lru_cache
def watched(machine_class: type[TierMachine]) -> type[TierMachine]:
    """The machine, with all that goes in and comes out shown to its `watch`."""

    class Watched(machine_class):
        watch: MachineWatch

        def handle(self, event: ev.Event, now: float) -> list[ev.Effect]:
            effects: list[ev.Effect] = super().handle(event, now)
            self.watch.saw(event, effects, now)
            return effects

        def advance(self, now: float) -> list[ev.Effect]:
            effects: list[ev.Effect] = super().advance(now)
            self.watch.saw(None, effects, now)
            return effects

    return Watched


class Held:
    """A delivery that a machine has; `due` is when its one end must have come."""

    __slots__ = ("body_bytes", "correlation", "due", "end", "key", "may_repeat", "reply_to")

    def __init__(self, key: Any, reply_to: Any, correlation: bytes | None, due: float, body_bytes: int) -> None:
        self.key, self.reply_to, self.correlation, self.due = key, reply_to, correlation, due
        self.body_bytes = body_bytes
        self.end: ev.Effect | None = None
        self.may_repeat = False


class MachineWatch:
    """The rules of one machine: one end a delivery, by its deadline; bounds; a breaker in a legal state."""

    def __init__(self, process: TierProcess, limits: TierLimits, machine: TierMachine) -> None:
        self._process, self._limits, self._machine = process, limits, machine
        self._held: dict[Any, Held] = {}
        self._due: list[tuple[float, Any]] = []
        self._by_key: dict[Any, Any] = {}
        self._excused_until = 0.0
        self._breaker = (machine.way_up.breaker.state, machine.way_up.breaker.epoch)
        self._last_probe = 0.0
        self._bytes = 0
        self._paused = self._back_full = self._draining = False
        self._most = limits.unsettled + FETCH * process.shape.partitions

    def saw(self, event: ev.Event | None, effects: list[ev.Effect], now: float) -> None:
        """An event went in, or time passed (None); these effects came out."""
        match event:
            case ev.Came(token, request, reply_to, correlation, age_s):
                due = max(now, now + request.budget_ms / 1e3 - max(age_s, 0.0))
                key = (reply_to, correlation, request.id, request.model, request.stage, _values(request))
                self._hold(token, Held(key, reply_to, correlation, due, request.body_bytes))
            case ev.Malformed(token, _, reply_to, correlation, _, _, body_bytes):
                self._hold(token, Held(token, reply_to, correlation, now, body_bytes))
            case ev.SendFailed(token, False, _) if token in self._held:
                self._held[token].may_repeat = True
            case ev.BackFull(full):
                self._back_full = full
            case ev.Drain():
                self._draining = True
            case ev.TakenAway(tokens, True):
                for token in tokens:
                    if token in self._held and self._held[token].end is not None:
                        self._drop(token)
        if event is not None and self._process.world.tracing:
            self._process.world.say(self._process.name, "<- %s", _brief(event))
        self._check_breaker(event, effects, now)
        for effect in effects:
            self._check(effect, now)
        if event is None and self._paused:
            require(self._has_enough(), "pause", "%s has no reason to take nothing", self._process.name)

    def after_step(self) -> None:
        """Nothing is overdue, and everything is within its bounds."""
        now = self._process.clock.monotonic()
        while self._due and self._due[0][0] < now - LATE_S:
            _, token = heapq.heappop(self._due)
            held = self._held.get(token)
            require(held is None or held.end is not None, "deadline", "%s still holds %s", self._process.name, token)
        machine, name = self._machine, self._process.name
        require(machine.pending <= self._limits.pending, "bounds", "%s: %d wait for the front", name, machine.pending)
        require(len(self._held) <= self._most, "bounds", "%s holds %d deliveries", name, len(self._held))
        held_up = self._paused or self._bytes < self._limits.held_bytes
        require(held_up, "bounds", "%s holds bodies of %d bytes and takes more", name, self._bytes)

    def _has_enough(self) -> bool:
        """Whether it may leave requests with the brokers: at a bound it stops, at half of it it goes on."""
        half_full = (
            len(self._held) > self._limits.unsettled // 2
            or self._machine.held_bytes > self._limits.held_bytes // 2
            or self._machine.waiting > self._limits.backlog // 2
        )
        return half_full or self._back_full or self._draining

    def was_held_up(self) -> None:
        """What was due meanwhile is due now."""
        self._excused_until = self._process.clock.monotonic()

    def check_quiet(self) -> None:
        """When all is done nothing is left anywhere."""
        name, tier = self._process.name, self._process.tier
        require(not self._held, "left over", "%s still holds %s", name, list(self._held))
        require(not self._machine.held_bytes, "left over", "%s counts %d bytes", name, self._machine.held_bytes)
        require(self._machine.idle, "left over", "%s is not idle", name)
        require(not tier._deliveries, "left over", "%s keeps messages of %s", name, list(tier._deliveries))
        require(not self._machine.pending, "left over", "%s has %d pending", name, self._machine.pending)
        require(not self._machine.waiting, "left over", "%s has %d waiting", name, self._machine.waiting)

    def _hold(self, token: Token, held: Held) -> None:
        require(token not in self._held, "one end", "%s was given %s twice", self._process.name, token)
        self._held[token] = held
        self._bytes += held.body_bytes
        self._by_key[held.key] = token
        heapq.heappush(self._due, (held.due, token))

    def _drop(self, token: Token) -> None:
        held = self._held.pop(token)
        self._let_go(held)
        if self._by_key.get(held.key) == token:
            del self._by_key[held.key]

    def _let_go(self, held: Held) -> None:
        self._bytes -= held.body_bytes
        held.body_bytes = 0

    def _check(self, effect: ev.Effect, now: float) -> None:
        world = self._process.world
        if world.tracing:
            world.say(self._process.name, "-> %s", _brief(effect))
        match effect:
            case ev.SendAnswer(None, _, _, answer, _):
                require(answer.status == "error", "courtesy", "%s: %s", self._process.name, answer)
            case ev.SendAnswer(token, reply_to, correlation, answer, _):
                held = self._ended(token, effect, now)
                self._let_go(held)
                to = (held.reply_to, held.correlation)
                require((reply_to, correlation) == to, "address", "%s went to %s", answer, reply_to)
                require((answer.status == "ok") == (answer.label is not None), "answer", "%s", answer)
            case ev.DeadLetter(token, _, _):
                self._ended(token, effect, now)
            case ev.Forget(token, superseded):
                self._ended(token, effect, now)
                if superseded:
                    self._superseded(token)
                self._drop(token)
            case ev.Pause() | ev.Resume():
                self._paused = isinstance(effect, ev.Pause)
            case ev.Settle(token):
                held_too = self._held.get(token)
                require(held_too is not None and held_too.end is not None, "settle", "%s has no end", token)
                self._drop(token)

    def _ended(self, token: Token, effect: ev.Effect, now: float) -> Held:
        name = self._process.name
        held = self._held.get(token)
        require(held is not None, "one end", "%s ends %s, which it does not hold: %s", name, token, effect)
        assert held is not None
        if held.end is not None:
            require(
                held.may_repeat and held.end == effect, "one end", "%s, %s: %s and %s", name, token, held.end, effect
            )
        late_s = now - max(held.due, self._excused_until)
        require(held.end is not None or late_s <= LATE_S, "deadline", "%s ends %s %.3f s late", name, token, late_s)
        held.end, held.may_repeat = effect, False
        return held

    def _superseded(self, token: Token) -> None:
        """Another delivery of the same attempt, payload and all, must be there to be answered in its place."""
        other = self._by_key.get(self._held[token].key)
        require(other is not None and other != token, "superseded", "%s is superseded by nothing", token)
        self._process.record(token).superseded_by = self._process.record(other)

    def _check_breaker(self, event: ev.Event | None, effects: list[ev.Effect], now: float) -> None:
        breaker: Breaker = self._machine.way_up.breaker
        (was, epoch), self._breaker = self._breaker, (breaker.state, breaker.epoch)
        name = self._process.name
        if breaker.epoch != epoch:
            self._process.world.say(name, "breaker is %s", breaker.state)
            require(breaker.epoch == epoch + 1 and breaker.state != was, "breaker", "%s: %s", name, self._breaker)
            if breaker.state == "open":
                self._last_probe = now
                purged = any(isinstance(effect, ev.PurgeFront) for effect in effects)
                require(purged, "breaker", "%s opened without dropping what would only arrive stale", name)
            else:
                require(isinstance(event, ev.FrontAnswered), "breaker", "%s closed by %s", name, event)
        elif breaker.state == "open":
            for effect in effects:
                if isinstance(effect, ev.Forward):
                    gap_s = now - self._last_probe
                    require(gap_s > self._limits.probe_s - 1e-6, "breaker", "%s: probes %.3f s apart", name, gap_s)
                    self._last_probe = now
        require((breaker.epoch % 2 == 0) == (breaker.state == "closed"), "breaker", "%s: %s", name, self._breaker)


class Ledger:
    """What was offered and what was handed on, and what each hop must have said."""

    def __init__(self, shape: Shape) -> None:
        self.handed_on: dict[int, Answer] = {}
        self._shape = shape
        self._computed: defaultdict[tuple[str, int], list[float]] = defaultdict(list)

    def computed(self, tier: str, number: int, seconds: float) -> None:
        """A tier computed a stage for that content."""
        self._computed[tier, number].append(seconds * 1e3)

    def hand_on(self, ask: Ask, answer: Answer, since_s: float) -> None:
        """A device hands on an answer, so long after it first asked."""
        require(ask.number not in self.handed_on, "handed on once", "request %d has two answers", ask.number)
        self.handed_on[ask.number] = answer
        passed = [tier[0] for tier in self._shape.tiers[: len(answer.hops)]]
        told = [hop.tier for hop in answer.hops]
        require(told == passed, "hops", "request %d passed %s", ask.number, told)
        if answer.status == "ok":
            self._check_prediction(ask, answer)
        else:
            require(answer.reason in REFUSALS[answer.status], "answer", "request %d: %s", ask.number, answer)
            require(answer.index is None and answer.label is None, "answer", "request %d: %s", ask.number, answer)
        for hop in answer.hops:
            self._check_hop(ask, hop, since_s)

    def _check_prediction(self, ask: Ask, answer: Answer) -> None:
        position = self._shape.stages.index(answer.exit or "")
        truth = toy.verdict(position, ask.kind, ask.label)
        require(answer.label == LABELS[truth.index], "label", "request %d, %s: %s", ask.number, ask.request, answer)
        require(bool(answer.hops), "hops", "request %d passed nothing", ask.number)
        *before, last = answer.hops
        own = (last.tier, last.exit, last.index, last.confidence)
        require(own == (answer.tier, answer.exit, answer.index, answer.confidence), "hops", "%s", answer)
        require(answer.label == LABELS[answer.index or 0], "answer", "%s", answer)
        sure, at_last = truth.sure, position + 1 == len(self._shape.stages)
        reasons = ("final",) if at_last else ("confident",) if sure else FALLBACKS
        require(answer.reason in reasons, "reason", "%s, expected %s", answer, reasons)
        for hop in before:
            require(hop.bytes_up > 0 and hop.index is not None, "hops", "%s did not forward: %s", hop.tier, answer)

    def _check_hop(self, ask: Ask, hop: Hop, since_s: float) -> None:
        computed = self._computed[hop.tier, ask.content]
        spent_ms = hop.queue_ms + hop.compute_ms
        require(hop.queue_ms >= 0 and spent_ms <= hop.total_ms + 1e-3, "hops", "request %d: %s", ask.number, hop)
        most_ms = since_s * 1e3 * (1 + CLOCKS_APART) + 1e-3
        require(hop.total_ms <= most_ms, "hops", "request %d took %.3f ms: %s", ask.number, most_ms, hop)
        if hop.exit is None:
            return
        position = self._shape.stages.index(hop.exit)
        truth = toy.verdict(position, ask.kind, ask.label)
        require((hop.index, hop.confidence) == (truth.index, truth.confidence), "hops", "%s, truth is %s", hop, truth)
        one_stage = any(tier == (hop.tier,) for tier in self._shape.tiers)
        known = (
            any(abs(ms - hop.compute_ms) < 1e-6 for ms in computed)
            if one_stage
            else hop.compute_ms < sum(computed) + 1e-6
        )
        require(known, "hops", "%s, computed %s", hop, computed)


def _values(request: Request) -> Any:
    payload: Any = request.payload
    return tuple((name, values.dtype.str, values.tobytes()) for name, values in payload.items())


def _brief(it: Any) -> str:
    """An event or effect in a line; the same every time."""
    match it:
        case ev.Came(token, request, _, _, age_s):
            return f"came {_at(token)} {request.id} {request.budget_ms:.1f} ms, age {age_s * 1e3:.1f}"
        case ev.SendAnswer(token, _, _, answer, _):
            path = " ".join(f"{hop.tier}:{hop.total_ms:.2f}" for hop in answer.hops)
            return f"answer {_at(token)} {answer.request} {answer.status} {answer.reason} of {answer.tier} [{path}]"
        case ev.Forward(correlation, request, _):
            return f"forward {request.id} {request.budget_ms:.1f} ms as {_mark(correlation)}"
        case ev.FrontAnswered(correlation, answer):
            return f"front answers {_mark(correlation)} {answer and answer.reason}"
        case ev.Computed(work, _, _, _, failures):
            return f"computed {work} {len(failures)} failed"
        case ev.Submit(work, _, stage, inputs):
            return f"submit {work} {stage} of {len(inputs)}"
        case ev.ForwardFailed(correlation, text):
            return f"forward failed {_mark(correlation)} {text}"
        case ev.TakenAway(tokens, lost):
            return f"taken away{' and lost' if lost else ''} {' '.join(sorted(map(_at, tokens)))}"
        case _:
            words = [f"{_at(it.token)}"] if hasattr(it, "token") else []
            words += [
                str(getattr(it, name))
                for name in ("superseded", "permanent", "full", "code", "bytes_up")
                if hasattr(it, name)
            ]
            return " ".join([type(it).__name__, *words])


def _mark(correlation: bytes) -> str:
    return f"{correlation[:-8].decode()}{int.from_bytes(correlation[-8:], 'big')}"


def _at(token: Any) -> str:
    return f"{token.assignment.partition}:{token.assignment.epoch}:{token.offset}" if token else "-"
