import pandas as pd

from branchy.core.statistics import quantile, wilson
from branchy.reports.csv import Results, Row, TierCells, read_csv
from branchy.reports.tables import by_exit, by_tier_and_reason, exits_frame, overview, requests_frame, tier_names


def test_requests_are_a_frame_with_what_is_not_known_missing(runs):
    frame = requests_frame(runs)
    assert list(frame["run"]) == ["cascade"] * 6 + ["full-only"] * 2
    cascade = frame[frame["run"] == "cascade"]
    assert cascade["correct"].to_list() == [True, False, True, True, pd.NA, pd.NA]
    assert cascade["tier"].to_list()[:5] == ["edge", "edge", "cloud", "edge", "edge"]
    assert cascade["tier"].isna().to_list() == [False] * 5 + [True]
    assert cascade["latency_s"].dropna().to_list() == [0.002, 0.004, 0.02, 1.0, 0.01]
    assert cascade["bytes_up"].dropna().to_list() == [0, 0, 900, 900, 0]


def test_exits_are_judged_on_all_that_reached_them(runs):
    frame = exits_frame(runs)
    edge = frame[frame["tier"] == "edge"]
    assert edge["test"].to_list() == [0, 1, 2, 3]
    assert edge["correct"].to_list() == [True, False, False, True]
    assert frame[frame["tier"] == "cloud"]["prediction_s"].to_list() == [0.004]


def test_tiers_are_in_the_order_of_the_cascade_and_spelled_as_they_answered(runs):
    assert tier_names(runs) == {"Edge": "edge", "Cloud": "cloud", "Full": "full"}
    assert list(requests_frame(runs)["tier"].cat.categories) == ["edge", "cloud", "full"]
    capital = Row(0, 1, 0.1, "r", {"Cam": TierCells(1)}, "Cam", "final", 0.9, 0)
    results = Results(next(iter(runs.values())).path, ("Cam", "Silent"), (capital,))
    assert tier_names({"run": results}) == {"Cam": "Cam", "Silent": "silent"}


def test_who_answered_and_why_is_a_line_each_with_refusals_and_silence_apart(runs):
    table = by_tier_and_reason(requests_frame(runs))
    lines = {row[:3]: dict(zip(table.header[3:], row[3:], strict=True)) for row in table.rows}
    assert list(lines) == [
        ("cascade", "edge", "confident"),
        ("cascade", "edge", "timeout"),
        ("cascade", "edge", "refused: overload"),
        ("cascade", "cloud", "final"),
        ("cascade", "-", "unanswered"),
        ("full-only", "full", "final"),
    ]
    low, high = wilson(1, 2)
    assert lines["cascade", "edge", "confident"] == {
        "requests": "2",
        "share": "33.3 %",
        "right": "50.0 %",
        "95 % interval": f"{100 * low:.1f} to {100 * high:.1f} %",
        "p50": f"{quantile([2.0, 4.0], 0.5):.2f} ms",
        "p99": f"{quantile([2.0, 4.0], 0.99):.2f} ms",
        "bytes up": "0",
    }
    assert lines["cascade", "edge", "refused: overload"]["right"] == "-"
    assert set(lines["cascade", "-", "unanswered"].values()) == {"1", "16.7 %", "-"}


def test_answers_and_refusals_of_one_reason_are_told_apart(tmp_path):
    rows = (
        Row(0, 1, 0.1, "a", {"Edge": TierCells(1)}, "edge", "overload", 0.5, 0),
        Row(1, 1, 0.1, "b", {}, "edge", "overload", None, 0),
    )
    table = by_tier_and_reason(requests_frame({"run": Results(tmp_path, ("Edge",), rows)}))
    assert [row[2:4] for row in table.rows] == [("overload", "1"), ("refused: overload", "1")]


def test_each_exit_has_its_accuracy_and_times(runs):
    table = by_exit(exits_frame(runs))
    lines = {row[:2]: row[2:] for row in table.rows}
    assert list(lines) == [("cascade", "edge"), ("cascade", "cloud"), ("full-only", "full")]
    reached, right, _, computing, _, inside, inside_p99 = lines["cascade", "edge"]
    assert (reached, right, computing) == ("4", "50.0 %", "0.20 ms")
    times_ms = [1.0, 1.0, 18.0, 950.0]
    assert [inside, inside_p99] == [f"{quantile(times_ms, q):.2f} ms" for q in (0.5, 0.99)]


def test_the_overview_has_a_column_a_run(runs):
    table = overview(runs)
    assert table.header == ("", "cascade", "full-only")
    assert ("samples", "6", "2") in table.rows
    assert ("refused", "1 (overload 1)", "0") in table.rows


def test_a_run_that_nobody_answered_has_tables_too(unanswered_csv):
    runs = {"lost": read_csv(unanswered_csv)}
    assert [row[2:5] for row in by_tier_and_reason(requests_frame(runs)).rows] == [("unanswered", "2", "100.0 %")]
    assert by_exit(exits_frame(runs)).rows == ()
