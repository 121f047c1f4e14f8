import contextlib
import string
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from branchy.core.messages import Answer, Hop
from branchy.errors import BranchyError, ReportError, UsageError
from branchy.reports.csv import CsvReport, Row, TierCells, read_csv

TIERS = ("edge", "fog", "cloud")
FULL_DISK = Path("/dev/full")
NOT_WRITTEN = "^cannot write results to /dev/full: No space left on device$"
needs_full_disk = pytest.mark.skipif(not FULL_DISK.exists(), reason=f"no {FULL_DISK} here")
ORIGINAL = (
    "Test;Expected_result;Prediction_Time;Edge_Prediction;Edge_Computation_Time;Edge_Prediction_Time;"
    "Fog_Prediction;Fog_Computation_Time;Fog_Prediction_Time;"
    "Cloud_Prediction;Cloud_Computation_Time;Cloud_Prediction_Time"
)


def fog_answer(**changes):
    edge = Hop("edge", "edge", 3, 0.4, queue_ms=0.1, compute_ms=0.25, total_ms=7.5, bytes_up=900)
    fog = Hop("fog", "fog", 5, 0.9, queue_ms=0.1, compute_ms=0.5, total_ms=2.0, bytes_up=0)
    fields = {"label": "five", "index": 5, "confidence": 0.9, "exit": "fog", "hops": (edge, fog)}
    return Answer(request="r-1", status="ok", reason="confident", tier="fog", model="m", **(fields | changes))


def written(path: Path, *rows: Row, tiers=TIERS) -> list[str]:
    with CsvReport(path, tiers) as report:
        for row in rows:
            report.write(row)
    return path.read_text().splitlines()


OWN = (
    ";Request_Id;Answering_Tier;Reason;Confidence;Bytes_Up;Certified;Edge_Exit;Edge_Confidence;Edge_Bytes_Up;"
    "Fog_Exit;Fog_Confidence;Fog_Bytes_Up;Cloud_Exit;Cloud_Confidence;Cloud_Bytes_Up"
)


def test_the_first_twelve_columns_are_the_originals_and_branchys_own_follow(tmp_path):
    header, _ = written(tmp_path / "r.csv", Row(0, None, None, "r"))
    assert header == ORIGINAL + OWN


def test_other_tiers_have_their_own_names_in_place(tmp_path):
    header, _ = written(tmp_path / "r.csv", Row(0, None, None, "r"), tiers=("camera", "full"))
    assert header.split(";")[3:9] == [
        *("Camera_Prediction", "Camera_Computation_Time", "Camera_Prediction_Time"),
        *("Full_Prediction", "Full_Computation_Time", "Full_Prediction_Time"),
    ]


def test_a_row_has_times_in_seconds_and_leaves_empty_what_no_tier_did(tmp_path):
    row = Row.from_answer(7, 5, 0.0125, fog_answer(), "r-1")
    assert written(tmp_path / "r.csv", row)[1] == (
        "7;5;0.012500;3;0.000250;0.007500;5;0.000500;0.002000;;;;r-1;fog;confident;0.900000;900;;"
        "edge;0.4;900;fog;0.9;0;;;"
    )


@pytest.mark.parametrize(
    ("answer", "has_certificate", "certified", "cell"),
    [
        (fog_answer(certified=True), True, True, "1"),
        (fog_answer(certified=False), True, False, "0"),
        (None, True, False, "0"),
        (fog_answer(certified=False), False, None, ""),
        (None, False, None, ""),
    ],
)
def test_a_row_says_whether_its_answer_is_certified_where_something_was_promised(
    tmp_path, answer, has_certificate, certified, cell
):
    row = Row.from_answer(7, 5, 0.0125, answer, "r-1", has_certificate=has_certificate)
    header, line = written(tmp_path / "r.csv", row)
    assert line.split(";")[header.split(";").index("Certified")] == cell
    assert read_csv(tmp_path / "r.csv").rows[0].certified is certified


def test_an_unanswered_request_has_no_predictions_no_reason_and_no_time(tmp_path):
    row = Row.from_answer(7, 5, 1.5, None, "r-1")
    assert written(tmp_path / "r.csv", row)[1] == "7;5;;;;;;;;;;;r-1;;;;;" + ";" * 9


def test_a_refused_request_has_a_reason_but_no_answer():
    refused = Answer(request="r-1", status="rejected", reason="overload", tier="edge", model="m")
    row = Row.from_answer(7, 5, 0.01, refused, "r-1")
    assert (row.tier, row.reason, row.predicted) == ("edge", "overload", None)


