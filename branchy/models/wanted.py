"""How a plain Keras model shall become one with exits, as data; TensorFlow is not needed to say it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

LabelMode = Literal["int", "categorical", "binary"]


@dataclass(frozen=True, slots=True)
class Wanted:
    """How a Keras model becomes one with exits.

    Attributes:
        cut: `LAYER[,LAYER...]` or `auto[:N]`; None is `auto`.
        heads: one for all exits or one for each cut (see `branchy.models.heads`); None is `pool-dense`.
        preprocessing: see `branchy.models.preprocessing`; None is what the architecture is known to need.
        label_mode: `binary` takes one output z for two classes as the logits 0 and z. `int` and `categorical`
            are one thing here: the cross-entropy of a class index is that of its one-hot row.
        freeze_backbone: leave the model's own weights as they are, and train the heads alone.
    """

    cut: str | None = None
    heads: tuple[str, ...] | None = None
    preprocessing: str | None = None
    label_mode: LabelMode = "int"
    freeze_backbone: bool = False
