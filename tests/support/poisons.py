"""Messages that must not be computed, of every kind, made from a `random.Random`.

Seeded, it makes thousands in a second; as `st.randoms()` Hypothesis draws them and makes a failing one small.
"""

from __future__ import annotations

import json
import string
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from io import BytesIO
from random import Random

import numpy as np
import safetensors.numpy
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from branchy.core import wire
from branchy.core.messages import Request
from branchy.transport.base import Message

Headers = list[tuple[str, bytes]]

STAMP = wire.Stamp("event", "/test", 1767225600.0)


@dataclass(frozen=True)
class Poison:
    """A message, and the code of its dead letter; None where it is refused without one."""

    message: Message
    code: str | None


@dataclass(frozen=True)
class Target:
    """What is attacked: a stage, by a request that it would answer."""

    digest: str
    stage: str
    sample: np.ndarray
    """uint8"""
    number: str = "p"
    """The request's id: of two that are the same a tier answers the newer."""

    def good(self) -> Message:
        request = Request(self.number, self.digest, self.stage, 20_000.0, {"sample": self.sample})
        return Message(*wire.encode_request(request, STAMP))

    def body(self, raw: bytes, code: str = "body") -> Poison:
        return Poison(Message(self.good().headers, raw), code)

    def tensors(self, code: str, **arrays: np.ndarray) -> Poison:
        named = {name.replace("_", "."): array for name, array in arrays.items()}
        return self.body(safetensors.numpy.save(named), code)

    def headers(self, code: str | None, **changes: bytes | None) -> Poison:
        """A good body under other headers; `_` stands for `-`, None takes one out."""
        return Poison(Message(self.with_headers(**changes), self.good().body), code)

    def with_headers(self, **changes: bytes | None) -> Headers:
        headers = dict(self.good().headers) | {name.replace("_", "-"): value for name, value in changes.items()}
        return [(name, value) for name, value in headers.items() if value is not None]

    def in_front(self, code: str, name: str, value: bytes) -> Poison:
        """With a header before the others: the first of a name counts."""
        good = self.good()
        return Poison(Message([(name, value), *good.headers], good.body), code)

    def json(self, text: str, code: str = "body") -> Poison:
        return Poison(Message(self.with_headers(content_type=b"application/json"), text.encode()), code)


def head(fields: object, data: bytes = b"") -> bytes:
    """A safetensors body whose head claims anything."""
    raw = json.dumps(fields).encode()
    return len(raw).to_bytes(8, "little") + raw + data


def claim(shape: list[int], end: int, dtype: str = "U8") -> bytes:
    return head({"sample": {"dtype": dtype, "shape": shape, "data_offsets": [0, end]}}, bytes(4))


def padded(body: bytes, head_bytes: int) -> bytes:
    """A safetensors body with blanks in its head, so that it has so many bytes."""
    size = int.from_bytes(body[:8], "little")
    return head_bytes.to_bytes(8, "little") + body[8 : 8 + size].ljust(head_bytes) + body[8 + size :]


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

JSON_BODIES = [
    *("", "{", "[]", "{}", "1", "null", "[" * 100_000, '{"sample": ' + "[" * 5_000),
    *(
        f'{{"sample": {value}}}'
        for value in (
            *("[[1], [2, 3]]", '["a"]', "{}", "null", "[true, false]", "1" * 5_000, f"[{10**400}]"),
            json.dumps(["a" * 10_000, *[""] * 10_000]),  # to NumPy 10,000 places of 10,000 characters
            json.dumps([[]] * 10_000 + [{}]),
            "[" * 900 + "1" + "]" * 900,
            json.dumps([[[]] * 1_000, *range(1_000)]),
        )
    ),
]
"""JSON that is none, or holds no tensors."""


IMAGE_BOMBS: dict[str, Callable[[], bytes]] = {
    "64 million pixels of 1 bit": lambda: _encoded(Image.new("1", (8_000, 8_000))),
    "a column": lambda: _encoded(Image.new("1", (1, 2_000_000))),
    "transparency": lambda: _encoded(Image.new("RGBA", (4_000, 4_000))),
    "notes": lambda: _encoded(Image.new("1", (8, 8)), pnginfo=_notes()),
    "a blank JPEG": lambda: _encoded(Image.new("RGB", (4_000, 4_000)), "JPEG"),
    "scans": lambda: _rescanned(_encoded(Image.new("L", (1_024, 1_024)), "JPEG", progressive=True), 1_000),
}
"""Images that are far more opened than their files, or take far longer."""


@cache
def image_bomb(name: str) -> tuple[str, bytes]:
    """One of them, after what it is said to be."""
    body = IMAGE_BOMBS[name]()
    return ("image/png" if body.startswith(b"\x89PNG") else "image/jpeg"), body


def _notes() -> PngInfo:
    """Compressed, 4 bytes a character for the last one's sake."""
    notes = PngInfo()
    for number in range(30):
        notes.add_itxt(str(number), "a" * 1_000_000 + "\U0001f600", zip=True)
    return notes


def _rescanned(jpeg: bytes, times: int) -> bytes:
    """With the last pass over its pixels again and again."""
    return jpeg[:-2] + times * jpeg[jpeg.rindex(b"\xff\xda") : -2] + jpeg[-2:]


