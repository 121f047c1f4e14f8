from branchy.core.messages import Answer, Hop


def hop(tier: str) -> Hop:
    return Hop(tier, tier, 1, 0.5, queue_ms=0.1, compute_ms=0.2, total_ms=0.3)


def test_an_answer_lists_the_tiers_it_passed_nearest_the_device_first():
    cloud = Answer("r", "ok", "final", "cloud", "m", label="one", index=1, confidence=0.9, hops=(hop("cloud"),))
    back = cloud.behind(hop("fog")).behind(hop("edge"))
    assert [h.tier for h in back.hops] == ["edge", "fog", "cloud"]
    assert (back.tier, back.label, back.reason) == ("cloud", "one", "final")
