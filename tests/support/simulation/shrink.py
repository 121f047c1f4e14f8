"""The shortest plan that still breaks the same rule (delta debugging, Zeller and Hildebrandt, 2002)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import TypeVar

from simulation.plan import Ask, Fault, Plan

T = TypeVar("T")


def shrink(plan: Plan, breaks: Callable[[Plan], bool]) -> Plan:
    """Drop faults and requests, in halves and then one by one, as long as it still `breaks`."""
    before = None
    while plan != before:
        before = plan
        plan = _shrink_once(plan, breaks)
    return plan


def _shrink_once(plan: Plan, breaks: Callable[[Plan], bool]) -> Plan:
    def breaks_with_faults(faults: tuple[Fault, ...]) -> bool:
        return breaks(replace(plan, faults=faults))

    fewer = replace(plan, faults=_fewest(plan.faults, breaks_with_faults))

    def breaks_with_asks(asks: tuple[Ask, ...]) -> bool:
        return breaks(replace(fewer, asks=asks))

    return replace(fewer, asks=_fewest(plan.asks, breaks_with_asks))


def _fewest(items: tuple[T, ...], breaks: Callable[[tuple[T, ...]], bool]) -> tuple[T, ...]:
    size = len(items)
    while size:
        start = 0
        while start < len(items):
            fewer = items[:start] + items[start + size :]
            if breaks(fewer):
                items = fewer
            else:
                start += size
        size //= 2
    return items
