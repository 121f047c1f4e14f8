"""`make bench`: run every benchmark once and print figures, ratios and the machine."""

from __future__ import annotations

import os
import sys
import tempfile
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from statistics import median

from benchmarks import against_echo, footprint, machine, own_work
from benchmarks.against_echo import Round
from benchmarks.bench import Bench
from branchy.brokers.apache_kafka import KafkaCluster
from branchy.brokers.embedded import start_embedded
from branchy.brokers.kafka_home import find_kafka
from branchy.reports.text import text_table
from branchy.runner.processes import Interrupts, Processes, branchy
from branchy.store.bundle import Bundle

TRAINING = ["train", "digits", "--target-share", "60,25,15", "--uplink-dtype", "uint8", "--epochs", "5"]


def main() -> int:
    """Run; 1 when the gate is not met."""
    print(machine.describe())
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="branchy-bench-")))
        interrupts = stack.enter_context(Interrupts())
        with interrupts.held():
            broker = stack.enter_context(start_embedded())
        processes = stack.enter_context(Processes(interrupts, folder))
        bundle = Bundle.load(Path(sys.argv[1]) if len(sys.argv) > 1 else train(processes, folder / "bundle"))
        bench = Bench(bundle, broker.brokers, processes, folder)
        own = own_work.measure(bench)
        print(f"\n{_own_work(own)}")
        print(f"\n{_against_echo('embedded broker', against_echo.measure(bench, 'embedded'))}")
        print(f"\n{_footprint(footprint.measure(bench))}")
        for nodes in (1, 3):
            with KafkaCluster(find_kafka(os.environ, print), folder / f"kafka-{nodes}", nodes=nodes) as cluster:
                on_kafka = replace(bench, brokers=cluster.brokers)
                found = against_echo.measure(on_kafka, f"kafka{nodes}")
            print(f"\n{_against_echo(f'Apache Kafka, {nodes} node' + 's' * (nodes > 1), found)}", flush=True)
    worst_us = max(one.worst_us for one in own)
    print(f"\nOwn work: {worst_us:.0f} us a message at most; the gate is {own_work.GATE_US:.0f}.")
    return int(worst_us > own_work.GATE_US)


def train(processes: Processes, out: Path) -> Path:
    """The digits' cascade that is measured; returns where it is."""
    child = processes.start("train", branchy(*TRAINING, "--out", out))
    if processes.wait(child):
        raise SystemExit(f"the training failed: {child.last_words()}")
    return out


def _own_work(own: list[own_work.OwnWork]) -> str:
    header = ["CPU us a message", "queue filled", "256 in flight", "1 in flight", "model", "librdkafka"]
    rows = [
        [
            one.what,
            f"{one.filled_us:.0f}",
            f"{one.in_flight_us:.0f}",
            f"{one.alone_us:.0f}",
            f"{one.model_us:.1f}",
            f"{one.librdkafka_us:.0f}",
        ]
        for one in own
    ]
    return text_table(header, rows)


def _against_echo(what: str, rounds: list[Round]) -> str:
    def row(name: str, value: Callable[[Round], float], form: str, goal: str) -> list[str]:
        values = [value(one) for one in rounds]
        return [name, form.format(median(values)), f"{form.format(min(values))} to {form.format(max(values))}", goal]

    rows = [
        row("echo worker, p50, one in flight", lambda r: r.echo_ms, "{:.2f} ms", ""),
        row("edge exit, p50", lambda r: r.edge_ms, "{:.2f} ms", ""),
        row("- times the echo's", lambda r: r.edge_ratio, "{:.2f}", "at most 1.3"),
        row("all three tiers, p50", lambda r: r.cascade_ms, "{:.2f} ms", ""),
        row("- above three echoes", lambda r: r.above_three_echoes_ms, "{:.2f} ms", "at most 1.5 ms"),
        row("echo worker, answers a second, 64 in flight", lambda r: r.echo_per_s, "{:,.0f}", ""),
        row("edge, answers a second", lambda r: r.edge_per_s, "{:,.0f}", ""),
        row("- times the echo's", lambda r: r.per_s_ratio, "{:.2f}", "at least 0.7"),
        row("two replicas, times one", lambda r: r.replicas_ratio, "{:.2f}", ""),
    ]
    return text_table([what, "median", "rounds", "goal"], rows)


def _footprint(found: footprint.Footprint) -> str:
    rows = [
        ["branchy --help", f"{found.help_s:.2f} s", "0.4 s"],
        ["a tier is ready after", f"{found.ready_s:.2f} s", "1.5 s"],
        ["a tier's resident memory", f"{found.resident_mb:.0f} MB", "150 MB"],
        ["base install on disk", f"{found.install_mb:.0f} MB", "250 MB"],
    ]
    return text_table(["start and size", "measured", "at most"], rows)


if __name__ == "__main__":
    sys.exit(main())
