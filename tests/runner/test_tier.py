from __future__ import annotations

import re
import threading
import time
from collections.abc import Iterator

import numpy as np
import pytest
import tier_world
from client import WAIT_S, Client
from memory_cascade import CASCADE, NAMES, MemoryCascade, ToyEngine, sample
from tier_world import DIGEST, model_of, stage

from branchy.core import wire
from branchy.core.messages import EncodedSample
from branchy.core.outbox import KEPT_S
from branchy.core.tier_events import Computed, Submit
from branchy.core.tier_model import TierLimits
from branchy.errors import RefusedError, TransportError
from branchy.runner.events import Stamper
from branchy.runner.tier import LOOK_AGAIN_S, TURNS, Back, Tier
from branchy.transport.base import Arrived, Delivery, Failed, Message, Revoked, SendError, Sent


@pytest.fixture
def cascade() -> Iterator[MemoryCascade]:
    cascade = MemoryCascade()
    yield cascade
    cascade.close()


@pytest.fixture
def whole(cascade: MemoryCascade) -> MemoryCascade:
    for name in reversed(NAMES):
        cascade.start(name)
    return cascade


@pytest.mark.parametrize(
    ("sure_at", "tier", "reason"), [(0, "edge", "confident"), (1, "fog", "confident"), (2, "cloud", "final")]
)
def test_each_tier_answers_what_its_exit_is_sure_of_and_every_tier_passed_adds_its_hop(whole, sure_at, tier, reason):
    request = whole.ask(sample(sure_at), to="edge")
    correlation, answer = whole.answer()
    assert correlation == request.encode()
    assert (answer.request, answer.status, answer.tier, answer.reason, answer.label) == (
        request,
        "ok",
        tier,
        reason,
        "c",
    )
    assert [hop.tier for hop in answer.hops] == list(NAMES[: sure_at + 1])
    assert [hop.bytes_up > 0 for hop in answer.hops] == [True] * sure_at + [False]
    for hop in answer.hops:
        assert 0 <= hop.queue_ms + hop.compute_ms <= hop.total_ms + 0.001


def test_hundreds_are_under_way_at_once_and_each_gets_its_own_answer(whole):
    asked = {whole.ask(sample(n % 3), to="edge"): NAMES[n % 3] for n in range(300)}
    assert {request: answer.tier for request, answer in whole.answers(300).items()} == asked


def test_the_trace_context_passes_every_hop(whole):
    trace = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
    whole.ask(sample(2), traceparent=trace, to="edge")
    event = whole.events.get(timeout=20)
    assert ("traceparent", trace.encode()) in list(event.message.headers)


def test_a_message_that_is_garbage_goes_to_the_dead_letters_and_the_tier_goes_on(whole):
    whole.put(
        Message([("branchy-model", b"x"), ("branchy-stage", b"edge"), ("ce_id", b"g1")], b"garbage"),
        correlation=b"g",
        to="edge",
    )
    correlation, answer = whole.answer()
    assert (correlation, answer.request, answer.status, answer.reason) == (b"g", "g1", "error", "malformed")
    (dead,) = whole.dead("edge")
    headers = dict(dead.headers)
    assert (headers["branchy-error-code"], headers["branchy-tier"]) == (b"body", b"edge")
    assert b"safetensors" in headers["branchy-error"]
    assert (dead.body, headers["ce_id"]) == (b"garbage", b"g1")
    whole.ask(sample(0), to="edge")
    assert whole.answer()[1].status == "ok"


def test_a_request_that_asks_for_no_reply_goes_to_the_dead_letters(whole):
    whole.put(Message([], b""), to="edge", reply=False)
    whole.ask(sample(0), to="edge")
    assert whole.answer()[1].status == "ok"
    assert dict(whole.dead("edge")[0].headers)["branchy-error-code"] == b"reply-to"


