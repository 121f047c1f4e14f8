"""(b) A tier and an echo worker in turn: same broker, sizes, headers and librdkafka settings; the echo has no model."""

from __future__ import annotations

from dataclasses import dataclass
from statistics import median

from benchmarks.bench import Bench
from benchmarks.client import Client

ROUNDS = 5
ONE_BY_ONE = 400
WINDOWED = 2000
WINDOW = 64


@dataclass(frozen=True, slots=True)
class Speed:
    """Medians over the rounds.

    Attributes:
        p50_ms: median round trip, one in flight.
        per_s: answers a second, 64 in flight.
    """

    p50_ms: float
    per_s: float


@dataclass(frozen=True, slots=True)
class Comparison:
    """Echo and tier side by side; ratios are medians of those of each round."""

    echo: Speed
    tier: Speed
    p50_ratio: float
    per_s_ratio: float


def measure(bench: Bench) -> Comparison:
    """Start both, then measure them in turn."""
    tier = bench.tier("edge", "bench-tier", "--threshold", "0")
    tier_client = bench.client("bench-tier")
    answer = tier_client.sample(bench.requests(1)[0])
    echo_client = bench.client("bench-echo")
    echo = bench.echo("bench-echo", answer)
    for client in (echo_client, tier_client):
        _speed(bench, client)  # to warm up
    rounds = [(_speed(bench, echo_client), _speed(bench, tier_client)) for _ in range(ROUNDS)]
    bench.processes.stop(tier, echo)
    return Comparison(
        _medians([echo for echo, _ in rounds]),
        _medians([tier for _, tier in rounds]),
        median(tier.p50_ms / echo.p50_ms for echo, tier in rounds),
        median(tier.per_s / echo.per_s for echo, tier in rounds),
    )


def _speed(bench: Bench, client: Client) -> Speed:
    p50_s = median(client.one_in_flight(bench.requests(ONE_BY_ONE)))
    took_s = client.windowed(bench.requests(WINDOWED), WINDOW)
    return Speed(p50_s * 1e3, WINDOWED / took_s)


def _medians(speeds: list[Speed]) -> Speed:
    return Speed(median(s.p50_ms for s in speeds), median(s.per_s for s in speeds))
