from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from exit_pool import exit_pool
from hypothesis import given, settings
from hypothesis import strategies as st

from branchy.core.tuning import ExitOutputs
from branchy.errors import UsageError
from branchy.reports.csv import Results, Row, TierCells
from branchy.reports.replay import Replay, replay

N = 80
POOL = exit_pool(N, (1.2, 1.8, 2.6))
TITLES = ("Exit0", "Exit1", "Exit2")
CUT_BYTES = (500, 90, 0)


def record(pool: ExitOutputs, thresholds: tuple[float, float], slow: frozenset[int] = frozenset()) -> Results:
    """What the tiers would record of a pool; the first tier's front is too slow for the samples in `slow`."""
    leaving, rows = pool.leaving((*thresholds, 0.0)), []
    for i, left in enumerate(leaving.tolist()):
        reason = "timeout" if left and i in slow else "final" if left == 2 else "confident"
        until = 0 if reason == "timeout" else left
        cells = {
            TITLES[k]: TierCells(
                int(pool.predictions[k, i]), 0.001, 0.002, pool.names[k], float(pool.scores[k, i]),
                CUT_BYTES[k] if k < until or reason == "timeout" else 0,
            )
            for k in range(until + 1)
        }  # fmt: skip
        sent = sum(cell.bytes_up or 0 for cell in cells.values())
        confidence = cells[TITLES[until]].confidence
        rows.append(Row(i, int(pool.labels[i]), 0.01, f"r{i}", cells, pool.names[until], reason, confidence, sent))
    return Results(Path("r.csv"), TITLES, tuple(rows))


def both(low: float, high: float) -> dict[str, float]:
    return {"exit0": low, "exit1": high}


thresholds = st.tuples(*[st.sampled_from([*POOL.scores[k], 0.0, 1.0]) for k in (0, 1)])
slow = st.frozensets(st.integers(0, N - 1), max_size=20)


@given(thresholds, slow)
@settings(deadline=None, max_examples=30)
def test_the_recorded_thresholds_give_back_exactly_what_happened(at: tuple[float, float], late: frozenset[int]) -> None:
    results = record(POOL, at, late)
    made = replay(results, both(*at))
    assert made.unknown == 0
    for row, outcome in zip(results.rows, made.replayed, strict=True):
        assert (outcome.exit, outcome.predicted, outcome.reason) == (row.tier, row.predicted, row.reason)
        assert outcome.bytes_up == row.bytes_up


@given(thresholds, thresholds)
@settings(deadline=None, max_examples=30)
def test_what_is_known_is_what_those_thresholds_do_and_the_truth_is_within_the_bounds(
    recorded: tuple[float, float], other: tuple[float, float]
) -> None:
    made, truth = replay(record(POOL, recorded), both(*other)), record(POOL, other)
    for outcome, row in zip(made.replayed, truth.rows, strict=True):
        if outcome.exit is None:
            assert outcome.bytes_up <= (row.bytes_up or 0)
        else:
            assert (outcome.exit, outcome.predicted, outcome.bytes_up) == (row.tier, row.predicted, row.bytes_up)
    surely, at_most, n = made.right(made.replayed)
    assert surely <= sum(row.predicted == row.expected for row in truth.rows) <= at_most <= n
    for name in made.exits:
        low, high = made.left(name)
        assert low <= sum(row.tier == name for row in truth.rows) <= high
    if all(new <= old for new, old in zip(other, recorded, strict=True)):
        assert made.unknown == 0


def test_a_request_that_left_and_would_not_is_unknown_not_guessed() -> None:
    made = replay(record(POOL, (0.5, 0.5)), both(1.0, 0.5))
    left_first = sum(outcome.exit == "exit0" for outcome in made.recorded)
    assert made.unknown == left_first > 0
    assert made.left("exit0") == (0, left_first)  # a front that is too slow would leave them to the edge
    assert made.left("exit1")[1] - made.left("exit1")[0] == left_first
    assert f"not known: {left_first} requests left at an exit" in made.text()
    assert "at least" in made.text()


def test_recorded_at_threshold_one_every_threshold_is_known() -> None:
    text = replay(record(POOL, (1.1, 1.1)), 0.7).text()
    assert "not known:" not in text
    assert text.splitlines()[0] == "r.csv: 80 answered requests, replayed with exit0 >= 0.7, exit1 >= 0.7"


