from __future__ import annotations

from io import BytesIO
from pathlib import Path
from typing import Any, Literal, cast

import numpy as np
import pytest
from PIL import Image

from branchy.core.cascade import InputSpec, TensorSpec
from branchy.core.messages import EncodedSample
from branchy.datasets import images
from branchy.errors import DatasetError, MissingExtraError


def _spec(height: int, width: int, order: Literal["L", "RGB"] = "RGB") -> InputSpec:
    channels = 1 if order == "L" else 3
    return InputSpec(TensorSpec("sample", (height, width, channels), "uint8"), 0, 255, channel_order=order)


def _encoded(image: Image.Image, fmt: str = "PNG", **options: object) -> bytes:
    buffer = BytesIO()
    image.save(buffer, fmt, **options)
    return buffer.getvalue()


PIXELS = np.random.default_rng(0).integers(0, 256, (6, 8, 3), dtype=np.uint8)


@pytest.mark.parametrize("fmt", ["PNG", "BMP"])
def test_an_image_of_the_right_size_keeps_its_pixels(fmt: str) -> None:
    decoded = images.decode(_encoded(Image.fromarray(PIXELS), fmt), _spec(6, 8))
    assert decoded.dtype == np.uint8
    assert np.array_equal(decoded, PIXELS)


@pytest.mark.parametrize("mode", ["L", "P", "RGBA", "LA", "1", "CMYK"])
def test_every_mode_becomes_the_channels_asked_for(mode: str) -> None:
    image = Image.fromarray(PIXELS).convert(mode)
    fmt = "JPEG" if mode == "CMYK" else "PNG"
    assert images.decode(_encoded(image, fmt), _spec(6, 8)).shape == (6, 8, 3)
    assert images.decode(_encoded(image, fmt), _spec(6, 8, "L")).shape == (6, 8, 1)


def test_a_camera_held_sideways_is_turned_upright() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # orientation: turn by 90 degrees clockwise to see it upright
    decoded = images.decode(_encoded(Image.fromarray(PIXELS), exif=exif), _spec(8, 6))
    assert np.array_equal(decoded, np.rot90(PIXELS, k=-1))


def test_shrinking_is_antialiased() -> None:
    stripes = np.zeros((64, 64, 3), dtype=np.uint8)
    stripes[:, ::2] = 255
    small = images.decode(_encoded(Image.fromarray(stripes)), _spec(8, 8))
    assert np.abs(small.astype(int) - 127).max() <= 8  # without: 127


def test_the_first_frame_of_a_gif_is_taken() -> None:
    frames = [Image.new("RGB", (4, 4), colour) for colour in ("white", "black")]
    data = _encoded(frames[0], "GIF", save_all=True, append_images=frames[1:])
    assert (images.decode(data, _spec(4, 4)) == 255).all()


@pytest.mark.parametrize(
    "data",
    [b"", b"not an image", _encoded(Image.fromarray(PIXELS))[:60], _encoded(Image.fromarray(PIXELS), "TIFF")],
    ids=["empty", "text", "truncated", "another format"],
)
def test_what_is_no_image_is_refused_in_one_line(data: bytes) -> None:
    with pytest.raises(DatasetError) as caught:
        images.decode(data, _spec(4, 4))
    assert "\n" not in str(caught.value)


def test_a_file_cut_off_is_found_by_the_check(tmp_path: Path) -> None:
    noise = np.random.default_rng(1).integers(0, 256, (200, 200, 3), dtype=np.uint8)
    data = _encoded(Image.fromarray(noise), "JPEG")
    (tmp_path / "whole.jpg").write_bytes(data)
    (tmp_path / "cut.jpg").write_bytes(data[: len(data) * 9 // 10])
    images.check(tmp_path / "whole.jpg")
    with pytest.raises(DatasetError, match="damaged"):
        images.check(tmp_path / "cut.jpg")


def test_too_many_pixels_are_refused_before_they_are_decoded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(images, "MAX_PIXELS", 47)
    with pytest.raises(DatasetError, match="at most 47 pixels, got 8 x 6"):
        images.decode(_encoded(Image.fromarray(PIXELS)), _spec(4, 4))


def _photograph(width: int, height: int) -> Image.Image:
    return Image.fromarray(PIXELS).resize((width, height))


@pytest.mark.parametrize("fmt", ["JPEG", "PNG"])
@pytest.mark.parametrize("mode", ["L", "RGB"])
@pytest.mark.parametrize("turn", range(1, 9))
def test_what_is_sent_gets_the_pixels_that_the_file_has_in_training(fmt: str, mode: str, turn: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = turn
    data = _encoded(_photograph(61, 47).convert(mode), fmt, exif=exif)
    sent = EncodedSample(cast(Any, f"image/{fmt.lower()}"), data)
    assert np.array_equal(images.decode_received(sent, _spec(24, 32)), images.decode(data, _spec(24, 32)))


def test_what_is_sent_may_have_so_many_pixels_a_byte_and_a_users_own_file_more(monkeypatch: pytest.MonkeyPatch) -> None:
    data = _encoded(Image.new("1", (2000, 2000)))
    sent = EncodedSample("image/png", data)
    assert images.decode(data, _spec(4, 4)).shape == (4, 4, 3)
    expected = rf"at most 2073600 pixels in an image of {len(data)} bytes, and sides of at most 16384, got 2000 x 2000$"
    with pytest.raises(DatasetError, match=expected):
        images.decode_received(sent, _spec(4, 4))
    assert images.decode_received(sent, _spec(1000, 1000)).shape == (1000, 1000, 3)  # half as wide and high as it is
    fits = EncodedSample("image/png", data + bytes(2000 * 2000 // 8))
    assert images.decode_received(fits, _spec(4, 4)).shape == (4, 4, 3)
    monkeypatch.setattr(images, "RECEIVED_PIXELS", 2000 * 2000 - 1)
    with pytest.raises(DatasetError, match="at most 3999999 pixels"):
        images.decode_received(fits, _spec(4, 4))


def test_what_is_sent_must_be_what_it_is_said_to_be() -> None:
    with pytest.raises(DatasetError, match="not a readable JPEG image"):
        images.decode_received(EncodedSample("image/jpeg", _encoded(Image.fromarray(PIXELS))), _spec(4, 4))


@pytest.mark.parametrize("dtype", [np.uint8, np.float32])
def test_arrays_are_resized_in_their_own_dtype_and_range(dtype: type[np.generic]) -> None:
    sample = np.full((4, 4, 3), 11, dtype=dtype)
    resized = images.resize(sample, (8, 6))
    assert (resized.shape, resized.dtype) == ((8, 6, 3), dtype)
    assert (resized == 11).all()


def test_without_pillow_the_install_line_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "PIL.Image", None)
    with pytest.raises(MissingExtraError, match=r"branchy\[images\]"):
        images.decode(b"", _spec(4, 4))
