"""Malformed messages at a running tier: none stops it, each lies in the dead letters with its code, counts agree."""

from __future__ import annotations

import json
import tracemalloc
import uuid
from collections import Counter
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from datetime import UTC, datetime

import numpy as np
import pytest
import safetensors.numpy
from hypothesis import given, settings
from hypothesis import strategies as st
from memory_cascade import MemoryCascade, ToyCascade, sample
from tier_world import DIGEST

from branchy.config import LinkSettings
from branchy.core import topics, wire
from branchy.core.messages import Request
from branchy.errors import WireError
from branchy.transport.base import Message
from branchy.transport.kafka import KafkaLink

Headers = list[tuple[str, bytes]]

STAMP = wire.Stamp("event", "/test", datetime(2026, 1, 1, tzinfo=UTC))
GOOD_HEADERS, GOOD_BODY = wire.encode_request(Request("p", DIGEST, "edge", 20_000.0, {"sample": sample(0)}), STAMP)


@dataclass(frozen=True)
class Poison:
    """A message that must not be computed; `code` of its dead letter, None where it is refused without one."""

    message: Message
    code: str | None


def with_headers(**changes: bytes | None) -> Headers:
    """The headers of a good request; `_` stands for `-`, None takes one out."""
    headers = dict(GOOD_HEADERS) | {name.replace("_", "-"): value for name, value in changes.items()}
    return [(name, value) for name, value in headers.items() if value is not None]


def body(raw: bytes, code: str = "body") -> Poison:
    return Poison(Message(GOOD_HEADERS, raw), code)


def tensors(code: str, **arrays: np.ndarray) -> Poison:
    named = {name.replace("_", "."): array for name, array in arrays.items()}
    return body(safetensors.numpy.save(named), code)


def as_json(text: str, code: str) -> Poison:
    return Poison(Message(with_headers(content_type=b"application/json"), text.encode()), code)


def head(fields: object, data: bytes = b"") -> bytes:
    """A safetensors body whose head claims anything."""
    raw = json.dumps(fields).encode()
    return len(raw).to_bytes(8, "little") + raw + data


def claim(shape: list[int], end: int, dtype: str = "U8") -> bytes:
    return head({"sample": {"dtype": dtype, "shape": shape, "data_offsets": [0, end]}}, bytes(4))


def padded(head_bytes: int) -> bytes:
    """A good body but for the blanks in its head."""
    size = int.from_bytes(GOOD_BODY[:8], "little")
    raw = GOOD_BODY[8 : 8 + size] + b" " * (head_bytes + 1 - size)
    return len(raw).to_bytes(8, "little") + raw + GOOD_BODY[8 + size :]


BOMBS = [
    (2**63).to_bytes(8, "little") + b"{}",
    (100_000_000).to_bytes(8, "little") + b"{}",
    wire.MAX_TENSORS_HEAD_BYTES.to_bytes(8, "little") + b'{"a":',
    claim([2**40], 2**40),
    claim([2**31, 2**31, 4], 4),
    claim([2**62, 2**62], 2**63, "F64"),
    claim([-1], 4),
    claim([4], 2**64 - 1),
    head({"sample": {"dtype": "U8", "shape": [1] * 10_000, "data_offsets": [0, 1]}}, b"\0"),
]
"""Bodies that claim to hold far more than they do."""

wrong_shapes = st.lists(st.integers(0, 6), max_size=5).filter(lambda shape: shape != [4])
other_dtypes = st.sampled_from(["float32", "float16"])
foreign_dtypes = st.sampled_from(["int8", "int32", "int64", "float64", "uint16", "bool"])
not_numbers = st.sampled_from([np.nan, np.inf, -np.inf])
names = st.text(st.characters(min_codepoint=97, max_codepoint=122), min_size=1, max_size=20)

