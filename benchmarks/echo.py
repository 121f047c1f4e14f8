"""The echo worker: consumes requests and answers each with the same bytes, with branchy's Kafka settings and no more.

`python -m benchmarks.echo BROKERS TOPIC ANSWER_FILE READY_FILE`
"""

from __future__ import annotations

import json
import signal
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

from confluent_kafka import Consumer, Message, Producer, TopicPartition

from benchmarks.client import Prepared, consumer_settings, make_topics
from branchy.transport.kafka.addresses import CORRELATION, open_envelope
from branchy.transport.kafka.cluster import UNPREPARED_BATCH_BYTES
from branchy.transport.kafka.config import CLASSIC_GROUP, COMMON, CONSUMER_GROUP, PRODUCER
from branchy.transport.kafka.sender import STATISTICS_MS

COMMIT_EVERY = 1000
SENDER: dict[str, Any] = {
    "batch.size": UNPREPARED_BATCH_BYTES,
    "statistics.interval.ms": STATISTICS_MS,
    "stats_cb": lambda text: None,
}
"""What a tier's sender of answers tells its producer besides `PRODUCER`."""


def write_answer(answer: Prepared, path: Path) -> None:
    """Keep an answer for an echo worker to give."""
    path.write_text(json.dumps([[(k, v.hex()) for k, v in answer.headers], answer.body.hex()]))


def read_answer(path: Path) -> Prepared:
    """What `write_answer` wrote."""
    headers, body = json.loads(path.read_text())
    return Prepared([(k, bytes.fromhex(v)) for k, v in headers], bytes.fromhex(body))


def echo(brokers: str, topic: str, answer: Prepared, stopped: threading.Event, on_ready: Callable[[], Any]) -> None:
    """Answer until `stopped`."""
    embedded = make_topics(brokers, [topic])
    producer = Producer({**COMMON, **PRODUCER, **SENDER, "bootstrap.servers": brokers})
    group = {"bootstrap.servers": brokers, "group.id": f"{topic}.echo"}
    protocol = CONSUMER_GROUP if embedded else CLASSIC_GROUP
    consumer = Consumer({**consumer_settings(embedded), **protocol, **group})

    def on_assign(consumer: Consumer, partitions: list[TopicPartition]) -> None:
        consumer.incremental_assign(partitions)
        on_ready()

    consumer.subscribe([topic], on_assign=on_assign)
    answered = 0
    while not stopped.is_set():
        first = consumer.poll(0.1)
        if first is None:
            continue
        for message in (first, *consumer.consume(256, 0)):
            _reply(producer, message, answer)
            answered += 1
            if answered % COMMIT_EVERY == 0:
                consumer.commit(message, asynchronous=True)
        producer.poll(0)
    producer.flush(5)
    consumer.close()


def _reply(producer: Producer, message: Message, answer: Prepared) -> None:
    envelope = open_envelope(message.headers() or [], lambda address: None)
    if envelope.reply_to is None or envelope.correlation is None:
        raise RuntimeError(f"a request without a reply address: {message.error() or message.headers()}")
    headers: Any = [*answer.headers, (CORRELATION, envelope.correlation)]
    topic, partition = envelope.reply_to
    producer.produce(topic, answer.body, headers=headers, partition=partition if partition is not None else -1)


def main() -> None:
    """Run until SIGTERM."""
    brokers, topic, answer_file, ready_file = sys.argv[1:]
    stopped = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: stopped.set())
    echo(brokers, topic, read_answer(Path(answer_file)), stopped, Path(ready_file).touch)


if __name__ == "__main__":
    main()
