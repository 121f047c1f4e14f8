"""How a tier is: alive, ready, and in figures; asked from threads of its health port."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

from branchy.core.wire import MAX_BUDGET_MS
from branchy.runner.executor import Executor
from branchy.runner.tier import Back, Tier

LOOK_S = 2.0
"""A turn takes milliseconds: a tier that ends none within this is stuck."""
BATCH_S = 3 * MAX_BUDGET_MS / 1e3
"""A batch that runs longer is stuck: whoever asked for it has had an answer without it since the first third."""


class Verdict(NamedTuple):
    """Yes or no, and one line for a person."""

    ok: bool
    line: str


@dataclass(frozen=True, slots=True)
class Snapshot:
    """A tier between two turns.

    Attributes:
        counters: what happened so far, by the tier machine's words.
        latency_bounds_ms: upper bounds of the latency's histogram.
        latency_counts: answers at most as late as each, and last all of them.
        latency_sum_ms: of all answers.
        pending: requests that wait for the front.
        waiting: requests that wait to be computed.
        unsettled: deliveries whose answer is not acknowledged yet.
        lag: requests in its share of the topic that it has not taken yet; None while that is not known.
        oldest_waiting_s: age of the request that waits longest to be computed; 0 when none waits.
        batch_s: how long the batch at hand has been running; 0 when none is.
        breaker_open: whether nothing goes up but probes.
        stopping: whether it was told to stop.
        back_up: whether the brokers towards the device can be reached, as far as is known.
        front_up: the same of those towards the cloud; true for the last tier.
    """

    counters: dict[str, int]
    latency_bounds_ms: tuple[float, ...]
    latency_counts: list[int]
    latency_sum_ms: float
    pending: int
    waiting: int
    unsettled: int
    lag: int | None
    oldest_waiting_s: float
    batch_s: float
    breaker_open: bool
    stopping: bool
    back_up: bool
    front_up: bool


class Health:
    """What is known of one tier, from the loading of its bundle to its end.

    Attributes:
        cascade, tier, model: which one; empty until its bundle is loaded.
    """

    def __init__(self) -> None:
        self.cascade = self.tier = self.model = ""
        self._waits_for = "its bundle"
        self._running: tuple[Tier, Back, Executor] | None = None

    def loaded(self, cascade: str, tier: str, model: str) -> None:
        """Its bundle is there: which cascade's tier it is, and the model's digest."""
        self.cascade, self.tier, self.model = cascade, tier, model

    def waits_for(self, what: str) -> None:
        """What it needs next before it can take requests."""
        self._waits_for = what

    def runs(self, tier: Tier, back: Back, executor: Executor) -> None:
        """All is open: it is about to take requests."""
        self._running = tier, back, executor

    def snapshot(self) -> Snapshot | None:
        """Its figures; None while it does not run yet, or ends no turn."""
        if self._running is None:
            return None
        tier, back, executor = self._running
        return tier.between_turns(lambda now: _read(tier, back, executor, now), LOOK_S)

    def alive(self) -> Verdict:
        """Whether it goes on by itself; if not, only a restart helps."""
        if self._running is None:
            return Verdict(True, f"alive: waits for {self._waits_for}")
        stuck = _stuck(self.snapshot())
        return Verdict(True, "alive") if stuck is None else Verdict(False, f"stuck: {stuck}")

    def ready(self) -> Verdict:
        """Whether it takes requests and can answer them.

        The front's brokers are no condition: without them it answers from its own exit, as it is meant to.
        """
        if self._running is None:
            return Verdict(False, f"not ready: waits for {self._waits_for}")
        back, found = self._running[1], self.snapshot()
        why = _stuck(found)
        if found is None or why is not None:
            return Verdict(False, f"not ready: {why}")
        if found.stopping:
            why = "told to stop, it settles what is under way"
        elif not found.back_up:
            why = "the back's brokers cannot be reached"
        elif not back.source.wait_ready(0):
            why = "its group has not given it its share of the requests yet"
        elif not back.sender.wait_ready(0):
            why = "the back's producer is not connected yet"
        if why is not None:
            return Verdict(False, f"not ready: {why}")
        up = "" if found.front_up else "; the front's brokers cannot be reached, its own exit answers"
        return Verdict(True, f"ready{up}")


def _stuck(found: Snapshot | None) -> str | None:
    """What it does not come back from by itself; None when there is nothing."""
    if found is None:
        return f"ended no turn within {LOOK_S:g} s"
    if found.batch_s > BATCH_S:
        return f"the model has been running one batch for {found.batch_s:.0f} s, expected at most {BATCH_S:g}"
    return None


def _read(tier: Tier, back: Back, executor: Executor, now: float) -> Snapshot:
    machine = tier.machine
    return Snapshot(
        counters=dict(machine.counters),
        latency_bounds_ms=machine.latencies_ms.bounds,
        latency_counts=machine.latencies_ms.cumulative(),
        latency_sum_ms=machine.latencies_ms.sum,
        pending=machine.pending,
        waiting=machine.waiting,
        unsettled=machine.unsettled,
        lag=back.source.lag,
        oldest_waiting_s=machine.oldest_waiting_s(now),
        batch_s=executor.busy_s,
        breaker_open=machine.way_up.breaker.state == "open",
        stopping=tier.stopping,
        back_up=tier.links_up.get("back", True),
        front_up=tier.links_up.get("front", True),
    )
