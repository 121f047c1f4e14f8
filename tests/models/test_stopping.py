from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from branchy.models.stopping import CascadeScore, Goal, cascade_score, exit_losses, rank

LABELS = np.array([0, 1, 0, 1])


def _logits(*exits: list[float]) -> NDArray[np.float32]:
    """(exits, n, 2) with a margin in favour of the true class (negative: of the other)."""
    margins = np.array(exits)
    true = np.eye(2)[LABELS]
    return (margins[..., None] * (2 * true - 1)).astype(np.float32)


def test_a_sample_leaves_at_the_first_exit_that_is_sure() -> None:
    logits = _logits([9, 9, 0.01, -0.02], [5, 5, 5, -5])
    found = cascade_score(logits, LABELS, Goal("max_prob", [0.8, 0.8], None, [10, 30]))
    assert (found.accuracy, found.flops) == (0.75, 20)


def test_shares_decide_how_many_leave_whatever_the_thresholds() -> None:
    logits = _logits([9, 8, 7, -6], [5, 5, 5, 5])
    found = cascade_score(logits, LABELS, Goal("max_prob", [1.0, 1.0], [0.75, 0.25], [10, 30]))
    assert (found.accuracy, found.flops) == (1.0, 15)


def test_entropy_leaves_below_its_threshold_and_the_last_exit_always_answers() -> None:
    logits = _logits([9, 9, 0.01, 0.01], [0, 0, 0, 0.1])
    found = cascade_score(logits, LABELS, Goal("entropy", [0.6, 0.0], None, [1, 3]))
    assert found.flops == 2


def test_the_loss_is_that_of_the_answers_not_of_exits_that_were_not_asked() -> None:
    good, bad = _logits([9, 9, 9, 9], [-9, -9, -9, -9]), _logits([-9, -9, -9, -9], [9, 9, 9, 9])
    goal = Goal("max_prob", [0.0, 0.0], None, [1, 2])
    assert cascade_score(good, LABELS, goal).loss < 0.5 < cascade_score(bad, LABELS, goal).loss


def test_the_best_epoch_has_fewest_wrong_answers_then_the_lowest_cost_then_the_lowest_loss() -> None:
    given, shares = Goal("max_prob", [0.8, 0.8], None, [1, 2]), Goal("max_prob", [0.8, 0.8], [0.5, 0.5], [1, 2])
    right, cheap, plain = CascadeScore(0.9, 1, 9), CascadeScore(0.8, 1, 5), CascadeScore(0.8, 1, 7)
    assert rank("cascade", right, 3.0, given) < rank("cascade", cheap, 2.0, given) < rank("cascade", plain, 1.0, given)
    # Where shares settle the cost, what is left of a difference is rounding.
    assert rank("cascade", plain, 1.0, shares) < rank("cascade", cheap, 2.0, shares)
    assert rank("loss", plain, 1.0, given) < rank("loss", right, 3.0, given)


def test_exit_losses_are_the_mean_cross_entropy_of_each_exit() -> None:
    logits = _logits([0, 0, 0, 0], [1e4, 1e4, 1e4, 1e4], [-1, -1, -1, -1])
    assert exit_losses(logits, LABELS) == pytest.approx([np.log(2), 0, 2 + np.log1p(np.exp(-2))])
