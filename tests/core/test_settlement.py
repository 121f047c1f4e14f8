"""The tracker against a naive model, and the mutants that would lose a message."""

from __future__ import annotations

import gc

import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from branchy.core.settlement import SETTLED_KEPT, SettlementTracker

A, B = ("edge", 0, 1), ("edge", 0, 2)


def tracked(*positions: int) -> SettlementTracker:
    tracker = SettlementTracker()
    for position in positions:
        tracker.track(A, position)
    return tracker


def test_nothing_is_committable_before_the_lowest_is_settled():
    tracker = tracked(5, 6, 7)
    tracker.settle(A, 6)
    tracker.settle(A, 7)
    assert tracker.committable(A) is None


def test_an_open_position_stops_the_commit_at_itself():
    tracker = tracked(5, 6, 7)
    tracker.settle(A, 5)
    tracker.settle(A, 7)
    assert tracker.committable(A) == 6


def test_all_settled_commits_the_one_after_the_last():
    tracker = tracked(5, 6, 7)
    for position in (7, 5, 6):
        tracker.settle(A, position)
    assert tracker.committable(A) == 8


def test_gaps_between_offsets_do_not_hold_the_commit_back():
    tracker = tracked(5, 90)
    tracker.settle(A, 5)
    assert tracker.committable(A) == 90


def test_epochs_of_one_partition_are_apart():
    tracker = tracked(5)
    tracker.track(B, 5)
    tracker.settle(B, 5)
    assert tracker.committable(A) is None
    assert tracker.committables() == {B: 6}


def test_a_forgotten_assignment_is_neither_open_nor_committable():
    tracker = tracked(5, 6)
    tracker.settle(A, 5)
    tracker.forget(A)
    assert tracker.unsettled == 0
    assert tracker.committable(A) is None
    assert tracker.open(A) == frozenset()
    assert not tracker.settle(A, 6)


def test_settling_twice_or_what_was_never_tracked_changes_nothing():
    tracker = tracked(5, 6)
    assert tracker.settle(A, 5)
    assert not tracker.settle(A, 5)
    assert not tracker.settle(A, 99)
    assert tracker.unsettled == 1
    assert tracker.committable(A) == 6


@given(st.permutations(range(12)), st.integers(1, 50))
def test_any_order_ends_after_the_last_and_never_steps_back(order: list[int], gap: int):
    tracker = tracked(*(p * gap for p in range(12)))
    seen = []
    for position in order:
        tracker.settle(A, position * gap)
        seen.append(tracker.committable(A) or 0)
    assert seen == sorted(seen)
    assert seen[-1] == 11 * gap + 1
    assert tracker.unsettled == 0


def held(tracker: SettlementTracker) -> int:
    """How many objects it refers to, over however many others."""
    found, look_at = {id(tracker): tracker}, [tracker]
    while look_at:
        for each in gc.get_referents(look_at.pop()):
            if id(each) not in found and not isinstance(each, type):
                found[id(each)] = each
                look_at.append(each)
    return len(found)


@pytest.mark.parametrize("still_open", [1, 500])
def test_what_is_settled_behind_an_open_position_takes_no_room(still_open: int):
    tracker = tracked(*range(still_open))
    before = held(tracker)
    for position in range(1000, 101_000):
        tracker.track(A, position)
        tracker.settle(A, position)
    assert tracker.unsettled == still_open
    assert held(tracker) <= before + still_open + SETTLED_KEPT + 1, "and the highest, for the commit"
    assert tracker.committable(A) is None
    for position in reversed(range(still_open)):
        tracker.settle(A, position)
    assert tracker.committable(A) == 101_000


class AgainstModel(RuleBasedStateMachine):
    """The naive model keeps every position and looks at all of them each time."""

    def __init__(self):
        super().__init__()
        self.tracker = SettlementTracker()
        self.all: dict[tuple, list[int]] = {}
        self.open: dict[tuple, set[int]] = {}

    @rule(key=st.sampled_from([A, B]), step=st.integers(1, 4))
    def track(self, key, step):
        positions = self.all.setdefault(key, [])
        positions.append((positions[-1] if positions else -1) + step)
        self.open.setdefault(key, set()).add(positions[-1])
        assert self.tracker.track(key, positions[-1])

    @rule(key=st.sampled_from([A, B]))
    def track_the_newest_again(self, key):
        if self.open.get(key):
            assert not self.tracker.track(key, max(self.open[key]))

    @precondition(lambda self: any(self.open.values()))
    @rule(data=st.data())
    def settle(self, data):
        key = data.draw(st.sampled_from([k for k, v in self.open.items() if v]))
        position = data.draw(st.sampled_from(sorted(self.open[key])))
        self.open[key].discard(position)
        assert self.tracker.settle(key, position)

    @rule(key=st.sampled_from([A, B]), position=st.integers(0, 40))
    def settle_anything(self, key, position):
        known = position in self.open.get(key, ())
        self.open.get(key, set()).discard(position)
        assert self.tracker.settle(key, position) == known

    @rule(key=st.sampled_from([A, B]))
    def forget(self, key):
        self.all.pop(key, None)
        self.open.pop(key, None)
        self.tracker.forget(key)

    @invariant()
    def agrees(self):
        expected = {}
        for key, positions in self.all.items():
            waiting = self.open[key]
            if min(waiting, default=positions[-1] + 1) > positions[0]:
                expected[key] = min(waiting, default=positions[-1] + 1)
            assert self.tracker.open(key) == frozenset(waiting)
            assert self.tracker.committable(key) == expected.get(key)
        assert self.tracker.committables() == expected
        assert self.tracker.unsettled == sum(map(len, self.open.values()))


TestAgainstModel = AgainstModel.TestCase
