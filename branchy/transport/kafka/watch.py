"""Is a link up? Says so once when its brokers go away and once when they are back."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from typing import Any

from confluent_kafka import KafkaError

from branchy.transport.base import LinkState, Sink

logger = logging.getLogger(__name__)

PROBE_S = 0.5


class LinkWatch:
    """Turns librdkafka's errors into `LinkState` events; while the link is down, a thread probes it.

    Args:
        link: the link's name.
        probe: asks the brokers for anything, within so many seconds; whether they answered.
    """

    def __init__(self, link: str, probe: Callable[[float], bool]) -> None:
        self._link, self._probe = link, probe
        self._lock = threading.Lock()
        self._sinks: list[Sink] = []
        self._up = True
        self._closed = threading.Event()

    def add(self, sink: Sink) -> None:
        """Tell this sink too; one that is known already is told once."""
        with self._lock:
            if sink not in self._sinks:
                self._sinks.append(sink)

    def on_error(self, error: Any) -> None:
        """What librdkafka calls back with every error of a client."""
        if error.code() == KafkaError._ALL_BROKERS_DOWN:
            self._went_down(error.str())
        elif error.fatal() or error.code() == KafkaError._AUTHENTICATION:
            logger.error("%s: %s", self._link, error.str())
        else:
            logger.debug("%s: %s", self._link, error.str())

    def close(self) -> None:
        """Probe and tell no more."""
        self._closed.set()

    def _went_down(self, detail: str) -> None:
        with self._lock:
            if not self._up or self._closed.is_set():
                return
            self._up = False
        logger.warning("%s: no broker can be reached (%s)", self._link, detail)
        self._tell(LinkState(self._link, False, detail))
        threading.Thread(target=self._wait_until_up, name=f"{self._link}-probe", daemon=True).start()

    def _wait_until_up(self) -> None:
        while not self._probe(PROBE_S):
            if self._closed.wait(PROBE_S):
                return
        with self._lock:
            self._up = True
        logger.info("%s: the brokers are reachable", self._link)
        self._tell(LinkState(self._link, True))

    def _tell(self, event: LinkState) -> None:
        with self._lock:
            sinks = list(self._sinks)
        for sink in sinks:
            sink(event)
