from __future__ import annotations

from pathlib import Path

import pytest

from branchy.errors import ArchitectureError
from branchy.models.backend import keras
from branchy.models.heads import head, pool_dense, strided


@pytest.mark.parametrize(
    ("shape", "features"),
    [
        ((16, 16, 24), 4 * 4 * 24),
        ((5, 3, 8), 3 * 3 * 8),  # 5 in steps of 2
        ((2, 2, 64), 2 * 2 * 64),
        ((14, 14, 512), 2 * 2 * 512),
        ((7, 7, 2048), 2048),
        ((1, 1, 4096), 4096),
        ((10, 32), 32),
        ((100,), 100),
    ],
)
def test_pool_dense_keeps_a_coarse_grid_of_bounded_size(shape: tuple[int, ...], features: int) -> None:
    activation = keras.Input(shape)
    logits = pool_dense(activation, 7)
    assert logits.shape == (None, 7)
    assert keras.Model(activation, logits).count_params() == features * 7 + 7


def test_pool_dense_says_what_it_does_not_take() -> None:
    with pytest.raises(ArchitectureError, match=r"got \(2, 2, 2, 2\); give a head of your own"):
        pool_dense(keras.Input((2, 2, 2, 2)), 3)


@pytest.mark.parametrize("shape", [(8, 8, 1), (28, 28, 1), (32, 32, 3), (224, 224, 3), (1, 9, 1)])
def test_the_head_on_the_input_takes_samples_of_any_size_and_stays_small(shape: tuple[int, int, int]) -> None:
    sample = keras.Input(shape)
    logits = strided(sample, 10)
    assert logits.shape == (None, 10)
    assert keras.Model(sample, logits).count_params() < 25_000


def test_a_head_of_ones_own_is_a_function_in_a_file(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text("def small(activation, classes):\n    return (activation, classes)\n")
    assert head(f"{tmp_path}/mine.py:small")("a", 3) == ("a", 3)
    with pytest.raises(ArchitectureError, match="no head 'conv': expected one of pool-dense, input, or"):
        head("conv")
