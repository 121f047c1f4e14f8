"""Tiers in processes of their own on a real Apache Kafka: shared, killed, stopped, held up and lied to."""

from __future__ import annotations

import re
import signal
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path

import pytest
import toy_bundle as toy
from client import WAIT_S
from commands import Command
from confluent_kafka import Consumer, TopicPartition
from groups import wait_for_commits, wait_for_shares
from serving_stand import Stand, one_sample

from branchy.brokers.apache_kafka import KafkaCluster
from branchy.config import DeviceSettings, LinkSettings
from branchy.core import topics, wire
from branchy.core.cascade import Array
from branchy.core.messages import Answer, Request
from branchy.core.policies import probabilities
from branchy.core.requester import Outcome
from branchy.runner.device import Device
from branchy.store.bundle import Bundle
from branchy.transport.base import Message
from branchy.transport.kafka.addresses import REPLY_TOPIC
from branchy.transport.kafka.config import CLASSIC_GROUP
from branchy.transport.kafka.topics import PARTITIONS

pytestmark = pytest.mark.alone

SESSION_S = CLASSIC_GROUP["session.timeout.ms"] / 1e3
PROTOCOLS = ("classic", "consumer")
SAMPLES = toy.samples(1000, seed=5)
WINDOW = 32
LOGITS = {"edge": toy.edge_logits, "cloud": toy.cloud_logits}


@pytest.fixture
def stand(tmp_path: Path, apache_kafka: KafkaCluster, toy_bundle: Bundle) -> Iterator[Stand]:
    with ExitStack() as stack:
        yield Stand(tmp_path, apache_kafka.brokers, toy_bundle, stack)


def open_device(stand: Stand, deadline_ms: float) -> Device:
    back = LinkSettings(brokers=stand.brokers)
    settings = DeviceSettings(bundle=stand.bundle.path, back=back, cascade=stand.cascade, deadline_ms=deadline_ms)
    return stand.stack.enter_context(Device(stand.bundle, settings))


def settings_file(folder: Path, protocol: str, *options: tuple[str, str]) -> Path:
    """For tiers whose groups use one of Kafka's two protocols, and librdkafka's own settings."""
    file = folder / "tier.toml"
    lines = ["[back]", f'group_protocol = "{protocol}"', "[back.options]"]
    lines += [f'"{name}" = "{value}"' for name, value in options]
    file.write_text("\n".join(lines), encoding="utf-8")
    return file


