from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import NoReturn

import numpy as np
import pytest

from branchy.core.cascade import CascadeSpec, override_exits
from branchy.errors import BundleError, UsageError
from branchy.store.bundle import Bundle
from branchy.store.writer import check_target, rewrite_bundle

Write = Callable[..., Bundle]
FillToy = Callable[..., CascadeSpec]


def _tree(path: Path) -> list[str]:
    return sorted(p.relative_to(path).as_posix() for p in path.rglob("*"))


def test_digests_and_sizes_are_those_of_the_files(toy: Bundle) -> None:
    file = toy.spec.stages[0].files["keras"]
    assert file.size_bytes == len(b"weights of edge.keras")
    assert len(file.sha256) == 64


def test_the_same_content_has_the_same_digest_and_other_content_another(
    tmp_path: Path, write_toy: Write, fill_toy: FillToy
) -> None:
    one, two = write_toy(tmp_path / "one"), write_toy(tmp_path / "two")
    other = write_toy(tmp_path / "other", fill=lambda d: fill_toy(d, threshold=0.5))
    assert one.digest == two.digest != other.digest


def test_a_written_bundle_can_be_read_by_others(toy: Bundle) -> None:
    mask = os.umask(0)
    os.umask(mask)
    assert toy.path.stat().st_mode & 0o777 == 0o777 & ~mask
    for path in toy.path.rglob("*"):
        assert path.stat().st_mode & 0o444 == 0o444 & ~mask, path.name


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt])
def test_a_writer_that_fails_leaves_nothing(
    tmp_path: Path, write_toy: Write, fill_toy: FillToy, error: type[BaseException]
) -> None:
    def fail(directory: Path) -> NoReturn:
        fill_toy(directory)
        raise error

    with pytest.raises(error):
        write_toy(tmp_path / "digits", fill=fail)
    assert _tree(tmp_path) == []


def test_a_writer_that_fails_leaves_the_old_bundle(
    tmp_path: Path, write_toy: Write, fill_toy: FillToy, monkeypatch: pytest.MonkeyPatch
) -> None:
    old = write_toy(tmp_path / "digits")
    rename = Path.rename

    def broken(self: Path, target: Path) -> Path:
        if self.parent.suffix == ".partial" and self.name == "digits":
            raise OSError("disk on fire")
        return rename(self, target)

    monkeypatch.setattr(Path, "rename", broken)
    with pytest.raises(BundleError, match=r"cannot write bundle .*: disk on fire"):
        write_toy(tmp_path / "digits", fill=lambda d: fill_toy(d, threshold=0.5), overwrite=True)
    assert Bundle.load(tmp_path / "digits") == old
    assert [p.name for p in tmp_path.iterdir()] == ["digits"]


def test_a_killed_writer_leaves_no_bundle_that_a_reader_could_take(tmp_path: Path, toy: Bundle) -> None:
    code = """
import os, pathlib, sys, time
from branchy.store.bundle import Bundle
from branchy.store.writer import write_bundle

def fill(directory):
    for name in ("edge.keras", "edge.tflite", "cloud.keras", "cloud.tflite", "model.keras", "model.tflite"):
        (directory / name).write_bytes(b"x" * 1000)
    print("filling", flush=True)
    time.sleep(60)

write_bundle(pathlib.Path(sys.argv[1]), fill, training=None, splits={}, golden={}, overwrite=True)
"""
    for target in (tmp_path / "new", toy.path):
        with subprocess.Popen([sys.executable, "-c", code, target], stdout=subprocess.PIPE, text=True) as process:
            assert process.stdout is not None
            assert process.stdout.readline() == "filling\n"
            process.send_signal(signal.SIGKILL)
    assert not (tmp_path / "new").exists()
    assert Bundle.load(toy.path) == toy


def test_an_existing_bundle_is_replaced_only_when_told(tmp_path: Path, write_toy: Write, fill_toy: FillToy) -> None:
    old = write_toy(tmp_path / "digits")
    with pytest.raises(UsageError, match="is there already; name another place, or pass --overwrite"):
        write_toy(tmp_path / "digits")
    new = write_toy(tmp_path / "digits", fill=lambda d: fill_toy(d, threshold=0.5), overwrite=True)
    assert new.digest != old.digest
    assert Bundle.load(tmp_path / "digits") == new
    assert [p.name for p in tmp_path.iterdir()] == ["digits"]


def test_what_is_not_a_bundle_is_never_replaced(tmp_path: Path, write_toy: Write) -> None:
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis" / "chapter1.tex").write_text("years of work")
    (tmp_path / "notes").write_text("more")
    for name in ("thesis", "notes"):
        with pytest.raises(UsageError, match="is not a bundle; name another place"):
            write_toy(tmp_path / name, overwrite=True)
    assert (tmp_path / "thesis" / "chapter1.tex").read_text() == "years of work"


def test_an_empty_directory_is_taken(tmp_path: Path, write_toy: Write) -> None:
    (tmp_path / "digits").mkdir()
    written = write_toy(tmp_path / "digits")
    assert Bundle.load(tmp_path / "digits") == written


