"""What is trained for each of the paper's three tables, and what the paper has in them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from benchmarks.papers import networks
from branchy.models.b_alexnet import b_alexnet
from branchy.models.b_lenet_paper import b_lenet_paper
from branchy.models.b_resnet import b_resnet
from branchy.models.branching import Build
from branchy.runner.recipe import Recipe


@dataclass(frozen=True)
class Phase:
    """One of a seed's trainings: the full net alone, or from its weights all exits together."""

    epochs: int
    learning_rate: float


@dataclass(frozen=True)
class Published:
    """A row of the paper's Table I, on its CPU.

    Attributes:
        full_accuracy: of the network without exits, per cent.
        accuracy: of the network with exits, per cent.
        speedup: the one's time by the other's.
        shares: of the answers at each exit, per cent.
    """

    full_accuracy: float
    accuracy: float
    speedup: float
    shares: tuple[float, ...]


@dataclass(frozen=True)
class Table:
    """One network of the paper, and how it is trained here.

    Attributes:
        dataset: an `.npz` with its own test part.
        topologies: by name, the paper's own first; all have the same network between their exits.
        augment: of `models.augment.AUGMENTATIONS`.
        full: the training of that network alone.
        joint: that of the exits with it.
        published: the paper's row.
    """

    dataset: str
    topologies: Mapping[str, Build]
    augment: tuple[str, ...]
    full: Phase
    joint: Phase
    published: Published

    @property
    def recipe(self) -> Recipe:
        """Of both trainings: the weights of the epoch with the least joint loss, no end before the last."""
        longest = max(self.full.epochs, self.joint.epochs)
        return Recipe(augment=self.augment, schedule="cosine", warmup_epochs=0.5, stop_on="loss", patience=longest)


TABLES = {
    "b-lenet": Table(
        "data/mnist.npz",
        {"b-lenet": b_lenet_paper, "b-lenet-strided": networks.lenet_strided},
        ("shift",),
        Phase(12, 0.002),
        Phase(8, 0.002),
        Published(99.20, 99.25, 5.4, (94.3, 5.63)),
    ),
    "b-alexnet": Table(
        "data/cifar10.npz",
        {"b-alexnet": b_alexnet, "b-alexnet-pool1": networks.alexnet_pool1},
        ("flip", "shift"),
        Phase(8, 0.001),
        Phase(4, 0.001),
        Published(78.38, 79.19, 1.5, (65.6, 25.2, 9.2)),
    ),
    "b-resnet": Table(
        "data/cifar10.npz",
        {"b-resnet": b_resnet},
        ("flip", "shift"),
        Phase(7, 0.003),
        Phase(3, 0.002),
        Published(80.70, 79.17, 1.9, (41.5, 13.8, 44.7)),
    ),
}
