"""A device that asks at a steady rate while something goes wrong, and what became of every request."""

from __future__ import annotations

import itertools
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import NamedTuple, cast

import numpy as np

from branchy.config import DeviceSettings, LinkSettings
from branchy.core import topics
from branchy.core.cascade import Array
from branchy.core.requester import Outcome
from branchy.core.wire import request_id
from branchy.datasets.loading import load
from branchy.runner.cascade import Cascade
from branchy.runner.device import Device
from branchy.store.bundle import Bundle
from branchy.transport.kafka import KafkaLink
from branchy.transport.kafka.addresses import KafkaAddress, KafkaToken

DEADLINE_S = 1.0
READ_TIMEOUT_S = 20.0
GRACE_S = 30.0
"""So long after its deadline an answer is still waited for; then the request counts as lost."""


class Place(NamedTuple):
    """Where a request lies, as the brokers have it.

    Attributes:
        request: its partition of the first tier's requests.
        answer: the partition of the device's answers that it asks for its answer in.
    """

    request: int
    answer: int


@dataclass(frozen=True, slots=True)
class Seen:
    """One request.

    Attributes:
        outcome: how it ended.
        ended_s: when, by `time.time()`.
        right: whether its answer is what the model says at the exit that it names; a refusal has none to be wrong.
        place: where it lies; None when the brokers never took it.
    """

    outcome: Outcome
    ended_s: float
    right: bool
    place: Place | None

    @property
    def asked_s(self) -> float:
        """When it was due to be sent, by `time.time()`."""
        return self.ended_s - self.outcome.latency_s


class Traffic:
    """Asks the first tier for the digits' test samples, over and over; use it in a `with`.

    Args:
        bundle: trained on the digits.
        brokers: of the first tier.
        rate: requests a second.
        deadline_s: of each.
    """

    def __init__(self, bundle: Bundle, brokers: str, rate: float, deadline_s: float = DEADLINE_S) -> None:
        test = load("digits").test
        self._samples = [sample for sample, _ in test]
        self._expected = _expected(bundle, test.read(np.arange(len(test)))[0])
        self._rate, self.deadline_s = rate, deadline_s
        self._link = KafkaLink(LinkSettings(brokers=brokers), "places")
        self._queue = topics.requests(bundle.spec.name, bundle.spec.stages[0].name)
        settings = DeviceSettings(
            bundle=bundle.path,
            back=LinkSettings(brokers=brokers),
            deadline_ms=deadline_s * 1e3,
            grace_ms=GRACE_S * 1e3,
        )
        self.device = Device(bundle, settings)

    def during(self, fault: Callable[[], None]) -> list[Seen]:
        """Ask for as long as something goes on, and wait for what became of it all."""
        over = threading.Event()
        with ThreadPoolExecutor(1) as pool:
            asking = pool.submit(self._ask, over)
            try:
                fault()
            finally:
                over.set()
            return asking.result()

    @property
    def counters(self) -> Counter[str]:
        """What came and was not handed on, so far; see `Device.counters`."""
        return self.device.counters

    def __enter__(self) -> Traffic:
        """Itself."""
        return self

    def __exit__(self, *exception: object) -> None:
        """Close the device."""
        self.device.close()
        self._link.close()

    def _ask(self, over: threading.Event) -> list[Seen]:
        ended = [(outcome, time.time()) for outcome in self.device.run(self._until(over), rate=self._rate)]
        places = self._places()
        return [Seen(each, at_s, self._is_right(each), places.get(each.request)) for each, at_s in ended]

    def _places(self) -> Mapping[str, Place]:
        """Where each request lies, those of earlier times too: by what the first tier's queue holds."""
        places = {}
        for delivery in self._link.browse(self._queue, READ_TIMEOUT_S):
            request, token = request_id(delivery.message.headers), cast(KafkaToken, delivery.token)
            answer = cast(KafkaAddress, delivery.reply_to).partition
            assert request is not None
            assert answer is not None
            places[request] = Place(token.assignment.partition, answer)
        return places

    def _until(self, over: threading.Event) -> Iterator[Array]:
        return itertools.takewhile(lambda _: not over.is_set(), itertools.cycle(self._samples))

    def _is_right(self, outcome: Outcome) -> bool:
        answer = outcome.answer
        if answer is None or answer.status != "ok":
            return True
        expected = self._expected.get(answer.exit or "")
        return expected is not None and answer.index == expected[outcome.index % len(self._samples)]


def _expected(bundle: Bundle, samples: Array) -> Mapping[str, list[int | None]]:
    """By exit the class of each sample."""
    expected = {}
    for stage in bundle.spec.stages:
        if stage.logits is not None:
            cascade = Cascade(bundle, stage=stage.name)
            expected[stage.name] = [answer.index for answer in cascade.predict(samples)]
            cascade.close()
    return expected
