"""What a cascade would take on given links and computers, and whether it pays against doing without.

The model: a tier takes its measured time for a sample, times how much slower its computer is; a cut
takes the link's round trip and, at the uplink's rate, the bytes of the request. Queues, brokers and
lost messages are left out, and so is the way from the device to the edge.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from branchy.core.statistics import wilson
from branchy.errors import UsageError

_ALIKE = 0.02
"""Times and bytes that differ by no more than this share are called the same: they are measured."""


@dataclass(frozen=True, slots=True)
class TierFigures:
    """One tier as measured here: its time for one sample, and headers and body sent up at its cut (0 of the last)."""

    name: str
    compute_ms: float
    bytes_up: int


@dataclass(frozen=True, slots=True)
class Site:
    """Where a cascade would run.

    Attributes:
        uplink_mbit: of the link at each cut, megabits a second; may be infinite.
        rtt_ms: of the link at each cut, there and back.
        slower: of each tier, how many times its computer is slower than the one that times were measured on.
    """

    uplink_mbit: tuple[float, ...]
    rtt_ms: tuple[float, ...]
    slower: tuple[float, ...]

    @classmethod
    def of(
        cls, tiers: int, uplink_mbit: Sequence[float], rtt_ms: Sequence[float], slower: Sequence[float] = ()
    ) -> Site:
        """For so many tiers.

        Args:
            tiers: how many, at least 1.
            uplink_mbit: one number for every cut, or one a cut.
            rtt_ms: the same.
            slower: from the first tier on; 1 for those that are left out.

        Raises:
            UsageError: too many or too few numbers, or one that is out of range.
        """
        cuts = tiers - 1
        for what, values, range_, holds in (
            ("--uplink-mbit", uplink_mbit, "above 0", all(value > 0 for value in uplink_mbit)),
            ("--rtt-ms", rtt_ms, "from 0 up", all(0 <= value < math.inf for value in rtt_ms)),
        ):
            if len(values) not in (1, cuts) or not holds:
                raise UsageError(
                    f"{what}: expected one number {range_} for every cut, or {cuts}, one a cut, got {_list(values)}"
                )
        if len(slower) > tiers or not all(0 < value < math.inf for value in slower):
            raise UsageError(f"--slower: expected at most {tiers} numbers above 0, one a tier, got {_list(slower)}")
        rates, trips = (tuple(each) * cuts if len(each) == 1 else tuple(each) for each in (uplink_mbit, rtt_ms))
        return cls(rates, trips, (*slower, *[1.0] * (tiers - len(slower))))

    def link_ms(self, cut: int, size_bytes: float) -> float:
        """From sending a request up at a cut to having the answer, less what is computed.

        Args:
            cut: which, from 0.
            size_bytes: headers and body.

        Returns:
            Milliseconds.
        """
        return self.rtt_ms[cut] + 8e-3 * size_bytes / self.uplink_mbit[cut]


def exit_ms(tiers: Sequence[TierFigures], site: Site) -> tuple[float, ...]:
    """Time from a sample at the first tier to its answer, by the tier at whose exit it leaves.

    Args:
        tiers: in order, as measured.
        site: for as many tiers.

    Returns:
        (tiers,) milliseconds.
    """
    out, spent = [], 0.0
    for number, tier in enumerate(tiers):
        spent += tier.compute_ms * site.slower[number]
        out.append(spent)
        if number < len(tiers) - 1:
            spent += site.link_ms(number, tier.bytes_up)
    return tuple(out)


def exit_bytes(tiers: Sequence[TierFigures]) -> tuple[float, ...]:
    """What is sent up over all cuts, by the tier at whose exit a sample leaves.

    Args:
        tiers: in order, as measured.

    Returns:
        (tiers,) bytes, headers and bodies.
    """
    return tuple(float(sum(tier.bytes_up for tier in tiers[:number])) for number in range(len(tiers)))


def sent_whole_ms(compute_ms: float, sample_bytes: int, site: Site) -> float:
    """Time for a sample that is sent over all links as it is, to the full model on the last tier's computer.

    Args:
        compute_ms: of the full model, as measured.
        sample_bytes: headers and body of the request with the sample.
        site: where it would run.

    Returns:
        Milliseconds.
    """
    cuts = range(len(site.rtt_ms))
    return compute_ms * site.slower[-1] + sum(site.link_ms(cut, sample_bytes) for cut in cuts)


@dataclass(frozen=True)
class Option:
    """One way to answer samples: which it gets right, and what each takes.

    Attributes:
        name: for people.
        right: (n,).
        ms: (n,) time to the answer.
        bytes_up: (n,) sent up.
    """

    name: str
    right: NDArray[np.bool_]
    ms: NDArray[np.float64]
    bytes_up: NDArray[np.float64]

    @classmethod
    def same_for_all(cls, name: str, right: NDArray[np.bool_], ms: float, bytes_up: float) -> Option:
        """An option that takes the same of every sample.

        Args:
            name: for people.
            right: (n,).
            ms: to the answer.
            bytes_up: sent up.
        """
        n = len(right)
        return cls(name, right, np.full(n, ms), np.full(n, bytes_up))

    @property
    def accuracy(self) -> float:
        """Share of right answers."""
        return float(self.right.mean())

    @property
    def mean_ms(self) -> float:
        """Of a sample."""
        return float(self.ms.mean())

    @property
    def mean_bytes(self) -> float:
        """Of a sample."""
        return float(self.bytes_up.mean())

    def per_right(self, total: NDArray[np.float64]) -> float:
        """What was spent on all samples, a right answer; infinite without any.

        Args:
            total: (n,) of each sample, such as `ms`.
        """
        right = int(self.right.sum())
        return float(total.sum()) / right if right else math.inf


@dataclass(frozen=True, slots=True)
class Comparison:
    """An option held against the cascade; each of the three is 1 where the option is better, -1 where worse, else 0.

    Attributes:
        option: that was compared.
        cascade: with this.
        accuracy: by the samples that only one of the two gets right: 0 while the 95 % interval of how
            they are divided holds one half.
        ms: mean time.
        bytes_up: mean bytes.
    """

    option: Option
    cascade: Option
    accuracy: int
    ms: int
    bytes_up: int

    @classmethod
    def of(cls, option: Option, cascade: Option) -> Comparison:
        """On the same samples.

        Whether one is more accurate is McNemar's question (1947), put to the samples that just one of the two
        gets right: a sign test, by the Wilson interval of their share.

        Args:
            option: n samples, as
            cascade: has, in the same order.
        """
        won = int((option.right & ~cascade.right).sum())
        lost = int((cascade.right & ~option.right).sum())
        low, high = wilson(won, won + lost)
        accuracy = int(low > 0.5) - int(high < 0.5)
        ms = _fewer(option.mean_ms, cascade.mean_ms)
        return cls(option, cascade, accuracy, ms, _fewer(option.mean_bytes, cascade.mean_bytes))

    @property
    def beats(self) -> bool:
        """Whether the option is nowhere worse than the cascade, and somewhere better."""
        return min(self._signs) >= 0 and max(self._signs) > 0

    @property
    def beaten(self) -> bool:
        """Whether it is nowhere better, and somewhere worse."""
        return max(self._signs) <= 0 and min(self._signs) < 0

    @property
    def _signs(self) -> tuple[int, int, int]:
        return self.accuracy, self.ms, self.bytes_up

    @property
    def sentence(self) -> str:
        """For people: `full model in the cloud: as right, 4.2 times the time, no bytes: a trade`."""
        points = 100 * (self.option.accuracy - self.cascade.accuracy)
        right = f"{abs(points):.1f} points {'more' if points > 0 else 'less'} right" if self.accuracy else "as right"
        time = _times(self.option.mean_ms, self.cascade.mean_ms, self.ms, "time")
        sent = _times(self.option.mean_bytes, self.cascade.mean_bytes, self.bytes_up, "bytes")
        if self.beats:
            end = "it is better than the cascade"
        elif self.beaten:
            end = "the cascade is better"
        else:
            end = "a trade" if any(self._signs) else "no difference"
        return f"{self.option.name}: {right}, {time}, {sent}: {end}"


def verdict(comparisons: Sequence[Comparison]) -> str:
    """Does the cascade pay?

    Args:
        comparisons: of all options with the cascade.
    """
    better = [found.option.name for found in comparisons if found.beats]
    if better:
        return f"It does not pay: better is the {' or the '.join(better)}."
    even = [found.option.name for found in comparisons if not any(found._signs)]
    if even:
        return f"It does not pay: the {' or the '.join(even)} does the same."
    trades = [found.option.name for found in comparisons if not found.beaten]
    if trades:
        return f"It pays, unless you would rather have what it trades against the {' or the '.join(trades)}."
    return "It pays: nothing else is better at anything."


def break_even(cascade_ms: float, cascade_fast_ms: float, full_ms: float, full_fast_ms: float) -> float | None:
    """How many times faster the uplinks must be for a sample sent whole to be answered as soon as by the cascade.

    Both times are linear in the inverse of the rate.

    Args:
        cascade_ms: mean time at today's rate.
        cascade_fast_ms: at an infinite one.
        full_ms: of the sample sent whole, today, and
        full_fast_ms: at an infinite rate.

    Returns:
        A factor; below 1 where they could be slower, 0 where any will do. None where no faster uplink does it.
    """
    ahead = cascade_fast_ms - full_fast_ms
    if ahead <= 0:
        return None
    steeper = (full_ms - full_fast_ms) - (cascade_ms - cascade_fast_ms)
    return max(0.0, steeper) / ahead


def at_infinite_rate(site: Site) -> Site:
    """The same links, if bytes cost no time.

    Args:
        site: as it is.
    """
    return replace(site, uplink_mbit=(math.inf,) * len(site.uplink_mbit))


def _fewer(ours: float, theirs: float) -> int:
    if math.isclose(ours, theirs, rel_tol=_ALIKE, abs_tol=1e-9):
        return 0
    return 1 if ours < theirs else -1


def _times(ours: float, theirs: float, sign: int, what: str) -> str:
    if sign == 0:
        return f"the same {what}"
    if ours == 0:
        return f"no {what}"
    if theirs == 0:
        return f"{ours:,.0f} {what} against none"
    return f"{ours / theirs:.3g} times the {what}"


def _list(values: Sequence[float]) -> str:
    return ",".join(f"{value:g}" for value in values)