def test_the_answer_counts_as_its_tiers_prediction_even_without_a_hop():
    assert Row.from_answer(0, 5, 0.01, fog_answer(hops=()), "r").predicted == 5


def test_the_requesters_own_uplink_is_added_to_what_the_tiers_sent_up():
    assert Row.from_answer(0, 5, 0.01, fog_answer(), "r", uplink_bytes=100).bytes_up == 1000


whole = st.integers(0, 10**9)
seconds = st.integers(0, 10**10).map(lambda us: us / 1e6)
requests = st.text(string.printable.replace("\r", ""), min_size=1)
shares = st.floats(0, 1)
cells = st.builds(TierCells, whole, seconds, seconds, st.none() | requests, st.none() | shares, st.none() | whole)


@st.composite
def rows(draw):
    tiers = {name: draw(cells) for name in draw(st.sets(st.sampled_from(["Edge", "Fog", "Cloud"])))}
    start = Row(draw(whole), draw(st.none() | whole), None, draw(requests), tiers)
    if not tiers:
        return start
    tier = draw(st.sampled_from(sorted(tiers))).lower()
    reason = draw(st.sampled_from(["confident", "final", "timeout"]))
    certified = draw(st.sampled_from([None, False, True]))
    rest = (tier, reason, 0.5, draw(whole), certified)
    return Row(start.test, start.expected, draw(seconds), start.request, tiers, *rest)


@given(st.lists(rows(), min_size=1, max_size=5))
def test_what_is_written_is_read_back(tmp_path_factory, some):
    path = tmp_path_factory.mktemp("csv") / "r.csv"
    written(path, *some)
    results = read_csv(path)
    assert results.titles == ("Edge", "Fog", "Cloud")
    assert list(results.rows) == some


def test_each_row_is_on_disk_when_write_returns(tmp_path):
    path = tmp_path / "r.csv"
    report = CsvReport(path, TIERS)
    report.write(Row(0, 1, None, "a"))
    report.write(Row(1, 1, None, "b"))
    assert [row.request for row in read_csv(path).rows] == ["a", "b"]
    report.close()


def test_the_rows_before_an_error_stay(tmp_path):
    path = tmp_path / "r.csv"
    with contextlib.suppress(KeyboardInterrupt), CsvReport(path, TIERS) as report:
        report.write(Row(0, 1, None, "a"))
        raise KeyboardInterrupt
    assert [row.request for row in read_csv(path).rows] == ["a"]


@pytest.mark.parametrize("name", ["missing/r.csv", "."])
def test_a_path_that_cannot_be_written_is_found_out_at_once(tmp_path, name):
    with pytest.raises(UsageError, match=r"cannot write results to .*; name another file"):
        CsvReport(tmp_path / name, TIERS)


def test_without_rows_an_old_file_is_kept_and_a_new_one_is_not_left(tmp_path):
    old, new = tmp_path / "old.csv", tmp_path / "new.csv"
    before = written(old, Row(0, 1, None, "a"))
    for path in (old, new):
        CsvReport(path, TIERS).close()
    assert old.read_text().splitlines() == before
    assert not new.exists()


def test_the_first_row_replaces_what_was_there(tmp_path):
    path = tmp_path / "r.csv"
    written(path, Row(0, 1, None, "a"), Row(1, 1, None, "b"))
    written(path, Row(2, 1, None, "c"))
    assert [row.request for row in read_csv(path).rows] == ["c"]


def test_a_device_file_can_be_written():
    with CsvReport(Path("/dev/null"), TIERS) as report:
        report.write(Row(0, 1, None, "a"))


@needs_full_disk
def test_a_full_disk_is_a_failure_in_one_line():
    with pytest.raises(BranchyError, match=NOT_WRITTEN), CsvReport(FULL_DISK, TIERS) as report:
        report.write(Row(0, 1, None, "a"))


@pytest.fixture
def unwritten():
    """A report whose buffer holds a row that the disk had no room for."""
    report = CsvReport(FULL_DISK, TIERS)
    with pytest.raises(BranchyError, match=NOT_WRITTEN):
        report.write(Row(0, 1, None, "a"))
    return report


@needs_full_disk
def test_a_row_that_could_not_be_written_is_told_of_again_when_the_file_is_closed(unwritten):
    with pytest.raises(BranchyError, match=NOT_WRITTEN):
        unwritten.close()


