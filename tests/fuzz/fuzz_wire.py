"""Fuzz the reading of messages with atheris (libFuzzer): `make fuzz [SECONDS=60]`.

What it finds new goes to `build/fuzz/`, an input that breaks a rule to `build/fuzz/crash-...`. Put that one into
`tests/fuzz/corpus/`, where every run of the tests reads it, and repair what it broke.
"""

from __future__ import annotations

import sys
from pathlib import Path
from random import Random

import atheris

with atheris.instrument_imports(include=["branchy.core", "branchy.errors", "safetensors"]):
    import wire_target

CORPUS = Path(__file__).parent / "corpus"
FOUND = Path("build/fuzz")
SEEDS = [path.read_bytes() for path in sorted(CORPUS.iterdir())]


def mutate(data: bytes, max_size: int, seed: int) -> bytes:
    """By what libFuzzer saw make a difference, or by what is known of the format."""
    random = Random(seed)
    if random.randrange(2):
        return atheris.Mutate(data, max_size)
    return wire_target.mutate(data, SEEDS, random)[:max_size]


def main() -> None:
    """Takes libFuzzer's own flags."""
    FOUND.mkdir(parents=True, exist_ok=True)
    flags = ["-max_len=20000", "-timeout=10", "-rss_limit_mb=1024", f"-artifact_prefix={FOUND}/"]
    atheris.Setup([*sys.argv, *flags, str(FOUND), str(CORPUS)], wire_target.check, custom_mutator=mutate)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
