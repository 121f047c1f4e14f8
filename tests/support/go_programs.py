"""Programs and files that tests need of others' Go modules: built, or fetched, once by Go, which checks what comes.

Go holds every module against its checksum database (https://sum.golang.org), so a version is all that is pinned here.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from branchy.brokers.kafka_home import cache_folder
from branchy.errors import BranchyError

TIMEOUT_S = 300.0


@dataclass(frozen=True, slots=True)
class GoProgram:
    """A program that Go builds.

    Attributes:
        name: as people say it.
        package: what is built, without its version.
        version: one that Debian's Go (1.19) builds, and Go's module proxy knows.
    """

    name: str
    package: str
    version: str

    def find(self, environment: Mapping[str, str], say: Callable[[str], None]) -> Path:
        """The program of an earlier build, else built by Go into the user's cache folder.

        Raises:
            BranchyError: there is no Go, or it could not build it.
        """
        target = cache_folder(environment).parent / f"{self.name.lower()}-{self.version}"
        if target.exists():
            return target
        go = _go(environment, f"no {self.name} here: {target} is not there, and no Go to build it")
        say(f"building {self.name} {self.version} with Go into {target} (once)")
        target.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=target.parent, prefix=f".{target.name}-") as folder:
            words = ["install", f"{self.package}@v{self.version}"]
            _run([go, *words], {**environment, "GOBIN": folder}, f"build {self.name}")
            (built,) = Path(folder).iterdir()  # by Go named after the last part of the package that is no version
            os.replace(built, target)
        return target


TOXIPROXY = GoProgram("Toxiproxy", "github.com/Shopify/toxiproxy/v2/cmd/server", "2.5.0")
KUSTOMIZE = GoProgram("kustomize", "sigs.k8s.io/kustomize/kustomize/v5", "5.0.3")
"""As old as the one in the oldest kubectl that deploy/k8s is for, 1.28."""

KEDA = "github.com/kedacore/keda/v2@v2.21.0"
"""Its module, which has the definitions of its kinds in `config/crd`."""


def fetch_module(module: str, environment: Mapping[str, str]) -> Path:
    """The folder with a module's sources, read-only.

    Args:
        module: with its version, such as `example.org/module@v1.2.3`.
        environment: of Go.

    Raises:
        BranchyError: there is no Go, or it could not fetch it.
    """
    go = _go(environment, f"no Go to fetch {module} with")
    with tempfile.TemporaryDirectory() as folder:  # beside no go.mod that could choose otherwise
        said = _run([go, "mod", "download", "-json", module], environment, f"fetch {module}", folder)
    return Path(json.loads(said)["Dir"])


def _go(environment: Mapping[str, str], without: str) -> str:
    found = shutil.which("go", path=environment.get("PATH"))
    if found is None:
        raise BranchyError(f"{without} (Debian: golang-go)")
    return found


def _run(command: list[str], environment: Mapping[str, str], what: str, folder: str | None = None) -> str:
    try:
        done = subprocess.run(
            command, env=environment, cwd=folder, capture_output=True, text=True, timeout=TIMEOUT_S, check=False
        )
    except subprocess.TimeoutExpired:
        raise BranchyError(f"Go did not {what} within {TIMEOUT_S:g} s") from None
    if done.returncode != 0:
        raise BranchyError(f"Go could not {what}: {(done.stderr.splitlines() or ['it said nothing'])[-1]}")
    return done.stdout
