"""`branchy device`: send a data set's test samples to the first tier, record and sum up what comes back."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

from tqdm import tqdm

from branchy.config import DeviceSettings
from branchy.core.cascade import FULL
from branchy.core.messages import Answer
from branchy.core.requester import Outcome, Schedule
from branchy.datasets import Part
from branchy.errors import NoAnswerError, OutputError, UsageError
from branchy.models import functions
from branchy.reports.csv import CsvReport, Row
from branchy.reports.summary import Tally, render
from branchy.runner.device import Device
from branchy.runner.held_out import load_held_out
from branchy.store.bundle import Bundle
from branchy.transport.base import Link

log = logging.getLogger(__name__)

MEANINGS = {
    "duplicates": "answers to requests that had one already",
    "late": "answers to requests that were given up",
    "foreign": "answers of another model",
    "garbage": "answers that cannot be read or do not fit",
    "stray": "answers to somebody else's requests",
    "again": "requests that were sent again",
    "capped": "requests that had to wait, as too many were in flight",
}
"""What the device's counters mean, for a person."""


def send_dataset(
    dataset: str,
    settings: DeviceSettings,
    say: Callable[[str], None],
    *,
    window: int | None = None,
    rate: float | None = None,
    count: int | None = None,
    csv: Path | None = None,
    output: str | None = None,
    link: Link | None = None,
) -> None:
    """Send a data set's test samples and say what came of it, also when it is interrupted.

    Args:
        dataset: its name or path.
        settings: bundle, brokers, tier, deadline.
        say: takes each line for the user.
        window: closed loop: most requests in flight, 1 unless told.
        rate: open loop: requests a second.
        count: how many requests; the samples are sent again from the first where it is more than
            there are. All samples once unless told.
        csv: where to write a row a request; opened before anything is sent.
        output: a function of the user's own, by `path/to/file.py:function` or `module:function`. It is called
            with each answer as it comes, and what it returns is said, unless that is None.
        link: instead of Kafka.

    Raises:
        ArchitectureError: there is no such function; nothing was sent.
        OutputError: that function failed; what came before it is summed up.
        UsageError: a wrong window, rate or tier, a data set that does not fit the bundle, or a CSV
            that cannot be written; nothing was sent.
        BrokerUnavailableError: no broker answered in time; nothing was sent.
        NoAnswerError: some requests got no label; the message says why.
    """
    Schedule(window, rate)  # a wrong one is found out before the work
    if count is not None and count < 1:
        raise UsageError(f"count: expected at least 1 request, got {count}")
    show = _shown(output, say) if output else None
    bundle = Bundle.load(settings.bundle)
    data = load_held_out(dataset, bundle.spec)
    for line in data.skipped:
        log.warning("skipped %s", line)
    faults: Counter[str] = Counter()
    with ExitStack() as stack:
        tiers = tier_names(bundle, settings.tier)
        report = stack.enter_context(CsvReport(csv, tiers)) if csv else None
        device = stack.enter_context(Device(bundle, settings, link))
        tally = Tally(tiers)
        try:
            for outcome, row in ask(device, data.test, count=count, window=window, rate=rate):
                if report is not None:
                    report.write(row)
                tally.add(row)
                faults.update([outcome.fault] if outcome.fault else [])
                if show is not None and outcome.answer is not None:
                    show(outcome.answer)
        finally:
            if tally.samples:
                say("\n".join(_result(device, tally, csv)))
    _complain(tally, faults)


def _shown(name: str, say: Callable[[str], None]) -> Callable[[Answer], None]:
    """What calls the user's own function and says what it returns."""
    function = functions.load(name)

    def show(answer: Answer) -> None:
        try:
            found = function(answer)
        except Exception as error:
            text = functions.one_line(error)
            raise OutputError(f"--output {name} failed on the answer to request {answer.request}: {text}") from error
        if found is not None:
            with tqdm.external_write_mode():  # not into the line of the progress bar
                say(str(found))

    return show


def tier_names(bundle: Bundle, tier: str | None) -> tuple[str, ...]:
    """The tiers that may answer what is sent to one of them."""
    return (FULL,) if tier == FULL else tuple(stage.name for stage in bundle.spec.stages)


def ask(
    device: Device, test: Part, *, count: int | None = None, window: int | None = None, rate: float | None = None
) -> Iterator[tuple[Outcome, Row]]:
    """Send samples, with a progress bar, and yield each outcome with its row of the results file.

    Args:
        device: whom to ask.
        test: the samples, from the first again when they are used up.
        count: how many requests; all samples once unless told.
        window: see `Device.run`.
        rate: see `Device.run`.
    """
    total = len(test) if count is None else count
    samples = (test[number % len(test)][0] for number in range(total))
    with tqdm(total=total, desc=f"asking {device.stage.name}", unit="request") as bar:
        for outcome in device.run(samples, window=window, rate=rate):
            yield outcome, row_of(outcome, test, device)
            bar.update()


def row_of(outcome: Outcome, test: Part, device: Device) -> Row:
    """The row of a request for a test sample.

    Args:
        outcome: its index counts the requests, over and over the samples.
        test: the samples.
        device: that sent it. The full model stands at the far end of the uplink with no tier
            before it: all that the device sends to it counts as sent up.
    """
    position = outcome.index % len(test)
    uplink_bytes = outcome.bytes_sent if device.stage.name == FULL else 0
    return Row.from_answer(
        position,
        int(test.labels[position]),
        outcome.latency_s,
        outcome.answer,
        outcome.request,
        uplink_bytes=uplink_bytes,
        has_certificate=device.has_certificate,
    )


def _result(device: Device, tally: Tally, csv: Path | None) -> list[str]:
    lines = [render({device.stage.name: tally.summary()})]
    lines += [f"{n} {MEANINGS[word]} ({word})" for word, n in sorted(device.counters.items())]
    if csv is not None:
        lines.append(f"every request's line is in {csv}")
    return lines


def _complain(tally: Tally, faults: Counter[str]) -> None:
    """Raise `NoAnswerError` unless every request got a label."""
    summary = tally.summary()
    missing = summary.samples - summary.answered
    if missing:
        why = [f"{n} x {text}" for text, n in faults.most_common(3)]
        why += [f"{n} x refused: {reason}" for reason, n in summary.refused.items()]
        raise NoAnswerError(f"{missing} of {summary.samples} requests got no label: {'; '.join(why)}")
