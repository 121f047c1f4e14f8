"""The results file: one row a sample, `;` between, written as the answers come and checked when read.

Its first twelve columns are those of the framework that branchy re-does, with the
cascade's own tier names in place of Edge, Fog and Cloud; six of branchy's follow, and
three a tier of what its exit said and sent, from which thresholds are replayed.
All times are in seconds; what no tier did is empty.
"""

from __future__ import annotations

import csv
import math
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import TracebackType
from typing import TypeVar, cast, get_args

from branchy.core.messages import Answer, Reason
from branchy.errors import BranchyError, ReportError, UsageError

HEAD = ("Test", "Expected_result", "Prediction_Time")
TIER = ("Prediction", "Computation_Time", "Prediction_Time")
TAIL = ("Request_Id", "Answering_Tier", "Reason", "Confidence", "Bytes_Up", "Certified")
EXIT = ("Exit", "Confidence", "Bytes_Up")
DELIMITER = ";"

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class TierCells:
    """What one tier did for one sample.

    Attributes:
        prediction: the class index of its own exit, None where it predicted nothing.
        computation_s: its inference.
        prediction_s: from its receipt of the request to its answer.
        exit: the stage whose exit predicted.
        confidence: of that prediction, unrounded.
        bytes_up: headers and body sent up at this tier's cut; None where it is not known.
    """

    prediction: int | None = None
    computation_s: float | None = None
    prediction_s: float | None = None
    exit: str | None = None
    confidence: float | None = None
    bytes_up: int | None = None


@dataclass(frozen=True, slots=True)
class Row:
    """One sample's line.

    Attributes:
        test: the sample's index in the test set.
        expected: its true class index, None where it is not known.
        latency_s: the requester's round trip; None when no answer came.
        request: the request's id.
        tiers: by column title (`title(tier)`).
        tier: the tier that answered or refused; None when no answer came.
        reason: why that tier answered or refused; None when no answer came.
        confidence: of the answer, None without a label.
        bytes_up: headers and body sent up at all cuts; None where it is not known.
        certified: whether there is an answer under the bundle's certificate; None where nothing was promised.
    """

    test: int
    expected: int | None
    latency_s: float | None
    request: str
    tiers: Mapping[str, TierCells] = field(default_factory=dict)
    tier: str | None = None
    reason: Reason | None = None
    confidence: float | None = None
    bytes_up: int | None = None
    certified: bool | None = None

    @classmethod
    def from_answer(
        cls,
        test: int,
        expected: int | None,
        latency_s: float | None,
        answer: Answer | None,
        request_id: str,
        *,
        uplink_bytes: int = 0,
        has_certificate: bool = False,
    ) -> Row:
        """The line of one request.

        Args:
            test: the sample's index.
            expected: its true class index, where it is known.
            latency_s: the round trip.
            answer: None when none came.
            request_id: `branchy-request`.
            uplink_bytes: what the requester itself sent over the uplink, added to what the tiers
                sent up. For a full model that no tier stands before: the whole request.
            has_certificate: whether what was asked has one, so that it is to be told which answers are under it.
        """
        if answer is None:
            return cls(test, expected, None, request_id, certified=False if has_certificate else None)
        cells = {
            title(h.tier): TierCells(h.index, h.compute_ms / 1e3, h.total_ms / 1e3, h.exit, h.confidence, h.bytes_up)
            for h in answer.hops
        }
        if answer.status == "ok":
            own = cells.get(title(answer.tier), TierCells())
            cells[title(answer.tier)] = replace(
                own, prediction=answer.index, exit=answer.exit, confidence=answer.confidence
            )
        return cls(
            test,
            expected,
            latency_s,
            request_id,
            cells,
            answer.tier,
            answer.reason,
            answer.confidence,
            uplink_bytes + sum(h.bytes_up for h in answer.hops),
            answer.certified if has_certificate else None,
        )

    @property
    def predicted(self) -> int | None:
        """The class index that was answered; None when no answer came or it was refused."""
        if self.tier is None or self.confidence is None:
            return None
        return self.tiers.get(title(self.tier), TierCells()).prediction

    def cells(self, tiers: Sequence[str]) -> list[str]:
        """The cells of this line, for the tiers' titles in order."""
        out = [_whole(self.test), _whole(self.expected), _amount(self.latency_s)]
        for name in tiers:
            cell = self.tiers.get(name, TierCells())
            out += [_whole(cell.prediction), _amount(cell.computation_s), _amount(cell.prediction_s)]
        answer = [self.tier or "", self.reason or "", _amount(self.confidence), _whole(self.bytes_up)]
        out += [self.request, *answer, _mark(self.certified)]
        for name in tiers:
            cell = self.tiers.get(name, TierCells())
            out += [cell.exit or "", _exact(cell.confidence), _whole(cell.bytes_up)]
        return out


