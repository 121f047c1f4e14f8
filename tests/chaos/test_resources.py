from __future__ import annotations

import os
import threading
from dataclasses import replace

import pytest
from chaos import resources
from chaos.resources import MORE_CONNECTIONS, MORE_MEMORY_BYTES, held, leaks

OWN = {"test": os.getpid()}


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(resources, "SETTLE_TIMEOUT_S", 0.0)


def test_what_a_process_holds_as_before_is_no_leak():
    assert list(leaks(held(OWN), OWN)) == []


@pytest.mark.parametrize(
    ("what", "more"),
    [
        ("memory_bytes", MORE_MEMORY_BYTES + (8 << 20)),
        ("files", 1),
        ("threads", 1),
        ("connections", MORE_CONNECTIONS + 1),
    ],
)
def test_more_of_anything_is_a_leak(what, more):
    now = held(OWN)["test"]
    before = {"test": replace(now, **{what: getattr(now, what) - more})}
    assert [text.split(" has ")[0] for text in leaks(before, OWN)] == [f"test had {getattr(now, what) - more} {what},"]


def test_a_thread_that_is_left_is_seen():
    before, stop = held(OWN), threading.Event()
    thread = threading.Thread(target=stop.wait)
    thread.start()
    try:
        assert len(list(leaks(before, OWN))) == 1
    finally:
        stop.set()
        thread.join()
