"""The machine's rules, one at a time; `test_tier_machine_rules.py` mixes them."""

from __future__ import annotations

import weakref
from dataclasses import replace

import numpy as np
import pytest
import tier_world as w

from branchy.core import tier_events as ev
from branchy.core.deadline import LONGEST_GRACE_S
from branchy.core.messages import EncodedSample
from branchy.core.outbox import KEPT_S
from branchy.core.tier_machine import TierMachine
from branchy.core.tier_model import TierLimits

LIMITS = TierLimits(batch_size=8, pending=4, backlog=16, unsettled=64, way_back_s=0.01, window_s=10.0, probe_s=2.0)

VIEW = np.frombuffer(bytes(16), np.float32)
"""A tensor as the wire gives it: a view of the body."""


def world(kind: str = "first", limits: TierLimits = LIMITS, *, certified: bool = False) -> w.World:
    stages = w.TIERS[kind]
    model = w.model_of(stages, certified=certified)
    return w.World(TierMachine(stages[0].name, [model], limits, b"p"), stages, limits)


def ask(world: w.World, number: int = 1, row=w.UNSURE, **changes) -> int:
    """One request, arrived and computed with these logits."""
    token = world.arrive(w.request(world.stages, number, **changes))
    compute_all(world, row)
    return token


def compute_all(world: w.World, row=w.UNSURE, failures=None) -> None:
    world.advance()
    while world.works:
        work, submit = next(iter(world.works.items()))
        world.compute(work, [row] * len(submit.inputs), failures or {})
        world.advance()


def answer_of(world: w.World, token: int):
    effect = world.tokens[token].terminal
    assert isinstance(effect, ev.SendAnswer), effect
    return effect.answer


def reply(world: w.World, correlation: bytes, **changes) -> None:
    world.handle(ev.FrontAnswered(correlation, w.front_answer(world.forwards[correlation], **changes)))


# --- who answers -----------------------------------------------------------------------------------------------------


def test_a_sure_exit_answers_at_once():
    tier = world()
    answer = answer_of(tier, ask(tier, row=w.SURE))
    assert (answer.status, answer.reason, answer.tier, answer.exit, answer.label) == (
        "ok",
        "confident",
        "edge",
        "edge",
        "a",
    )
    assert not tier.forwards


def test_the_last_tier_answers_whether_sure_or_not():
    tier = world("last")
    assert answer_of(tier, ask(tier, row=w.UNSURE)).reason == "final"


def test_an_unsure_one_goes_up_with_what_is_left_of_its_budget():
    tier = world()
    token = tier.arrive(w.request(tier.stages, 1, 1000.0), age_s=0.3)
    tier.advance()
    tier.now += 0.1
    (work,) = tier.works
    effects = tier.machine.handle(
        ev.Computed(
            work,
            {"logits": np.asarray([w.UNSURE], np.float32), "activation": np.ones((1, 4), np.float32)},
            tier.now,
            tier.now,
            {},
        ),
        tier.now,
    )
    (forward,) = effects
    assert isinstance(forward, ev.Forward)
    assert forward.request.budget_ms == pytest.approx(1000 - 300 - 100 - 10)
    assert forward.request.stage == "fog"
    assert list(forward.request.payload) == ["activation"]
    assert tier.tokens[token].terminal is None


def _forwarded(tier: w.World, payload) -> ev.Forward:
    """What goes up of a request with this payload, whose sample is 1, 2, 3, 4."""
    tier.arrive(w.request(tier.stages, 1, payload=payload))
    tier.advance()
    outputs = {"logits": np.asarray([w.UNSURE], np.float32), "sample": np.array([[1, 2, 3, 4]], np.uint8)}
    (forward,) = tier.machine.handle(ev.Computed(*tier.works, outputs, tier.now, tier.now, {}), tier.now)
    return forward


def test_where_the_uplink_is_the_sample_its_pixels_go_up():
    forward = _forwarded(world("handing-on"), {"sample": np.array([1, 2, 3, 4], np.uint8)})
    assert {name: values.tolist() for name, values in forward.request.payload.items()} == {"sample": [1, 2, 3, 4]}
    assert (forward.uplink.dtype, forward.request.stage) == ("uint8", "fog")


@pytest.mark.parametrize(("size_bytes", "as_it_came"), [(3, True), (4, False)])
def test_an_image_goes_up_as_it_came_where_it_is_smaller_than_its_pixels(size_bytes, as_it_came):
    image = EncodedSample("image/jpeg", b"j" * size_bytes)
    payload = _forwarded(world("handing-on"), image).request.payload
    assert (payload is image) == as_it_came
    assert as_it_came or list(payload) == ["sample"]


def test_a_tier_that_only_hands_activations_on_sends_no_image_up():
    tier = world()
    tier.arrive(w.request(tier.stages, 1, payload=EncodedSample("image/png", b"x")))
    tier.advance()
    outputs = {"logits": np.asarray([w.UNSURE], np.float32), "activation": np.ones((1, 4), np.float32)}
    (forward,) = tier.machine.handle(ev.Computed(*tier.works, outputs, tier.now, tier.now, {}), tier.now)
    assert list(forward.request.payload) == ["activation"]


