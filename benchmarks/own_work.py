"""(a) CPU time of a tier's own work on a message: everything but the model and librdkafka.

Counted: all threads of the tier's process that Python started, with all they call. So it has what librdkafka does
inside calls that Python makes (an upper bound), but not librdkafka's own threads. Taken off: running the stage alone,
in batches of the size that a busy tier makes, measured in this process in the same run.

A busy tier is measured in two ways, and the gate is on both: with its queue filled while it is stopped (SIGSTOP), so
that it always finds the next message; and with 256 requests kept in flight. One in flight, each message wakes threads
from sleep; that is shown beside them, with an echo worker's figure, which pays for some of the same.
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from statistics import median

import numpy as np

from benchmarks.bench import Bench
from benchmarks.client import Client, Kind, Prepared
from benchmarks.cpu import CpuTime, cpu_time
from branchy.core.wire import MAX_BUDGET_MS
from branchy.engines import open_engine
from branchy.runner.processes import Child

GATE_US = 200.0
"""Most microseconds a message."""

REQUESTS = 1000
ALONE = 300
"""Requests that are sent one at a time in a round."""

WINDOW = 256
ROUNDS = 7
"""Their median counts."""

BATCH = 32
"""What a tier puts into one batch unless told otherwise."""

MODEL_RUNS = 300


@dataclass(frozen=True, slots=True)
class OwnWork:
    """CPU microseconds a message, medians over the rounds.

    Attributes:
        what: what is done with a message.
        filled_us: own work when the queue was filled before.
        in_flight_us: own work with 256 requests in flight.
        model_us: taken off it.
        librdkafka_us: of librdkafka's own threads, with 256 in flight.
        alone_us: of all but librdkafka's threads with one request in flight, model and wake-ups included.
    """

    what: str
    filled_us: float
    in_flight_us: float
    model_us: float
    librdkafka_us: float
    alone_us: float

    @property
    def worst_us(self) -> float:
        """What the gate is on."""
        return max(self.filled_us, self.in_flight_us)


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
    through_both = bench.client("bench-up", kind=Kind("confident", 2))
    found.append(_measure(bench, through_both, up, unsure, "edge", messages=2))
    front = bench.client("bench-up", "fog")
    found.append(_measure(bench, front, "fog, sure", fog, "fog"))
    found.append(_measure(bench, bench.client("bench-echo"), "echo worker", echo, None))
    bench.processes.stop(sure, unsure, fog, echo)
    return found


def _measure(bench: Bench, client: Client, what: str, child: Child, stage: str | None, *, messages: int = 1) -> OwnWork:
    pid, asked = child.popen.pid, stage or "edge"
    requests = partial(bench.requests, REQUESTS, asked, MAX_BUDGET_MS)
    client.one_in_flight(requests()[:ALONE])
    client.windowed(requests(), WINDOW)
    filled, in_flight, alone = [], [], []
    for _ in range(ROUNDS):
        filled.append(_filled(client, requests(), pid))
        in_flight.append(_used(pid, partial(client.windowed, requests(), WINDOW)))
        alone.append(_used(pid, partial(client.one_in_flight, requests()[:ALONE])))
    client.close()
    each_us = 1e6 / messages / REQUESTS
    model = model_us(bench, stage) / messages if stage else 0.0
    return OwnWork(
        what,
        median(one.own_s for one in filled) * each_us - model,
        median(one.own_s for one in in_flight) * each_us - model,
        model,
        median(one.librdkafka_s for one in in_flight) * each_us,
        median(one.own_s for one in alone) * 1e6 / messages / ALONE,
    )


def _filled(client: Client, requests: list[Prepared], pid: int) -> CpuTime:
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
