"""Which samples are for what: the parts of a training, and those that thresholds are tuned and certified with."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from branchy.datasets import Dataset, Part, stratified
from branchy.errors import UsageError
from branchy.store.bundle import Bundle
from branchy.store.manifest import Split

HELD_OUT = {"early-stop": 0.2, "temperature": 0.2, "tune": 0.25, "certify": 0.35}
"""How the validation split is divided."""


def divide(data: Dataset, validation_split: float, seed: int) -> dict[str, Part]:
    """Disjoint parts by name: train, early-stop, temperature, tune, certify and test.

    What certifies is a plain random sample, as a guarantee needs samples that are independent; the
    other parts keep the classes' shares.

    Args:
        data: whose pool is divided.
        validation_split: share of the pool that is not trained on.
        seed: the same gives the same parts.
    """
    pool = data.pool
    rest, certify = _at_random(pool, 1 - validation_split * HELD_OUT["certify"], seed)
    names = [name for name in HELD_OUT if name != "certify"]
    shares = np.array([1 - validation_split, *(validation_split * HELD_OUT[name] for name in names)])
    positions = stratified(rest.labels, list(shares / shares.sum()), seed)
    parts = {name: rest.take(p) for name, p in zip(("train", *names), positions, strict=True)}
    return {**parts, "certify": certify, "test": data.test}


def splits(parts: Mapping[str, Part]) -> dict[str, Split]:
    """What a manifest keeps of parts, by name: they can be told from any other; raises `DatasetError`."""
    return {name: Split(len(part), part.digest()) for name, part in parts.items()}


def tuning_parts(bundle: Bundle, data: Dataset, *, unseen: bool, seed: int) -> tuple[Part, Part]:
    """The samples to choose thresholds by, and others to certify them with; no test sample is among them.

    Args:
        bundle: what is tuned.
        data: its own data set, of which the parts that training left for this are taken; or,
        unseen: any other data, of which no sample was trained on: its whole pool is divided at random.
        seed: of that.

    Raises:
        UsageError: the data set is not as it was at training, or is and was said to be unseen; or it has too
            few samples.
        DatasetError: it cannot be read.
    """
    left = _left_by_training(bundle, data)
    if unseen:
        if left is not None:
            raise UsageError(f"data set {data.name}: the bundle was trained on it; leave --unseen out")
        tune, certify = _at_random(data.pool, HELD_OUT["tune"] / (HELD_OUT["tune"] + HELD_OUT["certify"]), seed)
    elif left is not None:
        tune, certify = left
    else:
        trained_on = bundle.manifest.training.dataset
        raise UsageError(
            f"data set {data.name}: what training kept for this is not in it as it was (it was trained on "
            f"{trained_on}), so what was trained on cannot be left out; if none of its samples were, pass --unseen"
        )
    if len(tune) == 0 or len(certify) == 0:
        raise UsageError(
            f"data set {data.name}: expected samples to tune and to certify with, got {len(tune)} and {len(certify)}; "
            "add samples"
        )
    return tune, certify


def _left_by_training(bundle: Bundle, data: Dataset) -> tuple[Part, Part] | None:
    """The parts that training kept to tune and to certify with; None where this is not the data that it divided."""
    training, known = bundle.manifest.training, bundle.manifest.splits
    if training.validation_split is None:
        return None
    parts = divide(data, training.validation_split, training.seed)
    held_out = {name: parts[name] for name in ("tune", "certify")}
    if any(known.get(name) != split for name, split in splits(held_out).items()):
        return None
    return held_out["tune"], held_out["certify"]


def _at_random(part: Part, share: float, seed: int) -> tuple[Part, Part]:
    """A part in two, drawn without regard to the classes; the first has that share."""
    first, second = stratified(np.zeros(len(part), dtype=np.int64), [share, 1 - share], seed)
    return part.take(first), part.take(second)
