"""What a tier makes several of for each request."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TypeVar, dataclass_transform

T = TypeVar("T")


@dataclass_transform(frozen_default=True, field_specifiers=(field,))
def record(kind: type[T]) -> type[T]:
    """A dataclass with slots that nobody changes once it is made: the type checker holds that.

    A frozen dataclass holds it at run time too, and takes three times as long to make; a tier spent a sixth of its own
    time on that.
    """
    return dataclass(slots=True, unsafe_hash=True)(kind)  # safe, as nobody changes it
