"""What applying would change: objects as they are held against what they would be."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from branchy.cluster.objects import Key, Manifest


class Action(StrEnum):
    """What applying does to one object."""

    CREATE = "create"
    CHANGE = "change"
    REPLACE = "replace"
    REMOVE = "remove"
    KEEP = "unchanged"


@dataclass(frozen=True, slots=True)
class Change:
    """One field that would be another; None where it is not there."""

    path: str
    old: Any
    new: Any

    def __str__(self) -> str:
        return f"{self.path}: {_shown(self.path, self.old)} -> {_shown(self.path, self.new)}"


@dataclass(frozen=True, slots=True)
class Planned:
    """One object, and what applying does to it.

    Attributes:
        key: which.
        action: what is done.
        changes: the fields that differ.
        checked: whether the API server has looked at it; it cannot before its namespace is there.
    """

    key: Key
    action: Action
    changes: tuple[Change, ...] = ()
    checked: bool = True


_BOOKKEEPING = re.compile(
    r"status(\.|$)|metadata\.(managedFields|resourceVersion|generation|creationTimestamp|uid|selfLink)(\.|\[|$)"
)
_SECRET = re.compile(r"password|passwd|token|secret|_options", re.IGNORECASE)


def changes(live: Manifest, applied: Manifest) -> tuple[Change, ...]:
    """The fields that an object has after an apply and had not before, or otherwise; the server's own aside.

    A Secret's values are told as changed, and not shown.
    """
    secret = applied.get("kind") == "Secret"
    found = [each for each in _differences("", live, applied) if not _BOOKKEEPING.match(each.path)]
    if secret:
        found = [Change(c.path, *(None if v is None else "***" for v in (c.old, c.new))) for c in found]
    return tuple(found)


def declared_changes(live: Manifest, manifest: Manifest) -> tuple[Change, ...]:
    """The fields that a manifest names, and that an object has otherwise: where the server cannot be asked to try."""
    return tuple(each for each in changes(live, manifest) if each.new is not None)


def live_choices(manifest: Manifest, live: Manifest) -> Manifest:
    """The object with what others than its overlay say about it: whether a job was started is the user's to say."""
    spec, now = manifest.get("spec") or {}, live.get("spec") or {}
    if manifest["kind"] == "Job" and "suspend" in spec and "suspend" in now:
        return {**manifest, "spec": {**spec, "suspend": now["suspend"]}}
    return manifest


def _differences(path: str, old: Any, new: Any) -> Iterator[Change]:
    if isinstance(old, dict) and isinstance(new, dict):
        for name in sorted(old.keys() | new.keys(), key=str):
            step = str(name) if re.fullmatch(r"[\w-]+", str(name)) else f"[{name}]"
            deeper = f"{path}{'' if not path or step.startswith('[') else '.'}{step}"
            yield from _differences(deeper, old.get(name), new.get(name))
    elif _named(old) and _named(new):
        before, after = ({each["name"]: each for each in items} for items in (old, new))
        for name in [*before, *(name for name in after if name not in before)]:
            yield from _differences(f"{path}[{name}]", before.get(name), after.get(name))
    elif isinstance(old, list) and isinstance(new, list) and len(old) == len(new):
        for index, (one, other) in enumerate(zip(old, new, strict=True)):
            yield from _differences(f"{path}[{index}]", one, other)
    elif old != new:
        yield Change(path, old, new)


def _named(value: Any) -> bool:
    """Whether a list's items are known by name: then one more in front of the others changes none of them."""
    if not isinstance(value, list) or not all(isinstance(each, dict) and "name" in each for each in value):
        return False
    return 0 < len({each["name"] for each in value}) == len(value)


def _shown(path: str, value: Any) -> str:
    if value is None:
        return "(none)"
    if _SECRET.search(path) and not isinstance(value, bool):
        return "***"
    text = json.dumps(value, sort_keys=True)
    if _SECRET.search(text):
        return "(not shown)"
    return text if len(text) <= 60 else f"{text[:57]}..."
