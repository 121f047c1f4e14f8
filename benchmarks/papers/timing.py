"""How long a seed's networks take for one sample at a time: all of them in turn, on one core, in LiteRT float32."""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from ai_edge_litert.interpreter import Interpreter

from benchmarks.papers.judging import Judged
from benchmarks.papers.tables import Table
from branchy.core.cascade import FULL, Array, StageSpec
from branchy.datasets import load
from branchy.models.backend import keras
from branchy.models.export import write_litert
from branchy.runner.cascade import Cascade
from branchy.store.bundle import Bundle

SAMPLES = 2000
"""Of the test part, the first ones, that every network is given."""

Way = Callable[[int, Array], float]
"""From a sample's number and the sample (1, height, width, channels) to the milliseconds that count."""


class Runs(Protocol):
    """One stage for one sample at a time."""

    def run(self, inputs: Array) -> tuple[float, Array]:
        """Milliseconds, and what goes on to the next stage; of the last, the logits."""


@dataclass(frozen=True)
class Times:
    """Mean milliseconds a sample.

    Attributes:
        invoke: in the stages' `invoke` alone, with their heads.
        trunk: the same as the paper's own code counts it: without the layers of the exits before the last.
        runner: from sample to answer, with decisions and codec, as the runner's cascade does it.
    """

    invoke: float
    trunk: float
    runner: float


@dataclass(frozen=True)
class Timed:
    """The full net and one topology in one run, milliseconds.

    Attributes:
        full: our network without exits.
        rules: the branchy net with the thresholds of each rule.
        first: `invoke` of the first stage, which every sample goes through.
    """

    full: Times
    rules: Mapping[str, Times]
    first: float


def time_topology(table: Table, judged: Judged, full: Path, branchy: Path) -> Timed:
    """Time one topology of one seed beside its full net, pinned to one core.

    Args:
        table: whose test samples are sent.
        judged: the thresholds.
        full: bundle of the network without exits.
        branchy: the topology's bundle.
    """
    samples, _ = load(table.dataset).test.read(np.arange(SAMPLES))
    cores = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {max(cores)})
    try:
        with ExitStack() as stack:
            ways = _ways(Bundle.load(full), Bundle.load(branchy), judged, samples, stack)
            ms = in_turn(ways, samples)
    finally:
        os.sched_setaffinity(0, cores)
    rules = {rule: Times(ms[rule], ms[f"{rule}, trunk"], ms[f"{rule}, runner"]) for rule in judged.rows}
    return Timed(Times(ms[FULL], ms[FULL], ms[f"{FULL}, runner"]), rules, ms["first"])


def in_turn(ways: Mapping[str, Way], samples: Array) -> dict[str, float]:
    """Mean milliseconds of each way; every sample goes through all, each time another first.

    So whatever else the machine does is shared, and none has the caches to itself.
    """
    names = list(ways)
    spent = dict.fromkeys(names, 0.0)
    for way in ways.values():
        way(0, samples[:1])  # what is made on first use is no part of the times
    for i in range(len(samples)):
        for turn in range(len(names)):
            name = names[(i + turn) % len(names)]
            spent[name] += ways[name](i, samples[i : i + 1])
    return {name: ms / len(samples) for name, ms in spent.items()}


def _ways(full: Bundle, branchy: Bundle, judged: Judged, samples: Array, stack: ExitStack) -> dict[str, Way]:
    stages = branchy.spec.stages
    heads = [_Stage(branchy.file(stage, "litert"), stage) for stage in stages]
    trunk = [*_without_heads(branchy, stages[:-1]), heads[-1]]
    whole = [_Stage(full.file(full.spec.full, "litert"), full.spec.full)]
    ways = {
        FULL: chain(whole, [1] * len(samples)),
        "first": chain(heads, [1] * len(samples)),
        f"{FULL}, runner": _answering(stack.enter_context(closing(Cascade(full, stage=FULL)))),
    }
    for rule, row in judged.rows.items():
        cascade = stack.enter_context(closing(Cascade(branchy, thresholds=row.thresholds)))
        reached = [len(answer.hops) for answer in cascade.predict(samples)]
        ways |= {rule: chain(heads, reached), f"{rule}, trunk": chain(trunk, reached)}
        ways[f"{rule}, runner"] = _answering(cascade)
    return ways


def chain(stages: Sequence[Runs], reached: Sequence[int]) -> Way:
    """As many stages for each sample as it goes through; only `invoke` counts."""

    def run(number: int, sample: Array) -> float:
        total_ms, inputs = 0.0, sample
        for stage in stages[: reached[number]]:
            ms, inputs = stage.run(inputs)
            total_ms += ms
        return total_ms

    return run


def _answering(cascade: Cascade) -> Way:
    def answer(_: int, sample: Array) -> float:
        started = time.perf_counter()
        cascade.predict(sample)
        return (time.perf_counter() - started) * 1e3

    return answer


class _Stage:
    """One LiteRT file for one sample at a time, by `invoke`; engines count setting and copying the tensors too."""

    def __init__(self, path: Path, stage: StageSpec) -> None:
        self._interpreter = Interpreter(model_content=path.read_bytes(), num_threads=1)
        taken, given = _details(self._interpreter)
        (source,), wanted = taken.values(), next(spec for spec in (stage.activation, stage.logits) if spec is not None)
        self._takes, self._gives = source["index"], given[wanted.name]["index"]
        self._interpreter.resize_tensor_input(self._takes, [1, *stage.input.shape])
        self._interpreter.allocate_tensors()

    def run(self, inputs: Array) -> tuple[float, Array]:
        self._interpreter.set_tensor(self._takes, inputs)
        started = time.perf_counter()
        self._interpreter.invoke()
        return (time.perf_counter() - started) * 1e3, self._interpreter.get_tensor(self._gives)


def _details(interpreter: Any) -> tuple[dict[str, Any], dict[str, Any]]:
    """Inputs and outputs by name. The runner that knows them must be gone before memory is planned."""
    signature = interpreter.get_signature_runner()
    return signature.get_input_details(), signature.get_output_details()


def _without_heads(bundle: Bundle, stages: Sequence[StageSpec]) -> list[_Stage]:
    """The stages as LiteRT files that give their activation alone."""
    found = []
    with tempfile.TemporaryDirectory() as folder:
        for stage in stages:
            model = keras.saving.load_model(bundle.file(stage, "keras"), compile=False)
            start = keras.Input(stage.input.shape, dtype=stage.input.dtype)
            name = stage.activation.name if stage.activation else ""
            path = Path(folder) / f"{stage.name}.tflite"
            write_litert(keras.Model(start, {name: model(start)[name]}), stage.input, path)
            found.append(_Stage(path, stage))
    return found