def test_the_fronts_answer_comes_back_with_the_own_hop_first():
    tier = world()
    token = ask(tier)
    (correlation,) = tier.forwards
    tier.handle(ev.ForwardEncoded(correlation, 321))
    tier.now += 0.05
    reply(tier, correlation)
    answer = answer_of(tier, token)
    assert (answer.tier, answer.reason, answer.index) == ("cloud", "final", 1)
    assert [hop.tier for hop in answer.hops] == ["edge"]
    hop = answer.hops[0]
    assert (hop.index, hop.bytes_up) == (0, 321)
    assert hop.total_ms == pytest.approx(50.0, abs=2)


def test_two_stages_in_one_tier_run_one_after_the_other():
    tier = world("two")
    tier.arrive(w.request(tier.stages, 1))
    tier.advance()
    (work,) = tier.works
    tier.compute(work, [w.UNSURE], {})
    tier.advance()
    (work,) = tier.works
    assert tier.works[work].stage == "fog"
    tier.compute(work, [w.SURE], {})
    answer = answer_of(tier, 0)
    assert (answer.tier, answer.exit, answer.reason) == ("edge", "fog", "confident")


def test_a_stage_without_an_exit_passes_on_to_the_next():
    tier = world("blind")
    token = ask(tier, row=w.SURE)
    assert answer_of(tier, token).exit == "fog"


@pytest.mark.parametrize("certified", [False, True])
def test_the_exits_own_decisions_are_certified_where_the_tier_is(certified):
    sure, last = world(certified=certified), world("last", certified=certified)
    assert answer_of(sure, ask(sure, row=w.SURE)).certified == certified
    assert answer_of(last, ask(last)).certified == certified


@pytest.mark.parametrize(("here", "above"), [(True, True), (True, False), (False, True)])
def test_an_answer_from_the_front_is_certified_where_both_tiers_are(here, above):
    tier = world(certified=here)
    token = ask(tier)
    reply(tier, *tier.forwards, certified=above)
    assert answer_of(tier, token).certified == (here and above)


def test_a_fallback_is_not_certified():
    tier = world(certified=True)
    late, refused, alone = (ask(tier, number) for number in (1, 2, 3))
    _, second, third = tier.forwards
    reply(tier, second, status="rejected", label=None, certified=True)
    tier.handle(ev.ForwardFailed(third, "no broker"))
    tier.advance(1.0)
    answers = [answer_of(tier, token) for token in (late, refused, alone)]
    assert [(answer.reason, answer.certified) for answer in answers] == [
        ("timeout", False),
        ("rejected", False),
        ("unreachable", False),
    ]


# --- the front fails -------------------------------------------------------------------------------------------------


def test_a_silent_front_is_answered_for_in_time_for_the_way_back():
    tier = world()
    token = ask(tier)
    assert tier.machine.wakeup() == pytest.approx(100.99)
    tier.advance(0.98)
    assert tier.tokens[token].terminal is None
    tier.advance(0.0101)
    answer = answer_of(tier, token)
    assert (answer.reason, answer.exit, answer.label) == ("timeout", "edge", "a")


@pytest.mark.parametrize(
    "changes",
    [{"status": "rejected", "reason": "overload", "label": None}, {"model": "e"}, {"index": 7}, {"request": "other"}],
    ids=["rejected", "another model", "no such class", "another request"],
)
def test_a_front_that_refuses_is_answered_for_at_once(changes):
    tier = world()
    token = ask(tier)
    (correlation,) = tier.forwards
    reply(tier, correlation, **changes)
    assert answer_of(tier, token).reason == "rejected"
    assert answer_of(tier, token).label == "a"


def test_an_unreadable_answer_counts_as_a_refusal():
    tier = world()
    token = ask(tier)
    tier.handle(ev.FrontAnswered(next(iter(tier.forwards)), None))
    assert answer_of(tier, token).reason == "rejected"


def test_a_forward_that_fails_is_answered_for_at_once():
    tier = world()
    token = ask(tier)
    tier.handle(ev.ForwardFailed(next(iter(tier.forwards)), "no broker"))
    assert answer_of(tier, token).reason == "unreachable"


def test_a_late_answer_is_counted_teaches_the_estimate_and_is_dropped():
    tier = world()
    token = ask(tier)
    (correlation,) = tier.forwards
    tier.advance(1.0)
    first = answer_of(tier, token)
    for _ in range(2):
        reply(tier, correlation)
    assert answer_of(tier, token) is first
    assert tier.machine.counters["late"] == 1
    assert tier.machine.counters["stray"] == 1


