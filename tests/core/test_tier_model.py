"""What a request has to bring for a tier's first stage."""

from __future__ import annotations

import numpy as np
import pytest
import tier_world as w

from branchy.core.messages import EncodedSample
from branchy.errors import WireError

EDGE, CLOUD, FOG_ON_SAMPLES = (w.TIERS[name] for name in ("first", "last", "handed"))
PICTURE = EncodedSample("image/png", b"pixels")


@pytest.mark.parametrize("stages", [EDGE, CLOUD, FOG_ON_SAMPLES])
def test_a_tensor_is_taken_under_the_name_that_the_stage_has_for_it(stages):
    asked = w.request(stages, 1, fill=7)
    (sent,) = asked.payload.values()
    np.testing.assert_array_equal(w.model_of(stages).first_input(asked), sent)


@pytest.mark.parametrize("stages", [EDGE, FOG_ON_SAMPLES])
def test_a_picture_is_taken_as_it_is_by_a_stage_on_samples(stages):
    assert w.model_of(stages).first_input(w.request(stages, 1, payload=PICTURE)) is PICTURE


@pytest.mark.parametrize(
    ("changes", "code", "text"),
    [
        ({"stage": "x" * 200}, "stage", f"expected stage cloud, got {'x' * 80}"),
        ({"payload": PICTURE}, "content-type", "stage cloud takes no image"),
        ({"payload": {"sample": np.zeros(4, np.float32)}}, "tensor", "expected a tensor 'activation'"),
        ({"payload": {"activation": np.zeros(5, np.float32)}}, "shape", r"expected shape \(4,\)"),
        ({"payload": {"activation": np.zeros(4, np.uint8)}}, "dtype", "expected float32, got uint8"),
    ],
)
def test_what_does_not_fit_is_refused_with_its_code(changes, code, text):
    with pytest.raises(WireError, match=text) as refused:
        w.model_of(CLOUD).first_input(w.request(CLOUD, 1, **changes))
    assert refused.value.code == code
