from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from branchy.core.cascade import Uplink
from branchy.errors import BundleError
from branchy.runner.inspection import describe, text
from branchy.store.bundle import Bundle


def test_what_is_described_is_json_and_names_everything(toy_bundle: Bundle) -> None:
    data = json.loads(json.dumps(describe(toy_bundle), allow_nan=False))
    assert data["digest"] == toy_bundle.digest
    assert [stage["name"] for stage in data["stages"]] == ["edge", "hall", "cloud", "full"]
    edge = data["stages"][0]
    assert edge["uplink"] == {"kind": "activation", "dtype": "float32", "body_bytes": 96}
    assert edge["files"]["litert"]["exit"]["threshold"] == 0.8
    assert data["stages"][2]["uplink"] is None
    assert data["splits"]["train"]["samples"] == 8
    on_disk = sum(path.stat().st_size for path in toy_bundle.path.iterdir() if path.name != "manifest.json")
    assert data["size_bytes"] == on_disk


def test_a_sample_that_goes_up_whole_costs_its_own_bytes(toy_bundle: Bundle) -> None:
    spec = toy_bundle.spec
    edge, hall, cloud = spec.stages
    edge = replace(edge, activation=edge.input, uplink=Uplink("sample", "uint8"))
    hall = replace(hall, inputs=edge.inputs, input=edge.input)
    cascade = replace(spec, stages=(edge, hall, cloud))
    data = describe(replace(toy_bundle, manifest=replace(toy_bundle.manifest, cascade=cascade)))
    assert data["stages"][0]["uplink"]["body_bytes"] == data["input"]["body_bytes"] == 88


def test_the_text_has_a_line_a_stage_and_a_line_a_file(toy_bundle: Bundle) -> None:
    heading, stages, requests, files = text(describe(toy_bundle)).split("\n\n")
    assert toy_bundle.digest in heading
    assert "sample (4, 4, 1) uint8 in 0..16, 88 bytes a request" in heading
    assert [line.split()[0] for line in stages.splitlines()[2:]] == ["edge", "hall", "cloud", "full"]
    assert [line.split()[0] for line in requests.splitlines()[2:]] == ["edge", "device", "device"]
    assert "its JPEG, quality 85, mean of 4" in requests
    lines = files.splitlines()[2:]
    assert len(lines) == 8
    assert "max_prob >= 0.8" in lines[0]
    assert "21.5% to 78.5%" in lines[0]
    assert "no exit" in lines[2]
    assert "always" in lines[4]
    assert "always" in lines[6]


def test_an_exit_that_was_not_measured_shows_no_accuracy(toy_bundle: Bundle) -> None:
    spec = toy_bundle.spec
    edge = spec.stages[0]
    file = edge.files["litert"]
    assert file.exit is not None
    files = {"litert": replace(file, exit=replace(file.exit, accuracy=None, samples=0))}
    cascade = replace(spec, stages=(replace(edge, files=files), *spec.stages[1:]))
    shown = text(describe(replace(toy_bundle, manifest=replace(toy_bundle.manifest, cascade=cascade))))
    (line,) = [line for line in shown.splitlines() if "edge.tflite" in line]
    assert line.split()[-2:] == ["-", "-"]


@pytest.mark.parametrize("name", ["edge.tflite", "full.keras", "manifest.json"])
def test_nothing_is_described_of_a_bundle_that_was_changed(tmp_path: Path, toy_bundle: Bundle, name: str) -> None:
    copy = shutil.copytree(toy_bundle.path, tmp_path / "copy")
    content = bytearray((copy / name).read_bytes())
    content[len(content) // 2] ^= 1
    (copy / name).write_bytes(content)
    with pytest.raises(BundleError, match=name):
        describe(Bundle.load(copy))
