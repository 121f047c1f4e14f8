import contextlib
import json
import math
import struct

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from wire_strategies import answers, is_utf8, texts

from branchy.core import wire
from branchy.core.cascade import TensorSpec
from branchy.core.messages import Answer, EncodedSample, Hop, Request
from branchy.errors import WireError

STAMP = wire.Stamp("0192f0c4-0000-7000-8000-000000000000", "/branchy/test", 1767323045.006789)
TRACE = "00-" + "a" * 32 + "-" + "b" * 16 + "-01"
READER = {"model": "own-digest", "stage": "edge", "new_id": lambda: "fallback"}

shapes = hnp.array_shapes(min_dims=0, max_dims=4, min_side=0, max_side=5)
names = st.text(min_size=1, max_size=20).filter(lambda n: n != "__metadata__" and is_utf8(n))


def finite(dtype: str, **kwargs):
    elements = {"allow_nan": False, "allow_infinity": False} | kwargs if dtype != "uint8" else {}
    return hnp.arrays(dtype, shapes, elements=elements)


def code_of(call, *args, **kwargs) -> str:
    with pytest.raises(WireError) as caught:
        call(*args, **kwargs)
    assert len(str(caught.value)) <= 300
    assert str(caught.value).isprintable()
    return caught.value.code


# --- tensors ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", ["float32", "float16", "uint8"])
@given(data=st.data())
def test_tensors_of_every_dtype_come_back_as_they_were(dtype, data):
    tensors = data.draw(st.dictionaries(names, finite(dtype), max_size=3))
    back = wire.decode_tensors(wire.encode_tensors(tensors))
    assert back.keys() == tensors.keys()
    for name, array in tensors.items():
        assert back[name].dtype == array.dtype
        np.testing.assert_array_equal(back[name], array, strict=True)


@given(finite("float32", min_value=-65000, max_value=65000))
def test_float16_travel_costs_at_most_a_rounding(array):
    back = wire.decode_tensors(wire.encode_tensors({"a": array}, "float16"))["a"]
    assert back.dtype == np.float16
    np.testing.assert_allclose(back.astype(np.float64), array, rtol=2**-11, atol=2**-25)


@given(finite("float32"))
def test_uint8_travel_is_off_by_at_most_half_a_step(array):
    back = wire.decode_tensors(wire.encode_tensors({"a": array}, "uint8"))["a"]
    assert (back.dtype, back.shape) == (np.float32, array.shape)
    if not array.size:
        return
    low, high = float(array.min()), float(array.max())
    rounding = np.finfo(np.float32).eps * max(abs(low), abs(high)) + 255 * 1.5e-45
    half_a_step = (high - low) / 255 / 2
    assert np.abs(back.astype(np.float64) - array).max() <= half_a_step + rounding


def test_uint8_travel_keeps_the_ends_of_the_range_and_takes_a_quarter_of_the_bytes():
    array = np.linspace(-3, 7, 8192, dtype=np.float32)
    body = wire.encode_tensors({"a": array}, "uint8")
    back = wire.decode_tensors(body)["a"]
    assert (back.min(), back.max()) == pytest.approx((-3, 7), rel=1e-6)
    assert len(body) < array.nbytes / 4 + 400


@given(finite("uint8"), st.sampled_from([None, "float32", "float16", "uint8"]))
def test_uint8_arrays_travel_as_they_are_whatever_the_dtype(array, dtype):
    np.testing.assert_array_equal(wire.decode_tensors(wire.encode_tensors({"a": array}, dtype))["a"], array)


def test_arrays_in_fortran_or_foreign_byte_order_come_back_right():
    array = np.arange(6, dtype=np.float32).reshape(2, 3)
    for other in (np.asfortranarray(array), array.astype(">f4"), array[:, ::-1][:, ::-1]):
        np.testing.assert_array_equal(wire.decode_tensors(wire.encode_tensors({"a": other}))["a"], array)


@pytest.mark.parametrize("dtype", [None, "float32", "float16", "uint8"])
@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_values_that_are_not_finite_are_not_sent(dtype, value):
    array = np.array([0.0, value], dtype=np.float32)
    assert code_of(wire.encode_tensors, {"a": array}, dtype) == "not-finite"


@pytest.mark.parametrize(("value", "dtype"), [(1e5, "float16"), (1e300, "float32"), (1e300, "uint8")])
def test_values_that_overflow_what_they_travel_in_are_not_sent(value, dtype):
    assert code_of(wire.encode_tensors, {"a": np.array([value])}, dtype) == "not-finite"


