from __future__ import annotations

import json
import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from branchy.core.cascade import ExitSettings, Uplink
from branchy.core.certificate import Certificate, CertifiedThresholds
from branchy.errors import BundleError
from branchy.store.bundle import Bundle
from branchy.store.manifest import MANIFEST, parse, render, seal


def _text(toy: Bundle, change: Callable[[dict[str, Any]], object]) -> bytes:
    data = json.loads((toy.path / MANIFEST).read_text())
    change(data)
    return json.dumps(data).encode()


def test_rendered_and_parsed_is_the_same(toy: Bundle) -> None:
    assert parse(render(toy.manifest)) == toy.manifest


def test_digest_covers_what_the_manifest_says(toy: Bundle) -> None:
    renamed = replace(toy.manifest, cascade=replace(toy.spec, name="other"))
    assert seal(renamed).digest != toy.digest
    assert seal(toy.manifest).digest == toy.digest


def test_digest_leaves_out_what_a_clock_measured_and_the_checksum_does_not(toy: Bundle) -> None:
    edge = toy.spec.stages[0]
    slower = replace(edge, files={fmt: replace(file, compute_ms=7.5) for fmt, file in edge.files.items()})
    full = replace(toy.spec.full, files={f: replace(file, compute_ms=9.0) for f, file in toy.spec.full.files.items()})
    timed = seal(replace(toy.manifest, cascade=replace(toy.spec, stages=(slower, *toy.spec.stages[1:]), full=full)))
    assert timed.digest == toy.digest
    assert timed.checksum != toy.manifest.checksum
    assert parse(render(timed)) == timed


@pytest.mark.parametrize(
    ("change", "line"),
    [
        (lambda d: d["cascade"]["stages"][0].update(speed=1), "cascade.stages.0.speed: unknown field"),
        (lambda d: d["cascade"]["full"].pop("flops"), "cascade.full.flops: expected a value, found none"),
        (
            lambda d: d["cascade"]["stages"][1].update(parameters="30"),
            "cascade.stages.1.parameters: input should be a valid integer, got '30'",
        ),
        (
            lambda d: d["cascade"]["stages"][0]["files"]["litert"]["exit"].update(policy="luck"),
            "cascade.stages.0.files.litert.exit.policy: input should be 'max_prob', 'margin' or 'entropy', got 'luck'",
        ),
        (
            lambda d: d["cascade"]["stages"][0]["files"]["litert"]["exit"].update(threshold=1.2),
            "stage edge, format litert: threshold for policy max_prob must be in 0..1, got 1.2",
        ),
        (
            lambda d: d["cascade"]["stages"][1]["files"]["keras"].update(exit=None),
            "stage cloud, format keras: exit settings and logits go together",
        ),
        (
            lambda d: d["cascade"]["stages"][0].update(successors=[]),
            "stage edge: expected successors ('cloud',), got ()",
        ),
        (lambda d: d.update(schema_version=1), "expected schema_version 5, got 1; train the bundle again"),
        (lambda d: d.update(schema_version=True), "expected schema_version 5, got True"),
        (lambda d: d.pop("schema_version"), "expected schema_version 5, got None"),
        (lambda d: d["cascade"].update(name="mine"), "was changed after it was written"),
        (lambda d: d["cascade"]["full"]["files"]["keras"].update(compute_ms=0.1), "was changed after it was written"),
        (lambda d: d["cascade"]["stages"][0].pop("custom_objects"), "was changed after it was written"),
    ],
)
def test_a_wrong_manifest_is_one_line_that_names_the_place(
    toy: Bundle, change: Callable[[dict[str, Any]], object], line: str
) -> None:
    with pytest.raises(BundleError) as caught:
        parse(_text(toy, change))
    assert line in str(caught.value)
    assert str(caught.value).startswith(MANIFEST)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("text", [b"", b"\xff\xfe", b"weights", b"[" * 100_000, b"[1]", b"null"])
def test_anything_but_a_json_object_is_refused(text: bytes) -> None:
    with pytest.raises(BundleError, match=r"expected JSON|expected schema_version 5, got None"):
        parse(text)


def test_a_value_that_json_has_not_is_refused_before_it_is_written(toy: Bundle) -> None:
    edge = toy.spec.stages[0]
    files = {"litert": replace(edge.files["litert"], exit=ExitSettings(accuracy=math.nan))}
    broken = replace(toy.spec, stages=(replace(edge, files=files), toy.spec.stages[1]))
    with pytest.raises(BundleError, match="cannot be written"):
        render(replace(toy.manifest, cascade=broken))


def _certificate(threshold: float) -> Certificate:
    return Certificate(
        loss="gap",
        guarantee="expected",
        method="conformal",
        alpha=0.01,
        delta=None,
        samples=500,
        dataset="digits",
        data_sha256="0" * 64,
        seed=0,
        formats={"edge": "litert", "cloud": "litert"},
        uplinks={"edge": Uplink()},
        policy="max_prob",
        temperatures={"edge": 1.5, "cloud": 1.0},
        cost="bytes",
        certified=(CertifiedThresholds({"edge": threshold}, -0.001, 17.5),),
    )


def test_a_certificate_comes_back_as_it_was_and_is_covered_by_the_digest(toy: Bundle) -> None:
    certified = seal(replace(toy.manifest, certificate=_certificate(0.9)))
    assert parse(render(certified)) == certified
    assert certified.digest != toy.digest


def test_a_certificate_of_other_thresholds_is_refused(toy: Bundle) -> None:
    certified = seal(replace(toy.manifest, certificate=_certificate(0.8)))
    with pytest.raises(BundleError, match=r"manifest.json: certificate: the bundle's thresholds are not among"):
        parse(render(certified))
