"""Write the seeds of the fuzzer's corpus: `PYTHONPATH=tests/support python tests/fuzz/write_corpus.py`."""

from __future__ import annotations

import hashlib
from pathlib import Path
from random import Random

import numpy as np
from hypothesis import Phase, given, settings
from poisons import BOMBS, JSON_BODIES, KINDS, Target, claim
from wire_strategies import answers
from wire_target import STAMP, Parts, pack

from branchy.core import wire
from branchy.core.messages import Answer

CORPUS = Path(__file__).parent / "corpus"
MAX_SEED_BYTES = 2_000
DTYPES = {"BOOL": 1, "I8": 1, "U8": 1, "F8_E5M2": 1, "F8_E4M3": 1, "I16": 2, "U16": 2, "F16": 2, "BF16": 2}
DTYPES |= {"I32": 4, "U32": 4, "F32": 4}


def seeds() -> list[bytes]:
    """Small inputs of every kind, good ones and malformed ones; the same each time."""
    target, random = Target("own", "edge", np.arange(4, dtype=np.uint8)), Random(2026)
    good = target.good()
    messages = [good, *(kind(target, random).message for kind in KINDS for _ in range(3))]
    found = [Parts("request", list(each.headers), each.body) for each in messages]
    as_json = target.with_headers(content_type=wire.JSON.encode())
    found += [Parts("request", as_json, body.encode()) for body in (*JSON_BODIES, '{"sample": [0, 1, 2.5, 3e1]}')]
    affine = wire.encode_tensors({"sample": np.linspace(-3, 7, 4, dtype=np.float32)}, "uint8")
    found += [Parts("tensors", [], body) for body in (good.body, affine, *BOMBS)]
    found += [Parts("tensors", [], claim([4 // size], 4, dtype)) for dtype, size in DTYPES.items()]
    found += [Parts("answer", *wire.encode_answer(each, STAMP)) for each in _some_answers(20)]
    packed = {pack(parts) for parts in found}
    return sorted((each for each in packed if len(each) <= MAX_SEED_BYTES), key=lambda each: (len(each), each))


def _some_answers(count: int) -> list[Answer]:
    made: list[Answer] = []

    @settings(max_examples=count, derandomize=True, database=None, phases=[Phase.generate])
    @given(answers())
    def make(answer: Answer) -> None:
        made.append(answer)

    make()
    return made


if __name__ == "__main__":
    for each in seeds():
        (CORPUS / hashlib.sha256(each).hexdigest()[:16]).write_bytes(each)
