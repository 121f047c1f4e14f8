"""Offers tiers three times what their slow stage can do, tells what became of it, and ends with 1 for a broken promise.

python -m overload [SECONDS]
"""

from __future__ import annotations

import os
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from commands import Command
from serving_stand import Stand

from branchy.brokers.apache_kafka import KafkaCluster
from branchy.brokers.kafka_home import find_kafka
from branchy.config import DeviceSettings, LinkSettings
from branchy.core.cascade import Array
from branchy.core.policies import judge
from branchy.core.requester import Outcome
from branchy.engines import open_engine
from branchy.reports.text import text_table
from branchy.runner.device import Device
from branchy.store.bundle import Bundle

DEADLINE_MS = 1000.0
TIMES = 3
"""Unsure requests offered a second, in multiples of what the slow stage answers."""
WARM_UP_S = 3.0
RECOVERED = 10
"""So many answers of the slow stage in a row, one in flight, show that it is back to normal."""
RECOVERY_S = 20.0
SURE_SHARE = 0.5
"""The sure take less than so much of what those take that the slow stage answers; in one queue both take as long."""
MEMORY_MB = 60.0
"""That all tiers together may have more than before."""

SETUPS = {"edge and cloud in one tier": ("edge,cloud",), "an edge before a slow cloud": ("edge", "cloud")}
"""Which tiers are served."""


def train(folder: Path) -> Bundle:
    """A bundle of slow_arch.py, of noise: what it says does not matter, only how sure its edge is and what it takes."""
    from branchy.runner.training import TrainOptions
    from branchy.runner.training import train as train_bundle

    random = np.random.default_rng(0)
    arrays = {}
    for part, n in (("train", 480), ("test", 64)):
        arrays[f"x_{part}"] = random.integers(0, 256, (n, 32, 32, 1)).astype(np.uint8)
        arrays[f"y_{part}"] = np.arange(n) % 3
    data = folder / "noise.npz"
    np.savez(data, **arrays)
    arch = f"{Path(__file__).with_name('slow_arch.py')}:build"
    return train_bundle(
        TrainOptions(str(data), out=folder / "slow", arch=arch, epochs=1, tiers=("edge", "cloud"))
    ).bundle


@dataclass(frozen=True)
class Overloaded:
    """What became of a time of overload.

    Attributes:
        capacity_per_s: unsure requests that the slow stage answers a second.
        offered_per_s: requests a second that were offered, a quarter of them sure ones.
        outcomes: of all that were offered.
        sure: the numbers of the samples whose first exit is sure.
        memory_mb: resident memory of all tiers before and after, in MB.
        recovery_s: from the end of the overload until the slow stage answers everything again.
    """

    capacity_per_s: float
    offered_per_s: float
    outcomes: Sequence[Outcome]
    sure: frozenset[int]
    memory_mb: tuple[float, float]
    recovery_s: float

    @property
    def reasons(self) -> Counter[str]:
        """Answers by tier and reason; `none` for a request without one."""
        answers = (outcome.answer for outcome in self.outcomes)
        return Counter("none" if a is None else f"{a.exit or a.tier} {a.reason}" for a in answers)

    @property
    def slow_ms(self) -> float:
        """The median latency of those that waited for the slow stage and got its answer."""
        taken = [o.latency_s for o in self.outcomes if o.answer is not None and o.answer.reason == "final"]
        return float(np.median(taken)) * 1e3

    def latency_ms(self, q: float, sure: bool) -> float:
        """A quantile of the latency of the sure or the unsure."""
        taken = [o.latency_s for o in self.outcomes if (o.index in self.sure) == sure and o.latency_s is not None]
        return float(np.quantile(taken, q)) * 1e3

    def broken(self) -> list[str]:
        """The promises that were not kept but that of the deadline, in words."""
        failed = [o for o in self.outcomes if o.answer is None or o.answer.status != "ok"]
        misjudged = [
            o for o in self.outcomes if o.answer and (o.answer.reason == "confident") != (o.index in self.sure)
        ]
        sure_ms, slow_ms = self.latency_ms(0.5, sure=True), self.slow_ms
        grown_mb = self.memory_mb[1] - self.memory_mb[0]
        rules = {
            f"{len(failed)} requests got no label, such as {failed[:1]}": not failed,
            f"{len(misjudged)} requests were sure and waited, or were not and did not": not misjudged,
            f"the sure waited behind the unsure: p50 {sure_ms:.0f} ms, {slow_ms:.0f} of the slow stage's": sure_ms
            < SURE_SHARE * slow_ms,
            f"memory grew by {grown_mb:.0f} MB, {MEMORY_MB:g} are allowed": grown_mb < MEMORY_MB,
            f"not recovered within {RECOVERY_S:g} s": self.recovery_s < RECOVERY_S,
        }
        return [words for words, kept in rules.items() if not kept]

    def late(self) -> list[str]:
        """Where the p99 passed the deadline, in words; on a machine that others use too it may."""
        p99 = {kind: self.latency_ms(0.99, sure) for kind, sure in (("sure", True), ("unsure", False))}
        return [
            f"p99 of the {kind} {ms:.0f} ms, {DEADLINE_MS:g} is the deadline"
            for kind, ms in p99.items()
            if ms > DEADLINE_MS
        ]


