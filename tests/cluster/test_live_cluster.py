"""What `make k8s-test` counts, held against watches as they were seen; it needs no cluster."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from live_cluster import Availability

OLD = {"old-0", "old-1"}


def event(kind: str, uid: str, *, ready: bool = True, grace_s: int | None = None) -> dict[str, Any]:
    """Of a pod `edge-tier-N`, `uid` being SOMETHING-N; `grace_s` is how long it was given to end."""
    meta = {
        "uid": uid,
        "name": f"edge-tier-{uid[-1]}",
        "ownerReferences": [{"kind": "StatefulSet", "name": "edge-tier"}],
    }
    if grace_s is not None:
        meta |= {"deletionTimestamp": "2026-01-01T00:00:00Z", "deletionGracePeriodSeconds": grace_s}
    conditions = [{"type": "Ready", "status": str(ready)}]
    return {"type": kind, "object": {"metadata": meta, "status": {"phase": "Running", "conditions": conditions}}}


def replaced(number: int, *, after: str = "old", by: str = "new") -> list[dict[str, Any]]:
    """A pod is told to end, ends, and another comes."""
    old, new = f"{after}-{number}", f"{by}-{number}"
    return [
        event("MODIFIED", old, grace_s=45),
        event("DELETED", old, grace_s=0),
        event("ADDED", new, ready=False),
        event("MODIFIED", new),
    ]


def least(tmp_path: Path, events: list[dict[str, Any]], now: set[str]) -> int:
    """Of `edge-tier`, two pods of which were there at first."""
    notes = tmp_path / "notes"
    told = [json.dumps(each) for each in [*(event("ADDED", uid) for uid in sorted(OLD)), *events]]
    notes.write_text("\n".join(told[: len(OLD)]))
    seen = Availability(notes, OLD)
    notes.write_text("\n".join(told))
    return seen.lowest(now)["edge-tier"]


def test_pod_by_pod_one_is_away(tmp_path):
    assert least(tmp_path, [*replaced(1), *replaced(0)], {"new-0", "new-1"}) == 1


def test_two_that_are_told_to_end_at_once_are_both_away(tmp_path):
    events = [event("MODIFIED", "old-0", grace_s=45), *replaced(1), event("DELETED", "old-0"), *replaced(0)[2:]]
    assert least(tmp_path, events, {"new-0", "new-1"}) == 0


def test_a_new_one_that_a_controller_ends_while_the_next_is_away_counts_as_away(tmp_path):
    events = [*replaced(1), event("MODIFIED", "old-0", grace_s=45), *replaced(1, after="new", by="newer")]
    events += [event("DELETED", "old-0", grace_s=0), *replaced(0)[2:]]
    assert least(tmp_path, events, {"new-0", "newer-1"}) == 0


@pytest.mark.parametrize("seen_first", [True, False], ids=["modified", "deleted"])
def test_a_new_one_that_a_fake_kubelet_deletes_without_time_to_end_counts_until_the_next_is_there(tmp_path, seen_first):
    cut = [event("MODIFIED", "new-1", grace_s=0)] * seen_first + [event("DELETED", "new-1", grace_s=0)]
    told_to_end, ended, came, ready = replaced(0)
    again = [event("ADDED", "newer-1", ready=False), event("MODIFIED", "newer-1")]
    events = [*replaced(1), told_to_end, *cut, again[0], ended, came, again[1], ready]
    assert least(tmp_path, events, {"new-0", "newer-1"}) == 1
    late = [*events, event("MODIFIED", "newer-1", grace_s=45), event("MODIFIED", "new-0", grace_s=45)]
    late += [event("ADDED", "last-0"), event("ADDED", "last-1")]
    assert least(tmp_path, late, {"last-0", "last-1"}) == 0, "and not for ever"


def test_an_old_one_that_is_deleted_without_time_to_end_is_away(tmp_path):
    events = [event("MODIFIED", "old-0", grace_s=45), event("DELETED", "old-1", grace_s=0), *replaced(1)[2:]]
    events += replaced(0)[1:]
    assert least(tmp_path, events, {"new-0", "new-1"}) == 0
