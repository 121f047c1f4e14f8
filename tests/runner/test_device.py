import itertools
import logging
import re
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from queue import SimpleQueue
from uuid import UUID

import numpy as np
import pytest
from fake_tier import FakeTier, good_answer, sample, settings, toy_bundle

from branchy.core.cascade import Uplink
from branchy.core.certificate import Certificate, CertifiedThresholds
from branchy.core.messages import EncodedSample
from branchy.core.requester import Schedule
from branchy.errors import (
    BrokerUnavailableError,
    BundleError,
    NoAnswerError,
    RefusedError,
    TransportError,
    UsageError,
    WireError,
)
from branchy.runner.device import Device
from branchy.transport.base import Failed
from branchy.transport.memory import MemoryBroker, MemoryLink

TIMEOUT_S = 30.0
UNLABELLED = {"label": None, "index": None, "confidence": None}
CERTIFICATE = Certificate(
    loss="gap",
    guarantee="probability",
    method="binomial",
    alpha=0.01,
    delta=0.05,
    samples=5000,
    dataset="toy",
    data_sha256="0" * 64,
    seed=0,
    formats={"edge": "litert", "cloud": "litert"},
    uplinks={"edge": Uplink("sample", "uint8")},
    policy="max_prob",
    temperatures={"edge": 1.0, "cloud": 1.0},
    cost="bytes",
    certified=(CertifiedThresholds({"edge": 0.8}, 0.0, 1.0),),
)


@pytest.fixture(scope="module")
def bundle(tmp_path_factory):
    return toy_bundle(tmp_path_factory.mktemp("bundle") / "toy")


@pytest.fixture
def broker():
    return MemoryBroker()


@pytest.fixture
def device(bundle, broker):
    with Device(bundle, settings(bundle, deadline_ms=30_000), broker.link("back")) as made:
        yield made


@pytest.fixture
def impatient(bundle, broker):
    """A device that gives up at once."""
    with Device(bundle, settings(bundle, deadline_ms=1, grace_ms=0), broker.link("back")) as made:
        yield made


@pytest.fixture
def logged():
    """The device's log records; a handler of our own, as a command may have taken branchy's logs over before."""
    records, handler = [], logging.Handler()
    handler.emit = records.append
    logging.getLogger("branchy.runner.device").addHandler(handler)
    yield records
    logging.getLogger("branchy.runner.device").removeHandler(handler)


def test_a_sample_is_answered(broker, device):
    with FakeTier(broker):
        answer = device.ask(sample(2))
    assert (answer.label, answer.index, answer.tier, answer.reason) == ("two", 2, "edge", "confident")


def test_a_request_names_its_model_stage_deadline_and_trace(broker, bundle):
    with (
        FakeTier(broker) as tier,
        Device(bundle.path, settings(bundle, deadline_ms=7500), broker.link("back")) as device,
    ):
        outcomes = [device.submit(sample(i), index=i).result(TIMEOUT_S) for i in range(2)]
    first, second = (asked.request for asked in tier.asked)
    assert (first.model, first.stage, first.budget_ms) == (bundle.digest, "edge", 7500.0)
    np.testing.assert_array_equal(first.payload["sample"], sample(0))
    assert re.fullmatch(r"00-[0-9a-f]{32}-[0-9a-f]{16}-01", first.traceparent)
    assert first.traceparent != second.traceparent
    assert [UUID(r.id).version for r in (first, second)] == [7, 7]
    assert [(o.request, o.index) for o in outcomes] == [(first.id, 0), (second.id, 1)]
    assert [o.bytes_sent for o in outcomes] == [asked.message.size_bytes for asked in tier.asked]


def test_an_image_file_is_sent_as_it_is(broker, device):
    png = EncodedSample("image/png", b"\x89PNG")
    with FakeTier(broker, lambda asked: asked.reply(answer_of(asked, 1))) as tier:
        assert device.ask(png).index == 1
    assert tier.asked[0].request.payload == png


def answer_of(asked, index: int):
    request = asked.request
    return good_answer(type(request)(request.id, request.model, request.stage, 0.0, {"sample": sample(index)}))


def test_the_inbox_is_there_before_anything_can_be_sent(bundle, broker):
    calls = []

    class Recording(MemoryLink):
        def replies(self, *args):
            calls.append("inbox")
            return super().replies(*args)

        def sender(self, *args, **kwargs):
            calls.append("sender")
            return super().sender(*args, **kwargs)

    with Device(bundle, settings(bundle), Recording(broker, "back")):
        assert calls == ["inbox", "sender"]


