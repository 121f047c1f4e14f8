from typing import get_args

import numpy as np
import pytest

from branchy.core.messages import Answer, EncodedSample, Hop, Reason, Request, is_certified


def hop(tier: str) -> Hop:
    return Hop(tier, tier, 1, 0.5, queue_ms=0.1, compute_ms=0.2, total_ms=0.3)


def test_an_answer_lists_the_tiers_it_passed_nearest_the_device_first():
    cloud = Answer("r", "ok", "final", "cloud", "m", label="one", index=1, confidence=0.9, hops=(hop("cloud"),))
    back = cloud.behind(hop("fog")).behind(hop("edge"))
    assert [h.tier for h in back.hops] == ["edge", "fog", "cloud"]
    assert (back.tier, back.label, back.reason) == ("cloud", "one", "final")


@pytest.mark.parametrize("above", [False, True])
@pytest.mark.parametrize("here", [False, True])
def test_an_answer_stays_certified_only_through_tiers_that_run_as_certified(above, here):
    answer = Answer("r", "ok", "final", "cloud", "m", label="one", index=1, confidence=0.9, certified=above)
    assert answer.behind(hop("edge"), certified=here).certified == (above and here)


def test_only_the_exits_own_decisions_are_certified():
    certified = {reason for reason in get_args(Reason) if is_certified(reason, certified_tier=True)}
    assert certified == {"confident", "final"}
    assert not any(is_certified(reason, certified_tier=False) for reason in get_args(Reason))


def request(**changes) -> Request:
    fields = {"id": "1", "model": "m", "stage": "edge", "budget_ms": 9.0, "payload": {"sample": np.zeros(4, np.uint8)}}
    return Request(**{**fields, **changes})


@pytest.mark.parametrize(
    "changes",
    [
        {"id": "2"},
        {"model": "n"},
        {"stage": "fog"},
        {"payload": {"sample": np.array([0, 0, 0, 1], np.uint8)}},
        {"payload": {"sample": np.zeros(4, np.int8)}},
        {"payload": {"sample": np.zeros((2, 2), np.uint8)}},
        {"payload": {"activation": np.zeros(4, np.uint8)}},
        {"payload": {}},
        {"payload": EncodedSample("image/png", b"0000")},
    ],
)
def test_a_request_is_another_where_anything_that_is_asked_differs(changes):
    assert not request().same_as(request(**changes))
    assert not request(**changes).same_as(request())


def test_a_request_is_the_same_whatever_is_left_of_its_budget():
    image = EncodedSample("image/png", b"0000")
    assert request().same_as(request(budget_ms=3.0))
    assert request(payload=image).same_as(request(payload=EncodedSample("image/png", b"0000")))
    assert not request(payload=image).same_as(request(payload=EncodedSample("image/jpeg", b"0000")))


def test_zeros_of_two_signs_are_not_the_same():
    plus, minus = (request(payload={"activation": np.full(4, zero, np.float32)}) for zero in (0.0, -0.0))
    assert not plus.same_as(minus)
