from __future__ import annotations

import json
import uuid
from contextlib import closing

import pytest
from client import Client

from branchy.config import LinkSettings
from branchy.core import topics
from branchy.transport.base import Message
from branchy.transport.kafka import KafkaLink
from branchy.transport.kafka.addresses import KafkaAddress, reply_headers


@pytest.fixture
def dead(toy_bundle, embedded_broker):
    """A cascade whose edge has two dead letters, and the flags that name it."""
    cascade = f"t{uuid.uuid4().hex[:8]}"
    with closing(
        Client(KafkaLink(LinkSettings(brokers=embedded_broker.brokers), "client"), cascade, ("edge",), "")
    ) as c:
        to = c.link.queue(topics.dead_letters(cascade, "edge"))
        for name, code in (("a", b"body"), ("b", b"shape")):
            headers = [("branchy-request", name.encode()), ("branchy-error-code", code), ("branchy-error", b"no good")]
            assert c.sender.send(to, Message(headers, b"12345"), name, reply_to=c.inbox.address)
        assert c.sender.flush(20) == 0
        yield c, ("--bundle", toy_bundle.path, "--back", embedded_broker.brokers, "--cascade", cascade)


def test_show_prints_them_and_again_the_same(run, dead):
    client, flags = dead
    for _ in range(2):
        code, out, _ = run("dlq", "show", *flags)
        assert code == 0
        heading, _, columns, _, *rows = out.splitlines()
        assert heading == f"branchy.{client.cascade}.edge.dead: 2 dead letters (body 1, shape 1)"
        assert columns.split() == ["age", "size", "code", "request", "reason"]
        assert sorted(row.split()[4:6] for row in rows) == [["body", "a"], ["shape", "b"]]


def test_show_as_json_can_be_read_by_a_program(run, dead):
    _, flags = dead
    code, out, _ = run("dlq", "show", *flags, "--json")
    found = {letter.pop("request"): letter for letter in json.loads(out)}
    assert code == 0
    assert 0 <= found["a"].pop("age_s") < 600
    assert found["a"] == {
        "code": "body",
        "reason": "no good",
        "size_bytes": 5 + len("branchy-request") + 1,
        "answerable": True,
    }
    assert len(found) == 2
    _, out, _ = run("dlq", "show", *flags, "--json", "--limit", 1)
    assert len(json.loads(out)) == 1


def test_redrive_sends_those_chosen_as_they_came(run, dead):
    client, flags = dead
    queue = topics.requests(client.cascade, "edge")
    code, out, _ = run("dlq", "redrive", *flags, "--code", "shape")
    assert code == 0
    assert out.splitlines()[0] == f"sent 1 again to {queue}"
    assert "the requester may be gone" in out
    (again,) = client.link.browse(queue, 20)
    assert (list(again.message.headers), again.message.body) == ([("branchy-request", b"b")], b"12345")
    assert again.reply_to == client.inbox.address


def test_what_was_refused_for_its_reply_address_is_sent_again_once_that_is_there(run, dead):
    client, flags = dead
    queue, missing = topics.requests(client.cascade, "edge"), topics.answers(client.cascade, "own")
    headers = [
        ("branchy-request", b"c"),
        ("branchy-error-code", b"transport"),
        *reply_headers(None, KafkaAddress(missing)),
    ]
    to = client.link.queue(topics.dead_letters(client.cascade, "edge"))
    assert client.sender.send(to, Message(headers, b"12345"), "c", correlation=b"c")
    assert client.sender.flush(20) == 0
    code, out, _ = run("dlq", "redrive", *flags, "--id", "c")
    assert code == 0
    assert out.splitlines() == [
        f"sent 0 again to {queue}",
        "left 1 with no reply address, or one that is not allowed or not there: no tier takes those",
    ]
    client.link.prepare([missing], 20)
    code, out, _ = run("dlq", "redrive", *flags, "--id", "c")
    assert (code, out.splitlines()[0]) == (0, f"sent 1 again to {queue}")
    (again,) = client.link.browse(queue, 20)
    assert (list(again.message.headers), again.correlation) == ([("branchy-request", b"c")], b"c")
    assert again.reply_to == KafkaAddress(missing)


def test_redrive_of_nothing_in_particular_is_wrong_use(run, dead):
    _, flags = dead
    code, out, err = run("dlq", "redrive", *flags)
    assert (code, out, err) == (2, "", "branchy: expected some of --code and --id, or --all, got neither\n")


def test_a_cascade_that_is_not_there_is_one_line_and_exit_code_1(run, dead):
    _, flags = dead
    code, out, err = run("dlq", "show", *flags, "--tier", "cloud")
    assert (code, out, err.count("\n")) == (1, "", 1)
    assert err.endswith("cloud.dead; check --cascade and --tier\n")


def test_a_tier_that_is_not_in_the_bundle_is_wrong_use(run, dead):
    _, flags = dead
    code, _, err = run("dlq", "show", *flags, "--tier", "fog")
    assert (code, "no stage 'fog'" in err) == (2, True)
