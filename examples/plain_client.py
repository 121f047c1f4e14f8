"""A client of branchy without branchy: the headers and bodies of docs/protocol.md and nothing more.

It sends one of a bundle's golden samples twice, as safetensors and as JSON, and prints each answer. Of the
bundle it reads what is data: manifest.json (digest, names) and the golden samples. Tiers have to be running:

    pip install confluent-kafka numpy safetensors
    python examples/plain_client.py saved_models/digits --brokers 127.0.0.1:9092
"""

from __future__ import annotations

import argparse
import json
import time
import uuid
import zlib
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import safetensors.numpy
from confluent_kafka import Consumer, KafkaException, Producer, TopicPartition

BROKERS_WAIT_S = 10.0
GRACE_S = 1.0
"""How long after its deadline an answer is still waited for."""


class PlainClient:
    """Asks one tier and reads its answers.

    Args:
        brokers: `HOST:PORT,...` of the tier's back.
        cascade: the name in the topics.
        tier: whom to ask, the cascade's first or `full`.
    """

    def __init__(self, brokers: str, cascade: str, tier: str) -> None:
        self._requests = f"branchy.{cascade}.{tier}.requests"
        answers = f"branchy.{cascade}.device.answers"
        common = {"bootstrap.servers": brokers}
        self._producer = Producer(common)
        topic = self._producer.list_topics(answers, timeout=BROKERS_WAIT_S).topics[answers]
        if topic.error is not None or not topic.partitions:
            raise SystemExit(f"topic {answers} is not there; an operator makes it with: branchy topics create")
        self._inbox = TopicPartition(answers, zlib.crc32(b"plain-client") % len(topic.partitions))
        # librdkafka wants a group; an assigned consumer never joins it.
        self._consumer = Consumer(
            common
            | {"group.id": "plain-client", "enable.auto.commit": False, "isolation.level": "read_uncommitted"}
            | {"fetch.wait.max.ms": 10}  # the embedded broker answers a fetch only then
        )
        # Where the topic ends, before anything is sent: "the end" looked up later may be behind the answer.
        self._inbox.offset = self._consumer.get_watermark_offsets(self._inbox, timeout=BROKERS_WAIT_S)[1]
        self._consumer.assign([self._inbox])

    def ask(
        self, content_type: str, body: bytes, budget_ms: float, more: Mapping[str, str] | None = None
    ) -> dict[str, Any]:
        """Send one request and wait for its answer.

        Args:
            content_type: of the body.
            body: the sample.
            budget_ms: how long an answer is of use.
            more: headers beside those that every request has.

        Raises:
            TimeoutError: no answer came.
        """
        request, correlation = str(uuid.uuid4()), uuid.uuid4().bytes
        headers: dict[str, str | bytes] = {
            "ce_specversion": "1.0",
            "ce_id": str(uuid.uuid4()),
            "ce_source": "/plain-client",
            "ce_type": "branchy.request",
            "ce_time": datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z"),
            "content-type": content_type,
            "branchy-request": request,
            "branchy-budget-ms": f"{budget_ms:.0f}",
            "kafka_correlationId": correlation,
            "kafka_replyTopic": self._inbox.topic,
            "kafka_replyPartition": self._inbox.partition.to_bytes(4, "big"),
        } | dict(more or {})
        self._producer.produce(self._requests, body, headers=list(headers.items()))
        self._producer.poll(0)
        return self._answer(request, correlation, budget_ms / 1e3 + GRACE_S)

    def close(self) -> None:
        """Send what is queued, and leave."""
        self._producer.flush(GRACE_S)
        self._consumer.close()

    def _answer(self, request: str, correlation: bytes, timeout_s: float) -> dict[str, Any]:
        """The answer to this request; the partition may be shared, and other answers in it are not for us."""
        until_s = time.monotonic() + timeout_s
        while (left_s := until_s - time.monotonic()) > 0:
            message = self._consumer.poll(left_s)
            if message is None:
                continue
            if message.error() is not None:
                raise KafkaException(message.error())
            headers = dict(message.headers() or ())
            if headers.get("kafka_correlationId") == correlation and headers.get("ce_type") == b"branchy.answer":
                answer: dict[str, Any] = json.loads(message.value())
                if answer["request"] == request:
                    return answer
        raise TimeoutError(f"no answer within {timeout_s:g} s; does a tier serve {self._requests}, on these brokers?")


def ask_twice(bundle: Path, brokers: str, name: str | None, budget_ms: float) -> list[dict[str, Any]]:
    """The answers to a golden sample sent as safetensors, and sent as JSON."""
    manifest = json.loads((bundle / "manifest.json").read_text(encoding="utf-8"))
    cascade, first = manifest["cascade"], manifest["cascade"]["stages"][0]
    tensor = first["inputs"][0]["tensor"]
    sample = safetensors.numpy.load_file(bundle / manifest["golden"])[f"{first['name']}.input"][0]
    as_safetensors = safetensors.numpy.save({tensor: sample})
    as_json = json.dumps({tensor: sample.tolist()}).encode()
    model = {"branchy-model": manifest["digest"], "branchy-stage": first["name"]}

    client = PlainClient(brokers, name or cascade["name"], first["name"])
    try:
        return [
            client.ask("application/vnd.safetensors", as_safetensors, budget_ms, model),
            client.ask("application/json", as_json, budget_ms),
        ]
    finally:
        client.close()


def main() -> None:
    """Ask twice and print both answers, a line of JSON each."""
    parser = argparse.ArgumentParser(description="A client of branchy without branchy.")
    parser.add_argument("bundle", type=Path, help="directory of the bundle that the tiers serve")
    parser.add_argument("--brokers", required=True, help="HOST:PORT of the first tier's brokers")
    parser.add_argument("--cascade", help="name in the topics, if it is not the bundle's")
    parser.add_argument("--deadline-ms", type=float, default=1000, help="how long an answer is of use (1000)")
    options = parser.parse_args()
    try:
        answers = ask_twice(options.bundle, options.brokers, options.cascade, options.deadline_ms)
    except KafkaException as error:
        raise SystemExit(f"Kafka at {options.brokers}: {error.args[0].str()}") from None
    except OSError as error:  # no bundle there, or a TimeoutError
        raise SystemExit(str(error)) from None
    for answer in answers:
        print(json.dumps(answer))


if __name__ == "__main__":
    main()
