"""What stands in a document's fenced blocks, so that tests can do what it says."""

from __future__ import annotations

import re
from pathlib import Path


def blocks(document: Path, language: str) -> list[str]:
    """The document's blocks of one language, in their order."""
    text = document.read_text(encoding="utf-8")
    return re.findall(rf"^```{language}\n(.*?)^```", text, re.MULTILINE | re.DOTALL)


def shell_blocks(document: Path) -> list[str]:
    """Those that a shell runs."""
    return blocks(document, "sh")
