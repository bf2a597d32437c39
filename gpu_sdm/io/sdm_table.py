"""An SDM project: a folder with `sdm_table.txt` and one peak file per study."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from gpu_sdm.data import Dataset, Notice, Study
from gpu_sdm.errors import InputError
from gpu_sdm.io._text import LARGEST_T, number, read_lines, shown
from gpu_sdm.io.peak_files import find_files, read_peaks

TABLE = "sdm_table.txt"
COLUMNS = ("study", "n1", "n2", "t_thr", "threshold")
REQUIRED = ("study", "n1")
MISSING = ("", "na", "n/a", "nan", "null", "none", ".")
CORRECTIONS = ("corrected", "uncorrected")
# Numbers that stand for "missing" in other programs' tables.
CODES = tuple(s * c for s in (1.0, -1.0) for c in (999.0, 9999.0, 99999.0))
MOST_SUBJECTS = 1_000_000
FORBIDDEN_IN_NAME = re.compile(r"[/\\\x00-\x1f]")


@dataclass(frozen=True, slots=True)
class _Row:
    line: int
    cells: Mapping[str, str]

    def get(self, column: str) -> str:
        return self.cells.get(column, "")


def sniff(path: Path) -> bool:
    """Whether `path` is an SDM project: a folder with sdm_table.txt, or that file itself."""
    return _table_path(path) is not None


def _table_path(path: Path) -> Path | None:
    if path.name.lower() == TABLE and path.is_file():
        return path
    if not path.is_dir():
        return None
    found = sorted(p for p in path.iterdir() if p.name.lower() == TABLE)
    exact = [p for p in found if p.name == TABLE]
    return (exact or found or [None])[0]  # type: ignore[list-item]


def read_sdm_project(path: Path, compat: bool = False) -> Dataset:
    """Read an SDM project.

    Parameters
    ----------
    path : path
        The folder that holds sdm_table.txt and STUDY.SOFTWARE_SPACE.txt files, or the table.
    compat : bool
        Truncate converted millimetres as SDM-PSI 6.21 does.

    Returns
    -------
    Dataset
        Studies in table order and every doubt about them.

    Raises
    ------
    InputError
        If the table, a row or a peak file cannot be used; the message says how to mend it.

    Notes
    -----
    A study whose t_thr is `NA` declares its threshold unknown: nothing bounds its effect away from
    its peaks, so it is left out (notice `threshold_missing`). An empty t_thr is an error.
    """
    table = _table_path(path)
    if table is None:
        raise InputError(f"holds no {TABLE}; give the folder of an SDM project.", path)
    columns, rows, digest = _read_table(table)
    names = _names(rows, table)
    covariates, notices = _covariates(columns, rows, table)
    files, unlisted = find_files(table.parent, names)
    notices += unlisted
    sha256 = {table.name: digest}
    studies = []
    for row in rows:
        name = row.get("study")
        file, space = files[name]
        n1, n2 = _sizes(row, table)
        t_threshold = _threshold(row, table)
        peaks, doubts, sha256[file.name] = read_peaks(file, space, name, t_threshold, compat)
        if math.isnan(t_threshold):
            text = f"{table.name}:{row.line}: study {shown(name)} has t_thr NA; it is left out."
            notices.append(Notice("threshold_missing", text))
            continue
        notices += doubts
        word = row.get("threshold").lower()
        own = {c: values[name] for c, values in covariates.items()}
        correction = word if word in CORRECTIONS else ""
        studies.append(Study(name, n1, n2, t_threshold, peaks, own, correction))
    if len(studies) < 2:
        raise InputError(
            f"holds {len(studies)} usable study; a meta-analysis needs at least 2.", table
        )
    return Dataset(tuple(studies), tuple(notices), table.parent, sha256)


def _read_table(table: Path) -> tuple[list[str], list[_Row], str]:
    lines, digest = read_lines(table)
    filled = [(i, line) for i, line in enumerate(lines, 1) if line.strip(" \t,")]
    if not filled:
        raise InputError("is empty; its first row names the columns study, n1, t_thr, ...", table)
    header_line, header = filled[0]
    separator = "\t" if "\t" in header else "," if "," in header else None
    columns = [c.lower() if c.lower() in COLUMNS else c for c in _split(header, separator)]
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
    rows = []
    for i, line in filled[1:]:
        cells = _split(line, separator)
        if len(cells) > len(columns) or (separator is None and len(cells) < len(columns)):
            raise InputError(
                f"has {len(cells)} values for {len(columns)} columns; separate columns by tabs, "
                "and write NA for a missing value.",
                table,
                i,
            )
        cells += [""] * (len(columns) - len(cells))
        rows.append(_Row(i, dict(zip(columns, cells, strict=True))))
    if not rows:
        raise InputError("names columns but no study; add one row per study.", table)
    return columns, rows, digest


def _split(line: str, separator: str | None) -> list[str]:
    """Cells without blanks and quotes; empty ones at the end, as spreadsheets leave, dropped."""
    cells = [_unquoted(c.strip()) for c in (line.split(separator) if separator else line.split())]
    while cells and not cells[-1]:
        cells.pop()
    return cells


def _unquoted(cell: str) -> str:
    quoted = len(cell) >= 2 and cell[0] == cell[-1] and cell[0] in "\"'"
    return cell[1:-1].strip() if quoted else cell


def _names(rows: Sequence[_Row], table: Path) -> list[str]:
    lines: dict[str, int] = {}
    for row in rows:
        name = row.get("study")
        if not name:
            raise InputError("has no study name; fill its first column.", table, row.line)
        if FORBIDDEN_IN_NAME.search(name):
            raise InputError(
                f"study name {shown(name)} holds a path separator or control character; use "
                "letters, digits, dots, - and _.",
                table,
                row.line,
            )
        if name in lines:
            raise InputError(
                f"study {shown(name)} is already in line {lines[name]}; names must be unique.",
                table,
                row.line,
            )
        lines[name] = row.line
    return list(lines)


def _sizes(row: _Row, table: Path) -> tuple[int, int]:
    name, sizes = shown(row.get("study")), []
    for column, smallest in (("n1", 1), ("n2", 0)):
        cell = row.get(column)
        value = 0.0 if column == "n2" and cell.lower() in MISSING else number(cell)
        if value is None or value != int(value) or not smallest <= value <= MOST_SUBJECTS:
            raise InputError(
                f"study {name} has {column} = {shown(cell)}; it must be a whole number of "
                "subjects" + (", 0 or empty for one sample." if column == "n2" else "."),
                table,
                row.line,
            )
        sizes.append(int(value))
    n1, n2 = sizes
    if n2 == 0 and n1 < 4:
        raise InputError(
            f"study {name} has n1 = {n1}; a one-sample study needs n1 >= 4.", table, row.line
        )
    if n2 and (n1 < 2 or n2 < 2 or n1 + n2 < 5):
        raise InputError(
            f"study {name} has n1 = {n1}, n2 = {n2}; a two-sample study needs n1 >= 2, n2 >= 2 "
            "and n1 + n2 >= 5.",
            table,
            row.line,
        )
    return n1, n2


def _threshold(row: _Row, table: Path) -> float:
    """|t| threshold of a study; NaN where the table says NA."""
    cell = row.get("t_thr")
    if cell.lower() in ("na", "n/a"):
        return math.nan
    value = number(cell)
    if value is None or not 0 < value <= LARGEST_T:
        found = f"has t_thr = {shown(cell)}" if cell else "has no t_thr"
        raise InputError(
            f"study {shown(row.get('study'))} {found}; give the smallest |t| that it would have "
            "reported, a number above 0 (or NA to leave the study out).",
            table,
            row.line,
        )
    return value


def _covariates(
    columns: Sequence[str], rows: Sequence[_Row], table: Path
) -> tuple[dict[str, dict[str, float]], list[Notice]]:
    """Numeric columns by name, then by study; notices on codes and on text columns."""
    found: dict[str, dict[str, float]] = {}
    notices = []
    for column in columns:
        if column in COLUMNS:
            continue
        values: dict[str, float] = {}
        codes = []
        for row in rows:
            cell = row.get(column)
            value = math.nan if cell.lower() in MISSING else number(cell)
            if value is None:
                text = f"{table.name}:{row.line}: column {shown(column)} holds text"
                notices.append(Notice("text_column", f"{text} ({shown(cell)}); no covariate."))
                break
            values[row.get("study")] = value
            if value in CODES:
                codes.append(f"{row.get('study')} ({value:g})")
        else:
            found[column] = values
            if codes:
                more = f" and {len(codes) - 3} more" if len(codes) > 3 else ""
                text = f"{table.name}: column {shown(column)} holds what looks like a code for"
                text += f" missing: {', '.join(codes[:3])}{more}; write NA if it is."
                notices.append(Notice("covariate_code", text))
    return found, notices
