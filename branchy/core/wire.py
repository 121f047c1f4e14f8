"""Messages <-> headers and bodies: CloudEvents 1.0 in Kafka's binary mode, safetensors, JSON.

What comes in is checked before use; what fails raises `WireError` with a stable code.
The reply headers (`kafka_correlationId`, `kafka_replyTopic`, ...) belong to the transport.
"""

from __future__ import annotations

import dataclasses
import math
import re
import time
from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from typing import Any, Literal, cast, get_args

import numpy as np
import pydantic_core
import safetensors
from pydantic_core import CoreSchema, core_schema

from branchy.core import tensor_bytes
from branchy.core.cascade import Array, DType, TensorSpec
from branchy.core.messages import Answer, EncodedSample, Hop, Reason, Request, Status
from branchy.core.record import record
from branchy.errors import WireError

SAFETENSORS = "application/vnd.safetensors"
JSON = "application/json"
IMAGES = ("image/jpeg", "image/png")
REQUEST_TYPE = "branchy.request"
ANSWER_TYPE = "branchy.answer"

MAX_HEADERS = 64
MAX_HEADER_BYTES = 16 * 1024
MAX_BODY_BYTES = 32 * 1024 * 1024
MAX_JSON_BYTES = 1024 * 1024
"""Of a JSON body, which takes up to 50 times its size to read; a tensor as safetensors takes up to 13 times."""
MAX_ID_BYTES = 256
MAX_BUDGET_MS = 30_000.0
DEFAULT_BUDGET_MS = 1_000.0
MAX_TENSORS_HEAD_BYTES = 64 * 1024
"""Of the JSON in front of a safetensors body; a stage takes one tensor, its head has some 200 bytes."""

SCALE, OFFSET = ".scale", ".offset"
"""Suffixes of the two one-value tensors that go with a uint8 tensor: value = offset + scale * q."""

ERROR_CODE, ERROR_TEXT, ERROR_TIER = "branchy-error-code", "branchy-error", "branchy-tier"
"""Headers that a tier puts behind a dead letter's own: a stable word, a line for a person, and the tier's name."""

Headers = Sequence[tuple[str, bytes]]

_DTYPES = get_args(DType)
_FLOAT32_MAX = float(np.finfo(np.float32).max)
_READ = frozenset(("ce_id", "ce_type", "content-type", "traceparent"))
_READ |= {"branchy-request", "branchy-model", "branchy-stage", "branchy-budget-ms"}
_NUMBERS = np.dtype(np.float64)
"""What JSON's numbers are in until a stage says what it takes; no other tensor has it."""
_TRAVELS = frozenset(np.dtype(name) for name in _DTYPES)
_TRACEPARENT = re.compile(r"[0-9a-f]{2}-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}")


@record
class Stamp:
    """What makes an event unique: a fresh id, who sends it, and when (Unix time). The caller has the clock."""

    id: str
    source: str
    time_s: float


# --- tensors ---------------------------------------------------------------------------------------------------------


def encode_tensors(tensors: Mapping[str, Array], dtype: DType | None = None) -> bytes:
    """Tensors as safetensors.

    Args:
        tensors: by name, without batch axis; uint8 arrays travel as they are.
        dtype: what float arrays travel in; `uint8` is affine over the array's own range, and
            brings `NAME.scale` and `NAME.offset` along. None keeps each array's own.

    Raises:
        WireError: `not-finite` when a float array holds NaN or infinity, or overflows what it travels
            in; `dtype` for one that does not travel.
    """
    out: dict[str, Array] = {}
    for name, array in tensors.items():
        if dtype == "uint8" and array.dtype != np.uint8:
            out.update(_quantise(name, array))
            continue
        with np.errstate(over="ignore"):
            out[name] = np.asarray(array, dtype=None if array.dtype == np.uint8 else dtype, order="C")
        _check_values(name, out[name])
    return tensor_bytes.dump(out)