def test_the_breaker_opens_after_twenty_time_outs_and_answers_without_waiting():
    tier = world(limits=TierLimits(pending=100, way_back_s=0.01))
    for number in range(20):
        ask(tier, number)
    tier.advance(1.0)
    assert tier.machine.way_up.breaker.state == "open"
    assert answer_of(tier, ask(tier, 99)).reason == "unreachable"


def test_an_answer_that_completes_the_count_opens_the_breaker_and_drops_what_would_arrive_stale():
    tier = world(limits=TierLimits(pending=100, way_back_s=0.01))
    for number in range(20):
        ask(tier, number)
    *silent, last = tier.forwards
    for correlation in silent:
        tier.handle(ev.ForwardFailed(correlation, "no broker"))
    assert tier.machine.way_up.breaker.state == "closed"
    answer = w.front_answer(tier.forwards[last])
    effects = tier.machine.handle(ev.FrontAnswered(last, answer), tier.now)
    assert tier.machine.way_up.breaker.state == "open"
    assert ev.PurgeFront() in effects
    assert tier.machine.counters["breaker.open"] == 1


def test_a_probe_that_is_answered_closes_the_breaker():
    tier = world(limits=TierLimits(pending=100, way_back_s=0.01, probe_s=2.0))
    for number in range(20):
        ask(tier, number)
    tier.advance(1.0)
    tier.now += 2.0
    before = set(tier.forwards)
    token = ask(tier, 99)
    (probe,) = set(tier.forwards) - before
    reply(tier, probe)
    assert answer_of(tier, token).tier == "cloud"
    assert tier.machine.way_up.breaker.state == "closed"


def test_a_request_without_time_for_the_way_up_is_answered_at_once():
    tier = world()
    for number in range(5):
        ask(tier, number)
        tier.now += 0.5
        reply(tier, list(tier.forwards)[-1])
    probe = ask(tier, 50, budget_ms=200.0)  # now and then one goes up to see whether it is still so
    assert tier.tokens[probe].terminal is None
    assert answer_of(tier, ask(tier, 51, budget_ms=200.0)).reason == "unreachable"


def test_short_budgets_do_not_open_the_breaker():
    """They were given less than most round trips take, so their failure says nothing of the front."""
    tier = world(limits=TierLimits(pending=1000, way_back_s=0.0))
    for number in range(20):
        ask(tier, number)
        tier.now += 0.1 if number % 3 else 0.4
        reply(tier, list(tier.forwards)[-1])
    for number in range(100, 200):
        ask(tier, number, budget_ms=300.0)
    tier.advance(0.5)
    assert tier.machine.counters["answer.timeout"] > 20
    assert tier.machine.way_up.breaker.state == "closed"


def test_a_full_pending_table_answers_the_unsure_and_lets_the_sure_go_on():
    tier = world()
    for number in range(4):
        ask(tier, number)
    assert answer_of(tier, ask(tier, 10)).reason == "overload"
    assert answer_of(tier, ask(tier, 11, row=w.SURE)).reason == "confident"


# --- what is refused -------------------------------------------------------------------------------------------------


def test_another_models_request_is_rejected_without_a_label():
    tier = world()
    answer = answer_of(tier, tier.arrive(w.request(tier.stages, 1, model="e" * 64)))
    assert (answer.status, answer.reason, answer.label) == ("rejected", "digest", None)
    assert "expected model dddddddddddd, got eeeeeeeeeeee" in answer.detail


def test_what_expired_on_the_way_is_not_run():
    tier = world()
    answer = answer_of(tier, tier.arrive(w.request(tier.stages, 1, 100.0), age_s=0.2))
    assert (answer.status, answer.reason) == ("rejected", "expired")
    tier.advance()
    assert not tier.works


def test_what_expires_while_it_waits_is_not_run():
    tier = world()
    tier.arrive(w.request(tier.stages, 1))
    tier.advance()  # the only worker has it
    token = tier.arrive(w.request(tier.stages, 2, 50.0))
    tier.advance(0.06)
    assert answer_of(tier, token).reason == "expired"
    compute_all(tier, w.SURE)
    assert answer_of(tier, 0).reason == "confident"


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"stage": "fog"}, "stage"),
        ({"payload": {}}, "tensor"),
        ({"payload": {"sample": np.zeros(3, np.uint8)}}, "shape"),
        ({"payload": {"sample": np.zeros(4, np.float32)}}, "dtype"),
    ],
)
def test_a_malformed_request_gets_an_error_and_the_dead_letters(changes, code):
    tier = world()
    token = len(tier.tokens)
    tier.tokens[token] = w.Delivery("r1", "device", b"c", 1e9)
    tier.tracker.track("p", token)
    event = ev.Came(token, w.request(tier.stages, 1, **changes), "device", b"c")
    dead, courtesy = tier.machine.handle(event, tier.now)
    assert (courtesy.answer.status, courtesy.answer.reason, courtesy.answer.label) == ("error", "malformed", None)
    assert (dead.token, dead.code) == (token, code)


