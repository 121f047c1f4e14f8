"""Functions of the user's own, by `path/to/file.py:function` or `module:function`."""

from __future__ import annotations

import importlib
import importlib.util
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

from branchy.errors import ArchitectureError


def load(name: str) -> Callable[..., Any]:
    """The function of that name; running its file or importing its module is what finds it.

    Args:
        name: `path/to/file.py:function`, or `module:function` of a module that Python can import.

    Raises:
        ArchitectureError: there is no such file, module or function, or it cannot be run.
    """
    where, colon, function = name.rpartition(":")
    if not colon or not where or not function:
        raise ArchitectureError(f"expected path/to/file.py:function or module:function, got '{name}'")
    found = getattr(_run(Path(where)) if where.endswith(".py") else _import(where), function, None)
    if not callable(found):
        raise ArchitectureError(f"{where} has no function '{function}'")
    own: Callable[..., Any] = found
    return own


def source(name: str) -> Path | None:
    """The file that holds a function's code; None where the name is of none, or its module is in no file.

    Args:
        name: as `load` takes it.
    """
    where, _, _ = name.rpartition(":")
    path = Path(where)
    if not where.endswith(".py"):
        try:
            spec = importlib.util.find_spec(where)
        except (ImportError, ValueError):
            return None
        path = Path((spec and spec.origin) or "")
    return path if path.is_file() else None


def _run(path: Path) -> ModuleType:
    if not path.is_file():
        raise ArchitectureError(f"no file {path}; expected path/to/file.py:function")
    module_name = f"branchy_own_{path.stem}"
    spec = importlib.util.spec_from_file_location(module_name, path)
    if spec is None or spec.loader is None:
        raise ArchitectureError(f"{path}: expected a Python file")
    module = importlib.util.module_from_spec(spec)
    sys.modules[module_name] = module
    try:
        spec.loader.exec_module(module)
    except Exception as error:
        del sys.modules[module_name]
        raise ArchitectureError(f"{path} cannot be run: {one_line(error)}") from error
    return module


def _import(name: str) -> ModuleType:
    try:
        return importlib.import_module(name)
    except Exception as error:
        raise ArchitectureError(f"module {name} cannot be imported: {one_line(error)}") from error


def one_line(error: Exception) -> str:
    """An error of code that is not branchy's, by type and text, for a message."""
    return " ".join(f"{type(error).__name__}: {error}".split())[:300]
