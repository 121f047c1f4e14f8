import subprocess
import sys

import pytest

from branchy.cli import main as cli
from branchy.reports.csv import CsvReport, Row, TierCells


@pytest.fixture
def branchy(monkeypatch, capfd, tmp_path):
    """Run `branchy report` in a directory with `r.csv`; returns exit code, standard output and error."""
    monkeypatch.chdir(tmp_path)
    with CsvReport(tmp_path / "r.csv", ("edge",)) as report:
        report.write(Row(0, 1, 0.01, "a", {"Edge": TierCells(1, 0.001, 0.002)}, "edge", "final", 0.9, 0))

    def run(*args: str):
        monkeypatch.setattr(sys, "argv", ["branchy", "report", *args])
        try:
            cli.main()
            code = 0
        except SystemExit as stop:
            code = stop.code
        return code, *capfd.readouterr()

    return run


def test_tables_are_printed_and_the_page_is_written(branchy, tmp_path):
    code, out, _ = branchy("r.csv", "--out", "made")
    assert code == 0
    assert "By answering tier and reason" in out
    assert out.endswith("written: made/report.html, made/answers.png, made/latency.png, made/accuracy.png\n")
    assert (tmp_path / "made" / "report.html").stat().st_size > 10_000


def test_tables_alone_write_nothing(branchy, tmp_path):
    code, out, _ = branchy("r.csv", "--table-only")
    assert code == 0
    assert "written" not in out
    assert [path.name for path in tmp_path.iterdir()] == ["r.csv"]


def test_a_wrong_value_is_one_line_with_file_and_line(branchy, tmp_path):
    path = tmp_path / "r.csv"
    path.write_text(path.read_text().replace("0.010000", "fast"))
    code, out, err = branchy("r.csv")
    assert (code, out) == (1, "")
    assert err == "branchy: r.csv line 2, Prediction_Time: expected a number from 0 up, got 'fast'\n"
    assert not (tmp_path / "runs").exists()


def test_a_missing_file_is_wrong_use(branchy):
    code, _, err = branchy("none.csv")
    assert code == 2
    assert err == "branchy: cannot read results from none.csv: No such file or directory\n"


def test_no_file_is_wrong_use(branchy):
    assert branchy()[0] == 2


def test_help_loads_no_pandas():
    script = (
        "import sys; sys.argv = ['branchy', 'report', '--help']\n"
        "from branchy.cli.main import main\n"
        "try: main()\n"
        "except SystemExit: pass\n"
        "assert not {'pandas', 'matplotlib', 'numpy'} & set(sys.modules)\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
