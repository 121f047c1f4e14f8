from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from branchy.core.histogram import Histogram

values = st.floats(-1e6, 1e6)


@given(st.lists(values, min_size=1, max_size=8, unique=True).map(sorted), st.lists(values, max_size=50))
def test_each_bound_has_the_values_up_to_it_and_the_last_count_has_all(bounds, observed):
    histogram = Histogram(bounds)
    for value in [*observed, *bounds]:  # a value on a bound is within it
        histogram.observe(value)
    everything = [*observed, *bounds]
    expected = [sum(value <= bound for value in everything) for bound in bounds]
    assert histogram.cumulative() == [*expected, len(everything)]
    total = 0.0
    for value in everything:
        total += value
    assert histogram.sum == total
