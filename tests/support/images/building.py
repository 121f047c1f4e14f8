"""The images of dockerfiles/, built by buildah on a bare Debian that debootstrap makes."""

from __future__ import annotations

import ast
import json
import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from deployment import DOCKERFILES, ROOT

import branchy
from branchy.errors import BranchyError, UsageError

SUITE = "bookworm"
BASE = f"localhost/branchy-base:{SUITE}"
PACKAGES = ("ca-certificates", "python3", "python3-pip", "python3-venv")
NEEDED = {"buildah": "buildah", "debootstrap": "debootstrap", "unshare": "util-linux", "tar": "tar"}
"""By program, Debian's package of it."""

PIP_SETTINGS = ("cert", "extra-index-url", "index-url", "proxy", "timeout", "trusted-host")
"""What of pip's configuration says how the package index is reached; `cert` is a file's path."""

TIMEOUT_S = 1800.0


@dataclass(frozen=True)
class Image:
    """An image that was built, as a folder.

    Attributes:
        name: its Dockerfile's, such as `edge`.
        root: its file system.
        config: what it says of itself, by the keys of Docker's format.
        over_base_bytes: how much larger its files are than its base's.
        build_s: how long the build took.
    """

    name: str
    root: Path
    config: dict[str, Any]
    over_base_bytes: int
    build_s: float


def check_machine() -> None:
    """Raise what is missing here for building images, in one line.

    Raises:
        UsageError: nobody but root may, or a program is missing.
    """
    lacking = [package for program, package in NEEDED.items() if shutil.which(program) is None]
    if lacking:
        raise UsageError(f"make images: these are not installed: {', '.join(lacking)} (Debian's names of the packages)")
    if os.geteuid() != 0:
        raise UsageError("make images: expected to be root, which mounts and debootstrap take; run it with sudo")


def make_base() -> None:
    """Make the base image unless it is there: Debian with Python and pip, nothing more."""
    if run("buildah", "images", "--filter", f"reference={BASE}", "--quiet").strip():
        return
    with tempfile.TemporaryDirectory(prefix="branchy-base-") as folder:
        tree, packed = Path(folder, "tree"), Path(folder, "tree.tar")
        run("debootstrap", "--variant=minbase", f"--include={','.join(PACKAGES)}", SUITE, str(tree))
        left_out = ("./var/cache/apt/*", "./var/lib/apt/lists/*", "./dev/*")
        run("tar", "-C", str(tree), *(f"--exclude={each}" for each in left_out), "-cf", str(packed), ".")
        with _container("scratch") as container:
            run("buildah", "add", "--quiet", container, str(packed), "/")
            run("buildah", "commit", "--quiet", container, BASE)


@contextmanager
def built(name: str, pip: Sequence[str], bundle: str | None = None) -> Iterator[Image]:
    """Build an image, tagged `branchy-NAME:VERSION`, and have its file system mounted while this lasts.

    Args:
        name: its Dockerfile's.
        pip: the flags that `pip_flags` gave.
        bundle: the bundle's folder, from the repository's root.

    Raises:
        BranchyError: the build failed; with its last line.
    """
    tag, dockerfile = f"localhost/branchy-{name}:{branchy.__version__}", DOCKERFILES / f"{name}.Dockerfile"
    revision = run("git", "-C", str(ROOT), "rev-parse", "HEAD").strip()
    words = {"BASE": BASE, "VERSION": branchy.__version__, "REVISION": revision, "BUNDLE": bundle}
    arguments = [f"--build-arg={key}={value}" for key, value in words.items() if value is not None]
    how = ("--isolation", "chroot", "--format", "docker", "--pull-never", "--no-cache")
    started = time.monotonic()
    run("buildah", "bud", *how, *pip, *arguments, "--file", str(dockerfile), "--tag", tag, str(ROOT))
    build_s = time.monotonic() - started
    config = json.loads(run("buildah", "inspect", "--type", "image", tag))["Docker"]["config"]
    with _mounted(BASE) as base, _mounted(tag) as root:
        yield Image(name, root, config, _size_bytes(root) - _size_bytes(base), build_s)


def pip_flags(listed: str, folder: Path) -> list[str]:
    """The flags of buildah that let pip in a build reach the package index as pip here does.

    They are a secret, which no image keeps, and the certificates that it names, mounted.

    Args:
        listed: what `pip config list` prints.
        folder: where the secret is written, readable by this user alone.
    """
    found = {}
    for line in listed.splitlines():
        key, _, value = line.partition("=")
        name = key.rpartition(".")[2]
        if name in PIP_SETTINGS:  # of two, the later is the stronger
            found[name] = str(ast.literal_eval(value)).replace("\n", "\n ")
    secret = folder / "pip.conf"
    secret.touch(mode=0o600)
    secret.write_text("[global]\n" + "".join(f"{name} = {value}\n" for name, value in found.items()), encoding="utf-8")
    certificates = found.get("cert")
    mount = [f"--volume={certificates}:{certificates}:ro"] if certificates else []
    return [f"--secret=id=pip,src={secret}", *mount]


def run(*command: str) -> str:
    """Run a program and return what it prints.

    Raises:
        BranchyError: it failed or took too long; with its last line.
    """
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=TIMEOUT_S, check=False)
    except subprocess.TimeoutExpired:
        raise BranchyError(f"{' '.join(command[:2])} did not end within {TIMEOUT_S:g} s") from None
    if done.returncode != 0:
        last = [line for line in (done.stdout + done.stderr).splitlines() if line.strip()][-3:]
        raise BranchyError(f"{' '.join(command[:2])} failed: {' | '.join(last) or 'it said nothing'}")
    return done.stdout


@contextmanager
def _container(image: str) -> Iterator[str]:
    container = run("buildah", "from", "--pull-never", image).strip()
    try:
        yield container
    finally:
        run("buildah", "rm", container)


@contextmanager
def _mounted(image: str) -> Iterator[Path]:
    with _container(image) as container:
        yield Path(run("buildah", "mount", container).strip())


def _size_bytes(root: Path) -> int:
    """What its files take, one with several names counted once."""
    sizes = {}
    for folder, _, names in os.walk(root):
        for name in names:
            found = os.lstat(os.path.join(folder, name))
            sizes[found.st_dev, found.st_ino] = found.st_size
    return sum(sizes.values())
