"""What processes hold: memory, threads, files and connections, and requests that wait for the front."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import psutil

MORE_MEMORY_BYTES = 16 << 20
"""What a tier may have grown by after it has warmed up: allocators keep some of what was under way at once."""
MORE_CONNECTIONS = 6
"""librdkafka opens connections to nodes as it needs them, and keeps them."""
BROKER_THREAD, FILES_A_BROKER = "rdk:broker", 2
"""librdkafka's thread for a broker that a client knows, by the beginning of its name, and what it has open."""
MORE_BROKERS = 6
"""A client forgets a broker that is away, and learns of it again once it is back; a tier has up to five clients."""
SETTLE_TIMEOUT_S = 15.0
LOOK_S = 0.2


@dataclass(frozen=True, slots=True)
class Held:
    """What one process holds.

    Attributes:
        memory_bytes: resident.
        threads: running, and
        files: open; without connections, and without those of `brokers`.
        connections: sockets.
        brokers: that librdkafka has threads for.
    """

    memory_bytes: int
    threads: int
    files: int
    connections: int
    brokers: int

    @staticmethod
    def by(pid: int) -> Held:
        """A process that runs."""
        process = psutil.Process(pid)
        connections, brokers = len(process.net_connections()), _threads(pid, BROKER_THREAD)
        threads = process.num_threads() - brokers
        files = process.num_fds() - connections - FILES_A_BROKER * brokers
        return Held(process.memory_info().rss, threads, files, connections, brokers)


def _threads(pid: int, name: str) -> int:
    """How many threads have names that begin so."""
    found = 0
    for file in Path(f"/proc/{pid}/task").glob("*/comm"):
        with contextlib.suppress(OSError):  # it has ended
            found += file.read_text().startswith(name)
    return found


class Watched:
    """What each process held when it was looked at first; what it holds later is held against that."""

    def __init__(self) -> None:
        self._first: dict[int, Held] = {}

    def look(self, pids: Mapping[str, int]) -> None:
        """Take what processes hold that were not looked at before."""
        self._first = {pid: Held.by(pid) for pid in pids.values()} | self._first

    def leaks(self, pids: Mapping[str, int]) -> Iterator[str]:
        """What those that were looked at hold more of, after they had the time to give it back; a line each."""
        until_s = time.monotonic() + SETTLE_TIMEOUT_S
        while (found := list(self._leaks(pids))) and time.monotonic() < until_s:
            time.sleep(LOOK_S)
        yield from found

    def _leaks(self, pids: Mapping[str, int]) -> Iterator[str]:
        for name, pid in pids.items():
            if pid in self._first:
                yield from _more(name, self._first[pid], Held.by(pid))


def _more(name: str, was: Held, found: Held) -> Iterator[str]:
    allowed = {
        "memory_bytes": was.memory_bytes + MORE_MEMORY_BYTES,
        "threads": was.threads,
        "files": was.files,
        "connections": was.connections + MORE_CONNECTIONS,
        "brokers": was.brokers + MORE_BROKERS,
    }
    for what, most in allowed.items():
        if getattr(found, what) > most:
            yield f"{name} had {getattr(was, what)} {what}, has {getattr(found, what)}"


def left_pending(look: Callable[[], Mapping[str, int]]) -> Iterator[str]:
    """Who still has requests that wait for the front once nothing is asked, after the time to end them; a line each.

    Args:
        look: tells by name how many.
    """
    until_s = time.monotonic() + SETTLE_TIMEOUT_S
    while any((found := look()).values()) and time.monotonic() < until_s:
        time.sleep(LOOK_S)
    for name, count in found.items():
        if count:
            yield f"{name} still has {count} requests that wait for the front, and nothing is asked"
