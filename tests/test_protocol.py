"""docs/protocol.md says all that a writer in another language needs, as the code has it."""

import json
import re
from pathlib import Path
from typing import get_args

import jsonschema
import numpy as np
import pytest

from branchy.core import tier_machine, tier_model, wire
from branchy.core.messages import Answer, Reason, Request, Status
from branchy.runner import tier
from branchy.transport.kafka.addresses import KafkaAddress, reply_headers

ROOT = Path(__file__).parents[1]
TEXT = (ROOT / "docs" / "protocol.md").read_text(encoding="utf-8")
WORDS = set(re.findall(r"`([^`\n]+)`", TEXT))
STAMP = wire.Stamp("an-id", "/test", 1767312000.0)
TRACE = "00-" + "a" * 32 + "-" + "b" * 16 + "-01"


def sent_headers():
    request = Request("r", "m", "edge", 1.0, {"sample": np.zeros(1, np.uint8)}, TRACE)
    answer = Answer("r", "rejected", "overload", "edge", "m")
    sent = [*wire.encode_request(request, STAMP)[0], *wire.encode_answer(answer, STAMP, TRACE)[0]]
    return {name for name, _ in (*sent, *reply_headers(b"c", KafkaAddress("branchy.t", 0)))}


def error_codes():
    """Every code that a message can be dead-lettered with, as the sources spell them."""
    sources = [Path(module.__file__).read_text(encoding="utf-8") for module in (wire, tier, tier_machine, tier_model)]
    places = (r"WireError\(\s*", r"_malformed\(event, ", r"_dead_letter\([\w.]+, ", "code, text = ")
    pattern = rf'(?:{"|".join(places)})"([a-z-]+)"'
    return {code for source in sources for code in re.findall(pattern, source)}


@pytest.mark.parametrize("name", sorted(sent_headers() | {"branchy-error-code", "branchy-error", "branchy-tier"}))
def test_every_header_is_there(name):
    assert name in WORDS


@pytest.mark.parametrize("word", [*get_args(Status), *get_args(Reason)])
def test_every_status_and_reason_is_there(word):
    assert word in WORDS


def test_every_error_code_is_there_and_no_other():
    listed = re.search(r"Codes: (.*?)\n\n", TEXT, re.DOTALL).group(1)
    assert set(re.findall(r"`([a-z-]+)`", listed)) == error_codes()


@pytest.mark.parametrize("kind", [wire.SAFETENSORS, wire.JSON, *wire.IMAGES, wire.REQUEST_TYPE, wire.ANSWER_TYPE])
def test_every_content_and_event_type_is_there(kind):
    assert kind in WORDS


def test_the_limits_are_those_of_the_code():
    assert f"the request's id, 1 to {wire.MAX_ID_BYTES} bytes" in TEXT
    assert (f"{wire.MAX_HEADERS} headers of\n{wire.MAX_HEADER_BYTES // 1024} KiB") in TEXT
    assert (
        f"A body has at most {wire.MAX_BODY_BYTES // 2**20} MiB, JSON at most {wire.MAX_JSON_BYTES // 2**20} MiB"
        in TEXT
    )
    assert f"(answer.schema.json), of at most {wire.MAX_JSON_BYTES // 2**20} MiB" in TEXT
    assert f"head has at most {wire.MAX_TENSORS_HEAD_BYTES // 1024} KiB" in TEXT
    assert f"{wire.DEFAULT_BUDGET_MS:.0f} without it; taken into 0..{wire.MAX_BUDGET_MS:.0f}" in TEXT


def test_its_answer_is_one():
    (example,) = re.findall(r"^```json\n(.*?)^```", TEXT, re.MULTILINE | re.DOTALL)
    schema = json.loads((ROOT / "docs" / "answer.schema.json").read_text(encoding="utf-8"))
    jsonschema.validate(json.loads(example), schema, jsonschema.Draft202012Validator)
    wire.decode_answer([("ce_type", wire.ANSWER_TYPE.encode())], example.encode())
