"""A replica of a tier as a process: the real `Tier` with its machine, between simulated brokers.

It is started, killed, told to stop and held up; each time it starts it is a new process with nothing left
of the one before.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from functools import partial
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

from branchy.core import tier_events as ev
from branchy.core.breaker import Breaker
from branchy.core.tier_model import TierLimits, TierModel
from branchy.runner.tier import Back, Front, Tier
from branchy.transport import base as tr
from simulation import toy
from simulation.broker import Broker, Fetcher, Place, Record, Token
from simulation.consumer import Consumer
from simulation.invariants import MachineWatch, watched
from simulation.network import Link
from simulation.plan import DIGEST
from simulation.producer import LearntClock, Producer
from simulation.worker import Worker
from simulation.world import World

if TYPE_CHECKING:
    from simulation.cascade import Cascade

FRONT_TIMEOUT_S, BACK_TIMEOUT_S = 3.0, 2.0
WINDOW_S, PROBE_S, WAY_BACK_S = 3.0, 0.5, 0.005
FLUSH_S = 1.0
RESTART_S = 0.05


class Clock:
    """A process' monotonic clock: started at any moment, and a little fast or slow.

    The clock of the day, which somebody may set, is read for timestamps in headers and logs alone.
    """

    def __init__(self, world: World, name: str) -> None:
        rng = world.random(f"{name} clock")
        self._world = world
        self._rate, self._start_s = 1 + rng.uniform(-1e-4, 1e-4), rng.uniform(0.0, 1e5)

    def monotonic(self) -> float:
        """Seconds since some moment."""
        return self._start_s + self._world.now * self._rate


class TierProcess:
    """One replica.

    Attributes:
        slowness, failing, full: what is wrong with it now (a factor, a share, whether its back queue is full).
        digest: of the bundle that it is started with.
        wanted: whether it is started again when it ends.
    """

    def __init__(self, cascade: Cascade, name: str, stages: tuple[str, ...], links: tuple[Link, Link | None]) -> None:
        self.world, self.shape, self.name = cascade.world, cascade.plan.shape, name
        self.back_link, self.front_link = links
        self.clock = Clock(self.world, name)
        self.slowness, self.failing, self.full, self.held_up = 1.0, 0.0, False, 0
        self.digest = DIGEST
        self.wanted = True
        self.starts = 0
        self.tier: Tier | None = None
        self._counted_before = Counter[str]()
        self._cascade, self._stages = cascade, stages
        self._tier_name, self._replica = name.split("/")[0], int(name.split("/")[1])

    @property
    def counters(self) -> Counter[str]:
        """What all its machines counted, one after the other."""
        return self._counted_before + (self.tier.machine.counters if self.tier else Counter())

    # --- life --------------------------------------------------------------------------------------------------------

    def start(self) -> None:
        """A new process; it takes requests once its reply inbox is open."""
        if self.tier is not None or not self.wanted:
            return
        self.starts += 1
        self.world.say(self.name, "starts (%d) with %.1s", self.starts, self.digest)
        shape = self.shape
        self.model: TierModel = toy.model(self._stages, shape.stages, self.digest)
        limits = TierLimits(
            shape.batch, shape.pending, shape.backlog, shape.unsettled, WAY_BACK_S, WINDOW_S, PROBE_S, shape.held_bytes
        )
        self.tier = self._cascade.tier_class(self._tier_name, [self.model], limits, self.clock.monotonic)
        machine = watched(self._cascade.machine_class)(
            self._tier_name, [self.model], limits, f"{self.name}.{self.starts}.".encode()
        )
        machine.way_up.breaker = Breaker(WINDOW_S, PROBE_S, minimum=shape.breaker_minimum)
        machine.watch = self.watch = MachineWatch(self, limits, machine)
        self.tier.machine = machine
        self._inbox: list[Any] = []
        self._step_due, self._wake_at = False, float("inf")
        self._clients: list[Any] = []
        self._consumer: Consumer | None = None
        self._flush_until: float | None = None
        if self.front_link is None:
            self._begin(self.tier, None)
        else:
            self.front_link.back.carry(partial(self._open_front, self.tier))

    def crash(self) -> None:
        """SIGKILL."""
        if self.tier is None:
            return
        self.world.say(self.name, "is killed")
        if self._consumer is not None:
            self._consumer.kill()
            self._cascade.sides[self._tier_name].group.suspect(self._consumer, lambda: True)
        self._end()

    def stop(self) -> None:
        """SIGTERM."""
        if self.tier is None:
            return
        self.world.say(self.name, "is told to stop")
        if self._consumer is None:
            self._end()  # before it was ready
        else:
            self.sink(self.tier, ev.Drain())

    def end(self, *, kill: bool) -> None:
        """It ends, and stays away."""
        self.wanted = False
        (self.crash if kill else self.stop)()

    def come_back(self) -> None:
        """It is started, or will be once it has ended."""
        self.wanted = True
        self.start()

    def restart(self, digest: str) -> None:
        """A roll-out: stopped, and started with that bundle."""
        self.digest = digest
        self.wanted = True
        if self.tier is None:
            self.start()
        else:
            self.stop()

    def hold_up(self) -> None:
        """It gets no time (SIGSTOP, swapping): nothing is done, and nothing heard of it."""
        self.held_up += 1
        for link in (self.back_link, self.front_link):
            if link is not None:
                link.cut()

    def let_go(self) -> None:
        """It gets its time again."""
        self.held_up -= 1
        for link in (self.back_link, self.front_link):
            if link is not None:
                link.mend()
        if not self.held_up and self.tier is not None:
            self.watch.was_held_up()
            self._step_soon()

    def record(self, token: Token) -> Record:
        """What was delivered."""
        log = self._cascade.sides[self._tier_name].group.topic.logs[token.assignment.partition]
        return log[token.offset]

    # --- work --------------------------------------------------------------------------------------------------------

    def sink(self, tier: Tier, event: Any) -> None:
        """Take an event for the process that `tier` is of; nothing when that is gone."""
        if tier is self.tier:
            self._inbox.append(event)
            self._step_soon()

    def note_computed(self, work: ev.Submit, seconds: float) -> None:
        """Remember for whom was computed how long, to compare with what the hops will say."""
        for values in work.inputs:
            self._cascade.ledger.computed(self._tier_name, toy.number_of(values), seconds)

    def _step_soon(self) -> None:
        if not self._step_due and not self.held_up:
            self._step_due = True
            self.world.after(0.0, partial(self._step, self.tier))

    def _step(self, tier: Tier) -> None:
        if tier is not self.tier:
            return
        self._step_due = False
        if self.held_up or self._consumer is None:
            return
        events, self._inbox = self._inbox, []
        tier.step(events)
        if tier._inbox:  # quick batches that it leaves for the next one, as `Tier.run` would take them
            self._inbox.extend(tier._inbox)
            tier._inbox.clear()
            self._step_soon()
        self._consumer.look()
        self.watch.after_step()
        if tier.finished:
            self._leave(tier)
        else:
            self._set_alarm(tier)

    def _set_alarm(self, tier: Tier) -> None:
        wait_s = tier.wait_s
        if wait_s is None:
            return
        at_s = self.world.now + wait_s + 1e-5
        if at_s < self._wake_at:
            self._wake_at = at_s
            self.world.after(at_s - self.world.now, partial(self._wake, tier))

    def _wake(self, tier: Tier) -> None:
        if tier is self.tier:
            self._wake_at = float("inf")
            self._step_soon()

    # --- opening and closing -----------------------------------------------------------------------------------------

    def _open_front(self, tier: Tier) -> None:
        """Assign the high watermark of the replies first: what is asked from now on is answered above it."""
        link, side = self.front_link, self._cascade.front_of(self._tier_name)
        if tier is not self.tier or link is None or side is None:
            return
        broker = side.broker
        replies = broker.topics[f"{self._tier_name}.answers"]
        partition = self._replica % len(replies.logs)

        def take(_: int, records: list[Any]) -> None:
            for record in records:
                self.sink(tier, tr.Replied(record.correlation, record.message))

        fetcher = Fetcher(self.world, link, replies, partition, len(replies.logs[partition]), take)
        self._clients.append(SimpleNamespace(kill=fetcher.close))
        sender = self._producer("front", broker, link, FRONT_TIMEOUT_S, lambda: self.shape.send_queue)
        inbox: Any = SimpleNamespace(address=Place(replies.name, partition))
        self._begin(tier, Front(sender, inbox, Place(side.group.topic.name)))

    def _begin(self, tier: Tier, front: Front | None) -> None:
        side = self._cascade.sides[self._tier_name]
        sender = self._producer(
            "back", side.broker, self.back_link, BACK_TIMEOUT_S, lambda: 0 if self.full else self.shape.send_queue
        )
        self._consumer = Consumer(
            self.world,
            f"{self.name}.{self.starts}",
            side.group,
            self.back_link,
            partial(self.sink, tier),
            sender.clock,
            self.clock.monotonic,
        )
        self._sender = sender
        executor: Any = Worker(self, partial(self.sink, tier))
        tier.begin(Back(self._consumer, sender, Place(f"{self._tier_name}.dead")), front, executor)

    def _producer(self, side: str, broker: Broker, link: Link, timeout_s: float, limit: Callable[[], int]) -> Producer:
        assert self.tier is not None
        producer = Producer(
            self.world,
            f"{self.name}.{self.starts} {side}",
            broker,
            link,
            partial(self.sink, self.tier),
            timeout_s=timeout_s,
            limit=limit,
            clock=LearntClock(),
            monotonic=self.clock.monotonic,
        )
        self._clients.append(producer)
        return producer

    def _leave(self, tier: Tier) -> None:
        """Flush for a second at most, then commit and leave the group."""
        if self._flush_until is None:
            self._flush_until = self.world.now + FLUSH_S
        if self._sender.flush(0.0) and self.world.now < self._flush_until:
            self.world.after(0.05, partial(self._wake, tier))
            return
        self.world.say(self.name, "has stopped")
        assert self._consumer is not None
        self._consumer.close()
        self._end()

    def _end(self) -> None:
        for client in self._clients:
            client.kill()
        self._counted_before = self.counters
        self.tier = None
        if self.wanted:
            self.world.after(RESTART_S, self.start)
