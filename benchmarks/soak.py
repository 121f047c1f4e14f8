"""`make soak`: a million messages through one tier on a real Kafka; is it at the end as it was at the start?

python -m benchmarks.soak [MESSAGES] [BUNDLE]
"""

from __future__ import annotations

import os
import sys
import tempfile
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from statistics import median

from benchmarks import machine
from benchmarks.__main__ import train
from benchmarks.against_echo import WINDOW
from benchmarks.bench import Bench
from benchmarks.client import Client
from branchy.brokers.apache_kafka import KafkaCluster
from branchy.brokers.kafka_home import find_kafka
from branchy.core.wire import MAX_BUDGET_MS
from branchy.reports.text import text_table
from branchy.runner.processes import Child, Interrupts, Processes
from branchy.store.bundle import Bundle

MESSAGES = 1_000_000
STEPS = 10
CHUNK = 10_000
"""Requests that are made and sent before the next are made: they are in memory meanwhile."""
ONE_BY_ONE = 500
MEMORY_MB, LATENCY = 20.0, 1.5
"""How much more memory and how many times the round trip the last step may have than the first."""


@dataclass(frozen=True, slots=True)
class Step:
    """The tier after some of the messages.

    Attributes:
        messages: so many so far.
        per_s: answers a second since the step before, 64 in flight.
        p50_ms: median round trip now, one in flight.
        resident_mb: memory now.
        threads: now.
        files: open now, sockets included.
    """

    messages: int
    per_s: float
    p50_ms: float
    resident_mb: float
    threads: int
    files: int


def soak(bench: Bench, messages: int) -> list[Step]:
    """Send so many messages, in ten steps."""
    tier = bench.tier("edge", "soak", "--threshold", "0")
    client = bench.client("soak")
    client.windowed(bench.requests(CHUNK, budget_ms=MAX_BUDGET_MS), WINDOW)
    steps = [_step(bench, tier, client, (number + 1) * messages // STEPS, messages // STEPS) for number in range(STEPS)]
    client.close()
    bench.processes.stop(tier)
    return steps


def _step(bench: Bench, tier: Child, client: Client, so_far: int, count: int) -> Step:
    took_s = 0.0
    for start in range(0, count, CHUNK):
        requests = bench.requests(min(CHUNK, count - start), budget_ms=MAX_BUDGET_MS)
        took_s += client.windowed(requests, WINDOW)
    p50_ms = median(client.one_in_flight(bench.requests(ONE_BY_ONE))) * 1e3
    process = Path(f"/proc/{tier.popen.pid}")
    resident_mb = int((process / "statm").read_text().split()[1]) * os.sysconf("SC_PAGESIZE") / 1e6
    threads, files = (len(list((process / what).iterdir())) for what in ("task", "fd"))
    return Step(so_far, count / took_s, p50_ms, resident_mb, threads, files)


def main() -> int:
    """Run; 1 when the end is not as the start."""
    messages = int(sys.argv[1]) if len(sys.argv) > 1 else MESSAGES
    print(machine.describe(), flush=True)
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="branchy-soak-")))
        interrupts = stack.enter_context(Interrupts())
        with interrupts.held():
            cluster = stack.enter_context(KafkaCluster(find_kafka(os.environ, print), folder / "kafka"))
        processes = stack.enter_context(Processes(interrupts, folder))
        bundle = Bundle.load(Path(sys.argv[2]) if len(sys.argv) > 2 else train(processes, folder / "bundle"))
        steps = soak(Bench(bundle, cluster.brokers, processes, folder), messages)
    header = ["messages", "answers a second", "p50, one in flight", "resident", "threads", "files"]
    rows = [
        [
            f"{one.messages:,}",
            f"{one.per_s:,.0f}",
            f"{one.p50_ms:.2f} ms",
            f"{one.resident_mb:.1f} MB",
            str(one.threads),
            str(one.files),
        ]
        for one in steps
    ]
    print(text_table(header, rows))
    first, last = steps[0], steps[-1]
    same = last.resident_mb - first.resident_mb < MEMORY_MB and last.p50_ms < LATENCY * first.p50_ms
    same = same and last.threads <= first.threads and last.files <= first.files
    print("The end is as the start." if same else "The end is not as the start.")
    return int(not same)


if __name__ == "__main__":
    sys.exit(main())