def test_only_a_stage_that_takes_samples_takes_an_image():
    image = EncodedSample("image/png", b"x")
    tier = world("last")
    token = tier.arrive(w.request(tier.stages, 1, payload=image))
    assert tier.tokens[token].terminal.code == "content-type"
    for kind in ("first", "handed"):
        tier = world(kind)
        token = tier.arrive(w.request(tier.stages, 1, payload=image))
        assert tier.tokens[token].terminal is None


@pytest.mark.parametrize(
    ("stages", "too_few_ms", "enough_ms"),
    [("last", 2300, 2500), ("handed", 2300, 2500), ("first", 750, 850), ("two", 750, 850)],
)
def test_a_tier_rejects_what_it_cannot_compute_in_time_before_it_computes(stages, too_few_ms, enough_ms):
    tier = world(stages)
    tier.arrive(w.request(tier.stages, 1))
    tier.advance()
    (work,) = tier.works
    tier.works.pop(work)
    tier.now += 0.4
    logits = np.asarray([w.SURE], np.float32)
    tier.handle(ev.Computed(work, {"logits": logits}, tier.now - 0.1, tier.now, {}))  # the rest went by elsewhere here
    lone = tier.arrive(w.request(tier.stages, 2, 100.0))
    assert tier.tokens[lone].terminal is None, "with nothing ahead of it one is always let in"
    refused = answer_of(tier, tier.arrive(w.request(tier.stages, 3, too_few_ms)))  # it would take 0.8 s
    assert (refused.status, refused.reason, refused.label) == ("rejected", "overload", None)
    patient = tier.arrive(w.request(tier.stages, 4, enough_ms))
    assert tier.tokens[patient].terminal is None


def test_what_the_next_stage_here_cannot_compute_in_time_is_answered_by_the_exit_it_has_passed():
    tier = world("two")
    tier.arrive(w.request(tier.stages, 1))
    tier.advance()
    tier.compute(next(iter(tier.works)), [w.UNSURE], {})
    tier.advance()
    (work,) = tier.works
    tier.works.pop(work)
    tier.now += 0.9
    outputs = {"logits": np.asarray([w.SURE], np.float32), "activation": np.zeros((1, 4), np.float32)}
    tier.handle(ev.Computed(work, outputs, tier.now - 0.9, tier.now, {}))
    first, second = (tier.arrive(w.request(tier.stages, number)) for number in (2, 3))
    tier.advance()
    tier.compute(next(iter(tier.works)), [w.UNSURE, w.UNSURE], {})
    assert tier.tokens[first].terminal is None, "with nothing ahead of it one is always let in"
    answer = answer_of(tier, second)
    assert (answer.status, answer.reason, answer.exit) == ("ok", "overload", "edge")


def test_a_batch_that_fails_gets_errors_and_the_dead_letters():
    tier = world()
    token = tier.arrive(w.request(tier.stages, 1))
    compute_all(tier, failures={0: "no such operation"})
    assert isinstance(tier.tokens[token].terminal, ev.DeadLetter)
    assert tier.tokens[token].terminal.text == "no such operation"


def test_logits_that_are_not_finite_fail_their_own_request_only():
    tier = world()
    for number in (1, 2):
        tier.arrive(w.request(tier.stages, number))
    tier.advance()
    (work,) = tier.works
    tier.compute(work, [w.BROKEN, w.SURE], {})
    assert isinstance(tier.tokens[0].terminal, ev.DeadLetter)
    assert answer_of(tier, 1).reason == "confident"


@pytest.mark.parametrize("large", [1e20, 3.4e38])
def test_logits_whose_squares_are_not_finite_are_judged_as_any(large):
    tier = world()
    tier.arrive(w.request(tier.stages, 1))
    tier.advance()
    (work,) = tier.works
    tier.compute(work, [(-large, 0.0, large)], {})
    answer = answer_of(tier, 0)
    assert (answer.reason, answer.index) == ("confident", 2)


def test_a_later_stage_that_fails_leaves_the_earlier_prediction():
    tier = world("two")
    token = tier.arrive(w.request(tier.stages, 1))
    tier.advance()
    tier.compute(next(iter(tier.works)), [w.UNSURE], {})
    tier.advance()
    tier.compute(next(iter(tier.works)), [w.UNSURE], {0: "broken"})
    assert (answer_of(tier, token).reason, answer_of(tier, token).exit) == ("failed", "edge")


# --- order and bounds ------------------------------------------------------------------------------------------------


def test_the_earliest_deadline_is_computed_first():
    tier = world(limits=TierLimits(batch_size=1))
    for number, budget_ms in enumerate([900.0, 100.0, 500.0]):
        tier.arrive(w.request(tier.stages, number, budget_ms))
    compute_all(tier, w.SURE)
    assert list(tier.sends) == [1, 2, 0]


def test_a_batch_forms_while_the_worker_is_busy():
    tier = world()
    tier.arrive(w.request(tier.stages, 0))
    tier.advance()
    for number in range(1, 6):
        tier.arrive(w.request(tier.stages, number))
        tier.advance()
    sizes = []
    while tier.works:
        work, submit = next(iter(tier.works.items()))
        sizes.append(len(submit.inputs))
        tier.compute(work, [w.SURE] * sizes[-1], {})
        tier.advance()
    assert sizes == [1, 5]