@pytest.mark.parametrize("dtype", ["float64", "int64", "bool", "complex64"])
def test_a_dtype_that_the_other_side_refuses_is_not_sent(dtype):
    assert code_of(wire.encode_tensors, {"a": np.zeros(2, dtype)}) == "dtype"


def safetensors_body(head: object, data: bytes = b"") -> bytes:
    text = json.dumps(head).encode()
    return struct.pack("<Q", len(text)) + text + data


def one_tensor(dtype: str, size: int) -> bytes:
    return safetensors_body({"a": {"dtype": dtype, "shape": [1], "data_offsets": [0, size]}}, bytes(size))


@pytest.mark.parametrize("dtype", ["F64", "I64", "I32", "I16", "I8", "BOOL", "U16", "U32", "U64", "C64"])
def test_a_dtype_that_branchy_does_not_send_is_refused(dtype):
    sizes = {"BOOL": 1, "I8": 1, "I16": 2, "U16": 2, "I32": 4, "U32": 4}
    assert code_of(wire.decode_tensors, one_tensor(dtype, sizes.get(dtype, 8))) == "dtype"


@pytest.mark.parametrize("dtype", ["BF16", "F8_E5M2", "F8_E4M3", "F4", "nonsense"])
def test_a_dtype_that_numpy_has_not_is_refused(dtype):
    assert code_of(wire.decode_tensors, one_tensor(dtype, 2 if dtype == "BF16" else 1)) == "body"


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_values_that_are_not_finite_are_refused(value):
    body = safetensors_body({"a": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}}, struct.pack("<f", value))
    assert code_of(wire.decode_tensors, body) == "not-finite"


@pytest.mark.parametrize(
    ("scale", "offset", "code"),
    [
        ([3e38], [3e38], "not-finite"),
        ([math.nan], [0.0], "not-finite"),
        ([1.0, 1.0], [0.0], "shape"),
        ([1.0], [], "shape"),
        (None, [0.0], "tensor"),
        ([1.0], None, "tensor"),
    ],
)
def test_a_scale_or_offset_that_makes_no_finite_tensor_is_refused(scale, offset, code):
    head, data = {"a": {"dtype": "U8", "shape": [1], "data_offsets": [0, 1]}}, b"\xff"
    for name, values in (("a.scale", scale), ("a.offset", offset)):
        if values is not None:
            start = len(data)
            data += struct.pack(f"<{len(values)}f", *values)
            head[name] = {"dtype": "F32", "shape": [len(values)], "data_offsets": [start, len(data)]}
    assert code_of(wire.decode_tensors, safetensors_body(head, data)) == code


def test_a_float_tensor_may_be_called_scale():
    tensors = {"a": np.zeros(3, np.float32), "a.scale": np.ones(2, np.float32)}
    assert wire.decode_tensors(wire.encode_tensors(tensors)).keys() == tensors.keys()


def test_a_head_of_many_tensors_is_refused_before_it_is_parsed():
    empty = {"dtype": "F32", "shape": [0], "data_offsets": [0, 0]}
    assert code_of(wire.decode_tensors, safetensors_body({f"t{i}": empty for i in range(5000)})) == "body"


def test_a_message_that_quotes_what_came_is_short_and_on_one_line():
    tensors = {"name\nwith\rlines" + "x" * 1000: np.zeros(1, np.float32)}
    assert code_of(wire.check_tensor, tensors, "activation", TensorSpec("activation", (1,))) == "tensor"


@given(st.binary(max_size=200))
def test_bytes_of_any_kind_are_tensors_or_a_wire_error(body):
    with contextlib.suppress(WireError):
        wire.decode_tensors(body)


@given(st.data())
def test_a_damaged_body_is_tensors_or_a_wire_error(data):
    body = bytearray(
        wire.encode_tensors({"a": np.ones((2, 3), np.float32)}, data.draw(st.sampled_from([None, "uint8"])))
    )
    for _ in range(data.draw(st.integers(1, 4))):
        body[data.draw(st.integers(0, len(body) - 1))] = data.draw(st.integers(0, 255))
    cut = bytes(body[: data.draw(st.integers(0, len(body)))])
    try:
        tensors = wire.decode_tensors(cut)
    except WireError:
        return
    assert all(np.isfinite(array).all() for array in tensors.values())


