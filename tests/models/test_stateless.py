from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from branchy.models.stateless import uniform

KEYS = st.lists(st.integers(0, 2**63), min_size=1, max_size=4)


@given(st.lists(st.integers(0, 2**40), min_size=1, max_size=30), KEYS, st.randoms())
def test_a_number_follows_from_key_and_index_alone(indices: list[int], key: list[int], chance: object) -> None:
    together = uniform(np.array(indices), *key)
    alone = [float(uniform(np.array([index]), *key)[0]) for index in indices]
    assert together.tolist() == alone
    assert ((together >= 0) & (together < 1)).all()


def test_the_numbers_are_even_and_another_key_gives_others() -> None:
    n = 100_000
    first, second = uniform(np.arange(n), 0, 1), uniform(np.arange(n), 1, 0)
    for numbers in (first, second):
        assert np.histogram(numbers, bins=20, range=(0, 1))[0].std() < 4 * np.sqrt(n / 20)
        assert abs(np.corrcoef(numbers[:-1], numbers[1:])[0, 1]) < 4 / np.sqrt(n)
    assert abs(np.corrcoef(first, second)[0, 1]) < 4 / np.sqrt(n)
