"""What other thresholds would have done to recorded requests: what the records tell, and what they cannot.

A results file has what each exit said of each request that came to it. With a laxer threshold
a request leaves at an exit whose answer is recorded. With a stricter one it goes on to exits that it
never came to: what they would have said is not known, and is counted as not known.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from branchy.core.messages import Reason
from branchy.core.statistics import wilson
from branchy.errors import UsageError
from branchy.reports.csv import Results, Row, TierCells, title
from branchy.reports.summary import NONE, percent
from branchy.reports.text import text_table


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of one request, or would have.

    Attributes:
        exit: where it left; None where it is not known.
        predicted: the class index that was answered; None where it is not known.
        reason: why; `confident` where a threshold lets it leave, None where it is not known.
        bytes_up: sent up at all cuts; where the exit is not known, at least so many.
    """

    exit: str | None
    predicted: int | None
    reason: Reason | None
    bytes_up: int


def replay_row(row: Row, titles: Sequence[str], thresholds: Mapping[str, float]) -> Outcome:
    """What would have become of one answered request.

    Args:
        row: with an answer.
        titles: of the tiers in order.
        thresholds: on the largest probability, by exit; an exit that is not named decides as it did. The
            last exit has none.
    """
    steps, spent = _steps(row, titles), 0
    for number, step in enumerate(steps):
        threshold, answered = thresholds.get(step.exit or ""), number == len(steps) - 1
        if threshold is not None and (step.confidence or 0.0) >= threshold:
            return Outcome(step.exit, step.prediction, "confident", spent)
        spent += step.bytes_up or 0
        if answered and row.reason == "confident" and threshold is not None:
            return Outcome(None, None, None, spent)
    return Outcome(steps[-1].exit, row.predicted, row.reason, spent)


def _steps(row: Row, titles: Sequence[str]) -> list[TierCells]:
    """The tiers that a request came to, up to the one that answered, each with what its exit said."""
    until = titles.index(title(row.tier or "")) + 1
    return [row.tiers[name] for name in titles[:until] if name in row.tiers]


@dataclass(frozen=True)
class Replay:
    """Recorded requests, and what other thresholds would have done to them.

    Attributes:
        results: the records.
        thresholds: by exit.
        exits: in order.
        rows: the requests that were answered; nothing is known of the others.
        recorded: what became of them, and
        replayed: what would have.
    """

    results: Results
    thresholds: Mapping[str, float]
    exits: tuple[str, ...]
    rows: tuple[Row, ...]
    recorded: tuple[Outcome, ...]
    replayed: tuple[Outcome, ...]

    @property
    def unknown(self) -> int:
        """How many would have gone on to exits that they never came to."""
        return sum(outcome.exit is None for outcome in self.replayed)

    def left(self, exit_: str) -> tuple[int, int]:
        """How many would have been answered by an exit: surely, and at most.

        What would have gone on may be answered by the exit that was sure of it after all, where the tier in
        front is too slow, or by any later one.

        Args:
            exit_: one of `exits`.
        """
        surely = sum(outcome.exit == exit_ for outcome in self.replayed)
        place = self.exits.index(exit_)
        went_on = (was for was, is_ in zip(self.recorded, self.replayed, strict=True) if is_.exit is None)
        return surely, surely + sum(self.exits.index(was.exit or "") <= place for was in went_on)

    def right(self, outcomes: Sequence[Outcome]) -> tuple[int, int, int]:
        """Of the requests whose class is known: right for sure, right at most, and how many these requests are.

        Args:
            outcomes: one a row, in order: `recorded` or `replayed`.
        """
        judged = [(o, row.expected) for o, row in zip(outcomes, self.rows, strict=True) if row.expected is not None]
        surely = sum(outcome.predicted == expected for outcome, expected in judged)
        return surely, surely + sum(outcome.exit is None for outcome, _ in judged), len(judged)

    def text(self) -> str:
        """Recorded and replayed side by side, each share with its interval, and what is not known."""
        header = ("", "recorded", "95 % interval", "replayed", "95 % interval")
        parts = [self._heading(), text_table(header, [self._right(), *self._exits(), self._bytes()]), *self._notes()]
        return "\n\n".join(parts)

    def _heading(self) -> str:
        rules = ", ".join(f"{name} >= {threshold:g}" for name, threshold in self.thresholds.items())
        return f"{self.results.path}: {len(self.rows):,} answered requests, replayed with {rules}"

    def _right(self) -> tuple[str, ...]:
        return ("right", *_cells(*self.right(self.recorded)), *_cells(*self.right(self.replayed)))

    def _exits(self) -> list[tuple[str, ...]]:
        n, was = len(self.rows), Counter(outcome.exit for outcome in self.recorded)
        rows = [
            (f"left at {name}", *_cells(was[name], was[name], n), *_cells(*self.left(name), n)) for name in self.exits
        ]
        return [*rows, ("not known where", NONE, NONE, percent(self.unknown / n), NONE)]

    def _bytes(self) -> tuple[str, ...]:
        was, is_ = (sum(o.bytes_up for o in outcomes) / len(self.rows) for outcomes in (self.recorded, self.replayed))
        at_least = "at least " if self.unknown else ""
        return ("bytes up a request", f"{was:,.0f}", NONE, f"{at_least}{is_:,.0f}", NONE)

    def _notes(self) -> list[str]:
        changes = Counter(
            (was.predicted == row.expected, is_.predicted == row.expected)
            for was, is_, row in zip(self.recorded, self.replayed, self.rows, strict=True)
            if row.expected is not None and is_.exit is not None
        )
        notes = [
            f"of the answers that are known, {changes[True, False]:,} would be wrong that were right, "
            f"{changes[False, True]:,} right that were wrong"
        ]
        if self.unknown:
            notes.append(
                f"not known: {self.unknown:,} requests left at an exit that would have sent them on. What later exits "
                "say of them was never asked; the intervals have room for all of them being right, and wrong. Record "
                "with --threshold 1 at the tiers to know."
            )
        left_out = len(self.results.rows) - len(self.rows)
        if left_out:
            notes.append(f"left out: {left_out:,} requests without an answer; no exit's confidence is recorded of them")
        return [*notes, *self._odd(), "not replayed: times, and who would have timed out; both depend on the load"]

    def _odd(self) -> list[str]:
        """Exits whose recorded decisions no single threshold on the largest probability explains."""
        out = []
        for name in self.exits:
            stayed, left = decided(self.results, self.rows, name)
            if stayed is not None and left is not None and stayed >= left:
                out.append(
                    f"{name} answered at a confidence of {left:.4f} and sent on at {stayed:.4f}: it was recorded with "
                    "another policy than max_prob, or with several thresholds; replayed is max_prob"
                )
        return out


