"""A cascade's tiers as processes on this machine, and devices that ask them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from branchy.config import DeviceSettings, LinkSettings
from branchy.core.cascade import CascadeSpec
from branchy.runner.device import Device
from branchy.runner.processes import Child, Processes, branchy
from branchy.store.bundle import Bundle

READY_TIMEOUT_S = 60.0
GRACE_S = 15.0
"""How late after its deadline an answer still counts: the demo shows that none is lost, on a busy machine too."""


def tier_stages(spec: CascadeSpec) -> dict[str, tuple[str, ...]]:
    """The stages of each tier, by its name: a tier ends with the first stage that has an exit."""
    tiers: dict[str, tuple[str, ...]] = {}
    stages: tuple[str, ...] = ()
    for stage in spec.stages:
        stages = (*stages, stage.name)
        if stage.logits is not None:
            tiers[stages[0]], stages = stages, ()
    return tiers


class Stand:
    """Tiers of one bundle between the same brokers, started by `branchy serve`.

    Args:
        bundle: what they run.
        brokers: `HOST:PORT`.
        processes: owns the tiers.
        folder: where their ready files go.
    """

    def __init__(self, bundle: Bundle, brokers: str, processes: Processes, folder: Path) -> None:
        self.bundle = bundle
        self._brokers = brokers
        self._processes = processes
        self._folder = folder
        self._children: dict[str, Child] = {}

    @property
    def tiers(self) -> tuple[str, ...]:
        """The names of the cascade's tiers, the nearest the device first."""
        return tuple(tier_stages(self.bundle.spec))

    def start(self, *tiers: str) -> None:
        """Start tiers, all at once; see `wait_ready`."""
        for tier in tiers:
            self._ready_file(tier).unlink(missing_ok=True)
            stages = tier_stages(self.bundle.spec).get(tier, (tier,))
            command = branchy("serve", "--bundle", self.bundle.path, "--tier", ",".join(stages))
            command += ["--back", self._brokers, "--ready-file", str(self._ready_file(tier))]
            self._children[tier] = self._processes.start(tier, command)

    def wait_ready(self, *tiers: str, on_ready: Callable[[], object] = lambda: None) -> None:
        """Wait until tiers take requests; `on_ready` is called after each.

        Raises:
            BranchyError: one ended, or took too long; with the end of its log.
        """
        for tier in tiers:
            self._processes.wait_for_file(self._children[tier], self._ready_file(tier), READY_TIMEOUT_S)
            on_ready()

    def kill(self, tier: str) -> None:
        """End a tier with SIGKILL."""
        self._processes.kill(self._children[tier])

    def stop(self, tier: str) -> None:
        """Tell a tier to settle what it has and end."""
        self._processes.stop(self._children[tier])

    def device(self, tier: str) -> Device:
        """A device that asks a tier."""
        back = LinkSettings(brokers=self._brokers)
        settings = DeviceSettings(bundle=self.bundle.path, back=back, tier=tier, grace_ms=GRACE_S * 1e3)
        return Device(self.bundle, settings)

    def _ready_file(self, tier: str) -> Path:
        return self._folder / f"{tier}.ready"