def _quantise(name: str, array: Array) -> dict[str, Array]:
    with np.errstate(over="ignore"):
        values = np.asarray(array, dtype=np.float32, order="C")
    low, high = (float(values.min()), float(values.max())) if values.size else (0.0, 0.0)
    if not math.isfinite(low) or not math.isfinite(high):  # NaN anywhere makes both NaN
        raise _not_finite(name)
    scale = np.float32((high - low) / 255.0)  # what travels; 0 where all values are (all but) the same
    # In float64: the range of a float32 array can be wider than float32 itself.
    q = np.rint((values - np.float64(low)) / np.float64(scale or 1.0))
    return {
        name: np.asarray(q.clip(0, 255), dtype=np.uint8),
        name + SCALE: np.asarray([scale], dtype=np.float32),
        name + OFFSET: np.asarray([low], dtype=np.float32),
    }


def _check_values(name: str, array: Array) -> None:
    if array.dtype not in _TRAVELS and array.dtype.name not in _DTYPES:  # a foreign byte order travels too
        raise WireError("dtype", f"tensor {name!r}: expected {', '.join(_DTYPES)}, got {array.dtype}")
    if array.dtype != np.uint8 and not np.isfinite(cast(Any, array)).all():
        raise _not_finite(name)


def _not_finite(name: str) -> WireError:
    return WireError("not-finite", f"tensor {name!r} holds NaN or infinite values")


def decode_tensors(body: bytes) -> dict[str, Array]:
    """Tensors from safetensors; affine uint8 comes back as float32, other dtypes as they are.

    Raises:
        WireError: `body` for anything that is not safetensors; `dtype` for a dtype that branchy
            does not send; `not-finite`, also when scale and offset make it so; `shape` or `tensor`
            when an affine tensor's scale or offset is not one value, or not there.
    """
    head_bytes = int.from_bytes(body[:8], "little")
    if head_bytes > MAX_TENSORS_HEAD_BYTES:
        raise WireError("body", f"expected a safetensors head of at most {MAX_TENSORS_HEAD_BYTES} bytes")
    try:
        raw = tensor_bytes.load(body)
    except (safetensors.SafetensorError, KeyError, ValueError, TypeError, OverflowError, MemoryError) as error:
        raise WireError("body", f"expected a safetensors body, got {len(body)} bytes that are not: {error}") from None
    if len(raw) == 1:  # a tensor as it is: no scale and offset beside it
        for name, array in raw.items():
            _check_values(name, array)
        return raw
    affine = {n for n in raw if raw[n].dtype == np.uint8 and (n + SCALE in raw or n + OFFSET in raw)}
    settings = {n + suffix for n in affine for suffix in (SCALE, OFFSET)}
    for name in raw.keys() - affine - settings:
        _check_values(name, raw[name])
    return {n: _dequantise(n, raw) if n in affine else raw[n] for n in raw if n not in settings}


def _dequantise(name: str, raw: Mapping[str, Array]) -> Array:
    scale, offset = _setting(name + SCALE, name, raw), _setting(name + OFFSET, name, raw)
    if abs(offset) + 255 * abs(scale) < _FLOAT32_MAX:
        return cast(Array, (offset + scale * raw[name].astype(np.float64)).astype(np.float32))
    with np.errstate(over="ignore", invalid="ignore"):
        out = np.asarray(offset + scale * raw[name].astype(np.float64), dtype=np.float32)
    _check_values(name, out)
    return out


def _setting(needed: str, name: str, raw: Mapping[str, Array]) -> float:
    if needed not in raw:
        raise WireError("tensor", f"tensor {name!r}: expected {needed!r} with it, got none")
    if raw[needed].dtype not in _TRAVELS:
        _check_values(needed, raw[needed])
    if raw[needed].size != 1:
        raise WireError("shape", f"tensor {needed!r}: expected one value, got shape {raw[needed].shape}")
    return float(raw[needed].item())


