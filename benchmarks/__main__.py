"""`make bench`: run every benchmark once and print figures, ratios and the machine."""

from __future__ import annotations

import sys
import tempfile
from contextlib import ExitStack
from pathlib import Path

from benchmarks import against_echo, footprint, machine, own_work
from benchmarks.bench import Bench
from branchy.brokers.embedded import start_embedded
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
        bundle = Bundle.load(Path(sys.argv[1]) if len(sys.argv) > 1 else _train(processes, folder / "bundle"))
        bench = Bench(bundle, broker.brokers, processes, folder)
        own = own_work.measure(bench)
        print(f"\n{_own_work(own)}")
        print(f"\n{_against_echo(against_echo.measure(bench))}")
        print(f"\n{_footprint(footprint.measure(bench))}")
    worst_us = max(one.worst_us for one in own)
    print(f"\nOwn work: {worst_us:.0f} us a message at most; the gate is {own_work.GATE_US:.0f}.")
    return int(worst_us > own_work.GATE_US)


def _train(processes: Processes, out: Path) -> Path:
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


def _against_echo(found: against_echo.Comparison) -> str:
    echo, tier = found.echo, found.tier
    rows = [
        ["p50, one in flight", f"{echo.p50_ms:.2f} ms", f"{tier.p50_ms:.2f} ms", f"{found.p50_ratio:.2f}"],
        ["answers a second, 64 in flight", f"{echo.per_s:,.0f}", f"{tier.per_s:,.0f}", f"{found.per_s_ratio:.2f}"],
    ]
    return text_table(["embedded broker", "echo worker", "edge tier", "tier / echo"], rows)


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
