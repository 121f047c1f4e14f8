"""How a model shall get its exits and what its cuts shall send, as data; TensorFlow is not needed to say it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from branchy.core.cascade import DType, TensorSpec, Uplink
from branchy.errors import UsageError

LabelMode = Literal["int", "categorical", "binary"]


@dataclass(frozen=True, slots=True)
class Wanted:
    """How a Keras model becomes one with exits.

    Attributes:
        cut: `LAYER[,LAYER...]` or `auto[:N]`; None is `auto`.
        heads: one for all exits or one for each cut (see `branchy.models.heads`); None is `pool-dense`.
        preprocessing: see `branchy.models.preprocessing`; None is what the architecture is known to need.
        label_mode: `binary` takes one output z for two classes as the logits 0 and z. `categorical` is `int`,
            but takes labels that are one-hot rows as well: the cross-entropy of a class index is that of its row.
        freeze_backbone: leave the model's own weights as they are, and train the heads alone.
    """

    cut: str | None = None
    heads: tuple[str, ...] | None = None
    preprocessing: str | None = None
    label_mode: LabelMode = "int"
    freeze_backbone: bool = False


UPLINKS = ("activation", "sample")
"""What a cut can be told to send."""


@dataclass(frozen=True, slots=True)
class Sends:
    """What the cuts shall send.

    Attributes:
        uplinks: of `UPLINKS`, one for every cut or one a cut.
        dtype: what activations travel in; samples keep their own.
    """

    uplinks: tuple[str, ...] = ("activation",)
    dtype: DType = "float16"

    def check(self) -> None:
        """Raise `UsageError` where an uplink is none."""
        wrong = [name for name in self.uplinks if name not in UPLINKS]
        if wrong or not self.uplinks:
            raise UsageError(f"--uplink: expected {' or '.join(UPLINKS)}, got {', '.join(wrong) or 'nothing'}")

    def by_cut(self, cuts: int, sample: TensorSpec) -> tuple[Uplink, ...]:
        """The uplink of each cut; raises `UsageError` for another number of them."""
        self.check()
        if len(self.uplinks) not in (1, cuts):
            raise UsageError(
                f"--uplink: expected one for all or one for each of {cuts} cuts, got {','.join(self.uplinks)}"
            )
        named = self.uplinks * cuts if len(self.uplinks) == 1 else self.uplinks
        return tuple(
            Uplink("sample", sample.dtype) if n == "sample" else Uplink("activation", self.dtype) for n in named
        )