poisons = st.one_of(
    # bodies that are not what they claim
    st.integers(0, len(GOOD_BODY) - 1).map(lambda n: body(GOOD_BODY[:n])),
    st.binary(min_size=1, max_size=50).map(lambda more: body(GOOD_BODY + more)),
    st.binary(max_size=2_000).map(body),
    st.sampled_from(BOMBS).map(body),
    st.integers(wire.MAX_TENSORS_HEAD_BYTES, 100_000).map(lambda n: body(padded(n))),
    st.lists(st.integers(0, 255), min_size=4, max_size=4).map(lambda v: body(json.dumps({"sample": v}).encode())),
    # tensors that are not what the stage takes
    wrong_shapes.map(lambda shape: tensors("shape", sample=np.zeros(shape, np.uint8))),
    other_dtypes.map(lambda dtype: tensors("dtype", sample=np.zeros(4, dtype))),
    foreign_dtypes.map(lambda dtype: tensors("dtype", sample=np.zeros(4, dtype))),
    not_numbers.map(lambda value: tensors("not-finite", sample=np.array([0, value, 0, 0], "f4"))),
    names.filter(lambda name: name != "sample").map(lambda name: tensors("tensor", **{name: sample(0)})),
    st.just(tensors("tensor", sample=sample(0), sample_scale=np.ones(1, "f4"))),
    st.integers(2, 9).map(
        lambda n: tensors("shape", sample=sample(0), sample_scale=np.ones(n, "f4"), sample_offset=np.ones(1, "f4"))
    ),
    st.just(
        tensors(
            "not-finite",
            sample=sample(255),
            sample_scale=np.full(1, 3e38, "f4"),
            sample_offset=np.full(1, 3e38, "f4"),
        )
    ),
    # headers
    st.integers(wire.MAX_HEADER_BYTES, 4 * wire.MAX_HEADER_BYTES).map(
        lambda n: Poison(Message(with_headers(filler=bytes(n)), GOOD_BODY), "headers")
    ),
    st.integers(wire.MAX_HEADERS, 500).map(
        lambda n: Poison(Message([*GOOD_HEADERS, *[("x", b"")] * n], GOOD_BODY), "headers")
    ),
    st.sampled_from(["branchy_model", "branchy_stage"]).map(
        lambda name: Poison(Message(with_headers(**{name: None}), GOOD_BODY), "headers")
    ),
    st.sampled_from(["branchy-model", "branchy-request", "traceparent", "ce_id"]).map(
        lambda name: Poison(Message([(name, b"\xff\xfe"), *GOOD_HEADERS], GOOD_BODY), "headers")
    ),
    names.map(lambda kind: Poison(Message([("ce_type", kind.encode()), *GOOD_HEADERS], GOOD_BODY), "type")),
    names.map(lambda kind: Poison(Message(with_headers(content_type=kind.encode()), GOOD_BODY), "content-type")),
    st.sampled_from([b"", b"soon", b"nan", b"-inf", b"1e999", b"0x10", b"\x00"]).map(
        lambda text: Poison(Message(with_headers(branchy_budget_ms=text), GOOD_BODY), "budget")
    ),
    st.sampled_from([b"fog", b"", b"edge ", b"x" * 9_000]).map(
        lambda name: Poison(Message(with_headers(branchy_stage=name), GOOD_BODY), "stage")
    ),
    # JSON that is none, or holds no tensors
    st.sampled_from(["", "{", "[]", "{}", "1", "null", "[" * 100_000, '{"sample": ' + "[" * 5_000]).map(
        lambda text: as_json(text, "body")
    ),
    st.sampled_from(["[[1], [2, 3]]", '["a"]', "{}", "null", "[true, false]", "1" * 5_000, f"[{10**400}]"]).map(
        lambda value: as_json(f'{{"sample": {value}}}', "body")
    ),
    st.sampled_from(["[NaN, 0, 0, 0]", "[1e39, 0, 0, 0]", "[-Infinity, 0, 0, 0]"]).map(
        lambda value: as_json(f'{{"sample": {value}}}', "not-finite")
    ),
    # an image that is none fails when it is decoded, which is the executor's work
    st.binary(max_size=200).map(lambda raw: Poison(Message(with_headers(content_type=b"image/png"), raw), "failed")),
    # well formed, of another model: refused, and no dead letter
    st.text("0123456789abcdef", min_size=64, max_size=64).map(
        lambda digest: Poison(Message(with_headers(branchy_model=digest.encode()), GOOD_BODY), None)
    ),
)