def decided(results: Results, rows: Sequence[Row], exit_: str) -> tuple[float | None, float | None]:
    """The highest confidence that an exit sent on, and the lowest at which it answered; its threshold lies between.

    Args:
        results: the records.
        rows: the answered ones.
        exit_: of a tier.

    Returns:
        Each None where there was none.
    """
    stayed: list[float] = []
    left: list[float] = []
    for row in rows:
        *before, last = _steps(row, results.titles)
        stayed += [step.confidence or 0.0 for step in before if step.exit == exit_]
        if last.exit == exit_ and row.reason != "final":
            (left if row.reason == "confident" else stayed).append(last.confidence or 0.0)
    return max(stayed, default=None), min(left, default=None)


def replay(results: Results, thresholds: Mapping[str, float] | float) -> Replay:
    """Replay recorded requests.

    Args:
        results: as `branchy device`, `branchy evaluate` and `branchy demo` write them.
        thresholds: on the largest probability, for every exit but the last or by exit; an exit that is not
            named decides as it did.

    Raises:
        UsageError: nothing was answered, a tier ran several exits, or a threshold is out of range, or
            of an exit that decides nothing.
    """
    rows = tuple(row for row in results.rows if row.predicted is not None)
    if not rows:
        raise UsageError(f"{results.path}: expected answered requests, got none among {len(results.rows)}")
    exits = _exits(results, rows)
    final = {_steps(row, results.titles)[-1].exit for row in rows if row.reason == "final"} or {exits[-1]}
    early = [name for name in exits if name not in final]
    wanted = thresholds if isinstance(thresholds, Mapping) else dict.fromkeys(early, thresholds)
    for name, threshold in wanted.items():
        if name not in early:
            raise UsageError(
                f"threshold of {name}: expected an exit that sends on, {', '.join(early) or 'there is none'}"
            )
        if not 0 <= threshold <= 1:
            raise UsageError(f"threshold of {name} must be in 0..1, a probability, got {threshold:g}")
    if not wanted:
        raise UsageError(f"{results.path}: nothing to replay: its only exit, {', '.join(exits)}, always answers")
    recorded = tuple(replay_row(row, results.titles, {}) for row in rows)
    replayed = tuple(replay_row(row, results.titles, wanted) for row in rows)
    return Replay(results, wanted, exits, rows, recorded, replayed)


def _exits(results: Results, rows: Sequence[Row]) -> tuple[str, ...]:
    """The exits in order, one a tier; that of a tier which nobody came to is named as the tier.

    Raises:
        UsageError: a tier ran several, or a confidence is missing.
    """
    found: dict[str, str] = {}
    for row in rows:
        for name, cells in row.tiers.items():
            if cells.prediction is None:
                continue
            if cells.exit is None or cells.confidence is None:
                raise UsageError(
                    f"{results.path}: request {row.request} has no exit or no confidence of {name}; "
                    "expected a file in which every tier's are recorded"
                )
            if found.setdefault(name, cells.exit) != cells.exit:
                raise UsageError(
                    f"{results.path}: tier {name} ran several exits ({found[name]}, {cells.exit}), and the record has "
                    "only the last one's confidence; record with an exit a tier"
                )
    names = (found.get(name, name[:1].lower() + name[1:]) for name in results.titles)
    return tuple(dict.fromkeys(names))


def _cells(surely: int, at_most: int, n: int) -> tuple[str, str]:
    """A share that is known within bounds, and the interval that holds sampling and not knowing alike."""
    if not n:
        return NONE, NONE
    share = percent(surely / n) if surely == at_most else f"{100 * surely / n:.1f} to {100 * at_most / n:.1f} %"
    low, high = wilson(surely, n)[0], wilson(at_most, n)[1]
    if math.isclose(low, high):
        return share, NONE
    return share, f"{100 * low:.1f} to {100 * high:.1f} %"
