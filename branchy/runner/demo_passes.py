"""The demo's passes over the test samples: each once, and again while the last tier dies and comes back."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from tqdm import tqdm

from branchy.core.cascade import Array
from branchy.core.requester import Outcome
from branchy.datasets.dataset import Part
from branchy.reports.csv import CsvReport, Row
from branchy.runner import demo_text as text
from branchy.runner.outage import Outage
from branchy.runner.sending import ask, row_of
from branchy.runner.stand import Stand

MOST_PER_S = 200.0
"""Most requests a second while the last tier dies and comes back, whether it is there or not."""

OUTAGE_TIMEOUT_S = 60.0
"""When that pass ends, whatever was seen."""

KILL_AFTER = 500
"""Most answers before the last tier is killed; half the samples where that is less."""

Say = Callable[[str], None]


@dataclass
class Pass:
    """What became of the samples of one pass.

    Attributes:
        handed: how many samples were handed to the device.
        sent: the ids of the requests that they became.
        answered: the ids of the answers that came.
        rows: a row a request, in the order of their ends.
        took_s: the whole pass.
    """

    handed: int = 0
    sent: set[str] = field(default_factory=set)
    answered: list[str] = field(default_factory=list)
    rows: list[Row] = field(default_factory=list)
    took_s: float = 0.0

    def add(self, outcome: Outcome, row: Row) -> None:
        """Count a request's end."""
        self.sent.add(outcome.request)
        if outcome.answer is not None:
            self.answered.append(outcome.answer.request)
        self.rows.append(row)

    @property
    def is_complete(self) -> bool:
        """Whether each sample became a request of its own, and the ids sent equal the ids answered, each once."""
        return self.handed == len(self.sent) == len(self.answered) and self.sent == set(self.answered)


def ask_all(stand: Stand, tier: str, test: Part, report: CsvReport) -> Pass:
    """Send every sample to a tier, one in flight."""
    result = Pass(handed=len(test))
    with stand.device(tier) as device:
        start_s = time.monotonic()
        for outcome, row in ask(device, test):
            result.add(outcome, row)
            report.write(row)
        result.took_s = time.monotonic() - start_s
    return result


def gentle_rate(one_in_flight: Pass) -> float:
    """Requests a second that this machine keeps up with: half of what it did one at a time."""
    return min(MOST_PER_S, len(one_in_flight.rows) / one_in_flight.took_s / 2)


def ask_through_outage(stand: Stand, test: Part, rate: float, report: CsvReport, say: Say) -> tuple[Outage, Pass]:
    """Send samples at a rate, over and over, until the last tier was killed, was missed, and is back."""
    first, last = stand.tiers[0], stand.tiers[-1]
    outage, result = Outage(last, kill_after=min(KILL_AFTER, len(test) // 2)), Pass()
    restarted_s = back_s = None
    with stand.device(first) as device, tqdm(total=outage.goal, desc=f"asking {first} again", unit="request") as bar:
        for outcome in device.run(_until_over(outage, test, result), rate=rate):
            row = row_of(outcome, test, device)
            result.add(outcome, row)
            report.write(row)
            step = outage.take(row)
            bar.update(outage.progress - bar.n)
            if step == "kill":
                stand.kill(last)
                say(text.killed(last, len(result.rows), rate))
            elif step == "restart":
                say(text.restarted(last, len(outage.wanted)))
                stand.start(last)
                restarted_s = time.monotonic()
            elif outage.answers_back and restarted_s and back_s is None:
                back_s = time.monotonic() - restarted_s
    say(text.outage(outage, back_s))
    return outage, result


def _until_over(outage: Outage, test: Part, result: Pass) -> Iterator[Array]:
    """Samples from the first again and again; the time-out is for what never comes to its end."""
    end = time.monotonic() + OUTAGE_TIMEOUT_S
    while not outage.is_over and time.monotonic() < end:
        position = result.handed % len(test)
        result.handed += 1
        yield test[position][0]
