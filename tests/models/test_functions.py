from __future__ import annotations

from pathlib import Path

import pytest

from branchy.errors import ArchitectureError
from branchy.models.functions import load, source


def test_a_function_is_found_in_a_file_and_in_a_module(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text("def small(n):\n    return n + 1\n")
    assert load(f"{tmp_path}/mine.py:small")(1) == 2
    assert load("os.path:basename") is __import__("os").path.basename


def test_the_source_of_a_function_is_its_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "its_own.py").write_text("")
    monkeypatch.syspath_prepend(tmp_path)
    for name in (f"{tmp_path}/its_own.py:small", "its_own:small"):
        assert source(name) == tmp_path / "its_own.py"
    for name in ("nowhere.py:small", "nowhere:small", "not.here:small", "sys:exit", "pool-dense", ":small"):
        assert source(name) is None


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("mine.py", "expected path/to/file.py:function or module:function, got 'mine.py'"),
        (":small", "expected path/to/file.py:function"),
        ("none.py:small", "no file none.py"),
        ("mine.py:large", "mine.py has no function 'large'"),
        ("mine.py:NUMBER", "mine.py has no function 'NUMBER'"),
        ("broken.py:small", "broken.py cannot be run: SyntaxError"),
        ("imports.py:small", "imports.py cannot be run: ModuleNotFoundError: No module named 'nowhere'"),
        ("nowhere:small", "module nowhere cannot be imported: ModuleNotFoundError"),
        ("os.path:nothing", "os.path has no function 'nothing'"),
    ],
)
def test_what_cannot_be_found_is_named(name: str, says: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("mine.py").write_text("NUMBER = 1\ndef small(input_shape, classes): ...\n")
    Path("broken.py").write_text("def small(:\n")
    Path("imports.py").write_text("import nowhere\n")
    with pytest.raises(ArchitectureError) as caught:
        load(name)
    assert says in str(caught.value)
