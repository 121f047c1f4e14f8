"""What the memory broker has beyond the contract: time by a clock of one's own, outages, rebalances, faults."""

from __future__ import annotations

import threading

import pytest
from transport_harness import Events, message, texts

from branchy.errors import BrokerUnavailableError, TransportError
from branchy.transport.base import LinkState, Message, Replied, Revoked, Sent
from branchy.transport.memory import MemoryBroker, MemoryLink

QUEUE, ANSWERS = "branchy.c.edge.requests", "branchy.c.device.answers"


class Clock:
    now_s = 100.0

    def __call__(self) -> float:
        return self.now_s


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def broker(clock: Clock) -> MemoryBroker:
    return MemoryBroker(clock=clock, max_message_bytes=1000)


@pytest.fixture
def link(broker: MemoryBroker) -> MemoryLink:
    link = broker.link("back")
    link.prepare([QUEUE, ANSWERS], 1)
    return link


def test_an_age_is_what_the_clock_says(link: MemoryLink, broker: MemoryBroker, clock: Clock):
    broker.put(QUEUE, message("early"))
    clock.now_s += 7.0
    events = Events()
    link.requests(QUEUE, "edge", events).start()
    assert [delivery.age_s for delivery in events.deliveries()] == [7.0]


def test_the_lags_of_a_groups_members_are_together_what_waits(link: MemoryLink, broker: MemoryBroker):
    members = [link.requests(QUEUE, "edge", Events()) for _ in range(3)]
    for each in members:
        each.start()
        each.pause()
    for number in range(7):
        broker.put(QUEUE, message(str(number)))
    assert sorted(each.lag for each in members) == [2, 2, 3]
    members[0].resume()
    assert [each.lag for each in members] == [0, 0, 0]


def test_a_message_over_the_limit_is_refused_for_good(link: MemoryLink, broker: MemoryBroker):
    sender = link.sender(events := Events(), message_timeout_s=1, queue_limit=1)
    assert sender.send(link.queue(QUEUE), Message([("a", b"b")], b"x" * 998), 1)
    assert sender.send(link.queue(QUEUE), Message([("a", b"b")], b"x" * 999), 2)
    assert [sent.error and sent.error.permanent for sent in events.of(Sent)] == [None, True]
    assert len(broker.messages(QUEUE)) == 1


def test_an_outage_holds_sends_back_and_its_end_delivers_them(link: MemoryLink, broker: MemoryBroker):
    events = Events()
    link.requests(QUEUE, "edge", events).start()
    sender = link.sender(events, message_timeout_s=10, queue_limit=2)
    broker.take_down("cable")
    taken = [sender.send(link.queue(QUEUE), message(str(number)), number) for number in range(3)]
    assert taken == [True, True, False]
    assert events.of(Sent) == []
    assert sender.flush(1) == 2
    broker.bring_up()
    assert texts(events.deliveries()) == ["0", "1"]
    assert [sent.error for sent in events.of(Sent)] == [None, None]
    assert events.of(LinkState) == [LinkState("back", False, "cable"), LinkState("back", True, "")]


def test_a_send_that_waited_too_long_fails_for_now_and_is_never_delivered(link, broker, clock):
    events = Events()
    link.requests(QUEUE, "edge", events).start()
    sender = link.sender(events, message_timeout_s=5, queue_limit=9)
    broker.take_down()
    sender.send(link.queue(QUEUE), message("late"), 1)
    clock.now_s += 4.9
    broker.expire()
    assert events.of(Sent) == []
    clock.now_s += 0.1
    broker.bring_up()
    (sent,) = events.of(Sent)
    assert sent.error is not None
    assert not sent.error.permanent
    assert events.deliveries() == []


def test_a_purge_fails_what_is_held_back(link: MemoryLink, broker: MemoryBroker):
    sender = link.sender(events := Events(), message_timeout_s=5, queue_limit=9)
    broker.take_down()
    sender.send(link.queue(QUEUE), message("x"), 1)
    sender.purge()
    broker.bring_up()
    assert [sent.error.text for sent in events.of(Sent)] == ["purged"]


