"""Settings -> librdkafka's dotted keys, and its log lines -> logging."""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

from confluent_kafka import KafkaException

from branchy.config import BROKER_FILE, LinkSettings
from branchy.errors import BrokerUnavailableError, ConfigError

T = TypeVar("T")

CLIENT_LIMIT_BYTES = 1_000_000
"""librdkafka's own default of `message.max.bytes`."""

COMMON: dict[str, Any] = {
    "socket.timeout.ms": 3_000,
    "socket.connection.setup.timeout.ms": 2_000,
    "socket.nagle.disable": True,
    "reconnect.backoff.max.ms": 500,
}

CONSUMER: dict[str, Any] = {
    "enable.auto.commit": False,
    "enable.auto.offset.store": False,
    "auto.offset.reset": "earliest",
    "isolation.level": "read_uncommitted",
    "fetch.queue.backoff.ms": 5,
    "queued.min.messages": 256,
    "queued.max.messages.kbytes": 4_096,
}

EMBEDDED_CONSUMER: dict[str, Any] = {"fetch.wait.max.ms": 1}
"""The mock cluster answers a fetch only after this time, whether there is something or not."""

CLASSIC_GROUP: dict[str, Any] = {
    "group.protocol": "classic",
    "session.timeout.ms": 6_000,
    "heartbeat.interval.ms": 300,
    "partition.assignment.strategy": "cooperative-sticky",
}

CONSUMER_GROUP: dict[str, Any] = {"group.protocol": "consumer"}

PRODUCER: dict[str, Any] = {
    "enable.idempotence": True,
    "allow.auto.create.topics": False,
    "linger.ms": 0,
    "queue.buffering.max.kbytes": 65_536,
    "topic.metadata.propagation.max.ms": 1_000,
}


def broker_addresses(settings: LinkSettings, file: Path = BROKER_FILE) -> str:
    """The brokers named in the settings, else those of the broker that runs on this machine.

    Raises:
        BrokerUnavailableError: none is named and none runs here.
    """
    if settings.brokers is not None:
        return settings.brokers
    try:
        return str(json.loads(file.read_text(encoding="utf-8"))["brokers"])
    except FileNotFoundError:
        raise BrokerUnavailableError(
            f"no broker is named and {file} is not there: name one as HOST:PORT, "
            "or start one with 'branchy broker start --embedded'"
        ) from None
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise BrokerUnavailableError(f"{file}: expected a broker's address file ({error!r:.80})") from None


def client_config(settings: LinkSettings, name: str, on_error: Callable[[Any], None]) -> dict[str, Any]:
    """What every client of a link has in common: brokers, security, time-outs, logging."""
    config = {
        "bootstrap.servers": broker_addresses(settings),
        "client.id": f"branchy-{name}",
        "security.protocol": settings.security,
        "ssl.ca.location": settings.ca_file,
        "ssl.certificate.location": settings.certificate_file,
        "ssl.key.location": settings.key_file,
        "sasl.mechanism": settings.sasl_mechanism,
        "sasl.username": settings.username,
        "sasl.password": _password(settings),
    }
    given = {key: str(value) for key, value in config.items() if value is not None}
    return {**COMMON, **given, "error_cb": on_error, "logger": _client_logger(name)}


def _password(settings: LinkSettings) -> str | None:
    if settings.password is not None:
        return settings.password.get_secret_value()
    if settings.password_file is None:
        return None
    try:
        return settings.password_file.read_text(encoding="utf-8").rstrip("\r\n")
    except OSError as error:
        raise ConfigError(f"password file {settings.password_file}: {error.strerror}") from None
    except UnicodeDecodeError:
        raise ConfigError(f"password file {settings.password_file}: expected UTF-8, got other bytes") from None


def open_client(kind: Callable[[dict[str, Any]], T], config: dict[str, Any]) -> T:
    """Make a client.

    Raises:
        ConfigError: librdkafka refuses a setting; its words name it.
    """
    try:
        return kind(config)
    except KafkaException as error:
        raise ConfigError(f"Kafka settings: {error.args[0].str()}") from None


class _OnceInAWhile(logging.Filter):
    """Lets one line of each kind (librdkafka's facility, such as FAIL) through in `every_s`."""

    def __init__(self, every_s: float = 30.0) -> None:
        super().__init__()
        self._every_s = every_s
        self._last_s: dict[str, float] = {}

    def filter(self, record: logging.LogRecord) -> bool:
        facility = record.getMessage().partition(" ")[0]
        now_s = time.monotonic()
        if facility == "CONFWARN" or now_s - self._last_s.get(facility, -self._every_s) < self._every_s:
            return False
        self._last_s[facility] = now_s
        return True


def _client_logger(name: str) -> logging.Logger:
    logger = logging.getLogger(f"branchy.librdkafka.{name}")
    if not any(isinstance(known, _OnceInAWhile) for known in logger.filters):
        logger.addFilter(_OnceInAWhile())
    return logger
