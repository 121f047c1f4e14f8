"""What is fuzzed: everything that reads a message from outside, by one input of bytes.

An input is a byte for the reader, a byte for the count of headers, the headers (a byte for a known name, two for the
value's length, the value), and the body: so a mutation of a seed keeps most of what the seed was.
"""

from __future__ import annotations

from collections.abc import Sequence
from random import Random
from typing import Literal, NamedTuple, get_args

import numpy as np

from branchy.core import wire
from branchy.core.messages import Answer, EncodedSample
from branchy.errors import WireError

Reader = Literal["tensors", "request", "answer"]
READERS: tuple[Reader, ...] = get_args(Reader)
NAMES = (
    *("ce_type", "content-type", "branchy-request", "branchy-model", "branchy-stage", "branchy-budget-ms"),
    *("traceparent", "ce_id", "ce_source", "ce_specversion", "ce_time", "x"),
)
STAMP = wire.Stamp("event", "/test", 1767225600.0)


class Parts(NamedTuple):
    """An input, taken apart."""

    reader: Reader
    headers: list[tuple[str, bytes]]
    body: bytes


def pack(parts: Parts) -> bytes:
    """An input; a header whose name is not known becomes `x`."""
    out = bytes([READERS.index(parts.reader), min(255, len(parts.headers))])
    for name, value in parts.headers[:255]:
        number = NAMES.index(name) if name in NAMES else len(NAMES) - 1
        out += bytes([number]) + min(len(value), 0xFFFF).to_bytes(2, "big") + value[:0xFFFF]
    return out + parts.body


def unpack(data: bytes) -> Parts:
    """Of any bytes."""
    reader, count = READERS[data[0] % len(READERS)] if data else "tensors", data[1] if data[1:] else 0
    headers, at = [], 2
    for _ in range(count):
        if at + 3 > len(data):
            break
        end = at + 3 + int.from_bytes(data[at + 1 : at + 3], "big")
        headers.append((NAMES[data[at] % len(NAMES)], data[at + 3 : end]))
        at = end
    return Parts(reader, headers, data[at:])


def check(data: bytes) -> None:
    """Read an input. It is a message whose every part holds to the rules, or a `WireError`; anything else is a bug."""
    reader, headers, body = unpack(data)
    try:
        if reader == "tensors":
            _check_tensors(wire.decode_tensors(body))
        elif reader == "request":
            _check_request(wire.decode_request(headers, body, model="own", stage="edge", new_id=lambda: "new"))
        else:
            _check_answer(wire.decode_answer(headers, body))
    except WireError as error:
        text = str(error)
    else:
        return
    assert len(text.encode()) <= 4 * 300, "a line for a person"
    assert "\n" not in text


def _check_tensors(tensors, *more_dtypes: str) -> None:
    for name, array in tensors.items():
        name.encode()
        assert array.dtype in ("float32", "float16", "uint8", *more_dtypes), array.dtype
        assert np.isfinite(array).all()


def _check_request(request) -> None:
    assert 0 <= request.budget_ms <= wire.MAX_BUDGET_MS
    assert request.id
    for text in (request.id, request.model, request.stage, request.traceparent or ""):
        text.encode()
    if not isinstance(request.payload, EncodedSample):
        _check_tensors(request.payload, "float64")  # JSON's numbers, until a stage says what it takes


def _check_answer(answer: Answer) -> None:
    """What can be read can be written again, and says the same."""
    assert wire.decode_answer(*wire.encode_answer(answer, STAMP)) == answer


# --- mutations -------------------------------------------------------------------------------------------------------

NUMBERS = tuple(
    number.to_bytes(size, "little")
    for size in (1, 2, 4, 8)
    for number in (0, 1, 255, 2 ** (8 * size - 1) - 1, 2 ** (8 * size - 1), 2 ** (8 * size) - 1)
    if number < 2 ** (8 * size)
)
WORDS = (
    *(b'"', b"[", b"]", b"{", b"}", b",", b":", b"-", b"null", b"true", b"NaN", b"1e999", b"\\ud800", b"\xff"),
    *(b'"shape"', b'"dtype"', b'"data_offsets"', b'"__metadata__"', b'"U8"', b'"F32"', b'"BF16"', b'"F4"', b'"C64"'),
    *(b'".scale"', b'".offset"', b'"hops"', b'"status"', b'"ok"', b"branchy.answer", b"application/json"),
)


def mutate(data: bytes, others: Sequence[bytes], random: Random) -> bytes:
    """A few changes; of a safetensors body's head with its length put right, so that it gets past the first look."""
    parts = unpack(data)
    body = parts.body
    head_bytes = int.from_bytes(body[:8], "little")
    if 8 + head_bytes <= len(body) and random.randrange(2):
        head = _change(body[8 : 8 + head_bytes], others, random)
        return pack(parts._replace(body=len(head).to_bytes(8, "little") + head + body[8 + head_bytes :]))
    if random.randrange(2):
        return pack(parts._replace(body=_change(body, others, random)))
    return _change(data, others, random)


def _change(data: bytes, others: Sequence[bytes], random: Random) -> bytes:
    for _ in range(random.randint(1, 4)):
        at, end = sorted((random.randint(0, len(data)), random.randint(0, len(data))))
        other = random.choice(others)
        new = random.choice(
            [
                b"",
                random.randbytes(random.randint(1, 8)),
                random.choice(NUMBERS),
                random.choice(WORDS),
                data[at:end] * 2,
                other[random.randint(0, len(other)) :][: random.randint(1, 100)],
            ]
        )
        end = random.choice([at, min(len(data), at + len(new)), end])
        data = data[:at] + new + data[end:]
    return data