# --- the one tensor that a stage takes -------------------------------------------------------------------------------

SPEC = TensorSpec("input", (2, 3), "float32")


@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_a_float_tensor_is_taken_in_the_dtype_of_the_stage(dtype):
    array = np.ones((2, 3), dtype)
    taken = wire.check_tensor({"a": array}, "a", SPEC)
    assert taken.dtype == np.float32
    np.testing.assert_array_equal(taken, array)


@pytest.mark.parametrize(
    ("array", "spec", "code"),
    [
        (np.ones((3, 2), np.float32), SPEC, "shape"),
        (np.ones((1, 2, 3), np.float32), SPEC, "shape"),
        (np.ones((2, 3), np.uint8), SPEC, "dtype"),
        (np.ones((2, 3), np.float32), TensorSpec("input", (2, 3), "uint8"), "dtype"),
        (np.full((2, 3), 1e6, np.float32), TensorSpec("input", (2, 3), "float16"), "not-finite"),
    ],
)
def test_a_tensor_that_does_not_fit_the_stage_is_refused(array, spec, code):
    assert code_of(wire.check_tensor, {"a": array}, "a", spec) == code


def test_a_missing_tensor_is_named_with_those_that_came():
    with pytest.raises(WireError, match=r"expected a tensor 'a', got \['b'\]"):
        wire.check_tensor({"b": np.zeros(1)}, "a", SPEC)


# --- headers and requests --------------------------------------------------------------------------------------------

ids = texts.filter(bool).filter(lambda t: len(t.encode()) <= 256)
requests = st.builds(
    Request,
    id=ids,
    model=texts,
    stage=texts,
    budget_ms=st.integers(0, 300_000).map(lambda tenths: tenths / 10),
    payload=st.dictionaries(names, finite("uint8"), max_size=2),
    traceparent=st.none() | st.just(TRACE),
)


@given(requests)
def test_a_request_comes_back_as_it_was(request):
    headers, body = wire.encode_request(request, STAMP)
    back = wire.decode_request(headers, body, **READER)
    assert back.body_bytes == len(body)
    for field in ("id", "model", "stage", "budget_ms", "traceparent"):
        assert getattr(back, field) == getattr(request, field)
    assert back.payload.keys() == request.payload.keys()


@pytest.mark.parametrize("kind", ["image/jpeg", "image/png"])
def test_an_encoded_image_comes_back_as_it_was(kind):
    request = Request("r", "m", "edge", 100.0, EncodedSample(kind, b"\xff\xd8\xff"))
    headers, body = wire.encode_request(request, STAMP)
    assert (dict(headers)["content-type"], body) == (kind.encode(), b"\xff\xd8\xff")
    assert wire.decode_request(headers, body, **READER).payload == request.payload


def test_headers_are_those_of_cloudevents_in_kafkas_binary_mode():
    stamp = wire.Stamp("id-1", "/me", 1767323045.006789)
    request = Request("r", "m", "fog", 12.34, {"a": np.zeros(1, np.uint8)}, TRACE)
    headers = dict(wire.encode_request(request, stamp)[0])
    assert headers == {
        "ce_specversion": b"1.0",
        "ce_id": b"id-1",
        "ce_source": b"/me",
        "ce_type": b"branchy.request",
        "ce_time": b"2026-01-02T03:04:05.006Z",
        "content-type": b"application/vnd.safetensors",
        "branchy-request": b"r",
        "branchy-model": b"m",
        "branchy-stage": b"fog",
        "branchy-budget-ms": b"12.3",
        "traceparent": TRACE.encode(),
    }


def test_utc_is_written_with_a_z():
    headers, _ = wire.encode_answer(answer(), STAMP)
    assert dict(headers)["ce_time"] == b"2026-01-02T03:04:05.006Z"