def test_a_broker_that_is_down_cannot_be_prepared_or_asked_for_an_inbox(link: MemoryLink, broker: MemoryBroker):
    broker.take_down()
    with pytest.raises(BrokerUnavailableError):
        link.prepare([QUEUE], 1)
    with pytest.raises(BrokerUnavailableError):
        link.replies(ANSWERS, "0", Events(), 1)
    assert not link.sender(Events(), message_timeout_s=1, queue_limit=1).wait_ready(1)


def test_a_queue_that_was_not_prepared_cannot_be_read(link: MemoryLink):
    with pytest.raises(TransportError, match="expected a topic that is there, got branchy"):
        link.requests("branchy.other.requests", "edge", Events())


def test_a_revoked_share_is_told_and_what_was_not_settled_meanwhile_is_handed_out_again(link, broker):
    settle_one = []

    def on_event(event) -> None:
        if isinstance(event, Revoked):
            settle_one.append(event)
            source.settle(min(event.tokens))
            event.done.set()

    events = Events(on_event)
    source = link.requests(QUEUE, "edge", events)
    source.start()
    for body in ("a", "b", "c"):
        broker.put(QUEUE, message(body))
    source.revoke()
    assert len(settle_one[0].tokens) == 3
    assert texts(events.deliveries()) == ["a", "b", "c", "b", "c"]
    assert source.unsettled() == 2


def test_a_lost_share_is_not_waited_for(link: MemoryLink, broker: MemoryBroker):
    events = Events()
    source = link.requests(QUEUE, "edge", events)
    source.start()
    broker.put(QUEUE, message("a"))
    source.revoke(lost=True)
    (revoked,) = events.of(Revoked)
    assert revoked.lost
    assert texts(events.deliveries()) == ["a", "a"]


def test_a_revoke_waits_for_done_while_another_thread_settles(link: MemoryLink, broker: MemoryBroker):
    events = Events()
    source = link.requests(QUEUE, "edge", events)
    source.start()
    broker.put(QUEUE, message("a"))

    def answer() -> None:
        (revoked,) = events.wait(Revoked)
        for token in revoked.tokens:
            source.settle(token)
        revoked.done.set()

    thread = threading.Thread(target=answer)
    thread.start()
    source.revoke(wait_s=10)
    thread.join()
    assert source.unsettled() == 0


def test_what_comes_again_comes_before_what_is_newer(link: MemoryLink, broker: MemoryBroker):
    first = link.requests(QUEUE, "edge", Events())
    first.start()
    for body in ("a", "b"):
        broker.put(QUEUE, message(body))
    first.pause()
    broker.put(QUEUE, message("c"))
    first.close()
    events = Events()
    link.requests(QUEUE, "edge", events).start()
    assert texts(events.deliveries()) == ["a", "b", "c"]


def test_replicas_take_turns(link: MemoryLink, broker: MemoryBroker):
    both = [Events(), Events()]
    for events in both:
        link.requests(QUEUE, "edge", events).start()
    for number in range(6):
        broker.put(QUEUE, message(str(number)))
    assert [texts(events.deliveries()) for events in both] == [["0", "2", "4"], ["1", "3", "5"]]


def test_a_fault_that_is_put_in_is_delivered_as_one(link: MemoryLink, broker: MemoryBroker):
    events = Events()
    link.requests(QUEUE, "edge", events).start()
    broker.put(QUEUE, message("x"), fault="cannot be read")
    assert events.deliveries()[0].fault == "cannot be read"


def test_a_closed_link_tells_no_more_of_outages(link: MemoryLink, broker: MemoryBroker):
    events = Events()
    inbox = link.replies(ANSWERS, "0", events, 1)
    link.close()
    broker.take_down()
    broker.bring_up()
    inbox.close()
    assert events.of(LinkState) == []


def test_a_closed_inbox_receives_nothing(link: MemoryLink):
    events = Events()
    inbox = link.replies(ANSWERS, "0", events, 1)
    inbox.close()
    link.sender(Events(), message_timeout_s=1, queue_limit=1).send(inbox.address, message("x"), 1)
    assert events.of(Replied) == []
