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
from branchy.errors import DatasetError, MissingExtraError

FORMATS = ("JPEG", "PNG", "BMP", "GIF")
MAX_PIXELS = 64_000_000
"""An image of more pixels is refused before it is decoded: a small file can claim any size."""


def require_pillow() -> None:
    """Raise `MissingExtraError` unless images can be decoded here."""
    try:
        import PIL.Image  # noqa: F401  (only whether it can be imported)
    except ImportError:
        raise MissingExtraError("reading images", "images") from None


def decode(source: Path | bytes, spec: InputSpec, formats: tuple[str, ...] = FORMATS) -> NDArray[np.uint8]:
    """Decode and resize one image as a model's input spec says.

    Args:
        source: a file, or the bytes of one.
        spec: channel order, orientation and size of the result.
        formats: Pillow's names of the formats that are taken.

    Returns:
        (height, width, channels) uint8; a GIF's first frame; transparency is dropped.

    Raises:
        DatasetError: not an image of those formats, damaged, or too large.
        MissingExtraError: Pillow is not installed.
    """
    require_pillow()
    from PIL import ImageOps

    image = _open(source, formats)
    try:
        if spec.exif_transpose:
            image = ImageOps.exif_transpose(image)
        image = image.convert(spec.channel_order)
    except Exception as error:  # noqa: BLE001  (Pillow's decoders raise anything on damaged input)
        raise DatasetError(f"damaged image: {error}") from None
    return _pixels(image, spec.tensor.shape[:2])


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


def _pixels(image: Any, size: tuple[int, ...]) -> NDArray[Any]:
    from PIL import Image

    height, width = size
    if image.size != (width, height):
        image = image.resize((width, height), Image.Resampling.BILINEAR)
    pixels = np.asarray(image)
    return pixels if pixels.ndim == 3 else pixels[..., np.newaxis]
