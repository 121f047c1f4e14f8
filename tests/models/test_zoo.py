from __future__ import annotations

from pathlib import Path

import pytest

from branchy.errors import ArchitectureError
from branchy.models.b_lenet import b_lenet
from branchy.models.branching import build
from branchy.models.zoo import find


@pytest.mark.parametrize("shape", [(8, 8, 1), (28, 28, 1), (32, 32, 3), (180, 180, 3), (9, 17, 3)])
def test_b_lenet_takes_samples_of_any_size_from_8_on(shape: tuple[int, int, int]) -> None:
    built = build(find("b-lenet"), shape, 10, None)
    assert [stage.name for stage in built.stages] == ["edge", "fog", "cloud"]


@pytest.mark.parametrize("shape", [(28, 28, 1), (32, 32, 3), (180, 180, 3)])
def test_b_lenet_sends_up_fewer_float16_bytes_than_an_image_has(shape: tuple[int, int, int]) -> None:
    raw = shape[0] * shape[1] * shape[2]
    for stage in build(b_lenet, shape, 10, None).stages[:-1]:
        _, height, width, channels = stage.cut.shape
        assert 2 * height * width * channels < raw


def test_b_lenet_refuses_samples_that_are_too_small() -> None:
    with pytest.raises(ArchitectureError, match="at least 8 x 8"):
        build(b_lenet, (7, 8, 1), 10, None)


def test_a_function_in_a_file_of_ones_own_is_found(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text("def small(input_shape, classes):\n    return input_shape, classes\n")
    assert find(f"{tmp_path}/mine.py:small")((1, 2, 3), 4) == ((1, 2, 3), 4)


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("vgg", "no architecture 'vgg': expected one of b-lenet, or path/to/file.py:function"),
        ("mine.py", "no architecture"),
        ("mine.txt:small", "no architecture"),
        ("none.py:small", "no file none.py"),
        ("mine.py:large", "mine.py has no function 'large'"),
        ("mine.py:NUMBER", "mine.py has no function 'NUMBER'"),
        ("broken.py:small", "broken.py cannot be run: SyntaxError"),
        ("imports.py:small", "imports.py cannot be run: ModuleNotFoundError: No module named 'nowhere'"),
    ],
)
def test_what_cannot_be_found_is_named(name: str, says: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("mine.py").write_text("NUMBER = 1\ndef small(input_shape, classes): ...\n")
    Path("broken.py").write_text("def small(:\n")
    Path("imports.py").write_text("import nowhere\n")
    with pytest.raises(ArchitectureError) as caught:
        find(name)
    assert says in str(caught.value)
