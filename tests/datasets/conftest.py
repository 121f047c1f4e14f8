from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from image_folder import write_image_folder


@pytest.fixture
def make_folder(tmp_path: Path) -> Callable[..., Path]:
    """Makes the folder `pets` with images of the classes named; see `write_image_folder`."""

    def make(*classes: str, each: int = 10) -> Path:
        return write_image_folder(tmp_path / "pets", classes, each)

    return make
