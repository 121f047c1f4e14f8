"""One event when the brokers go, one when they are back, none for a false alarm."""

from __future__ import annotations

import queue
import threading

import pytest
from confluent_kafka import KafkaError
from transport_harness import Events

from branchy.transport.base import LinkState
from branchy.transport.kafka import watch
from branchy.transport.kafka.watch import LinkWatch

DOWN = KafkaError(KafkaError._ALL_BROKERS_DOWN, "1/1 brokers are down")


class Brokers:
    """A probe whose answers the test gives one by one."""

    def __init__(self):
        self.answers: queue.Queue[bool] = queue.Queue()
        self.asked = threading.Semaphore(0)

    def __call__(self, timeout_s: float) -> bool:
        self.asked.release()
        return self.answers.get(timeout=10)


@pytest.fixture(autouse=True)
def _probe_at_once(monkeypatch):
    monkeypatch.setattr(watch, "PROBE_S", 0.0)


def test_an_outage_is_told_once_and_its_end_once():
    brokers, events = Brokers(), Events()
    link = LinkWatch("back", brokers)
    link.add(events)
    link.add(events)
    link.on_error(DOWN)
    link.on_error(DOWN)
    for answer in (False, False, True):
        brokers.answers.put(answer)
    down, up = events.wait(LinkState, 2)
    assert (down.link, down.up, down.detail) == ("back", False, DOWN.str())
    assert up.up
    assert link.up
    assert len(events.all) == 2


def test_a_false_alarm_is_not_told_and_the_next_outage_is():
    brokers, events = Brokers(), Events()
    link = LinkWatch("back", brokers)
    link.add(events)
    link.on_error(DOWN)
    brokers.answers.put(True)
    while not events.all:  # until the thread of the false alarm has ended, more doubt is ignored
        link.on_error(DOWN)
        if brokers.asked.acquire(timeout=0.01):
            brokers.answers.put(False)
    assert events.of(LinkState)[0].up is False
    assert len(events.all) == 1
    link.close()
    brokers.answers.put(False)


def test_after_close_nothing_is_told():
    brokers, events = Brokers(), Events()
    link = LinkWatch("back", brokers)
    link.add(events)
    link.close()
    link.on_error(DOWN)
    assert not brokers.asked.acquire(timeout=0)
    assert events.all == []


def test_other_errors_are_no_outage():
    brokers, events = Brokers(), Events()
    link = LinkWatch("back", brokers)
    link.add(events)
    link.on_error(KafkaError(KafkaError._TRANSPORT))
    assert not brokers.asked.acquire(timeout=0)
    assert link.up


WRONG_PASSWORD = KafkaError(
    KafkaError._AUTHENTICATION,
    "sasl_ssl://127.0.0.1:1/bootstrap: SASL authentication error: Authentication failed (after 3ms in state AUTH_REQ)",
)


def test_an_outage_by_a_refusal_says_so_and_is_over_when_the_brokers_answer():
    brokers, events = Brokers(), Events()
    link = LinkWatch("back", brokers)
    link.add(events)
    link.on_error(WRONG_PASSWORD)
    link.on_error(DOWN)
    for answer in (False, True):
        brokers.answers.put(answer)
    down, _ = events.wait(LinkState, 2)
    assert down.detail == (
        "SASL authentication error: Authentication failed; check username, password and sasl_mechanism"
    )
    assert link.refusal is None


def test_a_refusal_is_logged_once_in_a_while(caplog):
    link = LinkWatch("back", Brokers())
    for _ in range(5):
        link.on_error(WRONG_PASSWORD)
    assert [record.levelname for record in caplog.records if "refuse this client" in record.message] == ["ERROR"]


@pytest.mark.parametrize(
    ("code", "text", "hint"),
    [
        (KafkaError._SSL, "SSL handshake failed: certificate verify failed: broker certificate", "check ca_file"),
        (KafkaError._TRANSPORT, "Receive failed: ssl/tls alert bad certificate: SSL alert number 42", "check certif"),
        (KafkaError._AUTHENTICATION, "SASL PLAIN mechanism handshake failed", "check username"),
        (KafkaError._SSL, "SSL handshake failed: unexpected eof while reading", None),
        (KafkaError._TRANSPORT, "Connect to ipv4#127.0.0.1:1 failed: Connection refused", None),
        (KafkaError._TRANSPORT, "Disconnected: connection closed by peer", None),
    ],
)
def test_a_refusal_names_what_to_check_and_an_absence_is_none(code, text, hint):
    found = watch.refusal_in(KafkaError(code, text))
    assert (found is None) == (hint is None)
    if hint is not None:
        assert f"; {hint}" in found
