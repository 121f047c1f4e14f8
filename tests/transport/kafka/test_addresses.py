"""Reply headers as Spring Kafka writes them, and what comes from outside."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from branchy.transport.kafka.addresses import KafkaAddress, open_envelope, reply_headers

TOPIC = "branchy.c.device.answers"


def allow(_: KafkaAddress) -> None:
    return None


@given(
    st.none() | st.binary(max_size=64),
    st.none() | st.builds(KafkaAddress, st.just(TOPIC), st.none() | st.integers(0, 100_000)),
    st.lists(st.tuples(st.text(max_size=8).filter(lambda n: not n.startswith("kafka_")), st.binary(max_size=8))),
)
def test_what_is_written_is_read(correlation, address, others):
    envelope = open_envelope([*others, *reply_headers(correlation, address)], allow)
    assert envelope == (others, correlation, address, None)


def test_the_partition_is_four_bytes_big_endian():
    assert ("kafka_replyPartition", b"\x00\x00\x01\x02") in reply_headers(None, KafkaAddress(TOPIC, 258))


@pytest.mark.parametrize(("value", "partition"), [(b"7", 7), (b"0012", 12), (b"123456", 123456), (b"\0\0\0\x30", 48)])
def test_an_ascii_number_is_taken_too(value: bytes, partition: int):
    envelope = open_envelope([("kafka_replyTopic", TOPIC.encode()), ("kafka_replyPartition", value)], allow)
    assert envelope.reply_to == KafkaAddress(TOPIC, partition)


@given(st.binary(max_size=40), st.binary(max_size=12))
def test_a_malformed_address_is_a_fault_and_never_an_exception(topic: bytes, partition: bytes):
    headers = [("kafka_correlationId", b"c"), ("kafka_replyTopic", topic), ("kafka_replyPartition", partition)]
    envelope = open_envelope(headers, allow)
    assert envelope.correlation == b"c"
    assert (envelope.reply_to is None) == (envelope.fault is not None)


@pytest.mark.parametrize("partition", [b"", b"x", b"-1", b"12345678901", b"1.5", b"\0\0\0"])
def test_a_partition_that_is_no_number_is_a_fault(partition: bytes):
    envelope = open_envelope([("kafka_replyTopic", b"t"), ("kafka_replyPartition", partition)], allow)
    assert envelope.reply_to is None
    assert "malformed" in (envelope.fault or "")


def test_an_address_that_is_not_allowed_is_a_fault():
    envelope = open_envelope([("kafka_replyTopic", b"other")], lambda address: f"not {address.topic}")
    assert (envelope.reply_to, envelope.fault) == (None, "not other")


@pytest.mark.parametrize("partition", [None, b"3", b"nowhere"])
def test_an_address_of_which_nothing_can_be_made_stays_in_the_headers_and_is_found_once_that_is_mended(partition):
    asked = [("kafka_correlationId", b"c"), ("kafka_replyTopic", TOPIC.encode()), ("a", b"1")]
    if partition is not None:
        asked.insert(1, ("kafka_replyPartition", partition))
    refused = open_envelope([*asked, ("kafka_replyTopic", b"a second one")], lambda address: "it is not there")
    assert sorted([*refused.headers, *reply_headers(refused.correlation, refused.reply_to)]) == sorted(asked)
    if partition != b"nowhere":
        kept = [*refused.headers, *reply_headers(refused.correlation, None)]
        address = KafkaAddress(TOPIC, None if partition is None else 3)
        assert open_envelope(kept, allow) == ([("a", b"1")], b"c", address, None)


def test_the_first_of_repeated_headers_counts_and_none_is_left_over():
    headers = [("kafka_correlationId", b"1"), ("kafka_correlationId", b"2"), ("a", None)]
    assert open_envelope(headers, allow) == ([("a", b"")], b"1", None, None)
