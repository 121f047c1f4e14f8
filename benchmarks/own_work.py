"""(a) CPU time of a tier's own work on a message: everything but the model and librdkafka.

Counted: all threads of the tier's process that Python started, with all they call. So it has what librdkafka does
inside calls that Python makes (an upper bound), but not librdkafka's own threads. Taken off: running the stage alone,
in batches of the size that a busy tier makes, measured in this process in the same run.

The gate is on a busy tier, which always finds the next message there. One in flight, each message wakes every
thread on its way from sleep; that is shown beside it, with an echo worker's figure, which pays for the same.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from statistics import median

import numpy as np

from benchmarks.bench import Bench
from benchmarks.client import Prepared
from benchmarks.cpu import cpu_time
from branchy.engines import open_engine
from branchy.runner.processes import Child

GATE_US = 200.0
"""Most microseconds a message."""

REQUESTS = 1000
ROUNDS = 5
IN_FLIGHT = 256
BATCH = 32
"""What a tier puts into one batch unless told otherwise."""

MODEL_RUNS = 300


@dataclass(frozen=True, slots=True)
class Job:
    """What a tier does with a request, and how many messages come to it for that."""

    what: str
    child: Child
    stage: str | None
    messages: int = 1


@dataclass(frozen=True, slots=True)
class OwnWork:
    """CPU microseconds a message, medians over the rounds.

    Attributes:
        what: what is done with a request.
        busy_us: own work of a busy tier, what the gate is on.
        alone_us: of its Python threads with one request in flight, model and wake-ups included.
        model_us: taken off `busy_us`.
        librdkafka_us: of librdkafka's own threads, when busy.
    """

    what: str
    busy_us: float
    alone_us: float
    model_us: float
    librdkafka_us: float


def measure(bench: Bench) -> list[OwnWork]:
    """An edge that answers; an edge that sends everything up with the fog that answers it; an echo worker."""
    sure = bench.tier("edge", "bench-sure", "--threshold", "0")
    fog = bench.tier("fog", "bench-up", "--threshold", "0")
    unsure = bench.tier("edge", "bench-up", "--threshold", "1")
    found = _measure(bench, "bench-sure", Job("edge, sure: answers", sure, "edge"))
    found += _measure(
        bench,
        "bench-up",
        Job("edge, not sure: sends up, passes back", unsure, "edge", messages=2),
        Job("fog, sure: answers", fog, "fog"),
    )
    client = bench.client("bench-sure")
    echo = bench.echo("bench-echo", client.sample(bench.requests(1)[0]))
    client.close()
    found += _measure(bench, "bench-echo", Job("for comparison: echo worker", echo, None))
    bench.processes.stop(sure, unsure, fog, echo)
    return found


def _measure(bench: Bench, cascade: str, *jobs: Job) -> list[OwnWork]:
    client = bench.client(cascade)
    busy = partial(client.windowed, window=IN_FLIGHT)
    for run in (busy, client.one_in_flight):
        run(bench.requests(REQUESTS // 2))
    results = [(_cpu_us(bench, jobs, busy), _cpu_us(bench, jobs, client.one_in_flight)) for _ in range(ROUNDS)]
    client.close()
    found = []
    for job in jobs:
        model = model_us(bench, job.stage) / job.messages if job.stage else 0.0
        own, librdkafka = (median(many[job.what][part] for many, _ in results) for part in (0, 1))
        alone = median(one[job.what][0] for _, one in results)
        found.append(OwnWork(job.what, own - model, alone, model, librdkafka))
    return found


def _cpu_us(
    bench: Bench, jobs: tuple[Job, ...], run: Callable[[list[Prepared]], object]
) -> Mapping[str, tuple[float, float]]:
    """By job: microseconds a message of Python's threads and of librdkafka's, while all requests are answered."""
    requests = bench.requests(REQUESTS)
    before = [cpu_time(job.child.popen.pid) for job in jobs]
    run(requests)
    used = [cpu_time(job.child.popen.pid) - start for job, start in zip(jobs, before, strict=True)]
    return {
        job.what: (one.own_s * 1e6 / REQUESTS / job.messages, one.librdkafka_s * 1e6 / REQUESTS / job.messages)
        for job, one in zip(jobs, used, strict=True)
    }


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