def test_an_exit_that_nobody_came_to_may_be_named() -> None:
    made = replay(record(POOL, (0.0, 0.5)), both(0.0, 0.9))
    assert made.replayed == made.recorded
    assert made.exits == ("exit0", "exit1", "exit2")


def test_an_exit_that_is_not_named_decides_as_it_did() -> None:
    made = replay(record(POOL, (0.9, 0.6)), {"exit0": 0.0})
    assert {outcome.exit for outcome in made.replayed} == {"exit0"}
    kept = replay(record(POOL, (0.9, 0.6)), {"exit1": 0.6})
    assert kept.replayed == kept.recorded


def test_a_sample_that_timed_out_leaves_early_where_it_is_sure_enough() -> None:
    late = frozenset(range(N))
    made = replay(record(POOL, (1.1, 1.1), late), {"exit0": 0.0})
    assert {(o.exit, o.reason, o.bytes_up) for o in made.replayed} == {("exit0", "confident", 0)}
    assert {o.reason for o in made.recorded} == {"timeout"}


def test_requests_without_an_answer_are_left_out_and_said() -> None:
    results = record(POOL, (0.9, 0.9))
    made = replay(replace(results, rows=(*results.rows, Row(0, 1, None, "lost"))), 0.5)
    assert len(made.rows) == N
    assert "left out: 1 requests without an answer" in made.text()


def test_another_policy_than_the_largest_probability_is_noticed() -> None:
    results = record(POOL, (0.9, 0.9))
    assert "another policy" not in replay(results, 0.5).text()
    first = next(i for i, row in enumerate(results.rows) if row.reason == "confident" and row.tier == "exit0")
    row = results.rows[first]
    cells = replace(row.tiers["Exit0"], confidence=0.2)
    odd = replace(
        results, rows=(*results.rows[:first], replace(row, tiers={"Exit0": cells}), *results.rows[first + 1 :])
    )
    assert "exit0 answered at a confidence of 0.2000 and sent on at 0.8" in replay(odd, 0.5).text()


def test_without_true_classes_nothing_is_said_of_what_is_right() -> None:
    results = record(POOL, (0.9, 0.9))
    made: Replay = replay(replace(results, rows=tuple(replace(row, expected=None) for row in results.rows)), 0.5)
    assert made.right(made.replayed) == (0, 0, 0)
    assert made.text().splitlines()[4].split() == ["right", "-", "-", "-", "-"]


def _changed(results: Results, **changes: object) -> Results:
    """With one row's first tier changed."""
    first = results.rows[0]
    cells = {**first.tiers, "Exit0": replace(first.tiers["Exit0"], **changes)}
    return replace(results, rows=(replace(first, tiers=cells), *results.rows[1:]))


@pytest.mark.parametrize(
    ("make", "asked", "line"),
    [
        (lambda r: r, {"exit2": 0.5}, "threshold of exit2: expected an exit that sends on, exit0, exit1"),
        (lambda r: r, {"fog": 0.5}, "threshold of fog: expected an exit that sends on, exit0, exit1"),
        (lambda r: r, 1.5, "threshold of exit0 must be in 0..1, a probability, got 1.5"),
        (lambda r: _changed(r, exit="hall"), 0.5, r"tier Exit0 ran several exits \(hall, exit0\)"),
        (lambda r: _changed(r, confidence=None), 0.5, "r.csv: request r0 has no exit or no confidence of Exit0"),
        (lambda r: replace(r, rows=(Row(0, 1, None, "a"),)), 0.5, "expected answered requests, got none among 1"),
        (
            lambda r: Results(
                r.path,
                ("Full",),
                (Row(0, 1, 0.1, "a", {"Full": TierCells(1, 0.1, 0.1, "full", 0.9, 0)}, "full", "final", 0.9, 9),),
            ),
            0.5,
            "nothing to replay: its only exit, full, always answers",
        ),
    ],
)
def test_what_cannot_be_replayed_is_one_line(make, asked, line) -> None:
    with pytest.raises(UsageError, match=line):
        replay(make(record(POOL, (0.9, 0.9))), asked)
