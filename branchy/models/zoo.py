"""Which architecture a name means: one of the zoo, or a function in the user's own file."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

from branchy.errors import ArchitectureError
from branchy.models.b_lenet import b_lenet
from branchy.models.branching import Build

ZOO: dict[str, Build] = {"b-lenet": b_lenet}


def find(name: str) -> Build:
    """The architecture function of that name, or of `path/to/file.py:function`.

    Raises:
        ArchitectureError: there is no such name, file or function, or the file cannot be run.
    """
    if name in ZOO:
        return ZOO[name]
    path, colon, function = name.rpartition(":")
    if not colon or not path.endswith(".py"):
        raise ArchitectureError(
            f"no architecture '{name}': expected one of {', '.join(ZOO)}, or path/to/file.py:function for your own"
        )
    found = getattr(_run(Path(path)), function, None)
    if not callable(found):
        raise ArchitectureError(f"{path} has no function '{function}'")
    build: Build = found
    return build


def _run(path: Path) -> object:
    if not path.is_file():
        raise ArchitectureError(f"no file {path}; expected path/to/file.py:function")
    module_name = f"branchy_architecture_{path.stem}"
    spec = importlib.util.spec_from_file_location(module_name, path)
    if spec is None or spec.loader is None:
        raise ArchitectureError(f"{path}: expected a Python file")
    module = importlib.util.module_from_spec(spec)
    sys.modules[module_name] = module
    try:
        spec.loader.exec_module(module)
    except Exception as error:
        del sys.modules[module_name]
        raise ArchitectureError(f"{path} cannot be run: {type(error).__name__}: {error}") from error
    return module
