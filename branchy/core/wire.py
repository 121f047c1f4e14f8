"""Messages <-> headers and bodies: CloudEvents 1.0 in Kafka's binary mode, safetensors, JSON.

What comes in is checked before use; what fails raises `WireError` with a stable code.
The reply headers (`kafka_correlationId`, `kafka_replyTopic`, ...) belong to the transport.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Any, Literal, cast, get_args

import numpy as np
import safetensors
import safetensors.numpy

from branchy.core.cascade import Array, DType, TensorSpec
from branchy.core.messages import Answer, EncodedSample, Hop, Reason, Request, Status
from branchy.errors import WireError

SAFETENSORS = "application/vnd.safetensors"
JSON = "application/json"
IMAGES = ("image/jpeg", "image/png")
REQUEST_TYPE = "branchy.request"
ANSWER_TYPE = "branchy.answer"

MAX_HEADERS = 64
MAX_HEADER_BYTES = 16 * 1024
MAX_BODY_BYTES = 32 * 1024 * 1024
MAX_BUDGET_MS = 30_000.0
DEFAULT_BUDGET_MS = 1_000.0

SCALE, OFFSET = ".scale", ".offset"
"""Suffixes of the two one-value tensors that go with a uint8 tensor: value = offset + scale * q."""

Headers = Sequence[tuple[str, bytes]]


@dataclass(frozen=True, slots=True)
class Stamp:
    """What makes an event unique: a fresh id, who sends it, and when (UTC). Given by the caller, who has a clock."""

    id: str
    source: str
    time: datetime


# --- tensors ---------------------------------------------------------------------------------------------------------


def encode_tensors(tensors: Mapping[str, Array], dtype: DType | None = None) -> bytes:
    """Tensors as safetensors.

    Args:
        tensors: by name, without batch axis; uint8 arrays travel as they are.
        dtype: what float arrays travel in; `uint8` is affine over the array's own range, and
            brings `NAME.scale` and `NAME.offset` along. None keeps each array's own.

    Raises:
        WireError: `not-finite` when a float array holds NaN or infinity, or overflows float16.
    """
    out: dict[str, Array] = {}
    for name, array in tensors.items():
        if dtype is None or array.dtype == np.uint8:
            out[name] = np.ascontiguousarray(array)
        elif dtype == "uint8":
            out.update(_quantise(name, array))
        else:
            with np.errstate(over="ignore"):
                out[name] = np.ascontiguousarray(array, dtype=dtype)
        if out[name].dtype != np.uint8:
            _check_finite(name, out[name])
    return bytes(safetensors.numpy.save(cast(dict[str, Any], out)))


def _quantise(name: str, array: Array) -> dict[str, Array]:
    values = np.asarray(array, dtype=np.float32)
    _check_finite(name, values)
    low, high = float(values.min(initial=np.inf)), float(values.max(initial=-np.inf))
    scale = (high - low) / 255.0 if values.size and high > low else 0.0
    q = np.rint((values - np.float32(low)) / scale) if scale > 0 else np.zeros_like(values)
    return {
        name: np.clip(q, 0, 255).astype(np.uint8),
        name + SCALE: np.asarray([scale], dtype=np.float32),
        name + OFFSET: np.asarray([low if values.size else 0.0], dtype=np.float32),
    }


def _check_finite(name: str, array: Array) -> None:
    if not np.isfinite(cast(Any, array)).all():
        raise WireError("not-finite", f"tensor {name} holds NaN or infinite values")


def decode_tensors(body: bytes) -> dict[str, Array]:
    """Tensors from safetensors; affine uint8 comes back as float32, other dtypes as they are.

    Raises:
        WireError: `body` for anything that is not safetensors; `dtype` for a dtype that branchy
            does not send; `not-finite`.
    """
    try:
        raw = safetensors.numpy.load(body)
    except (safetensors.SafetensorError, KeyError, ValueError, TypeError, OverflowError, MemoryError) as error:
        raise WireError("body", f"expected a safetensors body, got {len(body)} bytes that are not: {error}") from None
    out: dict[str, Array] = {}
    for name, array in raw.items():
        if str(array.dtype) not in get_args(DType):
            raise WireError("dtype", f"tensor {name}: expected float32, float16 or uint8, got {array.dtype}")
        if array.dtype != np.uint8:
            _check_finite(name, array)
    for name, array in raw.items():
        if name.endswith((SCALE, OFFSET)) and name.rpartition(".")[0] in raw:
            continue
        scale, offset = raw.get(name + SCALE), raw.get(name + OFFSET)
        if array.dtype == np.uint8 and scale is not None and offset is not None:
            if scale.size != 1 or offset.size != 1:
                raise WireError("shape", f"tensor {name}: scale and offset must be one value each")
            out[name] = np.float32(offset.flat[0]) + np.float32(scale.flat[0]) * array.astype(np.float32)
        else:
            out[name] = array
    return out


def check_tensor(payload: Mapping[str, Array], name: str, spec: TensorSpec) -> Array:
    """The one tensor that a stage takes, checked against its spec and in its dtype.

    Args:
        payload: tensors by name.
        name: the tensor's name on the wire (the source's).
        spec: the stage's input; float16 and float32 are taken for float32, uint8 only for uint8.

    Raises:
        WireError: `tensor` when it is not there, `shape`, `dtype`.
    """
    if name not in payload:
        raise WireError("tensor", f"expected a tensor '{name}', got {sorted(payload) or 'none'}")
    array = payload[name]
    if array.shape != spec.shape:
        raise WireError("shape", f"tensor {name}: expected shape {spec.shape}, got {array.shape}")
    if (array.dtype == np.uint8) != (spec.dtype == "uint8"):
        raise WireError("dtype", f"tensor {name}: expected {spec.dtype}, got {array.dtype}")
    return array if array.dtype == spec.dtype else array.astype(spec.dtype)


# --- headers ---------------------------------------------------------------------------------------------------------


def _event_headers(kind: str, content_type: str, stamp: Stamp) -> list[tuple[str, bytes]]:
    return [
        ("ce_specversion", b"1.0"),
        ("ce_id", stamp.id.encode()),
        ("ce_source", stamp.source.encode()),
        ("ce_type", kind.encode()),
        ("ce_time", stamp.time.isoformat(timespec="milliseconds").replace("+00:00", "Z").encode()),
        ("content-type", content_type.encode()),
    ]


def _read_headers(headers: Headers) -> dict[str, str]:
    if len(headers) > MAX_HEADERS:
        raise WireError("headers", f"expected at most {MAX_HEADERS} headers, got {len(headers)}")
    out: dict[str, str] = {}
    total = 0
    for name, value in headers:
        raw = value or b""
        total += len(name) + len(raw)
        if total > MAX_HEADER_BYTES:
            raise WireError("headers", f"expected at most {MAX_HEADER_BYTES} bytes of headers")
        if name.startswith(("ce_", "branchy-", "content-type", "traceparent")):
            try:
                out.setdefault(name, raw.decode("utf-8"))
            except UnicodeDecodeError:
                raise WireError("headers", f"header {name} is not UTF-8") from None
    return out


def request_id(headers: Headers) -> str | None:
    """The id a request carries, also when the rest of it is malformed; None when there is none."""
    for wanted in ("branchy-request", "ce_id"):
        for name, value in headers:
            if name == wanted and value and len(value) <= 256:
                return value.decode("utf-8", "replace")
    return None


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


def decode_request(headers: Headers, body: bytes, *, model: str, stage: str, fallback_id: str) -> Request:
    """A request from what arrived.

    Args:
        headers: as they came.
        body: as it came.
        model: the reader's own digest, and
        stage: its first stage: what a JSON request of a person, who names neither, is taken to mean.
        fallback_id: used when the request has no id of its own.

    Raises:
        WireError: `headers`, `type`, `content-type`, `size`, `budget`, `body`, `dtype`, `not-finite`.
    """
    h = _read_headers(headers)
    if h.get("ce_type", REQUEST_TYPE) != REQUEST_TYPE:
        raise WireError("type", f"expected ce_type {REQUEST_TYPE}, got {h['ce_type'][:80]!r}")
    if len(body) > MAX_BODY_BYTES:
        raise WireError("size", f"expected at most {MAX_BODY_BYTES} bytes, got {len(body)}")
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
        id=request_id(headers) or fallback_id,
        model=h.get("branchy-model", model),
        stage=h.get("branchy-stage", stage),
        budget_ms=_read_budget(h.get("branchy-budget-ms")),
        payload=payload,
        traceparent=h.get("traceparent"),
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
    """`{"sample": [[...], ...]}`: tensors by name as nested lists; whole numbers 0..255 become uint8."""
    try:
        data = json.loads(body)
    except (ValueError, RecursionError) as error:
        raise WireError("body", f"expected JSON, got {len(body)} bytes that are not: {error}") from None
    if not isinstance(data, dict) or not data:
        raise WireError("body", 'expected a JSON object of tensors, such as {"sample": [[0, 1], [2, 3]]}')
    out: dict[str, Array] = {}
    for name, value in data.items():
        try:
            array = np.asarray(value)
        except (ValueError, OverflowError) as error:
            raise WireError("body", f"tensor {name}: expected a regular nested list of numbers: {error}") from None
        if array.dtype.kind not in "iuf":
            raise WireError("body", f"tensor {name}: expected a regular nested list of numbers")
        if array.dtype.kind in "iu" and array.size and array.min() >= 0 and array.max() <= 255:
            out[name] = array.astype(np.uint8)
        else:
            with np.errstate(over="ignore"):
                out[name] = array.astype(np.float32)
            _check_finite(name, out[name])
    return out


# --- answers ---------------------------------------------------------------------------------------------------------


def encode_answer(
    answer: Answer, stamp: Stamp, traceparent: str | None = None
) -> tuple[list[tuple[str, bytes]], bytes]:
    """Headers and JSON body of an answer."""
    headers = _event_headers(ANSWER_TYPE, JSON, stamp)
    headers += [("branchy-request", answer.request.encode()), ("branchy-model", answer.model.encode())]
    if traceparent:
        headers.append(("traceparent", traceparent.encode()))
    return headers, json.dumps(asdict(answer), separators=(",", ":"), allow_nan=False).encode()


def decode_answer(headers: Headers, body: bytes) -> Answer:
    """An answer from what arrived.

    Raises:
        WireError: `headers`, `type`, `size`, `body` (not JSON, or a field missing or of a wrong type).
    """
    h = _read_headers(headers)
    if h.get("ce_type") != ANSWER_TYPE:
        raise WireError("type", f"expected ce_type {ANSWER_TYPE}, got {h.get('ce_type', 'none')[:80]!r}")
    if len(body) > MAX_BODY_BYTES:
        raise WireError("size", f"expected at most {MAX_BODY_BYTES} bytes, got {len(body)}")
    try:
        data = json.loads(body)
        return _answer_from(data)
    except (ValueError, KeyError, TypeError, RecursionError, AttributeError, OverflowError) as error:
        raise WireError("body", f"expected an answer as JSON: {error!r:.200}") from None


def _answer_from(data: dict[str, Any]) -> Answer:
    if data["status"] not in get_args(Status) or data["reason"] not in get_args(Reason):
        raise ValueError(f"unknown status or reason: {data['status']!r:.40}, {data['reason']!r:.40}")
    index, confidence = data.get("index"), data.get("confidence")
    if data["status"] == "ok" and (data.get("label") is None or index is None or confidence is None):
        raise ValueError("status ok needs label, index and confidence")
    return Answer(
        request=str(data["request"]),
        status=data["status"],
        reason=data["reason"],
        tier=str(data["tier"]),
        model=str(data["model"]),
        label=_optional(str, data.get("label")),
        index=_optional(int, index),
        confidence=_optional(_finite, confidence),
        probabilities=tuple(_finite(p) for p in data.get("probabilities", ())),
        exit=_optional(str, data.get("exit")),
        hops=tuple(_hop_from(hop) for hop in data.get("hops", ())),
        detail=_optional(str, data.get("detail")),
    )


def _hop_from(data: dict[str, Any]) -> Hop:
    return Hop(
        tier=str(data["tier"]),
        exit=_optional(str, data.get("exit")),
        index=_optional(int, data.get("index")),
        confidence=_optional(_finite, data.get("confidence")),
        queue_ms=_finite(data["queue_ms"]),
        compute_ms=_finite(data["compute_ms"]),
        total_ms=_finite(data["total_ms"]),
        bytes_up=int(data.get("bytes_up", 0)),
    )


def _finite(value: Any) -> float:
    number = float(value)
    if not math.isfinite(number):
        raise ValueError(f"expected a finite number, got {value!r:.40}")
    return number


def _optional(kind: Any, value: Any) -> Any:
    return None if value is None else kind(value)
