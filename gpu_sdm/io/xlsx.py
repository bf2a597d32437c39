"""The flat table in a spreadsheet: the first sheet of an XLSX workbook."""

from __future__ import annotations

import contextlib
import datetime
import hashlib
import io
import warnings
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from xml.parsers import expat

from gpu_sdm.data import Dataset, Notice
from gpu_sdm.errors import InputError
from gpu_sdm.io._keep_on import Ledger
from gpu_sdm.io._text import read_file, reason, shown
from gpu_sdm.io._thresholds import Assumed
from gpu_sdm.io.flat import Rows, dataset_of

MOST_BYTES = 1 << 29  # unpacked
MOST_OTHER_BYTES = 1 << 26  # of parts that are held in memory, which are all but the sheets
MOST_PARTS = 10_000
SHEETS = "xl/worksheets/"
ROOTS = ("", "worksheet", "Relationships", "worksheetSortMap")  # of what lies there
PROLOG = 1 << 16  # bytes before the first element
XML_STARTS = (b"<", b"\xef", b"\xff", b"\xfe")
MOST_CELLS = 2_000  # in a row
MOST_ROWS = 1_048_576  # that a sheet can have


def sniff(path: Path) -> bool:
    """Whether `path` is a zip file that holds a workbook."""
    if not path.is_file() or not zipfile.is_zipfile(path):
        return False
    try:
        with zipfile.ZipFile(path) as file:
            return "xl/workbook.xml" in file.namelist()
    except Exception:  # zipfile raises whatever the damage led to; the reader says so
        return path.suffix.lower() == ".xlsx"


def read_xlsx(
    path: Path, compat: bool = False, assumed: Assumed | None = None, ledger: Ledger | None = None
) -> Dataset:
    """Read the first sheet of a workbook as a flat table (`flat.read_flat`).

    Raises
    ------
    InputError
        As `read_flat`; also if the workbook is damaged or huge, or a cell holds a formula.

    Notes
    -----
    Rows are read one at a time, so that memory grows with the peaks alone.
    """
    import openpyxl
    from openpyxl.utils import get_column_letter

    raw = read_file(path)
    digest = hashlib.sha256(raw).hexdigest()
    try:
        with zipfile.ZipFile(io.BytesIO(raw)) as file:
            _check_parts(file, path)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # on styles and other parts that are not read
            book = openpyxl.load_workbook(io.BytesIO(raw), read_only=True)
    except InputError:
        raise
    except Exception as error:  # openpyxl raises whatever the damage led to
        raise _damaged(path, error) from error
    try:
        sheets = book.worksheets
        if not sheets:
            raise InputError("holds no sheet with cells.", path)
        notices = []
        if len(sheets) > 1:
            text = f"{path.name}: only its first sheet, {shown(sheets[0].title)}, is read of "
            notices.append(Notice("more_sheets", f"{text}{len(sheets)}."))
        return dataset_of(
            _rows(sheets[0], path), path, digest, compat, assumed, ledger, notices,
            lambda line, column: f"{get_column_letter(column + 1)}{line}",
        )  # fmt: skip
    finally:
        book.close()


def _check_parts(file: zipfile.ZipFile, path: Path) -> None:
    """Refuse what would fill the memory before a cell is seen."""
    parts = file.infolist()
    size = sum(p.file_size for p in parts)
    other = sum(p.file_size for p in parts if not p.filename.startswith(SHEETS))
    for found, most in ((size, MOST_BYTES), (other, MOST_OTHER_BYTES)):
        if found > most:
            what = "" if most == MOST_BYTES else "besides its sheets "
            raise InputError(
                f"{what}unpacks to {found:,} bytes, more than {most:,}; save it as CSV.", path
            )
    if len(parts) > MOST_PARTS:
        raise InputError(f"has {len(parts):,} parts, more than {MOST_PARTS:,}.", path)
    for part in parts:
        root = _root(file, part, path)
        # A table of shared texts could otherwise pass for a sheet, and is held in memory.
        if part.filename.startswith(SHEETS) and root not in ROOTS:
            raise InputError(f"has {shown(part.filename)}, which is no sheet; save it again.", path)


def _root(file: zipfile.ZipFile, part: zipfile.ZipInfo, path: Path) -> str:
    """Name of the first element of an XML part, without namespace; "" if there is none.

    Raises
    ------
    InputError
        If a document type comes first: it may define entities that grow without end.
    """
    found: list[str] = []

    def doctype(*_: Any) -> None:
        raise InputError(
            f"has {shown(part.filename)} with a DOCTYPE, which no spreadsheet has; save it again.",
            path,
        )

    parser = expat.ParserCreate(namespace_separator=" ")
    parser.StartDoctypeDeclHandler = doctype
    parser.StartElementHandler = lambda name, _: found.append(name.rpartition(" ")[2])
    with file.open(part) as content:
        start = content.read(PROLOG)
    # Not XML, such as a picture, or damaged: whoever needs it will say so.
    with contextlib.suppress(expat.ExpatError):
        parser.Parse(start, False)
    if not found and len(start) == PROLOG and start.lstrip()[:1] in XML_STARTS:
        raise InputError(f"has {shown(part.filename)} without content; save it again.", path)
    return found[0] if found else ""


def _damaged(path: Path, error: Exception) -> InputError:
    text = f"is no readable XLSX workbook ({reason(error)}); save it again, or as CSV."
    return InputError(text, path)


def _rows(sheet: Any, path: Path) -> Rows:
    sheet.reset_dimensions()  # what the file says of its size need not be true
    rows = _guarded(sheet.iter_rows(), path)
    for number, row in enumerate(rows, 1):
        if len(row) > MOST_CELLS or number > MOST_ROWS:
            raise InputError(
                f"has a sheet of more than {MOST_CELLS:,} columns or {MOST_ROWS:,} rows; save the "
                "peaks alone.",
                path,
                number,
            )
        cells = []
        for cell in row:
            if cell.data_type == "f":
                raise InputError(
                    f"cell {cell.coordinate} holds a formula, {shown(str(cell.value))}; paste its "
                    "value in its place.",
                    path,
                    number,
                )
            cells.append(_text(cell.value))
        yield number, cells


def _guarded(rows: Iterator[Any], path: Path) -> Iterator[Any]:
    while True:
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                row = next(rows, None)
        except Exception as error:  # openpyxl raises whatever the damage led to
            raise _damaged(path, error) from error
        if row is None:
            return
        yield row


def _text(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, (datetime.date, datetime.time)):
        return value.isoformat()
    if isinstance(value, float):
        return repr(value).removesuffix(".0")
    return str(value)