class Overload:
    """One setup of tiers on a stand.

    Args:
        stand: brokers and bundle.
        tiers: what to serve.
    """

    def __init__(self, stand: Stand, tiers: Sequence[str]) -> None:
        self._stand = stand
        self._sure, self._unsure, threshold = _samples(stand.bundle)
        flags = ("--threshold", f"{threshold:.6f}")
        self._tiers: list[Command] = [stand.serve(tier, *flags) for tier in reversed(tiers)]
        settings = DeviceSettings(
            bundle=stand.bundle.path,
            back=LinkSettings(brokers=stand.brokers),
            cascade=stand.cascade,
            deadline_ms=DEADLINE_MS,
        )
        self._device = stand.stack.enter_context(Device(stand.bundle, settings))

    def run(self, seconds: float) -> Overloaded:
        """Find out what they can do, offer three times that, and see how they recover."""
        capacity_per_s = self._capacity()
        before_mb = self._memory_mb()
        offered_per_s = TIMES * capacity_per_s * 4 / 3
        count = round(offered_per_s * seconds)
        samples = (self._sure if number % 4 == 0 else self._unsure for number in range(count))
        outcomes = list(self._device.run(samples, rate=offered_per_s))
        return Overloaded(
            capacity_per_s,
            offered_per_s,
            outcomes,
            frozenset(range(0, count, 4)),
            (before_mb, self._memory_mb()),
            self._recovery_s(),
        )

    def _capacity(self) -> float:
        started_s, answered = time.monotonic(), 0
        while time.monotonic() < started_s + WARM_UP_S:
            outcomes = self._device.run([self._unsure] * 32, window=16)
            answered += sum(o.answer is not None and o.answer.reason == "final" for o in outcomes)
        return answered / (time.monotonic() - started_s)

    def _recovery_s(self) -> float:
        started_s, in_a_row = time.monotonic(), 0
        while in_a_row < RECOVERED and time.monotonic() < started_s + RECOVERY_S:
            (outcome,) = self._device.run([self._unsure])
            in_a_row = in_a_row + 1 if outcome.answer is not None and outcome.answer.reason == "final" else 0
        return time.monotonic() - started_s if in_a_row == RECOVERED else float("inf")

    def _memory_mb(self) -> float:
        pages = (Path(f"/proc/{tier.process.pid}/statm").read_text().split()[1] for tier in self._tiers)
        return sum(int(count) * os.sysconf("SC_PAGESIZE") for count in pages) / 1e6


def _samples(bundle: Bundle) -> tuple[Array, Array, float]:
    """The sample that the edge is surest of, the one it is least sure of, and a threshold between."""
    stage = bundle.spec.stages[0]
    settings = stage.exit_settings("litert")
    assert stage.logits is not None
    assert settings is not None
    with np.load(bundle.path.with_name("noise.npz")) as data:
        samples = data["x_test"]
    engine = open_engine(stage, bundle.file(stage, "litert"), "litert", 1)
    verdicts = judge(engine.run(samples)[stage.logits.name], settings)
    engine.close()
    confidence = np.array([verdict.confidence for verdict in verdicts])
    sure, unsure = int(confidence.argmax()), int(confidence.argmin())
    return samples[sure], samples[unsure], float((confidence[sure] + confidence[unsure]) / 2)


def table(found: dict[str, Overloaded]) -> str:
    """A row a setup."""
    header = ["setup", "can do", "offered", "requests", "p50/p99 sure", "p50/p99 unsure", "memory", "recovered in"]
    rows = []
    for name, one in found.items():
        sure, unsure = (
            f"{one.latency_ms(0.5, kind):.0f}/{one.latency_ms(0.99, kind):.0f} ms" for kind in (True, False)
        )
        rates = (f"{one.capacity_per_s:.0f}/s", f"{one.offered_per_s:.0f}/s", str(len(one.outcomes)))
        memory = "{:.0f} to {:.0f} MB".format(*one.memory_mb)
        rows.append([name, *rates, sure, unsure, memory, f"{one.recovery_s:.1f} s"])
    reasons = [
        f"{name}: {', '.join(f'{n} {why}' for why, n in one.reasons.most_common())}" for name, one in found.items()
    ]
    return "\n".join([text_table(header, rows), *reasons])


def main() -> None:
    """Run every setup on a Kafka of its own."""
    seconds = float(sys.argv[1]) if len(sys.argv) > 1 else 60.0
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="branchy-overload-")))
        cluster = stack.enter_context(KafkaCluster(find_kafka(os.environ, print), folder / "kafka"))
        bundle = train(folder)
        found = {}
        for name, tiers in SETUPS.items():
            with ExitStack() as inner:
                found[name] = Overload(Stand(folder, cluster.brokers, bundle, inner), tiers).run(seconds)
        print(table(found))
    broken = [f"{name}: {words}" for name, one in found.items() for words in [*one.broken(), *one.late()]]
    if broken:
        sys.exit("\n".join(broken))


if __name__ == "__main__":
    main()
