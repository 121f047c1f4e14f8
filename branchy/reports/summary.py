"""What a run comes to, and runs side by side as a text table; without pandas, as devices print it."""

from __future__ import annotations

from array import array
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from branchy.core.statistics import quantile, wilson
from branchy.reports.csv import Row, title
from branchy.reports.text import text_table

NONE = "-"


@dataclass(frozen=True, slots=True)
class Latency:
    """Median and 99th percentile, in seconds."""

    p50_s: float
    p99_s: float

    @classmethod
    def of(cls, seconds: Sequence[float]) -> Latency | None:
        """Of round trips; None of none."""
        return cls(quantile(seconds, 0.5), quantile(seconds, 0.99)) if len(seconds) else None


@dataclass(frozen=True)
class Summary:
    """What a run comes to.

    Attributes:
        samples: requests that were sent.
        answered: of them, with a label.
        refused: without one, by the reason that came instead.
        judged: answered requests whose true class is known, and
        correct: how many of these were right.
        tiers: the tiers in order, nearest the device first.
        shares: how many were answered by (tier, reason).
        latency: round trips of the answered requests.
        latency_of: the same by answering tier.
        bytes_up: mean bytes sent up a request, where it is known.
        certified: answers that are under the bundle's certificate; None where it has none.
    """

    samples: int
    answered: int
    refused: Mapping[str, int]
    judged: int
    correct: int
    tiers: tuple[str, ...]
    shares: Mapping[tuple[str, str], int]
    latency: Latency | None
    latency_of: Mapping[str, Latency]
    bytes_up: float | None
    certified: int | None

    @classmethod
    def of(cls, rows: Iterable[Row], tiers: Sequence[str]) -> Summary:
        """Of rows; `tiers` gives the order."""
        tally = Tally(tiers)
        for row in rows:
            tally.add(row)
        return tally.summary()

    @property
    def unanswered(self) -> int:
        """Requests that nothing came back for."""
        return self.samples - self.answered - sum(self.refused.values())

    @property
    def accuracy(self) -> float | None:
        """Share of right answers among the judged; None without any."""
        return self.correct / self.judged if self.judged else None


@dataclass
class Tally:
    """Adds up rows as they come; keeps only their round trips."""

    tiers: Sequence[str]
    samples: int = 0
    judged: int = 0
    correct: int = 0
    certified: int | None = None
    _refused: Counter[str] = field(default_factory=Counter)
    _shares: Counter[tuple[str, str]] = field(default_factory=Counter)
    _latencies: dict[str, array[float]] = field(default_factory=lambda: defaultdict(lambda: array("d")))
    _bytes: Counter[str] = field(default_factory=Counter)

    def add(self, row: Row) -> None:
        """Count one row."""
        self.samples += 1
        if row.certified is not None:
            self.certified = (self.certified or 0) + row.certified
        if row.bytes_up is not None:
            self._bytes.update(sum=row.bytes_up, rows=1)
        if row.tier is None or row.reason is None:
            return
        if row.predicted is None:
            self._refused[row.reason] += 1
            return
        self._shares[row.tier, row.reason] += 1
        if row.latency_s is not None:
            self._latencies[row.tier].append(row.latency_s)
        if row.expected is not None:
            self.judged += 1
            self.correct += row.predicted == row.expected

    def summary(self) -> Summary:
        """What the rows so far come to."""
        answering = {tier for tier, _ in self._shares}
        order = {title(tier): place for place, tier in enumerate(self.tiers)}
        tiers = sorted(answering, key=lambda tier: (order.get(title(tier), len(order)), tier))
        everything = array("d")
        for seconds in self._latencies.values():
            everything.extend(seconds)
        latency_of = {tier: latency for tier in tiers if (latency := Latency.of(self._latencies[tier]))}
        return Summary(
            samples=self.samples,
            answered=self._shares.total(),
            refused=dict(self._refused),
            judged=self.judged,
            correct=self.correct,
            tiers=tuple(tiers),
            shares=dict(self._shares),
            latency=Latency.of(everything),
            latency_of=latency_of,
            bytes_up=self._bytes["sum"] / self._bytes["rows"] if self._bytes["rows"] else None,
            certified=self.certified,
        )