@needs_full_disk
def test_an_error_under_way_is_not_replaced_by_one_of_closing_the_file(unwritten):
    with pytest.raises(KeyboardInterrupt), unwritten:
        raise KeyboardInterrupt


def test_tiers_that_would_share_columns_are_refused(tmp_path):
    with pytest.raises(UsageError, match="first letter"):
        CsvReport(tmp_path / "r.csv", ("edge", "Edge"))


def test_a_tiers_confidence_is_kept_to_the_last_bit(tmp_path):
    edge = Hop("edge", "edge", 3, 0.1 + 0.2, queue_ms=0.1, compute_ms=0.25, total_ms=7.5, bytes_up=900)
    written(tmp_path / "r.csv", Row.from_answer(0, 5, 0.01, fog_answer(hops=(edge,)), "r"))
    assert read_csv(tmp_path / "r.csv").rows[0].tiers["Edge"].confidence == 0.1 + 0.2


GOOD = ORIGINAL + OWN + "\n"
LINE = "0;5;0.01;5;0.001;0.002;;;;;;;r;edge;confident;0.9;0;1;edge;0.9;0;;;;;;\n"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "line 1: expected a header line"),
        (GOOD.replace(";", ","), "line 1: expected columns with ';' between, got 'Test,Expected"),
        (GOOD.replace("Fog_Computation", "Fog_Compute"), "expected column 8 to be Fog_Computation_Time, got 'Fog_Comp"),
        (ORIGINAL + "\n", "line 1: expected"),
        (ORIGINAL + OWN[: OWN.index(";Edge_Exit")] + "\n", "a file of an older branchy has to be recorded again"),
        (GOOD.strip() + ";Extra\n", "line 1: expected"),
        (GOOD.replace("Fog", "Edge"), "line 1: expected Test"),
        (GOOD + "0;5\n", "line 2: expected 27 columns, got 2"),
        (
            GOOD + LINE + LINE.replace("0.01", "fast"),
            "line 3, Prediction_Time: expected a number from 0 up, got 'fast'",
        ),
        (GOOD + LINE.replace("0.01", "nan"), "line 2, Prediction_Time: expected a number from 0 up, got 'nan'"),
        (GOOD + LINE.replace("0.01", "-1"), "line 2, Prediction_Time: expected a number from 0 up, got '-1'"),
        (GOOD + LINE.replace("0;5;", "0;5.0;"), "line 2, Expected_result: expected a whole number from 0 up"),
        (GOOD + LINE.replace("0;5;", ";5;"), "line 2, Test: expected a whole number from 0 up, got 'nothing'"),
        (GOOD + LINE.replace(";r;", ";;"), "line 2, Request_Id: expected a word, got 'nothing'"),
        (GOOD + LINE.replace("confident", "sure"), "line 2, Reason: expected one of confident, final"),
        (GOOD + LINE.replace("confident", ""), "line 2, Reason: expected one where Answering_Tier has one"),
        (GOOD + LINE.replace("edge", "moon"), "line 2, Answering_Tier: expected a tier that predicted"),
        (GOOD + LINE.replace("0;1;", "0;yes;"), "line 2, Certified: expected 1, 0 or nothing, got 'yes'"),
        (GOOD + '0;"5;', "expected a results file of branchy"),
    ],
)
def test_a_file_that_is_not_a_results_file_is_refused_by_file_line_and_column(tmp_path, text, message):
    path = tmp_path / "r.csv"
    path.write_text(text)
    with pytest.raises(ReportError) as caught:
        read_csv(path)
    assert message in str(caught.value)
    assert str(path) in str(caught.value)


def test_a_file_saved_by_a_spreadsheet_with_a_byte_order_mark_is_read(tmp_path):
    path = tmp_path / "r.csv"
    path.write_text("\ufeff" + GOOD + LINE, encoding="utf-8")
    assert read_csv(path).rows[0].predicted == 5


def test_bytes_that_are_no_text_are_refused(tmp_path):
    path = tmp_path / "r.csv"
    path.write_bytes(b"\xff\xfe\x00PNG")
    with pytest.raises(ReportError, match="expected a results file of branchy"):
        read_csv(path)


def test_a_missing_file_is_wrong_use(tmp_path):
    with pytest.raises(UsageError, match=r"cannot read results from .*No such file"):
        read_csv(tmp_path / "none.csv")
