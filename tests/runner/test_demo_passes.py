"""The demo's passes, with a stand that is no process: what is counted, and what is done to the cloud and when."""

from collections import Counter
from contextlib import contextmanager

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from branchy.core.cascade import FULL
from branchy.core.messages import Answer, Hop
from branchy.core.requester import Outcome
from branchy.datasets.dataset import Part
from branchy.reports.csv import CsvReport, Row, read_csv
from branchy.runner.demo import Reports, show
from branchy.runner.demo_passes import MOST_PER_S, Pass, ask_all, ask_through_outage, gentle_rate

ROW = Row(0, 0, 0.001, "r")
TIERS = ("edge", "fog", "cloud")


class Zeros:
    def read(self, index):
        return np.zeros((2, 2, 1), np.uint8)


@pytest.fixture
def part():
    return Part(Zeros(), np.arange(100, 140), np.zeros(40, np.int64))


def answer(request, tier, reason):
    status = "ok" if reason != "rejected" else "rejected"
    label = {"label": "0", "index": 0, "confidence": 0.9} if status == "ok" else {}
    return Answer(request, status, reason, tier, "m" * 64, hops=(Hop(tier, tier, 0, 0.9, 0.0, 0.1, 0.2, 300),), **label)


class Stand:
    """Every fourth request wants the cloud; `lose` names requests that nobody answers."""

    tiers = TIERS
    has_certificate = False

    def __init__(self, bundle=None, lose=()):
        self.bundle = bundle
        self.lose = set(lose)
        self.done = []
        self.is_cloud_up = True
        self.asked = None

    @contextmanager
    def device(self, tier):
        self.asked = tier
        self.stage = type("Stage", (), {"name": tier})
        yield self

    def run(self, samples, *, window=None, rate=None):
        for number, _ in enumerate(samples):
            request = f"{self.asked}-{len(self.done)}-{number}"
            by = self._answer(request, number)
            yield Outcome(request, number, 0.01, None if number in self.lose else by, bytes_sent=500)

    def _answer(self, request, number):
        if self.asked == FULL:
            return answer(request, FULL, "final")
        if number % 4:
            return answer(request, "edge", "confident")
        return answer(request, "cloud", "final") if self.is_cloud_up else answer(request, "fog", "unreachable")

    def start(self, tier):
        self.done.append(("start", tier))
        self.is_cloud_up = True

    def kill(self, tier):
        self.done.append(("kill", tier))
        self.is_cloud_up = False

    def stop(self, tier):
        self.done.append(("stop", tier))

    def wait_ready(self, *tiers, on_ready):
        self.done += [("ready", tier) for tier in tiers]


def test_a_pass_sends_every_sample_once_and_writes_a_row_each(tmp_path, part):
    with CsvReport(tmp_path / "r.csv", TIERS) as report:
        result = ask_all(Stand(), "edge", part, report)
    assert result.is_complete
    assert [row.request for row in read_csv(tmp_path / "r.csv").rows] == [row.request for row in result.rows]
    assert len(result.rows) == 40


def test_bytes_up_of_the_full_model_are_all_that_the_device_sends_and_of_the_cascade_what_tiers_sent(tmp_path, part):
    with CsvReport(tmp_path / "r.csv", (FULL,)) as report:
        assert {row.bytes_up for row in ask_all(Stand(), FULL, part, report).rows} == {800}
        assert {row.bytes_up for row in ask_all(Stand(), "edge", part, report).rows} == {300}


def test_the_cloud_is_killed_missed_by_a_hundred_started_and_asked_again(tmp_path, part):
    stand, said = Stand(), []
    with CsvReport(tmp_path / "r.csv", TIERS) as report:
        outage, result = ask_through_outage(stand, part, 100.0, report, said.append)
    assert stand.done == [("kill", "cloud"), ("start", "cloud")]
    assert outage.is_over
    assert outage.kill_after == 20
    assert len(outage.wanted) >= 100
    assert result.is_complete
    assert Counter(row.tier for row in result.rows)["cloud"] >= 10
    assert any("cloud answers again" in line for line in said)


def test_a_cloud_that_does_not_come_back_ends_the_pass_all_the_same(tmp_path, part, monkeypatch):
    monkeypatch.setattr("branchy.runner.demo_passes.OUTAGE_TIMEOUT_S", 0.5)
    stand, said = Stand(), []
    monkeypatch.setattr(stand, "start", lambda tier: None)
    with CsvReport(tmp_path / "r.csv", TIERS) as report:
        outage, result = ask_through_outage(stand, part, 100.0, report, said.append)
    assert not outage.is_over
    assert result.is_complete
    assert any("did not answer again" in line for line in said)


def test_the_rate_is_half_of_what_one_at_a_time_came_to_and_bounded():
    assert gentle_rate(Pass(rows=[ROW] * 100, took_s=1.0)) == 50.0
    assert gentle_rate(Pass(rows=[ROW] * 100, took_s=0.01)) == MOST_PER_S


@given(st.lists(st.text(max_size=3)), st.lists(st.text(max_size=3)), st.integers(-1, 1))
def test_a_pass_is_complete_when_ids_sent_equal_ids_answered_each_once(sent, answered, difference):
    result = Pass(handed=len(sent) + difference)
    for request in sent:
        result.add(Outcome(request, 0, 0.1, None), ROW)
    result.answered = list(answered)
    assert result.is_complete == (result.handed == len(set(sent)) and sorted(set(sent)) == sorted(answered))


def show_all(stand, part, tmp_path):
    files = [
        CsvReport(tmp_path / f"{name}.csv", tiers) for name, tiers in zip("abc", (TIERS, (FULL,), TIERS), strict=True)
    ]
    said = []
    return show(stand, part, Reports(*files), said.append), "\n".join(said)


def test_the_full_model_runs_during_its_own_pass_only(tmp_path, part, toy_bundle):
    stand = Stand(toy_bundle)
    good, said = show_all(stand, part, tmp_path)
    assert good
    assert stand.done == [("start", FULL), ("ready", FULL), ("stop", FULL), ("kill", "cloud"), ("start", "cloud")]
    assert "full model only" in said


def test_one_lost_request_fails_the_demo_and_is_counted(tmp_path, part, toy_bundle):
    good, said = show_all(Stand(toy_bundle, lose=[7]), part, tmp_path)
    assert not good
    assert "cascade: 40 samples, 40 ids sent, 39 answered: 1 missing, 0 answered twice." in said


def test_a_cloud_that_is_not_back_fails_the_demo(tmp_path, part, toy_bundle, monkeypatch):
    monkeypatch.setattr("branchy.runner.demo_passes.OUTAGE_TIMEOUT_S", 0.5)
    stand = Stand(toy_bundle)
    monkeypatch.setattr(stand, "start", lambda tier: None)
    good, said = show_all(stand, part, tmp_path)
    assert not good
    assert "missing" not in said
