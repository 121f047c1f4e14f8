"""What a tier runs and within which bounds."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from branchy.core.cascade import Array, ExitSettings, StageSpec
from branchy.core.messages import EncodedSample, Request
from branchy.core.wire import check_tensor
from branchy.errors import WireError


@dataclass(frozen=True, slots=True)
class TierModel:
    """What a tier runs of one bundle: its consecutive stages with their exits' settings.

    Attributes:
        digest: of the bundle.
        labels: the classes, in the order of the logits.
        stages: in order.
        exits: by stage its exit's settings.
        certified: whether they run as the bundle's certificate has them.
        behind: whether there is a tier behind, which has a prediction of its own for all that it sends up.
    """

    digest: str
    labels: tuple[str, ...]
    stages: tuple[StageSpec, ...]
    exits: Mapping[str, ExitSettings]
    certified: bool = False
    behind: bool = False

    @property
    def last(self) -> bool:
        """Whether there is nothing further up."""
        return not self.stages[-1].successors

    def first_input(self, request: Request) -> Array | EncodedSample:
        """What a request brings for the first stage.

        Raises:
            WireError: `stage` for another stage; `content-type` for an image where the stage takes no sample;
                else as `check_tensor`.
        """
        first, payload = self.stages[0], request.payload
        if request.stage != first.name:
            raise WireError("stage", f"expected stage {first.name}, got {request.stage[:80]}")
        if not isinstance(payload, EncodedSample):
            return check_tensor(payload, first.inputs[0].tensor, first.input)
        if first.inputs[0].stage is not None:
            raise WireError("content-type", f"stage {first.name} takes no image")
        return payload


@dataclass(frozen=True, slots=True)
class TierLimits:
    """Every bound of a tier.

    Attributes:
        batch_size: most samples in one batch.
        pending: most requests that wait for the front.
        backlog: requests waiting to be computed at which the source is paused; resumed at half. Those that have a
            prediction already are at most half.
        unsettled: deliveries not settled at which the source is paused; resumed at half.
        held_bytes: of bodies and inputs held (waiting, computed or pending, or on their way to the dead
            letters) at which the source is paused; resumed at half. From half on those that have a prediction are
            answered with it.
        way_back_s: kept of each deadline for the answer's own way.
        window_s: sliding window of the breaker.
        probe_s: how often an open breaker lets a request through.
    """

    batch_size: int = 32
    pending: int = 1024
    backlog: int = 2048
    unsettled: int = 8192
    way_back_s: float = 0.010
    window_s: float = 10.0
    probe_s: float = 2.0
    held_bytes: int = 128 * 2**20