def title(tier: str) -> str:
    """A tier's name as its columns have it: with a capital."""
    return tier[:1].upper() + tier[1:]


def _whole(value: int | None) -> str:
    return "" if value is None else f"{value:d}"


def _amount(value: float | None) -> str:
    return "" if value is None else f"{value:.6f}"


def _mark(value: bool | None) -> str:
    return "" if value is None else "1" if value else "0"


def _exact(value: float | None) -> str:
    """To the last bit: rounded, a confidence may fall on the other side of a threshold."""
    return "" if value is None else repr(float(value))


def columns(titles: Sequence[str]) -> list[str]:
    """The header line for these tiers' titles, in the order of the cascade."""
    return [*HEAD, *_of_tiers(titles, TIER), *TAIL, *_of_tiers(titles, EXIT)]


def _of_tiers(titles: Sequence[str], names: Sequence[str]) -> list[str]:
    return [f"{title}_{name}" for title in titles for name in names]


class CsvReport:
    """Writes a results file; each row is on disk, whole, when `write` returns.

    The file is opened at once, so that a path that cannot be written is found out before the
    work, but what was there before is kept until the first row comes.

    Raises:
        UsageError: the path cannot be written, or two tiers would share their columns.
    """

    def __init__(self, path: Path, tiers: Sequence[str]) -> None:
        self.path = path
        self.rows = 0
        self._titles = [title(t) for t in tiers]
        if len(set(self._titles)) != len(self._titles):
            raise UsageError(f"tier names must differ by more than their first letter's case, got {', '.join(tiers)}")
        try:
            self._is_new = not path.exists()
            self._file = path.open("a", encoding="utf-8", newline="")
        except OSError as error:
            raise UsageError(f"cannot write results to {path}: {error.strerror}; name another file") from None
        self._writer = csv.writer(self._file, delimiter=DELIMITER, lineterminator="\n")

    def write(self, row: Row) -> None:
        """Add a row; the first one replaces what the file held before.

        Raises:
            BranchyError: the disk is full, or the like.
        """
        try:
            if not self.rows:
                if os.fstat(self._file.fileno()).st_size:  # a pipe or a device cannot be truncated, nor needs it
                    self._file.truncate(0)
                self._writer.writerow(columns(self._titles))
            self._writer.writerow(row.cells(self._titles))
            self._file.flush()
        except OSError as error:
            raise self._not_written(error) from None
        self.rows += 1

    def close(self) -> None:
        """Close the file; one that was made for this and got no row is removed.

        Raises:
            BranchyError: as `write`; what could not be written is tried once more.
        """
        try:
            self._file.close()
        except OSError as error:
            raise self._not_written(error) from None
        finally:
            if not self.rows and self._is_new:
                self.path.unlink(missing_ok=True)

    def _not_written(self, error: OSError) -> BranchyError:
        return BranchyError(f"cannot write results to {self.path}: {error.strerror}")

    def __enter__(self) -> CsvReport:
        """Itself."""
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        """Close it; the rows written so far stay."""
        try:
            self.close()
        except BranchyError:
            if error is None:  # else that one ended the block: a row that `write` could not write fails here again
                raise


@dataclass(frozen=True, slots=True)
class Results:
    """A results file as read: its path, the titles of its tiers in order, its rows."""

    path: Path
    titles: tuple[str, ...]
    rows: tuple[Row, ...]


def read_csv(path: Path) -> Results:
    """Read and check a results file.

    Raises:
        UsageError: no such file.
        ReportError: a column, delimiter or value that a results file does not have; file and line are named.
    """
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            lines = csv.reader(file, delimiter=DELIMITER, strict=True)
            titles = _read_titles(path, next(lines, []))
            rows = tuple(_read_rows(path, titles, lines))
    except OSError as error:
        raise UsageError(f"cannot read results from {path}: {error.strerror}") from None
    except (UnicodeDecodeError, csv.Error) as error:
        raise ReportError(f"{path}: expected a results file of branchy, got something else: {error}") from None
    return Results(path, titles, rows)


