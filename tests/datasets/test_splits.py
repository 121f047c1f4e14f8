from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from branchy.datasets import stratified


@given(
    labels=st.lists(st.integers(0, 4), max_size=200),
    weights=st.lists(st.integers(0, 9), min_size=1, max_size=5).filter(any),
    seed=st.integers(0, 2**32 - 1),
)
def test_parts_are_disjoint_whole_and_keep_each_class_share(labels: list[int], weights: list[int], seed: int) -> None:
    classes = np.asarray(labels, dtype=np.int64)
    shares = [w / sum(weights) for w in weights]
    parts = stratified(classes, shares, seed)
    assert sorted(np.concatenate(parts).tolist()) == list(range(len(labels)))
    for label in set(labels):
        count = int((classes == label).sum())
        for part, share in zip(parts, shares, strict=True):
            assert abs(int((classes[part] == label).sum()) - share * count) <= 1 + 1e-9


def test_the_same_seed_gives_the_same_parts_and_another_gives_others() -> None:
    labels = np.arange(100) % 3
    first, again, other = (stratified(labels, (0.7, 0.3), seed) for seed in (5, 5, 6))
    assert [p.tolist() for p in first] == [p.tolist() for p in again]
    assert first[1].tolist() != other[1].tolist()


@pytest.mark.parametrize("shares", [(0.5, 0.6), (1.5, -0.5)])
def test_shares_that_do_not_sum_to_one_are_refused(shares: tuple[float, ...]) -> None:
    with pytest.raises(ValueError, match="sum to 1"):
        stratified(np.arange(4), shares, 0)


def test_classes_of_one_sample_are_not_all_put_into_the_same_part() -> None:
    first, second = stratified(np.arange(200), (0.5, 0.5), 0)
    assert 70 < len(first) < 130
    assert len(first) + len(second) == 200
