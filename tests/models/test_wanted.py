from __future__ import annotations

import pytest

from branchy.core.cascade import TensorSpec, Uplink
from branchy.errors import UsageError
from branchy.models.wanted import Sends

SAMPLE = TensorSpec("sample", (8, 8, 1), "uint8")


def test_one_uplink_is_for_every_cut() -> None:
    assert Sends(dtype="float16").by_cut(2, SAMPLE) == (Uplink("activation", "float16"),) * 2


def test_several_are_one_a_cut_and_a_sample_keeps_its_own_dtype() -> None:
    found = Sends(("sample", "activation"), "float16").by_cut(2, SAMPLE)
    assert found == (Uplink("sample", "uint8"), Uplink("activation", "float16"))


def test_another_number_than_there_are_cuts_is_refused() -> None:
    with pytest.raises(UsageError, match="one for all or one for each of 3 cuts, got sample,activation"):
        Sends(("sample", "activation")).by_cut(3, SAMPLE)


def test_an_uplink_that_is_none_is_named() -> None:
    with pytest.raises(UsageError, match=r"--uplink: expected activation or sample, got samples"):
        Sends(("sample", "samples")).check()
