"""What the demo says is what was measured, and no more."""

from dataclasses import replace
from pathlib import Path

import pytest

from branchy.core.cascade import TensorSpec
from branchy.reports.csv import Row, TierCells
from branchy.runner import demo_text as text
from branchy.runner.outage import Outage


def row(tier="edge", reason="confident", bytes_up=0, latency_s=0.01, request="r"):
    cells = {str(tier).capitalize(): TierCells(1, 0.001, 0.002)}
    return Row(0, 1, latency_s, request, cells, tier, reason, 0.9, bytes_up)


@pytest.fixture
def spec_of(toy_bundle):
    def spec(height):
        sample = TensorSpec("sample", (height, 10, 1), "uint8")
        return replace(toy_bundle.spec, input=replace(toy_bundle.spec.input, tensor=sample))

    return spec


def test_the_table_has_cascade_and_full_model_side_by_side(spec_of):
    said = text.comparison([row(), row("cloud", "final")], [row("full", "final")] * 2, spec_of(100))
    assert "cascade" in said.splitlines()[1]
    assert "full model only" in said.splitlines()[1]
    for line in ("samples", "accuracy", "95 % interval", "answered by edge", "latency p50", "latency p99", "bytes up"):
        assert line in said


def test_samples_smaller_than_their_headers_cannot_show_that_bytes_are_saved(spec_of):
    said = text.comparison([row(bytes_up=300)], [row("full", "final", bytes_up=550)], spec_of(6))
    assert "A sample here is 60 bytes and the rest of its message 490" in said
    assert "cannot show that bytes are saved" in said
    assert "make demo DATA=fashion-mnist" in said


def test_saved_bytes_are_said_where_the_sample_is_large_enough(spec_of):
    said = text.comparison([row(bytes_up=500)], [row("full", "final", bytes_up=1500)], spec_of(100))
    assert "The cascade sent 3.0 times fewer." in said


def test_more_bytes_than_the_full_model_are_said_too(spec_of):
    said = text.comparison([row(bytes_up=3000)], [row("full", "final", bytes_up=1500)], spec_of(100))
    assert "Here the cascade sent more" in said


@pytest.fixture
def outage():
    play = Outage("cloud", kill_after=1, enough_wanted=3, enough_back=1)
    for one in (
        row(),
        row("fog", "timeout", latency_s=1.0),
        row("fog", "unreachable"),
        row(None, None, latency_s=None),
    ):
        play.take(one)
    return play


def test_who_answered_without_the_cloud_and_why(outage):
    said = text.outage(outage, None)
    assert "3 requests wanted cloud in vain; 2 of them were answered" in said
    assert "fog          timeout             1  1000.0 ms  1000.0 ms" in said
    assert "unreachable: its circuit breaker was open" in said
    assert "cloud did not answer again" in said


def test_when_it_was_back(outage):
    outage.take(row("cloud", "final"))
    assert "cloud answers again (1 final answers), 2.5 s after it was started." in text.outage(outage, 2.5)


def test_equal_ids_are_said_as_such():
    assert text.ids("cascade", 2, {"a", "b"}, ["b", "a"]) == "cascade: 2 ids sent, the same 2 answered."


@pytest.mark.parametrize(
    ("handed", "sent", "answered", "words"),
    [
        (2, {"a", "b"}, ["a"], "1 missing, 0 answered twice"),
        (2, {"a", "b"}, ["a", "b", "b"], "0 missing, 1 answered twice"),
        (3, {"a", "b"}, ["a", "b"], "3 samples, 2 ids sent"),
        (1, {"a"}, ["x"], "1 missing, 0 answered twice"),
    ],
)
def test_ids_that_differ_are_counted(handed, sent, answered, words):
    assert words in text.ids("cascade", handed, sent, answered)


def test_paths_are_named():
    assert text.files(Path("a.csv"), Path("b.csv")) == "Every request's line is in a.csv and b.csv."
