"""A bundle that was loaded: every file of it verified, none of it executed."""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import safetensors

from branchy.core.cascade import Array, CascadeSpec, FormatName, StageSpec
from branchy.errors import BundleError
from branchy.store.manifest import MANIFEST, FileDigest, Manifest, parse

GOLDEN = "golden.safetensors"
MAX_MANIFEST_BYTES = 16 * 1024 * 1024
_SAFE_PATH = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9._-]*(/[A-Za-z0-9_-][A-Za-z0-9._-]*)*")
_WHAT_TO_DO = "copy the bundle again from where it is whole, or train it again"


@dataclass(frozen=True)
class Bundle:
    """A trained cascade on disk.

    Example:
        >>> bundle = Bundle.load(Path("saved_models/digits"))
        >>> bundle.spec.labels[0], bundle.digest[:8]
        ('0', '3f6c1a9e')
    """

    path: Path
    manifest: Manifest

    @classmethod
    def load(cls, path: Path, digest: str | None = None) -> Bundle:
        """Load a bundle and verify the digest and size of every file in it.

        Args:
            path: its directory.
            digest: the one that it must have, in hex digits; None: any.

        Raises:
            BundleError: it is missing, incomplete, changed, of another schema version or digest, or
                names files outside itself; one line that says what to do.
        """
        with _named(path):
            if not path.exists():
                raise BundleError(f"nothing is there; make a bundle with: branchy train DATASET --out {path}")
            if not path.is_dir():
                raise BundleError(f"expected a directory with {MANIFEST}, got a file")
            bundle = cls(path, parse(_read_manifest(path)))
            bundle._verify()
            if digest is not None and digest.lower() != bundle.digest:
                raise BundleError(
                    f"expected digest {digest}, got {bundle.digest}; put the bundle with that digest there"
                )
        return bundle

    @property
    def digest(self) -> str:
        """Which model it is: SHA-256 over the manifest but its times and, through it, every file: 64 hex digits."""
        return self.manifest.digest

    @property
    def spec(self) -> CascadeSpec:
        """The cascade that it holds."""
        return self.manifest.cascade

    def file(self, stage: StageSpec, fmt: FormatName) -> Path:
        """Path of a stage in a format, verified once more, as the bundle may have been replaced since.

        Raises:
            BundleError: the stage is not exported in that format, or the file has changed.
        """
        with _named(self.path):
            if fmt not in stage.files:
                raise BundleError(f"stage {stage.name} has no format {fmt}; it has {', '.join(stage.files) or 'none'}")
            file = stage.files[fmt]
            return self._checked(file.path, FileDigest(file.sha256, file.size_bytes))

    def golden(self, stage_name: str) -> tuple[Array, Array]:
        """Golden inputs of a stage with an exit (or of the full model) and the logits that they gave.

        Returns:
            Inputs (k, *stage.input.shape) of the stage's dtype, and logits (k, classes), float32.

        Raises:
            BundleError: there are none for that stage, or the file has changed.
        """
        with _named(self.path):
            path = self._checked(self.manifest.golden, self.manifest.files[self.manifest.golden])
            try:
                with safetensors.safe_open(path, "numpy") as file:
                    return file.get_tensor(f"{stage_name}.input"), file.get_tensor(f"{stage_name}.logits")
            except safetensors.SafetensorError as error:
                raise BundleError(f"no golden inputs of stage {stage_name}: {error}") from None

    def _verify(self) -> None:
        listed = {MANIFEST}
        for name, digest in self.manifest.all_files():
            listed.add(name)
            self._checked(name, digest)
        if self.manifest.golden not in self.manifest.files:
            raise BundleError(f"{MANIFEST}: golden: expected one of its files, got {self.manifest.golden[:60]!r}")
        for found in _walk(self.path):
            if found not in listed:
                raise BundleError(f"{found} is not listed in {MANIFEST}; move it out of the bundle")

    def _checked(self, name: str, digest: FileDigest) -> Path:
        if not _SAFE_PATH.fullmatch(name):
            raise BundleError(
                f"{MANIFEST}: {name[:80]!r} is not a plain path inside the bundle; do not use this bundle"
            )
        path = self.path / name
        if not path.exists():
            raise BundleError(f"{name} is missing; {_WHAT_TO_DO}")
        if not path.resolve().is_relative_to(self.path.resolve()):
            raise BundleError(f"{name} is a link that leaves the bundle; put the file itself there")
        if not path.is_file():
            raise BundleError(f"{name}: expected a file, got something else; {_WHAT_TO_DO}")
        size = path.stat().st_size
        if size != digest.size_bytes:
            raise BundleError(f"{name}: expected {digest.size_bytes} bytes, got {size}; {_WHAT_TO_DO}")
        if file_digest(path).sha256 != digest.sha256:
            raise BundleError(f"{name} was changed after it was written (its SHA-256 does not match); {_WHAT_TO_DO}")
        return path


@contextmanager
def _named(path: Path) -> Iterator[None]:
    """Put the bundle's path before every error."""
    try:
        yield
    except BundleError as error:
        raise BundleError(f"bundle {path}: {error}") from None
    except OSError as error:
        raise BundleError(f"bundle {path}: cannot be read: {error}") from None


def file_digest(path: Path) -> FileDigest:
    """SHA-256 and size of a file."""
    with path.open("rb") as file:
        return FileDigest(hashlib.file_digest(file, "sha256").hexdigest(), path.stat().st_size)


def _read_manifest(path: Path) -> bytes:
    file = path / MANIFEST
    if not file.is_file():
        raise BundleError(f"{MANIFEST} is missing; is this the directory that branchy train wrote?")
    if file.stat().st_size > MAX_MANIFEST_BYTES:
        raise BundleError(f"{MANIFEST}: expected at most {MAX_MANIFEST_BYTES} bytes, got {file.stat().st_size}")
    return file.read_bytes()


def _walk(root: Path) -> list[str]:
    """Paths of all files under a directory, relative to it; links to directories count as files."""
    found = []
    for folder, folders, files in os.walk(root):
        here = Path(folder)
        links = [name for name in folders if (here / name).is_symlink()]
        found += [(here / name).relative_to(root).as_posix() for name in (*files, *links)]
    return sorted(found)
