import base64
import importlib.util

import pytest

from branchy.errors import MissingExtraError, ReportError, UsageError
from branchy.reports import report as report_module
from branchy.reports.report import name_runs, report


def test_a_report_is_tables_plots_and_a_page_that_holds_them(cascade_csv, full_csv, tmp_path):
    made = report([cascade_csv, full_csv], tmp_path / "out" / "deep")
    assert [path.name for path in made.files] == ["report.html", "answers.png", "latency.png", "accuracy.png"]
    html = made.files[0].read_text()
    for path in made.files[1:]:
        assert path.read_bytes().startswith(b"\x89PNG")
        assert base64.b64encode(path.read_bytes()).decode() in html
    for word in ("cascade", "full-only", "refused: overload", str(cascade_csv), "By exit"):
        assert word in html
    text = made.text()
    assert "By answering tier and reason" in text
    assert "refused: overload" in text


def test_without_a_directory_nothing_is_written(cascade_csv, tmp_path):
    before = sorted(tmp_path.rglob("*"))
    assert report([cascade_csv], None).files == ()
    assert sorted(tmp_path.rglob("*")) == before


def test_an_older_report_is_replaced_and_nothing_else_is_left(cascade_csv, tmp_path):
    out = tmp_path / "out"
    report([cascade_csv], out)
    (out / "report.html").write_text("old")
    report([cascade_csv], out)
    assert (out / "report.html").read_text() != "old"
    assert len(list(out.iterdir())) == 4


def test_a_directory_that_cannot_be_written_is_found_out(cascade_csv, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UsageError, match=r"cannot write a report to .*file.*; name another directory"):
        report([cascade_csv], tmp_path / "file")


def test_a_file_that_is_not_one_of_results_leaves_no_directory(cascade_csv, tmp_path):
    bad = tmp_path / "bad.csv"
    bad.write_text("a,b\n1,2\n")
    with pytest.raises(ReportError, match=r"bad\.csv line 1"):
        report([cascade_csv, bad], tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_runs_are_named_after_their_files(tmp_path):
    a, b, c = tmp_path / "a" / "r.csv", tmp_path / "b" / "r.csv", tmp_path / "other.csv"
    assert name_runs([a, b, c]) == {str(a): a, str(b): b, "other": c}


@pytest.mark.parametrize(("paths", "message"), [([], "at least one"), (["a.csv", "a.csv"], "each results file once")])
def test_no_file_or_one_twice_is_wrong_use(paths, message):
    with pytest.raises(UsageError, match=message):
        name_runs(paths)


@pytest.mark.parametrize("missing", ["pandas", "matplotlib"])
def test_a_missing_library_names_the_install_line(cascade_csv, tmp_path, monkeypatch, missing):
    there = importlib.util.find_spec
    monkeypatch.setattr(report_module, "find_spec", lambda name: None if name == missing else there(name))
    with pytest.raises(MissingExtraError, match=r"branchy report needs .* pip install 'branchy\[train\]'"):
        report([cascade_csv], tmp_path / "out")
    assert not (tmp_path / "out").exists()
