import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from branchy.core.cascade import ExitSettings
from branchy.core.policies import FEW_LOGITS, is_sure, judge, judge_finite, probabilities, score
from branchy.errors import UsageError

POLICIES = ("max_prob", "margin", "entropy")
batches = hnp.array_shapes(min_dims=2, max_dims=2, min_side=2, max_side=12)
logits = hnp.arrays("float32", batches, elements=st.floats(-50, 50, width=32))
temperatures = st.floats(0.05, 20)


def rows_of(classes: int) -> st.SearchStrategy[np.ndarray]:
    return hnp.arrays("float32", classes, elements=st.floats(-50, 50, width=32))


def high(policy: str, classes: int) -> float:
    return math.log(classes) if policy == "entropy" else 1.0


@given(logits, temperatures)
def test_probabilities_are_a_distribution_in_the_order_of_the_logits(batch, temperature):
    probs = probabilities(batch, temperature)
    np.testing.assert_allclose(probs.sum(axis=-1), 1.0)
    assert probs.min() >= 0
    assert (np.diff(np.take_along_axis(probs, batch.argsort(axis=-1), axis=-1), axis=-1) >= 0).all()


def test_probabilities_are_the_softmax_of_logits_over_temperature():
    np.testing.assert_allclose(probabilities(np.log([1.0, 2.0, 5.0])), [0.125, 0.25, 0.625])
    np.testing.assert_allclose(probabilities(2 * np.log([1.0, 2.0, 5.0]), 2.0), [0.125, 0.25, 0.625])


@given(logits, temperatures, st.floats(0.05, 20))
def test_logits_times_c_at_temperature_times_c_are_the_same(batch, temperature, c):
    scaled = batch.astype(np.float64) * c
    np.testing.assert_allclose(probabilities(scaled, temperature * c), probabilities(batch, temperature), atol=1e-9)


@given(logits)
def test_a_higher_temperature_is_never_more_confident(batch):
    assert (probabilities(batch, 2.0).max(axis=-1) <= probabilities(batch, 1.0).max(axis=-1) + 1e-12).all()


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("values", [[1e38, -1e38], [3.4e38, 0.0], [-1e38, -1e38]])
@pytest.mark.parametrize("temperature", [1e-300, 1.0, 1e300])
def test_extreme_logits_and_temperatures_stay_finite(values, temperature):
    probs = probabilities(np.array(values, np.float32), temperature)
    assert np.isfinite(probs).all()
    assert probs.sum() == pytest.approx(1.0)


def test_logits_are_left_as_they_were():
    batch = np.array([[1.0, 2.0]])
    probabilities(batch, 2.0)
    np.testing.assert_array_equal(batch, [[1.0, 2.0]])


@pytest.mark.parametrize(
    ("policy", "want"),
    [("max_prob", 0.625), ("margin", 0.375), ("entropy", -sum(p * math.log(p) for p in (0.125, 0.25, 0.625)))],
)
def test_scores_are_largest_largest_minus_second_and_nats(policy, want):
    assert score(np.array([[0.25, 0.625, 0.125]]), policy) == pytest.approx([want])


@pytest.mark.parametrize("policy", POLICIES)
@given(batch=logits, temperature=temperatures)
def test_scores_are_within_the_range_of_their_policys_threshold(policy, batch, temperature):
    scores = score(probabilities(batch, temperature), policy)
    assert (scores >= 0).all()
    assert (scores <= high(policy, batch.shape[-1])).all()


@pytest.mark.parametrize(("policy", "sure"), [("max_prob", [False, True, True]), ("entropy", [True, True, False])])
def test_entropy_leaves_at_or_below_its_threshold_and_the_others_at_or_above(policy, sure):
    scores = np.array([0.5, 0.7, 0.9])
    np.testing.assert_array_equal(is_sure(scores, ExitSettings(policy, 0.7)), sure)
    if policy == "max_prob":
        np.testing.assert_array_equal(is_sure(scores, ExitSettings("margin", 0.7)), sure)


@given(st.integers(2, 2000), st.floats(-5, 5))
def test_every_sample_leaves_at_the_lenient_end_even_when_all_classes_are_alike(classes, value):
    alike = np.full((1, classes), value, np.float32)
    for policy in POLICIES:
        threshold = math.log(classes) if policy == "entropy" else 0.0
        assert judge(alike, ExitSettings(policy, threshold))[0].sure


def test_one_class_far_ahead_is_sure_at_the_strict_end_of_every_policy():
    ahead = np.array([[1000.0, 0.0, 0.0]])
    for policy in POLICIES:
        assert judge(ahead, ExitSettings(policy, 0.0 if policy == "entropy" else 1.0))[0].sure


