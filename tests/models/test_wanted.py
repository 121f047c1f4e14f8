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
    with pytest.raises(UsageError, match=r"--uplink: expected activation, bottleneck, sample, auto, got samples"):
        Sends(("sample", "samples")).check()


def test_what_is_searched_for_sends_its_activation_until_it_is_found() -> None:
    found = Sends(("auto", "bottleneck"), "uint8").by_cut(2, SAMPLE)
    assert found == (Uplink("activation", "uint8"),) * 2


@pytest.mark.parametrize(
    ("sends", "says"),
    [
        (Sends(("bottleneck",), most_bytes=0), "--uplink-bytes must be above 0"),
        (Sends(("auto",), most_bytes=90), "goes with --uplink bottleneck, got 90"),
        (Sends(("auto",), most_lost=-1), r"--uplink-accuracy must be in 0\.\.100 points, got -1"),
        (Sends(("auto",), most_lost=float("nan")), "--uplink-accuracy must be"),
    ],
)
def test_a_budget_that_cannot_be_is_refused(sends: Sends, says: str) -> None:
    with pytest.raises(UsageError, match=says):
        sends.check()
