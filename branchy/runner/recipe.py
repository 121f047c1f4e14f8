"""How a model is trained, beyond batch size, epochs and learning rate: the options, and what is wrong with them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from branchy.errors import UsageError
from branchy.models.augment import AUGMENTATIONS
from branchy.reports.text import listed

SWITCH = ("auto", "on", "off")


@dataclass(frozen=True, slots=True)
class Recipe:
    """How a model is trained.

    Attributes:
        augment: names of `models.augment.AUGMENTATIONS`, done in this order.
        schedule: of the learning rate, after `models.schedule.Schedule`.
        warmup_epochs: epochs over which the learning rate rises to its full size.
        class_weights: `none`, `balanced` (each class gets the same say), or a weight for each class, in the
            order of the labels.
        distill: weight of the last exit as a teacher of the ones before it, and the temperature of
            both (1 unless given); None teaches by the labels alone.
        mixed_precision: `auto` computes in float16 where a GPU is that does so faster.
        stop_on: which epoch's weights are taken: `cascade`, those with which the cascade answers best
            at the thresholds or shares asked for, or `loss`, those with the lowest joint loss.
        patience: epochs in which neither of the two got better before training ends.
    """

    augment: tuple[str, ...] = ()
    schedule: Literal["constant", "cosine", "step"] = "constant"
    warmup_epochs: float = 0.0
    class_weights: Literal["none", "balanced"] | tuple[float, ...] = "none"
    distill: tuple[float, ...] | None = None
    mixed_precision: Literal["auto", "on", "off"] = "auto"
    stop_on: Literal["cascade", "loss"] = "cascade"
    patience: int = 5

    def check(self, epochs: int) -> None:
        """Raise `UsageError` where an option cannot be.

        Args:
            epochs: the most that are trained.
        """
        wrong = [name for name in self.augment if name not in AUGMENTATIONS]
        if wrong or len(set(self.augment)) != len(self.augment):
            raise UsageError(
                f"--augment must be different names of {', '.join(AUGMENTATIONS)}, got {','.join(self.augment)}"
            )
        if not 0 <= self.warmup_epochs <= epochs:
            raise UsageError(
                f"--warmup-epochs must be in 0..{epochs} (--epochs), or the rate never gets to --learning-rate; "
                f"got {self.warmup_epochs:g}"
            )
        if self.patience < 1:
            raise UsageError(f"--patience must be at least 1, got {self.patience}")
        if self.distill is not None:
            self._check_distill(self.distill)

    def check_classes(self, labels: Sequence[str]) -> None:
        """Raise `UsageError` unless there is a usable weight for each of these classes, where weights are given."""
        weights = self.class_weights
        if isinstance(weights, str) or (len(weights) == len(labels) and all(0 < w < math.inf for w in weights)):
            return
        raise UsageError(
            f"--class-weights needs none, balanced, or a number above 0 for each of the {len(labels)} classes "
            f"({listed(labels)}), got {','.join(f'{weight:g}' for weight in weights)}"
        )

    @staticmethod
    def _check_distill(distill: tuple[float, ...]) -> None:
        weight, temperature = (*distill, 1.0)[:2] if distill else (-1.0, 1.0)
        if not (1 <= len(distill) <= 2 and 0 <= weight <= 1 and 0 < temperature < math.inf):
            raise UsageError(
                "--distill must be a weight in 0..1 and, after a comma, a temperature above 0, "
                f"got {','.join(f'{value:g}' for value in distill)}"
            )
