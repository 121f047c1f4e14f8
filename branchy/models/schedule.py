"""The learning rate over a training."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Literal

from branchy.models.backend import keras, tf

ScheduleName = Literal["constant", "cosine", "step"]


@dataclass(frozen=True, slots=True)
class Schedule:
    """How the learning rate goes.

    `constant` stays; `cosine` falls to 0 at the end of the last epoch (Loshchilov and Hutter, 2017);
    `step` is divided by 10 after a half and again after three quarters of the epochs (as He et al.,
    2016). Before that, over `warmup_epochs`, it rises evenly from near 0.

    Attributes:
        name: which.
        learning_rate: the highest.
        epochs: the most that are trained.
        warmup_epochs: how many of them it rises.
    """

    name: ScheduleName
    learning_rate: float
    epochs: int
    warmup_epochs: float = 0.0

    def at(self, progress: Any) -> Any:
        """The learning rate at a moment.

        Args:
            progress: epochs done, a float32 scalar tensor with fractions.

        Returns:
            A float32 scalar tensor, in 0..learning_rate.
        """
        after = tf.maximum(progress - self.warmup_epochs, 0.0) / max(self.epochs - self.warmup_epochs, 1e-9)
        share = tf.constant(1.0)
        if self.name == "cosine":
            share = (1 + tf.cos(math.pi * tf.minimum(after, 1.0))) / 2
        elif self.name == "step":
            share = tf.where(after < 0.5, 1.0, tf.where(after < 0.75, 0.1, 0.01))
        if self.warmup_epochs > 0:
            share *= tf.clip_by_value(progress / self.warmup_epochs, 0.0, 1.0)
        return self.learning_rate * share


class ByStep(keras.optimizers.schedules.LearningRateSchedule):  # type: ignore[misc]  # Keras has no types
    """A `Schedule` as Keras asks for it: by the number of steps done."""

    def __init__(self, schedule: Schedule, steps_per_epoch: int) -> None:
        """Begin.

        Args:
            schedule: by epochs.
            steps_per_epoch: in an epoch.
        """
        self._schedule, self._steps_per_epoch = schedule, steps_per_epoch

    def __call__(self, step: Any) -> Any:
        """The learning rate of a step: that of its middle, which is 0 at neither end.

        Args:
            step: from 0, a scalar tensor of whole numbers.

        Returns:
            A float32 scalar tensor.
        """
        return self._schedule.at((tf.cast(step, tf.float32) + 0.5) / self._steps_per_epoch)

    def get_config(self) -> dict[str, Any]:
        """Its arguments (Keras asks for them)."""
        return {"schedule": self._schedule, "steps_per_epoch": self._steps_per_epoch}