@given(logits, temperatures, st.sampled_from(POLICIES), st.floats(0, 1))
def test_a_verdict_is_the_likeliest_class_with_its_probability(batch, temperature, policy, share):
    settings = ExitSettings(policy, share * high(policy, batch.shape[-1]), temperature)
    verdicts = judge(batch, settings)
    assert len(verdicts) == len(batch)
    probs = probabilities(batch, temperature)
    for verdict, p, s in zip(verdicts, probs, is_sure(score(probs, policy), settings), strict=True):
        assert verdict.index == p.argmax()
        assert verdict.confidence == max(verdict.probabilities) == p.max()
        assert verdict.probabilities == tuple(p)
        assert verdict.sure == s


@given(logits, temperatures, st.sampled_from(POLICIES))
def test_a_sample_gets_the_same_verdict_alone_and_in_a_batch(batch, temperature, policy):
    settings = ExitSettings(policy, 0.5, temperature)
    assert judge(batch, settings) == [judge(row[None], settings)[0] for row in batch]


@given(st.sampled_from(POLICIES), temperatures, st.integers(2, 2 * FEW_LOGITS).flatmap(rows_of), st.floats(0.1, 0.9))
def test_a_tier_judges_few_samples_as_many_to_a_rounding(policy, temperature, row, threshold):
    settings = ExitSettings(policy, threshold, temperature)
    few, many = (judge_finite(np.stack([row] * count), settings) for count in (2, FEW_LOGITS))
    alone, first = few[0], many[0]
    assert few == [alone] * 2
    assert many == [first] * FEW_LOGITS == judge(np.stack([row] * FEW_LOGITS), settings)
    assert alone.index == first.index
    assert alone.confidence == max(alone.probabilities)
    assert alone.probabilities == pytest.approx(first.probabilities, rel=1e-12, abs=1e-300)
    if abs(score(probabilities(row, temperature), policy) - threshold) > 1e-9:
        assert alone.sure == first.sure


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("size", [1, 2])
@pytest.mark.parametrize("classes", [3, FEW_LOGITS + 1])
@pytest.mark.parametrize("values", [[math.nan, 0], [math.inf, 0], [-math.inf, 0], [math.inf, -math.inf]])
def test_logits_that_are_not_finite_have_no_verdict(size, classes, values):
    batch = np.zeros((size, classes), np.float32)
    batch[0, :2] = values
    verdicts = judge_finite(batch, ExitSettings())
    assert verdicts[0] is None
    assert None not in verdicts[1:]


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("temperature", [1e-300, 1.0, 1e300])
@pytest.mark.parametrize("values", [[3.4e38, -3.4e38], [-1e38, -1e38], [3.4e38, 3.4e38]])
@pytest.mark.parametrize("size", [1, FEW_LOGITS])
def test_a_sample_of_extreme_logits_has_a_verdict(size, values, temperature):
    for verdict in judge_finite(np.array([values] * size, np.float32), ExitSettings(temperature=temperature)):
        assert sum(verdict.probabilities) == pytest.approx(1.0)


@pytest.mark.parametrize("judge_", [judge, judge_finite])
def test_a_verdict_is_of_plain_python_types_for_the_wire(judge_):
    verdict = judge_(np.array([[0.0, 1.0]], np.float16), ExitSettings())[0]
    assert [type(v) for v in (verdict.index, verdict.confidence, verdict.sure)] == [int, float, bool]
    assert {type(p) for p in verdict.probabilities} == {float}


@pytest.mark.parametrize(
    ("policy", "threshold", "range_"),
    [
        ("max_prob", 1.01, "0..1,"),
        ("max_prob", -0.01, "0..1,"),
        ("margin", 2.0, "0..1,"),
        ("entropy", 2.31, r"0..2.303 \(ln of the number of classes\)"),
        ("max_prob", math.nan, "0..1,"),
    ],
)
def test_a_threshold_outside_its_policys_range_is_refused(policy, threshold, range_):
    with pytest.raises(UsageError, match=f"threshold for policy {policy} must be in {range_}"):
        ExitSettings(policy, threshold).check(classes=10)


@pytest.mark.parametrize(("policy", "threshold"), [("max_prob", 0.0), ("margin", 1.0), ("entropy", math.log(10))])
def test_the_ends_of_a_policys_range_are_in_it(policy, threshold):
    ExitSettings(policy, threshold).check(classes=10)


@pytest.mark.parametrize("temperature", [0.0, -1.0, math.nan, math.inf])
def test_a_temperature_that_is_not_above_0_and_finite_is_refused(temperature):
    with pytest.raises(UsageError, match="temperature must be finite and above 0"):
        ExitSettings(temperature=temperature).check(classes=10)