def _read_titles(path: Path, header: list[str]) -> tuple[str, ...]:
    if not header:
        raise ReportError(f"{path} line 1: expected a header line, got an empty file")
    if len(header) == 1:
        raise ReportError(f"{path} line 1: expected columns with '{DELIMITER}' between, got {header[0][:60]!r}")
    middle = header[len(HEAD) : header.index(TAIL[0]) if TAIL[0] in header else len(header)]
    titles = tuple(name.removesuffix(f"_{TIER[0]}") for name in middle[:: len(TIER)])
    for number, (want, got) in enumerate(zip(columns(titles), header, strict=False), start=1):
        if want != got:
            raise ReportError(f"{path} line 1: expected column {number} to be {want}, got {got[:60]!r}")
    if len(header) != len(columns(titles)) or len(set(titles)) != len(titles):
        raise ReportError(
            f"{path} line 1: expected {', '.join(HEAD)}, three columns a tier, {', '.join(TAIL)}, three columns a tier "
            f"({', '.join(EXIT)}); got {len(header)} columns; a file of an older branchy has to be recorded again"
        )
    return titles


def _read_rows(path: Path, titles: Sequence[str], lines: Iterator[list[str]]) -> Iterator[Row]:
    names = columns(titles)
    for line, cells in enumerate(lines, start=2):
        if len(cells) != len(names):
            raise ReportError(f"{path} line {line}: expected {len(names)} columns, got {len(cells)}")
        yield _Line(path, line, dict(zip(names, cells, strict=True))).row(titles)


@dataclass(frozen=True, slots=True)
class _Line:
    """One line's cells by column, and where it stands, to name it in an error."""

    path: Path
    number: int
    cells: Mapping[str, str]

    def row(self, titles: Sequence[str]) -> Row:
        row = Row(
            test=self._needed("Test", _to_whole),
            expected=self._cell("Expected_result", _to_whole),
            latency_s=self._cell("Prediction_Time", _to_amount),
            request=self._needed("Request_Id", str),
            tiers={name: cells for name in titles if (cells := self._tier(name)) != TierCells()},
            tier=self._cell("Answering_Tier", str),
            reason=self._cell("Reason", _to_reason),
            confidence=self._cell("Confidence", _to_amount),
            bytes_up=self._cell("Bytes_Up", _to_whole),
            certified=self._cell("Certified", _to_mark),
        )
        if (row.tier is None) != (row.reason is None):
            raise self._error("Reason", "one where Answering_Tier has one, and none where it has none")
        if row.confidence is not None and row.predicted is None:
            raise self._error(
                "Answering_Tier", f"a tier that predicted something ({', '.join(row.tiers) or 'none did'})"
            )
        return row

    def _tier(self, name: str) -> TierCells:
        prediction, computation, answer = (f"{name}_{column}" for column in TIER)
        exit_, confidence, bytes_up = (f"{name}_{column}" for column in EXIT)
        return TierCells(
            self._cell(prediction, _to_whole),
            self._cell(computation, _to_amount),
            self._cell(answer, _to_amount),
            self._cell(exit_, str),
            self._cell(confidence, _to_amount),
            self._cell(bytes_up, _to_whole),
        )

    def _cell(self, column: str, kind: Callable[[str], T]) -> T | None:
        return self._needed(column, kind) if self.cells[column] else None

    def _needed(self, column: str, kind: Callable[[str], T]) -> T:
        text = self.cells[column]
        try:
            if text:
                return kind(text)
        except ValueError:
            pass
        raise self._error(column, _EXPECTED[kind])

    def _error(self, column: str, expected: str) -> ReportError:
        got = self.cells[column][:40] or "nothing"
        return ReportError(f"{self.path} line {self.number}, {column}: expected {expected}, got {got!r}")


def _to_whole(text: str) -> int:
    if not (text.isascii() and text.isdigit()):
        raise ValueError
    return int(text)


def _to_amount(text: str) -> float:
    value = float(text)
    if not (math.isfinite(value) and value >= 0):
        raise ValueError
    return value


def _to_mark(text: str) -> bool:
    if text not in ("0", "1"):
        raise ValueError
    return text == "1"


def _to_reason(text: str) -> Reason:
    if text not in get_args(Reason):
        raise ValueError
    return cast(Reason, text)


_EXPECTED: Mapping[Callable[[str], object], str] = {
    _to_whole: "a whole number from 0 up",
    _to_amount: "a number from 0 up",
    _to_mark: "1, 0 or nothing",
    _to_reason: f"one of {', '.join(get_args(Reason))}",
    str: "a word",
}