def test_one_answer_is_handed_on_and_later_ones_are_counted(broker, device):
    def thrice(asked):
        for _ in range(3):
            asked.reply()

    with FakeTier(broker, thrice):
        outcomes = list(device.run([sample(0), sample(1), sample(2)]))
    assert [o.answer.index for o in outcomes] == [0, 1, 2]
    assert device.counters["duplicates"] >= 4  # those of the first two came before the answer to the third


def test_answers_in_any_order_go_to_their_samples(broker, device):
    held = []

    def in_reverse(asked):
        held.append(asked)
        if len(held) == 6:
            for one in reversed(held):
                one.reply()

    with FakeTier(broker, in_reverse):
        outcomes = list(device.run([sample(i % 3) for i in range(6)], window=6))
    assert [o.index for o in outcomes] == [5, 4, 3, 2, 1, 0]
    assert all(o.answer.index == o.index % 3 for o in outcomes)


def test_an_answer_of_another_model_is_refused_counted_and_named(broker, device, logged):
    with FakeTier(broker, lambda asked: asked.reply(good_answer(asked.request, model="f" * 64))):
        outcome = device.submit(sample(1)).result(TIMEOUT_S)
        with pytest.raises(NoAnswerError, match=r"request .*: the answer is of another model: expected .*, got 'fff"):
            device.ask(sample(1))
    assert outcome.answer is None
    assert device.counters == {"foreign": 2}
    assert [record.levelname for record in logged] == ["WARNING"]  # said once
    assert "another model" in logged[0].getMessage()


@pytest.mark.parametrize("body", [b"", b"garbage", b"{}", b"\xff\xfe"])
def test_garbage_is_counted_and_the_good_answer_behind_it_is_taken(broker, device, body):
    def garbage_first(asked):
        asked.reply(body=body)
        asked.reply()

    with FakeTier(broker, garbage_first):
        assert device.ask(sample(1)).label == "one"
    assert device.counters == {"garbage": 1}


def test_a_request_that_nobody_answers_is_given_up(impatient):
    outcome = impatient.submit(sample(1), index=4).result(TIMEOUT_S)
    assert (outcome.index, outcome.answer, outcome.fault) == (4, None, "no answer within 0.001 s")
    assert outcome.latency_s >= 0.001
    with pytest.raises(NoAnswerError, match=r"no answer within 0\.001 s"):
        impatient.ask(sample(1))


def test_a_request_sent_again_keeps_its_id_and_one_answer_to_all_its_attempts_is_handed_on(broker, impatient):
    held = SimpleQueue()
    with FakeTier(broker, held.put) as tier:
        first = impatient.submit(sample(1)).result(TIMEOUT_S)
        assert first.answer is None
        impatient._requester._timeout_s = TIMEOUT_S  # from now on it is patient
        second = impatient.submit(sample(1), again=first.request)
        with pytest.raises(UsageError, match=f"request {first.request} is in flight"):
            impatient.submit(sample(1), again=first.request)
        for asked in [held.get(timeout=TIMEOUT_S) for _ in range(2)]:  # the answer to the first attempt comes first
            asked.reply()
            asked.reply()
        outcome = second.result(TIMEOUT_S)
        assert (outcome.request, outcome.answer.index) == (first.request, 1)
        last = impatient.submit(sample(2))
        held.get(timeout=TIMEOUT_S).reply()
        last.result(TIMEOUT_S)  # so all that came before it has been counted
    assert [asked.request.id for asked in tier.asked][:2] == [first.request] * 2
    assert impatient.counters == {"late": 2, "duplicates": 1, "again": 1}


def test_requests_are_given_up_in_time_while_the_broker_is_gone(broker, impatient):
    broker.take_down()
    for _ in range(
        2
    ):  # by the second the news of the broker has been taken: nothing but time is left to wake the device
        assert impatient.submit(sample(1)).result(TIMEOUT_S).fault == "no answer within 0.001 s"


def test_a_refusal_is_handed_on_as_an_answer_without_a_label(broker, device):
    def refuse(asked):
        asked.reply(good_answer(asked.request, status="rejected", reason="overload", **UNLABELLED))

    with FakeTier(broker, refuse):
        answer = device.ask(sample(1))
    assert (answer.status, answer.reason, answer.label) == ("rejected", "overload", None)


def test_a_request_that_the_broker_refuses_ends_at_once(broker, device):
    broker.max_message_bytes = 1000
    outcome = device.submit(EncodedSample("image/png", bytes(2000))).result(TIMEOUT_S)
    assert outcome.answer is None
    assert outcome.fault.startswith("not sent: expected at most 1000 bytes")