def test_another_models_request_is_rejected(whole):
    whole.ask(sample(0), model="e" * 64, to="edge")
    assert (whole.answer()[1].status, whole.dead("edge")) == ("rejected", [])


def test_a_model_that_raises_fails_its_own_requests_only(whole):
    failing = whole.ask(sample(0, ToyEngine.FAIL), to="edge")
    answer = whole.answer()[1]
    assert (answer.request, answer.status, answer.reason) == (failing, "error", "failed")
    assert "this model cannot" in answer.detail
    assert dict(whole.dead("edge")[0].headers)["branchy-error-code"] == b"failed"
    whole.ask(sample(0), to="edge")
    assert whole.answer()[1].status == "ok"


def test_a_damaged_image_fails_alone(whole):
    whole.ask(EncodedSample("image/png", b"not an image"), to="edge")
    answer = whole.answer()[1]
    assert (answer.status, answer.reason, answer.detail) == ("error", "failed", "damaged image")


def test_a_front_that_is_not_there_is_answered_for_by_the_own_exit(cascade):
    cascade.start("edge")
    cascade.ask(sample(2), budget_ms=100.0, to="edge")
    answer = cascade.answer()[1]
    assert (answer.status, answer.tier, answer.reason, answer.exit) == ("ok", "edge", "timeout", "edge")


def test_the_breaker_says_when_it_opens_and_when_it_closes(cascade, caplog):
    caplog.set_level("INFO", logger="branchy")
    edge = cascade.start("edge", TierLimits(probe_s=0.01))
    for _ in range(20):
        cascade.ask(sample(1), to="edge", budget_ms=200.0)
    assert {answer.reason for answer in cascade.answers(20).values()} == {"timeout"}
    cascade.start("fog")
    reason = ""
    while reason != "confident":
        cascade.ask(sample(1), to="edge")
        reason = cascade.answer()[1].reason
    edge.stop()
    said = [record.getMessage() for record in caplog.records if "breaker" in record.getMessage()]
    assert said == [
        "circuit breaker open: 20 of the last 20 forwards failed",
        "circuit breaker closed: the front answers again",
    ]


def test_a_front_with_another_model_is_answered_for_at_once(cascade):
    cascade.start("edge")
    fog = cascade.start("fog")
    fog.tier.machine._models.clear()
    cascade.ask(sample(2), to="edge")
    answer = cascade.answer()[1]
    assert (answer.tier, answer.reason) == ("edge", "rejected")


def test_a_forward_whose_queue_is_full_is_answered_for_at_once(cascade):
    edge = cascade.start("edge")
    edge.tier._front.sender._queue_limit = 0
    cascade.ask(sample(2), to="edge")
    assert cascade.answer()[1].reason == "unreachable"


def test_told_to_stop_it_answers_what_is_pending_and_settles_everything(cascade):
    edge = cascade.start("edge")
    asked = {cascade.ask(sample(2), to="edge") for _ in range(20)}
    while edge.tier.machine.counters["came"] < 20:
        pass
    edge.stop()
    answers = cascade.answers(20)
    assert set(answers) == asked
    assert {a.reason for a in answers.values()} <= {"handover", "unreachable"}
    assert edge.back.source.unsettled() == 0
    assert edge.engines[0].closed


def test_what_a_killed_replica_had_taken_is_answered_by_another(cascade):
    first = cascade.start("edge")
    asked = {cascade.ask(sample(0, ToyEngine.HOLD), to="edge")}
    assert cascade.computing.wait(20)
    asked |= {cascade.ask(sample(0), to="edge") for _ in range(10)}
    cascade.hold.set()
    first.vanish()
    cascade.start("edge")
    answers = [cascade.answer()[1].request for _ in range(len(asked))]
    assert set(answers) == asked


