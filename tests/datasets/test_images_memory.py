"""What it takes to decode an image that somebody sends: a constant times its size, or a full HD frame's."""

from __future__ import annotations

from contextlib import suppress
from io import BytesIO
from typing import Any, cast

import numpy as np
import pytest
from peak_memory import asks_linux, resident_bytes
from PIL import Image
from poisons import IMAGE_BOMBS, image_bomb

from branchy.core.cascade import InputSpec, TensorSpec
from branchy.core.messages import EncodedSample
from branchy.datasets import images
from branchy.errors import DatasetError

TIMES, FRAME_BYTES = 96, 26_000_000
SPEC = InputSpec(TensorSpec("sample", (64, 64, 3), "uint8"), 0, 255)
NOISE = np.random.default_rng(0).integers(0, 256, (270, 480, 3), dtype=np.uint8)
SIDEWAYS = Image.Exif()
SIDEWAYS[0x0112] = 6


def encoded(image: Image.Image, fmt: str = "JPEG", **options: Any) -> EncodedSample:
    file = BytesIO()
    image.save(file, fmt, **options)
    return EncodedSample(cast(Any, f"image/{fmt.lower()}"), file.getvalue())


def photograph(width: int, height: int, mode: str = "RGB") -> Image.Image:
    return Image.fromarray(NOISE).resize((width, height)).convert(mode)


def decode(sample: EncodedSample) -> None:
    images.decode_received(sample, SPEC)


def decode_or_refuse(sample: EncodedSample) -> None:
    with suppress(DatasetError):
        decode(sample)


@pytest.fixture(autouse=True)
def pillow_is_loaded() -> None:
    decode(encoded(photograph(8, 8)))
    decode(encoded(photograph(8, 8), "PNG"))


@asks_linux
@pytest.mark.parametrize("name", IMAGE_BOMBS)
def test_a_bomb_takes_no_more_than_a_frame(name):
    kind, body = image_bomb(name)
    assert TIMES * len(body) < FRAME_BYTES
    assert resident_bytes(decode_or_refuse, EncodedSample(cast(Any, kind), body)) < FRAME_BYTES


@pytest.mark.parametrize("name", IMAGE_BOMBS)
def test_a_bomb_is_refused_in_one_line(name):
    kind, body = image_bomb(name)
    with pytest.raises(DatasetError) as caught:
        decode(EncodedSample(cast(Any, kind), body))
    assert "\n" not in str(caught.value)


CAMERAS = {
    "a full HD frame in the dark": lambda: encoded(Image.new("RGB", (1920, 1080))),
    "one with transparency": lambda: encoded(Image.new("RGBA", (1920, 1080)), "PNG"),
    "one by day": lambda: encoded(photograph(1920, 1080), quality=60),
    "12 megapixels, turned": lambda: encoded(photograph(4032, 3024), quality=90, exif=SIDEWAYS),
    "progressive, of four colours": lambda: encoded(
        photograph(2048, 2048, "CMYK"), quality=95, progressive=True, subsampling=0
    ),
}


@asks_linux
@pytest.mark.parametrize("make", CAMERAS.values(), ids=CAMERAS)
def test_what_cameras_send_is_taken_within_96_times_its_size_or_a_frame(make):
    sample = make()
    assert resident_bytes(decode, sample) < max(TIMES * len(sample.data), FRAME_BYTES)


@asks_linux
def test_pixels_that_stay_as_they_are_are_held_once():
    assert resident_bytes(decode, encoded(photograph(3000, 3000), quality=90)) < 5 * 3000 * 3000
