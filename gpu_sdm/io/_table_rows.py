"""Rows of an SDM table: the header, the cells of each study, and the names."""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from gpu_sdm.errors import InputError
from gpu_sdm.io._keep_on import Ledger, noted
from gpu_sdm.io._text import read_lines, shown
from gpu_sdm.io.peak_files import IMAGE

COLUMNS = ("study", "n1", "n2", "t_thr", "threshold")
REQUIRED = ("study", "n1")
MOST_STUDIES = 20_000
MOST_COLUMNS = 1_000
# Path separators, control characters, and those that are not seen but turn what is: bidirectional
# marks, line separators, halves of a surrogate pair.
FORBIDDEN_IN_NAME = re.compile(
    "[/\\\\\x00-\x1f\x7f-\x9f\u200b\u200e\u200f\u2028-\u202e\u2060-\u2069\ufeff\ud800-\udfff]"
)
# What Windows keeps for devices, with any suffix.
RESERVED_NAME = re.compile(r"(con|prn|aux|nul|(com|lpt)[0-9¹²³])(\..*)?", re.IGNORECASE | re.DOTALL)
FORMULA = "=+-@"  # a spreadsheet that opens a table would compute such a cell
LONGEST_NAME = 200  # bytes: file names have at most 255


@dataclass(frozen=True, slots=True)
class Row:
    """One study's cells."""

    line: int | None  # None: the format has no lines
    cells: Mapping[str, str]

    def place(self, table: Path) -> str:
        """Where the row is, to begin a notice with."""
        return f"{table.name}: " if self.line is None else f"{table.name}:{self.line}: "

    def get(self, column: str) -> str:
        """Text of a cell; "" where the table has no such column."""
        return self.cells.get(column, "")


def read_rows(table: Path, ledger: Ledger | None = None) -> tuple[list[str], list[Row], str]:
    """Read the header, the rows (names checked) and the sha256 of an SDM table.

    Raises
    ------
    InputError
        If the header or a row cannot be used; a ledger takes the errors of rows, which are left
        out.
    """
    lines, digest = read_lines(table)
    filled = [(i, line) for i, line in enumerate(lines, 1) if line.strip(" \t,")]
    if not filled:
        raise InputError("is empty; its first row names the columns study, n1, t_thr, ...", table)
    header_line, header = filled[0]
    separator = "\t" if "\t" in header else "," if "," in header else None
    known = (*COLUMNS, IMAGE)
    columns = [c.lower() if c.lower() in known else c for c in _split(header, separator)]
    if "" in columns:
        raise InputError(f"column {columns.index('') + 1} has no name.", table, header_line)
    for column, count in Counter(columns).items():
        if count > 1:
            raise InputError(
                f"column {shown(column)} appears {count} times; keep one.", table, header_line
            )
    for column in REQUIRED:
        if column not in columns:
            raise InputError(
                f"has no column {column}; the first row must name the columns study, n1 and t_thr, "
                f"found {shown(' '.join(columns))}.",
                table,
                header_line,
            )
    if len(columns) > MOST_COLUMNS:
        raise InputError(
            f"has {len(columns):,} columns, more than {MOST_COLUMNS:,}; keep those that matter.",
            table,
            header_line,
        )
    rows: list[Row] = []
    lines_of: dict[str, int | None] = {}
    for i, line in filled[1:]:
        with noted(ledger):
            cells = _cells(line, separator, columns, table, i)
            named = dict(zip(columns, cells, strict=True))
            named["study"] = composed(named["study"])
            row = Row(i, named)
            check_name(row, lines_of, table)
            rows.append(row)
            if len(rows) > MOST_STUDIES:
                raise too_many_studies(table)
    if not rows and (ledger is None or not ledger.errors):
        raise InputError("names columns but no study; add one row per study.", table)
    return columns, rows, digest


def _cells(
    line: str, separator: str | None, columns: list[str], table: Path, number: int
) -> list[str]:
    """Cells of a row, one per column."""
    cells = _split(line, separator)
    if len(cells) > len(columns) or (separator is None and len(cells) < len(columns)):
        raise InputError(
            f"has {len(cells)} values for {len(columns)} columns; separate columns by tabs, "
            "and write NA for a missing value.",
            table,
            number,
        )
    return cells + [""] * (len(columns) - len(cells))


def _split(line: str, separator: str | None) -> list[str]:
    """Cells without blanks and quotes; empty ones at the end, as spreadsheets leave, dropped."""
    cells = [_unquoted(c.strip()) for c in (line.split(separator) if separator else line.split())]
    while cells and not cells[-1]:
        cells.pop()
    return cells


def _unquoted(cell: str) -> str:
    quoted = len(cell) >= 2 and cell[0] == cell[-1] and cell[0] in "\"'"
    return cell[1:-1].strip() if quoted else cell


def composed(name: str) -> str:
    """Give a name in the one spelling of its accents (NFC); file names of macOS have the other."""
    return unicodedata.normalize("NFC", name)


def name_fault(name: str) -> str:
    """Say why a name cannot name files on every computer; "" if it can."""
    if FORBIDDEN_IN_NAME.search(name):
        return "holds a path separator or control character"
    if name in (".", ".."):
        return "is that of a folder"
    if RESERVED_NAME.fullmatch(name):
        return "is that of a device on Windows"
    if name.startswith(tuple(FORMULA)):
        return f"begins with {name[:1]}, which a spreadsheet would compute"
    if len(name.encode()) > LONGEST_NAME:
        return f"has {len(name.encode())} bytes, more than {LONGEST_NAME}"
    return ""


def too_many_studies(path: Path) -> InputError:
    """Say that an input holds more studies than are read."""
    return InputError(f"holds more than {MOST_STUDIES:,} studies; split it.", path)


def check_name(row: Row, lines: dict[str, int | None], table: Path) -> None:
    """Check that the study's name can name files and is new; remember its line."""
    name = row.get("study")
    if not name:
        raise InputError("has no study name; fill its first column.", table, row.line)
    fault = name_fault(name)
    if fault:
        raise InputError(
            f"study name {shown(name)} {fault}; use letters, digits, dots, - and _.",
            table,
            row.line,
        )
    if name in lines:
        raise InputError(
            f"study {shown(name)} is already in line {lines[name]}; names must be unique.",
            table,
            row.line,
        )
    if name.lower() in lines:
        raise InputError(
            f"study {shown(name)} differs from that of line {lines[name.lower()]} only by upper "
            "and lower case, and their files would be one on Windows and macOS; rename one.",
            table,
            row.line,
        )
    lines[name] = lines[name.lower()] = row.line
