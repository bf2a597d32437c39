"""The flat table in a spreadsheet: the first sheet of an XLSX workbook."""

from __future__ import annotations

import datetime
import hashlib
import warnings
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from gpu_sdm.data import Dataset, Notice
from gpu_sdm.errors import InputError
from gpu_sdm.io._keep_on import Ledger
from gpu_sdm.io._text import shown
from gpu_sdm.io._thresholds import Assumed
from gpu_sdm.io.flat import Rows, dataset_of

MOST_BYTES = 1 << 30  # unpacked
MOST_CELLS = 2_000  # in a row
MOST_ROWS = 1_048_576  # that a sheet can have


def sniff(path: Path) -> bool:
    """Whether `path` is a zip file that holds a workbook."""
    if not path.is_file() or not zipfile.is_zipfile(path):
        return False
    with zipfile.ZipFile(path) as file:
        return "xl/workbook.xml" in file.namelist()


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

    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    try:
        with zipfile.ZipFile(path) as file:
            size = sum(entry.file_size for entry in file.infolist())
        if size > MOST_BYTES:
            raise InputError(
                f"unpacks to {size:,} bytes, more than {MOST_BYTES:,}; save it as CSV.", path
            )
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # on styles and other parts that are not read
            book = openpyxl.load_workbook(path, read_only=True)
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


def _damaged(path: Path, error: Exception) -> InputError:
    reason = " ".join(str(error).split())[:200]
    return InputError(f"is no readable XLSX workbook ({reason}); save it again, or as CSV.", path)


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
