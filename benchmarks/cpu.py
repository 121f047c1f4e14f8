"""CPU time of a process by thread, from Linux' /proc, to the nanosecond."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

LIBRDKAFKA = "rdk:"
"""What the names of librdkafka's own threads begin with."""


@dataclass(frozen=True, slots=True)
class CpuTime:
    """Seconds on a CPU since the start of a process.

    Attributes:
        own_s: threads that Python started, with all they call.
        librdkafka_s: librdkafka's own threads: sockets, compression, its timers.
    """

    own_s: float
    librdkafka_s: float

    def __sub__(self, before: CpuTime) -> CpuTime:
        """What was used since `before`."""
        return CpuTime(self.own_s - before.own_s, self.librdkafka_s - before.librdkafka_s)


def cpu_time(pid: int) -> CpuTime:
    """CPU time of all threads that the process has now (take care that none ends between two readings)."""
    seconds = {True: 0.0, False: 0.0}
    for task in Path(f"/proc/{pid}/task").iterdir():
        is_librdkafka = (task / "comm").read_text().startswith(LIBRDKAFKA)
        seconds[is_librdkafka] += int((task / "schedstat").read_text().split()[0]) / 1e9
    return CpuTime(seconds[False], seconds[True])


def resident_mb(pid: int) -> float:
    """Resident memory of a process at its highest, in MB (10^6 bytes)."""
    status = Path(f"/proc/{pid}/status").read_text()
    line = next(line for line in status.splitlines() if line.startswith("VmHWM:"))
    return int(line.split()[1]) * 1024 / 1e6
