from __future__ import annotations

from collections.abc import Iterator

import pytest
from memory_cascade import CASCADE, MemoryCascade, sample

from branchy.config import DeviceSettings
from branchy.core import topics
from branchy.errors import BrokerUnavailableError, RefusedError, TransportError, UsageError
from branchy.runner import dead_letters
from branchy.runner.dead_letters import Choice, DeadLetter, redrive, show
from branchy.transport.base import Delivery, Message

DEAD = topics.dead_letters(CASCADE, "edge")


@pytest.fixture
def cascade() -> Iterator[MemoryCascade]:
    cascade = MemoryCascade()
    yield cascade
    cascade.close()


@pytest.fixture
def settings(toy_bundle) -> DeviceSettings:
    return DeviceSettings(bundle=toy_bundle.path, cascade=CASCADE)


def garbage(request: str, body: bytes = b"garbage") -> Message:
    return Message([("branchy-model", b"x"), ("branchy-stage", b"edge"), ("branchy-request", request.encode())], body)


def put_garbage(cascade: MemoryCascade, *requests: str) -> None:
    for request in requests:
        cascade.put(garbage(request), to="edge", correlation=request.encode())
    for _ in requests:
        assert cascade.answer()[1].reason == "malformed"


def listed(settings, cascade, limit: int = 20) -> tuple[DeadLetter, ...]:
    return show(settings, limit=limit, link=cascade.broker.link("operator")).newest


def send_again(settings, cascade, choice: Choice) -> dead_letters.Redriven:
    return redrive(settings, choice, link=cascade.broker.link("operator"))


def test_a_dead_letter_says_what_is_wrong_with_which_request_and_how_large_it_was(cascade, settings):
    cascade.start("edge")
    put_garbage(cascade, "g1")
    cascade.put(Message([], b"12345"), to="edge", reply=False)
    cascade.ask(sample(0), to="edge")
    assert cascade.answer()[1].status == "ok"
    first, second = listed(settings, cascade)
    assert (first.code, first.request, first.size_bytes) == ("body", "g1", garbage("g1").size_bytes)
    assert first.answerable
    assert "safetensors" in first.reason
    assert (second.code, second.request, second.size_bytes) == ("reply-to", None, 5)
    assert not second.answerable


def test_reading_twice_shows_the_same(cascade, settings):
    cascade.broker.clock = lambda: 100.0
    cascade.start("edge")
    put_garbage(cascade, "g1", "g2")
    assert listed(settings, cascade) == listed(settings, cascade)
    assert len(cascade.dead("edge")) == 2


def test_the_newest_are_listed_and_all_are_counted(cascade, settings):
    for second in range(50):
        cascade.broker.clock = lambda now=float(second): now
        cascade.broker.put(DEAD, Message([("branchy-error-code", b"odd" if second % 2 else b"even")], b""))
    cascade.broker.clock = lambda: 50.0
    listing = show(settings, limit=3, link=cascade.broker.link("operator"))
    assert [letter.age_s for letter in listing.newest] == [3.0, 2.0, 1.0]
    assert listing.codes == {"odd": 25, "even": 25}


def test_what_no_tier_put_there_is_listed_too(cascade, settings):
    cascade.broker.put(DEAD, Message([], b"stray"))
    cascade.broker.put(DEAD, Message([], b""), fault="cannot be read: bad compression")
    assert [(letter.code, letter.reason) for letter in listed(settings, cascade)] == [
        ("unreadable", "not put there by a tier of branchy"),
        ("unreadable", "cannot be read: bad compression"),
    ]


def test_what_is_sent_again_is_as_it_first_came_and_answered_where_it_was_asked_for(cascade, settings):
    edge = cascade.start("edge")
    put_garbage(cascade, "g1")
    edge.stop()
    done = send_again(settings, cascade, Choice(all=True))
    assert (done.sent, done.unanswerable) == (1, 0)
    first, again = cascade.broker.messages(topics.requests(CASCADE, "edge"))
    assert again == Message(list(first.headers), first.body)
    cascade.start("edge")
    correlation, answer = cascade.answer()
    assert (correlation, answer.request, answer.reason) == (b"g1", "g1", "malformed")


def test_a_request_that_failed_is_answered_once_the_tier_can(cascade, settings):
    edge = cascade.start("edge")
    real, edge.engines[0].run = edge.engines[0].run, lambda batch: 1 / 0
    asked = cascade.ask(sample(0), to="edge")
    assert cascade.answer()[1].reason == "failed"
    edge.engines[0].run = real
    assert send_again(settings, cascade, Choice(requests=[asked])).sent == 1
    _, answer = cascade.answer()
    assert (answer.request, answer.status) == (asked, "ok")


