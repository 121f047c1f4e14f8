"""Fixtures that several directories share."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from branchy.brokers.embedded import EmbeddedBroker, start_embedded


@pytest.fixture(scope="session")
def embedded_broker() -> Iterator[EmbeddedBroker]:
    """One embedded broker for the session; tests keep apart by the names of their topics."""
    with start_embedded() as broker:
        yield broker