def sample_request(**changes: bytes | None) -> tuple[list[tuple[str, bytes]], bytes]:
    """A good request; keywords replace headers by name (`_` for `-` after the prefix), None removes one."""
    headers, body = wire.encode_request(Request("r", "m", "edge", 500.0, {"a": np.zeros(2, np.uint8)}), STAMP)
    wanted = {name.replace("__", "-"): value for name, value in changes.items()}
    kept = [(name, wanted.pop(name, value)) for name, value in headers]
    return [(name, value) for name, value in [*kept, *wanted.items()] if value is not None], body


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"ce_type": b"branchy.answer"}, "type"),
        ({"content__type": b"text/html"}, "content-type"),
        ({"branchy__model": None}, "headers"),
        ({"branchy__stage": None}, "headers"),
        ({"branchy__stage": b"\xff\xfe"}, "headers"),
        ({"branchy__budget__ms": b"soon"}, "budget"),
        ({"branchy__budget__ms": b"nan"}, "budget"),
        ({"branchy__budget__ms": b"inf"}, "budget"),
        ({"content__type": b"application/json"}, "body"),
    ],
)
def test_a_request_with_wrong_headers_is_refused(changes, code):
    headers, body = sample_request(**changes)
    assert code_of(wire.decode_request, headers, body, **READER) == code


def test_the_id_is_known_also_of_a_request_that_is_refused():
    headers, body = sample_request(content__type=b"text/html")
    assert code_of(wire.decode_request, headers, body, **READER) == "content-type"
    assert wire.request_id(headers) == "r"


@pytest.mark.parametrize(
    ("headers", "want"),
    [
        ([], None),
        ([("ce_id", b"event")], "event"),
        ([("ce_id", b"event"), ("branchy-request", b"request")], "request"),
        ([("branchy-request", b""), ("ce_id", b"event")], "event"),
        ([("branchy-request", b"x" * 256), ("ce_id", b"event")], "x" * 256),
        ([("branchy-request", b"x" * 257), ("ce_id", b"event")], None),
    ],
)
def test_a_requests_id_is_its_own_or_else_its_events(headers, want):
    assert wire.request_id(headers) == want


@pytest.mark.parametrize("name", ["branchy-request", "ce_id"])
def test_an_id_that_is_too_long_is_refused_and_not_replaced(name):
    """By another a client would not know its answer."""
    _, body = sample_request()
    headers = [("branchy-model", b"m"), ("branchy-stage", b"edge")]
    asked = wire.decode_request([*headers, (name, b"x" * wire.MAX_ID_BYTES)], body, **READER)
    assert asked.id == "x" * wire.MAX_ID_BYTES
    assert code_of(wire.decode_request, [*headers, (name, b"x" * (wire.MAX_ID_BYTES + 1))], body, **READER) == "headers"
    event = ("ce_id", b"x" * 1000)
    assert wire.decode_request([*headers, event, ("branchy-request", b"r")], body, **READER).id == "r"


@pytest.mark.parametrize(("text", "want"), [(b"-5", 0.0), (b"1e9", 30_000.0), (b"250", 250.0), (None, 1000.0)])
def test_a_budget_is_clamped_and_has_a_default(text, want):
    headers, body = sample_request(branchy__budget__ms=text)
    assert wire.decode_request(headers, body, **READER).budget_ms == want


@pytest.mark.parametrize("text", [b"", b"00-xyz", TRACE.upper().encode(), b"a" * 5000])
def test_a_trace_that_is_none_is_not_passed_on(text):
    headers, body = sample_request(traceparent=text)
    assert wire.decode_request(headers, body, **READER).traceparent is None


def test_too_many_or_too_large_headers_are_refused():
    headers, body = sample_request()
    assert code_of(wire.decode_request, [*headers, *[("x", b"")] * 64], body, **READER) == "headers"
    assert code_of(wire.decode_request, [*headers, ("x", bytes(16 * 1024))], body, **READER) == "headers"


def test_a_body_over_the_limit_is_refused(monkeypatch):
    monkeypatch.setattr(wire, "MAX_BODY_BYTES", 10)
    headers, body = sample_request()
    assert code_of(wire.decode_request, headers, body, **READER) == "size"


