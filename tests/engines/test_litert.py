from __future__ import annotations

import pickle
import subprocess
import sys
from typing import Any

import numpy as np
import pytest
from ai_edge_litert.interpreter import Interpreter

from branchy.engines import litert
from branchy.engines.litert import SIZES, LiteRTEngine

CODE = """
import pickle, sys
import numpy as np
from pathlib import Path
from branchy.engines import open_engine
stage, path = pickle.loads(sys.stdin.buffer.read())
open_engine(stage, path, "litert", 1).run(np.zeros((3, 4, 2), np.uint8))
print(sorted({name.partition(".")[0] for name in sys.modules} & {"tensorflow", "keras", "pandas", "kubernetes"}))
"""


def test_running_a_stage_loads_no_tensorflow(toy: Any) -> None:
    done = subprocess.run(
        [sys.executable, "-c", CODE], input=pickle.dumps((toy.stage, toy.files["litert"])), capture_output=True
    )
    assert done.stdout.decode() == "[]\n", done.stderr.decode()


def test_interpreters_are_few_and_made_once_a_size(toy: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[dict[str, Any]] = []

    def spy(**arguments: Any) -> Interpreter:
        made.append(arguments)
        return Interpreter(**arguments)

    monkeypatch.setattr(litert, "Interpreter", spy)
    engine = LiteRTEngine(toy.stage, toy.files["litert"], threads=3)
    assert len(made) == 1
    for _ in range(2):
        for n in range(1, 40):
            engine.run(np.zeros((n, 4, 2), np.uint8))
    assert len(made) == len(SIZES)
    assert {a["num_threads"] for a in made} == {3}