def test_it_pauses_at_its_backlog_and_resumes_at_half():
    tier = world()
    for number in range(24):
        tier.arrive(w.request(tier.stages, number))
    tier.advance()
    assert tier.paused
    tier.compute(next(iter(tier.works)), [w.SURE] * 8, {})
    tier.advance()
    assert tier.paused is (tier.machine.waiting > 8)
    compute_all(tier, w.SURE)
    assert not tier.paused


def test_it_pauses_for_too_many_unsettled_and_for_a_full_back_sender():
    tier = world(limits=TierLimits(unsettled=4))
    for number in range(4):
        ask(tier, number, row=w.SURE)
    tier.advance()
    assert tier.paused
    for token in range(4):
        tier.tokens[token].acknowledged = True
        tier.handle(ev.Acknowledged(token))
    tier.advance()
    assert not tier.paused
    tier.handle(ev.BackFull(True))
    tier.advance()
    assert tier.paused
    tier.handle(ev.BackFull(False))
    tier.advance()
    assert not tier.paused


def test_it_pauses_for_too_many_bytes_held_and_resumes_at_half():
    """Wherever they are held: waiting, with the front, or on their way to the dead letters; answered, they are gone."""
    tier = world(limits=TierLimits(held_bytes=4000))
    large = {"payload": {"sample": VIEW.view(np.uint8)[:4]}, "body_bytes": 1000}
    pending = [ask(tier, number, **large) for number in range(2)]
    tier.garbage(body_bytes=1000)
    tier.advance()
    assert not tier.paused
    waiting = tier.arrive(w.request(tier.stages, 2, **large))
    tier.advance()
    assert tier.paused
    assert tier.machine.held_bytes == 4000
    (garbage,) = (token for token, effect in tier.sends.items() if isinstance(effect, ev.DeadLetter))
    tier.tokens[garbage].acknowledged = True
    tier.handle(ev.Acknowledged(garbage))
    tier.advance()
    assert tier.paused
    compute_all(tier, w.SURE)
    assert answer_of(tier, waiting)
    assert not tier.paused
    for correlation in list(tier.forwards):
        reply(tier, correlation)
    assert all(answer_of(tier, token) for token in pending)
    assert tier.machine.held_bytes == 0


@pytest.mark.parametrize("limits", [LIMITS, TierLimits(batch_size=8, held_bytes=16_000)], ids=["backlog", "bytes"])
def test_those_that_wait_for_a_later_stage_never_keep_the_sure_from_coming(limits):
    """With long budgets time sheds nobody: 2,048 that wait for a slow stage would leave all else with the brokers."""
    tier = world("two", limits)
    tokens = []
    for number in range(0, 24, 4):
        some = [w.request(tier.stages, n, 30_000.0, body_bytes=980) for n in range(number, number + 4)]
        tokens += [tier.arrive(each) for each in some]  # while the first stage has work it goes first
        tier.advance()
        assert not tier.paused
        tier.compute(next(iter(tier.works)), [w.UNSURE] * 4, {})
    ended = [answer_of(tier, token) for token in tokens if tier.tokens[token].terminal is not None]
    assert [(answer.status, answer.reason, answer.exit) for answer in ended] == [("ok", "overload", "edge")] * 16
    assert tier.machine.waiting == 8
    sure = tier.arrive(w.request(tier.stages, 99, 30_000.0, body_bytes=980))
    tier.advance()
    tier.compute(next(iter(tier.works)), [w.SURE], {})
    assert answer_of(tier, sure).reason == "confident"


def test_those_that_no_exit_has_seen_wait_for_any_stage_up_to_the_bound():
    tier = world("blind")
    for first in (0, 8, 16):
        assert not tier.paused
        tokens = [tier.arrive(w.request(tier.stages, number, 30_000.0)) for number in range(first, first + 8)]
        tier.advance()
        tier.compute(next(iter(tier.works)), [w.UNSURE] * 8, {})
    assert tier.paused
    assert all(tier.tokens[token].terminal is None for token in tokens)


def test_bodies_of_those_that_are_pending_never_keep_the_sure_from_coming():
    """150 kB each fill 128 MiB before 1,024 are pending."""
    tier = world(limits=TierLimits(batch_size=1))
    large = {"budget_ms": 30_000.0, "body_bytes": 150_000}
    tokens = []
    for number in range(1000):
        tokens.append(ask(tier, number, **large))
        assert not tier.paused
    assert tier.machine.held_bytes <= 64 * 2**20
    assert tier.machine.pending == 447, "as many as half of the bytes have room for"
    assert {answer_of(tier, token).reason for token in tokens[447:]} == {"overload"}
    assert answer_of(tier, ask(tier, 5000, w.SURE, **large)).reason == "confident"


