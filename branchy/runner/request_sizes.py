"""How many bytes a request has: what each cut sends in each dtype, beside the sample and its JPEG."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import get_args

import numpy as np

from branchy.core import wire
from branchy.core.cascade import Array, DType, InputSpec, StageSpec, TensorSpec
from branchy.core.messages import EncodedSample, Request
from branchy.datasets import images
from branchy.errors import MissingExtraError
from branchy.reports.text import text_table
from branchy.runner.events import Stamper, new_traceparent, uuid7

JPEG_QUALITY = 85
"""At which samples are compressed to compare with: few see a difference to the original."""


@dataclass(frozen=True, slots=True)
class RequestSize:
    """Bytes of a request that carries one thing, before any compression.

    Attributes:
        sender: the stage whose cut sends it, or `device` for what could be sent instead.
        what: for people.
        body_bytes: of the body alone, by the dtype that it may travel in; a mean for JPEGs.
        sent_bytes: headers and body, as it is sent.
    """

    sender: str
    what: str
    body_bytes: Mapping[str, int]
    sent_bytes: int


def body_bytes(tensor: TensorSpec, dtype: DType | None) -> int:
    """Bytes of a request's body that carries one tensor as safetensors, its head among them, before any compression.

    Args:
        tensor: of one sample, without a batch.
        dtype: that it travels in; None is its own.
    """
    return len(wire.encode_tensors({tensor.name: np.zeros(tensor.shape, tensor.dtype)}, dtype))


def request_sizes(
    sample: InputSpec, stages: Sequence[StageSpec], samples: Array | None = None
) -> tuple[RequestSize, ...]:
    """What each cut between tiers sends (after a stage with an exit), then the sample, then its JPEG.

    Args:
        sample: what a device sends.
        stages: those of a cascade.
        samples: (n, *shape) to make JPEGs of; None, or samples that are no images, leaves these out.
    """
    rows = [_of_cut(stage) for stage in stages if stage.successors and stage.logits is not None]
    own = body_bytes(sample.tensor, None)
    added = _header_bytes(stages[0].name, wire.SAFETENSORS)
    rows.append(RequestSize("device", f"sample {sides(sample.tensor.shape)}", {sample.tensor.dtype: own}, own + added))
    jpeg = None if samples is None else _jpeg_bytes(samples)
    if jpeg is not None and samples is not None:
        what = f"its JPEG, quality {JPEG_QUALITY}, mean of {len(samples)}"
        rows.append(RequestSize("device", what, {"uint8": jpeg}, jpeg + _header_bytes(stages[0].name, "image/jpeg")))
    return tuple(rows)


def sizes_table(sizes: Sequence[RequestSize]) -> str:
    """These sizes for a terminal."""
    rows = [
        (
            each.sender,
            each.what,
            *(f"{each.body_bytes[name]:,}" if name in each.body_bytes else "-" for name in get_args(DType)),
            f"{each.sent_bytes:,}",
        )
        for each in sizes
    ]
    return text_table(("sender", "bytes a request: its body in", *get_args(DType), "as sent, with headers"), rows, 2)


def sides(shape: tuple[int, ...]) -> str:
    """A tensor's shape for people."""
    return " x ".join(map(str, shape))


def _of_cut(stage: StageSpec) -> RequestSize:
    tensor, uplink = stage.activation, stage.uplink
    if tensor is None or uplink is None:
        raise ValueError(f"stage {stage.name} has no cut")
    dtypes = get_args(DType) if uplink.kind == "activation" else (uplink.dtype,)
    bodies = {name: body_bytes(tensor, name) for name in dtypes}
    added = _header_bytes(stage.successors[0], wire.SAFETENSORS)
    return RequestSize(stage.name, f"{uplink.kind} {sides(tensor.shape)}", bodies, bodies[uplink.dtype] + added)


def _header_bytes(to: str, content_type: str) -> int:
    """Bytes of the headers of a request to a stage, without those of Kafka's that a transport adds."""
    empty = EncodedSample("image/jpeg", b"")
    request = Request(uuid7(), "0" * 64, to, wire.DEFAULT_BUDGET_MS, empty, new_traceparent())
    headers, _ = wire.encode_request(request, Stamper("/branchy/edge")())
    return sum(len(name) + len(value) for name, value in headers) + len(content_type) - len("image/jpeg")


def _jpeg_bytes(samples: Array) -> int | None:
    """Mean bytes of the samples as JPEGs; None where they are no pixels, or Pillow is not installed."""
    if samples.dtype != np.uint8 or samples.ndim != 4 or samples.shape[-1] not in (1, 3):
        return None
    try:
        return round(float(np.mean([len(images.encode_jpeg(sample, JPEG_QUALITY)) for sample in samples])))
    except MissingExtraError:
        return None