def test_a_place_that_cannot_be_written_is_found_before_the_work(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(UsageError, match=r"cannot write to .*file/digits"):
        check_target(tmp_path / "file" / "digits")
    with pytest.raises(UsageError, match="cannot write to /proc/digits"):
        check_target(Path("/proc/digits"))
    check_target(tmp_path / "many" / "new" / "folders")
    assert _tree(tmp_path) == ["file"]


def test_readers_beside_a_writer_see_a_whole_bundle_or_none(
    tmp_path: Path, write_toy: Write, fill_toy: FillToy
) -> None:
    """A reader may find nothing for a moment, or find that its files were swapped; it never loads a mixture."""
    target = tmp_path / "digits"
    known = {write_toy(target).digest}
    done = threading.Event()
    seen: set[str] = set()

    def read() -> None:
        while not done.is_set():
            try:
                seen.add(Bundle.load(target).digest)
            except BundleError:
                continue

    reader = threading.Thread(target=read)
    reader.start()
    try:
        for i in range(30):
            made = write_toy(target, fill=lambda d, i=i: fill_toy(d, threshold=i / 100), overwrite=True)
            known.add(made.digest)
    finally:
        done.set()
        reader.join()
    assert seen
    assert seen <= known


def test_a_stage_file_that_was_not_written_is_named(tmp_path: Path, write_toy: Write, fill_toy: FillToy) -> None:
    def forget(directory: Path) -> CascadeSpec:
        made = fill_toy(directory)
        (directory / "cloud.tflite").unlink()
        return made

    with pytest.raises(BundleError, match=r"stage cloud, format litert: cloud\.tflite was not written"):
        write_toy(tmp_path / "digits", fill=forget)
    assert _tree(tmp_path) == []


@pytest.mark.parametrize(
    ("golden", "line"),
    [
        ({}, "stage edge has an exit but no golden inputs"),
        ({"edge": (np.zeros((2, 4, 4, 1), np.float32), np.zeros((2, 3), np.float32))}, "golden inputs of stage edge"),
        ({"edge": (np.zeros((2, 4, 4), np.uint8), np.zeros((2, 3), np.float32))}, "golden inputs of stage edge"),
        ({"edge": (np.zeros((2, 4, 4, 1), np.uint8), np.zeros((1, 3), np.float32))}, "golden inputs of stage edge"),
        ({"edge": (np.zeros((0, 4, 4, 1), np.uint8), np.zeros((0, 3), np.float32))}, "golden inputs of stage edge"),
    ],
)
def test_golden_inputs_must_fit_their_stage(tmp_path: Path, write_toy: Write, golden: object, line: str) -> None:
    with pytest.raises(BundleError, match=line):
        write_toy(tmp_path / "digits", golden=golden)
    assert _tree(tmp_path) == []


@pytest.mark.parametrize(
    ("name", "threshold", "line"),
    [("a plot.png", 0.9, "'a plot.png' is not a plain path"), ("plot.png", 1.5, "got 1.5")],
)
def test_what_a_reader_would_refuse_is_never_put_in_place(
    tmp_path: Path, write_toy: Write, fill_toy: FillToy, name: str, threshold: float, line: str
) -> None:
    old = write_toy(tmp_path / "digits")

    def fill(directory: Path) -> CascadeSpec:
        made = fill_toy(directory, threshold)
        (directory / name).touch()
        return made

    with pytest.raises(BundleError, match=line):
        write_toy(tmp_path / "digits", fill=fill, overwrite=True)
    assert Bundle.load(tmp_path / "digits") == old
    assert [path.name for path in tmp_path.iterdir()] == ["digits"]


# --- another bundle's files with other settings ----------------------------------------------------------------------


def _changed(bundle: Bundle, threshold: float) -> CascadeSpec:
    return override_exits(bundle.spec, "litert", policy=None, thresholds={"edge": threshold})


def test_a_rewritten_bundle_has_the_same_files_and_a_digest_of_its_own(toy: Bundle, tmp_path: Path) -> None:
    new = rewrite_bundle(toy, tmp_path / "new", _changed(toy, 0.5), None)
    assert Bundle.load(new.path).spec.stage("edge").files["litert"].exit.threshold == 0.5
    assert dict(new.manifest.all_files()) == dict(toy.manifest.all_files())
    assert new.digest != toy.digest
    assert Bundle.load(toy.path).digest == toy.digest


def test_a_bundle_can_be_rewritten_in_its_place(toy: Bundle) -> None:
    with pytest.raises(UsageError, match="is there already"):
        rewrite_bundle(toy, toy.path, _changed(toy, 0.5), None)
    new = rewrite_bundle(toy, toy.path, _changed(toy, 0.5), None, overwrite=True)
    assert Bundle.load(toy.path).digest == new.digest != toy.digest


def test_a_bundle_that_was_changed_meanwhile_is_not_copied(toy: Bundle, tmp_path: Path) -> None:
    (toy.path / "edge.tflite").write_bytes(b"other weights")
    with pytest.raises(BundleError, match=r"edge\.tflite"):
        rewrite_bundle(toy, tmp_path / "new", _changed(toy, 0.5), None)
    assert not (tmp_path / "new").exists()
