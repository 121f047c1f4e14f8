"""What stands in a document's fenced blocks, so that tests can do what it says."""

from __future__ import annotations

import re
from pathlib import Path

OVERLAYS = ("cloud-alone", "edge-alone", "managed", "one-node-edge")
"""What docs/brokers-elsewhere.md and deploy/k8s/README.md write out."""


def blocks(document: Path, language: str) -> list[str]:
    """The document's blocks of one language, in their order."""
    text = document.read_text(encoding="utf-8")
    return re.findall(rf"^```{language}\n(.*?)^```", text, re.MULTILINE | re.DOTALL)


def shell_blocks(document: Path) -> list[str]:
    """Those that a shell runs."""
    return blocks(document, "sh")


def write_files(document: Path, root: Path) -> list[Path]:
    """Write the document's YAML blocks whose first line is a path to that path.

    Args:
        document: as Markdown.
        root: what the paths begin at.

    Returns:
        The files.
    """
    files = []
    for block in blocks(document, "yaml"):
        head = re.match(r"# (deploy/\S+\.yaml)\n", block)
        if head is not None:
            file = root / head[1]
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(block, encoding="utf-8")
            files.append(file)
    return files
