"""All that a training has come to after an epoch, in one file that is there whole or not at all."""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import safetensors.numpy
from safetensors import SafetensorError, safe_open

from branchy.core.cascade import Array
from branchy.errors import TrainingError, UsageError

_ABSENT = "absent"


@dataclass(frozen=True)
class Progress:
    """Where a training stands.

    Attributes:
        tensors: every variable of model and optimiser, and the best weights, by name.
        values: history, epochs done and what early stopping counts; JSON.
    """

    tensors: Mapping[str, Array]
    values: Mapping[str, Any]


@dataclass(frozen=True)
class CheckpointFile:
    """The one checkpoint of a training.

    Attributes:
        path: of the file.
        identity: what makes it this training and no other: options, data, versions, by name.
    """

    path: Path
    identity: Mapping[str, str]

    def write(self, progress: Progress) -> None:
        """Put a checkpoint in the place of the one before, in one step that survives a kill and a power cut.

        Raises:
            TrainingError: the disk is full or the like; the checkpoint before is as it was.
        """
        partial = self.path.with_name(self.path.name + ".partial")
        texts = {"identity": json.dumps(dict(self.identity)), "values": json.dumps(progress.values, allow_nan=False)}
        data = safetensors.numpy.save(dict(progress.tensors), metadata=texts)
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with partial.open("wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            partial.replace(self.path)
            _sync(self.path.parent)
        except OSError as error:
            kept = "the one before is kept" if self.path.exists() else "there is none before it"
            raise TrainingError(f"cannot write checkpoint {self.path}: {error.strerror or error}; {kept}") from None
        finally:  # an interruption, too, leaves nothing half-written
            with contextlib.suppress(OSError):
                partial.unlink(missing_ok=True)

    def read(self) -> Progress | None:
        """What was written last; None where nothing is.

        Raises:
            UsageError: it is of another training; the message says in what they differ.
            TrainingError: it cannot be read.
        """
        if not self.path.exists():
            return None
        try:
            with safe_open(self.path, framework="numpy") as file:
                texts = file.metadata() or {}
                identity, values = json.loads(texts["identity"]), json.loads(texts["values"])
                self._check(identity)
                tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118  (not a dict)
        except (OSError, SafetensorError, KeyError, ValueError) as error:
            raise TrainingError(
                f"{self.path} is not a checkpoint that can be read ({error}); remove it to start anew"
            ) from None
        return Progress(tensors, values)

    def remove(self) -> None:
        """Take it away, and what a kill may have left of one that was being written."""
        self.path.unlink(missing_ok=True)
        self.path.with_name(self.path.name + ".partial").unlink(missing_ok=True)

    def _check(self, identity: Mapping[str, str]) -> None:
        names = [*self.identity, *(name for name in identity if name not in self.identity)]
        for name in names:
            was, now = identity.get(name, _ABSENT), self.identity.get(name, _ABSENT)
            if was != now:
                raise UsageError(
                    f"checkpoint {self.path} is of another training: expected {name} {_short(now)}, got {_short(was)}; "
                    "give what it was begun with, or leave out --resume to start anew"
                )


def _short(text: str) -> str:
    return text if len(text) <= 60 else f"{text[:57]}..."


def _sync(directory: Path) -> None:
    descriptor = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
