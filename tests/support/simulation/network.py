"""Links between processes and brokers: delay, loss, reordering, and cuts in either direction.

Below Kafka's protocol is TCP and above it a client that tries again, so what is lost comes later and
what is cut waits until the link is mended, unless its sender has given up by then.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from random import Random

from simulation.world import Act, World

RETRANSMIT_S = 0.2


class Lane:
    """One direction of a link. Messages overtake each other: each draws its own delay.

    Attributes:
        clear_at: when the last of those that it carries now has landed, at the latest.
    """

    def __init__(self, world: World, rng: Random, delay_s: float) -> None:
        self.delay_s = delay_s
        self.factor = 1.0
        self.loss = 0.0
        self.cuts = 0
        self.clear_at = 0.0
        self._world, self._rng = world, rng
        self._parked: list[Act] = []

    def carry(self, act: Act) -> None:
        """Do it at the other end, when it gets there."""
        if self.cuts:
            self._parked.append(act)
        else:
            delay_s = self._delay()
            self.clear_at = max(self.clear_at, self._world.now + delay_s)
            self._world.after(delay_s, partial(self._land, act))

    def cut(self) -> None:
        """Nothing gets through; cuts add up."""
        self.cuts += 1

    def mend(self) -> None:
        """Take one cut back."""
        self.cuts -= 1
        if not self.cuts:
            parked, self._parked = self._parked, []
            for act in parked:
                self.carry(act)

    def _delay(self) -> float:
        delay_s = self.delay_s * self.factor * (0.5 + self._rng.random())
        while self._rng.random() < self.loss:
            delay_s += RETRANSMIT_S
        return delay_s

    def _land(self, act: Act) -> None:
        if self.cuts:
            self._parked.append(act)
        else:
            act()


class Link:
    """A process' way to one broker and back."""

    def __init__(self, world: World, name: str, delay_s: float) -> None:
        self.name = name
        rng = world.random(name)
        self.out, self.back = Lane(world, rng, delay_s), Lane(world, rng, delay_s)
        self.refusals = 0.0
        """The share of sends that the broker refuses for now (not enough replicas, a leader that moves)."""
        self.when_changed: list[Callable[[bool], None]] = []

    @property
    def up(self) -> bool:
        """Whether both directions work, as a heartbeat needs."""
        return not (self.out.cuts or self.back.cuts)

    def cut(self, *, out: bool = True, back: bool = True) -> None:
        """Cut one direction or both."""
        was = self.up
        for lane in [self.out] * out + [self.back] * back:
            lane.cut()
        self._changed(was)

    def mend(self, *, out: bool = True, back: bool = True) -> None:
        """Take back one such cut."""
        was = self.up
        for lane in [self.out] * out + [self.back] * back:
            lane.mend()
        self._changed(was)

    def _changed(self, was: bool) -> None:
        if was != self.up:
            for listener in list(self.when_changed):
                listener(self.up)