def test_a_request_that_finds_the_send_queue_full_ends_at_once(bundle, broker):
    class Full(MemoryLink):
        def sender(self, sink, **_):
            return super().sender(sink, message_timeout_s=1.0, queue_limit=0)

    with Device(bundle, settings(bundle, deadline_ms=30_000), Full(broker, "back")) as device:
        assert device.submit(sample(1)).result(TIMEOUT_S).fault == "not sent: the send queue is full"


def test_two_devices_on_one_reply_partition_leave_each_others_answers_alone(bundle, broker):
    with (
        FakeTier(broker),
        Device(bundle, settings(bundle, deadline_ms=30_000), broker.link("a")) as first,
        Device(bundle, settings(bundle, deadline_ms=30_000), broker.link("b")) as second,
    ):
        assert second.ask(sample(0)).index == 0
        assert [first.ask(sample(i)).index for i in (0, 1)] == [0, 1]
        assert second.ask(sample(2)).index == 2
        assert second.counters == {"stray": 2}


def test_threads_may_share_a_device(broker, device):
    with FakeTier(broker), ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(lambda i: device.ask(sample(i % 3)), range(200)))
    assert [a.index for a in answers] == [i % 3 for i in range(200)]
    assert device.counters == {}


# --- closed and open loops -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("window", [None, 1, 4])
def test_a_closed_loop_has_at_most_its_window_in_flight(broker, device, window):
    with FakeTier(broker) as tier:
        for ended, _ in enumerate(device.run([sample(0)] * 20, window=window), start=1):
            assert len(tier.asked) <= ended - 1 + (window or 1)
    assert len(tier.asked) == ended == 20


def test_a_window_is_filled(broker, device):
    held = []

    def wait_for_three(asked):
        held.append(asked)
        if len(held) == 3:
            for one in held:
                one.reply()
            held.clear()

    with FakeTier(broker, wait_for_three):
        assert len(list(device.run([sample(0)] * 9, window=3))) == 9


def test_a_rate_goes_on_when_nothing_comes_back(broker, device):
    held = []

    def wait_for_all(asked):
        held.append(asked)
        if len(held) == 20:
            for one in held:
                one.reply()

    with FakeTier(broker, wait_for_all):
        outcomes = list(device.run([sample(0)] * 20, rate=1000.0))
    assert len(outcomes) == 20
    # The first was answered after the last was due: 19 ms later. So it counts at least that long.
    assert outcomes[0].latency_s >= 0.019
    assert device.counters == {}


def test_at_a_rate_latency_counts_from_when_a_request_was_due(broker, device, monkeypatch):
    due, submit = [], device.submit

    def recording(one, *, index, intended_s):
        due.append(intended_s)
        return submit(one, index=index, intended_s=intended_s)

    monkeypatch.setattr(device, "submit", recording)
    with FakeTier(broker):
        outcomes = list(device.run([sample(0)] * 5, rate=1e6))
    assert [after - before for before, after in itertools.pairwise(due)] == pytest.approx([1e-6] * 4, abs=1e-9)
    assert len(outcomes) == 5


def test_latency_counts_from_the_intended_moment_when_one_is_given(broker, device):
    with FakeTier(broker):
        outcome = device.submit(sample(0), intended_s=time.monotonic() - 100).result(TIMEOUT_S)
    assert outcome.latency_s >= 100


def test_a_rate_is_capped_in_flight_and_counts_what_waited(broker, device, monkeypatch):
    monkeypatch.setattr("branchy.runner.device.Schedule", partial(Schedule, limit=2))
    with FakeTier(broker):
        assert len(list(device.run([sample(0)] * 50, rate=1e9))) == 50
    assert device.counters["capped"] >= 1


def test_no_samples_give_no_outcomes(device):
    assert list(device.run([])) == []


@pytest.mark.parametrize("kwargs", [{"window": 0}, {"rate": 0.0}, {"window": 1, "rate": 1.0}])
def test_a_wrong_window_or_rate_is_refused_before_the_first_sample_is_read(device, kwargs):
    with pytest.raises(UsageError):
        device.run(iter(()), **kwargs)


# --- what can be wrong from the start --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "wrong", [np.zeros((2, 2), np.uint8), np.zeros((2, 2, 1), np.float32), np.zeros((1, 2, 2, 1), np.uint8)]
)
def test_a_sample_of_another_shape_or_dtype_is_refused(device, wrong):
    with pytest.raises(UsageError, match=r"expected a sample of shape \(2, 2, 1\) and dtype uint8, got "):
        device.ask(wrong)


def test_the_tier_must_be_in_the_bundle(bundle, broker):
    with pytest.raises(UsageError, match="no stage 'moon' in this bundle; it has edge, cloud, full"):
        Device(bundle, settings(bundle, tier="moon"), broker.link("back"))