def json_of(size_bytes: int) -> bytes:
    """Zeros; as white space it would cost nothing to read."""
    return b'{"sample": [' + b"0," * ((size_bytes - 16) // 2) + b"0]}".rjust(4 + size_bytes % 2)


@pytest.mark.parametrize("size", [wire.MAX_JSON_BYTES, wire.MAX_JSON_BYTES - 1])
def test_json_may_have_a_mebibyte(size):
    body = json_of(size)
    assert len(body) == size
    assert from_json(body)["sample"].size == (size - 16) // 2 + 1


def test_json_over_its_own_smaller_limit_is_refused_and_safetensors_are_named():
    body = json_of(wire.MAX_JSON_BYTES + 1)
    with pytest.raises(WireError, match=r"at most 1048576 bytes of JSON \(send safetensors instead\), got 1048577"):
        from_json(body)
    assert code_of(wire.decode_answer, [("ce_type", b"branchy.answer")], body) == "size"
    tensors = {"a": np.zeros(2 * wire.MAX_JSON_BYTES, np.uint8)}
    assert wire.decode_request(*wire.encode_request(Request("r", "m", "e", 1.0, tensors), STAMP), **READER).body_bytes


header_names = st.sampled_from(
    ["ce_id", "ce_type", "content-type", "branchy-request", "branchy-model", "branchy-stage", "branchy-budget-ms"]
) | st.text(max_size=20)
header_values = st.none() | st.binary(max_size=40) | st.sampled_from([b"branchy.request", b"application/json"])


@given(st.lists(st.tuples(header_names, header_values), max_size=70), st.binary(max_size=60))
def test_headers_and_bytes_of_any_kind_are_a_message_or_a_wire_error(headers, body):
    for decode in (lambda: wire.decode_request(headers, body, **READER), lambda: wire.decode_answer(headers, body)):
        with contextlib.suppress(WireError):
            decode()


# --- requests of a person, in JSON -----------------------------------------------------------------------------------


def from_json(value: object) -> dict[str, np.ndarray]:
    body = value if isinstance(value, bytes) else json.dumps(value).encode()
    return dict(wire.decode_request([("content-type", b"application/json; charset=utf-8")], body, **READER).payload)


def test_json_needs_no_other_header_and_is_for_the_readers_own_model_and_stage():
    request = wire.decode_request([("content-type", b"application/json")], b'{"sample": [[0, 255]]}', **READER)
    assert (request.id, request.model, request.stage, request.budget_ms) == ("fallback", "own-digest", "edge", 1000.0)


@pytest.mark.parametrize("dtype", ["float32", "float16", "uint8"])
@pytest.mark.parametrize("value", [[0, 1, 2], [0.0, 1, 2.0], [0, 255, 1], [-0.0, 1, 1]])
def test_json_that_is_whole_numbers_0_to_255_is_taken_for_any_dtype_however_it_writes_them(value, dtype):
    """JavaScript writes 1.0 as 1: what a stage takes is for the stage to say, not for the values of a sample."""
    taken = wire.check_tensor(from_json({"sample": value}), "sample", TensorSpec("sample", (3,), dtype))
    assert taken.dtype == dtype
    np.testing.assert_array_equal(taken, np.asarray(value, dtype))


@pytest.mark.parametrize("value", [[0, 256], [-1, 0], [0.5, 1], [2**40, 1], [255.5, 0], [1e300, 0]])
def test_other_json_numbers_are_floats_where_they_fit_and_never_bytes(value):
    tensors = from_json({"sample": value})
    assert code_of(wire.check_tensor, tensors, "sample", TensorSpec("sample", (2,), "uint8")) == "dtype"
    spec = TensorSpec("sample", (2,), "float32")
    if value[0] > 1e38:
        assert code_of(wire.check_tensor, tensors, "sample", spec) == "not-finite"
    else:
        np.testing.assert_array_equal(wire.check_tensor(tensors, "sample", spec), np.asarray(value, np.float32))


@pytest.mark.parametrize("value", [[[1, 2], [3]], ["a"], [True], [None], {"a": 1}, "text", None, [10**400], [2**70]])
def test_json_that_is_no_regular_list_of_numbers_is_refused(value):
    assert code_of(from_json, {"sample": value}) == "body"


@pytest.mark.parametrize(
    "body", [b"", b"nonsense", b"[1]", b"{}", b"[" * 100_000, b'{"s": ' + b"[" * 70 + b"1" + b"]" * 70 + b"}", b"\xff"]
)
def test_a_body_that_is_no_json_object_of_tensors_is_refused(body):
    assert code_of(from_json, body) == "body"


@pytest.mark.parametrize("text", ["NaN", "Infinity", "1e999"])
def test_json_numbers_that_are_not_finite_floats_are_refused(text):
    assert code_of(from_json, f'{{"sample": [0.5, {text}]}}'.encode()) == "not-finite"


def test_a_name_with_half_a_surrogate_pair_is_quoted_so_that_it_can_be_sent_on():
    with pytest.raises(WireError) as caught:
        from_json(b'{"\\ud800": "x"}')
    assert str(caught.value).encode()


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=12,
)


@given(json_values)
def test_any_json_is_tensors_or_a_wire_error(value):
    try:
        tensors = from_json(value)
    except WireError:
        return
    assert all(np.isfinite(array).all() for array in tensors.values())