def check_tensor(payload: Mapping[str, Array], name: str, spec: TensorSpec) -> Array:
    """The one tensor that a stage takes, checked against its spec and in its dtype.

    Args:
        payload: tensors by name.
        name: the tensor's name on the wire (the source's).
        spec: the stage's input; float16 and float32 are taken for each other, uint8 only for uint8, numbers of
            JSON for any that has room for each of them.

    Raises:
        WireError: `tensor` when it is not there, `shape`, `dtype`, `not-finite`.
    """
    if name not in payload:
        raise WireError("tensor", f"expected a tensor {name!r}, got {sorted(payload) or 'none'}")
    array = payload[name]
    if array.shape != spec.shape:
        raise WireError("shape", f"tensor {name!r}: expected shape {spec.shape}, got {array.shape}")
    if array.dtype == spec.dtype:
        return array
    if array.dtype != _NUMBERS and (array.dtype == np.uint8 or spec.dtype == "uint8"):
        raise WireError("dtype", f"tensor {name!r}: expected {spec.dtype}, got {array.dtype}")
    with np.errstate(over="ignore", invalid="ignore"):
        taken = array.astype(spec.dtype)
    if spec.dtype == "uint8" and not np.array_equal(taken, array):
        raise WireError("dtype", f"tensor {name!r}: expected {spec.dtype}, got numbers that are not all whole, 0..255")
    _check_values(name, taken)
    return taken


# --- headers ---------------------------------------------------------------------------------------------------------


def _event_headers(kind: str, content_type: str, stamp: Stamp) -> list[tuple[str, bytes]]:
    return [
        ("ce_specversion", b"1.0"),
        ("ce_id", stamp.id.encode()),
        ("ce_source", stamp.source.encode()),
        ("ce_type", kind.encode()),
        ("ce_time", _timestamp(stamp.time_s).encode()),
        ("content-type", content_type.encode()),
    ]


def _timestamp(time_s: float) -> str:
    """RFC 3339, in UTC, to the millisecond before."""
    second, ms = divmod(int(time_s * 1e3), 1000)
    return f"{_date_and_time(second)}.{ms:03d}Z"


@lru_cache(maxsize=2)
def _date_and_time(second: int) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(second))


def _read_headers(headers: Headers) -> dict[str, str]:
    if len(headers) > MAX_HEADERS:
        raise WireError("headers", f"expected at most {MAX_HEADERS} headers, got {len(headers)}")
    out: dict[str, str] = {}
    total = 0
    for name, value in headers:
        total += len(name) + len(value or b"")
        if name in _READ and name not in out:
            try:
                out[name] = (value or b"").decode("utf-8")
            except UnicodeDecodeError:
                raise WireError("headers", f"header {name!r} is not UTF-8") from None
    if total > MAX_HEADER_BYTES:
        raise WireError("headers", f"expected at most {MAX_HEADER_BYTES} bytes of headers")
    return out


def _check_size(body: bytes, limit_bytes: int, of_what: str = "") -> None:
    if len(body) > limit_bytes:
        raise WireError("size", f"expected at most {limit_bytes} bytes{of_what}, got {len(body)}")


def request_id(headers: Headers) -> str | None:
    """The id a request carries, also when the rest of it is malformed; None when it has none, or too long a one."""
    value = _id_of(headers)
    return value.decode("utf-8", "replace") if 0 < len(value) <= MAX_ID_BYTES else None


def _id_of(headers: Headers) -> bytes:
    """What a request calls itself, as it came; empty when it does not."""
    for wanted in ("branchy-request", "ce_id"):
        for name, value in headers:
            if name == wanted and value:
                return value
    return b""


# --- requests --------------------------------------------------------------------------------------------------------


def encode_request(request: Request, stamp: Stamp, dtype: DType | None = None) -> tuple[list[tuple[str, bytes]], bytes]:
    """Headers and body of a request; `dtype` is what its float tensors travel in."""
    if isinstance(request.payload, EncodedSample):
        headers = _event_headers(REQUEST_TYPE, request.payload.content_type, stamp)
        body = request.payload.data
    else:
        headers = _event_headers(REQUEST_TYPE, SAFETENSORS, stamp)
        body = encode_tensors(request.payload, dtype)
    headers += [
        ("branchy-request", request.id.encode()),
        ("branchy-model", request.model.encode()),
        ("branchy-stage", request.stage.encode()),
        ("branchy-budget-ms", f"{request.budget_ms:.1f}".encode()),
    ]
    if request.traceparent:
        headers.append(("traceparent", request.traceparent.encode()))
    return headers, body


