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
    """One of a seed's trainings: the full net alone, or from its weights all exits together.

    Attributes:
        epochs: over the training part.
        learning_rate: of Adam, the highest.
        augment: of `models.augment.AUGMENTATIONS`.
    """

    epochs: int
    learning_rate: float
    augment: tuple[str, ...] = ()

    @property
    def recipe(self) -> Recipe:
        """The weights of the epoch with the least joint loss; no end before the last epoch."""
        return Recipe(augment=self.augment, schedule="cosine", warmup_epochs=0.5, stop_on="loss", patience=self.epochs)


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
        full: the training of that network alone.
        joint: that of the exits with it.
        published: the paper's row.
    """

    dataset: str
    topologies: Mapping[str, Build]
    full: Phase
    joint: Phase
    published: Published


TABLES = {
    "b-lenet": Table(
        "data/mnist.npz",
        {"b-lenet": b_lenet_paper, "b-lenet-strided": networks.lenet_strided},
        Phase(12, 0.002, ("shift",)),
        Phase(10, 0.002),  # heads of a layer or two learn digits that are moved about less well
        Published(99.20, 99.25, 5.4, (94.3, 5.63)),
    ),
    "b-alexnet": Table(
        "data/cifar10.npz",
        {"b-alexnet": b_alexnet, "b-alexnet-pool1": networks.alexnet_pool1},
        Phase(12, 0.001, ("flip",)),
        Phase(4, 0.001, ("flip",)),
        Published(78.38, 79.19, 1.5, (65.6, 25.2, 9.2)),
    ),
    "b-resnet": Table(
        "data/cifar10.npz",
        {"b-resnet": b_resnet, "b-resnet-groups": networks.resnet_groups},
        Phase(5, 0.003, ("flip", "shift")),  # enough for the accuracy of the paper's full net
        Phase(3, 0.002, ("flip", "shift")),
        Published(80.70, 79.17, 1.9, (41.5, 13.8, 44.7)),
    ),
}
