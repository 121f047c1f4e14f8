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


UPLINKS = ("activation", "bottleneck", "sample", "auto")
"""What a cut can be told to send."""

SEARCHED = ("bottleneck", "auto")
"""Of these training finds out what exactly they are; until then the cut sends its activation."""


@dataclass(frozen=True, slots=True)
class Sends:
    """What the cuts shall send.

    Attributes:
        uplinks: of `UPLINKS`, one for every cut or one a cut.
        dtype: what activations travel in; samples keep their own.
        most_bytes: of the body that a `bottleneck` sends; None: of the sample's or the activation's, whichever
            is smaller.
        most_lost: per cent of the samples that any exit may classify right less often by the bottlenecks at a
            cut and those before than by the activations. `auto` keeps to it; a `bottleneck` that cannot
            within its bytes is taken with a warning.
    """

    uplinks: tuple[str, ...] = ("activation",)
    dtype: DType = "float16"
    most_bytes: int | None = None
    most_lost: float = 1.0

    def check(self) -> None:
        """Raise `UsageError` where an uplink is none, or a budget cannot be."""
        wrong = [name for name in self.uplinks if name not in UPLINKS]
        if wrong or not self.uplinks:
            raise UsageError(f"--uplink: expected {', '.join(UPLINKS)}, got {', '.join(wrong) or 'nothing'}")
        if self.most_bytes is not None and (self.most_bytes < 1 or "bottleneck" not in self.uplinks):
            raise UsageError(
                f"--uplink-bytes must be above 0, and goes with --uplink bottleneck, got {self.most_bytes}"
            )
        if not 0 <= self.most_lost <= 100:
            raise UsageError(f"--uplink-accuracy must be in 0..100 points, got {self.most_lost:g}")

    def named(self, cuts: int) -> tuple[str, ...]:
        """What is wanted of each cut; raises `UsageError` for another number of them."""
        self.check()
        if len(self.uplinks) not in (1, cuts):
            raise UsageError(
                f"--uplink: expected one for all or one for each of {cuts} cuts, got {','.join(self.uplinks)}"
            )
        return self.uplinks * cuts if len(self.uplinks) == 1 else self.uplinks

    def by_cut(self, cuts: int, sample: TensorSpec) -> tuple[Uplink, ...]:
        """The uplink of each cut before anything is searched for; raises `UsageError` as `named`."""
        return tuple(self.uplink(name, sample) for name in self.named(cuts))

    def uplink(self, name: str, sample: TensorSpec) -> Uplink:
        """The uplink of that name, until a bottleneck is found."""
        return Uplink("sample", sample.dtype) if name == "sample" else Uplink("activation", self.dtype)
