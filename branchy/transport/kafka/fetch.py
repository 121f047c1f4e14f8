"""What a consumer thread does: fetch what is there, and get past what cannot be read."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from operator import methodcaller
from typing import Any, NamedTuple

from confluent_kafka import KafkaError, KafkaException, TopicPartition

from branchy.errors import RefusedError, TransportError
from branchy.transport.base import Failed, Sink
from branchy.transport.kafka.watermarks import watermarks

logger = logging.getLogger(__name__)

BATCH = 256
"""Most messages handed on at once."""

UNREADABLE = frozenset({KafkaError._BAD_COMPRESSION, KafkaError._BAD_MSG, KafkaError._NOT_IMPLEMENTED})
"""Errors of one batch on a partition: fetching it again cannot help."""

HOPELESS = frozenset({KafkaError._FATAL, KafkaError.INVALID_SESSION_TIMEOUT})
"""Errors after which a consumer gets nothing more, whatever it does."""

COMPLAIN_EVERY_S = 10.0
TROUBLE_PAUSE_S = 0.1
ASK_TIMEOUT_S = 1.0

BAD_NAME = "a header's name is not UTF-8"

_headers = methodcaller("headers")
"""`Message.headers` of confluent-kafka 2.16 gives, for a name that is not UTF-8, a list with holes and sets an
exception. Where C calls it, as here, that becomes a `SystemError`. Where Python does, and has sped that call up, nobody
checks, and the first look at a hole ends the process."""


def received_headers(message: Any) -> Sequence[tuple[str, bytes | None]] | None:
    """A message's headers as they came, None where a name is not UTF-8; ask once a message, and nobody else.

    Asked again, such a message gives the list with holes.
    """
    try:
        found: Sequence[tuple[str, bytes | None]] = _headers(message) or ()
    except (UnicodeDecodeError, SystemError) as error:
        if not isinstance(error.__cause__ or error, UnicodeDecodeError):
            raise
        return None
    return found


@contextmanager
def until_its_end(consumer: Any, name: str, sink: Sink) -> Iterator[None]:
    """What a consumer's thread does within: whatever ends it is told, and the consumer closed.

    Who has no consumer gets nothing more, and must not go on as if it had.
    """
    try:
        yield
    except RefusedError as error:
        sink(Failed(error))
    except Exception as error:
        logger.exception("%s: the consumer has come to its end by a bug", name)
        what = f"{type(error).__name__}: {error}"
        sink(Failed(TransportError(f"{name}: the consumer has come to its end by a bug: {what}; see the log")))
    finally:
        consumer.close()  # revokes, and with that commits


class Unreadable(NamedTuple):
    """A batch that was passed: its offsets from the first to the last, and why."""

    topic: str
    partition: int
    first: int
    last: int
    why: str

    def __str__(self) -> str:
        """Coordinates, for a person who looks for the records."""
        where = f"{self.topic} [{self.partition}] offset"
        return f"{where} {self.last}" if self.first == self.last else f"{where}s {self.first} to {self.last}"


@dataclass(slots=True)
class _Search:
    """For the end of an unreadable batch, by looking what lies at `probe`.

    Attributes:
        base: the batch's first offset, at which it is reported wherever in it one fetches.
        inside: the last offset that is known to be in it.
        beyond: the first that is known not to be.
        step: how far behind `inside` to look next, while nothing closer is known; doubles.
    """

    base: int
    inside: int
    beyond: int
    why: str
    step: int = 1
    probe: int = 0


class Fetcher:
    """Fetches for one consumer, in that consumer's thread."""

    def __init__(self, consumer: Any, name: str) -> None:
        self._consumer, self._name = consumer, name
        self._complained_s = float("-inf")
        self._searches: dict[tuple[str, int], _Search] = {}
        self._fetches = 0
        self._sought: dict[tuple[str, int], int] = {}  # after which fetch a partition was sent elsewhere last

    def first(self, timeout_s: float) -> Any:
        """Wait for a message; None when none came, or the client is in trouble.

        Raises:
            RefusedError: the consumer has come to its end.
        """
        self._fetches += 1
        try:
            return self._consumer.poll(timeout_s)
        except KafkaException as error:
            self._trouble(error.args[0])
            time.sleep(TROUBLE_PAUSE_S)
            return None

    def rest(self) -> list[Any]:
        """What else is there already: no batch waits for its last message.

        Raises:
            RefusedError: the consumer has come to its end.
        """
        self._fetches += 1
        try:
            return list(self._consumer.consume(BATCH - 1, 0))
        except KafkaException as error:
            self._trouble(error.args[0])
            return []

    def sift(self, message: Any) -> Any:
        """What to make of what was fetched; each has to pass here, in order, before the next is fetched.

        Of an unreadable batch neither librdkafka nor a broker tells the end, and behind it may lie what can be
        read. So it is searched for: any fetch within the batch reports its first offset, any other does not, and
        the distance doubles, then halves (Bentley and Yao, 1976). What is fetched meanwhile comes again.

        Returns:
            The message; `Unreadable` for a batch that was passed with this; None for what is to be left alone.

        Raises:
            RefusedError: the consumer has come to its end.
        """
        error, place = message.error(), (message.topic(), message.partition())
        if self._sought.get(place) == self._fetches:
            return None  # fetched before it was sent elsewhere
        search = self._searches.get(place)
        code = None if error is None else error.code()
        if code is not None and code not in UNREADABLE and code != KafkaError._PARTITION_EOF:
            self._trouble(error)
            return None
        if search is not None:
            if code in UNREADABLE and message.offset() == search.base:
                search.inside = search.probe
            else:
                search.beyond = search.probe
        elif code in UNREADABLE:
            search = self._begin(place, message)
        else:
            return message
        return None if search is None else self._go_on(place, search)

    def seek_again(self) -> None:
        """Partitions were resumed: they begin behind what was handed on last, not where a search looks."""
        for place, search in list(self._searches.items()):
            self._seek(place, search, search.probe)

    def restart(self, partitions: Iterable[tuple[str, int]]) -> None:
        """These partitions are read from their committed offsets again."""
        for place in partitions:
            self._searches.pop(place, None)
            self._sought.pop(place, None)

    def complain(self, text: str) -> None:
        """Log, once in a while."""
        if time.monotonic() - self._complained_s > COMPLAIN_EVERY_S:
            self._complained_s = time.monotonic()
            logger.warning("%s: %s", self._name, text)

    def _trouble(self, error: Any) -> None:
        if error.fatal() or error.code() in HOPELESS:
            why = error.str().removeprefix("Fatal error: ")
            raise RefusedError(
                f"{self._name}: the brokers refuse this consumer: {why}; check group_protocol and options"
            )
        self.complain(error.str())

    def _begin(self, place: tuple[str, int], message: Any) -> _Search | None:
        base = message.offset()
        if base is None or base < 0:
            self.complain(message.error().str())
            return None
        try:
            _, end = watermarks(self._consumer, *place, ASK_TIMEOUT_S)
        except KafkaException as error:
            self.complain(error.args[0].str())  # it is reported again
            return None
        search = self._searches[place] = _Search(base, base, max(end, base + 1), message.error().str())
        return search

    def _go_on(self, place: tuple[str, int], search: _Search) -> Unreadable | None:
        if search.beyond - search.inside > 1:
            probe = min(search.inside + search.step, (search.inside + search.beyond) // 2)
            search.step *= 2
            self._seek(place, search, probe)
            return None
        if not self._seek(place, search, search.beyond):
            return None
        del self._searches[place]
        passed = Unreadable(*place, search.base, search.inside, search.why)
        self.complain(f"{passed} skipped: {search.why}")
        return passed

    def _seek(self, place: tuple[str, int], search: _Search, offset: int) -> bool:
        search.probe, self._sought[place] = offset, self._fetches
        try:
            self._consumer.seek(TopicPartition(*place, offset))
        except KafkaException:  # the partition is not ours any more
            self._searches.pop(place, None)
            return False
        return True
