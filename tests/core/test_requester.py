import itertools
import math
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from branchy.core import requester as requester_module
from branchy.core.messages import Answer
from branchy.core.requester import Outcome, Requester, Schedule
from branchy.errors import UsageError

MODEL = "a" * 64
LABELS = ("zero", "one")
PREFIX = b"this-run"
TIMEOUT_S = 3.0


def make(timeout_s: float = TIMEOUT_S) -> Requester:
    tiers = frozenset({"edge", "cloud"})
    return Requester(model=MODEL, labels=LABELS, tiers=tiers, prefix=PREFIX, timeout_s=timeout_s)


def answer(request: str, /, **changes) -> Answer:
    good = Answer(request, "ok", "confident", "edge", MODEL, label="one", index=1, confidence=0.9)
    return replace(good, **changes)


UNLABELLED = {"label": None, "index": None, "confidence": None}
UNFIT = [
    {"request": "another"},
    {"tier": "moon"},
    {"index": 2},
    {"index": 0},
    {"label": "two"},
    {"status": "rejected", "tier": "moon", **UNLABELLED},
]


def test_the_answer_to_a_request_is_its_outcome():
    requester = make()
    correlation = requester.send("r", 7, now=1.0, intended_s=0.75, bytes_sent=300)
    outcome = requester.take(correlation, answer("r"), now=1.5)
    assert outcome == Outcome("r", 7, 0.75, answer("r"), None, 300)
    assert requester.in_flight == 0


def test_answers_out_of_order_go_to_their_own_requests():
    requester = make()
    sent = {f"r{i}": requester.send(f"r{i}", i, now=0.0, intended_s=0.0) for i in range(3)}
    for request in ("r2", "r0", "r1"):
        outcome = requester.take(sent[request], answer(request), now=1.0)
        assert outcome is not None
        assert (outcome.request, outcome.index) == (request, int(request[1]))


def test_correlations_are_fresh_and_start_with_the_prefix():
    requester = make()
    correlations = [requester.send("same", 0, now=0.0, intended_s=0.0) for _ in range(300)]
    assert len(set(correlations)) == 300
    assert all(c.startswith(PREFIX) for c in correlations)


def test_a_second_answer_is_counted_and_dropped():
    requester = make()
    correlation = requester.send("r", 0, now=0.0, intended_s=0.0)
    requester.take(correlation, answer("r"), now=1.0)
    assert requester.take(correlation, answer("r"), now=1.1) is None
    assert requester.counters == {"duplicates": 1}


def test_a_request_is_given_up_when_its_time_is_over_and_its_late_answer_is_counted():
    requester = make()
    correlation = requester.send("r", 0, now=10.0, intended_s=9.0)
    assert requester.wakeup == 13.0
    assert requester.advance(12.999) == []
    assert requester.advance(13.0) == [Outcome("r", 0, 4.0, None, "no answer within 3 s")]
    assert requester.wakeup is None
    assert requester.take(correlation, answer("r"), now=13.1) is None
    assert requester.counters == {"late": 1}


@pytest.mark.parametrize("changes", UNFIT)
def test_an_answer_that_does_not_fit_is_garbage_and_a_good_one_is_still_waited_for(changes):
    requester = make()
    correlation = requester.send("r", 0, now=0.0, intended_s=0.0)
    assert requester.take(correlation, answer("r", **changes), now=1.0) is None
    assert requester.counters == {"garbage": 1}
    outcome = requester.take(correlation, answer("r"), now=1.0)
    assert outcome is not None
    assert outcome.answer == answer("r")


def test_when_only_garbage_came_the_outcome_says_so():
    requester = make()
    correlation = requester.send("r", 0, now=0.0, intended_s=0.0)
    requester.take(correlation, None, now=1.0)
    (outcome,) = requester.advance(TIMEOUT_S)
    assert (outcome.answer, outcome.fault) == (None, "only an unreadable answer came")


