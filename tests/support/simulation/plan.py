"""What a seed says: the shape of a cascade, what is asked of it, and what goes wrong when."""

from __future__ import annotations

from dataclasses import dataclass, replace
from random import Random
from typing import Literal

STAGES = ("edge", "fog", "metro", "cloud")
DIGEST, OTHER_DIGEST = "d" * 64, "e" * 64
LABELS = ("a", "b", "c")
POISON, NOT_FINITE = 250, 251
"""Kinds of samples: below these, the first stage that is sure of it."""

FaultKind = Literal[
    "cut", "cut-out", "cut-back", "slow-link", "lossy", "refuse", "outage", "crash", "stop", "stall", "slow", "fail",
    "full", "rebalance", "digest", "clock",
]  # fmt: skip
Sort = Literal["sample", "garbage", "wrong-stage", "wrong-model", "no-reply"]


@dataclass(frozen=True, slots=True)
class Shape:
    """The cascade: stages a tier, replicas a tier, partitions a topic, bounds, and how far it is.

    `devices` has by device the partition that its answers come to; `twice` is the share of their requests that
    their clients write twice. Where computing is `quick`, a batch is computed in the step that submits it.
    """

    tiers: tuple[tuple[str, ...], ...]
    replicas: tuple[int, ...]
    partitions: int
    batch: int
    pending: int
    backlog: int
    unsettled: int
    breaker_minimum: int
    send_queue: int
    delay_s: float
    compute_s: float
    session_s: float
    held_bytes: int
    devices: tuple[int, ...]
    twice: float
    quick: bool = False

    @property
    def stages(self) -> tuple[str, ...]:
        """All of them, in order."""
        return tuple(stage for tier in self.tiers for stage in tier)

    def processes(self) -> list[str]:
        """Names of all replicas: `edge/0`."""
        return [f"{t[0]}/{i}" for t, n in zip(self.tiers, self.replicas, strict=True) for i in range(n)]


@dataclass(frozen=True, slots=True)
class Ask:
    """A device sends something.

    Attributes:
        number: of the whole plan.
        kind: the first stage that is sure of it, or what is wrong with it.
        device: who sends it.
        counted: its number as that device counts, which makes its id; the same as other devices'.
        content: the number in the sample, the same only where two devices send the same sample.
    """

    at_s: float
    number: int
    kind: int
    label: int
    budget_ms: float
    device: int
    counted: int
    content: int
    sort: Sort = "sample"

    @property
    def request(self) -> str:
        """Its id."""
        return f"r{self.counted}"


@dataclass(frozen=True, slots=True)
class Fault:
    """Something goes wrong from then to then.

    `target` is a process, a process and a broker with a space between, a broker, or a topic's tier.
    """

    kind: FaultKind
    at_s: float
    until_s: float
    target: str
    amount: float = 0.0

    def __str__(self) -> str:
        return f"{self.kind} {self.target} {self.at_s:.3f}..{self.until_s:.3f} s ({self.amount:.3g})"


@dataclass(frozen=True, slots=True)
class Plan:
    """All of it. The faults are over at `heal_s`; after that everything has to come right."""

    seed: int
    shape: Shape
    asks: tuple[Ask, ...]
    faults: tuple[Fault, ...]
    heal_s: float


def make_plan(seed: int) -> Plan:
    """The plan of a seed."""
    rng = Random(f"{seed}/plan")
    shape = _shape(rng, Random(f"{seed}/devices"))
    heal_s = rng.choice((2.0, 4.0, 8.0))
    count = rng.choice((0, 1, 1, 2, 2, 3, 4, 6))
    faults = tuple(_fault(rng, shape, heal_s) for _ in range(count))
    asks = _asks(rng, shape, heal_s, faults)
    more = Random(f"{seed}/more")  # what came to be drawn later leaves the draws before as they were
    if faults and more.random() < 0.2:
        faults = (*faults, _clock_set(more, shape, heal_s))
    asks = _with_twins(more, asks)
    shape = replace(shape, quick=more.random() < 0.3)
    return Plan(seed, shape, asks, faults, heal_s)


def _shape(rng: Random, more: Random) -> Shape:
    stages = STAGES[: rng.choice((1, 2, 2, 3, 3, 3, 4))]
    tiers: list[tuple[str, ...]] = []
    for stage in stages:
        if tiers and rng.random() < 0.15:
            tiers[-1] = (*tiers[-1], stage)
        else:
            tiers.append((stage,))
    replicas = tuple(rng.choice((1, 1, 2, 3)) for _ in tiers)
    partitions = rng.choice((1, 2, 3, 4))
    alone = more.random() < 0.3
    return Shape(
        tiers=tuple(tiers),
        replicas=replicas,
        partitions=partitions,
        batch=rng.choice((1, 3, 32)),
        pending=rng.choice((2, 8, 1024)),
        backlog=rng.choice((4, 16, 2048)),
        unsettled=rng.choice((12, 64, 8192)),
        breaker_minimum=rng.choice((3, 5, 20)),
        send_queue=rng.choice((4, 1000, 1000)),
        delay_s=rng.choice((0.0005, 0.002, 0.01, 0.03)),
        compute_s=rng.choice((0.0002, 0.002, 0.01)),
        session_s=rng.choice((0.5, 1.5, 3.0)),
        held_bytes=more.choice((500, 2**27, 2**27)),
        devices=(0,) if alone else tuple(more.choice((0, 0, partitions - 1)) for _ in range(more.choice((2, 3)))),
        twice=more.choice((0.0, 0.0, 0.3)),
    )