def decode_request(headers: Headers, body: bytes, *, model: str, stage: str, new_id: Callable[[], str]) -> Request:
    """A request from what arrived.

    Args:
        headers: as they came.
        body: as it came.
        model: the reader's own digest, and
        stage: its first stage: what a JSON request of a person, who names neither, is taken to mean.
        new_id: makes one for a request that has none of its own.

    Raises:
        WireError: `headers`, `type`, `content-type`, `size`, `budget`, `body`; `tensor`, `shape`, `dtype` and
            `not-finite` as `decode_tensors`. What JSON's numbers are is `check_tensor`'s to say.
    """
    h = _read_headers(headers)
    if h.get("ce_type", REQUEST_TYPE) != REQUEST_TYPE:
        raise WireError("type", f"expected ce_type {REQUEST_TYPE}, got {h['ce_type'][:80]!r}")
    _check_size(body, MAX_BODY_BYTES)
    if len(own_id := _id_of(headers)) > MAX_ID_BYTES:  # under another its answer would be nobody's
        raise WireError("headers", f"expected a request's id of at most {MAX_ID_BYTES} bytes, got {len(own_id)}")
    content_type = h.get("content-type", SAFETENSORS).partition(";")[0].strip().lower()
    payload: Mapping[str, Array] | EncodedSample
    if content_type == SAFETENSORS:
        for name in ("branchy-model", "branchy-stage"):
            if name not in h:
                raise WireError("headers", f"expected a header {name}, got none")
        payload = decode_tensors(body)
    elif content_type == JSON:
        payload = _decode_json(body)
    elif content_type in IMAGES:
        payload = EncodedSample(cast(Literal["image/jpeg", "image/png"], content_type), body)
    else:
        raise WireError(
            "content-type", f"expected {SAFETENSORS}, {JSON} or {', '.join(IMAGES)}, got {content_type[:80]!r}"
        )
    return Request(
        id=own_id.decode("utf-8", "replace") or new_id(),
        model=h.get("branchy-model", model),
        stage=h.get("branchy-stage", stage),
        budget_ms=_read_budget(h.get("branchy-budget-ms")),
        payload=payload,
        traceparent=trace if _TRACEPARENT.fullmatch(trace := h.get("traceparent", "")) else None,
        body_bytes=len(body),
    )


def _read_budget(text: str | None) -> float:
    if text is None:
        return DEFAULT_BUDGET_MS
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise WireError("budget", f"branchy-budget-ms: expected a number of milliseconds, got {text[:40]!r}")
    return min(max(value, 0.0), MAX_BUDGET_MS)


def _decode_json(body: bytes) -> dict[str, Array]:
    """`{"sample": [[...], ...]}`: tensors by name as nested lists, of `_NUMBERS`: JSON has but one kind of them."""
    _check_size(body, MAX_JSON_BYTES, " of JSON (send safetensors instead)")
    try:
        data = pydantic_core.from_json(body)
    except (ValueError, RecursionError) as error:
        raise WireError("body", f"expected JSON, got {len(body)} bytes that are not: {error}") from None
    if not isinstance(data, dict) or not data:
        raise WireError("body", 'expected a JSON object of tensors, such as {"sample": [[0, 1], [2, 3]]}')
    out: dict[str, Array] = {}
    for name, value in data.items():
        try:
            out[name] = _from_lists(value)
        except (ValueError, TypeError, OverflowError) as error:
            raise WireError("body", f"tensor {name!r}: expected a regular nested list of numbers: {error}") from None
        if not np.isfinite(cast(Any, out[name])).all():
            raise _not_finite(name)
    return out


def _from_lists(value: object) -> Array:
    # As objects first: left to itself, NumPy makes room for the longest string at each place, 10,000 times the message.
    kinds = {type(each) for each in np.asarray(value, dtype=object).ravel().tolist()}
    if not kinds <= {int, float}:
        raise TypeError(f"got {', '.join(sorted(kind.__name__ for kind in kinds - {int, float}))}")
    array = np.asarray(value)
    if array.dtype.kind not in "iuf":
        raise OverflowError("got a whole number of more than 64 bits")
    return cast(Array, array.astype(_NUMBERS, copy=False))


