"""The one suite that every transport passes; what one cannot do is skipped by the name of its capability."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, closing
from dataclasses import dataclass

import pytest
from transport_harness import PATIENCE_S, Events, Harness, fresh_name, message, texts

from branchy.errors import TransportError
from branchy.transport.base import Link, Replied, RequestSource, Sender, Sent

pytestmark = pytest.mark.slow

PREPARE_S = 20.0
SHARE_S = 60.0
"""Within this a second replica has its share."""


@dataclass
class Bench:
    """A link with a queue and a topic of answers, everything opened on it closed at the end."""

    harness: Harness
    link: Link
    queue: str
    answers: str
    stack: ExitStack

    def source(self, events: Events, group: str = "edge") -> RequestSource:
        source = self.stack.enter_context(closing(self.link.requests(self.queue, group, events)))
        source.start()
        assert source.wait_ready(20)
        return source

    def sender(self, events: Events, queue_limit: int = 1000, message_timeout_s: float = 10.0) -> Sender:
        sender = self.link.sender(events, message_timeout_s=message_timeout_s, queue_limit=queue_limit)
        return self.stack.enter_context(closing(sender))

    def inbox(self, events: Events, replica: str = "0"):
        return self.stack.enter_context(closing(self.link.replies(self.answers, replica, events, 10)))


@pytest.fixture
def bench(transport: Harness) -> Iterator[Bench]:
    with ExitStack() as stack:
        link = stack.enter_context(closing(transport.link()))
        name = fresh_name()
        queue, answers = f"{name}.edge.requests", f"{name}.device.answers"
        link.prepare([queue, answers], PREPARE_S)
        yield Bench(transport, link, queue, answers, stack)


def send_all(bench: Bench, bodies: list[str], **kwargs) -> None:
    bench.harness.feed(bench.link.queue(bench.queue), [message(body) for body in bodies], **kwargs)


def test_prepare_gives_the_largest_message_of_each_topic(bench: Bench):
    limits = bench.link.prepare([bench.queue, bench.answers], PREPARE_S)
    assert set(limits) == {bench.queue, bench.answers}
    assert all(limit > 100_000 for limit in limits.values())


def test_a_message_over_the_limit_fails_for_good_and_one_at_the_limit_arrives(bench: Bench):
    limit = bench.link.prepare([bench.queue], PREPARE_S)[bench.queue]
    events, arrived = Events(), Events()
    bench.source(arrived)
    sender = bench.sender(events)
    assert sender.send(bench.link.queue(bench.queue), message("x" * limit), "fits")
    assert sender.send(bench.link.queue(bench.queue), message("x" * (limit + 2048)), "too large")
    fates = {sent.tag: sent.error for sent in events.wait(Sent, 2)}
    assert fates["fits"] is None
    assert fates["too large"].permanent
    assert len(arrived.wait_deliveries(1)[0].message.body) == limit


def test_a_request_is_answered_to_its_address_with_its_correlation(bench: Bench):
    tier, device = Events(), Events()
    source = bench.source(tier)
    inbox = bench.inbox(device, "7")
    asking, answering = bench.sender(Events()), bench.sender(Events())
    asked = message("question", ce_type="branchy.request", twice="a")
    correlation = bytes(range(256))
    assert asking.send(bench.link.queue(bench.queue), asked, 1, correlation=correlation, reply_to=inbox.address)

    (delivery,) = tier.wait_deliveries(1)
    assert list(delivery.message.headers) == list(asked.headers)
    assert delivery.message.body == b"question"
    assert (delivery.correlation, delivery.reply_to, delivery.fault) == (correlation, inbox.address, None)

    answer = message("answer", ce_type="branchy.answer")
    assert answering.send(delivery.reply_to, answer, 2, correlation=delivery.correlation)
    source.settle(delivery.token)
    (replied,) = device.wait(Replied)
    assert replied.correlation == correlation
    assert list(replied.message.headers) == list(answer.headers)
    assert replied.message.body == b"answer"


def test_headers_keep_their_order_and_repeated_names_both_values(bench: Bench):
    events = Events()
    bench.source(events)
    asked = message("body")
    headers = [("b", b"1"), ("a", b"\x00\xff"), ("b", b"2"), ("empty", b"")]
    sender = bench.sender(Events())
    assert sender.send(bench.link.queue(bench.queue), type(asked)(headers, asked.body), 1)
    assert list(events.wait_deliveries(1)[0].message.headers) == headers


def test_a_request_may_ask_for_no_answer(bench: Bench):
    events = Events()
    bench.source(events)
    send_all(bench, ["quiet"])
    (delivery,) = events.wait_deliveries(1)
    assert (delivery.reply_to, delivery.correlation, delivery.fault) == (None, None, None)


def test_no_answer_is_lost_between_opening_an_inbox_and_the_first_answer(bench: Bench):
    sender = bench.sender(Events())
    assert sender.wait_ready(10)
    for attempt in range(20):
        events = Events()
        with closing(bench.link.replies(bench.answers, str(attempt), events, 10)) as inbox:
            assert sender.send(inbox.address, message(f"answer {attempt}"), attempt, correlation=b"c")
            assert events.wait(Replied)[0].message.body == f"answer {attempt}".encode()


def test_an_inbox_receives_nothing_of_before_it_opened(bench: Bench):
    with closing(bench.link.replies(bench.answers, "3", Events(), 10)) as early:
        address = early.address
    sender, sent = bench.sender(events := Events()), events
    assert sender.send(address, message("old"), 1)
    sent.wait(Sent)
    late = Events()
    bench.inbox(late, "3")
    assert sender.send(address, message("new"), 2)
    assert late.wait(Replied)[0].message.body == b"new"


def test_answers_arrive_in_the_order_they_were_sent(bench: Bench):
    events = Events()
    inbox = bench.inbox(events)
    sender = bench.sender(Events())
    for number in range(300):
        assert sender.send(inbox.address, message(str(number)), number)
    assert [int(replied.message.body) for replied in events.wait(Replied, 300)] == list(range(300))


def test_a_sender_says_when_it_is_ready(bench: Bench):
    assert bench.sender(Events()).wait_ready(10)


def test_every_send_is_reported_exactly_once(bench: Bench):
    events = Events()
    sender = bench.sender(events)
    tags = [("tag", number) for number in range(200)]
    for tag in tags:
        assert sender.send(bench.link.queue(bench.queue), message("x"), tag)
    assert sender.flush(10) == 0
    sender.close()
    reported = [sent.tag for sent in events.of(Sent)]
    assert sorted(reported) == tags


def test_what_a_closed_source_had_not_settled_comes_again(bench: Bench):
    bodies = [str(number) for number in range(20)]
    first = Events()
    source = bench.source(first)
    send_all(bench, bodies)
    deliveries = first.wait_deliveries(20)
    left = set(texts(deliveries[::2]))
    for delivery in deliveries[1::2]:
        source.settle(delivery.token)
    source.close()
    if not bench.link.capabilities.redelivers:
        pytest.skip("redelivers")
    again = Events()
    bench.source(again)
    again.wait_until(lambda: left <= set(texts(again.deliveries())))


def test_all_settled_and_closed_leaves_nothing_to_come_again(bench: Bench):
    first = Events()
    source = bench.source(first)
    send_all(bench, [str(number) for number in range(20)])
    for delivery in first.wait_deliveries(20):
        source.settle(delivery.token)
    assert source.unsettled() == 0
    source.close()
    again = Events()
    bench.source(again)
    send_all(bench, ["last"])
    assert texts(again.wait_deliveries(1)) == ["last"]


def test_settling_twice_or_something_unknown_is_ignored(bench: Bench):
    events = Events()
    source = bench.source(events)
    send_all(bench, ["a", "b"])
    first, _ = events.wait_deliveries(2)
    source.settle("unknown")
    source.settle(first.token)
    source.settle(first.token)
    assert source.unsettled() == 1


def test_what_a_killed_consumer_had_not_settled_goes_to_another(bench: Bench):
    if not bench.link.capabilities.redelivers:
        pytest.skip("redelivers")
    bodies = [str(number) for number in range(10)]
    victim = bench.harness.victim(bench.queue, "edge", settle=0)
    send_all(bench, bodies)
    assert sorted(victim.wait_received(10)) == sorted(bodies)
    victim.kill()
    events = Events()
    source = bench.link.requests(bench.queue, "edge", events)
    bench.stack.enter_context(closing(source))
    source.start()
    assert sorted(texts(events.wait_deliveries(10, timeout_s=60))) == sorted(bodies)


def test_what_a_killed_consumer_had_settled_does_not_come_again(bench: Bench):
    if not bench.link.capabilities.redelivers:
        pytest.skip("redelivers")
    victim = bench.harness.victim(bench.queue, "edge", settle=3)
    for body in ("0", "1", "2"):
        send_all(bench, [body])
        victim.wait_received(1)
    send_all(bench, ["3"])
    victim.wait_received(1)
    victim.kill()
    events = Events()
    source = bench.link.requests(bench.queue, "edge", events)
    bench.stack.enter_context(closing(source))
    source.start()
    assert texts(events.wait_deliveries(1, timeout_s=60)) == ["3"]


def test_replicas_share_a_queue_and_each_request_goes_to_one_of_them(bench: Bench):
    if not bench.link.capabilities.replicas:
        pytest.skip("replicas")
    together = Events()
    both = Events(together), Events(together)
    for events in both:
        bench.source(events)
    sent: list[str] = []
    until_s = time.monotonic() + SHARE_S
    while not all(events.deliveries() for events in both):
        assert time.monotonic() < until_s, f"one of two replicas got all of {len(sent)} requests"
        more = [str(number) for number in range(len(sent), len(sent) + 20)]
        send_all(bench, more)
        sent += more
    shared = [f"shared {number}" for number in range(100)]
    send_all(bench, shared)
    together.wait_until(lambda: set(sent + shared) <= set(texts(together.deliveries())))
    count = Counter(texts(together.deliveries()))
    assert [count[body] for body in shared] == [1] * len(shared)


def test_other_groups_read_a_queue_for_themselves(bench: Bench):
    one, other = Events(), Events()
    bench.source(one, "edge")
    bench.source(other, "audit")
    send_all(bench, ["a", "b"])
    assert sorted(texts(one.wait_deliveries(2))) == sorted(texts(other.wait_deliveries(2))) == ["a", "b"]


def test_a_paused_source_delivers_again_after_resume_and_loses_nothing(bench: Bench):
    events = Events()
    source = bench.source(events)
    send_all(bench, ["before"])
    events.wait_deliveries(1)
    source.pause()
    later = [f"later {number}" for number in range(50)]
    send_all(bench, later)
    source.resume()
    assert sorted(texts(events.wait_deliveries(51))[1:]) == sorted(later)


def test_while_paused_nothing_is_delivered(bench: Bench):
    events = Events()
    source = bench.source(events)
    send_all(bench, ["before"])
    events.wait_deliveries(1)
    source.pause()
    witness = Events()
    bench.source(witness, "witness")
    send_all(bench, ["in passing"])  # a pause takes hold with the consumer's next turn; this one may still come
    witness.wait_deliveries(2)
    send_all(bench, ["later"])
    witness.wait_deliveries(3)
    assert "later" not in texts(events.deliveries())
    source.resume()
    assert sorted(texts(events.wait_deliveries(3))) == ["before", "in passing", "later"]


def until_lag(source: RequestSource, expected: int) -> None:
    deadline_s = time.monotonic() + PATIENCE_S
    while source.lag != expected:
        assert time.monotonic() < deadline_s, f"expected a lag of {expected}, got {source.lag}"
        time.sleep(0.02)


def test_before_it_is_started_and_after_it_is_closed_a_sources_lag_is_not_known(bench: Bench):
    source = bench.link.requests(bench.queue, "edge", Events())
    with closing(source):
        assert source.lag is None
        source.start()
        until_lag(source, 0)
    assert source.lag is None


def test_a_paused_sources_lag_is_what_was_sent_and_it_is_gone_once_that_is_taken(bench: Bench):
    events, witnessed = Events(), Events()
    source = bench.source(events)
    send_all(bench, ["before"])
    events.wait_deliveries(1)
    source.pause()
    witness = bench.source(witnessed, "witness")
    send_all(bench, [str(number) for number in range(40)])
    witnessed.wait_deliveries(41)
    in_passing = len(events.deliveries()) - 1  # a pause takes hold with the consumer's next turn
    until_lag(source, 40 - in_passing)
    until_lag(witness, 0)
    source.resume()
    events.wait_deliveries(41)
    until_lag(source, 0)


def test_what_is_taken_is_no_lag_before_it_is_settled_nor_what_was_settled_after_a_restart(bench: Bench):
    events = Events()
    source = bench.source(events)
    send_all(bench, [str(number) for number in range(40)])
    taken = events.wait_deliveries(40)
    until_lag(source, 0)
    for delivery in taken:
        source.settle(delivery.token)
    source.close()
    until_lag(bench.source(Events()), 0)


def test_an_unreadable_message_is_delivered_as_a_fault_and_the_next_one_arrives(bench: Bench):
    events = Events()
    source = bench.source(events)
    bench.harness.put_unreadable(bench.queue)
    (fault,) = events.wait_deliveries(1)
    assert fault.fault
    assert fault.reply_to is None
    send_all(bench, [str(number) for number in range(40)])  # on every partition, the broken one too
    deliveries = events.wait_deliveries(41)
    assert [delivery.fault for delivery in deliveries[1:]] == [None] * 40
    for delivery in deliveries:
        source.settle(delivery.token)
    assert source.unsettled() == 0


def test_browsing_gives_what_is_there_again_and_again_and_takes_nothing_from_anyone(bench: Bench):
    bodies = sorted(str(number) for number in range(40))
    with closing(bench.link.replies(bench.answers, "0", Events(), 10)) as inbox:
        address = inbox.address
    send_all(bench, bodies, correlation=b"c", reply_to=address)
    for _ in range(2):
        found = list(bench.link.browse(bench.queue, 10))
        assert sorted(texts(found)) == bodies
        assert {(each.correlation, each.reply_to, each.fault) for each in found} == {(b"c", address, None)}
        assert all(0.0 <= each.age_s < 60.0 for each in found)
    events = Events()
    bench.source(events)
    assert sorted(texts(events.wait_deliveries(40))) == bodies


def test_browsing_ends_where_the_topic_ended_when_it_began(bench: Bench):
    assert list(bench.link.browse(bench.queue, 10)) == []
    send_all(bench, ["before"])
    found = bench.link.browse(bench.queue, 10)
    send_all(bench, ["after"] * 20)
    assert texts(list(found)) == ["before"]


def test_browsing_gets_past_an_unreadable_message(bench: Bench):
    bench.harness.put_unreadable(bench.queue)
    send_all(bench, [str(number) for number in range(40)])
    found = list(bench.link.browse(bench.queue, 10))
    assert [bool(each.fault) for each in found].count(True) == 1
    assert sorted(texts(found)) == ["", *sorted(str(number) for number in range(40))]


def test_a_reply_address_that_is_not_there_is_a_fault(bench: Bench):
    events = Events()
    bench.source(events)
    elsewhere = bench.link.queue("elsewhere.answers")
    send_all(bench, ["stray"], correlation=b"c", reply_to=elsewhere)
    (delivery,) = events.wait_deliveries(1)
    assert delivery.reply_to is None
    assert "elsewhere.answers" in (delivery.fault or "")
    assert delivery.message.body == b"stray"


def test_sending_to_a_topic_that_is_not_there_fails_for_good(bench: Bench):
    events = Events()
    sender = bench.sender(events)
    assert sender.send(bench.link.queue(fresh_name()), message("x"), 1)
    (sent,) = events.wait(Sent)
    assert sent.error is not None
    assert sent.error.permanent


def test_opening_what_was_not_prepared_is_an_error(bench: Bench):
    with pytest.raises(TransportError, match="expected a topic that is there, got branchy"):
        bench.link.replies(f"{fresh_name()}.answers", "0", Events(), 5)
    with pytest.raises(TransportError, match="expected a topic that is there, got branchy"):
        bench.link.browse(f"{fresh_name()}.dead", 5)


def test_everything_may_be_closed_twice(bench: Bench):
    source = bench.source(Events())
    sender = bench.sender(Events())
    inbox = bench.inbox(Events())
    for thing in (source, sender, inbox, bench.link):
        thing.close()
        thing.close()


def test_a_source_that_never_started_can_be_closed(bench: Bench):
    source = bench.link.requests(bench.queue, "edge", Events())
    source.close()
    source.close()


def test_a_closed_source_delivers_nothing_more(bench: Bench):
    closed = Events()
    bench.source(closed).close()
    open_one = Events()
    bench.source(open_one)
    send_all(bench, ["for the other"])
    open_one.wait_deliveries(1)
    assert closed.deliveries() == []


def test_ages_are_never_negative_and_small_for_what_was_just_sent(bench: Bench):
    events = Events()
    bench.source(events)
    send_all(bench, ["teaches the clock"])
    send_all(bench, ["a", "b"])
    ages = [delivery.age_s for delivery in events.wait_deliveries(3)]
    assert all(0.0 <= age < 10.0 for age in ages)
