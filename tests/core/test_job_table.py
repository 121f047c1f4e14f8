"""Who is under way in a tier: found by delivery, by attempt and by when it is due."""

from __future__ import annotations

import numpy as np
import pytest

from branchy.core.deadline import Deadline
from branchy.core.job_table import ENDED_KEPT, JobTable
from branchy.core.jobs import Job
from branchy.core.messages import Request
from branchy.core.policies import Verdict
from branchy.core.tier_events import Came

SAMPLE = np.arange(4, dtype=np.float32)


def a_job(token: int, *, request: str = "r", correlation: bytes | None = b"c", sample=SAMPLE, expires=10.0) -> Job:
    asked = Request(request, "m", "edge", 1000.0, {"sample": sample}, body_bytes=100)
    return Job(Came(token, asked, "back", correlation, 0.0), Deadline(expires, expires - 1.0), sample, 0.0)


def test_a_job_is_there_under_its_delivery_until_it_is_removed():
    table = JobTable()
    one, other = a_job(1), a_job(2, request="other")
    table.add(one)
    table.add(other)
    assert (len(table), 1 in table, table.get(2)) == (2, True, other)
    table.remove(one)
    assert [*table] == [other]
    assert 1 not in table
    assert table.get(1) is None
    assert one.ended


def test_jobs_may_be_removed_while_one_goes_through_them():
    table = JobTable()
    for token in range(3):
        table.add(a_job(token, request=str(token)))
    for job in table:
        table.remove(job)
    assert not len(table)


@pytest.mark.parametrize(
    ("other", "same"),
    [
        ({}, True),
        ({"request": "other"}, False),
        ({"correlation": b"other"}, False),
        ({"correlation": None}, False),
        ({"sample": SAMPLE + 1}, False),
    ],
)
def test_the_same_is_who_asks_the_same_in_the_same_attempt(other, same):
    table = JobTable()
    first = a_job(1)
    table.add(first)
    assert table.same(a_job(2, **other)) is (first if same else None)


def test_one_that_came_later_under_the_same_ids_stays_when_the_first_is_removed():
    table = JobTable()
    first, second = a_job(1), a_job(2, sample=SAMPLE + 1)
    table.add(first)
    table.add(second)
    table.remove(first)
    assert table.same(a_job(3, sample=SAMPLE + 1)) is second


def test_a_newer_delivery_takes_the_place_of_the_older():
    table = JobTable()
    job = a_job(1)
    table.add(job)
    table.move(job, 2)
    assert (table.get(1), table.get(2), job.token) == (None, job, 2)
    table.remove(job)
    assert not len(table)


def test_held_bytes_are_those_of_bodies_and_of_inputs_that_are_not_part_of_them():
    table = JobTable()
    job = a_job(1)
    table.add(job)
    held = job.request.held_bytes(job.input)
    assert table.held_bytes == held
    table.feed(job, np.zeros(10, np.float32))
    assert table.held_bytes == held + 40
    table.remove(job)
    assert table.held_bytes == 0


def test_jobs_come_due_the_earliest_first_and_those_that_ended_do_not():
    table = JobTable()
    late, early, ended = (a_job(i, request=str(i), expires=expires) for i, expires in ((1, 9.0), (2, 5.0), (3, 4.0)))
    for job in (late, early, ended):
        table.add(job)
    table.remove(ended)
    assert table.next_due == 5.0
    assert table.due(4.9) is None
    assert [table.due(9.0), table.due(9.0), table.due(9.0)] == [early, late, None]
    assert table.next_due is None


def test_with_a_prediction_a_job_is_due_in_time_for_its_way_back():
    table = JobTable()
    job = a_job(1, expires=5.0)
    table.add(job)
    job.verdict = Verdict(0, 0.9, (0.9, 0.1), sure=False)
    table.watch(job)
    assert table.next_due == 4.0


def test_timers_of_jobs_that_ended_do_not_pile_up():
    table = JobTable()
    for token in range(2 * ENDED_KEPT):
        job = a_job(token, expires=1e9)
        table.add(job)
        table.remove(job)
    assert len(table._timers) <= ENDED_KEPT + 2
