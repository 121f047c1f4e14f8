"""Ten thousand malformed messages and decompression bombs at a tier's process, on a real Apache Kafka."""

from __future__ import annotations

import re
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from random import Random

import psutil
import pytest
import toy_bundle as toy
from client import WAIT_S
from commands import Command
from confluent_kafka import KafkaError
from confluent_kafka.admin import AdminClient, AlterConfigOpType, ConfigEntry, ConfigResource, ResourceType
from poisons import Poison, Target, poison
from raw_produce import CODECS, bomb, produce_batch, produce_named
from serving_stand import Stand, one_sample

from branchy.brokers.apache_kafka import KafkaCluster
from branchy.core import topics, wire
from branchy.core.messages import Request
from branchy.store.bundle import Bundle
from branchy.transport.base import Delivery, Message, Sent
from branchy.transport.kafka.addresses import REPLY_PARTITION, REPLY_TOPIC, KafkaAddress

pytestmark = pytest.mark.alone

ROUNDS, POISONS, GOOD_EVERY, NAMELESS_EVERY, SEED = 4, 2_500, 4, 250, 2026
ROUND = POISONS + POISONS // GOOD_EVERY
GROWTH_BYTES = 48 * 1024 * 1024
"""Most that a tier holds more after the last round than after the first; what is sent between them has more."""

BOMBS, BOMB_BYTES = 2, 200_000_000
OPENED_BYTES = 20_000_000
"""Of a bomb that a broker opens: it has it in its heap."""


@pytest.fixture
def stand(tmp_path: Path, apache_kafka: KafkaCluster, toy_bundle: Bundle) -> Iterator[Stand]:
    with ExitStack() as stack:
        yield Stand(tmp_path, apache_kafka.brokers, toy_bundle, stack)


def astray(stand: Stand, target: Target, random: Random) -> Poison:
    """What says nothing, or nothing allowed, about where its answer goes; the transport finds that out."""
    inbox = topics.answers(stand.cascade, "device").encode()
    wrong: list[list[tuple[str, bytes]]] = [
        [],
        [(REPLY_TOPIC, b"elsewhere")],
        [(REPLY_TOPIC, b"branchy.nowhere.device.answers")],
        [(REPLY_TOPIC, b"\xff")],
        [(REPLY_TOPIC, b"")],
        [(REPLY_TOPIC, inbox), (REPLY_PARTITION, b"99")],
        [(REPLY_TOPIC, inbox), (REPLY_PARTITION, b"\xff\xff\xff\xff")],
        [(REPLY_TOPIC, inbox), (REPLY_PARTITION, b"first")],
    ]
    good, headers = target.good(), random.choice(wrong)
    return Poison(Message([*good.headers, *headers], good.body), "transport" if headers else "reply-to")


class Memory:
    """The peak of what a process holds, from now on."""

    def __init__(self, process: int) -> None:
        self._status = Path(f"/proc/{process}/status")
        Path(f"/proc/{process}/clear_refs").write_text("5")
        self._before = self._peak()

    def growth_bytes(self) -> int:
        return self._peak() - self._before

    def _peak(self) -> int:
        found = re.search(r"VmHWM:\s+(\d+) kB", self._status.read_text())
        assert found is not None
        return int(found[1]) * 1024


def let_through(brokers: str, topic: str) -> None:
    """Make a topic one that somebody else made: its brokers take batches as they come."""
    setting = ConfigEntry("compression.type", "producer", incremental_operation=AlterConfigOpType.SET)
    resource = ConfigResource(ResourceType.TOPIC, topic, incremental_configs=[setting])
    admin = AdminClient({"bootstrap.servers": brokers})
    admin.incremental_alter_configs([resource])[resource].result(WAIT_S)


def good_activation(stand: Stand) -> Message:
    activation = toy.activations(one_sample(sure=True)[None])[0]
    request = Request("good", stand.bundle.digest, "hall", 20_000.0, {"activation": activation})
    return Message(*wire.encode_request(request, wire.Stamp("event", "/test", time.time())))


def put(stand: Stand, message: Message, to: KafkaAddress) -> None:
    assert stand.client.sender.send(to, message, "tag", correlation=b"c", reply_to=stand.client.inbox.address)


def dead_letters(stand: Stand, tier: str) -> list[Delivery]:
    return list(stand.client.link.browse(topics.dead_letters(stand.cascade, tier), WAIT_S))


def code_of(dead: Delivery) -> str:
    return dict(dead.message.headers)[wire.ERROR_CODE].decode()


def counters(tier: Command) -> dict[str, int]:
    """What a tier that has stopped says it counted."""
    (line,) = re.findall(r"stopped: (.*)", tier.log())
    return {word: int(number) for word, number in re.findall(r"(\S+) (\d+)", line)}


