from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from branchy.core.payoff import (
    Comparison,
    Option,
    Site,
    TierFigures,
    at_infinite_rate,
    break_even,
    exit_bytes,
    exit_ms,
    sent_whole_ms,
    verdict,
)
from branchy.errors import UsageError

TIERS = (TierFigures("edge", 2.0, 1000), TierFigures("fog", 3.0, 500), TierFigures("cloud", 4.0, 0))


def test_the_model_is_as_worked_out_by_hand() -> None:
    site = Site.of(3, [8, 80], [20, 5], [10])
    # 1,000 bytes are 8,000 bits: 1 ms at 8 Mbit/s; 500 are 0.05 ms at 80
    assert exit_ms(TIERS, site) == pytest.approx((20, 20 + 20 + 1 + 3, 44 + 5 + 0.05 + 4))
    assert exit_bytes(TIERS) == (0, 1000, 1500)
    assert sent_whole_ms(6.0, 2000, site) == pytest.approx(6 + 20 + 2 + 5 + 0.2)


def test_one_number_is_for_every_cut_and_computers_that_are_left_out_are_as_fast_as_this_one() -> None:
    assert Site.of(3, [8], [20], [10, 2]) == Site((8, 8), (20, 20), (10, 2, 1))


positive = st.floats(0.01, 1e4)
tiers = st.lists(st.builds(TierFigures, st.just("t"), positive, st.integers(0, 10**6)), min_size=2, max_size=4)


@given(tiers, st.data())
def test_a_worse_link_or_computer_never_makes_anything_sooner(figures: list[TierFigures], data: st.DataObject) -> None:
    n = len(figures)
    numbers = [data.draw(st.lists(positive, min_size=size, max_size=size)) for size in (n - 1, n - 1, n)]
    site, factor = Site.of(n, *numbers), data.draw(st.floats(1, 10))
    number = data.draw(st.integers(0, n - 2))

    def changed(values: tuple[float, ...], by: float) -> tuple[float, ...]:
        return (*values[:number], values[number] * by, *values[number + 1 :])

    for worse in (
        replace(site, uplink_mbit=changed(site.uplink_mbit, 1 / factor)),
        replace(site, rtt_ms=changed(site.rtt_ms, factor)),
        replace(site, slower=changed(site.slower, factor)),
    ):
        pairs = zip(exit_ms(figures, worse), exit_ms(figures, site), strict=True)
        assert all(new >= old * (1 - 1e-12) for new, old in pairs)
        assert sent_whole_ms(1.0, 1000, worse) >= sent_whole_ms(1.0, 1000, site) * (1 - 1e-12)
    spent = exit_ms(figures, site)
    assert list(spent) == sorted(spent)
    assert list(exit_bytes(figures)) == sorted(exit_bytes(figures))


@given(tiers, positive, st.integers(1, 10**6), positive, st.lists(st.floats(0, 1), min_size=4, max_size=4))
def test_at_the_break_even_rate_both_take_the_same(
    figures: list[TierFigures], full: float, sample_bytes: int, mbit: float, weights: list[float]
) -> None:
    shares = np.array(weights[: len(figures)]) + 1e-3
    shares /= shares.sum()

    def both(site: Site) -> tuple[float, float]:
        return float(shares @ exit_ms(figures, site)), sent_whole_ms(full, sample_bytes, site)

    site = Site.of(len(figures), [mbit], [10])
    (cascade, whole), (cascade_fast, whole_fast) = both(site), both(at_infinite_rate(site))
    factor = break_even(cascade, cascade_fast, whole, whole_fast)
    if factor is None:
        assert cascade_fast <= whole_fast
    elif factor > 1e-6:
        cascade, whole = both(replace(site, uplink_mbit=tuple(rate * factor for rate in site.uplink_mbit)))
        assert cascade == pytest.approx(whole, rel=1e-6)
    else:
        assert cascade_fast > whole_fast


def _option(name: str, wrong: int, ms: float, bytes_up: float, n: int = 400) -> Option:
    return Option.same_for_all(name, np.arange(n) >= wrong, ms, bytes_up)


CASCADE = _option("cascade", 20, 10.0, 100.0)


@pytest.mark.parametrize(
    ("other", "sentence"),
    [
        (_option("full", 18, 30, 900), "full: as right, 3 times the time, 9 times the bytes: the cascade is better"),
        (_option("edge", 60, 1, 0), "edge: 10.0 points less right, 0.1 times the time, no bytes: a trade"),
        (_option("edge", 19, 1, 0), "edge: as right, 0.1 times the time, no bytes: it is better than the cascade"),
        (_option("full", 0, 10.1, 100), "full: 5.0 points more right, the same time, the same bytes: it is better"),
        (_option("twin", 20, 10, 100), "twin: as right, the same time, the same bytes: no difference"),
        (_option("slow", 60, 10, 100), "slow: 10.0 points less right, the same time, the same bytes: the cascade is"),
    ],
)
def test_an_option_is_held_against_the_cascade_in_words(other: Option, sentence: str) -> None:
    assert Comparison.of(other, CASCADE).sentence.startswith(sentence)


def test_it_pays_unless_something_else_is_nowhere_worse() -> None:
    worse, trade = _option("full", 20, 30, 900), _option("edge", 60, 1, 0)
    better, twin = _option("full at the edge", 20, 9, 0), _option("twin", 20, 10, 100)

    def said(*others: Option) -> str:
        return verdict([Comparison.of(other, CASCADE) for other in others])

    assert said(worse) == "It pays: nothing else is better at anything."
    assert said(worse, trade) == "It pays, unless you would rather have what it trades against the edge."
    assert said(worse, trade, better) == "It does not pay: better is the full at the edge."
    assert said(worse, twin) == "It does not pay: the twin does the same."


def test_what_is_spent_counts_against_the_right_answers_alone() -> None:
    assert CASCADE.per_right(CASCADE.ms) == pytest.approx(10 * 400 / 380)
    assert CASCADE.accuracy == 0.95
    nothing = _option("wrong", 400, 1, 1)
    assert nothing.per_right(nothing.ms) == math.inf


@pytest.mark.parametrize(
    ("numbers", "line"),
    [
        (([0], [1], []), "--uplink-mbit: expected one number above 0 for every cut, or 2, one a cut, got 0"),
        (([1, 2, 3], [1], []), "--uplink-mbit: expected one number above 0 .* got 1,2,3"),
        (([math.nan], [1], []), "--uplink-mbit: expected one number above 0"),
        (([1], [-1], []), "--rtt-ms: expected one number from 0 up for every cut, or 2, one a cut, got -1"),
        (([1], [math.inf], []), "--rtt-ms: expected one number from 0 up"),
        (([1], [1], [1, 1, 1, 1]), "--slower: expected at most 3 numbers above 0, one a tier, got 1,1,1,1"),
        (([1], [1], [0]), "--slower: expected at most 3 numbers above 0"),
    ],
)
def test_figures_out_of_range_are_one_line(numbers: tuple, line: str) -> None:
    with pytest.raises(UsageError, match=line):
        Site.of(3, *numbers)
