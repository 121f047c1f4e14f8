"""Writing a bundle so that a reader sees all of it or nothing."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import safetensors.numpy

from branchy.core.cascade import Array, CascadeSpec, StageSpec
from branchy.core.certificate import Certificate
from branchy.errors import BundleError, UsageError
from branchy.store.bundle import GOLDEN, Bundle, file_digest
from branchy.store.manifest import MANIFEST, SCHEMA_VERSION, Manifest, Split, TrainingInfo, render, seal

Fill = Callable[[Path], CascadeSpec]
"""Writes the stages' files (and any others) into the directory given; names them in the spec it returns."""

Golden = Mapping[str, tuple[Array, Array]]
"""By stage name: inputs (k, *shape) and the logits (k, classes) that they give."""


def check_target(target: Path, *, overwrite: bool = False) -> None:
    """See to it, before the work, that a bundle can be written there; leaves nothing behind.

    Raises:
        UsageError: something is there already that may not be replaced, or the place cannot be written.
    """
    target = target.resolve()
    if target.exists() and not (target.is_dir() and not any(target.iterdir())):
        if not target.is_dir() or not (target / MANIFEST).is_file():
            raise UsageError(f"{target} is there already and is not a bundle; name another place")
        if not overwrite:
            raise UsageError(f"{target} is there already; name another place, or pass --overwrite")
    parent = next(folder for folder in target.parents if folder.exists())
    try:
        tempfile.TemporaryDirectory(prefix=".branchy.", dir=parent).cleanup()
    except OSError as error:
        raise UsageError(f"cannot write to {target}: {error.strerror}; name another place") from None


def write_bundle(
    target: Path,
    fill: Fill,
    *,
    training: TrainingInfo,
    splits: Mapping[str, Split],
    golden: Golden,
    overwrite: bool = False,
) -> Bundle:
    """Write a bundle: into a directory beside the target, verified there, then renamed.

    Args:
        target: the bundle's directory, not there yet, or empty, or (with `overwrite`) a bundle.
        fill: writes the files; the digests and sizes in the spec it returns are measured here.
        training: where the weights came from.
        splits: the parts of the data, by name.
        golden: for every stage with an exit and for the full model.
        overwrite: whether a bundle that is there already is replaced.

    Returns:
        The bundle as a reader loads it.

    Raises:
        UsageError: the target cannot be written (see `check_target`).
        BundleError: the disk is full or the like, or what was filled in does not make a bundle that can be loaded.
    """

    def make(directory: Path) -> None:
        spec = fill(directory)
        _write_golden(directory / GOLDEN, spec, golden)
        _write_manifest(directory, spec, splits, training)

    return _write(target, make, overwrite=overwrite)


def rewrite_bundle(
    bundle: Bundle, target: Path, cascade: CascadeSpec, certificate: Certificate | None, *, overwrite: bool = False
) -> Bundle:
    """Write a bundle with another's files and other settings of its exits; it gets a digest of its own.

    Args:
        bundle: whose files are copied, each verified once more.
        target: see `write_bundle`; with `overwrite` it may be that bundle's own directory.
        cascade: its cascade with other exit settings.
        certificate: what is promised of these settings, if anything.
        overwrite: whether a bundle that is there already is replaced.

    Raises:
        UsageError, BundleError: as `write_bundle`; or a file of the bundle has changed.
    """

    def make(directory: Path) -> None:
        for name, _ in bundle.manifest.all_files():
            (directory / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(bundle.path / name, directory / name)
        manifest = replace(bundle.manifest, cascade=cascade, certificate=certificate)
        (directory / MANIFEST).write_bytes(render(seal(manifest)))

    return _write(target, make, overwrite=overwrite)


def _write(target: Path, make: Callable[[Path], None], *, overwrite: bool) -> Bundle:
    target = target.resolve()
    check_target(target, overwrite=overwrite)
    try:
        _write_beside(target, make)
    except OSError as error:
        raise BundleError(f"cannot write bundle {target}: {error}") from None
    return Bundle.load(target)


def _write_beside(target: Path, make: Callable[[Path], None]) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{target.name}.", suffix=".partial", dir=target.parent) as scratch:
        partial = Path(scratch) / target.name
        partial.mkdir()
        make(partial)
        Bundle.load(partial)
        _sync(partial)
        _swap(partial, target, Path(scratch) / "replaced")


def _swap(partial: Path, target: Path, replaced: Path) -> None:
    """Put the new directory in the target's place; when that fails, the old one is back."""
    try:
        if target.exists():
            target.rename(replaced)
        partial.rename(target)
    finally:
        if replaced.exists() and not target.exists():
            replaced.rename(target)
    _sync_one(target.parent)


def _write_golden(path: Path, spec: CascadeSpec, golden: Golden) -> None:
    tensors: dict[str, np.ndarray] = {}
    for stage in (*spec.stages, spec.full):
        if stage.logits is None:
            continue
        if stage.name not in golden:
            raise BundleError(f"stage {stage.name} has an exit but no golden inputs")
        inputs, logits = golden[stage.name]
        want = (stage.input.shape, np.dtype(stage.input.dtype), (len(inputs), len(spec.labels)))
        if (inputs.shape[1:], inputs.dtype, logits.shape) != want or len(inputs) == 0:
            raise BundleError(f"golden inputs of stage {stage.name}: expected {want}, got {inputs.shape, logits.shape}")
        tensors[f"{stage.name}.input"] = np.ascontiguousarray(inputs)
        tensors[f"{stage.name}.logits"] = np.ascontiguousarray(logits, dtype=np.float32)
    path.write_bytes(safetensors.numpy.save(tensors))  # its own save_file lets nobody else read the file


def _write_manifest(directory: Path, spec: CascadeSpec, splits: Mapping[str, Split], training: TrainingInfo) -> None:
    cascade = replace(
        spec,
        stages=tuple(_measured(directory, stage) for stage in spec.stages),
        full=_measured(directory, spec.full),
    )
    of_stages = {file.path for stage in (*cascade.stages, cascade.full) for file in stage.files.values()}
    others = sorted(p.relative_to(directory).as_posix() for p in directory.rglob("*") if p.is_file())
    manifest = Manifest(
        schema_version=SCHEMA_VERSION,
        digest="",
        checksum="",
        cascade=cascade,
        files={name: file_digest(directory / name) for name in others if name not in of_stages},
        golden=GOLDEN,
        splits=dict(splits),
        training=training,
    )
    (directory / MANIFEST).write_bytes(render(seal(manifest)))


def _measured(directory: Path, stage: StageSpec) -> StageSpec:
    """The stage with the digests and sizes that its files have."""
    files = {}
    for fmt, file in stage.files.items():
        if not (directory / file.path).is_file():
            raise BundleError(f"stage {stage.name}, format {fmt}: {file.path} was not written")
        digest = file_digest(directory / file.path)
        files[fmt] = replace(file, sha256=digest.sha256, size_bytes=digest.size_bytes)
    return replace(stage, files=files)


def _sync(directory: Path) -> None:
    for path in (*directory.rglob("*"), directory):
        _sync_one(path)


def _sync_one(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
