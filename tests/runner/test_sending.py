import re
import signal
import threading

import numpy as np
import pytest
from fake_tier import LABELS, FakeTier, good_answer, settings, toy_bundle

from branchy.errors import (
    BranchyError,
    BrokerUnavailableError,
    DatasetUsageError,
    NoAnswerError,
    OutputError,
    UsageError,
)
from branchy.reports.csv import read_csv
from branchy.runner.sending import send_dataset
from branchy.transport.memory import MemoryBroker

UNLABELLED = {"label": None, "index": None, "confidence": None}


@pytest.fixture(scope="module")
def bundle(tmp_path_factory):
    return toy_bundle(tmp_path_factory.mktemp("bundle") / "toy")


@pytest.fixture
def broker():
    return MemoryBroker()


def write_dataset(path, **changes):
    """Six test samples of the classes 0, 1, 2, 0, 1, 2; the edge is right about all but the last."""
    x = np.repeat(np.arange(6) % 3, 4).astype(np.uint8).reshape(6, 2, 2)
    arrays = {"x_train": x, "y_train": np.arange(6) % 3, "x_test": x, "y_test": np.array([0, 1, 2, 0, 1, 0])}
    np.savez(path, **(arrays | {"labels": np.array(LABELS), "range": np.array([0, 16])} | changes))
    return str(path)


@pytest.fixture
def dataset(tmp_path):
    return write_dataset(tmp_path / "toy.npz")


@pytest.fixture
def send(bundle, broker, dataset):
    """Send the data set; returns what was said."""

    def run(*, data=dataset, deadline_ms=30_000, grace_ms=0, tier=None, **kwargs):
        said = []
        own = settings(bundle, deadline_ms=deadline_ms, grace_ms=grace_ms, tier=tier)
        try:
            send_dataset(data, own, said.append, link=broker.link("back"), **kwargs)
        except (BranchyError, KeyboardInterrupt) as error:
            error.said = "\n".join(said)
            raise
        return "\n".join(said)

    return run


def test_each_test_sample_is_sent_once_and_summed_up(broker, send):
    with FakeTier(broker) as tier:
        said = send()
    assert len(tier.asked) == 6
    lines = [" ".join(line.split()) for line in said.splitlines()]
    for line in ("samples 6", "answered 6", "unanswered 0", "accuracy 83.3 %", "answered by edge 100.0 %"):
        assert line in lines


def test_samples_are_sent_again_when_more_are_asked_for(broker, send, tmp_path):
    with FakeTier(broker):
        send(count=14, window=3, csv=tmp_path / "r.csv")
    rows = sorted(read_csv(tmp_path / "r.csv").rows, key=lambda row: row.request)
    assert sorted(row.test for row in rows) == sorted(number % 6 for number in range(14))
    assert {(row.test, row.expected) for row in rows} == set(enumerate([0, 1, 2, 0, 1, 0]))


def test_a_row_a_request_goes_to_the_csv_with_the_cascades_tiers(broker, send, tmp_path):
    with FakeTier(broker) as tier:
        said = send(csv=tmp_path / "r.csv")
    results = read_csv(tmp_path / "r.csv")
    assert results.titles == ("Edge", "Cloud")
    assert [row.request for row in results.rows] == [asked.request.id for asked in tier.asked]
    assert [row.predicted for row in results.rows] == [0, 1, 2, 0, 1, 2]
    assert all(row.latency_s > 0 and row.bytes_up == 0 for row in results.rows)
    assert f"every request's line is in {tmp_path / 'r.csv'}" in said


def test_all_that_is_sent_to_the_full_model_counts_as_sent_up(broker, send, tmp_path):
    with FakeTier(broker, lambda asked: asked.reply(good_answer(asked.request, tier="full")), tier="full") as tier:
        send(tier="full", csv=tmp_path / "r.csv")
    results = read_csv(tmp_path / "r.csv")
    assert results.titles == ("Full",)
    assert [row.bytes_up for row in results.rows] == [asked.message.size_bytes for asked in tier.asked]


def test_a_function_of_the_users_own_gets_each_answer_and_what_it_returns_is_said(broker, send, tmp_path):
    code = "def show(answer):\n    return f'{answer.request} is {answer.label}' if answer.index else None\n"
    (tmp_path / "mine.py").write_text(code)
    with FakeTier(broker) as tier:
        said = send(output=f"{tmp_path}/mine.py:show").splitlines()
    asked = [asked.request.id for asked in tier.asked]
    assert said[:4] == [f"{asked[i]} is {LABELS[i % 3]}" for i in (1, 2, 4, 5)]
    assert not any(" is " in line for line in said[4:])


