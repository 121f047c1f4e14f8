from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tier_world import TIERS, request

from branchy.core.deadline import Deadline
from branchy.core.jobs import NOTHING, Job, WorkQueue
from branchy.core.tier_events import Came

STAGES = TIERS["two"]


def job(number: int = 0, expires: float = 1.0, position: int = 0, model: str = "m") -> Job:
    event = Came(number, request(STAGES, number, model=model), "device", b"c")
    made = Job(event, Deadline(expires, expires - 0.01), NOTHING, now=0.0)
    made.position = position
    return made


@given(st.lists(st.tuples(st.floats(0, 10), st.integers(0, 1), st.sampled_from("ab")), max_size=40), st.integers(1, 8))
def test_batches_are_of_one_stage_and_model_an_earlier_stage_first_then_the_most_urgent(entries, most):
    queue = WorkQueue()
    jobs = [job(n, expires, position, model) for n, (expires, position, model) in enumerate(entries)]
    for one in jobs:
        queue.push(one)
    taken: list[Job] = []
    while batch := queue.take(most):
        assert len(batch) <= most
        assert len({(one.position, one.request.model) for one in batch}) == 1
        left = [one for one in jobs if one not in taken]
        first = min((one.position, one.deadline.expires) for one in left)
        assert (batch[0].position, batch[0].deadline.expires) == first
        same = [one for one in left if (one.position, one.request.model) == (batch[0].position, batch[0].request.model)]
        urgent = sorted(one.deadline.expires for one in same)[: len(batch)]
        assert [one.deadline.expires for one in batch] == urgent
        taken += batch
        assert len(queue) == len(jobs) - len(taken)
        assert queue.later == sum(one.position > 0 for one in jobs if one not in taken)
    assert sorted(one.token for one in taken) == list(range(len(jobs)))


def test_a_job_that_ended_while_it_waited_is_not_computed():
    queue = WorkQueue()
    ended, alive = job(1), job(2)
    queue.push(ended)
    queue.push(alive)
    ended.phase = "done"
    queue.discard(ended)
    assert len(queue) == 1
    assert queue.take(8) == [alive]
    assert queue.take(8) == []


def computed(queue: WorkQueue, position: int, seconds: float) -> None:
    queue.push(job(position=position))
    queue.computed(queue.take(1), seconds)


def test_the_wait_grows_with_what_is_ahead_and_is_none_when_idle():
    queue = WorkQueue()
    computed(queue, 0, 0.1)
    assert queue.wait_s("m", 0) == 0.0
    for number in range(4):
        queue.push(job(number))
    queue.take(2)
    assert queue.wait_s("m", 0) == pytest.approx(0.5)


def test_a_batch_held_up_once_does_not_make_the_next_ones_look_slow_but_slow_ones_do():
    queue = WorkQueue()
    for seconds in (0.1, 0.1, 30.0, 0.1):
        computed(queue, 0, seconds)
    queue.push(job())
    assert queue.wait_s("m", 0) == pytest.approx(0.2)
    for _ in range(6):
        computed(queue, 0, 0.5)
    assert queue.wait_s("m", 0) == pytest.approx(1.0)


@pytest.mark.parametrize(("item_s", "size"), [(0.0001, 32), (0.001, 20), (0.007, 2), (0.5, 1)])
def test_a_batch_of_a_slow_stage_is_small_enough_to_be_over_soon(item_s, size):
    queue = WorkQueue()
    computed(queue, 0, item_s)
    for number in range(40):
        queue.push(job(number))
    assert len(queue.take(32)) == size


def test_only_what_goes_before_it_makes_one_wait():
    queue = WorkQueue()
    computed(queue, 0, 0.1)
    computed(queue, 1, 2.0)
    for _ in range(3):
        queue.push(job(position=1))
    assert queue.wait_s("m", 0) == 0.0
    queue.push(job())
    assert queue.wait_s("m", 0) == pytest.approx(0.2)
    assert queue.wait_s("m", 1) == pytest.approx(0.1 + 3 * 2.0 + 2.0)


def test_behind_a_running_batch_one_may_use_all_of_its_time_behind_others_a_third():
    queue = WorkQueue()
    assert queue.fits("m", 0, 0.001, fallback=True), "one is always let in when nothing is ahead of it"
    computed(queue, 0, 0.1)
    queue.push(job())
    assert queue.take(1)
    assert queue.fits("m", 0, 0.21, fallback=True)
    assert not queue.fits("m", 0, 0.19, fallback=True)
    queue.push(job())
    assert queue.fits("m", 0, 0.91, fallback=True)
    assert not queue.fits("m", 0, 0.89, fallback=True)


def test_one_that_nobody_else_has_an_answer_for_may_use_all_of_its_time():
    queue = WorkQueue()
    computed(queue, 0, 0.1)
    for _ in range(2):
        queue.push(job())
    assert queue.fits("m", 0, 0.31, fallback=False)
    assert not queue.fits("m", 0, 0.29, fallback=False)


def test_what_waits_for_a_later_stage_leaves_an_earlier_one_all_its_time():
    queue = WorkQueue()
    computed(queue, 1, 2.0)
    computed(queue, 0, 0.1)
    queue.push(job(position=0))
    assert queue.take(1)
    queue.push(job(position=1))
    assert queue.fits("m", 0, 0.21, fallback=True)
    assert queue.fits("m", 1, 12.4, fallback=True)
    assert not queue.fits("m", 1, 12.2, fallback=True)


def test_one_that_ended_some_other_way_makes_nobody_wait():
    queue = WorkQueue()
    computed(queue, 0, 0.1)
    ended = job()
    queue.push(ended)
    ended.phase = "done"
    queue.discard(ended)
    assert queue.wait_s("m", 0) == 0.0


def test_a_job_is_due_when_the_requester_leaves_or_with_a_prediction_in_time_for_the_way_back():
    one = job(expires=5.0)
    assert one.due == 5.0
    one.verdict = object()
    assert one.due == 4.99


def test_the_oldest_is_the_one_asked_for_first_of_those_that_wait():
    queue = WorkQueue()
    assert queue.oldest() is None
    jobs = [job(number, expires) for number, expires in enumerate([1.0, 2.0, 3.0])]
    for one, asked in zip(jobs, [-0.5, -2.0, -1.0], strict=True):
        one.asked = asked
        queue.push(one)
    assert queue.oldest() == -2.0
    jobs[1].phase = "done"
    queue.discard(jobs[1])
    assert queue.oldest() == -1.0
    assert queue.take(1) == [jobs[0]]
    assert queue.oldest() == -1.0
    queue.take(1)
    assert queue.oldest() is None
