"""Training a bottleneck between stages that stay as they are."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from tqdm import tqdm

from branchy.errors import TrainingError
from branchy.models.backend import keras, tf, translated
from branchy.models.batches import Labelled, samples_in_order, training_batches
from branchy.models.bottleneck import Bottleneck
from branchy.models.splitting import ACTIVATION, LOGITS, StageModel
from branchy.models.training import STEPS_A_CALL

STEPS = 1500
"""Of training, whatever the size of the data set; a bottleneck has few weights."""

LEARNING_RATE = 0.01
"""Of Adam at the start; it falls to 0 along a cosine."""

ERROR_WEIGHT = 10.0
"""Of the activation's error beside the divergence of the exits; less cost accuracy on Fashion-MNIST."""


class Surroundings:
    """What a bottleneck is put between: all stages up to a cut, and those behind it.

    The stages' weights stay. What goes to the stages before a cut is what they will get; stages
    behind hand on their whole activations.

    Args:
        stages: of the whole cascade.
        cut: the position of the stage before it.
    """

    def __init__(self, stages: Sequence[StageModel], cut: int) -> None:
        self._before, self._behind = stages[: cut + 1], stages[cut + 1 :]
        self.stage, self.sample = stages[cut].spec, stages[0].spec.input
        self.exits = tuple(stage.spec.name for stage in self._behind if stage.spec.logits is not None)

    def features(self, samples: Any) -> Any:
        """The activation at the cut.

        Args:
            samples: (batch, *shape) of the data set's dtype.

        Returns:
            (batch, *activation) float32.
        """
        x = samples
        for stage in self._before:
            x = stage.model(x, training=False).get(ACTIVATION, x)  # none where the sample goes on
        return x

    def logits(self, features: Any) -> Any:
        """What the exits behind the cut say.

        Args:
            features: (batch, *activation) float32.

        Returns:
            (exits, batch, classes) float32 logits, in the order of `exits`.
        """
        found, x = [], features
        for stage in self._behind:
            outputs = stage.model(x, training=False)
            if stage.spec.logits is not None:
                found.append(outputs[LOGITS])
            x = outputs.get(ACTIVATION)
        return tf.stack(found)


def fit_bottleneck(
    around: Surroundings, bottleneck: Bottleneck, train: Labelled, *, batch_size: int, seed: int
) -> None:
    """Have the exits behind a cut say through a bottleneck what they say without.

    Minimises the divergence of their classes' probabilities (Hinton et al., 2015) and the squared
    error of the activation, as a share of its squares. No labels are needed. Encoder and decoder are trained
    together between layers that stay, as those of BottleNet++ (Shao and Zhang, 2020); rounding passes the
    gradient on as it is (the straight-through estimator, Bengio et al., 2013).

    Args:
        around: the stages on both sides.
        bottleneck: whose weights are trained.
        train: samples.
        batch_size: samples a step.
        seed: of their order.

    Raises:
        TrainingError: the loss became NaN or infinite, memory ran out, or a sample could not be read.
    """
    optimizer = keras.optimizers.Adam(keras.optimizers.schedules.CosineDecay(LEARNING_RATE, STEPS))
    optimizer.build(bottleneck.weights)

    def steps(batches: Any, count: Any) -> Any:
        loss = tf.constant(0.0)
        for _ in tf.range(count):
            samples, _, _ = next(batches)
            loss = _step(around, bottleneck, optimizer, samples)
        return loss

    run = tf.function(steps)
    batches = training_batches(
        train,
        around.sample,
        batch_size=min(batch_size, len(train)),
        epochs=(0, STEPS),
        seed=seed,
        augment=None,
        class_weights=None,
        whole_batches=True,
    )
    title = f"bottleneck of {bottleneck.size_bytes} bytes after {around.stage.name}"
    under_way = iter(batches)
    with translated("training a bottleneck"), tqdm(total=STEPS, desc=title, unit="step", leave=False) as bar:
        for done in range(0, STEPS, STEPS_A_CALL):
            count = min(STEPS_A_CALL, STEPS - done)
            _check_finite(float(run(under_way, tf.constant(count))), around.stage.name)
            bar.update(count)


def _step(around: Surroundings, bottleneck: Bottleneck, optimizer: Any, samples: Any) -> Any:
    features = around.features(samples)
    teacher = tf.nn.log_softmax(around.logits(features))
    with tf.GradientTape() as tape:
        restored = bottleneck.passed(features)
        student = tf.nn.log_softmax(around.logits(restored))
        apart = tf.reduce_mean(tf.reduce_sum(tf.exp(teacher) * (teacher - student), axis=-1), axis=-1)
        error = tf.reduce_mean(tf.square(restored - features)) / (tf.reduce_mean(tf.square(features)) + 1e-6)
        loss = tf.reduce_sum(apart) + ERROR_WEIGHT * error
    optimizer.apply(tape.gradient(loss, bottleneck.weights), bottleneck.weights)
    return loss


def _check_finite(loss: float, stage: str) -> None:
    if not np.isfinite(loss):
        raise TrainingError(
            f"the loss of the bottleneck after {stage} became {loss}: the activation there has values that are not "
            "finite or very large; train with --uplink activation, or normalise before the cut"
        )


def accuracies(around: Surroundings, bottleneck: Bottleneck | None, part: Labelled) -> dict[str, float]:
    """How right each exit behind a cut is, through a bottleneck or without.

    Args:
        around: the stages on both sides.
        bottleneck: None for the activation as it is.
        part: n samples and their classes.

    Returns:
        By the exit's stage the share of the samples that it classifies right, 0..1.

    Raises:
        TrainingError: memory ran out, or a sample could not be read.
    """

    def classes(samples: Any) -> Any:
        features = around.features(samples)
        return tf.argmax(around.logits(features if bottleneck is None else bottleneck.passed(features)), axis=-1)

    run = tf.function(classes, reduce_retracing=True)
    with translated("measuring a bottleneck"):
        found = np.concatenate([run(x).numpy() for x in samples_in_order(part, around.sample, 64)], axis=1)
    return dict(zip(around.exits, (found == part.labels).mean(axis=1).tolist(), strict=True))
