from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from branchy.core.reliability import BINS, Calibration, ece, reliability


def _population(n: int, seed: int = 0, shift: float = 0.0) -> tuple[np.ndarray, np.ndarray]:
    """Confidences, and answers that are right that often less a shift."""
    rng = np.random.default_rng(seed)
    confidence = rng.uniform(0.5, 1.0, n)
    return confidence, rng.random(n) < confidence - shift


@pytest.mark.parametrize("binning", ["width", "mass"])
def test_a_perfectly_calibrated_population_has_an_error_near_zero(binning: str) -> None:
    assert ece(*_population(200_000), binning) < 0.004


@pytest.mark.parametrize("binning", ["width", "mass"])
def test_a_population_that_is_too_sure_by_a_tenth_has_an_error_of_a_tenth(binning: str) -> None:
    assert ece(*_population(100_000, shift=0.1), binning) == pytest.approx(0.1, abs=0.005)


def test_the_error_is_as_worked_out_by_hand() -> None:
    # widths of a half: two at 0.2 and 0.4, of which one is right; two at 0.6 and 0.8, both right
    confidence, correct = np.array([0.2, 0.4, 0.6, 0.8]), np.array([True, False, True, True])
    assert ece(confidence, correct, "width", bins=2) == pytest.approx(0.5 * abs(0.5 - 0.3) + 0.5 * abs(1.0 - 0.7))
    # masses: the median is 0.5, so the halves are the same two; thirds are cut at 0.4 and 0.6
    assert ece(confidence, correct, "mass", bins=2) == pytest.approx(0.25)
    assert ece(confidence, correct, "mass", bins=3) == pytest.approx(0.25 * 0.8 + 0.25 * 0.4 + 0.5 * 0.3)


def test_the_errors_of_one_bin_cancel_out_and_those_of_two_do_not() -> None:
    confidence, correct = np.array([0.25, 0.75]), np.array([True, False])
    assert ece(confidence, correct, "width", bins=1) == 0.0
    assert ece(confidence, correct, "width", bins=2) == pytest.approx(0.75)


answers = st.integers(1, 60).flatmap(
    lambda n: st.tuples(hnp.arrays(np.float64, n, elements=st.floats(0, 1)), hnp.arrays(np.bool_, n))
)


@given(answers, st.sampled_from(["width", "mass"]), st.integers(1, 20))
@settings(deadline=None, max_examples=60)
def test_the_diagram_has_every_sample_once_and_gives_the_error(answers: tuple, binning: str, bins: int) -> None:
    confidence, correct = answers
    found = reliability(confidence, correct, binning, bins)
    full = [each for each in found if each.samples]
    assert sum(each.samples for each in full) == len(correct)
    assert all(each.low <= each.confidence + 1e-12 and each.confidence <= each.high + 1e-12 for each in full)
    error = sum(each.samples * abs(each.accuracy - each.confidence) for each in full) / len(correct)
    assert ece(confidence, correct, binning, bins) == pytest.approx(error, abs=1e-12)


@given(answers, st.sampled_from(["width", "mass"]), st.randoms())
@settings(deadline=None, max_examples=60)
def test_the_order_of_the_samples_does_not_matter(answers: tuple, binning: str, random: object) -> None:
    confidence, correct = answers
    order = np.arange(len(correct))
    random.shuffle(order)
    assert ece(confidence[order], correct[order], binning) == pytest.approx(ece(confidence, correct, binning))


def test_bins_of_equal_mass_have_about_as_many_samples_each() -> None:
    sizes = [each.samples for each in reliability(*_population(3000), "mass")]
    assert len(sizes) == BINS
    assert max(sizes) - min(sizes) <= 2


def test_chance_tells_a_calibrated_exit_from_one_that_is_not() -> None:
    above = [Calibration.of(*_population(300, seed)) for seed in range(40)]
    assert sum(found.ece_mass > found.chance for found in above) <= 6  # 5 % of 40 are 2
    shifted = Calibration.of(*_population(300, shift=0.15))
    assert shifted.ece_mass > shifted.chance
    assert shifted.low < shifted.ece_mass < shifted.high


def test_one_sample_is_enough_to_say_how_little_is_known() -> None:
    found = Calibration.of(np.array([0.9]), np.array([True]))
    assert found.ece_mass == pytest.approx(0.1)
    assert found.chance == pytest.approx(0.9)