class Attack:
    """Sends poisons to the edge, good requests among them, and knows what has to become of each."""

    def __init__(self, stand: Stand, random: Random) -> None:
        self.stand, self.random = stand, random
        self.target = Target(stand.bundle.digest, "edge", one_sample(sure=True))
        self.codes: dict[bytes, str | None] = {}
        self.sent_bytes = 0
        self._queue = stand.client.link.queue(topics.requests(stand.cascade, "edge"))
        self._reports: list[Sent] = []
        self._sender = stand.client.link.sender(self._report, message_timeout_s=60.0, queue_limit=ROUND)
        stand.stack.callback(self._sender.close)

    def round(self) -> None:
        """Send one round, and hold each answer to what must come, once."""
        expected: dict[bytes, tuple[str, str]] = {}
        self._reports.clear()
        for number in range(POISONS):
            if number % GOOD_EVERY == 0:
                key, mine = self._next("good")
                expected[key] = "ok", "confident"
                self._put(mine.good(), key)
            key, mine = self._next("bad")
            misdirected = number % 50 == 0
            made = astray(self.stand, mine, self.random) if misdirected else poison(mine, self.random)
            if made.code is None:
                expected[key] = "rejected", "digest"
            elif not misdirected:
                expected[key] = "error", "failed" if made.code == "failed" else "malformed"
            if made.code is not None:
                self.codes[key] = made.code
            self._put(made.message, key, reply=not misdirected)
            if number % NAMELESS_EVERY == 0:
                self._put_nameless()
        assert self._sender.flush(60.0) == 0
        assert [report.error for report in self._reports] == [None] * ROUND
        answers = [self.stand.client.answer() for _ in expected]
        assert {key: (answer.status, answer.reason) for key, answer in answers} == expected

    def _put_nameless(self) -> None:
        """A good body under a header whose name is no text, as no client library sends one."""
        key, _ = self._next("nameless")
        names = [b"branchy-request", self.random.choice([b"\xff", b"caf\xe9", b"\xed\xa0\x80"])]
        produce_named(self.stand.brokers, self._queue.topic, self.random.randrange(4), names, key)
        self.codes[key] = "transport"

    def _next(self, word: str) -> tuple[bytes, Target]:
        number = f"{word}-{self.random.getrandbits(64):x}"
        return number.encode(), replace(self.target, number=number)

    def _put(self, message: Message, key: bytes, reply: bool = True) -> None:
        self.sent_bytes += message.size_bytes
        reply_to = self.stand.client.inbox.address if reply else None
        assert self._sender.send(self._queue, message, key, correlation=key, reply_to=reply_to)

    def _report(self, *several: Sent) -> None:
        self._reports.extend(several)


def test_ten_thousand_malformed_messages_stop_nothing_and_each_lies_in_the_dead_letters_with_its_code(stand):
    edge = stand.serve("edge")
    attack, process = Attack(stand, Random(SEED)), psutil.Process(edge.process.pid)
    resident = []
    for _ in range(ROUNDS):
        attack.round()
        resident.append(process.memory_info().rss)
    assert attack.sent_bytes * (ROUNDS - 1) // ROUNDS > GROWTH_BYTES
    assert resident[-1] - resident[0] < GROWTH_BYTES
    assert edge.stop() == 0
    dead = dead_letters(stand, "edge")
    assert {each.correlation or each.message.body: code_of(each) for each in dead} == attack.codes
    assert len(dead) == len(attack.codes)
    misdirected = [dict(each.message.headers) for each in dead if each.correlation and code_of(each) == "transport"]
    assert all(REPLY_TOPIC in headers for headers in misdirected), "for when somebody makes the topic"
    counted, codes = counters(edge), Counter(attack.codes.values())
    assert counted["dead"] == len(dead)
    malformed = {word.partition(".")[2]: n for word, n in counted.items() if word.startswith("malformed.")}
    assert malformed == {code: n for code, n in codes.items() if code != "failed"}
    assert counted.get("undeliverable", 0) == 0


@pytest.mark.parametrize("codec", CODECS)
def test_a_bomb_is_refused_by_the_broker_where_devices_write(stand, codec):
    queue = topics.requests(stand.cascade, "edge")
    small = bomb(codec, OPENED_BYTES)
    assert len(small) < OPENED_BYTES / 1000
    assert produce_batch(stand.brokers, queue, 0, small) == KafkaError.MSG_SIZE_TOO_LARGE
    assert produce_batch(stand.brokers, queue, 0, bomb(codec, 1000)) == 0, "compressed as such is welcome"


@pytest.mark.parametrize(
    ("codec", "records", "times"),
    [
        pytest.param("gzip", 1, 2.2, id="gzip: librdkafka expands it whole, confluent-kafka copies it"),
        pytest.param("zstd", 20, 1.1, id="zstd: librdkafka stops at receive.message.max.bytes"),
    ],
)
def test_where_a_bomb_gets_through_it_is_a_dead_letter_by_its_coordinates_and_the_partition_goes_on(
    stand, codec, records, times
):
    queue = topics.requests(stand.cascade, "hall")
    let_through(stand.brokers, queue)
    hall = stand.serve("hall,cloud")
    memory = Memory(hall.process.pid)
    batch = bomb(codec, BOMB_BYTES, records)
    for _ in range(BOMBS):
        assert produce_batch(stand.brokers, queue, 0, batch) == 0
        put(stand, good_activation(stand), KafkaAddress(queue, 0))
        assert stand.client.answer()[1].status == "ok"
    assert memory.growth_bytes() < times * BOMB_BYTES, "bombs add up"
    assert hall.stop() == 0
    dead = dead_letters(stand, "hall")
    assert [(code_of(each), each.message.body) for each in dead] == [("transport", b"")] * BOMBS
    texts = sorted(dict(each.message.headers)[wire.ERROR_TEXT].decode() for each in dead)
    places = [re.match(rf"{re.escape(queue)} \[0\] offsets? (\d+)(?: to (\d+))? ", text) for text in texts]
    spans = sorted((int(place[1]), int(place[2] or place[1])) for place in places if place)
    assert spans == [(first, first + records - 1) for first in (0, records + 1)]
    assert counters(hall)["dead"] == BOMBS
