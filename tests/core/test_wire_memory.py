"""What it takes to read a message: a small constant times its size, whatever it holds or claims to hold."""

from __future__ import annotations

import json
import tracemalloc
from collections.abc import Callable
from contextlib import suppress

import numpy as np
import pytest
import safetensors.numpy
from peak_memory import asks_linux, resident_bytes
from poisons import BOMBS, head

from branchy.core import wire
from branchy.errors import WireError

TENSORS_TIMES, JSON_TIMES = 13, 50
"""An affine tensor comes back by float64 in float32; a list of one is 88 bytes, for `[]` around it."""

HEAD_BYTES = 1536 * 1024
"""The head of a safetensors body is JSON too, of at most 64 KiB."""

SLACK_BYTES = 256 * 1024

HEADERS = [("branchy-model", b"m"), ("branchy-stage", b"s")]
ROOM_BYTES = 300_000


def affine(scale: float) -> bytes:
    settings = {"a.scale": np.full(1, scale, np.float32), "a.offset": np.zeros(1, np.float32)}
    return safetensors.numpy.save({"a": np.full(ROOM_BYTES, 255, np.uint8), **settings})


TENSORS = {
    "uint8": safetensors.numpy.save({"a": np.zeros(ROOM_BYTES, np.uint8)}),
    "float16": safetensors.numpy.save({"a": np.zeros(ROOM_BYTES // 2, np.float16)}),
    "float32": safetensors.numpy.save({"a": np.zeros(ROOM_BYTES // 4, np.float32)}),
    "affine": affine(1.0),
    "affine that overflows": affine(3e38),
    "many tensors": safetensors.numpy.save({str(n): np.zeros(0, np.uint8) for n in range(1000)}),
    "long shape": head({"a": {"dtype": "U8", "shape": [1] * 20_000, "data_offsets": [0, 1]}}, b"\0"),
    **{f"bomb {n}": bomb for n, bomb in enumerate(BOMBS)},
}


def filled(text: str) -> bytes:
    """A list of the same again and again, of about `ROOM_BYTES`."""
    return ",".join([text] * (ROOM_BYTES // (len(text) + 1))).encode()


JSONS = {
    "bytes": filled("1"),
    "numbers": filled("1e1"),
    "empty lists": filled("[]"),
    "lists of one": filled("[1]"),
    "ragged lists": filled("[]") + b",1",
    "lists in lists": filled("[" * 60 + "]" * 60),  # NumPy takes 64, with the one around them
    "lists in lists that are too deep": filled("[" * 190 + "]" * 190),
    "objects in objects": filled('{"":' * 100 + "1" + "}" * 100),
    "empty objects": filled("{}"),
    "small objects": filled('{"":1}'),
    "texts": filled('""'),
    "one text": b'"' + b"a" * ROOM_BYTES + '\U0001f600"'.encode(),  # 4 bytes a character, for its last one's sake
    "a long text among short ones": b'"' + b"a" * 10_000 + b'",' + filled('""')[:100_001] + b'""',
    "deep": b"[" * 190 + filled("1") + b"]" * 190,
    "deeper": b"[" * 100_000,
}
NAMES = json.dumps({str(n): [] for n in range(ROOM_BYTES // 13)}).encode()

ANSWER = {"request": "r", "status": "ok", "reason": "final", "tier": "t", "model": "m"}
ANSWER |= {"label": "a", "index": 1, "confidence": 0.5}
HOP = {"tier": "", "queue_ms": 0, "compute_ms": 0, "total_ms": 0}
ANSWERS = {
    "probabilities": ANSWER | {"probabilities": [0] * (ROOM_BYTES // 3)},
    "hops": ANSWER | {"hops": [HOP] * (ROOM_BYTES // 60)},
    "hops that are none": ANSWER | {"hops": [{}] * (ROOM_BYTES // 4)},
    "what nobody knows": ANSWER | {"more": [[]] * (ROOM_BYTES // 4)},
}


def read(content_type: str, body: bytes) -> None:
    headers = [*HEADERS, ("content-type", content_type.encode())]
    with suppress(WireError):
        wire.decode_request(headers, body, model="m", stage="s", new_id=str)


def read_answer(body: bytes) -> None:
    with suppress(WireError):
        wire.decode_answer([("ce_type", b"branchy.answer")], body)


def traced_bytes(call: Callable[..., None], *arguments: object) -> int:
    """The peak of what Python and NumPy allocate."""
    tracemalloc.start()
    try:
        call(*arguments)
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


METERS = [traced_bytes, pytest.param(resident_bytes, marks=asks_linux)]


@pytest.mark.parametrize("peak_bytes", METERS)
@pytest.mark.parametrize("body", TENSORS.values(), ids=TENSORS)
def test_reading_tensors_takes_at_most_13_times_their_size(body, peak_bytes):
    assert peak_bytes(read, wire.SAFETENSORS, body) < TENSORS_TIMES * len(body) + HEAD_BYTES


@pytest.mark.parametrize("peak_bytes", METERS)
@pytest.mark.parametrize(
    "body", [b'{"a": [' + each + b"]}" for each in JSONS.values()] + [NAMES], ids=[*JSONS, "names"]
)
def test_reading_json_takes_at_most_50_times_its_size(body, peak_bytes):
    assert len(body) < wire.MAX_JSON_BYTES
    assert peak_bytes(read, wire.JSON, body) < JSON_TIMES * len(body) + SLACK_BYTES


@pytest.mark.parametrize("peak_bytes", METERS)
@pytest.mark.parametrize("fields", ANSWERS.values(), ids=ANSWERS)
def test_reading_an_answer_takes_at_most_50_times_its_size(fields, peak_bytes):
    body = json.dumps(fields, separators=(",", ":")).encode()
    assert len(body) < wire.MAX_JSON_BYTES
    assert peak_bytes(read_answer, body) < JSON_TIMES * len(body) + SLACK_BYTES


def test_json_over_the_limit_is_refused_before_it_is_read():
    body = b'{"a": [' + b"1," * (wire.MAX_JSON_BYTES // 2) + b"1]}"
    assert traced_bytes(read, wire.JSON, body) < 64 * 1024


def test_a_body_over_the_limit_is_refused_before_it_is_read():
    body = safetensors.numpy.save({"a": np.zeros(wire.MAX_BODY_BYTES, np.uint8)})
    assert traced_bytes(read, wire.SAFETENSORS, body) < 64 * 1024
