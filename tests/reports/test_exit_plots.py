from __future__ import annotations

import numpy as np
import pytest

from branchy.reports.exit_plots import Curve, pareto_plot, reliability_plot
from branchy.reports.exits import ExitView


def test_a_diagram_shows_how_right_each_confidence_is_before_and_after() -> None:
    logits, labels = np.tile([2.0, 0.0], (8, 1)), np.array([0] * 6 + [1] * 2)
    view = ExitView.of("edge", logits, labels, 2.0, None)
    diagram = reliability_plot([view]).axes[0]
    lines = {line.get_label(): line for line in diagram.get_lines()}
    for when, confidence in (("before", view.before[0]), ("after", view.after[0])):
        line = lines[f"{when} T"]
        assert (line.get_xdata()[0], line.get_ydata()[0]) == pytest.approx((100 * confidence, 75.0))
    assert diagram.get_title().startswith("edge\nECE 13.1 → 1.9 %")


def test_accuracy_is_drawn_against_each_cost_with_what_it_is_held_against() -> None:
    points = {"edge alone": (1.0, 0.8), "full": (9.0, 0.97)}
    figure = pareto_plot([Curve(unit, [1.0, 4.0], [0.8, 0.95], points) for unit in ("ms", "bytes")])
    for axes, unit in zip(figure.axes, ("ms", "bytes"), strict=True):
        curve, *markers = axes.get_lines()
        assert list(curve.get_xdata()) == [1.0, 4.0, 9.0]  # spending more gains nothing
        assert curve.get_ydata() == pytest.approx([80, 95, 95])
        assert [(m.get_xdata()[0], m.get_ydata()[0]) for m in markers] == [(1.0, 80.0), (9.0, 97.0)]
        assert axes.get_xlabel() == f"{unit} a sample"
    labels = [text.get_text() for text in figure.legends[0].get_texts()]
    assert labels == ["cascade, best thresholds here", "edge alone", "full"]
