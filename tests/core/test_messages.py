from typing import get_args

import pytest

from branchy.core.messages import Answer, Hop, Reason, is_certified


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