def test_one_body_alone_goes_up_whatever_its_size():
    tier = world(limits=TierLimits(held_bytes=1000))
    first, second = ask(tier, 1, body_bytes=5000), ask(tier, 2, body_bytes=5000)
    assert tier.tokens[first].terminal is None
    assert answer_of(tier, second).reason == "overload"


def test_large_bodies_pause_it_long_before_there_are_too_many_of_them():
    """Photos of 180 x 180 as float32: the counts of the defaults alone would let 1.2 GB in."""
    tier = world(limits=TierLimits())
    values = {"sample": VIEW.view(np.uint8)[:4]}
    count = 0
    while not tier.paused:
        tier.arrive(w.request(tier.stages, count, payload=values, body_bytes=180 * 180 * 3 * 4 + 80))
        tier.advance()
        count += 1
    assert count == 346
    assert tier.machine.held_bytes < 129 * 2**20


def test_one_body_over_the_bound_is_taken_and_the_next_waits_for_it():
    tier = world(limits=TierLimits(held_bytes=1000))
    tier.arrive(w.request(tier.stages, 1, body_bytes=5000))
    tier.advance()
    assert tier.paused
    compute_all(tier, w.SURE)
    assert not tier.paused


def test_what_a_body_is_turned_into_is_held_too():
    tier = world("last")
    name = tier.stages[0].inputs[0].tensor
    held = []
    for number, values in enumerate((VIEW, VIEW.copy(), VIEW.astype(np.float16), VIEW.astype(np.float16)[:])):
        before = tier.machine.held_bytes
        tier.arrive(w.request(tier.stages, number, payload={name: values}, body_bytes=100))
        held.append(tier.machine.held_bytes - before)
    assert held == [100, 100 + 16, 100 + 8 + 16, 100 + 16]
    compute_all(tier)
    assert tier.machine.held_bytes == 0


def test_an_activation_that_waits_for_the_next_stage_here_is_held_and_none_that_went_up():
    tier = world("two")
    tier.arrive(w.request(tier.stages, 1, payload={"sample": VIEW.view(np.uint8)[:4]}, body_bytes=100))
    tier.advance()
    tier.compute(next(iter(tier.works)), [w.UNSURE], {})
    assert tier.machine.held_bytes == 100 + 16
    compute_all(tier)
    assert tier.machine.pending == 1
    assert tier.machine.held_bytes == 100


def test_what_has_ended_keeps_no_payload_whatever_still_refers_to_it():
    """Timers run on until the deadline; at large bodies they would hold most of a tier's memory."""
    tier = world()
    request = w.request(tier.stages, 1, 30_000.0)
    payload = weakref.ref(request.payload["sample"])
    token = tier.arrive(request)
    del request
    compute_all(tier, w.SURE)
    assert answer_of(tier, token)
    assert len(tier.machine._jobs._timers) == 1
    assert payload() is None


def test_timers_of_finished_requests_do_not_pile_up():
    tier = world()
    for number in range(2000):
        token = ask(tier, number, row=w.SURE, budget_ms=30_000.0)
        tier.tokens[token].acknowledged = True
        tier.handle(ev.Acknowledged(token))
        del tier.tokens[token], tier.sends[token]
        tier.tokens[token] = w.Delivery("", "", b"", 1e9, terminal=True, acknowledged=True)
    assert len(tier.machine._jobs._timers) <= 1100


# --- settling and hand-over ------------------------------------------------------------------------------------------


def test_a_delivery_is_settled_when_the_broker_has_its_answer_and_not_before():
    tier = world()
    token = ask(tier, row=w.SURE)
    assert not tier.tokens[token].settled
    tier.tokens[token].acknowledged = True
    tier.handle(ev.Acknowledged(token))
    assert tier.tokens[token].settled
    assert tier.machine.idle


@pytest.mark.parametrize("payload", [None, EncodedSample("image/png", b"image")])
def test_the_same_attempt_again_takes_the_older_ones_place(payload):
    tier = world()
    again = w.request(tier.stages, 1) if payload is None else w.request(tier.stages, 1, payload=payload)
    first = tier.arrive(again, correlation=b"1")
    compute_all(tier)
    second = tier.arrive(replace(again), correlation=b"1")
    assert tier.tokens[first].terminal == ev.Forget(first, superseded=True)
    reply(tier, next(iter(tier.forwards)))
    assert answer_of(tier, second).tier == "cloud"
    assert tier.machine.counters["again"] == 1


def test_a_delivery_that_takes_anothers_place_is_answered_by_the_earlier_deadline():
    tier = world()
    request = w.request(tier.stages, 1, 1000.0)
    tier.arrive(request, correlation=b"1")
    compute_all(tier)
    tier.now += 0.9
    second = tier.arrive(request, correlation=b"1")
    tier.now += 0.05
    third = tier.arrive(request, correlation=b"1", age_s=0.96)  # now its age is known
    tier.advance(0.03)
    assert tier.tokens[second].terminal == ev.Forget(second, superseded=True)
    assert answer_of(tier, third).reason == "timeout"


