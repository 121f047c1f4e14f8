from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from branchy.core.cascade import StageFile
from branchy.errors import BundleError
from branchy.store.bundle import Bundle
from branchy.store.manifest import MANIFEST, Manifest, render, seal


def _refused(path: Path) -> str:
    with pytest.raises(BundleError) as caught:
        Bundle.load(path)
    assert "\n" not in str(caught.value)
    assert str(path) in str(caught.value)
    return str(caught.value)


def _put(bundle: Bundle, manifest: Manifest) -> None:
    """A manifest whose digest is right, so that only what it says can be wrong."""
    (bundle.path / MANIFEST).write_bytes(render(seal(manifest)))


def _edge_file_at(bundle: Bundle, path: str) -> Manifest:
    edge = bundle.spec.stages[0]
    file: StageFile = replace(edge.files["litert"], path=path)
    stages = (replace(edge, files={**edge.files, "litert": file}), *bundle.spec.stages[1:])
    return replace(bundle.manifest, cascade=replace(bundle.spec, stages=stages))


def test_what_was_written_is_loaded(toy: Bundle) -> None:
    loaded = Bundle.load(toy.path)
    assert loaded == toy
    assert len(loaded.digest) == 64
    assert loaded.file(loaded.spec.stages[0], "litert").read_bytes() == b"weights of edge.tflite"
    assert set(loaded.manifest.files) == {"golden.safetensors", "plots/history.csv"}


def test_golden_inputs_come_back_by_stage(toy: Bundle) -> None:
    inputs, logits = toy.golden("cloud")
    assert (inputs.shape, inputs.dtype, logits.shape) == ((2, 8), np.float32, (2, 3))
    assert toy.golden("edge")[0].dtype == np.uint8
    with pytest.raises(BundleError, match="no golden inputs of stage fog"):
        toy.golden("fog")


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory, write_toy: Callable[..., Bundle]) -> Bundle:
    return write_toy(tmp_path_factory.mktemp("whole") / "digits")


def _all_files(bundle: Bundle) -> list[str]:
    return sorted(p.relative_to(bundle.path).as_posix() for p in bundle.path.rglob("*") if p.is_file())


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(data=st.data())
def test_any_byte_changed_in_any_file_is_found(whole: Bundle, data: st.DataObject) -> None:
    path = whole.path / data.draw(st.sampled_from(_all_files(whole)))
    before = path.read_bytes()
    at = data.draw(st.integers(0, len(before) - 1))
    new = data.draw(st.integers(0, 255).filter(lambda b: b != before[at]))
    try:
        path.write_bytes(before[:at] + bytes([new]) + before[at + 1 :])
        _refused(whole.path)
    finally:
        path.write_bytes(before)
    assert Bundle.load(whole.path) == whole


def test_any_file_missing_cut_or_longer_is_found(toy: Bundle) -> None:
    for name in _all_files(toy):
        path = toy.path / name
        before = path.read_bytes()
        path.unlink()
        assert f"{name} is missing" in _refused(toy.path)
        path.write_bytes(before[:-1])
        assert name in _refused(toy.path)
        path.write_bytes(before + b"\n")
        assert name in _refused(toy.path)
        path.write_bytes(before)
    assert Bundle.load(toy.path) == toy


def test_a_truncated_file_is_named_with_both_sizes(toy: Bundle) -> None:
    (toy.path / "edge.tflite").write_bytes(b"weights")
    assert "edge.tflite: expected 22 bytes, got 7; copy the bundle again" in _refused(toy.path)


def test_a_file_that_is_not_listed_is_refused(toy: Bundle) -> None:
    (toy.path / "plots" / "extra.bin").touch()
    assert "plots/extra.bin is not listed in manifest.json; move it out" in _refused(toy.path)


def test_a_place_that_is_no_bundle_says_what_is_there(tmp_path: Path) -> None:
    assert "branchy train DATASET --out" in _refused(tmp_path / "none")
    (tmp_path / "file").touch()
    assert "expected a directory with manifest.json, got a file" in _refused(tmp_path / "file")
    assert "manifest.json is missing" in _refused(tmp_path)


@pytest.mark.parametrize("path", ["../edge.tflite", "/etc/passwd", "a/../../x", "", ".", "a//b", "c:\\x", "a\0b"])
def test_a_path_that_leaves_the_bundle_is_refused_unread(toy: Bundle, path: str) -> None:
    shutil.copy(toy.path / "edge.tflite", toy.path.parent / "edge.tflite")
    _put(toy, _edge_file_at(toy, path))
    assert "is not a plain path inside the bundle" in _refused(toy.path)


def test_a_link_out_of_the_bundle_is_refused_even_to_the_right_bytes(toy: Bundle) -> None:
    shutil.move(toy.path / "edge.tflite", toy.path.parent / "edge.tflite")
    (toy.path / "edge.tflite").symlink_to(toy.path.parent / "edge.tflite")
    assert "edge.tflite is a link that leaves the bundle" in _refused(toy.path)


def test_a_linked_folder_is_refused(toy: Bundle) -> None:
    (toy.path / "more").symlink_to(toy.path.parent)
    assert "more is not listed" in _refused(toy.path)


def test_a_directory_or_a_pipe_in_place_of_a_file_is_refused(toy: Bundle) -> None:
    (toy.path / "edge.tflite").unlink()
    (toy.path / "edge.tflite").mkdir()
    assert "edge.tflite: expected a file" in _refused(toy.path)
    (toy.path / "edge.tflite").rmdir()
    os.mkfifo(toy.path / "edge.tflite")
    assert "edge.tflite: expected a file" in _refused(toy.path)


def test_golden_inputs_must_be_one_of_the_listed_files(toy: Bundle) -> None:
    _put(toy, replace(toy.manifest, golden="edge.tflite"))
    assert "golden: expected one of its files, got 'edge.tflite'" in _refused(toy.path)


def test_a_file_replaced_after_loading_is_not_handed_out(toy: Bundle) -> None:
    (toy.path / "edge.tflite").write_bytes(b"weightS of edge.tflite")
    with pytest.raises(BundleError, match=r"edge\.tflite was changed"):
        toy.file(toy.spec.stages[0], "litert")


def test_a_format_that_was_not_exported_names_those_that_were(toy: Bundle) -> None:
    with pytest.raises(BundleError, match="stage edge has no format litert-int8; it has keras, litert"):
        toy.file(toy.spec.stages[0], "litert-int8")


def test_a_manifest_too_large_to_be_one_is_not_read(toy: Bundle) -> None:
    with (toy.path / MANIFEST).open("r+b") as file:
        file.truncate(1 << 40)
    assert "expected at most 16777216 bytes" in _refused(toy.path)


def test_digests_are_the_same_in_another_process_and_place(toy: Bundle, tmp_path: Path) -> None:
    copy = shutil.copytree(toy.path, tmp_path / "elsewhere")
    code = "import sys, pathlib; from branchy import Bundle; print(Bundle.load(pathlib.Path(sys.argv[1])).digest)"
    out = subprocess.run([sys.executable, "-c", code, copy], capture_output=True, text=True, check=True)
    assert out.stdout.strip() == toy.digest == json.loads((copy / MANIFEST).read_text())["digest"]
