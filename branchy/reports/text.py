"""Plain text tables for a terminal, with the standard library."""

from __future__ import annotations

from collections.abc import Sequence


def text_table(header: Sequence[str], rows: Sequence[Sequence[str]], left: int = 1) -> str:
    """Columns with two blanks between, a line under the header; no line ends in blanks.

    Args:
        header: the columns' names.
        rows: as many cells each.
        left: so many first columns are flush left, the others flush right.
    """
    widths = [max(len(line[i]) for line in (header, *rows)) for i in range(len(header))]
    lines = []
    for line in (header, ["-" * width for width in widths], *rows):
        cells = [
            cell.ljust(width) if i < left else cell.rjust(width)
            for i, (cell, width) in enumerate(zip(line, widths, strict=True))
        ]
        lines.append("  ".join(cells).rstrip())
    return "\n".join(lines)


def listed(names: Sequence[str], width: int = 80) -> str:
    """Names with commas between, cut to a width where there are too many."""
    text = ", ".join(names)
    return text if len(text) <= width else f"{text[: width - 3]}..."