def test_an_answer_of_another_model_is_not_handed_on_and_named():
    requester = make()
    correlation = requester.send("r", 0, now=0.0, intended_s=0.0)
    outcome = requester.take(correlation, answer("r", model="b" * 64), now=1.0)
    assert outcome is not None
    assert outcome.answer is None
    assert outcome.fault == "the answer is of another model: expected aaaaaaaaaaaa, got 'bbbbbbbbbbbbbbbbbbb"
    assert requester.counters == {"foreign": 1}


@pytest.mark.parametrize("status", ["rejected", "error"])
def test_a_refusal_is_handed_on_whatever_model_the_tier_has(status):
    requester = make()
    correlation = requester.send("r", 0, now=0.0, intended_s=0.0)
    refusal = answer("r", status=status, reason="digest", model="b" * 64, **UNLABELLED)
    outcome = requester.take(correlation, refusal, now=1.0)
    assert outcome is not None
    assert outcome.answer == refusal


@pytest.mark.parametrize("correlation", [None, b"", PREFIX, b"other-it" + bytes(8), PREFIX + bytes(7) + b"\x01"])
def test_an_answer_to_nobodys_request_is_stray(correlation):
    requester = make()
    requester.send("r", 0, now=0.0, intended_s=0.0)
    assert requester.take(correlation, answer("r"), now=1.0) is None
    assert requester.counters == {"stray": 1}
    assert requester.in_flight == 1


def test_a_request_that_the_broker_refused_ends_with_its_reason_and_only_once():
    requester = make()
    correlation = requester.send("r", 0, now=0.0, intended_s=0.0)
    assert requester.refuse(correlation, "too large", now=0.5) == Outcome("r", 0, 0.5, None, "too large")
    assert requester.refuse(correlation, "too large", now=0.5) is None
    assert requester.refuse(b"unknown", "too large", now=0.5) is None


def test_what_is_remembered_of_given_up_requests_is_bounded(monkeypatch):
    monkeypatch.setattr(requester_module, "LATE_KEPT", 2)
    requester = make()
    sent = [requester.send(f"r{i}", i, now=0.0, intended_s=0.0) for i in range(3)]
    requester.advance(TIMEOUT_S)
    for i, correlation in enumerate(sent):
        requester.take(correlation, answer(f"r{i}"), now=4.0)
    assert requester.counters == {"duplicates": 1, "late": 2}


class EachRequestEndsOnce(RuleBasedStateMachine):
    """Any order of sends, answers good and bad, refusals by the broker, and time."""

    @initialize()
    def start(self):
        self.requester = make()
        self.now = 0.0
        self.sent: dict[str, tuple[bytes, float]] = {}
        self.ended: dict[str, Outcome] = {}
        self.dropped = 0

    def end(self, outcome: Outcome | None):
        if outcome is not None:
            assert outcome.request in self.sent
            assert outcome.request not in self.ended
            self.ended[outcome.request] = outcome

    def any_request(self, data) -> str:
        return data.draw(st.sampled_from(sorted(self.sent) or ["none"]))

    def take(self, correlation: bytes | None, what: Answer | None) -> Outcome | None:
        outcome = self.requester.take(correlation, what, self.now)
        self.dropped += outcome is None or outcome.answer is None
        self.end(outcome)
        return outcome

    @rule()
    def send(self):
        request = f"r{len(self.sent)}"
        self.sent[request] = self.requester.send(request, 0, now=self.now, intended_s=self.now), self.now

    @rule(data=st.data())
    def good_answer(self, data):
        request = self.any_request(data)
        correlation, _ = self.sent.get(request, (b"unknown", 0))
        was_open = request in self.sent and request not in self.ended
        outcome = self.take(correlation, answer(request))
        assert (outcome is not None and outcome.answer == answer(request)) == was_open

    @rule(data=st.data(), changes=st.sampled_from([*UNFIT, None, {"model": "b" * 64}]))
    def bad_answer(self, data, changes):
        request = self.any_request(data)
        correlation, _ = self.sent.get(request, (b"unknown", 0))
        outcome = self.take(correlation, changes and answer(request, **changes))
        assert outcome is None or outcome.answer is None

    @rule(correlation=st.none() | st.binary(max_size=20))
    def stray_answer(self, correlation):
        self.take(correlation, answer("r0"))

    @rule(data=st.data())
    def broker_refuses(self, data):
        request = self.any_request(data)
        correlation, _ = self.sent.get(request, (b"unknown", 0))
        self.end(self.requester.refuse(correlation, "no", self.now))

    @rule(seconds=st.floats(0, 2))
    def time_passes(self, seconds):
        self.now += seconds
        for outcome in self.requester.advance(self.now):
            self.end(outcome)
        for request, (_, sent_s) in self.sent.items():
            assert (request in self.ended) or sent_s + TIMEOUT_S > self.now

    @invariant()
    def nothing_is_lost(self):
        assert self.requester.in_flight == len(self.sent) - len(self.ended)
        assert sum(self.requester.counters.values()) == self.dropped

    def teardown(self):
        self.now += TIMEOUT_S + 1
        for outcome in self.requester.advance(self.now):
            self.end(outcome)
        assert self.ended.keys() == self.sent.keys()


