"""From an image file or its bytes to pixels: the one decoder of training, devices and tiers.

Two libraries' bilinear resize differ by several grey levels, so every sample that a model
sees, at training and later, is made here: Pillow, EXIF orientation applied, converted to the
channel order, resized bilinearly with antialiasing.
"""

from __future__ import annotations

from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from branchy.core.cascade import Array, InputSpec
from branchy.core.messages import EncodedSample
from branchy.errors import DatasetError, MissingExtraError

FORMATS = ("JPEG", "PNG", "BMP", "GIF")
MAX_PIXELS = 64_000_000
"""An image of more pixels is refused before it is decoded: a small file can claim any size."""

# Of images that somebody sends. Decoding takes 4 bytes a pixel, 4 more where it is turned or converted, and up to 12
# of a progressive JPEG, whose coefficients are all held. So one of them takes at most 96 times its bytes, or 25 MB
# where that is more (a full HD frame has any size: 33 kB when it is black), and never above 200 MB: a tier of 512 MiB
# that takes 83 and holds 128 has room for it, and decodes one at a time. Photographs have 1 to 7 pixels a byte.
PIXELS_PER_BYTE = 8
ALWAYS_PIXELS = 1920 * 1080
"""Taken from a body of any size, as is four times what the model takes."""

RECEIVED_PIXELS = 2**24
MAX_SIDE = 2**14
"""Of an image that somebody sends: rows cost memory too, however short they are."""

MAX_SCANS = 100
"""Of a JPEG that somebody sends: 20 bytes ask for one more pass over its pixels. Progressive ones have about ten."""

MAX_TEXT_BYTES = 2**20
"""Of a PNG that somebody sends: notes beside its pixels, which may be compressed."""


def require_pillow() -> None:
    """Raise `MissingExtraError` unless images can be decoded here."""
    try:
        import PIL.Image  # noqa: F401  (only whether it can be imported)
    except ImportError:
        raise MissingExtraError("reading images", "images") from None


def decode(source: Path | bytes, spec: InputSpec) -> NDArray[np.uint8]:
    """Decode and resize one image as a model's input spec says.

    Args:
        source: a file, or the bytes of one.
        spec: channel order, orientation and size of the result.

    Returns:
        (height, width, channels) uint8; a GIF's first frame; transparency is dropped.

    Raises:
        DatasetError: not an image of `FORMATS`, damaged, or too large.
        MissingExtraError: Pillow is not installed.
    """
    require_pillow()
    return _sample(_open(source, FORMATS), spec)


def decode_received(sample: EncodedSample, spec: InputSpec) -> NDArray[np.uint8]:
    """Decode what somebody sent: the same pixels as `decode`, in memory and time that its size bounds.

    Args:
        sample: the file, which must be of the format that it is said to be.
        spec: as for `decode`.

    Raises:
        DatasetError: as `decode`; or it is larger opened than a file of its size may be.
        MissingExtraError: Pillow is not installed.
    """
    require_pillow()
    from PIL import PngImagePlugin

    data, fmt = sample.data, sample.content_type.removeprefix("image/").upper()
    PngImagePlugin.MAX_TEXT_MEMORY = MAX_TEXT_BYTES  # Pillow has this for all of a process only
    scans = data.count(b"\xff\xda") if fmt == "JPEG" else 0  # among pixels a byte of 255 is followed by another
    if scans > MAX_SCANS:
        raise DatasetError(f"expected a JPEG of at most {MAX_SCANS} scans, got {scans}")
    image = _open(data, (fmt,))
    height, width = spec.tensor.shape[:2]
    limit = max(ALWAYS_PIXELS, 4 * height * width, min(PIXELS_PER_BYTE * len(data), RECEIVED_PIXELS))
    if image.width * image.height > limit or max(image.size) > MAX_SIDE:
        raise DatasetError(
            f"expected at most {limit} pixels in an image of {len(data)} bytes, and sides of at most {MAX_SIDE}, "
            f"got {image.width} x {image.height}"
        )
    return _sample(image, spec)


def encode_jpeg(sample: Array, quality: int) -> bytes:
    """A sample as a JPEG.

    Args:
        sample: (height, width, channels) uint8, grey or RGB.
        quality: 1 to 95, as Pillow has it.

    Raises:
        MissingExtraError: Pillow is not installed.
    """
    require_pillow()
    from PIL import Image

    out = BytesIO()
    pixels = np.ascontiguousarray(sample[..., 0] if sample.shape[-1] == 1 else sample)
    Image.fromarray(pixels).save(out, "JPEG", quality=quality)
    return out.getvalue()


def check(source: Path) -> None:
    """Read all of an image file, at a reduced size where the format can; raises `DatasetError`."""
    image = _open(source, FORMATS)
    try:
        image.draft("RGB", (64, 64))
        image.load()
    except Exception as error:  # noqa: BLE001  (as above)
        raise DatasetError(f"damaged image: {error}") from None


def resize(sample: Array, size: tuple[int, int]) -> Array:
    """Resize a sample that is an array already, channel by channel.

    Args:
        sample: (height, width, channels), uint8 or float32.
        size: (height, width) of the result.
    """
    if sample.shape[:2] == size:
        return sample
    require_pillow()
    from PIL import Image

    channels = [_pixels(Image.fromarray(np.ascontiguousarray(c)), size) for c in np.moveaxis(sample, -1, 0)]
    return np.concatenate(channels, axis=-1)


def _open(source: Path | bytes, formats: tuple[str, ...]) -> Any:
    from PIL import Image

    try:
        image: Any = Image.open(BytesIO(source) if isinstance(source, bytes) else source, formats=formats)
    except Exception as error:  # noqa: BLE001  (Pillow's header parsers raise anything on damaged input)
        raise DatasetError(f"not a readable {', '.join(formats)} image: {type(error).__name__}") from None
    if image.width * image.height > MAX_PIXELS:
        raise DatasetError(f"expected at most {MAX_PIXELS} pixels, got {image.width} x {image.height}")
    return image


def _sample(image: Any, spec: InputSpec) -> NDArray[np.uint8]:
    """An opened image as a model takes it; with no second copy of all its pixels unless they change."""
    from PIL import ImageOps

    try:
        image.load()
        if spec.exif_transpose:
            ImageOps.exif_transpose(image, in_place=True)
        if image.mode != spec.channel_order:
            image = image.convert(spec.channel_order)
    except Exception as error:  # noqa: BLE001  (Pillow's decoders raise anything on damaged input)
        raise DatasetError(f"damaged image: {error}") from None
    return _pixels(image, spec.tensor.shape[:2])


def _pixels(image: Any, size: tuple[int, ...]) -> NDArray[Any]:
    from PIL import Image

    height, width = size
    if image.size != (width, height):
        image = image.resize((width, height), Image.Resampling.BILINEAR)
    pixels = np.asarray(image)
    return pixels if pixels.ndim == 3 else pixels[..., np.newaxis]
