"""(c) What branchy takes before it has done anything: start-up times, memory, disk."""

from __future__ import annotations

import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from statistics import median

from benchmarks.bench import Bench
from benchmarks.cpu import resident_mb

ROOT = Path(__file__).parent.parent
REPEATS = 5
REQUESTS = 2000


@dataclass(frozen=True, slots=True)
class Footprint:
    """Medians; MB are 10^6 bytes.

    Attributes:
        help_s: `branchy --help`, from its start to its end.
        ready_s: a tier, from its start until it takes requests.
        resident_mb: a tier's memory at its highest, after 2,000 requests with 64 in flight.
        install_mb: the base package with all it needs, on disk, without byte code.
    """

    help_s: float
    ready_s: float
    resident_mb: float
    install_mb: float


def measure(bench: Bench) -> Footprint:
    """Measure all four."""
    ready, memory = zip(*(_tier(bench, number) for number in range(REPEATS)), strict=True)
    return Footprint(median(_help_s() for _ in range(REPEATS)), median(ready), max(memory), _install_mb())


def _help_s() -> float:
    start = time.perf_counter()
    subprocess.run([sys.executable, "-m", "branchy", "--help"], stdout=subprocess.DEVNULL, check=True)
    return time.perf_counter() - start


def _tier(bench: Bench, number: int) -> tuple[float, float]:
    """A tier's time to readiness, the tether that `Processes` puts before it included, and its memory."""
    cascade = f"bench-start-{number}"
    start = time.perf_counter()
    tier = bench.tier("edge", cascade, "--threshold", "0")
    ready_s = time.perf_counter() - start
    client = bench.client(cascade)
    client.windowed(bench.requests(REQUESTS), 64)
    client.close()
    memory_mb = resident_mb(tier.popen.pid)
    bench.processes.stop(tier)
    return ready_s, memory_mb


def _install_mb() -> float:
    with tempfile.TemporaryDirectory() as folder:
        pip = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-compile"]
        line = [*pip, "--target", folder, "-c", str(ROOT / "constraints.txt"), str(ROOT)]
        subprocess.run(line, check=True)
        return sum(path.lstat().st_size for path in Path(folder).rglob("*") if path.is_file()) / 1e6
