"""An SDM project: a folder with `sdm_table.txt` and one peak file or image per study."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

from gpu_sdm.data import Dataset, Notice, Peaks, Study
from gpu_sdm.errors import InputError, TooFewStudies
from gpu_sdm.io._keep_on import Ledger, noted
from gpu_sdm.io._table_rows import COLUMNS, Row, read_rows
from gpu_sdm.io._text import LARGEST_T, number, shown
from gpu_sdm.io.images import KINDS, inspect_image
from gpu_sdm.io.peak_files import IMAGE, find_files, read_peaks

TABLE = "sdm_table.txt"
SAMPLE = "sample"  # rows that share a cell are contrasts of one sample
MISSING = ("", "na", "n/a", "nan", "null", "none", ".")
UNKNOWN = ("na", "n/a")  # a threshold said to be unknown, not forgotten
CORRECTIONS = ("corrected", "uncorrected")
# Numbers that stand for "missing" in other programs' tables.
CODES = tuple(s * c for s in (1.0, -1.0) for c in (999.0, 9999.0, 99999.0))
MOST_SUBJECTS = 1_000_000


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


def read_sdm_project(path: Path, compat: bool = False, ledger: Ledger | None = None) -> Dataset:
    """Read an SDM project.

    Parameters
    ----------
    path : path
        The folder that holds sdm_table.txt and a STUDY.SOFTWARE_SPACE.txt or STUDY.nii.gz of each
        study, or the table.
    compat : bool
        Truncate converted millimetres as SDM-PSI 6.21 does.
    ledger : Ledger, optional
        Takes the errors of rows and files, and the studies; reading goes on.

    Returns
    -------
    Dataset
        Studies in table order and every doubt about them.

    Raises
    ------
    InputError
        If the table, a row, a peak file or an image's header cannot be used; the message says how
        to mend it.

    Notes
    -----
    A study whose t_thr is `NA` declares its threshold unknown: nothing bounds its effect away from
    its peaks, so it is left out (notice `threshold_missing`). An empty t_thr is an error. A study
    with an image needs none.
    """
    table = _table_path(path)
    if table is None:
        raise InputError(f"holds no {TABLE}; give the folder of an SDM project.", path)
    columns, rows, digest = read_rows(table, ledger)
    names = [row.get("study") for row in rows]
    if ledger is not None:
        ledger.names += names
    files, unlisted = find_files(table.parent, names, ledger)
    any_image = any(space == IMAGE for _, space in files.values())
    kinds = _image_kinds(rows, table, ledger) if any_image else {}
    plain = [c for c in columns if c != IMAGE or not kinds]
    covariates, texts, notices = covariate_columns(plain, rows, table)
    notices += unlisted
    sha256 = {table.name: digest}
    studies = []
    for row in (r for r in rows if r.get("study") in files):
        with noted(ledger):
            name = row.get("study")
            file, space = files[name]
            n1, n2 = group_sizes(row, table)
            image, t_threshold = None, math.nan
            if space == IMAGE:
                image, doubts, hashes = inspect_image(file, name, kinds.get(name, ""), names)
                sha256 |= hashes
                if row.get("t_thr").lower() not in MISSING:
                    t_threshold = _threshold(row, table)
                peaks = Peaks.none(IMAGE, file.name)
            else:
                with noted(ledger):
                    t_threshold = _threshold(row, table)
                peaks, doubts, hashed = read_peaks(file, space, name, t_threshold, compat)
                sha256[file.name] = hashed
            own = {c: values[name] for c, values in covariates.items()}
            labels = {c: values[name] for c, values in texts.items()}
            word = row.get("threshold").lower()
            correction = word if word in CORRECTIONS else ""
            study = Study(name, n1, n2, t_threshold, peaks, own, correction, labels, image)
            if image is None and math.isnan(t_threshold):
                if row.get("t_thr").lower() in UNKNOWN:
                    text = f"{table.name}:{row.line}: study {shown(name)} has t_thr NA; it is left"
                    notices.append(Notice("threshold_missing", f"{text} out."))
                if ledger is not None:
                    ledger.unused.append(study)
                continue
            notices += doubts
            studies.append(study)
    if len(studies) < 2 and (ledger is None or not ledger.errors):
        with noted(ledger):
            raise TooFewStudies(
                f"holds {len(studies)} usable study; a meta-analysis needs at least 2.", table
            )
    return Dataset(tuple(studies), tuple(notices), table.parent, sha256)


def group_sizes(row: Row, table: Path) -> tuple[int, int]:
    """Sizes of the one or two groups of a study."""
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


def _threshold(row: Row, table: Path) -> float:
    """|t| threshold of a study; NaN where the table says NA."""
    cell = row.get("t_thr")
    if cell.lower() in UNKNOWN:
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


def _image_kinds(rows: Sequence[Row], table: Path, ledger: Ledger | None) -> dict[str, str]:
    """Say what each image holds; nothing where the column is a covariate of numbers."""
    cells = [(row, row.get(IMAGE).lower()) for row in rows]
    filled = [(row, cell) for row, cell in cells if cell not in MISSING]
    if all(number(cell) is not None for _, cell in filled):
        return {}
    for row, cell in filled:
        with noted(ledger):
            if cell not in KINDS:
                raise InputError(
                    f"study {shown(row.get('study'))} has image = {shown(cell)}; it must be empty "
                    f"(a t map) or one of: {', '.join(KINDS)}.",
                    table,
                    row.line,
                )
    return {row.get("study"): cell for row, cell in filled}


def covariate_columns(
    columns: Sequence[str], rows: Sequence[Row], table: Path
) -> tuple[dict[str, dict[str, float]], dict[str, dict[str, str]], list[Notice]]:
    """Numeric and text columns by name, then by study; notices on codes, on words among numbers."""
    found: dict[str, dict[str, float]] = {}
    texts: dict[str, dict[str, str]] = {}
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
                cells = {r.get("study"): r.get(column) for r in rows}
                # Words alone are meant as such; among numbers a word may be a slip.
                if column != SAMPLE and any(number(c) is not None for c in cells.values()):
                    text = f"{row.place(table)}column {shown(column)} holds text"
                    notices.append(Notice("text_column", f"{text} ({shown(cell)}) among numbers."))
                texts[column] = {s: "" if c.lower() in MISSING else c for s, c in cells.items()}
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
    return found, texts, notices