def test_the_tier_must_take_samples(bundle, broker):
    with pytest.raises(UsageError, match="tier cloud takes what edge sends up, not samples; send to edge or full"):
        Device(bundle, settings(bundle, tier="cloud"), broker.link("back"))


def test_the_full_model_is_a_tier_of_its_own(bundle, broker):
    def as_full(asked):
        asked.reply(good_answer(asked.request, tier="full"))

    with (
        FakeTier(broker, as_full, tier="full") as tier,
        Device(bundle, settings(bundle, tier="full"), broker.link("back")) as device,
    ):
        assert device.tiers == ("full",)
        assert device.ask(sample(1)).tier == "full"
    assert tier.asked[0].request.stage == "full"


@pytest.mark.parametrize(("tier", "certified"), [("edge", True), ("cloud", False), ("full", False)])
def test_only_what_went_through_the_whole_cascade_is_certified(bundle, broker, tier, certified):
    edge, cloud = bundle.spec.stages
    takes_samples = replace(cloud, inputs=edge.inputs, input=edge.input)
    sends_samples = replace(edge, activation=edge.input, uplink=Uplink("sample", "uint8"))
    cascade = replace(bundle.spec, stages=(sends_samples, takes_samples))
    promised = replace(bundle, manifest=replace(bundle.manifest, cascade=cascade, certificate=CERTIFICATE))
    with (
        FakeTier(broker, lambda asked: asked.reply(good_answer(asked.request, tier=tier, certified=True)), tier=tier),
        Device(promised, settings(bundle, tier=tier, deadline_ms=30_000), broker.link("back")) as device,
    ):
        assert device.ask(sample(1)).certified == device.has_certificate == certified


def test_where_nothing_was_promised_nothing_is_certified(broker, device):
    with FakeTier(broker, lambda asked: asked.reply(good_answer(asked.request, certified=True))):
        assert not device.ask(sample(1)).certified
    assert not device.has_certificate


def test_another_cascade_name_is_another_queue(bundle, broker):
    with Device(bundle, settings(bundle, cascade="other", deadline_ms=1, grace_ms=0), broker.link("back")) as device:
        device.submit(sample(1)).result(TIMEOUT_S)
    assert len(broker.messages("branchy.other.edge.requests")) == 1


def test_a_broker_that_is_not_there_is_an_error(bundle, broker):
    broker.take_down()
    with pytest.raises(BrokerUnavailableError):
        Device(bundle, settings(bundle), broker.link("back"))


def test_a_broker_that_takes_no_message_as_large_as_a_sample_is_an_error(bundle):
    with pytest.raises(
        TransportError, match=r"a sample is 4 bytes, and topic branchy.toy.edge.requests takes at most 100"
    ):
        Device(bundle, settings(bundle), MemoryBroker(max_message_bytes=100).link("back"))


def test_a_bundle_that_is_not_there_is_an_error(tmp_path, bundle, broker):
    with pytest.raises(BundleError):
        Device(tmp_path / "none", settings(bundle), broker.link("back"))


def test_values_that_are_not_finite_are_not_sent(tmp_path, broker, bundle, device, monkeypatch):
    monkeypatch.setattr(device, "_payload", lambda sample: {"sample": np.array([np.nan], np.float32)})
    with pytest.raises(WireError, match="NaN"):
        device.ask(sample(1))


# --- the end ---------------------------------------------------------------------------------------------------------


def test_closing_ends_what_is_in_flight_and_refuses_more(bundle, broker):
    device = Device(bundle, settings(bundle, deadline_ms=30_000), broker.link("back"))
    future = device.submit(sample(1))
    device.close()
    device.close()
    with pytest.raises(NoAnswerError, match="the device was closed before an answer came"):
        future.result(TIMEOUT_S)
    with pytest.raises(NoAnswerError, match="the device is closed"):
        device.ask(sample(1))


def test_a_device_whose_inbox_the_brokers_refuse_says_so_to_who_waits(broker, device, logged):
    future = device.submit(sample(1))
    device._put(Failed(RefusedError("fenced")))
    with pytest.raises(NoAnswerError, match="fenced"):
        future.result(TIMEOUT_S)
    assert [record.getMessage() for record in logged] == ["fenced"]
    with pytest.raises(NoAnswerError, match="the device is closed"):
        device.submit(sample(1))


def test_a_failed_start_closes_what_it_opened(bundle, broker):
    class NoSender(MemoryLink):
        def sender(self, *args, **kwargs):
            raise TransportError("no sender")

    with pytest.raises(TransportError, match="no sender"):
        Device(bundle, settings(bundle), NoSender(broker, "back"))
    assert not any(broker.topics["branchy.toy.device.answers"].inboxes.values())
