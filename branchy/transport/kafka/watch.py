"""Is a link up? Says so once when its brokers go away and once when they are back."""

from __future__ import annotations

import logging
import re
import threading
import time
from collections.abc import Callable
from typing import Any

from confluent_kafka import KafkaError

from branchy.transport.base import LinkState, Sink

logger = logging.getLogger(__name__)

PROBE_S = 0.5
SAY_REFUSAL_EVERY_S = 30.0

_WHERE = re.compile(r"^\S+://\S+: |^\S+:\d+/\S+: | \(after \d+ms in state \w+\)(?=$|[ ,(])|:? ?SSL alert number \d+")
"""What librdkafka says around its reason: the address, how long it took."""

_HINTS = {
    "certificate verify failed": "check ca_file, the authority of the brokers' certificate, and the brokers' names",
    "SASL": "check username, password and sasl_mechanism",
    "alert": "check certificate_file and key_file: the brokers ask for a certificate that they trust",
}


def refusal_in(error: Any) -> str | None:
    """Why the brokers, or this client, refuse the other, and what to check; None for any other error.

    Args:
        error: librdkafka's. A TLS connection that just ends, as when a broker goes away, is no refusal.
    """
    text, code = error.str(), error.code()
    told = code == KafkaError._SSL and " eof " not in text
    if not (told or code == KafkaError._AUTHENTICATION or (code == KafkaError._TRANSPORT and " alert " in text)):
        return None
    hints = [hint for word, hint in _HINTS.items() if word in text]
    reason = " ".join(_WHERE.sub("", text).partition(", verify that")[0].split())
    return f"{reason[:300]}; {hints[0] if hints else 'check the security settings'}"


class LinkWatch:
    """Turns librdkafka's errors into `LinkState` events.

    One client that finds all its connections closed says nothing of the brokers (each
    client notices an outage, and its end, in its own time), so a thread asks them before it
    says that they are down, and goes on asking until they answer.

    Attributes:
        up: whether the brokers answered when they were last asked; true until there is doubt.
        refusal: why they refuse this client, since they last answered; None when they do not.

    Args:
        link: the link's name.
        probe: asks the brokers for anything, within so many seconds; whether they answered.
    """

    def __init__(self, link: str, probe: Callable[[float], bool]) -> None:
        self._link, self._probe = link, probe
        self._lock = threading.Lock()
        self._sinks: list[Sink] = []
        self._probing = False
        self._closed = threading.Event()
        self.up = True
        self.refusal: str | None = None
        self._said_refusal_s = float("-inf")

    def add(self, sink: Sink) -> None:
        """Tell this sink too; one that is known already is told once."""
        with self._lock:
            if sink not in self._sinks:
                self._sinks.append(sink)

    def on_error(self, error: Any) -> None:
        """What librdkafka calls back with every error of a client."""
        if error.code() == KafkaError._ALL_BROKERS_DOWN:
            self._doubt(error.str())
        elif (refusal := refusal_in(error)) is not None:
            self.refusal = refusal
            if time.monotonic() - self._said_refusal_s > SAY_REFUSAL_EVERY_S:
                self._said_refusal_s = time.monotonic()
                logger.error("%s: the brokers refuse this client: %s", self._link, refusal)
        elif error.fatal():
            logger.error("%s: %s", self._link, error.str())
        else:
            logger.debug("%s: %s", self._link, error.str())

    def close(self) -> None:
        """Probe and tell no more."""
        self._closed.set()

    def _doubt(self, detail: str) -> None:
        with self._lock:
            if self._probing or self._closed.is_set():
                return
            self._probing = True
        threading.Thread(target=self._ask, args=(detail,), name=f"{self._link}-probe", daemon=True).start()

    def _ask(self, detail: str) -> None:
        up = self._probe(PROBE_S)
        if not up:
            what = "the brokers refuse this client" if self.refusal else "no broker can be reached"
            detail = self.refusal or detail
            logger.warning("%s: %s (%s)", self._link, what, detail)
            self.up = False
            self._tell(LinkState(self._link, False, detail))
            while not up and not self._closed.wait(PROBE_S):
                up = self._probe(PROBE_S)
            if up:
                logger.info("%s: the brokers are reachable", self._link)
                self.up, self.refusal = True, None
                self._tell(LinkState(self._link, True))
        with self._lock:
            self._probing = False

    def _tell(self, event: LinkState) -> None:
        with self._lock:
            sinks = list(self._sinks)
        if not self._closed.is_set():
            for sink in sinks:
                sink(event)
