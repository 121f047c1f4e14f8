"""The ways to deploy an overlay, each with the same verbs: plain kubectl, the scripts beside the manifests, branchy."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from live_cluster import WAIT_S, Cluster


@dataclass(frozen=True, slots=True)
class Way:
    """How an overlay comes to a cluster and goes again.

    Attributes:
        cluster: where to.
        k8s: a copy of deploy/k8s, to which overlays may be added.
    """

    cluster: Cluster
    k8s: Path

    jobs_made_anew = False
    """Whether applying again makes a job again that is there."""
    keeps_disks = True
    """Whether it deletes without the brokers' disks too."""
    keeps_claims = False
    """Whether with those also the claims that an overlay has itself."""

    def apply(self, overlay: str) -> str:
        """Bring it; wait for it where the way does."""
        raise NotImplementedError

    def change(self, overlay: str) -> str:
        """Apply an overlay that differs from what is there."""
        return self.apply(overlay)

    def delete(self, overlay: str, *, data: bool) -> str:
        """Take it away; with `data` all that is left too."""
        raise NotImplementedError

    def said(self, *line: str) -> str:
        """What a command says; `AssertionError` with its words if it fails."""
        done = subprocess.run(line, cwd=self.k8s, capture_output=True, text=True, timeout=4 * WAIT_S)
        assert done.returncode == 0, f"{' '.join(line)}: {done.stdout}{done.stderr}"
        return done.stdout


class Kubectl(Way):
    """`kubectl apply -k`."""

    flags: tuple[str, ...] = ()
    keeps_disks = False

    def apply(self, overlay: str) -> str:
        return self.cluster.run("apply", "-k", str(self.k8s / overlay), "--validate=strict", *self.flags)

    def change(self, overlay: str) -> str:
        for job in self.cluster.listed("-k", str(self.k8s / overlay)):  # which cannot be changed
            if job["kind"] == "Job":
                self.cluster.run("-n", job["metadata"]["namespace"], "delete", "job", job["metadata"]["name"])
        return self.apply(overlay)

    def delete(self, overlay: str, *, data: bool) -> str:
        return self.cluster.run("delete", "-k", str(self.k8s / overlay), "--wait")


class ServerSide(Kubectl):
    """`kubectl apply -k --server-side`."""

    flags = ("--server-side",)


class Scripts(Way):
    """`run.sh` and `delete.sh`."""

    jobs_made_anew = True

    def apply(self, overlay: str) -> str:
        return self.said("sh", "run.sh", overlay.removeprefix("overlays/"))

    def delete(self, overlay: str, *, data: bool) -> str:
        return self.said("sh", "delete.sh", overlay.removeprefix("overlays/"), *["--data"][: int(data)])


class Deploy(Way):
    """`branchy deploy`."""

    keeps_claims = True

    def apply(self, overlay: str) -> str:
        return self._said("apply", overlay, "--timeout", f"{WAIT_S:g}")

    def plan(self, overlay: str) -> str:
        """What `apply` would change."""
        return self._said("plan", overlay)

    def status(self, overlay: str) -> str:
        """How all of it is."""
        return self._said("status", overlay)

    def delete(self, overlay: str, *, data: bool) -> str:
        return self._said("delete", overlay, "--yes", *["--data"][: int(data)])

    def _said(self, verb: str, overlay: str, *flags: str) -> str:
        command = str(Path(sys.executable).parent / "branchy")
        where = ["--context", self.cluster.context, "--overlay", str(self.k8s / overlay)]
        return self.said(command, "deploy", verb, *where, *flags)
