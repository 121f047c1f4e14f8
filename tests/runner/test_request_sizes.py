from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import toy_bundle as toy

from branchy.core.cascade import DType, TensorSpec
from branchy.core.wire import encode_tensors
from branchy.datasets import images
from branchy.errors import MissingExtraError
from branchy.runner.cascade import Cascade
from branchy.runner.request_sizes import JPEG_QUALITY, body_bytes, request_sizes, sizes_table
from branchy.store.bundle import Bundle


@pytest.mark.parametrize("dtype", ["float32", "float16", "uint8"])
def test_bytes_of_a_body_are_those_of_a_real_message(dtype: DType) -> None:
    tensor = TensorSpec("activation", (16, 16, 8))
    values = np.random.default_rng(0).normal(size=tensor.shape).astype(np.float32)
    assert body_bytes(tensor, dtype) == len(encode_tensors({"activation": values}, dtype))


def test_what_is_sent_is_what_a_cascade_counts(toy_bundle: Bundle) -> None:
    """A stage without an exit sends nothing; the digits of the budget may differ."""
    batch = toy.samples(30)
    cut, sample, _ = request_sizes(toy_bundle.spec.input, toy_bundle.spec.stages, batch)
    sent = {answer.hops[0].bytes_up for answer in Cascade(toy_bundle, thresholds=1.0).predict(batch)}
    assert all(cut.sent_bytes == pytest.approx(each, abs=6) for each in sent)
    assert (cut.sender, cut.body_bytes["float32"]) == ("edge", 96)
    assert sample.sent_bytes == pytest.approx(Cascade(toy_bundle).request_bytes(batch[0]), abs=6)
    assert sample.body_bytes == {"uint8": 88}


def test_a_jpeg_is_the_mean_of_the_samples_and_goes_as_an_image(toy_bundle: Bundle) -> None:
    batch = toy.samples(3)
    _, sample, jpeg = request_sizes(toy_bundle.spec.input, toy_bundle.spec.stages, batch)
    sizes = [len(images.encode_jpeg(each, JPEG_QUALITY)) for each in batch]
    assert jpeg.body_bytes == {"uint8": round(sum(sizes) / 3)}
    headers = sample.sent_bytes - sample.body_bytes["uint8"]
    shorter = len("application/vnd.safetensors") - len("image/jpeg")
    assert jpeg.sent_bytes - jpeg.body_bytes["uint8"] == headers - shorter
    assert "mean of 3" in sizes_table([sample, jpeg])


def test_samples_that_are_no_pixels_have_no_jpeg(toy_bundle: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    spec = toy_bundle.spec
    floats = replace(spec.input, tensor=replace(spec.input.tensor, dtype="float32"))
    assert len(request_sizes(floats, spec.stages, np.zeros((2, 4, 4, 1), np.float32))) == 2

    def missing(sample: object, quality: int) -> bytes:
        raise MissingExtraError("reading images", "images")

    monkeypatch.setattr(images, "encode_jpeg", missing)
    assert len(request_sizes(spec.input, spec.stages, toy.samples(2))) == 2
