"""A folder that results are written to: checked before the work, each file replaced in one step."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryFile

from branchy.errors import BranchyError, UsageError
from branchy.reports.csv import DELIMITER


def make_folder(out: Path, what: str) -> None:
    """Make a directory, or raise `UsageError` where nothing can be written to it.

    Args:
        out: the directory.
        what: is to be written there, for people.
    """
    try:
        out.mkdir(parents=True, exist_ok=True)
        TemporaryFile(dir=out).close()
    except OSError as error:
        raise UsageError(f"cannot write {what} to {out}: {error.strerror}; name another directory") from None


def write_files(out: Path, files: Mapping[str, bytes]) -> list[Path]:
    """Write files by name; a reader never sees half of one.

    Raises:
        BranchyError: the disk is full, or the like.
    """
    written = []
    for name, content in files.items():
        partial = out / f".{name}.partial"
        try:
            partial.write_bytes(content)
            written.append(partial.replace(out / name))
        except OSError as error:
            partial.unlink(missing_ok=True)
            raise BranchyError(f"cannot write {out / name}: {error.strerror}") from None
    return written


def csv_bytes(header: Sequence[str], rows: Iterable[Sequence[object]]) -> bytes:
    """A table as the content of a CSV file, `;` between; floats to the last bit, nothing for None and NaN."""
    text = io.StringIO()
    writer = csv.writer(text, delimiter=DELIMITER, lineterminator="\n")
    writer.writerow(header)
    writer.writerows([_cell(value) for value in row] for row in rows)
    return text.getvalue().encode()


def _cell(value: object) -> str:
    if value is None or value != value:  # NaN alone differs from itself
        return ""
    return repr(float(value)) if isinstance(value, float) else str(value)
