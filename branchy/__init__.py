"""branchy: early-exit classifiers in tiers, from the edge to the cloud, over Kafka.

`Bundle` (a trained cascade on disk), `Cascade` (inference in this process) and `Device`
(the Kafka client) are loaded when they are first used.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"
__all__ = ["Bundle", "Cascade", "Device", "__version__"]

_HOMES = {"Bundle": "branchy.store.bundle", "Cascade": "branchy.runner.cascade", "Device": "branchy.runner.device"}

if TYPE_CHECKING:
    from branchy.runner.cascade import Cascade
    from branchy.runner.device import Device
    from branchy.store.bundle import Bundle


def __getattr__(name: str) -> Any:
    """Load a public name from its home on first use."""
    if name in _HOMES:
        return getattr(importlib.import_module(_HOMES[name]), name)
    raise AttributeError(f"module 'branchy' has no attribute '{name}'")
