import io

import numpy as np
import pytest
from matplotlib.image import imread

from branchy.core.statistics import wilson
from branchy.reports.csv import read_csv
from branchy.reports.plots import accuracy_plot, answers_plot, latency_plot, png
from branchy.reports.tables import exits_frame, requests_frame


@pytest.fixture
def requests(runs):
    return requests_frame(runs)


def legend_of(figure) -> list[str]:
    return [text.get_text() for text in figure.legends[0].get_texts()]


def test_a_runs_bar_is_all_of_its_requests_a_part_a_tier_and_reason(requests):
    figure = answers_plot(requests)
    (axes,) = figure.axes
    widths: dict[float, float] = {}
    for bar in axes.patches:
        middle = bar.get_y() + bar.get_height() / 2
        widths[middle] = widths.get(middle, 0) + bar.get_width()
    assert widths == pytest.approx({0.0: 100.0, 1.0: 100.0})
    assert legend_of(figure) == [
        *("edge, confident", "edge, timeout", "cloud, final", "refused", "unanswered", "full, final"),
    ]


def test_a_tier_that_stood_in_for_its_front_is_hatched(requests):
    bars = answers_plot(requests).axes[0].patches
    assert [bar.get_hatch() for bar in bars[:3]] == [None, "////", None]
    assert bars[0].get_facecolor() == bars[1].get_facecolor() != bars[2].get_facecolor()


def test_latency_lines_are_the_share_of_answers_within_a_time(requests):
    cascade, full = latency_plot(requests).axes[:2]
    lines = {line.get_label(): line for line in cascade.get_lines() if not line.get_label().startswith("_")}
    assert list(lines) == ["edge", "cloud", "all"]
    np.testing.assert_allclose(lines["edge"].get_xdata(), [2.0, 4.0, 1000.0])  # the refusal's 10 ms is no answer
    np.testing.assert_allclose(lines["edge"].get_ydata(), [100 / 3, 200 / 3, 100])
    np.testing.assert_allclose(lines["all"].get_ydata(), [25, 50, 75, 100])
    assert cascade.get_xscale() == "log"
    assert cascade.get_xlim() == full.get_xlim()


def test_a_line_of_many_answers_has_at_most_a_thousand_steps(requests):
    many = requests.loc[requests.index.repeat(1000)]
    for line in latency_plot(many).axes[0].get_lines():
        assert len(line.get_xdata()) <= 1000


def test_accuracies_have_their_interval(requests, runs):
    (axes,) = accuracy_plot(requests, exits_frame(runs)).axes
    labels = [label.get_text() for label in axes.get_yticklabels()]
    assert labels == [
        *("all answers", "answers by edge", "answers by cloud", "answers by full", "exit of edge, on all it saw"),
    ]
    spans = [tuple(line.get_xdata()) for line in axes.get_lines() if len(line.get_xdata()) == 2]
    assert (100 * wilson(3, 4)[0], 100 * wilson(3, 4)[1]) in spans  # all answers of the cascade
    points = [line.get_xdata()[0] for line in axes.get_lines() if len(line.get_xdata()) == 1]
    assert points[:2] == [75.0, pytest.approx(200 / 3)]


def test_a_run_that_nobody_answered_can_be_drawn(unanswered_csv):
    runs = {"lost": read_csv(unanswered_csv)}
    requests = requests_frame(runs)
    assert legend_of(answers_plot(requests)) == ["unanswered"]
    for figure in (latency_plot(requests), accuracy_plot(requests, exits_frame(runs))):
        assert png(figure)


def test_a_plot_is_a_png_that_can_be_read(requests):
    image = imread(io.BytesIO(png(answers_plot(requests))))
    assert image.shape[0] > 200
    assert image.shape[1] > 800
    assert image.std() > 0.05