TestEachRequestEndsOnce = EachRequestEndsOnce.TestCase


# --- the schedule ----------------------------------------------------------------------------------------------------


def test_a_closed_loop_sends_the_next_when_the_last_has_ended():
    schedule = Schedule()
    assert schedule.wait_s(0.0, in_flight=0) == 0.0
    assert schedule.send(0.5) == 0.5
    assert schedule.wait_s(9.0, in_flight=1) is None
    assert schedule.wait_s(9.0, in_flight=0) == 0.0


@given(st.integers(1, 100), st.integers(0, 200))
def test_a_window_has_room_below_its_size(window, in_flight):
    wait = Schedule(window=window).wait_s(0.0, in_flight)
    assert (wait == 0.0) == (in_flight < window)
    assert wait in (0.0, None)


def test_a_rate_sends_on_schedule_whatever_is_in_flight():
    schedule = Schedule(rate=4.0)
    assert schedule.wait_s(100.0, 0) == 0.0
    assert schedule.send(100.0) == 100.0
    assert schedule.wait_s(100.05, 1) == pytest.approx(0.2)
    assert schedule.wait_s(100.25, 1) == 0.0


def test_a_rate_that_fell_behind_catches_up_and_counts_from_the_intended_times():
    schedule = Schedule(rate=10.0)
    schedule.wait_s(0.0, 0)
    late_s = 0.35
    intended = []
    while schedule.wait_s(late_s, 0) == 0.0:
        intended.append(schedule.send(late_s))
    assert intended == pytest.approx([0.0, 0.1, 0.2, 0.3])


def test_a_rate_is_bounded_in_flight_and_counts_each_request_that_waited_once():
    schedule = Schedule(rate=10.0, limit=2)
    schedule.send(0.0)
    schedule.send(0.1)
    assert schedule.wait_s(0.15, 2) == pytest.approx(0.05)
    for now in (0.2, 0.3, 0.4):
        assert schedule.wait_s(now, 2) is None
    assert schedule.capped == 1
    assert schedule.wait_s(0.4, 1) == 0.0
    assert schedule.send(0.4) == pytest.approx(0.2)
    assert schedule.wait_s(0.4, 2) is None
    assert schedule.capped == 2


@given(st.floats(0.1, 1e5), st.integers(1, 50))
def test_a_rate_does_not_drift(rate, count):
    schedule = Schedule(rate=rate)
    schedule.wait_s(5.0, 0)
    intended = [schedule.send(now=math.inf) for _ in range(count)]
    assert intended == pytest.approx([5.0 + i / rate for i in range(count)])
    assert all(a < b for a, b in itertools.pairwise(intended))


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        ({"window": 0}, "window: expected at least 1 request in flight, got 0"),
        ({"rate": 0.0}, "rate: expected requests a second above 0, got 0"),
        ({"rate": -1.0}, "rate: expected"),
        ({"rate": math.nan}, "rate: expected"),
        ({"rate": math.inf}, "rate: expected"),
        ({"window": 2, "rate": 1.0}, "expected a window or a rate, got both"),
    ],
)
def test_a_wrong_schedule_is_refused(kwargs, message):
    with pytest.raises(UsageError, match=message):
        Schedule(**kwargs)
