"""A bundle without weights, and a tier on the memory transport that answers as a test tells it to."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from queue import SimpleQueue

import numpy as np

from branchy.config import DeviceSettings, LinkSettings
from branchy.core import topics, wire
from branchy.core.cascade import CascadeSpec, ExitSettings, InputSpec, Source, StageFile, StageSpec, TensorSpec, Uplink
from branchy.core.messages import Answer, Hop, Request
from branchy.runner.events import Stamper
from branchy.store.bundle import Bundle
from branchy.store.manifest import Split, TrainingInfo
from branchy.store.writer import write_bundle
from branchy.transport.base import Arrived, Message
from branchy.transport.memory import MemoryBroker

LABELS = ("zero", "one", "two")
SHAPE = (2, 2, 1)


def spec() -> CascadeSpec:
    """Two stages and three classes; a sample's first value is taken for its class by `FakeTier`."""
    sample, activation, logits = (
        TensorSpec("sample", SHAPE, "uint8"),
        TensorSpec("activation", (4,)),
        TensorSpec("logits", (3,)),
    )
    files = {name: {"litert": StageFile(f"{name}.tflite", "", 0, ExitSettings())} for name in ("edge", "cloud", "full")}
    edge = StageSpec(
        "edge", (Source(None, "sample"),), sample, activation, logits, ("cloud",), Uplink(), 1, 1, files["edge"]
    )
    cloud = StageSpec(
        "cloud", (Source("edge", "activation"),), activation, None, logits, (), None, 1, 1, files["cloud"]
    )
    full = StageSpec("full", (Source(None, "sample"),), sample, None, logits, (), None, 2, 2, files["full"])
    return CascadeSpec("toy", LABELS, InputSpec(sample, 0.0, 16.0, "L"), (edge, cloud), full)


def toy_bundle(path: Path) -> Bundle:
    """The bundle of `spec()`, whose stages nothing can run."""
    golden = {
        stage.name: (np.zeros((1, *stage.input.shape), stage.input.dtype), np.zeros((1, 3), np.float32))
        for stage in (*spec().stages, spec().full)
    }

    def fill(directory: Path) -> CascadeSpec:
        for name in ("edge", "cloud", "full"):
            (directory / f"{name}.tflite").write_bytes(b"no weights")
        return spec()

    return write_bundle(
        path,
        fill,
        training=TrainingInfo("branchy train toy", 0, "toy", "0.1.0"),
        splits={"test": Split(3, "3" * 64)},
        golden=golden,
    )


def settings(bundle: Bundle, **changes) -> DeviceSettings:
    """A device's, with brokers that nobody needs."""
    return DeviceSettings(**{"bundle": bundle.path, "back": LinkSettings(brokers="memory:1"), **changes})


def sample(value: int) -> np.ndarray:
    """A sample of the class `value`."""
    return np.full(SHAPE, value, np.uint8)


def good_answer(request: Request, **changes) -> Answer:
    """The answer of an edge that is sure; the class is the sample's first value."""
    index = int(request.payload["sample"].flat[0])
    hop = Hop("edge", "edge", index, 0.9, queue_ms=0.1, compute_ms=0.2, total_ms=0.5)
    answer = Answer(request.id, "ok", "confident", "edge", request.model, LABELS[index], index, 0.9, (), "edge", (hop,))
    return replace(answer, **changes)


@dataclass(frozen=True)
class Asked:
    """A request that came, and the way back."""

    request: Request
    message: Message
    send_back: Callable[[Message], object]

    def reply(self, answer: Answer | None = None, body: bytes | None = None) -> None:
        """Send an answer, a good one unless told, or headers of one with another body."""
        headers, good_body = wire.encode_answer(answer or good_answer(self.request), Stamper("/fake")())
        self.send_back(Message(headers, good_body if body is None else body))


class FakeTier:
    """Takes a tier's requests and calls `script` for each, in a thread of its own.

    Args:
        broker: where.
        script: what to do with a request: answer it, now or later, once, often or never.
        tier: whose requests.
    """

    def __init__(
        self, broker: MemoryBroker, script: Callable[[Asked], object] = Asked.reply, *, tier: str = "edge"
    ) -> None:
        self.asked: list[Asked] = []
        self._events: SimpleQueue[object] = SimpleQueue()
        self._script = script
        link, queue = broker.link("fake"), topics.requests("toy", tier)
        link.prepare([queue, topics.answers("toy", "device")], 1.0)
        self._sender = link.sender(lambda *events: None, message_timeout_s=1.0, queue_limit=1000)
        self._source = link.requests(queue, "fake", self._events.put)
        self._source.start()
        self._thread = threading.Thread(target=self._work, daemon=True)
        self._thread.start()

    def __enter__(self) -> FakeTier:
        return self

    def __exit__(self, *_: object) -> None:
        self._source.close()
        self._events.put(None)
        self._thread.join(10)

    def _work(self) -> None:
        while (event := self._events.get()) is not None:
            for delivery in event.deliveries if isinstance(event, Arrived) else ():
                message = delivery.message
                request = wire.decode_request(message.headers, message.body, model="", stage="", new_id=str)
                send = partial(self._sender.send, delivery.reply_to, tag=None, correlation=delivery.correlation)
                self.asked.append(Asked(request, message, send))
                self._script(self.asked[-1])
                self._source.settle(delivery.token)
