from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from branchy.core.statistics import quantile, wilson
from branchy.reports.csv import Row, TierCells
from branchy.reports.summary import Latency, Summary, Tally, render

TIERS = ("edge", "fog", "cloud")


def row(tier=None, predicted=1, *, expected=1, reason="confident", latency_s=0.01, bytes_up=0) -> Row:
    if tier is None:
        return Row(0, expected, None, "r")
    if predicted is None:
        return Row(0, expected, latency_s, "r", {}, tier, reason, None, bytes_up)
    cells = {tier.capitalize(): TierCells(predicted)}
    return Row(0, expected, latency_s, "r", cells, tier, reason, 0.9, bytes_up)


def test_a_summary_counts_who_answered_why_and_how_right():
    summary = Summary.of(
        [
            row("edge", 1),
            row("edge", 2),
            row("edge", 1, reason="timeout"),
            row("cloud", 1, reason="final"),
            row("edge", None, reason="overload"),
            row("fog", None, reason="overload"),
            row("fog", None, reason="expired"),
            row(),
        ],
        TIERS,
    )
    assert (summary.samples, summary.answered, summary.unanswered) == (8, 4, 1)
    assert summary.refused == {"overload": 2, "expired": 1}
    assert summary.tiers == ("edge", "cloud")
    assert summary.shares == {("edge", "confident"): 2, ("edge", "timeout"): 1, ("cloud", "final"): 1}
    assert (summary.judged, summary.correct, summary.accuracy) == (4, 3, 0.75)


@pytest.mark.parametrize(("certified", "share"), [(1, "25.0 %"), (0, "0.0 %")])
def test_certified_answers_are_counted_apart_also_where_none_is(certified, share):
    """Of a certified bundle whose cloud is down none may be, which is what one wants to know."""
    some = [row("edge"), row("edge", reason="timeout"), row("edge"), row()]
    some = [replace(each, certified=number < certified) for number, each in enumerate(some)]
    summary = Summary.of(some, TIERS)
    assert (summary.answered, summary.certified) == (3, certified)
    text = render({"run": summary, "full": Summary.of([row("full")], ("full",))})
    assert cells(text)["certified"] == [share, "-"]


def test_of_bundles_without_a_certificate_there_is_nothing_to_say():
    summary = Summary.of([row("edge"), row()], TIERS)
    assert summary.certified is None
    assert "certified" not in render({"run": summary})


def test_answers_to_samples_of_unknown_class_are_not_judged():
    summary = Summary.of([row("edge", expected=None), row("edge", 0)], TIERS)
    assert (summary.answered, summary.judged, summary.accuracy) == (2, 1, 0.0)


def test_latency_is_that_of_the_answered_requests_in_all_and_by_tier():
    rows = [row("edge", latency_s=0.001 * i) for i in range(1, 101)]
    rows += [row("cloud", latency_s=1.0), row("cloud", None, reason="expired", latency_s=9.0), row()]
    summary = Summary.of(rows, TIERS)
    edge = [0.001 * i for i in range(1, 101)]
    assert summary.latency_of == {
        "edge": Latency(quantile(edge, 0.5), quantile(edge, 0.99)),
        "cloud": Latency(1.0, 1.0),
    }
    assert summary.latency == Latency(quantile([*edge, 1.0], 0.5), quantile([*edge, 1.0], 0.99))


def test_bytes_up_are_the_mean_over_the_requests_where_they_are_known():
    assert Summary.of([row("edge"), row("cloud", bytes_up=900), row()], TIERS).bytes_up == 450
    assert Summary.of([row()], TIERS).bytes_up is None


def test_tiers_come_in_the_order_of_the_cascade_and_unknown_ones_last():
    rows = [row("moon"), row("cloud"), row("edge")]
    assert Summary.of(rows, TIERS).tiers == ("edge", "cloud", "moon")
    assert Summary.of(rows, ["Edge", "Fog", "Cloud"]).tiers == ("edge", "cloud", "moon")  # a results file's titles


def test_nothing_at_all_is_a_summary_too():
    summary = Summary.of([], TIERS)
    assert (summary.samples, summary.accuracy, summary.latency, summary.bytes_up) == (0, None, None, None)
    assert "accuracy" in render({"nothing": summary})


@given(
    st.lists(
        st.builds(
            row,
            st.sampled_from([None, *TIERS]),
            st.sampled_from([None, 0, 1]),
            reason=st.sampled_from(["confident", "final", "timeout"]),
        )
    )
)
def test_every_request_is_answered_refused_or_unanswered(rows):
    summary = Summary.of(rows, TIERS)
    assert summary.samples == len(rows)
    assert summary.unanswered == sum(r.tier is None for r in rows)
    assert sum(summary.shares.values()) == summary.answered
    assert summary.answered + sum(summary.refused.values()) + summary.unanswered == len(rows)


def test_a_tally_can_be_read_at_any_moment():
    tally = Tally(TIERS)
    tally.add(row("edge"))
    assert tally.summary().answered == 1
    tally.add(row("cloud"))
    assert tally.summary().answered == 2


# --- the table -------------------------------------------------------------------------------------------------------


def cells(text: str) -> dict[str, list[str]]:
    """The table's lines by label; of two labels alike (reasons under tiers) the first."""
    out: dict[str, list[str]] = {}
    for line in text.splitlines()[2:]:
        label, *rest = [part.strip() for part in line.split("  ") if part.strip()]
        out.setdefault(label, rest)
    return out


def test_runs_stand_side_by_side_with_a_dash_where_one_has_nothing():
    cascade = Summary.of(
        [row("edge", latency_s=0.0015), row("edge", 2), row("fog", reason="final", bytes_up=4000), row()], TIERS
    )
    full = Summary.of([row("full", reason="final", latency_s=0.25, bytes_up=1234)] * 2, ("full",))
    text = render({"cascade": cascade, "full model only": full})
    table = cells(text)
    assert text.splitlines()[0].split() == ["cascade", "full", "model", "only"]
    assert table["samples"] == ["4", "2"]
    assert table["unanswered"] == ["1", "0"]
    assert table["accuracy"] == ["66.7 %", "100.0 %"]
    low, high = wilson(2, 3)
    assert table["95 % interval"][0] == f"{100 * low:.1f} to {100 * high:.1f} %"
    assert table["answered by edge"] == ["50.0 %", "-"]
    assert table["answered by fog"] == ["25.0 %", "-"]
    assert table["answered by full"] == ["-", "100.0 %"]
    assert table["latency p50"] == ["10.00 ms", "250.00 ms"]
    assert table["by full, p50 / p99"] == ["-", "250.00 ms / 250.00 ms"]
    assert table["bytes up a request"] == ["1,333", "1,234"]


def test_refusals_are_shown_by_reason():
    text = render({"run": Summary.of([row("edge", None, reason="overload")] * 2, TIERS)})
    assert cells(text)["refused"] == ["2 (overload 2)"]


@pytest.mark.parametrize("reason", ["confident", "timeout"])
def test_the_reasons_stand_under_their_tier(reason):
    text = render({"run": Summary.of([row("edge", reason=reason), row("cloud", reason="final")], TIERS)})
    labels = [line.split("  ")[0] or line.strip().split("  ")[0] for line in text.splitlines()]
    assert labels.index("answered by edge") + 1 == labels.index(reason)
    assert labels.index("answered by cloud") + 1 == labels.index("final")
