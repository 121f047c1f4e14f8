"""Thresholds with a guarantee: how sure one can be, from samples, that a loss is at most alpha.

Learn then Test (Angelopoulos, Bates, Candes, Jordan and Lei, 2021): a sequence of settings, fixed
on other samples and safest first, is tested in order, "its mean loss is above alpha" being the
hypothesis to reject at level delta. The first that is not rejected ends it. With probability at
least 1 - delta over the samples no setting before it has a mean loss above alpha, all at once.

Samples are taken to be independent and from where the later ones come from.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from typing import Literal

import numpy as np
from numpy.typing import NDArray

Losses = NDArray[np.int8]
"""Of each sample: 1 lost, 0 as before, -1 won (a sample that only the cascade classifies right)."""

Bound = Literal["binomial", "betting"]

_LARGEST_BET = 0.75
"""As a share of the bet at which one loss takes the whole stake (Waudby-Smith and Ramdas, section 4, c)."""
_NONE_LOST: Losses = np.zeros(1, np.int8)
MOST_SAMPLES = 2_000_000
"""No more are looked at to say how many it takes."""


def binomial_p_value(lost: int, n: int, alpha: float) -> float:
    """Probability of at most so many losses among n samples where each has probability alpha.

    A p-value, exact, of "the probability of a loss is above alpha". Samples that are won do not count.

    Args:
        lost: samples that are lost.
        n: samples.
        alpha: in (0, 1).
    """
    if lost >= n:
        return 1.0
    k = np.arange(lost)
    ratios = np.log((n - k) / (k + 1)) + math.log(alpha) - math.log1p(-alpha)
    logs = n * math.log1p(-alpha) + np.concatenate(([0.0], np.cumsum(ratios)))
    top = float(logs.max())
    return min(1.0, math.exp(top) * float(np.exp(logs - top).sum()))


def betting_p_value(losses: Losses, alpha: float, delta: float) -> float:
    """One over the peak of a gambler's capital who bets that the mean loss is below alpha.

    Were the mean alpha or more, no way of betting that only looks back would make the capital 1/p
    times itself with a probability above p (Ville's inequality). Unlike the binomial one, this
    p-value lets what is won make up for what is lost.

    Args:
        losses: (n,) in random order.
        alpha: in (0, 1).
        delta: in (0, 1): the level that the bets aim at.
    """
    return min(1.0, math.exp(-float(log_capital(losses, alpha, delta).max(initial=0.0))))


def log_capital(losses: Losses, alpha: float, delta: float) -> NDArray[np.float64]:
    """Log of the gambler's capital after each sample, from a capital of 1.

    Waudby-Smith and Ramdas (2020), section 4: the bet aims at 1/delta within n samples, by the variance
    seen so far; before the first sample, as if one of 1/alpha had been lost.

    Args:
        losses: (n,) in random order.
        alpha: in (0, 1).
        delta: in (0, 1).

    Returns:
        (n,) nats.
    """
    n = len(losses)
    lost = losses.astype(np.float64)
    seen = 1.0 + np.concatenate(([0.0], np.cumsum(lost * lost)))[:n]  # before each sample
    variance = seen / (1.0 / alpha + np.arange(n))
    bets = np.minimum(_LARGEST_BET / (1.0 - alpha), np.sqrt(-2.0 * math.log(delta) / (n * variance)))
    return np.asarray(np.cumsum(np.log1p(bets * (alpha - lost))))


def p_value(losses: Losses, alpha: float, delta: float, bound: Bound) -> float:
    """Of the hypothesis that the mean loss is above alpha, by one of the two bounds.

    Args:
        losses: (n,) of one setting, in random order.
        alpha: in (0, 1).
        delta: in (0, 1): the level that bets aim at; of no matter to `binomial`.
        bound: `binomial` (exact) or `betting` (Waudby-Smith and Ramdas, 2020).

    Returns:
        In (0, 1]; at most delta with a probability of at most delta where the hypothesis holds.
    """
    if bound == "betting":
        return betting_p_value(losses, alpha, delta)
    return binomial_p_value(int((losses > 0).sum()), len(losses), alpha)


def certify(sequence: Iterable[Losses], alpha: float, delta: float, bound: Bound) -> int:
    """Fixed-sequence testing: how many settings, from the first on, are certified.

    Args:
        sequence: each setting's losses (n,) of the same n samples in random order, safest setting first;
            read only as far as needed.
        alpha: the mean loss that a certified setting has at most.
        delta: probability, over the samples, that one or more of the certified ones has a higher one.
        bound: how a setting is tested. The sequence and the bound must not depend on these samples.
    """
    return _passing(sequence, lambda losses: p_value(losses, alpha, delta, bound) <= delta)


def certify_expected(sequence: Iterable[Losses], alpha: float) -> int:
    """Conformal risk control: how many settings, from the first on, are within alpha in expectation.

    Angelopoulos, Bates, Fisch, Lei and Schuster (2022). The loss of a later sample, under a setting
    chosen among these, is at most alpha on average over samples and choice; there is no delta, and
    for half of all draws it may be above. A loss that does not grow along the sequence is replaced
    by its running maximum, as the method needs one that does.

    Args:
        sequence: as for `certify`; the samples' order does not matter.
        alpha: the expected loss.
    """
    highest: Losses | None = None

    def holds(losses: Losses) -> bool:
        nonlocal highest
        highest = np.maximum(losses, 0 if highest is None else highest)
        return int(highest.sum(dtype=np.int64)) + 1 <= alpha * (len(losses) + 1)

    return _passing(sequence, holds)


def _passing(sequence: Iterable[Losses], holds: Callable[[Losses], bool]) -> int:
    passed = 0
    for losses in sequence:
        if not holds(losses):
            break
        passed += 1
    return passed


def samples_needed(alpha: float, delta: float | None, bound: Bound, losses: Losses = _NONE_LOST) -> int | None:
    """How many samples it takes to certify a setting, if they go on as these, which were not enough.

    Args:
        alpha: the mean loss to certify.
        delta: as for `certify`; None asks for conformal risk control.
        bound: as for `certify`; of no matter without a delta.
        losses: (n,) of the setting, in random order; one that is 0 asks for the least that any setting needs.

    Returns:
        A number above n that is enough for these losses over and over; None where too many are lost, or
        where it takes more than `MOST_SAMPLES`.
    """
    if counted(losses, None if delta is None else bound) >= alpha:
        return None

    def enough(n: int) -> bool:
        again = np.resize(losses, n)
        return (certify_expected([again], alpha) if delta is None else certify([again], alpha, delta, bound)) == 1

    low, high = len(losses), 2 * len(losses)
    while not enough(high):
        low, high = high, 2 * high
        if high > MOST_SAMPLES:
            return None
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if enough(middle) else (middle, high)
    return high


def counted(losses: Losses, bound: Bound | None) -> float:
    """What a bound takes for the mean loss: only betting sets off what is won.

    Args:
        losses: (n,) of a setting.
        bound: None for conformal risk control.
    """
    return float((losses if bound == "betting" else losses > 0).mean())
