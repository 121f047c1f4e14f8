"""docs/answer.schema.json says of an answer what branchy itself holds it to."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import get_args

import jsonschema
import pytest
from hypothesis import given
from wire_strategies import answers

from branchy.core import wire
from branchy.core.messages import Answer, Hop, Reason, Status
from branchy.errors import WireError

SCHEMA = json.loads((Path(__file__).parents[2] / "docs" / "answer.schema.json").read_text(encoding="utf-8"))
VALIDATOR = jsonschema.Draft202012Validator(SCHEMA)
STAMP = wire.Stamp("an-id", "/test", 1767312000.0)

HOP = Hop("edge", "edge", 1, 0.75, 0.1, 0.2, 0.3, 0)
LABELLED = Answer("r", "ok", "confident", "edge", "m", "one", 1, 0.75, (0.25, 0.75), "edge", (HOP,))
REFUSED = Answer("r", "rejected", "overload", "edge", "m", hops=(HOP,), detail="too much")
GONE = object()
# Not 1.0, which is a whole number to JSON Schema and none to branchy; the schema says so in words.
VALUES = [GONE, None, True, -1, -0.5, 0, 1, 2, 0.5, 1.5, "", "ok", "error", "timeout", [], [0.5], [2], {}, [{}]]


def body(answer: Answer) -> dict:
    return json.loads(wire.encode_answer(answer, STAMP)[1])


def is_taken(data: dict) -> bool:
    try:
        wire.decode_answer([("ce_type", b"branchy.answer")], json.dumps(data).encode())
    except WireError:
        return False
    return True


def one_field_changed(data: dict) -> Iterator[tuple[dict, str]]:
    """This answer with one field, its own or its hop's, gone or of another value, and what was done."""
    for where in (data, data["hops"][0]):
        for name in list(where):
            for value in VALUES:
                kept = dict(where)
                where[name] = value
                if value is GONE:
                    del where[name]
                yield data, f"{name}: {value!r}"
                where.clear()
                where.update(kept)


def test_it_is_a_json_schema():
    VALIDATOR.check_schema(SCHEMA)


@given(answers())
def test_every_answer_that_is_sent_fits(answer):
    VALIDATOR.validate(body(answer))


@pytest.mark.parametrize(("record", "schema"), [(Answer, SCHEMA), (Hop, SCHEMA["$defs"]["hop"])])
def test_it_names_every_field(record, schema):
    assert list(schema["properties"]) == list(record.__slots__)


def test_it_names_every_status_and_reason():
    assert SCHEMA["properties"]["status"]["enum"] == list(get_args(Status))
    assert SCHEMA["properties"]["reason"]["enum"] == list(get_args(Reason))


@pytest.mark.parametrize("answer", [LABELLED, REFUSED], ids=lambda answer: answer.status)
def test_what_fits_is_taken_and_what_does_not_is_refused(answer):
    for changed, said in one_field_changed(body(answer)):
        assert VALIDATOR.is_valid(changed) == is_taken(changed), said