@pytest.mark.parametrize("replica", ["0", "1"], ids=["one reply address", "an address each"])
def test_two_devices_that_count_alike_get_each_its_own_answer_from_the_tier_behind(cascade, replica):
    """The edge asks the fog for both under its own address: there the same id comes from one address in any case."""
    edge, fog, _ = (cascade.start(name) for name in NAMES)
    edge.engines[0].hold, edge.engines[0].started = threading.Event(), threading.Event()
    edge.engines[0].hold.set()
    other = Client(cascade.open_link("other"), CASCADE, NAMES, DIGEST, replica)
    try:
        cascade.ask(sample(1, ToyEngine.HOLD), to="edge")
        assert cascade.computing.wait(WAIT_S)
        cascade.ask(sample(1), to="edge", id="1", correlation=b"one's first")
        other.ask(sample(2), to="edge", id="1", correlation=b"other's first")
        while fog.tier.machine.waiting < 2:
            pass
        cascade.hold.set()
        mine = dict(cascade.answer() for _ in range(2 if replica == "1" else 3))
        others = dict(other.answer() for _ in range(1 if replica == "1" else 3))
    finally:
        other.close()
    assert mine[b"one's first"].tier == "fog"
    assert others[b"other's first"].tier == "cloud"
    assert not edge.tier.machine.counters["again"] + fog.tier.machine.counters["again"]


def test_a_revocation_is_over_once_what_was_pending_is_answered(cascade):
    edge = cascade.start("edge")
    asked = {cascade.ask(sample(2), to="edge") for _ in range(5)}
    while edge.tier.machine.pending < 5:
        pass
    edge.back.source.revoke(wait_s=20)
    answers = cascade.answers(5)
    assert set(answers) == asked
    assert {a.reason for a in answers.values()} == {"handover"}
    assert edge.back.source.unsettled() == 0


BODY_BYTES = len(wire.encode_tensors({"sample": sample()}))


def test_the_source_is_paused_while_the_bodies_held_are_over_the_bound(cascade):
    """While the model is at one, the others wait with no prediction to answer them with."""
    edge = cascade.start("edge", TierLimits(held_bytes=4 * BODY_BYTES))
    asked = {cascade.ask(sample(0, ToyEngine.HOLD), to="edge", budget_ms=20_000.0)}
    assert cascade.computing.wait(WAIT_S)
    asked |= {cascade.ask(sample(0), to="edge", budget_ms=20_000.0) for _ in range(20)}
    while not edge.tier.machine.counters["paused"]:
        pass
    cascade.hold.set()
    assert set(cascade.answers(21)) == asked
    assert edge.tier.between_turns(lambda now: edge.tier.machine.held_bytes, WAIT_S) == 0


def test_bodies_that_wait_for_a_front_that_is_away_do_not_pause_the_source(cascade):
    """Each would wait for its deadline, body and all, and the sure behind them with it."""
    edge = cascade.start("edge", TierLimits(held_bytes=5 * BODY_BYTES))
    pending = {cascade.ask(sample(2), to="edge", budget_ms=20_000.0) for _ in range(2)}
    while edge.tier.machine.pending < 2:
        pass
    for sure_at, reason in ((2, "overload"), (0, "confident"), (2, "overload")):
        cascade.ask(sample(sure_at), to="edge", budget_ms=20_000.0)
        assert cascade.answer()[1].reason == reason
    assert not edge.tier.machine.counters["paused"]
    edge.tier.stop()
    assert set(cascade.answers(2)) == pending


class NoRoom:
    """Both ends of a back whose send queue is full until `room` is set."""

    def __init__(self) -> None:
        self.sent: list[str] = []
        self.tags: list[object] = []
        self.settled: list[object] = []
        self.room = False

    def send(self, to: str, message: Message, tag: object, **more: object) -> bool:
        if self.room:
            self.sent.append(to)
            self.tags.append(tag)
        return self.room

    def submit(self, work: object) -> None:
        pass

    def settle(self, token: object) -> None:
        self.settled.append(token)

    start = pause = resume = lambda self: None


