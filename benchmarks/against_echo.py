"""(b) Tiers and an echo worker in turn: same broker, sizes, headers and librdkafka settings; the echo has no model."""

from __future__ import annotations

from dataclasses import dataclass
from statistics import median

from benchmarks.bench import Bench
from benchmarks.client import Client, Kind

ROUNDS = 5
ONE_BY_ONE = 400
WINDOWED = 3000
WINDOW = 64


@dataclass(frozen=True, slots=True)
class Round:
    """What one round measured; the round trips are medians.

    Attributes:
        echo_ms: through the echo worker, one in flight.
        edge_ms: through an edge that answers, one in flight.
        cascade_ms: up through edge and fog to the cloud and back, one in flight.
        echo_per_s: answers a second of the echo worker, 64 in flight.
        edge_per_s: of the edge.
        replicas_per_s: of two replicas of the edge.
    """

    echo_ms: float
    edge_ms: float
    cascade_ms: float
    echo_per_s: float
    edge_per_s: float
    replicas_per_s: float

    @property
    def edge_ratio(self) -> float:
        """The edge's round trip to the echo worker's."""
        return self.edge_ms / self.echo_ms

    @property
    def above_three_echoes_ms(self) -> float:
        """What three tiers take more than three echoes would."""
        return self.cascade_ms - 3 * self.echo_ms

    @property
    def per_s_ratio(self) -> float:
        """The edge's throughput to the echo worker's."""
        return self.edge_per_s / self.echo_per_s

    @property
    def replicas_ratio(self) -> float:
        """Two replicas' throughput to one's."""
        return self.replicas_per_s / self.edge_per_s


def measure(bench: Bench, name: str) -> list[Round]:
    """Start everything, then measure in turn.

    Args:
        bench: with its brokers.
        name: of these cascades, different for each call.
    """
    cascade, sure, pair, echoed = (f"{name}-{kind}" for kind in ("all", "sure", "pair", "echo"))
    tiers = [bench.tier("cloud", cascade), bench.tier("fog", cascade, "--threshold", "1")]
    tiers += [bench.tier("edge", cascade, "--threshold", "1"), bench.tier("edge", sure, "--threshold", "0")]
    tiers += [bench.tier("edge", pair, "--threshold", "0", "--replica", str(n)) for n in range(2)]
    edge = bench.client(sure)
    echo = bench.client(echoed)
    tiers.append(bench.echo(echoed, edge.sample(bench.requests(1)[0])))
    clients = [echo, edge, bench.client(cascade, kind=Kind("final", 3)), bench.client(pair)]
    _round(bench, *clients)  # to warm up
    rounds = [_round(bench, *clients) for _ in range(ROUNDS)]
    for client in clients:
        client.close()
    bench.processes.stop(*tiers)
    return rounds


def _round(bench: Bench, echo: Client, edge: Client, cascade: Client, pair: Client) -> Round:
    echo_ms, edge_ms, cascade_ms = (
        median(client.one_in_flight(bench.requests(ONE_BY_ONE))) * 1e3 for client in (echo, edge, cascade)
    )
    per_s = (WINDOWED / client.windowed(bench.requests(WINDOWED), WINDOW) for client in (echo, edge, pair))
    return Round(echo_ms, edge_ms, cascade_ms, *per_s)
