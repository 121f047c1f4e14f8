"""A seed's trainings: the full net alone, then from its weights every topology with its exits, each kept as a bundle.

The order is that of the paper's own code: the main network first, then main network and exits together.
What is there is not trained again, and what was ended goes on after its last epoch.
"""

from __future__ import annotations

import logging
from pathlib import Path
from time import monotonic
from typing import Any

from benchmarks.papers.networks import without_exits
from benchmarks.papers.tables import Phase, Table
from branchy.core.cascade import Uplink
from branchy.datasets import Dataset, load
from branchy.models import branching, splitting
from branchy.models.backend import keras
from branchy.models.branching import Build
from branchy.models.training import make_deterministic
from branchy.runner.calibration import Thresholds
from branchy.runner.parts import divide
from branchy.runner.training import TrainOptions, fit_and_write

log = logging.getLogger(__name__)

FULL_NET = "full-net"
"""The bundle of the network without exits."""
VALIDATION_SPLIT = 0.1
BATCH_SIZE = 128


def train(table: Table, seed: int, folder: Path) -> None:
    """Train what is not there yet of one seed.

    Args:
        table: which networks.
        seed: of weights, order, augmentation and the division of the data.
        folder: where the seed's bundles are.

    Raises:
        TrainingError: see `models.training.fit`.
    """
    data = load(table.dataset)
    paper = next(iter(table.topologies.values()))
    _train(data, without_exits(paper), table, table.full, seed, folder / FULL_NET, None)
    for name, build in table.topologies.items():
        _train(data, build, table, table.joint, seed, folder / name, folder / FULL_NET)


def _train(
    data: Dataset, build: Build, table: Table, phase: Phase, seed: int, out: Path, begin_with: Path | None
) -> None:
    if out.exists():
        return
    started = monotonic()
    keras.backend.clear_session()
    make_deterministic(seed)
    built = branching.build(build, data.input.tensor.shape, len(data.labels), None)
    network = splitting.split(built, data.input, [Uplink("activation", "float32")] * (len(built.stages) - 1))
    if begin_with is not None:
        take_weights(network.full.model, begin_with)
    options = TrainOptions(
        table.dataset,
        out=out,
        arch=out.name,
        batch_size=BATCH_SIZE,
        epochs=phase.epochs,
        learning_rate=phase.learning_rate,
        seed=seed,
        validation_split=VALIDATION_SPLIT,
        recipe=phase.recipe,
        uplink_dtype="float32",
        resume=True,
        command="python -m benchmarks.papers",
    )
    parts = divide(data, VALIDATION_SPLIT, seed)
    exits = Thresholds(options.policy, 0.8)
    log.info("training %s", out)
    fit_and_write(out.name, network, data, parts, options, exits, out)
    log.info("%s took %.0f s", out, monotonic() - started)


def take_weights(full: Any, bundle: Path) -> None:
    """Give a network the weights of the trained one without exits; both have the same layers in the same order."""
    trained = keras.saving.load_model(bundle / "model.keras", compile=False)
    full.set_weights(trained.get_weights())
