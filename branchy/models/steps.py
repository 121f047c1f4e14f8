"""Training steps: the joint loss of all exits, its gradient, and one update of the weights each."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from branchy.models.backend import keras, tf


@dataclass(frozen=True, slots=True)
class Distillation:
    """The last exit as a teacher of the ones before it (Hinton et al., 2015; Phuong and Lampert, 2019).

    Attributes:
        weight: of the teacher in an early exit's loss, 0..1; the labels have the rest.
        temperature: by which both sides' logits are divided.
    """

    weight: float
    temperature: float = 1.0


@dataclass(frozen=True)
class Totals:
    """Sums over the samples of some steps.

    Attributes:
        samples: how many.
        loss: of the joint loss that was minimised.
        losses: (exits,) of each exit's cross-entropy.
        right: (exits,) samples that each exit classified right.
    """

    samples: float
    loss: float
    losses: NDArray[np.float64]
    right: NDArray[np.float64]

    @classmethod
    def of(cls, sums: NDArray[np.floating[Any]]) -> Totals:
        """From what `Steps` adds up.

        Args:
            sums: (2 + 2 * exits,) samples, loss, losses, right.
        """
        exits = (len(sums) - 2) // 2
        return cls(float(sums[0]), float(sums[1]), sums[2 : 2 + exits].astype(float), sums[2 + exits :].astype(float))

    def plus(self, other: Totals) -> Totals:
        """The sums over both."""
        return Totals(
            self.samples + other.samples, self.loss + other.loss, self.losses + other.losses, self.right + other.right
        )


class Steps:
    """Runs training steps of a model, on as many devices as the strategy has."""

    def __init__(
        self,
        model: Any,
        optimizer: Any,
        exit_weights: Mapping[str, float],
        distillation: Distillation | None,
        strategy: Any,
    ) -> None:
        """Trace nothing yet.

        Args:
            model: from samples to a dict of logits, by exit.
            optimizer: of Keras, built for the model's trainable variables.
            exit_weights: of each exit's loss, in order.
            distillation: where earlier exits learn from the last.
            strategy: of tf.distribute, under which the model was made.
        """
        self._model, self._optimizer, self._strategy = model, optimizer, strategy
        self._exits, self._distillation = list(exit_weights), distillation
        self._weights = tf.constant(list(exit_weights.values()), tf.float32)
        self._run = tf.function(self._many)
        self._predict = tf.function(self._logits)

    def run(self, batches: Any, count: int) -> Totals:
        """Do some steps: of each batch the joint loss of the exits (BranchyNet, 2016), its gradient, an update.

        Args:
            batches: an iterator of samples (k, *shape), class indices (k,) int64 and weights (k,) float32 that
                sum to about 1, as `batches.training_batches` gives; with several devices, of one for each.
            count: how many.

        Returns:
            Sums over their samples.
        """
        return Totals.of(self._run(batches, tf.constant(count)).numpy())

    def logits(self, samples: Any) -> NDArray[np.float32]:
        """What the exits say, as at inference.

        Args:
            samples: (k, *shape) of the data set's dtype.

        Returns:
            (exits, k, classes) logits.
        """
        return np.asarray(self._predict(samples))

    def _logits(self, samples: Any, training: bool = False) -> Any:
        outputs = self._model(samples, training=training)
        return tf.stack([tf.cast(outputs[name], tf.float32) for name in self._exits])

    def _many(self, batches: Any, count: Any) -> Any:
        """All steps in one graph, so that Python is asked once for many."""
        sums = tf.zeros((2 + 2 * len(self._exits),), tf.float32)
        for _ in tf.range(count):
            found = self._strategy.run(self._one, args=next(batches))
            sums += self._strategy.reduce(tf.distribute.ReduceOp.SUM, found, axis=None)
        return sums

    def _one(self, samples: Any, classes: Any, weights: Any) -> Any:
        with tf.GradientTape() as tape:
            logits = self._logits(samples, training=True)
            losses, joint = self._losses(logits, classes)
            # `weights` has the batch's size in it, over all devices; a penalty on weights is there on each.
            penalties = tf.add_n([tf.cast(p, tf.float32) for p in self._model.losses] or [tf.constant(0.0)])
            loss = tf.reduce_sum(weights * joint) + penalties / self._strategy.num_replicas_in_sync
            scaled = self._optimizer.scale_loss(loss)
        variables = self._model.trainable_variables
        self._optimizer.apply(tape.gradient(scaled, variables), variables)
        right = tf.cast(tf.argmax(logits, axis=-1) == classes[None, :], tf.float32)
        size = tf.cast(tf.shape(classes)[0], tf.float32)
        whole = size * self._strategy.num_replicas_in_sync
        return tf.concat([[size, loss * whole], tf.reduce_sum(losses, axis=1), tf.reduce_sum(right, axis=1)], axis=0)

    def _losses(self, logits: Any, classes: Any) -> tuple[Any, Any]:
        """(exits, k) cross-entropy with the labels, and (k,) what is minimised."""
        labels = tf.broadcast_to(classes[None, :], tf.shape(logits)[:2])
        losses = tf.nn.sparse_softmax_cross_entropy_with_logits(labels=labels, logits=logits)
        wanted = losses
        if self._distillation is not None and len(self._exits) > 1:
            share, temperature = self._distillation.weight, self._distillation.temperature
            softened = tf.nn.log_softmax(logits / temperature)
            teacher = tf.stop_gradient(softened[-1:])
            apart = tf.reduce_sum(tf.exp(teacher) * (teacher - softened[:-1]), axis=-1)
            early = (1 - share) * losses[:-1] + share * temperature**2 * apart
            wanted = tf.concat([early, losses[-1:]], axis=0)
        return losses, tf.tensordot(self._weights, wanted, axes=1)


def make_optimizer(learning_rate: Any, *, scaled: bool) -> Any:
    """Adam (Kingma and Ba, 2015).

    Args:
        learning_rate: a number or a schedule of Keras'.
        scaled: whether the loss is scaled, which keeps the small gradients of float16 from becoming 0
            (Micikevicius et al., 2018).
    """
    adam = keras.optimizers.Adam(learning_rate)
    return keras.optimizers.LossScaleOptimizer(adam) if scaled else adam
