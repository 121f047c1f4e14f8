from hypothesis import given
from hypothesis import strategies as st

from branchy.core.breaker import Breaker


def fill(breaker: Breaker, outcomes: list[bool], now: float = 0.0, counts: bool = True) -> None:
    for ok in outcomes:
        ticket = breaker.admit(now, counts=counts)
        assert ticket is not None
        breaker.record(ticket, ok, now)


def opened(probe_s: float = 2.0) -> Breaker:
    breaker = Breaker(probe_s=probe_s)
    fill(breaker, [False] * 20)
    assert breaker.state == "open"
    return breaker


def test_stays_closed_below_the_minimum():
    breaker = Breaker()
    fill(breaker, [False] * 19)
    assert breaker.state == "closed"


def test_opens_at_half_of_the_minimum():
    breaker = Breaker()
    fill(breaker, [True] * 10 + [False] * 9)
    assert breaker.state == "closed"
    fill(breaker, [False])
    assert breaker.state == "open"
    assert breaker.opened_by == (10, 20)


def test_a_loss_below_half_does_not_open_it():
    breaker = Breaker()
    fill(breaker, [True, True, False] * 40)
    assert breaker.state == "closed"


def test_outcomes_outside_the_window_are_forgotten():
    breaker = Breaker(window_s=10.0)
    fill(breaker, [False] * 19, now=0.0)
    fill(breaker, [False], now=10.1)
    assert breaker.state == "closed"


def test_what_had_too_little_time_does_not_count():
    breaker = Breaker()
    fill(breaker, [False] * 100, counts=False)
    assert breaker.state == "closed"


def test_open_it_admits_one_probe_an_interval():
    breaker = opened(probe_s=2.0)
    assert breaker.admit(1.9, counts=True) is None
    assert breaker.admit(2.0, counts=True) is not None
    assert breaker.admit(2.1, counts=True) is None
    assert breaker.admit(4.0, counts=True) is not None


def test_an_answered_probe_closes_it_and_a_failed_one_does_not():
    breaker = opened()
    failing = breaker.admit(2.0, counts=False)
    breaker.record(failing, False, 2.5)
    assert breaker.state == "open"
    answered = breaker.admit(4.0, counts=False)
    breaker.record(answered, True, 4.1)
    assert breaker.state == "closed"


def test_outcomes_of_before_a_change_do_not_count():
    breaker = Breaker()
    early = [breaker.admit(0.0, counts=True) for _ in range(60)]
    for ticket in early[:20]:
        breaker.record(ticket, False, 1.0)
    assert breaker.state == "open"
    breaker.record(early[20], True, 1.0)
    assert breaker.state == "open"
    probe = breaker.admit(3.0, counts=True)
    breaker.record(probe, True, 3.1)
    for ticket in early[21:]:
        breaker.record(ticket, False, 3.2)
    assert breaker.state == "closed"


@given(st.lists(st.tuples(st.floats(0, 3), st.booleans(), st.booleans()), max_size=200))
def test_it_opens_exactly_when_a_naive_count_says_so(steps):
    """Against a model that keeps every outcome and counts afresh each time."""
    breaker, now, seen = Breaker(window_s=10.0, probe_s=2.0), 0.0, []
    for wait_s, ok, counts in steps:
        now += wait_s
        was = breaker.state
        ticket = breaker.admit(now, counts=counts)
        if ticket is None:
            assert was == "open"
            continue
        breaker.record(ticket, ok, now)
        if was == "open":
            assert breaker.state == ("closed" if ok else "open")
            seen = []
            continue
        if counts:
            seen = [(t, o) for t, o in [*seen, (now, ok)] if t >= now - 10.0]
        failed = sum(not o for _, o in seen)
        expected = "open" if counts and len(seen) >= 20 and failed >= len(seen) / 2 else "closed"
        assert breaker.state == expected