def _other(tier: w.World, what: str) -> tuple:
    """A request of the same id that is not the same, and its correlation."""
    name = tier.stages[0].inputs[0].tensor
    match what:
        case "attempt":
            return w.request(tier.stages, 1), b"2"
        case "values":
            return w.request(tier.stages, 1, fill=1), b"1"
        case "dtype":
            return w.request(tier.stages, 1, payload={name: np.zeros(4, np.float16)}), b"1"
        case _:
            return w.request(tier.stages, 1, payload=EncodedSample("image/png", b"image")), b"1"


@pytest.mark.parametrize(
    ("what", "kind"), [("attempt", "first"), ("values", "first"), ("image", "first"), ("dtype", "last")]
)
def test_the_same_id_at_the_same_address_is_another_request_where_anything_differs(what, kind):
    """Two devices that count from 1 share a reply partition, or a tier asks for both: each gets its own answer."""
    tier = world(kind)
    first = tier.arrive(w.request(tier.stages, 1), correlation=b"1")
    request, correlation = _other(tier, what)
    second = tier.arrive(request, correlation=correlation)
    tier.advance()
    ((work, submit),) = tier.works.items()
    assert len(submit.inputs) == 2
    tier.compute(work, [w.SURE, w.SURE_OF_B], {})
    assert [answer_of(tier, token).label for token in (first, second)] == ["a", "b"]
    assert not tier.machine.counters["again"]
    assert not tier.machine._jobs


def test_without_a_correlation_nothing_tells_that_it_is_the_same_attempt():
    tier = world()
    tokens = [tier.arrive(w.request(tier.stages, 1), correlation=None) for _ in range(2)]
    compute_all(tier, w.SURE)
    assert [answer_of(tier, token).label for token in tokens] == ["a", "a"]


def test_the_same_id_from_another_requester_is_another_request():
    tier = world()
    first = tier.arrive(w.request(tier.stages, 1), reply_to="one", correlation=b"1")
    second = tier.arrive(w.request(tier.stages, 1), reply_to="two", correlation=b"1")
    compute_all(tier, w.SURE)
    assert answer_of(tier, first)
    assert answer_of(tier, second)


def test_what_is_taken_away_is_answered_where_there_is_a_prediction_and_forgotten_where_not():
    tier = world()
    pending = ask(tier, 1)
    waiting = tier.arrive(w.request(tier.stages, 2))
    tier.handle(ev.TakenAway(frozenset({pending, waiting}), lost=False))
    assert answer_of(tier, pending).reason == "handover"
    assert tier.tokens[waiting].terminal == ev.Forget(waiting, superseded=False)


def test_what_is_lost_is_forgotten_and_never_settled():
    tier = world()
    pending, answered = ask(tier, 1), ask(tier, 2, row=w.SURE)
    tier.handle(ev.TakenAway(frozenset({pending, answered}), lost=True))
    assert tier.tokens[pending].terminal == ev.Forget(pending, superseded=False)
    tier.handle(ev.Acknowledged(answered))
    assert not tier.tokens[answered].settled
    assert tier.machine.idle


def test_told_to_stop_it_answers_what_it_has_and_leaves_the_rest_to_others():
    tier = world()
    pending = ask(tier, 1)
    computing = tier.arrive(w.request(tier.stages, 2))
    tier.advance()
    waiting = tier.arrive(w.request(tier.stages, 3))
    tier.handle(ev.Drain())
    tier.advance()
    late = tier.arrive(w.request(tier.stages, 4))
    assert tier.paused
    assert answer_of(tier, pending).reason == "handover"
    assert tier.tokens[late].terminal == ev.Forget(late, superseded=False)
    compute_all(tier, w.UNSURE)
    assert answer_of(tier, computing).reason == "handover"
    assert answer_of(tier, waiting).reason == "handover"


def test_an_answer_that_was_not_delivered_is_sent_again_and_one_that_cannot_be_is_settled():
    tier = world()
    token = ask(tier, row=w.SURE)
    sent = tier.tokens[token].terminal
    assert tier.machine.handle(ev.SendFailed(token, False, "timed out"), tier.now) == [sent]
    assert tier.machine.handle(ev.SendFailed(token, True, "no such topic"), tier.now) == [ev.Settle(token)]
    assert tier.machine.counters["undeliverable"] == 1


@pytest.mark.parametrize(("row", "model"), [(w.SURE, w.DIGEST), (w.SURE, "e" * 64)], ids=["answer", "refusal"])
def test_an_answer_is_sent_again_for_as_long_as_anybody_may_wait_for_it(row, model):
    tier = world()
    token = ask(tier, row=row, model=model)
    sent, timed_out = tier.tokens[token].terminal, ev.SendFailed(token, False, "timed out")
    tier.now += 1.0 + LONGEST_GRACE_S - 0.001
    assert tier.machine.handle(timed_out, tier.now) == [sent]
    tier.now += 0.002
    assert tier.machine.handle(timed_out, tier.now) == [ev.Settle(token)]
    assert tier.machine.counters["undeliverable"] == 1