# --- answers ---------------------------------------------------------------------------------------------------------


def answer(**changes) -> Answer:
    hop = Hop("edge", "edge", 1, 0.75, 0.1, 0.2, 0.3, 0)
    fields = {"label": "one", "index": 1, "confidence": 0.75, "probabilities": (0.25, 0.75), "hops": (hop,)}
    return Answer(request="r", status="ok", reason="confident", tier="edge", model="m", **(fields | changes))


@given(answers(), st.none() | st.just(TRACE))
def test_an_answer_comes_back_as_it_was(original, trace):
    headers, body = wire.encode_answer(original, STAMP, trace)
    assert wire.decode_answer(headers, body) == original
    assert dict(headers).get("traceparent") == (trace.encode() if trace else None)


def test_an_answers_body_names_every_field_for_readers_in_other_languages():
    data = json.loads(wire.encode_answer(answer(), STAMP)[1])
    assert data == {
        "request": "r",
        "status": "ok",
        "reason": "confident",
        "tier": "edge",
        "model": "m",
        "label": "one",
        "index": 1,
        "confidence": 0.75,
        "probabilities": [0.25, 0.75],
        "exit": None,
        "hops": [
            {
                "tier": "edge",
                "exit": "edge",
                "index": 1,
                "confidence": 0.75,
                "queue_ms": 0.1,
                "compute_ms": 0.2,
                "total_ms": 0.3,
                "bytes_up": 0,
            }
        ],
        "detail": None,
        "certified": False,
    }


def test_an_answer_that_does_not_say_so_is_not_certified():
    headers, body = wire.encode_answer(answer(certified=True), STAMP)
    data = json.loads(body)
    assert wire.decode_answer(headers, body).certified
    del data["certified"]
    assert not wire.decode_answer(headers, json.dumps(data).encode()).certified


HOP = {"tier": "edge", "queue_ms": 0.0, "compute_ms": 0.0, "total_ms": 0.0}


@pytest.mark.parametrize(
    "changes",
    [
        {"status": "fine"},
        {"reason": "why not"},
        {"request": 5},
        {"request": "\ud800"},
        {"tier": ["edge"]},
        {"label": None},
        {"index": None},
        {"index": 1.5},
        {"index": "1"},
        {"index": True},
        {"index": -1},
        {"confidence": None},
        {"confidence": 1.5},
        {"confidence": math.nan},
        {"confidence": "0.5"},
        {"probabilities": 5},
        {"probabilities": [2.0]},
        {"probabilities": {"a": 1}},
        {"probabilities": {}},
        {"probabilities": ""},
        {"status": "rejected"},
        {"hops": 1},
        {"hops": {}},
        {"hops": ["edge"]},
        {"hops": [{}]},
        {"hops": [HOP | {"total_ms": -1}]},
        {"hops": [HOP | {"total_ms": math.inf}]},
        {"hops": [HOP | {"bytes_up": 1.5}]},
        {"hops": [HOP | {"bytes_up": -1}]},
    ],
)
def test_an_answer_with_a_wrong_field_is_refused(changes):
    headers, body = wire.encode_answer(answer(), STAMP)
    body = json.dumps(json.loads(body) | changes).encode()
    assert code_of(wire.decode_answer, headers, body) == "body"


@pytest.mark.parametrize("field", ["request", "status", "reason", "tier", "model"])
def test_an_answer_without_a_needed_field_is_refused(field):
    headers, body = wire.encode_answer(answer(), STAMP)
    data = json.loads(body)
    del data[field]
    assert code_of(wire.decode_answer, headers, json.dumps(data).encode()) == "body"


@pytest.mark.parametrize("body", [b"", b"null", b"[]", b'"text"', b"5", b"{}", b"\xff\xfe", b"[" * 100_000])
def test_an_answer_that_is_no_json_object_is_refused(body):
    assert code_of(wire.decode_answer, [("ce_type", b"branchy.answer")], body) == "body"


def test_a_request_is_not_read_as_an_answer():
    assert code_of(wire.decode_answer, *sample_request()) == "type"
    assert code_of(wire.decode_answer, [], b"{}") == "type"


@given(json_values)
def test_any_json_is_an_answer_or_a_wire_error(value):
    with contextlib.suppress(WireError):
        wire.decode_answer([("ce_type", b"branchy.answer")], json.dumps(value).encode())
