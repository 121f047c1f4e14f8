"""The executor of a simulated tier: computing takes time, or next to none, and fails."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any

from branchy.core import tier_events as ev
from simulation import toy

if TYPE_CHECKING:
    from simulation.tier import TierProcess


class Worker:
    """The executor: one batch at a time, each taking its time, some failing."""

    def __init__(self, process: TierProcess, done: Callable[[ev.Computed], None]) -> None:
        self._process, self._done = process, done
        self._works: deque[ev.Submit] = deque()
        self._rng = process.world.random(f"{process.name} worker {process.starts}")

    def submit(self, work: ev.Submit) -> ev.Computed | None:
        """Run a batch: where that is quick at once, else after those before it."""
        process = self._process
        if process.shape.quick and process.slowness == 1.0 and not self._works:
            return self._computed(work, process.clock.monotonic())
        self._works.append(work)
        if len(self._works) == 1:
            self._start()
        return None

    def _start(self) -> None:
        process = self._process
        item_s = process.shape.compute_s * process.slowness * (0.5 + self._rng.random())
        process.world.after(
            item_s * (1 + 0.2 * len(self._works[0].inputs)), partial(self._finish, process.clock.monotonic())
        )

    def _finish(self, started_s: float) -> None:
        self._done(self._computed(self._works.popleft(), started_s))
        if self._works:
            self._start()

    def _computed(self, work: ev.Submit, started_s: float) -> ev.Computed:
        outputs, failures = self._run(work)
        finished_s = self._process.clock.monotonic()
        self._process.note_computed(work, finished_s - started_s)
        return ev.Computed(work.work, outputs, started_s, finished_s, failures)

    def _run(self, work: ev.Submit) -> tuple[dict[str, Any], dict[int, str]]:
        """Outputs, and failures by position: of the batch when a stage fails, of a sample that cannot be decoded."""
        process, n = self._process, len(work.inputs)
        failures: dict[int, str] = {}
        if process.failing and self._rng.random() < process.failing:
            failures = dict.fromkeys(range(n) if self._rng.random() < 0.5 else [self._rng.randrange(n)], "cannot")
        good = [values for i, values in enumerate(work.inputs) if i not in failures]
        try:
            spec = next(s for s in process.model.stages if s.name == work.stage)
            return (toy.run(spec, process.shape.stages.index(work.stage), good) if good else {}), failures
        except ValueError as error:
            return {}, dict.fromkeys(range(n), str(error))
