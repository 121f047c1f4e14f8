"""The address file of a broker that branchy started on this machine.

The broker's process holds a lock on the file as long as it lives, so a file that is left
over is told from a live one without trusting a process id, which the system uses again.
A lock goes with the open file to a child process, so a Java process can hold one too.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import tempfile
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path

from branchy.errors import BranchyError


@dataclass(frozen=True, slots=True)
class BrokerRecord:
    """What an address file says.

    Attributes:
        brokers: `HOST:PORT[,...]`.
        pid: the process to ask to stop; of a cluster its first node's.
        kind: `embedded`, `kafka` (a cluster), or `node` (one of a cluster).
        started: when, ISO 8601 in UTC.
        data: a cluster's data folder, absolute, where each node has a file of its own.
        security: Kafka's security protocol that clients use.
    """

    brokers: str
    pid: int
    kind: str
    started: str
    data: str | None = None
    security: str = "PLAINTEXT"

    @classmethod
    def now(
        cls, brokers: str, pid: int, kind: str, data: str | None = None, security: str = "PLAINTEXT"
    ) -> BrokerRecord:
        """A record of a broker that starts now."""
        return cls(brokers, pid, kind, datetime.now(UTC).isoformat(timespec="seconds"), data, security)


class Reservation:
    """A locked file that is not yet in its place.

    Attributes:
        descriptor: the open file; a child process that is given it holds the lock as well.
    """

    def __init__(self, file: AddressFile, temporary: str, descriptor: int) -> None:
        self.descriptor = descriptor
        self._file, self._temporary = file, temporary

    def publish(self, record: BrokerRecord) -> None:
        """Put the file in its place, whole; a left-over one is replaced.

        Raises:
            BranchyError: a live broker has it, or it cannot be written.
        """
        try:
            os.write(self.descriptor, json.dumps(asdict(record), indent=2).encode() + b"\n")
            self._file._link(self._temporary)
        except OSError as error:
            raise BranchyError(f"{self._file.path}: cannot be written: {error.strerror}") from None


class AddressFile:
    """One address file, seen from any process.

    Args:
        path: usually `branchy.config.BROKER_FILE`.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    def read(self) -> BrokerRecord | None:
        """What the file says, whether its broker lives or not; None when there is no file.

        Raises:
            BranchyError: there is one, and it is not an address file.
        """
        try:
            data = json.loads(self.path.read_text(encoding="utf-8"))
            folder = data.get("data")
            return BrokerRecord(
                str(data["brokers"]),
                int(data["pid"]),
                str(data["kind"]),
                str(data["started"]),
                None if folder is None else str(folder),
                str(data.get("security", "PLAINTEXT")),
            )
        except FileNotFoundError:
            return None
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise BranchyError(
                f"{self.path}: expected a broker's address file, got something else ({error!r:.80}); "
                "delete it if no broker uses it"
            ) from None

    def is_live(self) -> bool:
        """Whether a process still holds the file."""
        try:
            with self.path.open("rb") as file:
                return not _try_lock(file.fileno())
        except FileNotFoundError:
            return False

    @contextlib.contextmanager
    def reserved(self) -> Iterator[Reservation]:
        """Lock a file that `Reservation.publish` puts in this place; at the end this process gives up its lock.

        Raises:
            BranchyError: it cannot be written.
        """
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            descriptor, temporary = tempfile.mkstemp(dir=self.path.parent, prefix=".broker-")
        except OSError as error:
            raise BranchyError(f"{self.path}: cannot be written: {error.strerror}") from None
        try:
            _try_lock(descriptor)
            yield Reservation(self, temporary, descriptor)
        finally:
            os.unlink(temporary)
            os.close(descriptor)

    @contextlib.contextmanager
    def claimed(self, record: BrokerRecord) -> Iterator[None]:
        """Put the file there, whole and locked, and take it away at the end; a left-over one is replaced.

        Raises:
            BranchyError: a live broker has it, or it cannot be written.
        """
        with self.reserved() as reservation:
            reservation.publish(record)
            yield
            self.path.unlink(missing_ok=True)

    def _link(self, temporary: str) -> None:
        """A link fails where a file is, so that two brokers started at once cannot both win."""
        with contextlib.suppress(FileExistsError):
            os.link(temporary, self.path)
            return
        if not self.is_live():
            self.path.unlink(missing_ok=True)
            with contextlib.suppress(FileExistsError):
                os.link(temporary, self.path)
                return
        other = self.read()
        where = f"at {other.brokers} (process {other.pid})" if other else "there"
        raise BranchyError(f"a broker is running already {where}; end it with 'branchy broker stop'")


@contextlib.contextmanager
def only_one(lock_file: Path, busy: str) -> Iterator[None]:
    """Hold a lock while the block runs; its file stays, for the next.

    Args:
        lock_file: made where it is not there, its folder too.
        busy: what to say where another process holds it.

    Raises:
        BranchyError: another process holds it, or it cannot be written.
    """
    try:
        lock_file.parent.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(lock_file, os.O_RDWR | os.O_CREAT, 0o600)
    except OSError as error:
        raise BranchyError(f"{lock_file}: cannot be written: {error.strerror}") from None
    try:
        if not _try_lock(descriptor):
            raise BranchyError(busy)
        yield
    finally:
        os.close(descriptor)


def _try_lock(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
