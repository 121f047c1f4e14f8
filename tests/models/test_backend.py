from __future__ import annotations

import os
import subprocess
import sys

import pytest

from branchy.models.backend import quiet


def test_native_chatter_is_held_back(capfd: pytest.CaptureFixture[str]) -> None:
    with quiet():
        os.write(2, b"chatter")
    os.write(2, b"news")
    assert capfd.readouterr().err == "news"


def test_an_error_passes_and_standard_error_is_whole_again(capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(ZeroDivisionError), quiet():
        raise ZeroDivisionError
    os.write(2, b"news")
    assert capfd.readouterr().err == "news"


def test_importing_tensorflow_says_nothing() -> None:
    done = subprocess.run(
        [sys.executable, "-c", "import branchy.models.backend"], capture_output=True, text=True, check=True
    )
    assert (done.stdout, done.stderr) == ("", "")
