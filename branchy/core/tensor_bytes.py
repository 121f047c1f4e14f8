"""Tensors <-> safetensors. What the library found out about a head once is remembered by the head's bytes.

The tensors of a stage have the same head in every message, and reading and writing it is most of the work. The
library reads each head first, and checks it; a body with a head that is known is as long as that head says, and is
sliced.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple, cast

import numpy as np
import pydantic_core
import safetensors.numpy

from branchy.core.cascade import Array

HEADS_KEPT = 64
"""Heads that are remembered, each way; a stage needs one."""
HEAD_BYTES = 1024
"""Larger heads are not remembered."""


class _Place(NamedTuple):
    name: str
    dtype: np.dtype[Any]
    shape: tuple[int, ...]
    items: int
    start: int


class _Layout(NamedTuple):
    size_bytes: int
    places: tuple[_Place, ...]


_Spec = tuple[tuple[str, np.dtype[Any], tuple[int, ...]], ...]
_known: dict[bytes, _Layout] = {}
_written: dict[_Spec, tuple[bytes, tuple[str, ...]]] = {}


def dump(tensors: Mapping[str, Array]) -> bytes:
    """Tensors by name, in C order, as safetensors."""
    spec = tuple((name, array.dtype, array.shape) for name, array in tensors.items())
    if spec not in _written:
        body = bytes(safetensors.numpy.save(cast(dict[str, Any], dict(tensors))))
        if all(array.dtype.isnative for array in tensors.values()):
            head = body[: _data_start(body)]
            _remember(_written, spec, (head, tuple(place.name for place in _layout(body, tensors).places)), head)
        return body
    head, names = _written[spec]
    return b"".join([head, *(tensors[name].tobytes() for name in names)])


def load(body: bytes) -> dict[str, Array]:
    """Tensors by name; not to be written to.

    Raises:
        safetensors.SafetensorError: it is no safetensors.
        KeyError, ValueError, TypeError, OverflowError, MemoryError: its tensors are none that NumPy can hold.
    """
    head = body[: _data_start(body)]
    layout = _known.get(head)
    if layout is not None and layout.size_bytes == len(body):
        return {
            name: np.frombuffer(body, dtype, items, start).reshape(shape)
            for name, dtype, shape, items, start in layout.places
        }
    tensors: dict[str, Array] = safetensors.numpy.load(body)
    _remember(_known, head, _layout(body, tensors), head)
    return tensors


def _data_start(body: bytes) -> int:
    return 8 + int.from_bytes(body[:8], "little")


def _layout(body: bytes, tensors: Mapping[str, Array]) -> _Layout:
    """Where the tensors are in a body that the library has read, or written; in their order there."""
    start = _data_start(body)
    head: dict[str, Any] = pydantic_core.from_json(body[8:start])
    places = [
        _Place(name, array.dtype, array.shape, array.size, start + head[name]["data_offsets"][0])
        for name, array in tensors.items()
    ]
    return _Layout(len(body), tuple(sorted(places, key=lambda place: place.start)))


def _remember(where: dict[Any, Any], key: Any, value: Any, head: bytes) -> None:
    if len(head) <= HEAD_BYTES:
        if len(where) >= HEADS_KEPT:
            where.clear()
        where[key] = value
