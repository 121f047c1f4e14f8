"""Runs batches: slow ones on a thread of its own, so that they never hold up a tier's decisions; quick ones at once."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Mapping
from queue import SimpleQueue

import numpy as np

from branchy.core.cascade import Array
from branchy.core.messages import EncodedSample
from branchy.core.tier_events import Computed, Submit
from branchy.engines.base import Engine
from branchy.errors import BranchyError, DatasetError, MissingExtraError

log = logging.getLogger(__name__)

QUICK_S = 0.001
"""A batch of tensors that should take less is run at once: handing it to a thread and back would take about as long."""

Decode = Callable[[EncodedSample], Array]


class Executor:
    """One worker for the stages of a tier, with a thread for what takes long. Give it one batch at a time.

    Args:
        engines: by (digest, stage); used by one thread at a time from now on, closed with this.
        decode: an encoded sample to what a first stage takes; raises `DatasetError` or `MissingExtraError`.
        report: takes each `Computed` of the thread, called by it.
        clock: monotonic, in seconds; the tier machine's own.
    """

    def __init__(
        self,
        engines: Mapping[tuple[str, str], Engine],
        decode: Decode,
        report: Callable[[Computed], None],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._engines = engines
        self._decode = decode
        self._report = report
        self._clock = clock
        self._sample_s: dict[tuple[str, str], float] = {}
        self._busy_since: float | None = None
        self._work: SimpleQueue[Submit | None] = SimpleQueue()
        self._thread = threading.Thread(target=self._loop, name="executor", daemon=True)
        self._thread.start()

    def submit(self, work: Submit) -> Computed | None:
        """Run a batch: a quick one now, and return what came of it; a slow one is reported when it is done."""
        sample_s = self._sample_s.get((work.model, work.stage), QUICK_S)
        if len(work.inputs) * sample_s < QUICK_S and not _is_encoded(work):
            return self._run(work)
        self._work.put(work)
        return None

    @property
    def busy_s(self) -> float:
        """How long the batch at hand has been running, 0 when none is; any thread may ask."""
        since = self._busy_since
        return 0.0 if since is None else self._clock() - since

    def close(self, timeout_s: float = 5.0) -> None:
        """Finish the batch at hand and free the engines; may be called twice."""
        self._work.put(None)
        self._thread.join(timeout_s)

    def _loop(self) -> None:
        while (work := self._work.get()) is not None:
            self._report(self._run(work))
        for engine in self._engines.values():
            engine.close()

    def _run(self, work: Submit) -> Computed:
        self._busy_since = started = self._clock()
        inputs, failures = self._inputs(work)
        outputs: Mapping[str, Array] = {}
        if inputs:
            try:
                batch = inputs[0][np.newaxis] if len(inputs) == 1 else np.array(inputs)
                outputs = self._engines[work.model, work.stage].run(batch)
            except Exception as error:  # whatever a model raises fails its batch, never the tier
                if not isinstance(error, BranchyError):
                    log.exception("stage %s failed on a batch of %d", work.stage, len(inputs))
                failures = dict.fromkeys(range(len(work.inputs)), f"stage {work.stage} failed: {error}")
        finished = self._clock()
        self._busy_since = None  # not in a `finally`: what ends this thread leaves it busy, which health sees
        if not _is_encoded(work):  # decoding says nothing of the stage, nor one image of the next
            self._sample_s[work.model, work.stage] = (finished - started) / len(work.inputs)
        return Computed(work.work, outputs, started, finished, failures)

    def _inputs(self, work: Submit) -> tuple[list[Array], dict[int, str]]:
        inputs, failures = [], {}
        for i, item in enumerate(work.inputs):
            try:
                inputs.append(self._decode(item) if isinstance(item, EncodedSample) else item)
            except (DatasetError, MissingExtraError) as error:
                failures[i] = str(error)
        return inputs, failures


def _is_encoded(work: Submit) -> bool:
    """Whether something of it has to be decoded first: a small file may take long."""
    return any(isinstance(item, EncodedSample) for item in work.inputs)
