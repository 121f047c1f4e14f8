"""How much more memory this process takes at most during a call, whoever allocates it."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import pytest

RESET_PEAK = Path("/proc/self/clear_refs")

asks_linux = pytest.mark.skipif(sys.platform != "linux", reason="asks Linux for a peak of memory")


def resident_bytes(call: Callable[..., None], *arguments: object) -> int:
    """The peak of what the process grows by (safetensors and pydantic_core are of Rust, Pillow is of C)."""
    RESET_PEAK.write_text("5")
    before = _resident_peak()
    call(*arguments)
    return _resident_peak() - before


def _resident_peak() -> int:
    (line,) = [each for each in Path("/proc/self/status").read_text().splitlines() if each.startswith("VmHWM:")]
    return int(line.split()[1]) * 1024
