"""Brokers' disks that an overlay's users cannot log in on, since Kafka's tool writes users only where it formats."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from branchy.cluster.api import STATEFUL_SETS, Api
from branchy.cluster.objects import Manifest, brokers, containers, key


def disks_without_users(api: Api, manifests: Sequence[Manifest]) -> Iterator[str]:
    """Why brokers that are there cannot be changed to ones with users, in a line each; nothing where they can.

    Seen of brokers that run: of a StatefulSet that was deleted, its disks do not tell how they were formatted.
    """
    for wanted in brokers(manifests):
        if not _formats_with_users(wanted):
            continue
        own = key(wanted)
        live = api.get(STATEFUL_SETS, own.namespace, own.name)
        if live is not None and live["spec"].get("volumeClaimTemplates") and not _formats_with_users(live):
            yield (
                f"{own}: its disks were formatted without users (SCRAM), the overlay has some, "
                "and nobody could log in: choose another --namespace, or branchy deploy delete --data first, "
                "which takes the topics too"
            )


def _formats_with_users(manifest: Manifest) -> bool:
    """Whether a broker's disk gets users when it is formatted: by `--add-scram`, or by a file of such flags."""
    words = [word for each in containers(manifest) for part in ("command", "args") for word in each.get(part) or []]
    return any("--add-scram" in word or word.startswith("@") for word in words)