@pytest.mark.parametrize(
    ("choice", "sent"),
    [
        (Choice(all=True), ["a", "b", "c"]),
        (Choice(codes=["body"]), ["a", "b"]),
        (Choice(codes=["body", "type"]), ["a", "b", "c"]),
        (Choice(requests=["b", "c"]), ["b", "c"]),
        (Choice(codes=["body"], requests=["b", "c"]), ["b"]),
        (Choice(codes=["shape"]), []),
    ],
)
def test_only_those_chosen_are_sent_again(cascade, settings, choice, sent):
    edge = cascade.start("edge")
    put_garbage(cascade, "a", "b")
    cascade.put(Message([("ce_type", b"other"), ("branchy-request", b"c")], b""), to="edge")
    assert cascade.answer()[1].request == "c"
    edge.stop()
    assert send_again(settings, cascade, choice).sent == len(sent)
    again = cascade.broker.messages(topics.requests(CASCADE, "edge"))[3:]
    assert [dict(message.headers)["branchy-request"].decode() for message in again] == sent


def test_what_has_no_reply_address_is_left_and_counted(cascade, settings):
    cascade.start("edge")
    cascade.put(garbage("quiet"), to="edge", reply=False)
    put_garbage(cascade, "g1")
    done = send_again(settings, cascade, Choice(all=True))
    assert (done.sent, done.unanswerable) == (1, 1)
    assert "left 1 with no reply address, or one that is not allowed or not there" in dead_letters.outcome(done)
    assert "the requester may be gone" in dead_letters.outcome(done)


def test_more_than_the_senders_queue_takes_are_sent_all_the_same(cascade, settings, monkeypatch):
    monkeypatch.setattr(dead_letters, "SEND_QUEUE", 3)
    link = cascade.broker.link("operator")
    real = link.sender

    def sender_with_little_room(sink, **limits):
        assert limits["queue_limit"] == 3
        sender = real(sink, **limits)
        send, room = sender.send, iter([True, True, False] * 100)
        sender.send = lambda *args, **kwargs: next(room) and send(*args, **kwargs)
        return sender

    link.sender = sender_with_little_room
    for number in range(30):
        cascade.broker.put(DEAD, garbage(str(number)), reply_to=cascade.inbox.address)
    assert redrive(settings, Choice(all=True), link=link).sent == 30
    assert len(cascade.broker.messages(topics.requests(CASCADE, "edge"))) == 30


@pytest.mark.parametrize("error", [BrokerUnavailableError, RefusedError])
def test_brokers_that_fail_on_the_way_leave_no_doubt_about_what_was_sent(cascade, settings, error):
    link = cascade.broker.link("operator")
    for number in range(3):
        cascade.broker.put(DEAD, garbage(str(number)), reply_to=cascade.inbox.address)
    letters = list(link.browse(DEAD, 5))

    def browse_until_they_fail(name: str, timeout_s: float) -> Iterator[Delivery]:
        yield from letters
        raise error("the brokers sent nothing more")

    link.browse = browse_until_they_fail
    with pytest.raises(error, match="the brokers sent nothing more; 3 were sent again before that"):
        redrive(settings, Choice(all=True), link=link)
    assert len(cascade.broker.messages(topics.requests(CASCADE, "edge"))) == 3


def test_what_the_brokers_refuse_is_an_error_that_counts(cascade, settings):
    cascade.broker.put(DEAD, garbage("small"), reply_to=cascade.inbox.address)
    cascade.broker.put(DEAD, garbage("large", bytes(2_000_000)), reply_to=cascade.inbox.address)
    with pytest.raises(TransportError, match="1 of 2 dead letters were not sent again: expected at most"):
        send_again(settings, cascade, Choice(all=True))


@pytest.mark.parametrize("options", [{}, {"all": True, "codes": ["body"]}, {"all": True, "requests": ["a"]}])
def test_a_choice_is_of_some_or_of_all(options):
    with pytest.raises(UsageError, match="--code and --id, or --all"):
        Choice(**options)


def test_a_tier_that_has_no_dead_letters_topic_is_an_error(cascade, settings):
    with pytest.raises(TransportError, match=r"cannot be read: .*branchy\.toy\.full\.dead; check --cascade and --tier"):
        listed(settings.model_copy(update={"tier": "full"}), cascade)


def test_what_came_from_outside_cannot_drive_the_terminal(cascade, settings):
    cascade.broker.put(
        DEAD, Message([("branchy-error-code", b"\x1b[2J"), ("branchy-error", b"a\nb"), ("ce_id", b"\x07")], b"")
    )
    shown = dead_letters.text(show(settings, limit=5, link=cascade.broker.link("operator")))
    assert all(line.isprintable() for line in shown.splitlines())
    assert len(shown.splitlines()) == 5


@pytest.mark.parametrize(("age_s", "text"), [(0.4, "0 s"), (119, "119 s"), (120, "2 min"), (7200, "2 h"), (6e5, "7 d")])
def test_an_age_is_told_in_the_unit_that_fits(cascade, settings, age_s, text):
    cascade.broker.clock = lambda: 0.0
    cascade.broker.put(DEAD, Message([], b""))
    cascade.broker.clock = lambda: age_s
    shown = dead_letters.text(show(settings, limit=5, link=cascade.broker.link("operator")))
    assert shown.splitlines()[-1].startswith(text)
