"""The whole of it: brokers, links, tiers and devices, what goes wrong, and that it comes right again."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

from branchy.core.messages import Answer
from branchy.core.requester import Requester
from branchy.core.tier_machine import TierMachine
from branchy.runner.tier import Tier
from simulation.broker import Broker, Group
from simulation.device import Device
from simulation.invariants import Ledger
from simulation.network import Lane, Link
from simulation.plan import DIGEST, OTHER_DIGEST, Ask, Fault, Plan
from simulation.tier import TierProcess
from simulation.world import World, require

QUIET_S = 5.0
"""After the faults: for hand-overs and stops to end."""
CHECK_BUDGET_MS, CHECK_EVERY_S, PAIR_S = 1000.0, 2.0, 0.05
ROUNDS = 6
PATIENCE_S = 20.0
FIRST_CHECK = 10_000


class Side(NamedTuple):
    """What is between a tier and the one behind it: brokers, and the tier's group on its requests."""

    broker: Broker
    group: Group


class Cascade:
    """A plan come alive.

    Attributes:
        calm: nothing is wrong with the world: nothing ever was, or it has healed, and what went into a bad link
            has come out of it.

    Args:
        plan: what to do.
        machine_class: what decides for the tiers.
        requester_class: what decides for the devices.
        tier_class: carries out what a machine decides.
        tracing: keep a trace.
    """

    def __init__(
        self,
        plan: Plan,
        *,
        machine_class: type[TierMachine] = TierMachine,
        requester_class: type[Requester] = Requester,
        tier_class: type[Tier] = Tier,
        tracing: bool = False,
    ) -> None:
        self.plan, self.machine_class, self.requester_class = plan, machine_class, requester_class
        self.tier_class = tier_class
        self.world = World(plan.seed, tracing=tracing)
        self.ledger = Ledger(plan.shape)
        self._names = [tier[0] for tier in plan.shape.tiers]
        self.sides = {name: self._side(i, name) for i, name in enumerate(self._names)}
        self._links: dict[str, Link] = {}
        self.processes = {name: self._process(name) for name in plan.shape.processes()}
        self.calm = not plan.faults
        self.devices = [
            Device(self, name, self._link(name, self._names[0]), partition)
            for name, partition in ((f"device{i}", partition) for i, partition in enumerate(plan.shape.devices))
        ]

    def run(self) -> None:
        """Do all of it; returns when everything came right.

        Raises:
            Violation: an invariant does not hold.
        """
        for process in self.processes.values():
            process.start()
        for ask in self.plan.asks:
            self.world.after(0.05 + ask.at_s, partial(self.devices[ask.device].ask, ask))
        for fault in self.plan.faults:
            begin, end = self._acts(fault)
            self.world.after(0.05 + fault.at_s, partial(self._do, fault, begin))
            self.world.after(0.05 + fault.until_s, end)
        self.world.run(0.05 + self.plan.heal_s)
        self.world.say("world", "is healed")
        lanes = [lane for link in self._links.values() for lane in (link.out, link.back)]
        self.world.run(max(self.world.now, *(lane.clear_at for lane in lanes)))
        self.world.run(self.world.now + self.plan.shape.session_s + QUIET_S)
        self.calm = True
        self._check_recovery()
        self._check_quiet()

    def front_of(self, tier: str) -> Side | None:
        """What is between a tier and the next one; None for the last."""
        following = self._names[self._names.index(tier) + 1 :]
        return self.sides[following[0]] if following else None

    # --- building ----------------------------------------------------------------------------------------------------

    def _side(self, index: int, name: str) -> Side:
        shape = self.plan.shape
        broker = Broker(self.world, name, self.world.random(f"{name} broker").uniform(-3600, 3600))
        requests = broker.add(f"{name}.requests", shape.partitions)
        broker.add(f"{name}.dead", 1)
        requester = self._names[index - 1] if index else "device"
        broker.add(f"{requester}.answers", shape.partitions)
        return Side(broker, Group(broker, requests, shape.session_s))

    def _process(self, name: str) -> TierProcess:
        tier = name.split("/")[0]
        index = self._names.index(tier)
        front = self._names[index + 1] if index + 1 < len(self._names) else None
        links = (self._link(name, tier), self._link(name, front) if front else None)
        return TierProcess(self, name, self.plan.shape.tiers[index], links)

    def _link(self, process: str, broker: str) -> Link:
        name = f"{process} {broker}"
        return self._links.setdefault(name, Link(self.world, name, self.plan.shape.delay_s))

    # --- faults ------------------------------------------------------------------------------------------------------

    def _do(self, fault: Fault, begin: Callable[[], None]) -> None:
        self.world.say("world", "%s", fault)
        begin()

    def _acts(self, fault: Fault) -> tuple[Callable[[], None], Callable[[], None]]:
        """What begins a fault and what ends it."""
        link, process = self._links.get(fault.target), self.processes.get(fault.target)
        match fault.kind:
            case "cut" | "cut-out" | "cut-back" if link:
                ways = {"out": fault.kind != "cut-back", "back": fault.kind != "cut-out"}
                return partial(link.cut, **ways), partial(link.mend, **ways)
            case "slow-link" | "lossy" if link:
                change = "factor" if fault.kind == "slow-link" else "loss"
                normal = 1.0 if fault.kind == "slow-link" else 0.0
                return partial(_set_lanes, link, change, fault.amount), partial(_set_lanes, link, change, normal)
            case "refuse" if link:
                return partial(setattr, link, "refusals", fault.amount), partial(setattr, link, "refusals", 0.0)
            case "outage":
                links = [each for each in self._links.values() if each.name.split()[1] == fault.target]
                return partial(_each, links, Link.cut), partial(_each, links, Link.mend)
            case "clock":
                return partial(self.sides[fault.target].broker.set_clock, fault.amount), _nothing
            case "rebalance":
                return self.sides[fault.target].group.rebalance, _nothing
            case _:
                assert process, fault
                return self._process_acts(fault, process)

    def _process_acts(self, fault: Fault, process: TierProcess) -> tuple[Callable[[], None], Callable[[], None]]:
        match fault.kind:
            case "crash" | "stop":
                return partial(process.end, kill=fault.kind == "crash"), process.come_back
            case "stall":
                return process.hold_up, process.let_go
            case "slow":
                return partial(setattr, process, "slowness", fault.amount), partial(setattr, process, "slowness", 1.0)
            case "fail":
                return partial(setattr, process, "failing", fault.amount), partial(setattr, process, "failing", 0.0)
            case "full":
                return partial(setattr, process, "full", True), partial(setattr, process, "full", False)
            case _:
                return partial(process.restart, OTHER_DIGEST), partial(process.restart, DIGEST)

    # --- liveness ----------------------------------------------------------------------------------------------------

    def _check_recovery(self) -> None:
        """Requests that only the last exit is sure of go all the way again, through every replica of the first tier.

        They come in pairs, the pairs further apart than the probes: the first finds a breaker that may try and
        closes it, the second of a later pair shows that it is closed.
        """
        answers: list[Answer | None] = []
        for first in range(FIRST_CHECK, FIRST_CHECK + 100 * ROUNDS, 100):
            owners = self.sides[self._names[0]].group.owners
            partitions = [i for i, owner in enumerate(owners) if owner not in owners[:i]]
            numbers = range(first, first + 2 * len(partitions))
            for number in numbers:
                index, second = divmod(number - first, 2)
                kind, device = len(self.plan.shape.stages) - 1, number % len(self.devices)
                ask = Ask(self.world.now, number, kind, index % 3, CHECK_BUDGET_MS, device, number, number)
                self.devices[device].ask(ask, partitions[index])
                self.world.run(self.world.now + (CHECK_EVERY_S if second else PAIR_S))
            answers = [self.ledger.handed_on.get(number) for number in numbers]
            if all(answer is not None and answer.reason == "final" for answer in answers):
                return
        reasons = [answer and (answer.tier, answer.reason) for answer in answers]
        require(False, "recovery", "after %d rounds the answers are %s", ROUNDS, reasons)

    def _check_quiet(self) -> None:
        end = self.world.now + PATIENCE_S
        while self._open() and self.world.now < end:
            self.world.run(self.world.now + 1.0)
        require(not self._open(), "everything is answered", "%s have no answer", self._open())
        self.world.run(self.world.now + 5.0)
        for side in self.sides.values():
            for partition, log in enumerate(side.group.topic.logs):
                committed = side.group.committed[partition]
                where = (side.group.topic.name, partition, committed, len(log))
                require(committed == len(log), "everything is committed", "%s %d: %d of %d", *where)
                require(all(record.finished for record in log), "nothing is lost", "%s %d", *where[:2])
        for process in self.processes.values():
            require(process.tier is not None, "liveness", "%s is not running", process.name)
            process.watch.check_quiet()

    def _open(self) -> list[int]:
        return [number for device in self.devices for number in device.open]


def _set_lanes(link: Link, attribute: str, value: float) -> None:
    for lane in (link.out, link.back):
        assert isinstance(lane, Lane)
        setattr(lane, attribute, value)


def _each(links: list[Link], act: Callable[[Link], None]) -> None:
    for link in links:
        act(link)


def _nothing() -> None:
    """A fault that is over at once."""
