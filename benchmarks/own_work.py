"""(a) CPU time of a tier's own work on a message: everything but the model and librdkafka.

Counted: all threads of the tier's process that Python started, with all they call. So it has what librdkafka does
inside calls that Python makes (an upper bound), but not librdkafka's own threads. Taken off: running the stage alone,
in batches of the size that a busy tier makes, measured in this process in the same run.

The gate is on a busy tier: it is stopped (SIGSTOP) while its queue is filled, and measured from then until everything
is answered. One in flight, each message wakes every thread on its way from sleep; that is shown beside it, with an
echo worker's figure, which pays for some of the same.
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import numpy as np

from benchmarks.bench import Bench
from benchmarks.client import Client, Prepared
from benchmarks.cpu import CpuTime, cpu_time
from branchy.core.wire import MAX_BUDGET_MS
from branchy.engines import open_engine
from branchy.runner.processes import Child

GATE_US = 200.0
"""Most microseconds a message."""

REQUESTS = 1000
ALONE = 300
"""Requests that are sent one at a time in a round."""

ROUNDS = 7
"""The least of them counts: what else runs on the machine takes caches and adds, but never takes off."""

BATCH = 32
"""What a tier puts into one batch unless told otherwise."""

MODEL_RUNS = 300


@dataclass(frozen=True, slots=True)
class OwnWork:
    """CPU microseconds a message, the least of the rounds.

    Attributes:
        what: what is done with a message.
        busy_us: own work of a busy tier, what the gate is on.
        model_us: taken off it.
        librdkafka_us: of librdkafka's own threads, when busy.
        alone_us: of all but these with one request in flight, model and wake-ups included.
    """

    what: str
    busy_us: float
    model_us: float
    librdkafka_us: float
    alone_us: float


def measure(bench: Bench) -> list[OwnWork]:
    """An edge that answers; an edge that sends everything up; a fog that answers; an echo worker."""
    found = []
    sure = bench.tier("edge", "bench-sure", "--threshold", "0")
    client = bench.client("bench-sure")
    echo = bench.echo("bench-echo", client.sample(bench.requests(1)[0]))
    found.append(_measure(bench, client, "edge, sure", sure, "edge"))
    fog = bench.tier("fog", "bench-up", "--threshold", "0")
    unsure = bench.tier("edge", "bench-up", "--threshold", "1")
    up = "edge, not sure: two messages, up and back"
    found.append(_measure(bench, bench.client("bench-up"), up, unsure, "edge", messages=2))
    front = bench.client("bench-up", "fog")
    found.append(_measure(bench, front, "fog, sure", fog, "fog"))
    found.append(_measure(bench, bench.client("bench-echo"), "echo worker", echo, None))
    bench.processes.stop(sure, unsure, fog, echo)
    return found


def _measure(bench: Bench, client: Client, what: str, child: Child, stage: str | None, *, messages: int = 1) -> OwnWork:
    pid, asked = child.popen.pid, stage or "edge"
    requests = partial(bench.requests, REQUESTS, asked, MAX_BUDGET_MS)
    client.one_in_flight(requests()[:ALONE])
    busy = [_busy(client, requests(), pid) for _ in range(ROUNDS)]
    alone = [_used(pid, partial(client.one_in_flight, requests()[:ALONE])) for _ in range(ROUNDS)]
    client.close()
    each = 1e6 / messages
    model = model_us(bench, stage) / messages if stage else 0.0
    return OwnWork(
        what,
        min(one.own_s for one in busy) * each / REQUESTS - model,
        model,
        min(one.librdkafka_s for one in busy) * each / REQUESTS,
        min(one.own_s for one in alone) * each / ALONE,
    )


def _busy(client: Client, requests: list[Prepared], pid: int) -> CpuTime:
    """What a process uses to work off a queue that was filled while it was stopped."""
    os.kill(pid, signal.SIGSTOP)
    before = cpu_time(pid)
    try:
        client.all_at_once(requests, partial(os.kill, pid, signal.SIGCONT))
    finally:
        os.kill(pid, signal.SIGCONT)
    return cpu_time(pid) - before


def _used(pid: int, run: Callable[[], object]) -> CpuTime:
    before = cpu_time(pid)
    run()
    return cpu_time(pid) - before


def model_us(bench: Bench, name: str) -> float:
    """CPU microseconds a sample of one stage, in batches."""
    stage = bench.bundle.spec.stage(name)
    engine = open_engine(stage, bench.bundle.file(stage, "litert"), "litert", 1)
    batch = np.zeros((BATCH, *stage.input.shape), stage.input.dtype)
    engine.run(batch)
    start = time.thread_time()
    for _ in range(MODEL_RUNS):
        engine.run(batch)
    seconds = time.thread_time() - start
    engine.close()
    return seconds / MODEL_RUNS / BATCH * 1e6