def test_an_answer_is_not_given_up_by_its_requests_age_which_may_be_wrong():
    tier = world()
    token = tier.arrive(w.request(tier.stages, 1), age_s=3600.0)
    sent = tier.tokens[token].terminal
    assert sent.answer.reason == "expired"
    assert tier.machine.handle(ev.SendFailed(token, False, "timed out"), tier.now) == [sent]


def test_a_reply_partition_that_takes_nothing_does_not_stop_the_tier_for_others():
    """Two requests a second of its device; each of its answers times out after 60 s."""
    tier = world(limits=replace(LIMITS, unsettled=300))
    times_out: dict[int, float] = {}
    for number in range(600):
        tier.now += 0.5
        for token in [token for token, at in times_out.items() if at <= tier.now]:
            effects = tier.machine.handle(ev.SendFailed(token, False, "timed out"), tier.now)
            times_out[token] = tier.now + 60.0
            if effects == [ev.Settle(token)]:
                del times_out[token]
        dead = tier.arrive(w.request(tier.stages, number), reply_to="takes nothing")
        live = ask(tier, 10_000 + number, row=w.SURE)
        times_out[dead] = tier.now + 60.0
        assert tier.machine.handle(ev.Acknowledged(live), tier.now) == [ev.Settle(live)]
        tier.advance()
        assert not tier.paused, f"after {number / 2:.0f} s"
    assert tier.machine.unsettled == len(times_out) <= 2 * (60.0 + LONGEST_GRACE_S)
    assert tier.machine.counters["undeliverable"] == 600 - len(times_out)


def test_a_dead_letter_that_no_broker_takes_is_kept_and_tried_again_until_one_does():
    tier = world()
    token = tier.garbage()
    dead = tier.tokens[token].terminal
    for _ in range(3):
        assert tier.machine.handle(ev.SendFailed(token, True, "not allowed"), tier.now) == []
        assert tier.machine.wakeup() == tier.now + KEPT_S
        assert tier.machine.advance(tier.now + 0.9 * KEPT_S) == []
        assert not tier.machine.idle
        tier.now += KEPT_S
        assert tier.machine.advance(tier.now) == [dead]
    assert tier.machine.handle(ev.Acknowledged(token), tier.now) == [ev.Settle(token)]
    assert (tier.machine.wakeup(), tier.machine.idle) == (None, True)


def test_a_dead_letter_that_is_too_large_is_sent_at_once_without_the_message_itself():
    tier = world()
    token = tier.garbage()
    bare = replace(tier.tokens[token].terminal, bare=True)
    too_large = ev.SendFailed(token, True, "too large", too_large=True)
    assert tier.machine.handle(too_large, tier.now) == [bare]
    assert tier.machine.handle(too_large, tier.now) == []
    assert tier.machine.advance(tier.now + KEPT_S) == [bare]


@pytest.mark.parametrize("lost", [False, True])
def test_a_kept_dead_letter_goes_with_its_partition(lost):
    """Another replica has the message now, and the same to do with it."""
    tier = world()
    token = tier.garbage()
    tier.machine.handle(ev.SendFailed(token, True, "not allowed"), tier.now)
    tier.handle(ev.TakenAway(frozenset({token}), lost))
    assert not tier.machine.holds(token)
    assert tier.machine.wakeup() is None
    assert tier.machine.advance(tier.now + KEPT_S) == []


# --- what is measured ------------------------------------------------------------------------------------------------


def test_the_latency_of_each_answer_is_counted_from_its_arrival_and_that_of_a_refusal_is_not():
    tier = world()
    token = tier.arrive(w.request(tier.stages, 1))
    tier.now += 0.2
    compute_all(tier, w.SURE)
    ask(tier, 2, row=w.SURE, model="e" * 64)
    assert answer_of(tier, token).hops[0].total_ms == pytest.approx(200.0)
    histogram = tier.machine.latencies_ms
    assert histogram.cumulative()[-1] == 1
    assert histogram.cumulative()[histogram.bounds.index(100.0)] == 0
    assert histogram.sum == pytest.approx(200.0)


def test_the_oldest_waiting_has_the_age_of_its_time_in_the_queue_and_here():
    tier = world()
    assert tier.machine.oldest_waiting_s(tier.now) == 0.0
    tier.arrive(w.request(tier.stages, 1, 5000.0), age_s=1.5)
    tier.arrive(w.request(tier.stages, 2, 4000.0), age_s=-3.0)
    tier.now += 0.25
    assert tier.machine.oldest_waiting_s(tier.now) == pytest.approx(1.75)
    assert tier.machine.unsettled == 2
    compute_all(tier, w.SURE)
    assert tier.machine.oldest_waiting_s(tier.now) == 0.0
    assert tier.machine.unsettled == 2, "answered, and not acknowledged yet"
