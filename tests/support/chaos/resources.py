"""What processes hold: memory, threads, files and connections."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import psutil

MORE_MEMORY_BYTES = 16 << 20
"""What a tier may have grown by after it has warmed up: allocators keep some of what was under way at once."""
MORE_CONNECTIONS = 6
"""librdkafka opens connections to nodes as it needs them, and keeps them."""
SETTLE_TIMEOUT_S = 15.0
LOOK_S = 0.2


@dataclass(frozen=True, slots=True)
class Held:
    """What one process holds.

    Attributes:
        memory_bytes: resident.
        threads: running.
        files: open, connections not counted.
        connections: sockets.
    """

    memory_bytes: int
    threads: int
    files: int
    connections: int

    @staticmethod
    def by(pid: int) -> Held:
        """A process that runs."""
        process = psutil.Process(pid)
        connections = len(process.net_connections())
        return Held(process.memory_info().rss, process.num_threads(), process.num_fds() - connections, connections)


def held(pids: Mapping[str, int]) -> Mapping[str, Held]:
    """What processes hold now, by their names."""
    return {name: Held.by(pid) for name, pid in pids.items()}


def leaks(before: Mapping[str, Held], pids: Mapping[str, int]) -> Iterator[str]:
    """What processes hold more of than before, after they had the time to give it back; a line each."""
    until_s = time.monotonic() + SETTLE_TIMEOUT_S
    while (found := list(_leaks(before, held(pids)))) and time.monotonic() < until_s:
        time.sleep(LOOK_S)
    yield from found


def _leaks(before: Mapping[str, Held], now: Mapping[str, Held]) -> Iterator[str]:
    for name, was in before.items():
        found = now[name]
        allowed = {
            "memory_bytes": was.memory_bytes + MORE_MEMORY_BYTES,
            "threads": was.threads,
            "files": was.files,
            "connections": was.connections + MORE_CONNECTIONS,
        }
        for what, most in allowed.items():
            if getattr(found, what) > most:
                yield f"{name} had {getattr(was, what)} {what}, has {getattr(found, what)}"
