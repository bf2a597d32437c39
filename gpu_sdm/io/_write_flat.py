"""A Dataset as one flat table, and as an SDM project."""

from __future__ import annotations

import csv
import io
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from gpu_sdm.data import Dataset, Notice, Study
from gpu_sdm.errors import OutputError
from gpu_sdm.io._records import SIGN
from gpu_sdm.io._table_rows import COLUMNS, LONGEST_NAME
from gpu_sdm.io._text import number, shown
from gpu_sdm.io.flat import PEAK, STUDY
from gpu_sdm.io.peak_files import IMAGE, NO_PEAKS
from gpu_sdm.io.sdm_table import TABLE
from gpu_sdm.io.tables import guarded, write_bytes
from gpu_sdm.statistics import KINDS

HEADER = ("study", "n1", "n2", "threshold", "correction", "space", *PEAK[:5])


def exact(value: float) -> str:
    """Shortest text that reads back as the same number; NA for NaN."""
    return "NA" if value != value else repr(float(value)).removesuffix(".0")


def _more_columns(dataset: Dataset, reserved: tuple[str, ...], notices: list[Notice]) -> list[str]:
    """Names of covariates and labels that a table can hold beside its own columns."""
    columns = dict.fromkeys(c for s in dataset.studies for c in (*s.covariates, *s.labels))
    kept = [c for c in columns if c.lower() not in reserved and c == " ".join(c.split(None))]
    left = [c for c in columns if c not in kept]
    if left:
        text = f"columns {', '.join(map(shown, left))} are not written: the names are taken."
        notices.append(Notice("not_written", text))
    return kept


def _more_cells(study: Study, columns: list[str]) -> Iterator[str]:
    for column in columns:
        if column in study.labels:
            yield " ".join(study.labels[column].split()) or "NA"
        else:
            yield exact(study.covariates.get(column, float("nan")))


def flat_rows(dataset: Dataset, notices: list[Notice]) -> Iterator[list[str]]:
    """Rows of the flat table, its header first; what it cannot hold goes to `notices`."""
    more = _more_columns(dataset, (*STUDY, *PEAK, "n", "t", "t_thr"), notices)
    yield [*HEADER, *more]
    images = 0
    for study in dataset.studies:
        if study.image is not None:
            images += 1
            continue
        p = study.peaks
        own = [study.name, str(study.n1), str(study.n2), exact(study.t_threshold)]
        own += [study.correction, p.space if len(p) else ""]
        cells = list(_more_cells(study, more))
        if not len(p):
            yield [*own, *[""] * 5, *cells]
        for i in range(len(p)):
            place = map(exact, p.xyz_reported[i])
            yield [*own, *place, *_height(study, i), *cells]
    if images:
        text = f"{images} studies with images are left out; a flat table holds peaks."
        notices.append(Notice("not_written", text))


def _height(study: Study, i: int) -> tuple[str, str]:
    """Statistic of a peak as it was reported, and its kind."""
    p = study.peaks
    if not p.known[i]:
        return ("n" if np.signbit(p.t[i]) else "p"), SIGN
    if p.reported is not None:
        return exact(p.reported[i]), p.kinds[i]
    return exact(p.t[i]), "t"


def write_csv(dataset: Dataset, path: Path, delimiter: str = ",") -> list[Notice]:
    """Write a CSV (or TSV) file; give what it cannot hold."""
    notices: list[Notice] = []
    text = io.StringIO(newline="")
    writer = csv.writer(text, delimiter=delimiter, lineterminator="\n")
    writer.writerows(map(guarded, row) for row in flat_rows(dataset, notices))
    write_bytes(path, text.getvalue().encode())
    return notices


def write_tsv_table(dataset: Dataset, path: Path) -> list[Notice]:
    """Write a TSV file; give what it cannot hold."""
    return write_csv(dataset, path, "\t")


def write_xlsx(dataset: Dataset, path: Path) -> list[Notice]:
    """Write an XLSX workbook of one sheet; give what it cannot hold."""
    import openpyxl
    from openpyxl.cell import WriteOnlyCell

    notices: list[Notice] = []
    book = openpyxl.Workbook(write_only=True)
    sheet = book.create_sheet("peaks")
    for row in flat_rows(dataset, notices):
        sheet.append([_typed(WriteOnlyCell(sheet), cell) for cell in row])
    content = io.BytesIO()
    book.save(content)
    write_bytes(path, content.getvalue())
    return notices


def _typed(cell: Any, text: str) -> Any:
    """Fill a cell with a number where that is the same, else with text, never a formula."""
    from openpyxl.cell.cell import ILLEGAL_CHARACTERS_RE

    value = number(text)
    # openpyxl writes 16 digits; a number that needs 17 goes as text.
    if value is not None and exact(value) == text and float(f"{value:.16g}") == value:
        cell.value = value
    elif text:
        cell.value = ILLEGAL_CHARACTERS_RE.sub("", text)
        cell.data_type = "s"
    return cell


def write_sdm(dataset: Dataset, folder: Path) -> list[Notice]:
    """Write the files of an SDM project into an empty folder; give what it cannot hold."""
    notices: list[Notice] = []
    more = _more_columns(dataset, (*COLUMNS, IMAGE), notices)
    images = any(s.image is not None for s in dataset.studies)
    rows = ["\t".join([*COLUMNS, *([IMAGE] if images else []), *more])]
    for study in dataset.studies:
        _check_file_name(study.name)
        row = [study.name, str(study.n1), str(study.n2), exact(study.t_threshold)]
        row += [study.correction or "NA"]
        row += [study.image.kind if study.image else "NA"] if images else []
        rows.append("\t".join([*row, *_more_cells(study, more)]))
        if study.image is not None:
            for file in filter(None, (study.image.path, study.image.companion)):
                shutil.copyfile(file, folder / file.name)
            continue
        p = study.peaks
        space = p.space if len(p) else NO_PEAKS
        lines = [
            " ".join([*map(exact, p.xyz_reported[i]), _sdm_height(study, i)]) for i in range(len(p))
        ]
        content = "\n".join([*lines, ""]) if lines else ""
        write_bytes(folder / f"{study.name}.{space}.txt", content.encode())
    write_bytes(folder / TABLE, ("\n".join(rows) + "\n").encode())
    if any(s.peaks.kinds for s in dataset.studies):
        kinds = sorted({k for s in dataset.studies for k in s.peaks.kinds} - {"t", SIGN})
        titles = ", ".join(KINDS[k].title for k in kinds)
        text = f"statistics of other kinds ({titles}) are written as t."
        notices.append(Notice("not_written", text))
    return notices


def _sdm_height(study: Study, i: int) -> str:
    p = study.peaks
    return exact(p.t[i]) if p.known[i] else "n" if np.signbit(p.t[i]) else "p"


def _check_file_name(name: str) -> None:
    if name.startswith(".") or len(name.encode()) > LONGEST_NAME:
        raise OutputError(
            f"study {shown(name)} cannot name a file; begin it with a letter or digit and keep it "
            f"below {LONGEST_NAME} bytes."
        )