def test_a_function_of_the_users_own_that_fails_is_a_failure_in_one_line(broker, send, tmp_path):
    (tmp_path / "mine.py").write_text("def show(answer):\n    return answer.index[0]\n")
    with FakeTier(broker), pytest.raises(OutputError) as caught:
        send(output=f"{tmp_path}/mine.py:show")
    says = r"--output .*mine\.py:show failed on the answer to request \S+: TypeError: 'int' object is not subscriptable"
    assert re.fullmatch(says, str(caught.value))
    assert caught.value.exit_code == 1
    assert "answered 1" in " ".join(caught.value.said.split())


def test_a_function_that_is_not_there_is_wrong_use_and_nothing_is_sent(broker, send):
    with FakeTier(broker) as tier, pytest.raises(UsageError, match=r"no file none\.py"):
        send(output="none.py:show")
    assert tier.asked == []


def test_requests_without_an_answer_are_a_failure_that_is_explained(send, tmp_path):
    with pytest.raises(NoAnswerError, match=r"6 of 6 requests got no label: 6 x no answer within 0\.001 s") as caught:
        send(deadline_ms=1, csv=tmp_path / "r.csv")
    assert caught.value.exit_code == 1
    assert "unanswered 6" in [" ".join(line.split()) for line in caught.value.said.splitlines()]
    assert [row.tier for row in read_csv(tmp_path / "r.csv").rows] == [None] * 6


def test_refused_requests_are_a_failure_that_is_explained(broker, send):
    def refuse(asked):
        asked.reply(good_answer(asked.request, status="rejected", reason="overload", **UNLABELLED))

    with (
        FakeTier(broker, refuse),
        pytest.raises(NoAnswerError, match="6 of 6 requests got no label: 6 x refused: overload"),
    ):
        send()


def test_what_was_not_handed_on_is_counted_for_the_reader(broker, send):
    def twice(asked):
        asked.reply()
        asked.reply()

    with FakeTier(broker, twice):
        assert "answers to requests that had one already (duplicates)" in send()


def test_what_was_measured_before_ctrl_c_is_written_and_said(broker, send, tmp_path):
    def interrupt_at_the_third(asked):
        if len(tier.asked) < 3:
            asked.reply()
        else:
            signal.pthread_kill(threading.main_thread().ident, signal.SIGINT)

    with FakeTier(broker, interrupt_at_the_third) as tier, pytest.raises(KeyboardInterrupt) as caught:
        send(csv=tmp_path / "r.csv")
    assert [row.test for row in read_csv(tmp_path / "r.csv").rows] == [0, 1]
    assert "samples" in caught.value.said


# --- found out before anything is sent -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"labels": np.array(["a", "b", "c"])}, "expected the bundle's classes zero, one, two, got a, b, c"),
        ({"range": np.array([0, 255])}, r"expected values in the bundle's range 0\.\.16, got .* 0\.\.255"),
        ({name: np.zeros((6, 2, 2, 3), np.uint8) for name in ("x_train", "x_test")}, r"expected samples \(2, 2, 1\)"),
        ({name: np.zeros((6, 2, 2), np.float32) for name in ("x_train", "x_test")}, "of uint8.* got .* of float32"),
    ],
)
def test_a_data_set_of_another_kind_than_the_bundles_is_wrong_use(broker, send, tmp_path, changes, message):
    other = write_dataset(tmp_path / "other.npz", **changes)
    with FakeTier(broker) as tier, pytest.raises(DatasetUsageError, match=message) as caught:
        send(data=other)
    assert caught.value.exit_code == 2
    assert tier.asked == []


@pytest.mark.parametrize("kwargs", [{"window": 0}, {"rate": -1.0}, {"window": 1, "rate": 1.0}, {"count": 0}])
def test_a_wrong_number_is_wrong_use(broker, send, tmp_path, kwargs):
    with FakeTier(broker) as tier, pytest.raises(UsageError, match="expected"):
        send(csv=tmp_path / "r.csv", **kwargs)
    assert tier.asked == []
    assert not (tmp_path / "r.csv").exists()


def test_a_csv_that_cannot_be_written_is_found_out_before_anything_is_sent(broker, send, tmp_path):
    with FakeTier(broker) as tier, pytest.raises(UsageError, match="cannot write results"):
        send(csv=tmp_path / "missing" / "r.csv")
    assert tier.asked == []


def test_without_a_broker_an_old_results_file_stays(broker, send, tmp_path):
    old = tmp_path / "r.csv"
    old.write_text("results of yesterday\n")
    broker.take_down()
    with pytest.raises(BrokerUnavailableError):
        send(csv=old)
    assert old.read_text() == "results of yesterday\n"
