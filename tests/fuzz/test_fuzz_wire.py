"""The corpus of the fuzzer and thousands of mutations of it: each is a message that holds to the rules, or refused."""

from __future__ import annotations

import platform
import subprocess
import sys
from pathlib import Path
from random import Random

import pytest
import wire_target
from hypothesis import given
from hypothesis import strategies as st
from wire_target import READERS, Parts, check, mutate, pack, unpack

from branchy.core import wire
from branchy.errors import WireError

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
CORPUS = {path.name: path.read_bytes() for path in sorted((HERE / "corpus").iterdir())}
MUTATIONS = 20_000


def reads(data: bytes) -> bool:
    """Whether an input is read without a `WireError`."""
    reader, headers, body = unpack(data)
    try:
        if reader == "tensors":
            wire.decode_tensors(body)
        elif reader == "request":
            wire.decode_request(headers, body, model="own", stage="edge", new_id=str)
        else:
            wire.decode_answer(headers, body)
    except WireError:
        return False
    return True


@given(st.binary(max_size=300))
def test_any_bytes_are_an_input(data):
    parts = unpack(data)
    assert unpack(pack(parts)) == parts


def test_the_corpus_reaches_every_reader_with_good_and_malformed_messages():
    assert {(unpack(seed).reader, reads(seed)) for seed in CORPUS.values()} >= {
        *((reader, True) for reader in READERS),
        ("tensors", False),
        ("request", False),
    }


@pytest.mark.parametrize("name", CORPUS)
def test_an_input_of_the_corpus_is_read_by_the_rules_or_refused(name):
    check(CORPUS[name])


def test_mutations_of_the_corpus_are_read_by_the_rules_or_refused():
    random, inputs = Random(4), list(CORPUS.values())
    readable = 0
    for _ in range(MUTATIONS):
        data = mutate(random.choice(inputs), inputs, random)
        try:
            check(data)
        except Exception as error:
            raise AssertionError(f"put this into tests/fuzz/corpus: {data!r}") from error
        readable += reads(data)
    assert readable > MUTATIONS // 50, "they are so damaged that they test nothing but the first look"


@pytest.mark.parametrize("error", [ValueError, RecursionError, MemoryError, AssertionError])
def test_what_is_no_wire_error_is_a_bug(monkeypatch, error):
    def fail(body: bytes):
        raise error

    monkeypatch.setattr(wire_target.wire, "decode_tensors", fail)
    with pytest.raises(error):
        check(pack(Parts("tensors", [], b"")))


@pytest.mark.skipif(
    (sys.platform, platform.machine()) != ("linux", "x86_64"), reason="atheris is there for Linux on x86-64 only"
)
def test_the_fuzzer_runs(tmp_path):
    line = [sys.executable, str(HERE / "fuzz_wire.py"), "-runs=300", "-seed=1"]
    environment = {"PYTHONPATH": f"{ROOT}:{ROOT / 'tests' / 'support'}"}
    done = subprocess.run(line, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert "Done 300" in done.stderr
    assert any((tmp_path / "build" / "fuzz").iterdir()), "it found nothing new: nothing was instrumented"