# --- answers ---------------------------------------------------------------------------------------------------------


def encode_answer(
    answer: Answer, stamp: Stamp, traceparent: str | None = None
) -> tuple[list[tuple[str, bytes]], bytes]:
    """Headers and JSON body of an answer."""
    headers = _event_headers(ANSWER_TYPE, JSON, stamp)
    headers += [("branchy-request", answer.request.encode()), ("branchy-model", answer.model.encode())]
    if traceparent:
        headers.append(("traceparent", traceparent.encode()))
    return headers, _TO_JSON.to_json(answer)


def decode_answer(headers: Headers, body: bytes) -> Answer:
    """An answer from what arrived.

    Raises:
        WireError: `headers`, `type`, `size`, `body` (not JSON, or a field missing or of a wrong type).
    """
    h = _read_headers(headers)
    if h.get("ce_type") != ANSWER_TYPE:
        raise WireError("type", f"expected ce_type {ANSWER_TYPE}, got {h.get('ce_type', 'none')[:80]!r}")
    _check_size(body, MAX_JSON_BYTES, " of JSON")
    try:
        answer = cast(Answer, _FROM_JSON.validate_json(body, strict=True))
    except pydantic_core.ValidationError as error:
        found = error.errors(include_url=False, include_context=False, include_input=False)[0]
        where = ".".join(map(str, found["loc"]))
        raise WireError("body", f"expected an answer as JSON: {where and where + ': '}{found['msg']}"[:200]) from None
    known = [field is not None for field in (answer.label, answer.index, answer.confidence)]
    if not all(known) if answer.status == "ok" else any(known):
        raise WireError("body", "expected an answer with label, index and confidence with status ok, and only then")
    return answer


def _fields_schema(kind: type, **fields: CoreSchema) -> CoreSchema:
    """A dataclass as a JSON object: what may be None or has a default may be missing, what it lacks is passed over."""
    types = []
    for each in dataclasses.fields(kind):
        schema = fields[each.name]
        if schema["type"] == "nullable":
            schema = core_schema.with_default_schema(schema, default=None)
        elif each.default is not dataclasses.MISSING:
            schema = core_schema.with_default_schema(schema, default=each.default)
        elif each.default_factory is not dataclasses.MISSING:
            schema = core_schema.with_default_schema(schema, default_factory=each.default_factory)
        types.append(core_schema.dataclass_field(each.name, schema))
    arguments = core_schema.dataclass_args_schema(kind.__name__, types)
    return core_schema.dataclass_schema(kind, arguments, [each.name for each in dataclasses.fields(kind)], slots=True)


def _answer_schema() -> CoreSchema:
    text, whole = core_schema.str_schema(), core_schema.int_schema(ge=0)
    amount = core_schema.float_schema(ge=0, allow_inf_nan=False)
    share = core_schema.float_schema(ge=0, le=1, allow_inf_nan=False)
    or_none = core_schema.nullable_schema

    def several(item: CoreSchema) -> CoreSchema:  # each complaint takes room, so the first ends it
        return core_schema.tuple_schema([item], variadic_item_index=0, fail_fast=True)

    prediction = {"exit": or_none(text), "index": or_none(whole), "confidence": or_none(share)}
    hop = _fields_schema(
        Hop, tier=text, queue_ms=amount, compute_ms=amount, total_ms=amount, bytes_up=whole, **prediction
    )
    return _fields_schema(
        Answer,
        request=text,
        status=core_schema.literal_schema([*get_args(Status)]),
        reason=core_schema.literal_schema([*get_args(Reason)]),
        tier=text,
        model=text,
        label=or_none(text),
        probabilities=several(share),
        hops=several(hop),
        detail=or_none(text),
        certified=core_schema.bool_schema(),
        **prediction,
    )


_TO_JSON = pydantic_core.SchemaSerializer(_answer_schema())
_FROM_JSON = pydantic_core.SchemaValidator(_answer_schema())
