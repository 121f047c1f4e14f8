"""Virtual time: what happens when, in one order that the seed settles, and a trace of it."""

from __future__ import annotations

import heapq
from collections.abc import Callable
from itertools import count
from random import Random

Act = Callable[[], None]


class Violation(AssertionError):
    """An invariant does not hold; `rule` is its name, the same for every way to break it."""

    def __init__(self, rule: str, text: str) -> None:
        super().__init__(f"{rule}: {text}")
        self.rule = rule


def require(holds: bool, rule: str, text: str, *values: object) -> None:
    """Raise `Violation` unless it holds; the text is only made then (`%` style)."""
    if not holds:
        raise Violation(rule, text % values)


class World:
    """A clock that jumps to the next thing to happen.

    Args:
        seed: every draw comes from a generator of its own, named and seeded with this.
        tracing: keep a line for each thing that happens, in `lines`.
    """

    def __init__(self, seed: int, *, tracing: bool = False) -> None:
        self.now = 0.0
        self.lines: list[str] = []
        self.tracing = tracing
        self._seed = seed
        self._queue: list[tuple[float, int, Act]] = []
        self._numbers = count()

    def random(self, name: str) -> Random:
        """A generator of its own: what one draws does not change what another does."""
        return Random(f"{self._seed}/{name}")

    def after(self, seconds: float, act: Act) -> None:
        """Do it so much later."""
        heapq.heappush(self._queue, (self.now + seconds, next(self._numbers), act))

    def run(self, until: float) -> None:
        """Let everything happen up to then."""
        queue = self._queue
        while queue and queue[0][0] <= until:
            self.now, _, act = heapq.heappop(queue)
            act()
        self.now = until

    def say(self, who: str, text: str, *values: object) -> None:
        """A line of the trace."""
        if self.tracing:
            self.lines.append(f"{self.now:10.6f}  {who:<12} {text % values}")
