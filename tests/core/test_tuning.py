from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from exit_pool import exit_pool
from hypothesis import given, settings
from hypothesis import strategies as st

from branchy.core.guarantee import Bound
from branchy.core.tuning import ExitOutputs, LossName, at, frontier, further_bound, path

STRENGTHS = (1.2, 2.0, 2.8, 3.0)


def tiny(scores: list[list[float]], predictions: list[list[int]], policy: str = "max_prob") -> ExitOutputs:
    """Samples whose true class is 0, of which the full model, the last exit, says what it says."""
    full = np.array(predictions[-1])
    names = tuple("abcd"[: len(scores)])
    return ExitOutputs(names, policy, np.array(scores), np.array(predictions), full, np.zeros_like(full), 3)


def mean_loss(outputs: ExitOutputs, thresholds: tuple[float, ...], loss: str = "gap") -> float:
    return float(at(outputs.losses(loss), outputs.leaving(thresholds)).mean())


def mean_cost(outputs: ExitOutputs, thresholds: tuple[float, ...], costs: tuple[float, ...]) -> float:
    return float(np.take(costs, outputs.leaving(thresholds)).mean())


def test_a_sample_leaves_at_the_first_sure_exit_and_at_the_last_in_any_case() -> None:
    outputs = tiny([[0.9, 0.4, 0.4], [0.9, 0.8, 0.1], [0.0, 0.0, 0.0]], [[0] * 3] * 3)
    assert outputs.leaving((0.9, 0.8, 1.0)).tolist() == [0, 1, 2]
    entropies = tiny([[0.1, 0.9], [0.0, 0.0]], [[0] * 2] * 2, policy="entropy")
    assert entropies.leaving((0.5, 0.0)).tolist() == [0, 1]


def test_the_losses_are_what_they_say() -> None:
    #                  harmed, saved, both wrong alike, both wrong, right
    outputs = tiny([[0.5] * 5, [0.5] * 5], [[1, 0, 1, 1, 0], [0, 1, 1, 2, 0]])
    assert outputs.losses("gap").tolist() == [[1, -1, 0, 0, 0], [0] * 5]
    assert outputs.losses("disagreement").tolist() == [[1, 1, 0, 1, 0], [0] * 5]
    assert outputs.losses("error").tolist() == [[1, 0, 1, 1, 0], [0, 1, 1, 1, 0]]


def test_a_disagreement_needs_no_labels() -> None:
    pool = exit_pool(500, STRENGTHS[:2])
    unlabelled = ExitOutputs(
        pool.names, pool.policy, pool.scores, pool.predictions, pool.full, np.full(500, -1), pool.classes
    )
    assert path(pool, "disagreement", (0, 1)) == path(unlabelled, "disagreement", (0, 1))


@pytest.mark.parametrize("policy", ["max_prob", "margin", "entropy"])
@pytest.mark.parametrize("exits", [1, 2, 3, 4])
def test_the_frontier_goes_from_safe_to_cheap(policy: str, exits: int) -> None:
    outputs, costs = exit_pool(2000, STRENGTHS[:exits], policy=policy), (1.0, 2.0, 5.0, 6.0)[:exits]
    found = frontier(outputs, "gap", costs)
    losses, spent = ([each(outputs, v) for v in found] for each in (mean_loss, lambda o, v: mean_cost(o, v, costs)))
    assert all(a < b for a, b in itertools.pairwise(losses))
    assert all(a > b for a, b in itertools.pairwise(spent))
    assert len(found) == 1 if exits == 1 else len(found) > 10
    high = math.log(outputs.classes) if policy == "entropy" else 1.0
    assert all(0 <= threshold <= high for v in found for threshold in v)


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 10_000), st.integers(2, 3), st.sampled_from(["gap", "disagreement", "error"]))
def test_the_frontier_is_the_one_that_trying_every_threshold_finds(seed: int, exits: int, loss: str) -> None:
    rng, n = np.random.default_rng(seed), 9
    scores, predictions = rng.choice([0.0, 0.35, 0.6, 1.0], (exits, n)), rng.integers(0, 2, (exits, n))
    outputs, costs = tiny(scores.tolist(), predictions.tolist()), (1.0, 3.0, 4.0)[:exits]
    every = itertools.product([0.0, 0.2, 0.5, 0.7, 1.0], repeat=exits - 1)
    pairs = {(mean_loss(outputs, (*v, 0.0), loss), round(mean_cost(outputs, (*v, 0.0), costs), 9)) for v in every}
    unbeaten = {p for p in pairs if not any(q != p and q[0] <= p[0] and q[1] <= p[1] for q in pairs)}
    found = {
        (mean_loss(outputs, v, loss), round(mean_cost(outputs, v, costs), 9)) for v in frontier(outputs, loss, costs)
    }
    assert found == unbeaten


def test_thresholds_lie_between_scores_so_that_rounding_changes_nothing() -> None:
    outputs = exit_pool(500, STRENGTHS[:3])
    for thresholds in path(outputs, "gap", (0.0, 1.0, 2.0)):
        for scores, threshold in zip(outputs.scores[:-1], thresholds[:-1], strict=True):
            assert np.abs(scores - threshold).min() > 0


@pytest.mark.parametrize("n", [30, 3000])
@pytest.mark.parametrize("policy", ["max_prob", "entropy"])
@pytest.mark.parametrize("exits", [1, 2, 3])
def test_the_path_begins_where_nobody_leaves_early_and_goes_on_in_small_steps(n: int, policy: str, exits: int) -> None:
    outputs, costs = exit_pool(n, STRENGTHS[:exits], policy=policy), (0.0, 1.0, 3.0)[:exits]
    found = path(outputs, "gap", costs)
    assert (outputs.leaving(found[0]) == exits - 1).all()
    assert set(frontier(outputs, "gap", costs)) <= set(found)
    leaving = np.array([(v <= outputs.scores.T) != (policy == "entropy") for v in found])[:, :, :-1]
    moved = np.abs(np.diff(leaving.mean(axis=1), axis=0))
    assert moved.max(initial=0) <= 1 / 8 + 2 / n


@pytest.mark.parametrize(
    ("loss", "strengths", "bound"), [("disagreement", (1.6, 2.6), "binomial"), ("gap", (1.2, 1.3), "betting")]
)
def test_the_bound_is_the_one_that_gets_further(loss: LossName, strengths: tuple[float, ...], bound: Bound) -> None:
    """Betting pays where an exit wins nearly as often as it loses; nothing is won in a disagreement."""
    pool = exit_pool(4000, strengths)
    assert further_bound(pool, path(pool, loss, (0.0, 1.0)), loss, 0.03, 0.05) == bound
