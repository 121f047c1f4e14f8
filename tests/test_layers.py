"""What a command loads. (Which floor may import which is import-linter's, in pyproject.toml.)"""

import json
import subprocess
import sys

import pytest

from branchy.cli.main import COMMANDS

HEAVY = {
    "ai_edge_litert",
    "confluent_kafka",
    "keras",
    "matplotlib",
    "numpy",
    "pandas",
    "PIL",
    "pydantic",
    "safetensors",
    "sklearn",
    "tensorflow",
}

SPY = """
import json, sys
from branchy.cli.main import main
sys.argv[0] = "branchy"
try:
    main()
except SystemExit as end:
    assert not end.code, end.code
sys.stderr.write(json.dumps(sorted({name.partition(".")[0] for name in sys.modules})))
"""


def loaded_by(*arguments):
    run = subprocess.run([sys.executable, "-c", SPY, *arguments], capture_output=True, text=True, check=True)
    return set(json.loads(run.stderr.splitlines()[-1]))


def test_the_spy_sees_what_is_loaded():
    assert "click" in loaded_by("--help")


@pytest.mark.parametrize("arguments", [["--help"], ["--version"], *([c, "--help"] for c in COMMANDS)], ids=" ".join)
def test_asking_for_help_loads_nothing_heavy(arguments):
    assert loaded_by(*arguments) & HEAVY == set()


def test_importing_branchy_loads_nothing_heavy():
    code = "import sys, branchy; print(*{name.partition('.')[0] for name in sys.modules})"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert set(run.stdout.split()) & HEAVY == set()
