from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from full_disk import files_of_at_most

from branchy.errors import TrainingError, UsageError
from branchy.models.checkpoint import CheckpointFile, Progress

IDENTITY = {"--seed": "0", "data": "d" * 64}


def _progress(epoch: int) -> Progress:
    tensors = {"a": np.full((2, 3), epoch, np.float32), "state": np.array([epoch, 2**60]), "step": np.array(epoch)}
    return Progress(tensors, {"history": {"loss": [1 / 3] * epoch}, "waited": epoch})


def _same(found: Progress | None, wanted: Progress) -> bool:
    assert found is not None
    assert found.values == wanted.values
    assert set(found.tensors) == set(wanted.tensors)
    return all(
        np.array_equal(found.tensors[name], array) and found.tensors[name].dtype == array.dtype
        for name, array in wanted.tensors.items()
    )


def test_what_is_read_is_what_was_written_last_to_the_bit(tmp_path: Path) -> None:
    file = CheckpointFile(tmp_path / "new" / "b.checkpoint", IDENTITY)
    assert file.read() is None
    for epoch in (1, 2):
        file.write(_progress(epoch))
        assert _same(file.read(), _progress(epoch))
    file.remove()
    assert list(file.path.parent.iterdir()) == []


@pytest.mark.parametrize(
    ("other", "says"),
    [
        ({**IDENTITY, "--seed": "1"}, "expected --seed 1, got 0"),
        ({**IDENTITY, "data": "e" * 64}, "expected data eeee"),
        ({**IDENTITY, "branchy's code": "f"}, "expected branchy's code f, got absent"),
        ({"--seed": "0"}, "expected data absent, got dddd"),
    ],
)
def test_a_checkpoint_of_another_training_is_wrong_use_in_one_line(
    other: dict[str, str], says: str, tmp_path: Path
) -> None:
    path = tmp_path / "b.checkpoint"
    CheckpointFile(path, IDENTITY).write(_progress(1))
    with pytest.raises(UsageError, match=says) as caught:
        CheckpointFile(path, other).read()
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("content", [b"", b"no checkpoint", b"\x10\0\0\0\0\0\0\0{}" + b" " * 14])
def test_a_file_that_is_no_checkpoint_is_said_to_be_none(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "b.checkpoint"
    path.write_bytes(content)
    with pytest.raises(TrainingError, match="is not a checkpoint that can be read") as caught:
        CheckpointFile(path, IDENTITY).read()
    assert "\n" not in str(caught.value)


def test_a_disk_that_is_full_leaves_the_checkpoint_before(tmp_path: Path) -> None:
    file = CheckpointFile(tmp_path / "b.checkpoint", IDENTITY)
    file.write(_progress(1))
    says = r"cannot write checkpoint .*: File too large; the one before is kept"
    with files_of_at_most(10), pytest.raises(TrainingError, match=says):
        file.write(_progress(2))
    assert _same(file.read(), _progress(1))
    assert os.listdir(tmp_path) == ["b.checkpoint"]


def test_ctrl_c_while_a_checkpoint_is_written_leaves_the_one_before(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = CheckpointFile(tmp_path / "b.checkpoint", IDENTITY)
    file.write(_progress(1))

    def interrupted(descriptor: int) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "fsync", interrupted)
    with pytest.raises(KeyboardInterrupt):
        file.write(_progress(2))
    assert _same(file.read(), _progress(1))
    assert os.listdir(tmp_path) == ["b.checkpoint"]


DIES_WRITING = """
import os, signal, sys
from pathlib import Path
import numpy as np
from branchy.models.checkpoint import CheckpointFile, Progress
file = CheckpointFile(Path(sys.argv[1]), {})
file.write(Progress({"a": np.arange(10)}, {"epoch": 1}))
os.fsync = lambda descriptor: os.kill(os.getpid(), signal.SIGKILL)
file.write(Progress({"a": np.arange(20)}, {"epoch": 2}))
"""


def test_a_kill_while_a_checkpoint_is_written_leaves_the_one_before(tmp_path: Path) -> None:
    path = tmp_path / "b.checkpoint"
    done = subprocess.run([sys.executable, "-c", DIES_WRITING, path], check=False)
    assert done.returncode == -signal.SIGKILL
    assert len(list(tmp_path.iterdir())) == 2  # the kill came between
    found = CheckpointFile(path, {}).read()
    assert found is not None
    assert (found.values, len(found.tensors["a"])) == ({"epoch": 1}, 10)
