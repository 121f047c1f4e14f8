"""Which format a tier runs: the quickest on this machine among those that are as accurate as float32."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping
from functools import partial
from typing import TypeVar

import numpy as np

from branchy.core.cascade import Array, FormatName, PolicyName, StageSpec
from branchy.errors import BundleError, EngineError, MissingExtraError
from branchy.runner.tier_loading import Loaded, load_tier
from branchy.store.bundle import Bundle

log = logging.getLogger(__name__)

TOLERANCE = 0.01
"""How much less accurate than in float32 an exit may be, as a share of the samples."""
ROUNDS = 50
"""How often each format is timed, always with the same sample, unless that takes longer than `LIMIT_S`."""
LIMIT_S = 2.0
"""Seconds a format after which no further round begins."""

K = TypeVar("K")


def load_quickest(
    bundle: Bundle,
    names: tuple[str, ...],
    threads: int = 1,
    policy: PolicyName | None = None,
    thresholds: Mapping[str, float] | float | None = None,
) -> Loaded:
    """Load a tier in each format that it has, time them in turn, and keep the quickest that is accurate.

    A format is left out where an exit of the tier lost more than `TOLERANCE` of its float32 accuracy at
    training, where it gives other logits here than then, and where it needs TensorFlow and that is not
    installed. What is taken, and why, is logged.

    Args:
        bundle: a loaded bundle.
        names: the tier's stages, consecutive.
        threads: how many threads one batch may use.
        policy: instead of the bundle's.
        thresholds: instead of the bundle's, one for every exit or by stage.

    Raises:
        BranchyError: as `load_tier`, where no format is left.
    """
    stages = bundle.spec.tier(names)
    formats = [fmt for fmt in stages[0].files if all(fmt in stage.files for stage in stages)]
    loaded: dict[FormatName, Loaded] = {}
    left_out: dict[FormatName, Exception] = {}
    try:
        for fmt in formats:
            try:
                _check_accuracy(stages, fmt)
                loaded[fmt] = load_tier(bundle, names, fmt, threads, policy, thresholds)
            except (EngineError, MissingExtraError) as error:
                left_out[fmt] = error
        if not loaded:
            raise next(iter(left_out.values()), BundleError(f"tier {','.join(names)}: its stages share no format"))
        inputs = _inputs(bundle, stages[0])
        took_ms = time_in_turn({fmt: partial(_run, each, inputs) for fmt, each in loaded.items()})
        quickest = min(took_ms, key=lambda fmt: took_ms[fmt])
    except BaseException:
        for each in loaded.values():
            each.close()
        raise
    for fmt, each in loaded.items():
        if fmt != quickest:
            each.close()
    log.info(
        "format %s, the quickest here: %s for a sample; at most %g points less accurate than float32%s",
        quickest,
        ", ".join(f"{fmt} {took:.3f} ms" for fmt, took in sorted(took_ms.items(), key=lambda item: item[1])),
        100 * TOLERANCE,
        "".join(f"; without {fmt}: {error}" for fmt, error in left_out.items()),
    )
    return loaded[quickest]


def lost_accuracy(stage: StageSpec, fmt: FormatName) -> float:
    """How much less accurate a stage's exit is in a format than in float32.

    Args:
        stage: which.
        fmt: one that it has.

    Returns:
        A share, below 0 where it is more accurate; 0 where not measured.
    """
    base = stage.files.get("litert") or stage.files.get("keras")
    own = stage.files[fmt].exit
    if base is None or base.exit is None or own is None or base.exit.accuracy is None or own.accuracy is None:
        return 0.0
    return base.exit.accuracy - own.accuracy


def time_in_turn(calls: Mapping[K, Callable[[], object]]) -> dict[K, float]:
    """How long each call takes, made in turn so that whatever else the machine does is shared.

    Each is called once before the call that counts: it pays for what engines make on first use, and for
    caches that the call before it has filled with other things.

    Args:
        calls: by name.

    Returns:
        Median milliseconds by name.
    """
    took: dict[K, list[float]] = {name: [] for name in calls}
    end = time.perf_counter() + LIMIT_S * len(calls)
    for _ in range(ROUNDS):
        for name, call in calls.items():
            call()
            started = time.perf_counter()
            call()
            took[name].append((time.perf_counter() - started) * 1e3)
        if time.perf_counter() > end:
            break
    return {name: float(np.median(each)) for name, each in took.items()}


def _check_accuracy(stages: tuple[StageSpec, ...], fmt: FormatName) -> None:
    for stage in stages:
        lost = lost_accuracy(stage, fmt)
        if lost > TOLERANCE:
            raise EngineError(f"{stage.name} is {100 * lost:.1f} points less accurate than float32")


def _inputs(bundle: Bundle, first: StageSpec) -> Array:
    """One sample as it arrives at the tier; a stage without an exit has no golden one, and gets zeros."""
    if first.logits is not None:
        return bundle.golden(first.name)[0][:1]
    return np.zeros((1, *first.input.shape), first.input.dtype)


def _run(loaded: Loaded, inputs: Array) -> None:
    """One batch through all stages of the tier."""
    for stage in loaded.model.stages:
        outputs = loaded.engines[loaded.model.digest, stage.name].run(inputs)
        if stage.activation is not None:
            inputs = outputs[stage.activation.name]