def serve_two_replicas(stand: Stand, config: Path) -> tuple[Command, Command, Command]:
    """Two replicas of the first tier, each with its half of the partitions, and the tier above them."""
    above = stand.serve("hall,cloud", "--config", config, ready=False)
    first, second = (stand.serve("edge", "--replica", n, "--config", config, ready=False) for n in (0, 1))
    for replica in (first, second):
        replica.wait_for_log("tier edge ready")
    above.wait_for_log("tier hall ready")
    wait_for_shares(stand.brokers, topics.group(stand.cascade, "edge"), [PARTITIONS // 2] * 2)
    return first, second, above


def ask_all(device: Device, halfway: Callable[[], None]) -> None:
    """Send all samples, do something in the middle, and hold every outcome to what the model says."""
    outcomes = []
    for outcome in device.run(SAMPLES, window=WINDOW):
        outcomes.append(outcome)
        if len(outcomes) == len(SAMPLES) // 2:
            halfway()
    assert sorted(outcome.index for outcome in outcomes) == list(range(len(SAMPLES))), "lost, or handed on twice"
    assert len({outcome.request for outcome in outcomes}) == len(SAMPLES)
    for outcome in outcomes:
        answer = checked(outcome)
        assert answer.index == LOGITS[answer.exit or ""](SAMPLES[outcome.index][None]).argmax()
    assert set(device.counters) <= {"duplicates"}, "what came besides can only be an answer given twice"


def submit_spread(device: Device, sample: Array, count: int) -> Iterator[Future[Outcome]]:
    """Send a sample many times, over many partitions: librdkafka stays with one for 10 ms."""
    for _ in range(count):
        yield device.submit(sample)
        time.sleep(0.015)


@contextmanager
def frozen(tier: Command) -> Iterator[None]:
    """A tier that takes nothing meanwhile, and keeps its connections."""
    tier.process.send_signal(signal.SIGSTOP)
    try:
        yield
    finally:
        tier.process.send_signal(signal.SIGCONT)


def checked(outcome: Outcome) -> Answer:
    assert outcome.answer is not None, outcome.fault
    assert outcome.answer.status == "ok", outcome.answer
    return outcome.answer


def came(replica: Command) -> int:
    """How many requests a replica that has stopped says it took."""
    found = re.search(r"stopped: .*\bcame (\d+)", replica.log())
    return int(found[1]) if found else 0


def test_a_cascade_answers_through_all_tiers_and_its_hops_are_true(stand):
    above = stand.serve("hall,cloud", ready=False)
    stand.serve("edge")
    above.wait_for_log("tier hall ready")
    device = open_device(stand, deadline_ms=20_000)
    batch = SAMPLES[:60]
    edge, cloud = (probabilities(logits(batch), 2.0) for logits in LOGITS.values())
    tiers = set()
    for outcome in device.run(batch):
        answer, sent = checked(outcome), outcome.index
        tiers.add(answer.tier)
        sure = edge[sent].max() >= 0.8
        assert (answer.tier, answer.reason) == (("edge", "confident") if sure else ("hall", "final"))
        hop, *above = answer.hops
        assert (hop.tier, hop.exit, hop.index) == ("edge", "edge", edge[sent].argmax())
        assert hop.confidence == pytest.approx(edge[sent].max(), abs=1e-5)
        assert (hop.bytes_up > 0) == (not sure)
        assert [(up.tier, up.exit, up.index, up.bytes_up) for up in above] == (
            [] if sure else [("hall", "cloud", cloud[sent].argmax(), 0)]
        )
        for outer_ms, inner in zip((outcome.latency_s * 1e3, hop.total_ms), answer.hops, strict=False):
            assert 0 < inner.queue_ms + inner.compute_ms <= inner.total_ms < outer_ms
    assert tiers == {"edge", "hall"}
    assert not device.counters


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_a_replica_is_killed_under_load_and_replaced_and_every_request_is_answered_once(stand, protocol, tmp_path):
    config = settings_file(tmp_path, protocol)
    first, second, above = serve_two_replicas(stand, config)
    device = open_device(stand, deadline_ms=20_000)
    held: list[Future[Outcome]] = []
    replacements: list[Command] = []

    def kill_and_replace() -> None:
        with frozen(above):
            # Until it dies it holds some, and had the time to commit them wrongly.
            held.extend(submit_spread(device, one_sample(sure=False), 40))
            first.process.send_signal(signal.SIGKILL)
            first.process.wait(WAIT_S)
        replacements.append(stand.serve("edge", "--replica", 0, "--config", config, ready=False))

    ask_all(device, kill_and_replace)
    for future in held:
        checked(future.result(WAIT_S))
    slowest_s = max(future.result().latency_s for future in held)
    assert slowest_s > SESSION_S / 2, "no request was in the killed replica's hands"
    wait_for_shares(stand.brokers, topics.group(stand.cascade, "edge"), [PARTITIONS // 2] * 2)
    ask_all(device, lambda: None)
    for replica in (second, *replacements):
        assert replica.stop() == 0
        assert came(replica) > 0


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_a_replica_is_told_to_stop_under_load_and_its_partitions_do_not_wait_for_its_session(stand, protocol, tmp_path):
    first, second, _ = serve_two_replicas(stand, settings_file(tmp_path, protocol))
    # Shorter than the session of a member that is gone without a word: who is in time did not wait for that.
    device = open_device(stand, deadline_ms=(SESSION_S - 1) * 1e3)
    ask_all(device, lambda: first.process.send_signal(signal.SIGTERM))
    assert first.process.wait(WAIT_S) == 0
    wait_for_shares(stand.brokers, topics.group(stand.cascade, "edge"), [PARTITIONS])
    assert second.stop() == 0
    assert min(came(first), came(second)) > 0
    assert came(first) + came(second) >= len(SAMPLES)


def test_a_tier_whose_consumer_the_brokers_refuse_before_its_first_share_ends_with_one_line(stand, tmp_path):
    config = settings_file(tmp_path, "consumer", ("group.remote.assignor", "none"))
    edge = stand.serve("edge", "--config", config, ready=False)
    assert edge.process.wait(WAIT_S) == 1
    (line,) = [line for line in edge.log().splitlines() if line.startswith("branchy: ")]
    assert "the brokers refuse this consumer: Broker: The assignor or its version" in line
    assert "tier edge ready" not in edge.log()


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_two_replicas_share_the_work_and_replies_come_back_to_the_one_that_asked(stand, protocol, tmp_path):
    config = settings_file(tmp_path, protocol)
    above = stand.serve("hall,cloud", "--config", config, ready=False)
    replicas = [stand.serve("edge", "--replica", n, "--config", config, ready=False) for n in (0, 1)]
    for tier, name in ((above, "hall"), *((replica, "edge") for replica in replicas)):
        tier.wait_for_log(f"tier {name} ready")
    wait_for_shares(stand.brokers, topics.group(stand.cascade, "edge"), [PARTITIONS // 2] * 2)
    device = open_device(stand, deadline_ms=20_000)
    futures = list(submit_spread(device, one_sample(sure=False), 60))
    for future in futures:
        answer = checked(future.result(WAIT_S))
        assert (answer.tier, answer.reason, len(answer.hops)) == ("hall", "final", 2), "its reply went astray"
    assert not device.counters
    assert [replica.stop() for replica in replicas] == [0, 0]
    shares = [came(replica) for replica in replicas]
    assert sum(shares) == len(futures)
    assert min(shares) > 0


def test_a_device_sends_a_request_again_that_got_no_answer_and_hands_on_one(stand):
    edge = stand.serve("edge")
    device = open_device(stand, deadline_ms=300.0)
    assert checked(device.submit(one_sample(sure=True)).result(WAIT_S))
    with frozen(edge):
        first = device.submit(one_sample(sure=True)).result(WAIT_S)
        assert first.answer is None
        second = device.submit(one_sample(sure=True), again=first.request).result(WAIT_S)
        assert (second.answer, second.request) == (None, first.request)
    for _ in range(20):  # the tier may be slow to find its feet
        third = device.submit(one_sample(sure=True), again=first.request).result(WAIT_S)
        if third.answer is not None:
            break
    assert (checked(third).request, third.request) == (first.request, first.request)
    assert edge.stop() == 0
    assert device.counters["again"] >= 2
    assert device.counters["late"] + device.counters["duplicates"] <= device.counters["again"]


def test_a_request_that_waited_longer_than_its_budget_is_answered_expired(stand):
    """A tier that is held up, not one that starts: that knows the broker's clock only from an acknowledgement on."""
    edge = stand.serve("edge")
    stand.client.ask(one_sample(sure=True), to="edge")
    assert stand.client.answer()[1].reason == "confident"
    wait_for_commits(stand.brokers, topics.group(stand.cascade, "edge"), 1)
    with frozen(edge):
        late = stand.client.ask(one_sample(sure=True), to="edge", budget_ms=300.0)
        in_time = stand.client.ask(one_sample(sure=True), to="edge", budget_ms=20_000.0)
        assert stand.client.sender.flush(WAIT_S) == 0
        time.sleep(0.5)  # its age has to exceed its budget
    answers = stand.client.answers(2)
    assert (answers[late].status, answers[late].reason, answers[late].label) == ("rejected", "expired", None)
    assert (answers[in_time].status, answers[in_time].reason) == ("ok", "confident")


def test_a_reply_address_outside_the_prefix_is_refused_and_lies_in_the_dead_letters(stand):
    client, elsewhere = stand.client, f"elsewhere-{stand.cascade}"
    client.link.prepare([elsewhere], WAIT_S)
    stand.serve("edge")
    request = Request("astray", stand.bundle.digest, "edge", 20_000.0, {"sample": one_sample(sure=True)})
    headers, body = wire.encode_request(request, wire.Stamp("event", "/test", time.time()))
    client.put(Message([*headers, (REPLY_TOPIC, elsewhere.encode())], body), to="edge", reply=False)
    dead = client.dead_letter("edge")
    found = dict(dead.headers)
    assert (dead.body, found["branchy-error-code"]) == (body, b"transport")
    assert found["branchy-error"] == f"reply topic '{elsewhere}' does not start with '{topics.PREFIX}'".encode()
    asked = client.ask(one_sample(sure=True), to="edge")  # it is not in the way of the next
    assert client.answer()[1].request == asked
    assert written(stand.brokers, elsewhere) == 0


def written(brokers: str, topic: str) -> int:
    """How many messages lie in a topic."""
    with closing(Consumer({"bootstrap.servers": brokers, "group.id": "counts"})) as consumer:
        ends = [consumer.get_watermark_offsets(TopicPartition(topic, n), WAIT_S) for n in range(PARTITIONS)]
    return sum(high - low for low, high in ends)
