"""The manifest: what a bundle holds, as frozen records and as `manifest.json`.

The text of `manifest.json` is canonical: what was loaded and rendered again must give the
same bytes. It names two hashes of itself, and as it holds the SHA-256 of every other file,
both cover the whole bundle. The digest says which model it is: what a clock measured is left
out, so that the same training gives the same digest. The checksum says that it is whole.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace

from pydantic import TypeAdapter, ValidationError

from branchy.core.cascade import CascadeSpec, StageSpec
from branchy.core.certificate import Certificate
from branchy.errors import BundleError, UsageError

MANIFEST = "manifest.json"
SCHEMA_VERSION = 5


@dataclass(frozen=True, slots=True)
class FileDigest:
    """SHA-256 (64 hex digits) and size of one file."""

    sha256: str
    size_bytes: int


@dataclass(frozen=True, slots=True)
class Split:
    """One part of the data (train, early-stop, temperature, tune, certify, test).

    Attributes:
        samples: how many.
        sha256: of their numbers in the data set, labels and content.
    """

    samples: int
    sha256: str


@dataclass(frozen=True, slots=True)
class TrainingInfo:
    """Where the weights came from.

    Attributes:
        command: the command line.
        seed: of the weights, the order of the samples and the split.
        dataset: the data set's name.
        branchy_version: that trained it.
        validation_split: share kept out of training, which with the seed gives the parts again; None
            where nothing was trained.
    """

    command: str
    seed: int
    dataset: str
    branchy_version: str
    validation_split: float | None = None


@dataclass(frozen=True, slots=True)
class Manifest:
    """All that is known of a bundle.

    Attributes:
        schema_version: of this record; another one is refused.
        digest: of the whole bundle but for its `compute_ms`, 64 hex digits; what requests name as their model.
        checksum: of the manifest's own text, 64 hex digits.
        cascade: stages, exits and tensors, with each stage's files.
        files: the files that belong to no stage (golden inputs, history, plots), by path.
        golden: path of the golden inputs.
        splits: the parts of the data, by name.
        training: where the weights came from.
        certificate: what is promised of the thresholds, where something is.
    """

    schema_version: int
    digest: str
    checksum: str
    cascade: CascadeSpec
    files: Mapping[str, FileDigest]
    golden: str
    splits: Mapping[str, Split]
    training: TrainingInfo
    certificate: Certificate | None = None

    def all_files(self) -> Iterator[tuple[str, FileDigest]]:
        """Path and digest of every file of the bundle but the manifest itself."""
        yield from self.files.items()
        for stage in (*self.cascade.stages, self.cascade.full):
            for file in stage.files.values():
                yield file.path, FileDigest(file.sha256, file.size_bytes)


_ADAPTER = TypeAdapter(Manifest)


def seal(manifest: Manifest) -> Manifest:
    """The same manifest with the digest and the checksum that it has to name."""
    named = replace(manifest, digest=_digest(manifest))
    return replace(named, checksum=_checksum(named))


def render(manifest: Manifest) -> bytes:
    """The manifest as the text of `manifest.json`.

    Raises:
        BundleError: a value cannot be written as JSON (not finite, or text that is not Unicode).
    """
    try:
        data = _ADAPTER.dump_python(manifest, mode="json", warnings="error")
        return (json.dumps(data, indent=2, ensure_ascii=False, allow_nan=False) + "\n").encode()
    except ValueError as error:
        raise BundleError(f"{MANIFEST} cannot be written: {' '.join(str(error).split())}") from None


def parse(text: bytes) -> Manifest:
    """The manifest from the text of `manifest.json`.

    Raises:
        BundleError: not JSON, of another schema version, a field unknown, missing or of a wrong
            type (named by its path), a threshold out of range, or changed after it was written.
    """
    try:
        data = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise BundleError(f"{MANIFEST}: expected JSON, got something else: {error}") from None
    version = data.get("schema_version") if isinstance(data, dict) else None
    if type(version) is not int or version != SCHEMA_VERSION:
        raise BundleError(
            f"{MANIFEST}: expected schema_version {SCHEMA_VERSION}, got {str(version)[:40]}; "
            "train the bundle again with this version of branchy, or install the version that wrote it"
        )
    try:
        manifest = _ADAPTER.validate_json(text, strict=True, extra="forbid")
        _check_exits(manifest.cascade)
        if manifest.certificate is not None:
            manifest.certificate.check(manifest.cascade)
    except ValidationError as error:
        raise BundleError(_first_line(error)) from None
    except (BundleError, UsageError) as error:
        raise BundleError(f"{MANIFEST}: {error}") from None
    if render(manifest) != text or seal(manifest) != manifest:
        raise BundleError(f"{MANIFEST} was changed after it was written (its checksum does not match)")
    return manifest


def _digest(manifest: Manifest) -> str:
    cascade = manifest.cascade
    untimed = replace(cascade, stages=tuple(_untimed(stage) for stage in cascade.stages), full=_untimed(cascade.full))
    return _checksum(replace(manifest, digest="", cascade=untimed))


def _checksum(manifest: Manifest) -> str:
    return hashlib.sha256(render(replace(manifest, checksum=""))).hexdigest()


def _untimed(stage: StageSpec) -> StageSpec:
    return replace(stage, files={fmt: replace(file, compute_ms=None) for fmt, file in stage.files.items()})


def _check_exits(cascade: CascadeSpec) -> None:
    for stage in (*cascade.stages, cascade.full):
        for fmt, file in stage.files.items():
            if (file.exit is None) != (stage.logits is None):
                raise BundleError(f"stage {stage.name}, format {fmt}: exit settings and logits go together")
            if file.exit is not None:
                try:
                    file.exit.check(len(cascade.labels))
                except UsageError as error:
                    raise BundleError(f"stage {stage.name}, format {fmt}: {error}") from None


def _first_line(error: ValidationError) -> str:
    first, *rest = error.errors(include_url=False)
    path = ".".join(str(part) for part in first["loc"]) or "the whole"
    more = f" (and {len(rest)} more)" if rest else ""
    if first["type"] == "missing":
        return f"{MANIFEST}: {path}: expected a value, found none{more}"
    if first["type"] == "unexpected_keyword_argument":
        return f"{MANIFEST}: {path}: unknown field{more}"
    return f"{MANIFEST}: {path}: {first['msg'].lower()}, got {str(first['input'])[:60]!r}{more}"