def stuck_tier(clock=time.monotonic) -> tuple[Tier, NoRoom]:
    """A tier, driven by steps, that has a dead letter it finds no room for."""
    tier, back = Tier("edge", [model_of((stage("edge", None, "fog"),))], TierLimits(), clock), NoRoom()
    tier.begin(Back(back, back, "dead"), None, back)
    tier.step([Arrived([Delivery("token", Message([], b"garbage"), 0.0, None, None)])])
    return tier, back


def test_a_dead_letter_whose_partition_is_lost_is_neither_kept_nor_sent():
    tier, back = stuck_tier()
    tier.step([Revoked(frozenset({"token"}), threading.Event(), lost=True)])
    assert not tier._deliveries
    back.room = True
    tier.step([])
    assert not back.sent
    assert tier.wait_s is None, "nothing waits for room any more"


def test_a_dead_letter_too_large_for_its_topic_says_where_the_message_lies(cascade, caplog):
    edge, limit_bytes = cascade.start("edge"), 2_000
    body = bytes(limit_bytes)
    cascade.broker.max_message_bytes = limit_bytes  # more was taken once: a setting was changed
    cascade.broker.put("branchy.toy.edge.requests", Message([], body), correlation=body)
    cascade.ask(sample(0), to="edge")
    cascade.answer()
    (dead,) = cascade.dead("edge")
    headers = dict(dead.headers)
    assert (dead.body, headers["branchy-error-code"]) == (b"", b"reply-to")
    assert re.match(rb"\d+ is left out, it is too large for the dead letters: ", headers["branchy-error"])
    assert edge.back.source.unsettled() == 0


def test_a_dead_letter_that_may_not_be_written_is_kept_and_the_log_says_so_now_and_then(caplog):
    now = 100.0
    tier, back = stuck_tier(lambda: now)
    back.room = True
    for tries in range(1, 251):
        tier.step([])
        assert len(back.sent) == tries
        (tag,) = back.tags[tries - 1 :]
        tier.step([Sent(tag, SendError("not allowed", permanent=True))])
        assert tier.wait_s == pytest.approx(KEPT_S)
        now += KEPT_S
    assert not back.settled
    for said in ("a dead letter was not delivered", "dead letter "):
        assert sum(record.getMessage().startswith(said) for record in caplog.records) == 101
    tier.step([])
    tier.step([Sent(back.tags[-1], None)])
    assert back.settled == ["token"]


def test_a_full_send_queue_makes_no_deadline_late():
    tier, _ = stuck_tier(lambda: 100.0)
    assert tier.wait_s == LOOK_AGAIN_S
    request = tier_world.request(tier_world.TIERS["first"], 1, budget_ms=20.0)
    message = Message(*wire.encode_request(request, Stamper("/test")()))
    tier.step([Arrived([Delivery("another", message, 0.0, "device", b"c")])])
    assert tier.wait_s == pytest.approx(0.02)


def test_an_answer_that_waits_for_room_keeps_no_message():
    tier, _ = stuck_tier(lambda: 100.0)
    kept = set(tier._deliveries)
    request = tier_world.request(tier_world.TIERS["first"], 1, model="e" * 64)
    message = Message(*wire.encode_request(request, Stamper("/test")()))
    tier.step([Arrived([Delivery("refused", message, 0.0, "device", b"c")])])
    assert [effect.token for effect, _ in tier._unsent][-1] == "refused"
    assert set(tier._deliveries) == kept


def test_answers_wait_their_turn_while_the_back_queue_is_full_and_none_is_lost(cascade):
    edge = cascade.start("edge", TierLimits(batch_size=4))
    sender = edge.back.sender
    real, refusals = sender.send, iter([False] * 5)
    sender.send = lambda *args, **kwargs: next(refusals, True) and real(*args, **kwargs)
    asked = {cascade.ask(sample(0), to="edge") for _ in range(30)}
    assert set(cascade.answers(30)) == asked
    assert next(refusals, None) is None


