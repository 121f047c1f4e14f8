from __future__ import annotations

import numpy as np
import pytest

from branchy.models.backend import keras, tf
from branchy.models.lrn import local_response_normalised


@pytest.mark.parametrize("channels", [1, 2, 5])
def test_it_is_what_tensorflow_computes(channels: int) -> None:
    x = np.random.default_rng(0).normal(0, 200, (2, 3, 4, channels)).astype(np.float32)
    theirs = tf.nn.local_response_normalization(x, depth_radius=1, bias=2.0, alpha=5e-5, beta=0.75)
    sample = keras.Input((3, 4, channels))
    ours = keras.Model(sample, local_response_normalised(sample))(x)
    assert np.abs(theirs / x).min() < 0.3
    assert np.allclose(ours, theirs, rtol=1e-5)
