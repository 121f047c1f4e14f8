"""Runs seeds, in order or on every core; what fails is made short and told.

python -m simulation.run SEEDS [--first N] [--trace]
"""

from __future__ import annotations

import argparse
import gc
import logging
import os
import sys
import time
from collections.abc import Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from typing import Any

from simulation.cascade import Cascade
from simulation.plan import Plan, make_plan
from simulation.shrink import shrink
from simulation.world import Violation

CHUNK = 50
TRACE_LINES = 120


@dataclass(frozen=True, slots=True)
class Failure:
    """A seed that broke a rule (or, with an exception, the program)."""

    seed: int
    rule: str
    text: str


def run_plan(plan: Plan, **broken: Any) -> Failure | None:
    """Run a plan; `broken` are the classes to put in the place of the real ones (see `Cascade`)."""
    cascade = Cascade(plan, **broken)
    return _run(cascade)


def run_seeds(seeds: Iterable[int], **broken: Any) -> Iterator[Failure]:
    """Run seeds one after the other; yields those that fail."""
    for seed in seeds:
        failure = run_plan(make_plan(seed), **broken)
        if failure is not None:
            yield failure


def trace(plan: Plan, **broken: Any) -> list[str]:
    """All that happens, a line each; the same for the same plan, in any process."""
    cascade = Cascade(plan, tracing=True, **broken)
    failure = _run(cascade)
    return cascade.world.lines + ([failure.text] if failure else [])


def shortest(seed: int, **broken: Any) -> Plan:
    """The least of a failing seed's plan that still breaks the same rule."""
    plan = make_plan(seed)
    failure = run_plan(plan, **broken)
    if failure is None:
        return plan

    def breaks(smaller: Plan) -> bool:
        other = run_plan(smaller, **broken)
        return other is not None and other.rule == failure.rule

    return shrink(plan, breaks)


def tell(seed: int, **broken: Any) -> str:
    """A failing seed for a person: what is left of its plan, and the end of its trace."""
    plan = shortest(seed, **broken)
    lines = trace(plan, **broken)
    asks = [f"  ask {a.number} {a.sort} kind {a.kind} at {a.at_s:.3f} s, {a.budget_ms:.0f} ms" for a in plan.asks]
    return "\n".join(
        [
            f"seed {seed}: {lines[-1]}",
            f"  {plan.shape}",
            f"  {len(plan.asks)} requests and {len(plan.faults)} faults are enough:",
            *asks,
            *(f"  {fault}" for fault in plan.faults),
            *([f"  ... {len(lines) - TRACE_LINES} lines before"] if len(lines) > TRACE_LINES else []),
            *lines[-TRACE_LINES:],
        ]
    )


def _run(cascade: Cascade) -> Failure | None:
    """An invariant broken or the program at fault: both are failures."""
    log = logging.getLogger("branchy")
    level = log.level
    log.setLevel(logging.CRITICAL)  # faults are what this is for; nobody reads of each
    try:
        cascade.run()
    except Violation as error:
        return Failure(cascade.plan.seed, error.rule, str(error))
    except Exception as error:  # noqa: BLE001 - whatever the code under test raises is what is looked for
        return Failure(cascade.plan.seed, type(error).__name__, repr(error))
    finally:
        log.setLevel(level)
    return None


def _chunk(seeds: range) -> list[Failure]:
    gc.disable()  # each seed is one heap of cycles that dies at once
    failures = list(run_seeds(seeds))
    gc.enable()
    gc.collect()
    return failures


def main() -> int:
    """Run many seeds on all cores; 1 when any fails."""
    parser = argparse.ArgumentParser(prog="simulate", description="Run a cascade on a virtual clock, a seed at a time.")
    parser.add_argument("seeds", type=int, help="how many")
    parser.add_argument("--first", type=int, default=0, help="the first seed")
    parser.add_argument("--trace", action="store_true", help="print every seed's trace instead, in order")
    flags = parser.parse_args()
    if flags.trace:
        for seed in range(flags.first, flags.first + flags.seeds):
            print("\n".join([f"seed {seed}", *trace(make_plan(seed))]))
        return 0
    chunks = [
        range(i, min(i + CHUNK, flags.first + flags.seeds))
        for i in range(flags.first, flags.first + flags.seeds, CHUNK)
    ]
    started_s = time.monotonic()
    failures: list[Failure] = []
    with ProcessPoolExecutor(os.cpu_count()) as pool:
        for done, failed in enumerate(pool.map(_chunk, chunks), 1):
            failures += failed
            if sys.stderr.isatty():
                print(f"\r{min(done * CHUNK, flags.seeds)} of {flags.seeds} seeds", end="", file=sys.stderr)
    took_s = time.monotonic() - started_s
    print(f"{flags.seeds} seeds in {took_s:.1f} s ({flags.seeds / took_s:.0f} a second): {len(failures)} failed")
    for failure in failures:
        print(f"  seed {failure.seed}: {failure.text}")
    if failures:
        print(tell(failures[0].seed))
    return bool(failures)


if __name__ == "__main__":
    sys.exit(main())