def test_a_plain_json_request_of_a_person_is_answered(whole):
    whole.put(Message([("content-type", b"application/json")], b'{"sample": [0, 0, 0, 0]}'), to="edge")
    answer = whole.answer()[1]
    assert (answer.status, answer.label) == ("ok", "c")


def test_an_answer_from_the_front_that_cannot_be_read_is_a_refusal(cascade):
    edge = cascade.start("edge")
    cascade.ask(sample(2), to="edge")
    requests = "branchy.toy.fog.requests"
    while not cascade.broker.messages(requests):
        pass
    stored = cascade.broker.topics[requests].log[0]
    cascade.sender.send(
        stored.reply_to, Message([("ce_type", wire.ANSWER_TYPE.encode())], b"{"), "t", correlation=stored.correlation
    )
    assert cascade.answer()[1].reason == "rejected"
    assert edge.tier.machine.counters["front.unreadable"] == 1


def test_a_flood_of_garbage_does_not_flood_the_log(whole, caplog):
    for _ in range(350):
        whole.put(Message([], b"garbage"), to="edge")
    whole.ask(sample(0), to="edge")
    while whole.answer()[1].status != "ok":
        pass
    assert len(whole.dead("edge")) == 350
    assert sum("dead letter" in record.getMessage() for record in caplog.records) == 102


def test_what_comes_while_a_tier_is_looked_at_is_worked_off_afterwards(cascade):
    edge = cascade.start("edge")

    def look(now: float) -> int:
        cascade.ask(sample(0), to="edge")
        return edge.tier.machine.counters["came"]

    assert edge.tier.between_turns(look, 20) == 0
    assert cascade.answer()[1].reason == "confident"


def test_a_tier_that_is_stuck_in_a_turn_cannot_be_looked_at(cascade):
    tier = cascade.start("edge").tier
    with tier._turn:
        assert tier.between_turns(lambda now: True, 0.0) is None
    assert tier.between_turns(lambda now: True, 20)


class Still:
    """Both ends of a back, and an executor, that take note of the threads they are called in."""

    def __init__(self) -> None:
        self.threads: list[str] = []
        self.tags: list[object] = []

    def send(self, to: str, message: Message, tag: object, **more: object) -> bool:
        self.threads.append(threading.current_thread().name)
        self.tags.append(tag)
        return True

    def flush(self, timeout_s: float) -> int:
        return 0

    start = pause = resume = settle = lambda self, *_: None


@pytest.fixture
def running() -> Iterator[tuple[Tier, Still, threading.Thread]]:
    """A tier that runs in a thread of its own, with ends that do nothing."""
    tier, still = Tier("edge", [model_of((stage("edge", None, "fog"),))], TierLimits()), Still()
    began = threading.Event()
    still.start = began.set
    thread = threading.Thread(target=tier.run, args=(Back(still, still, "dead"), None, still), name="run")
    thread.start()
    assert began.wait(20)
    yield tier, still, thread
    tier.stop()
    thread.join(20)
    assert not thread.is_alive()


def garbage(number: int) -> Arrived:
    return Arrived([Delivery(number, Message([], b"garbage"), 0.0, None, None)])


def acknowledge(tier: Tier, still: Still) -> None:
    tier.sink(*[Sent(tag, None) for tag in still.tags])


def test_an_event_is_worked_off_by_the_thread_that_brings_it(running):
    tier, still, _ = running
    with tier._turn:
        pass  # `run` has taken its first turn, and sleeps or is about to
    tier.sink(garbage(1))
    while len(still.threads) < 1:
        pass
    assert set(still.threads) <= {threading.current_thread().name, "run"}
    for number in range(2, 100):
        tier.sink(garbage(number))
    acknowledge(tier, still)
    assert still.threads.count(threading.current_thread().name) > 90


