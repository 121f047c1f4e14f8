"""The demo as a user runs it, from a bundle that is trained already; and interrupted."""

import contextlib
import os
import random
import signal
import subprocess
import sys
import uuid
from pathlib import Path

import psutil
import pytest

from branchy.errors import UsageError
from branchy.reports.csv import read_csv
from branchy.runner import demo
from branchy.runner.demo import DemoSettings
from branchy.runner.outage import is_in_vain

pytestmark = pytest.mark.alone

MARK = "BRANCHY_TEST_MARK"
_random = random.Random(20211103)
MOMENTS_S = sorted(_random.uniform(0.2, 10.0) for _ in range(9))
"""From the start of a demo whose bundle is given; it takes about ten seconds."""

EPOCH = _random.randint(1, 4)


def start(folder: Path, *arguments: object) -> tuple[subprocess.Popen[str], str]:
    """Start `branchy demo`; all its descendants carry the mark in their environment."""
    mark = str(uuid.uuid4())
    command = [sys.executable, "-m", "branchy", "demo", *map(str, arguments)]
    environment = {**os.environ, MARK: mark}
    pipe = subprocess.PIPE
    return subprocess.Popen(command, cwd=folder, env=environment, stdout=pipe, stderr=pipe, text=True), mark


def marked(mark: str) -> list[psutil.Process]:
    """All living processes with the mark, whoever their parents are now."""
    found = []
    for process in psutil.process_iter():
        try:
            if process.environ().get(MARK) == mark and process.status() != psutil.STATUS_ZOMBIE:
                found.append(process)
        except psutil.Error:
            continue
    return found


def test_the_mark_is_seen_on_descendants_too(tmp_path):
    mark = str(uuid.uuid4())
    with subprocess.Popen(["/bin/sh", "-c", "sleep 600 & wait"], env={**os.environ, MARK: mark}) as shell:
        while len(marked(mark)) < 2:
            assert shell.poll() is None
        for process in marked(mark):
            process.kill()


@pytest.fixture(scope="module")
def finished(digits_bundle, tmp_path_factory):
    """A demo from its start to its end."""
    folder = tmp_path_factory.mktemp("demo")
    process, mark = start(folder, "--bundle", digits_bundle.path, "--samples", 150)
    output, errors = process.communicate(timeout=200)
    return folder, process.returncode, output, errors, mark


def test_it_ends_well_and_leaves_no_process(finished):
    _, code, _, errors, mark = finished
    assert code == 0, errors
    assert marked(mark) == []


def test_every_id_sent_was_answered_in_every_pass(finished):
    folder, _, output, _, _ = finished
    for name, file in (("cascade", "results"), ("full model", "results-full"), ("second pass", "results-outage")):
        rows = read_csv(folder / f"{file}.csv").rows
        assert len({row.request for row in rows}) == len(rows)
        assert all(row.tier for row in rows)
        assert f"{name}: {len(rows):,} ids sent, the same {len(rows):,} answered." in output


def test_it_prints_the_table_and_says_what_bytes_cannot_show(finished):
    output = finished[2]
    for words in ("full model only", "95 % interval", "latency p99", "answered by cloud", "bytes up a request"):
        assert words in output
    assert "cannot show that bytes are saved" in output


def test_long_steps_have_a_progress_bar(finished):
    errors = finished[3]
    for bar in ("tiers ready", "asking edge", "asking full", "asking edge again"):
        assert f"{bar}: 100%" in errors


def test_the_cloud_dies_is_missed_by_a_hundred_and_answers_again(finished):
    folder, _, output, _, _ = finished
    rows = read_csv(folder / "results-outage.csv").rows
    vain = [i for i, row in enumerate(rows) if is_in_vain(row)]
    assert len(vain) >= 100
    assert {rows[i].tier for i in vain} <= {"edge", "fog"}
    assert {rows[i].reason for i in vain} <= {"timeout", "unreachable"}
    final = [i for i, row in enumerate(rows) if (row.tier, row.reason) == ("cloud", "final")]
    assert min(final) < vain[0]
    assert sum(i > vain[99] for i in final) >= 10
    assert "cloud answers again" in output


def interrupt(process, mark):
    """Send SIGINT and wait for the end; returns exit code and what was said."""
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=60)
    left = marked(mark)
    for survivor in left:
        survivor.kill()
    assert left == []
    assert "Traceback" not in errors
    return process.returncode, errors


@pytest.mark.parametrize("moment_s", MOMENTS_S, ids="{:.2f}".format)
def test_ctrl_c_at_any_moment_leaves_no_process(digits_bundle, tmp_path, moment_s):
    process, mark = start(tmp_path, "--bundle", digits_bundle.path, "--samples", 150)
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(moment_s)  # nearly always a time-out: this is the moment
    code, errors = interrupt(process, mark)
    assert code in (0, 130), errors


def test_ctrl_c_while_training_leaves_no_process_and_no_half_a_bundle(tmp_path):
    process, mark = start(tmp_path, "--epochs", 500)
    while f"epoch {EPOCH} of" not in (line := process.stderr.readline()):
        assert line, "the training ended before the moment"
    code, errors = interrupt(process, mark)
    assert code == 130, errors
    left = [path.name for path in (tmp_path / "runs" / "demo").iterdir()]
    assert all(name.endswith(".checkpoint") for name in left), left


def test_a_results_file_that_cannot_be_written_is_found_out_before_the_work(tmp_path, monkeypatch):
    monkeypatch.setattr(demo, "start_embedded", pytest.fail)
    with pytest.raises(UsageError, match="cannot write results"):
        demo.run(DemoSettings(csv=tmp_path / "nowhere" / "r.csv", folder=tmp_path), print)


def test_a_folder_that_cannot_be_written_is_found_out_before_the_work(tmp_path, monkeypatch):
    monkeypatch.setattr(demo, "start_embedded", pytest.fail)
    (tmp_path / "file").touch()
    with pytest.raises(UsageError, match=r"cannot write logs to .*file/logs: Not a directory; name another"):
        demo.run(DemoSettings(csv=tmp_path / "r.csv", folder=tmp_path / "file" / "logs"), print)
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_a_dataset_that_does_not_fit_the_bundle_is_found_out_before_the_work(tmp_path, monkeypatch, toy_bundle):
    monkeypatch.setattr(demo, "start_embedded", pytest.fail)
    with pytest.raises(UsageError, match="digits"):
        demo.run(DemoSettings("digits", bundle=toy_bundle.path, csv=tmp_path / "r.csv", folder=tmp_path), print)
    assert list(tmp_path.iterdir()) == []


def test_with_a_bundle_and_no_dataset_it_takes_what_the_bundle_was_trained_on(tmp_path, monkeypatch):
    shipped = Path(__file__).parents[2] / "saved_models" / "fashion-mnist-b-lenet"
    monkeypatch.chdir(tmp_path)
    with pytest.raises(
        UsageError, match=r"no data/fashion-mnist.npz; .* this line fetches it: mkdir -p data && python"
    ):
        demo.run(DemoSettings(bundle=shipped), print)
    assert list(tmp_path.iterdir()) == []


def test_a_bundle_whose_dataset_has_no_name_asks_for_it(tmp_path, monkeypatch, toy_bundle):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(
        UsageError, match=r"was trained on 'toy', which is none of digits, .*: say where it is, as branchy"
    ):
        demo.run(DemoSettings(bundle=toy_bundle.path), print)
