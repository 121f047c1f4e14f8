"""librdkafka's mock cluster through ctypes on the wheel's own librdkafka.

confluent-kafka can start a mock cluster but not tune it. Tuned, a second replica gets its
share after 0.35 s instead of 3 and a killed one's partitions move after 3 s instead of 30.
Where the library or a symbol is not found, the untuned cluster is used instead.
"""

from __future__ import annotations

import ctypes
import ctypes.util
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Protocol

import confluent_kafka

from branchy.errors import BranchyError

SESSION_TIMEOUT_MS = 3_000
HEARTBEAT_MS = 250
REBALANCE_DELAY_MS = 100

_SYMBOLS: dict[str, tuple[Any, list[Any]]] = {
    "rd_kafka_conf_new": (ctypes.c_void_p, []),
    "rd_kafka_conf_set": (
        ctypes.c_int,
        [ctypes.c_void_p, ctypes.c_char_p, ctypes.c_char_p, ctypes.c_char_p, ctypes.c_size_t],
    ),
    "rd_kafka_new": (ctypes.c_void_p, [ctypes.c_int, ctypes.c_void_p, ctypes.c_char_p, ctypes.c_size_t]),
    "rd_kafka_destroy": (None, [ctypes.c_void_p]),
    "rd_kafka_mock_cluster_new": (ctypes.c_void_p, [ctypes.c_void_p, ctypes.c_int]),
    "rd_kafka_mock_cluster_destroy": (None, [ctypes.c_void_p]),
    "rd_kafka_mock_cluster_bootstraps": (ctypes.c_char_p, [ctypes.c_void_p]),
    "rd_kafka_mock_group_initial_rebalance_delay_ms": (None, [ctypes.c_void_p, ctypes.c_int32]),
    "rd_kafka_mock_set_group_consumer_session_timeout_ms": (None, [ctypes.c_void_p, ctypes.c_int]),
    "rd_kafka_mock_set_group_consumer_heartbeat_interval_ms": (None, [ctypes.c_void_p, ctypes.c_int]),
}


class MockCluster(Protocol):
    """A running mock cluster of one broker in this process."""

    brokers: str
    """Its `HOST:PORT`; librdkafka picks the port."""

    def close(self) -> None:
        """Stop it."""


def open_mock_cluster() -> MockCluster:
    """A tuned mock cluster where this librdkafka lets us, else a plain one.

    Raises:
        BranchyError: neither could be started.
    """
    library = _load(_candidates())
    return PlainMockCluster() if library is None else TunedMockCluster(library)


def _candidates() -> list[str]:
    package = Path(confluent_kafka.__file__).parent
    folders = (package.parent / "confluent_kafka.libs", package / ".dylibs", package.parent)
    bundled = [str(path) for folder in folders for path in sorted(folder.glob("librdkafka[-.]*")) if path.is_file()]
    system = ctypes.util.find_library("rdkafka")
    return bundled + ([system] if system else [])


def _load(candidates: Iterable[str]) -> ctypes.CDLL | None:
    """The first library that has all the symbols, their types declared; None when there is none."""
    for path in candidates:
        try:
            library = ctypes.CDLL(path)
            for name, (result, arguments) in _SYMBOLS.items():
                function = getattr(library, name)
                function.restype, function.argtypes = result, arguments
        except (OSError, AttributeError):
            continue
        return library
    return None


class TunedMockCluster:
    """A mock cluster with quick groups."""

    def __init__(self, library: ctypes.CDLL) -> None:
        self._library = library
        error = ctypes.create_string_buffer(512)
        conf = library.rd_kafka_conf_new()
        library.rd_kafka_conf_set(conf, b"log_level", b"0", error, len(error))  # it warns that it has no brokers
        self._client = library.rd_kafka_new(0, conf, error, len(error))
        if not self._client:
            raise BranchyError(f"librdkafka could not start the embedded broker: {error.value.decode()}")
        self._cluster = library.rd_kafka_mock_cluster_new(self._client, 1)
        if not self._cluster:
            raise BranchyError("librdkafka could not start the embedded broker; is the loopback network there?")
        library.rd_kafka_mock_group_initial_rebalance_delay_ms(self._cluster, REBALANCE_DELAY_MS)
        library.rd_kafka_mock_set_group_consumer_session_timeout_ms(self._cluster, SESSION_TIMEOUT_MS)
        library.rd_kafka_mock_set_group_consumer_heartbeat_interval_ms(self._cluster, HEARTBEAT_MS)
        self.brokers: str = library.rd_kafka_mock_cluster_bootstraps(self._cluster).decode()

    def close(self) -> None:
        """Stop it."""
        self._library.rd_kafka_mock_cluster_destroy(self._cluster)
        self._library.rd_kafka_destroy(self._client)


class PlainMockCluster:
    """A mock cluster as confluent-kafka starts it: slower groups, the same otherwise."""

    def __init__(self) -> None:
        try:
            self._client = confluent_kafka.Producer({"test.mock.num.brokers": 1, "log_level": 0})
            broker = next(iter(self._client.list_topics(timeout=10).brokers.values()))
        except confluent_kafka.KafkaException as error:
            raise BranchyError(f"librdkafka could not start the embedded broker: {error.args[0].str()}") from None
        self.brokers = f"{broker.host}:{broker.port}"

    def close(self) -> None:
        """Stop it: the cluster lives as long as its client."""
        del self._client