def attack(cascade: ToyCascade, messages: int) -> Counter[str]:
    """Send so many poisons to the edge, a good request after each; returns the codes there must be."""
    expected: Counter[str] = Counter()

    @settings(max_examples=messages, deadline=None)
    @given(poisons)
    def send(poison: Poison) -> None:
        cascade.put(poison.message, to="edge", correlation=b"poison")
        correlation, answer = cascade.answer()
        assert (correlation, answer.label) == (b"poison", None)
        if poison.code is None:
            assert (answer.status, answer.reason) == ("rejected", "digest")
        else:
            expected[poison.code] += 1
            assert (answer.status, answer.reason) == (
                "error",
                "failed" if poison.code == "failed" else "malformed",
            ), answer
            assert poison.code == "failed" or answer.detail.startswith(f"{poison.code}: "), answer.detail
        asked = cascade.ask(sample(0), to="edge")
        good = cascade.answer()[1]
        assert (good.request, good.status, good.tier) == (asked, "ok", "edge")

    send()
    return expected


def check_counts(cascade: ToyCascade, expected: Counter[str]) -> None:
    """Dead letters, the tier's counters and what was sent say the same, and nothing is left open."""
    (edge,) = cascade.tiers
    edge.stop()
    codes = Counter(
        dict(each.message.headers)[wire.ERROR_CODE].decode()
        for each in cascade.link.browse(topics.dead_letters(cascade.cascade, "edge"), 20.0)
    )
    assert codes == expected
    counters = edge.tier.machine.counters
    assert counters["dead"] == expected.total()
    malformed = {name.partition(".")[2]: n for name, n in counters.items() if name.startswith("malformed.")}
    assert malformed == {code: n for code, n in expected.items() if code != "failed"}
    assert counters["undeliverable"] == 0
    assert not edge.tier._deliveries


@pytest.fixture
def embedded(embedded_broker) -> Iterator[ToyCascade]:
    cascade = ToyCascade(
        lambda name: KafkaLink(LinkSettings(brokers=embedded_broker.brokers), name), f"t{uuid.uuid4().hex[:8]}"
    )
    with closing(cascade):
        yield cascade


def test_hundreds_of_malformed_messages_stop_nothing_and_each_lies_in_the_dead_letters_with_its_code():
    with closing(MemoryCascade()) as cascade:
        cascade.start("edge")
        check_counts(cascade, attack(cascade, 500))


def test_over_kafka_too(embedded):
    embedded.start("edge")
    check_counts(embedded, attack(embedded, 60))


def test_a_flood_of_malformed_messages_among_good_ones_loses_no_good_one():
    with closing(MemoryCascade()) as cascade:
        edge = cascade.start("edge")
        asked = set()
        for _ in range(20):
            for bomb in BOMBS:
                cascade.put(Message(GOOD_HEADERS, bomb), to="edge", correlation=b"poison")
            asked.add(cascade.ask(sample(0), to="edge"))
        answers = [cascade.answer() for _ in range(20 * (len(BOMBS) + 1))]
        assert {a.request for c, a in answers if c != b"poison" and a.status == "ok"} == asked
        assert {a.reason for c, a in answers if c == b"poison"} == {"malformed"}
        edge.stop()
        assert edge.back.source.unsettled() == 0


SAFETENSORS_BOMBS = [(wire.SAFETENSORS, raw) for raw in BOMBS]
JSON_BOMBS = [
    (wire.JSON, f'{{"sample": {value}}}'.encode())
    for value in (
        json.dumps(["a" * 10_000, *[""] * 10_000]),  # to NumPy 10,000 places of 10,000 characters
        json.dumps([[]] * 10_000 + [{}]),
        "[" * 900 + "1" + "]" * 900,
        json.dumps([[[]] * 1_000, *range(1_000)]),
    )
]


@pytest.mark.parametrize(("content_type", "raw"), SAFETENSORS_BOMBS + JSON_BOMBS)
def test_reading_a_bomb_takes_no_more_memory_than_a_few_times_its_own_size(content_type, raw):
    headers = with_headers(content_type=content_type.encode())
    tracemalloc.start()
    try:
        with pytest.raises(WireError, match="expected"):
            wire.decode_request(headers, raw, model=DIGEST, stage="edge", new_id=str)
        _, peak_bytes = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak_bytes < 50 * len(raw) + 64 * 1024
