"""A toy cascade whose every answer is known: a sample says which stage is the first to be sure of it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import lru_cache

import numpy as np

from branchy.core.cascade import Array, ExitSettings, Source, StageSpec, TensorSpec, Uplink
from branchy.core.policies import Verdict, judge
from branchy.core.tier_model import TierModel
from simulation.plan import LABELS, NOT_FINITE, POISON, Ask

EXIT = ExitSettings()


@lru_cache
def stage(name: str, before: str | None, after: str | None) -> StageSpec:
    """Four values in, the same four up, three classes."""
    tensor = "sample" if before is None else "activation"
    return StageSpec(
        name=name,
        inputs=(Source(before, tensor),),
        input=TensorSpec(tensor, (4,), "uint8" if before is None else "float32"),
        activation=TensorSpec("activation", (4,)) if after else None,
        logits=TensorSpec("logits", (3,)),
        successors=(after,) if after else (),
        uplink=Uplink() if after else None,
        parameters=1,
        flops=1,
    )


@lru_cache
def model(stages: tuple[str, ...], all_stages: tuple[str, ...], digest: str) -> TierModel:
    """What a tier runs."""
    around = (None, *all_stages, None)
    specs = tuple(stage(name, around[i], around[i + 2]) for i, name in enumerate(all_stages) if name in stages)
    exits = {spec.name: EXIT for spec in specs}
    return TierModel(digest, LABELS, specs, exits, behind=specs[0].inputs[0].stage is not None)


def sample(ask: Ask) -> Array:
    """(4,) uint8: its content's number (two bytes), kind, label."""
    return np.array([ask.content >> 8, ask.content & 255, ask.kind, ask.label], np.uint8)


def number_of(values: Array) -> int:
    """Which content a sample or an activation is of."""
    return (int(values[0]) << 8) + int(values[1])


def logits(position: int, kind: int, label: int) -> tuple[float, ...]:
    """What the exit at that position of the whole cascade says; unsure, it is of another opinion."""
    if kind == NOT_FINITE:
        return (math.nan,) * len(LABELS)
    if position >= kind:
        return tuple(9.0 if i == label else 0.0 for i in range(len(LABELS)))
    other = (label + 1 + position) % len(LABELS)
    return tuple(0.1 if i == other else 0.0 for i in range(len(LABELS)))


@lru_cache
def verdict(position: int, kind: int, label: int) -> Verdict:
    """The truth about a hop: what that exit must have said."""
    return judge(np.array([logits(position, kind, label)], np.float32), EXIT)[0]


def run(spec: StageSpec, position: int, inputs: Sequence[Array]) -> dict[str, Array]:
    """Run a stage on a batch.

    Raises:
        ValueError: a sample is poison.
    """
    if any(values[2] == POISON for values in inputs):
        raise ValueError("poison")
    rows = [logits(position, int(values[2]), int(values[3])) for values in inputs]
    outputs: dict[str, Array] = {"logits": np.array(rows, np.float32)}
    if spec.activation is not None:
        outputs["activation"] = np.array(inputs, np.float32)
    return outputs