def render(runs: Mapping[str, Summary]) -> str:
    """Runs side by side, a column each, as text.

    Args:
        runs: by the heading of their column.
    """
    return text_table(["", *runs], [[label, *cells] for label, cells in lines(list(runs.values()))])


def lines(runs: Sequence[Summary]) -> list[tuple[str, list[str]]]:
    """The lines of a table of runs: what is measured, and a cell a run."""
    return [
        ("samples", [str(run.samples) for run in runs]),
        ("answered", [str(run.answered) for run in runs]),
        ("refused", [_refused(run) for run in runs]),
        ("unanswered", [str(run.unanswered) for run in runs]),
        *_certified_lines(runs),
        ("accuracy", [percent(run.accuracy) for run in runs]),
        ("  95 % interval", [interval(run.correct, run.judged) for run in runs]),
        *_share_lines(runs),
        ("latency p50", [milliseconds(run.latency.p50_s if run.latency else None) for run in runs]),
        ("latency p99", [milliseconds(run.latency.p99_s if run.latency else None) for run in runs]),
        *_latency_lines(runs),
        ("bytes up a request", [NONE if run.bytes_up is None else f"{run.bytes_up:,.0f}" for run in runs]),
    ]


def _certified_lines(runs: Sequence[Summary]) -> list[tuple[str, list[str]]]:
    """Of bundles without a certificate there is nothing to say."""
    if all(run.certified is None for run in runs):
        return []
    shares = [None if run.certified is None else run.certified / run.samples for run in runs]
    return [("certified", [percent(share) for share in shares])]


def _share_lines(runs: Sequence[Summary]) -> list[tuple[str, list[str]]]:
    out = []
    for tier in _tiers(runs):
        counts = [sum(n for (t, _), n in run.shares.items() if t == tier) for run in runs]
        out.append((f"answered by {tier}", [_share(n, run) for n, run in zip(counts, runs, strict=True)]))
        for reason in dict.fromkeys(r for run in runs for (t, r) in run.shares if t == tier):
            out.append((f"  {reason}", [_share(run.shares.get((tier, reason), 0), run) for run in runs]))
    return out


def _latency_lines(runs: Sequence[Summary]) -> list[tuple[str, list[str]]]:
    out = []
    for tier in _tiers(runs):
        found = [run.latency_of.get(tier) for run in runs]
        out.append(
            (
                f"  by {tier}, p50 / p99",
                [f"{milliseconds(f.p50_s)} / {milliseconds(f.p99_s)}" if f else NONE for f in found],
            )
        )
    return out


def _tiers(runs: Sequence[Summary]) -> list[str]:
    return list(dict.fromkeys(tier for run in runs for tier in run.tiers))


def _refused(run: Summary) -> str:
    by_reason = ", ".join(f"{reason} {n}" for reason, n in sorted(run.refused.items()))
    return f"{sum(run.refused.values())} ({by_reason})" if by_reason else "0"


def _share(count: int, run: Summary) -> str:
    return percent(count / run.samples) if count else NONE


def percent(share: float | None) -> str:
    """A share for people; a dash for none."""
    return NONE if share is None else f"{100 * share:.1f} %"


def interval(correct: int, judged: int) -> str:
    """The 95 % Wilson interval of a share, for people; a dash where nothing was judged."""
    low, high = wilson(correct, judged)
    return f"{100 * low:.1f} to {100 * high:.1f} %" if judged else NONE


def milliseconds(seconds: float | None) -> str:
    """A time for people; a dash for none."""
    return NONE if seconds is None else f"{1e3 * seconds:.2f} ms"