def test_quick_batches_beyond_what_a_turn_takes_are_worked_off_though_nothing_else_comes():
    class Quick(Still):
        def submit(self, work: Submit) -> Computed:
            n = len(work.inputs)
            logits = np.tile(np.asarray(tier_world.SURE, np.float32), (n, 1))
            return Computed(work.work, {"logits": logits, "activation": np.zeros((n, 4), np.float32)}, 0.0, 0.0, {})

    stages = (stage("edge", None, "fog"),)
    tier, quick = Tier("edge", [model_of(stages)], TierLimits(batch_size=1)), Quick()
    thread = threading.Thread(target=tier.run, args=(Back(quick, quick, "dead"), None, quick), daemon=True)
    stamp = Stamper("/test")
    messages = [
        Message(*wire.encode_request(tier_world.request(stages, n, 30_000.0), stamp())) for n in range(4 * TURNS)
    ]
    tier.sink(Arrived([Delivery(n, each, 0.0, "device", b"%d" % n) for n, each in enumerate(messages)]))
    thread.start()
    give_up_s = time.monotonic() + 20
    while len(quick.tags) < 4 * TURNS and time.monotonic() < give_up_s:
        time.sleep(0.001)
    assert len(quick.tags) == 4 * TURNS
    acknowledge(tier, quick)
    tier.stop()
    thread.join(20)
    assert not thread.is_alive()


def test_it_ends_with_what_brokers_refuse_its_consumer_for(cascade):
    edge = cascade.start("edge")
    assert edge.tier.between_turns(lambda now: True, 20)
    refused: list[BaseException] = []
    hook, threading.excepthook = threading.excepthook, lambda args: refused.append(args.exc_value)
    try:
        edge.tier.sink(Failed(RefusedError("fenced")), Failed(TransportError("what came of that")))
        edge.thread.join(20)
    finally:
        threading.excepthook = hook
    assert [(type(error), str(error)) for error in refused] == [(RefusedError, "fenced")]


def test_no_event_is_left_behind_when_many_threads_bring_them_at_once(running):
    tier, still, _ = running
    together = threading.Barrier(8)

    def bring(first: int) -> None:
        together.wait()
        for number in range(first, first + 500):
            tier.sink(garbage(number))

    threads = [threading.Thread(target=bring, args=(1000 * n,)) for n in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    give_up_s = time.monotonic() + 20
    while len(still.tags) < 4000 and time.monotonic() < give_up_s:
        time.sleep(0.001)
    assert len(still.tags) == 4000
    acknowledge(tier, still)


def test_an_event_that_comes_while_another_thread_is_at_it_waits_for_nobody(running):
    tier, still, _ = running
    with tier._turn:  # somebody is at it
        tier.sink(garbage(1))
        assert not still.tags
    tier.sink(garbage(2))
    while len(still.tags) < 2:
        pass
    acknowledge(tier, still)


def test_a_deadline_that_comes_sooner_than_the_one_slept_for_is_kept(cascade):
    cascade.start("edge")
    slow = cascade.ask(sample(2), budget_ms=20_000.0, to="edge")
    quick = cascade.ask(sample(2), budget_ms=100.0, to="edge")
    answer = cascade.answer()[1]
    assert (answer.request, answer.reason) == (quick, "timeout")
    assert slow != quick


def test_a_fault_of_the_tiers_own_in_a_transports_thread_ends_it(monkeypatch):
    tier, still = Tier("edge", [model_of((stage("edge", None, "fog"),))], TierLimits()), Still()
    monkeypatch.setattr(tier, "_request", lambda delivery: 1 / 0)

    def bring_until_it_fails() -> None:
        while True:  # `run` may be at it itself
            tier.sink(garbage(1))

    def bring() -> None:
        with pytest.raises(ZeroDivisionError):
            bring_until_it_fails()

    thread = threading.Thread(target=bring)
    still.start = thread.start
    with pytest.raises(ZeroDivisionError):
        tier.run(Back(still, still, "dead"), None, still)
    thread.join()