def _asks(rng: Random, shape: Shape, heal_s: float, faults: tuple[Fault, ...]) -> tuple[Ask, ...]:
    """Spread over time, or in a burst while something is wrong, when it matters most."""
    count = rng.choice((4, 12, 24, 40))
    unsure = rng.choice((0.2, 0.5, 0.95))
    burst = rng.choice(faults) if faults and rng.random() < 0.6 else None
    asks = []
    for number in range(count):
        at_s = rng.uniform(0.0, heal_s)
        if burst is not None and rng.random() < 0.8:
            at_s = rng.uniform(max(0.0, burst.at_s - 0.1), min(heal_s, burst.at_s + 1.0))
        kind = rng.randrange(len(shape.stages)) if rng.random() >= unsure else len(shape.stages) - 1
        wrong = rng.random()
        if wrong < 0.02:
            kind = rng.choice((POISON, NOT_FINITE))
        sorts: tuple[Sort, ...] = ("garbage", "wrong-stage", "wrong-model", "no-reply")
        sort: Sort = rng.choice(sorts) if 0.02 <= wrong < 0.06 else "sample"
        budget_ms = rng.choice((20.0, 200.0, 1000.0, 1000.0, 1000.0, 3000.0))
        asks.append((at_s, number, kind, rng.randrange(len(LABELS)), budget_ms, sort))
    devices = len(shape.devices)
    return tuple(
        Ask(at_s, number, kind, label, budget_ms, turn % devices, turn // devices, number, sort)
        for turn, (at_s, number, kind, label, budget_ms, sort) in enumerate(sorted(asks))
    )


def _with_twins(rng: Random, asks: tuple[Ask, ...]) -> tuple[Ask, ...]:
    """Now and then two devices send the same sample under the same id, such as a picture of nothing."""
    out = list(asks[:1])
    for ask in asks[1:]:
        last = out[-1]
        if ask.counted == last.counted and rng.random() < 0.2:
            ask = replace(ask, kind=last.kind, label=last.label, content=last.content, sort=last.sort)
        out.append(ask)
    return tuple(out)


def _clock_set(rng: Random, shape: Shape, heal_s: float) -> Fault:
    """A broker's clock is set, as NTP does."""
    at_s, by_s = rng.uniform(0.0, heal_s * 0.9), rng.choice((0.1, 2.0, 3600.0)) * rng.choice((-1, 1))
    return Fault("clock", at_s, at_s, rng.choice(shape.tiers)[0], by_s)


def _fault(rng: Random, shape: Shape, heal_s: float) -> Fault:
    kinds: dict[FaultKind, int] = {
        "cut": 3, "cut-out": 1, "cut-back": 2, "slow-link": 2, "lossy": 2, "refuse": 1, "outage": 2, "crash": 4,
        "stop": 2, "stall": 2, "slow": 2, "fail": 1, "full": 1, "rebalance": 2, "digest": 2,
    }  # fmt: skip
    kind = rng.choices(list(kinds), list(kinds.values()))[0]
    at_s = rng.uniform(0.0, heal_s * 0.9)
    length_s = rng.choice((0.02, 0.2, 1.0, 3.0, heal_s)) * rng.uniform(0.5, 1.0)
    index = rng.randrange(len(shape.tiers))
    tier = shape.tiers[index][0]
    process = f"{tier}/{rng.randrange(shape.replicas[index])}"
    target, amount = process, 0.0
    if kind in ("cut", "cut-out", "cut-back", "slow-link", "lossy", "refuse"):
        brokers = [tier, *(following[0] for following in shape.tiers[index + 1 : index + 2] * 2)]
        target = f"{process} {rng.choice(brokers)}"
        amount = {"slow-link": rng.choice((5.0, 30.0, 200.0)), "lossy": rng.choice((0.1, 0.5))}.get(kind, 0.5)
    elif kind in ("outage", "rebalance"):
        target = tier
    elif kind == "slow":
        amount = rng.choice((10.0, 100.0))
    elif kind == "fail":
        amount = rng.choice((0.3, 1.0))
    return Fault(kind, at_s, min(at_s + length_s, heal_s), target, amount)