def _encoded(image: Image.Image, fmt: str = "PNG", **options: object) -> bytes:
    out = BytesIO()
    image.save(out, fmt, **options)
    return out.getvalue()


def _word(random: Random, letters: str = string.ascii_lowercase) -> str:
    return "".join(random.choice(letters) for _ in range(random.randint(1, 20)))


def _wrong_shape(target: Target, random: Random) -> Poison:
    shape = [random.randint(0, 6) for _ in range(random.randint(0, 5))]
    return target.tensors("shape", sample=np.zeros([7, *shape] if shape == [*target.sample.shape] else shape, np.uint8))


def _wrong_dtype(target: Target, random: Random) -> Poison:
    dtypes = ("float32", "float16", "int8", "int32", "int64", "float64", "uint16", "bool")
    return target.tensors("dtype", sample=np.zeros(target.sample.shape, random.choice(dtypes)))


def _not_finite(target: Target, random: Random) -> Poison:
    values = np.zeros(target.sample.shape, random.choice(["f4", "f2"]))
    values.flat[random.randrange(values.size)] = random.choice([np.nan, np.inf, -np.inf])
    return target.tensors("not-finite", sample=values)


def _wrong_scale(target: Target, random: Random) -> Poison:
    one, huge = np.ones(1, "f4"), np.full(1, 3e38, "f4")
    sample = target.sample | 1  # a huge scale of nothing would be finite
    return random.choice(
        [
            target.tensors("tensor", sample=sample, sample_scale=one),
            target.tensors("shape", sample=sample, sample_scale=np.ones(random.randint(2, 9), "f4"), sample_offset=one),
            target.tensors("not-finite", sample=sample, sample_scale=huge, sample_offset=huge),
        ]
    )


def _bad_value(target: Target, random: Random) -> Poison:
    name = random.choice(["branchy-model", "branchy-request", "traceparent", "ce_id"])
    return target.in_front("headers", name, b"\xff\xfe")


def _many_headers(target: Target, random: Random) -> Poison:
    good = target.good()
    more = [("x", b"")] * random.randint(wire.MAX_HEADERS, 500)
    return Poison(Message([*good.headers, *more], good.body), "headers")


def _no_numbers(target: Target, random: Random) -> Poison:
    value = random.choice(["[NaN, 0, 0, 0]", "[1e999, 0, 0, 0]", "[-Infinity, 0, 0, 0]"])
    return target.json(f'{{"sample": {value}}}', "not-finite")


def _no_image(target: Target, random: Random) -> Poison:
    """It fails when it is decoded, which is the executor's work."""
    headers = target.with_headers(content_type=random.choice([b"image/png", b"image/jpeg"]))
    return Poison(Message(headers, random.randbytes(random.randint(0, 200))), "failed")


def _image_bomb(target: Target, random: Random) -> Poison:
    kind, body = image_bomb(random.choice(list(IMAGE_BOMBS)))
    return Poison(Message(target.with_headers(content_type=kind.encode()), body), "failed")


KINDS: list[Callable[[Target, Random], Poison]] = [
    # bodies that are not what they claim
    lambda target, random: target.body(target.good().body[: random.randrange(len(target.good().body))]),
    lambda target, random: target.body(target.good().body + bytes(random.randint(1, 150_000))),
    lambda target, random: target.body(random.randbytes(random.randint(0, 400))),
    lambda target, random: target.body(random.choice(BOMBS)),
    lambda target, random: target.body(
        padded(target.good().body, random.randint(wire.MAX_TENSORS_HEAD_BYTES + 1, 100_000))
    ),
    lambda target, random: target.body(json.dumps({"sample": target.sample.tolist()}).encode()),
    # tensors that are not what the stage takes
    _wrong_shape,
    _wrong_dtype,
    _not_finite,
    _wrong_scale,
    lambda target, random: target.tensors("tensor", **{f"not{_word(random)}": target.sample}),
    # headers
    lambda target, random: target.headers(
        "headers", filler=bytes(random.randint(wire.MAX_HEADER_BYTES, 4 * wire.MAX_HEADER_BYTES))
    ),
    _many_headers,
    lambda target, random: target.headers("headers", **{random.choice(["branchy_model", "branchy_stage"]): None}),
    _bad_value,
    lambda target, random: target.in_front("type", "ce_type", _word(random).encode()),
    lambda target, random: target.headers("content-type", content_type=_word(random).encode()),
    lambda target, random: target.headers(
        "budget", branchy_budget_ms=random.choice([b"", b"soon", b"nan", b"-inf", b"1e999", b"0x10", b"\x00"])
    ),
    lambda target, random: target.headers(
        "stage", branchy_stage=random.choice([b"fog", b"", target.stage.encode() + b" ", b"x" * 9_000])
    ),
    # other bodies
    lambda target, random: target.json(random.choice(JSON_BODIES)),
    lambda target, random: target.json("[" * random.randint(1, 20_000)),
    _no_numbers,
    _no_image,
    _image_bomb,
    # well formed, of another model: refused, and no dead letter
    lambda target, random: target.headers(None, branchy_model=f"{random.getrandbits(256):064x}".encode()),
]


def poison(target: Target, random: Random) -> Poison:
    """One of any kind."""
    return random.choice(KINDS)(target, random)
