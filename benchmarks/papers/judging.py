"""How right a seed's networks are: thresholds by the rules of `choosing`, then the test part, which is read once."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from benchmarks.papers import choosing
from benchmarks.papers.tables import Table
from benchmarks.papers.training import FULL_NET, VALIDATION_SPLIT
from branchy.core.tuning import ExitOutputs
from branchy.datasets import Part, load
from branchy.runner.measuring import exit_costs, measure
from branchy.runner.parts import divide
from branchy.store.bundle import Bundle


@dataclass(frozen=True)
class Row:
    """What a rule has come to for one topology and seed.

    Attributes:
        thresholds: by stage, of the exits before the last.
        accuracy: share of the test part.
        shares: of the test part that leave at each exit, by stage.
    """

    thresholds: Mapping[str, float]
    accuracy: float
    shares: Mapping[str, float]


@dataclass(frozen=True)
class Judged:
    """One topology of one seed, in shares of the test part.

    Attributes:
        full: our network without exits, of the same seed.
        exits: each exit, were it to answer all, by stage.
        rows: by rule.
    """

    full: float
    exits: Mapping[str, float]
    rows: Mapping[str, Row]


def judge(table: Table, seed: int, folder: Path) -> dict[str, Judged]:
    """Choose thresholds and read the test part, for every topology.

    What chooses are the parts `tune` and `certify` together, as nothing is certified here; temperatures are those
    of training, fitted on a part of their own. Costs are floating point operations, so that the choice is the same
    on every machine.

    Args:
        table: which networks.
        seed: of the division of the data.
        folder: with the seed's bundles.
    """
    parts = divide(load(table.dataset), VALIDATION_SPLIT, seed)
    tune = _joined(parts["tune"], parts["certify"])
    full = Bundle.load(folder / FULL_NET)
    least = choosing.least_accuracies(_accuracy_of_full(full, tune), table.published)
    bundles = {name: Bundle.load(folder / name) for name in table.topologies}
    chosen = {name: _chosen(bundle, tune, least) for name, bundle in bundles.items()}
    right = _accuracy_of_full(full, parts["test"])
    return {name: _judged(bundle, parts["test"], right, chosen[name]) for name, bundle in bundles.items()}


def _chosen(bundle: Bundle, tune: Part, least: Mapping[str, float]) -> dict[str, tuple[float, ...]]:
    outputs, costs = _outputs(bundle, tune), exit_costs(bundle.spec, "flops")
    return {rule: choosing.cheapest(outputs, costs, accuracy) for rule, accuracy in least.items()}


def _judged(bundle: Bundle, test: Part, full: float, chosen: Mapping[str, tuple[float, ...]]) -> Judged:
    outputs = _outputs(bundle, test)
    exits = 1 - outputs.losses("error").mean(axis=1)
    rows = {
        rule: Row(
            dict(zip(outputs.names[:-1], thresholds, strict=False)),
            choosing.accuracy(outputs, thresholds),
            dict(zip(outputs.names, choosing.shares(outputs, thresholds), strict=True)),
        )
        for rule, thresholds in chosen.items()
    }
    return Judged(full, dict(zip(outputs.names, exits.tolist(), strict=True)), rows)


def _outputs(bundle: Bundle, part: Part) -> ExitOutputs:
    return measure(bundle, [part], "litert", 1, None)[0].outputs


def _accuracy_of_full(bundle: Bundle, part: Part) -> float:
    """Of a bundle of one stage, which is the full net."""
    outputs = _outputs(bundle, part)
    return float((outputs.full == outputs.labels).mean())


def _joined(first: Part, second: Part) -> Part:
    indices, labels = ([getattr(part, name) for part in (first, second)] for name in ("indices", "labels"))
    return Part(first.samples, np.concatenate(indices), np.concatenate(labels))
