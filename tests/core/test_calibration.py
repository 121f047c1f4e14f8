from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy.optimize import minimize

from branchy.core.calibration import PRIOR_STRENGTH, always, fit_temperature, share_thresholds
from branchy.core.cascade import ExitSettings, PolicyName
from branchy.core.policies import is_sure, probabilities, score


def _sampled(
    seed: int, n: int = 4000, classes: int = 5, scale: float = 2.0
) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Logits, and labels drawn from their own softmax: their true temperature is 1."""
    rng = np.random.default_rng(seed)
    logits = rng.normal(scale=scale, size=(n, classes))
    labels = [rng.choice(classes, p=p) for p in probabilities(logits)]
    return logits, np.asarray(labels)


def _nll(logits: NDArray[np.float64], labels: NDArray[np.int64], temperature: float) -> float:
    return float(-np.log(probabilities(logits, temperature)[np.arange(len(labels)), labels]).mean())


def _likeliest(logits: NDArray[np.float64], labels: NDArray[np.int64]) -> float:
    temperatures = np.geomspace(0.5, 20, 400)
    return float(temperatures[np.argmin([_nll(logits, labels, t) for t in temperatures])])


def test_labels_drawn_from_the_logits_have_temperature_one() -> None:
    assert fit_temperature(*_sampled(0)) == pytest.approx(1.0, rel=0.05)


@pytest.mark.parametrize("factor", [0.2, 0.5, 3.0, 1e4])
def test_temperature_grows_with_the_logits(factor: float) -> None:
    logits, labels = _sampled(1)
    assert fit_temperature(logits * factor, labels) == pytest.approx(factor * fit_temperature(logits, labels), rel=0.01)


def test_a_few_samples_move_the_temperature_less_than_they_would_alone_and_many_as_much() -> None:
    logits, labels = _sampled(2)
    for n in (10, 20, 40):
        alone, found = _likeliest(2.5 * logits[:n], labels[:n]), fit_temperature(2.5 * logits[:n], labels[:n])
        assert abs(math.log(found)) < abs(math.log(alone))
    assert fit_temperature(2.5 * logits, labels) == pytest.approx(_likeliest(2.5 * logits, labels), rel=0.01)


def test_few_samples_of_exits_that_are_as_sure_as_they_should_be_leave_them_so() -> None:
    """60 samples of which nearly all are right, as the digits have them; judged on others."""
    lost = []
    for seed in range(40):
        logits, labels = _sampled(seed, n=400, classes=10, scale=8.0)
        found = fit_temperature(logits[:60], labels[:60])
        lost.append(_nll(logits[60:], labels[60:], found) - _nll(logits[60:], labels[60:], 1.0))
    assert np.mean(lost) < 0.012


def test_temperature_has_the_least_negative_log_likelihood() -> None:
    logits, labels = _sampled(2)
    fitted = fit_temperature(logits * 2.5, labels)
    best = min(_nll(logits * 2.5, labels, t) for t in np.geomspace(0.2, 20, 200))
    assert _nll(logits * 2.5, labels, fitted) <= best + 1e-4


def test_temperature_does_not_depend_on_what_is_added_to_a_row() -> None:
    logits, labels = _sampled(3, n=200)
    shifted = logits + np.arange(200)[:, np.newaxis]
    assert fit_temperature(shifted, labels) == pytest.approx(fit_temperature(logits, labels))


def test_exits_that_are_always_right_keep_a_temperature_that_leaves_doubt() -> None:
    labels = np.arange(70) % 10
    logits = np.eye(10)[labels] * 5
    confidence = probabilities(logits, fit_temperature(logits, labels)).max(axis=1)
    assert 0.95 < confidence.min() < 1.0


def test_exits_that_are_always_wrong_become_unsure() -> None:
    labels = np.arange(70) % 10
    logits = np.eye(10)[(labels + 1) % 10] * 5
    assert probabilities(logits, fit_temperature(logits, labels)).max() == pytest.approx(0.1, abs=0.05)


def test_logits_that_say_nothing_leave_the_temperature_at_one() -> None:
    assert fit_temperature(np.full((4, 3), 7.0), np.asarray([0, 1, 2, 0])) == 1.0


def _leaving(scores: list[NDArray[np.float64]], thresholds: list[float], policy: PolicyName) -> list[float]:
    staying = np.ones(len(scores[0]), dtype=bool)
    shares = []
    for exit_scores, threshold in zip(scores, thresholds, strict=True):
        leaving = staying & is_sure(exit_scores, ExitSettings(policy, threshold))
        staying &= ~leaving
        shares.append(float(leaving.mean()))
    return shares


@given(
    seed=st.integers(0, 2**16),
    n=st.integers(1, 300),
    weights=st.lists(st.integers(0, 10), min_size=2, max_size=4).filter(any),
    policy=st.sampled_from(["max_prob", "margin", "entropy"]),
)
@settings(max_examples=200, deadline=None)
def test_the_wanted_shares_leave(seed: int, n: int, weights: list[int], policy: PolicyName) -> None:
    rng = np.random.default_rng(seed)
    scores = [score(probabilities(rng.normal(scale=2, size=(n, 6))), policy) for _ in weights]
    wanted = [w / sum(weights) for w in weights]
    found = share_thresholds(scores, wanted, policy, 6)
    for threshold in found:
        ExitSettings(policy, threshold.threshold).check(6)
    reached = _leaving(scores, [f.threshold for f in found], policy)
    assert reached == [f.share for f in found]
    assert sum(reached) == pytest.approx(1)
    assert np.cumsum(reached) == pytest.approx(np.cumsum(wanted), abs=0.5 / n + 1e-9)


def test_a_threshold_lies_halfway_between_the_last_that_leaves_and_the_first_that_stays() -> None:
    first, _ = share_thresholds([np.asarray([0.9, 0.8, 0.6, 0.1])] * 2, (0.5, 0.5), "max_prob", 10)
    assert first.threshold == pytest.approx(0.7)


@pytest.mark.parametrize(("share", "leaving"), [(0.3, 0.0), (0.6, 0.75), (0.7, 0.75)])
def test_equal_scores_leave_together_or_not_at_all(share: float, leaving: float) -> None:
    first, _ = share_thresholds([np.asarray([0.9, 0.9, 0.9, 0.1])] * 2, (share, 1 - share), "max_prob", 10)
    assert first.share == leaving


@pytest.mark.parametrize("policy", ["max_prob", "margin", "entropy"])
def test_always_lets_every_sample_leave(policy: PolicyName) -> None:
    flat = score(probabilities(np.zeros((3, 7))), policy)
    assert is_sure(flat, ExitSettings(policy, always(policy, 7))).all()


def test_entropy_keeps_what_is_least_sure() -> None:
    first, last = share_thresholds([np.asarray([0.1, 0.2, 1.0, 1.4])] * 2, (0.5, 0.5), "entropy", 5)
    assert first.threshold == pytest.approx(0.6)
    assert last.threshold == math.log(5)


@pytest.mark.parametrize("factor", [0.3, 1.0, 4.0])
@pytest.mark.parametrize("seed", range(4))
def test_the_bisection_finds_the_minimum_that_l_bfgs_finds(seed: int, factor: float) -> None:
    logits, labels = _sampled(seed, n=500)
    logits = (logits - logits.mean(axis=1, keepdims=True)) * factor

    def loss(log_inverse: NDArray[np.float64]) -> float:
        inverse = math.exp(float(log_inverse[0]))
        z = logits * inverse
        likelihood = (np.logaddexp.reduce(z, axis=1) - z[np.arange(500), labels]).sum()
        return float(likelihood + PRIOR_STRENGTH * (inverse - math.log(inverse)))

    found = minimize(loss, x0=[0.0], method="L-BFGS-B", options={"ftol": 1e-15, "gtol": 1e-9})
    assert fit_temperature(logits, labels) == pytest.approx(math.exp(-float(found.x[0])), rel=1e-4)
