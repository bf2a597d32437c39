"""One flat table, CSV or TSV: a row per peak, a row without coordinates for a study without."""

from __future__ import annotations

import csv
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path

from gpu_sdm.coordinates import CONVERSIONS
from gpu_sdm.data import Dataset, Notice
from gpu_sdm.errors import InputError
from gpu_sdm.io._keep_on import Ledger, noted
from gpu_sdm.io._records import Record, is_missing, to_dataset
from gpu_sdm.io._table_rows import (
    MOST_COLUMNS,
    MOST_STUDIES,
    Row,
    check_name,
    composed,
    too_many_studies,
)
from gpu_sdm.io._text import decimal_comma, first_text, number, read_lines, shown
from gpu_sdm.io._thresholds import Assumed
from gpu_sdm.io.peak_files import MOST_PEAKS, NO_PEAKS, SIGNS
from gpu_sdm.io.tables import unguarded
from gpu_sdm.statistics import KINDS

STUDY = ("study", "n1", "n2", "threshold", "threshold_kind", "correction", "space")
PEAK = ("x", "y", "z", "statistic", "kind", "sign")
OTHER_NAMES = {"n": "n1", "t_thr": "threshold", "t": "statistic"}
OTHER_KINDS = {"p1": "p_one_sided", "p2": "p_two_sided", "f(1,df)": "f", "": "t"}
OTHER_SPACES = {
    "mni": "other_mni", "tal": "other_tal", "talairach": "other_tal", "brett": "other_brett",
}  # fmt: skip
SIGN_WORDS = {
    "+": 1, "p": 1, "pos": 1, "positive": 1, "1": 1, "-": -1, "n": -1, "neg": -1, "negative": -1,
    "-1": -1, "": 0,
}  # fmt: skip
DELIMITERS = "\t;,"
Rows = Iterator[tuple[int, list[str]]]


def sniff(path: Path) -> bool:
    """Whether `path` is a text file whose first row names a study and coordinates."""
    lines = [line for line in first_text(path).splitlines() if line.strip(" \t,;")]
    if not lines:
        return False
    cells = {c.strip(" \"'").lower() for c in lines[0].split(delimiter(lines[0]))}
    return "study" in cells and bool(cells & {"x", "y", "z"})


def delimiter(header: str) -> str:
    """Separator of the cells of a header line: the one that makes most names known."""
    known = {*STUDY, *PEAK, *OTHER_NAMES}

    def score(mark: str) -> tuple[int, int]:
        cells = {cell.strip(" \"'").lower() for cell in header.split(mark)}
        return len(cells & known), header.count(mark)

    return max(DELIMITERS, key=score)


def read_flat(
    path: Path, compat: bool = False, assumed: Assumed | None = None, ledger: Ledger | None = None
) -> Dataset:
    """Read a CSV or TSV file with one row per peak.

    Parameters
    ----------
    path : path
        UTF-8 text; cells between tabs, commas or semicolons.
    compat : bool
        Truncate converted millimetres as SDM-PSI 6.21 does.
    assumed : Assumed, optional
        Stands in for thresholds that are not given.
    ledger : Ledger, optional
        Takes the errors of studies; reading goes on.

    Returns
    -------
    Dataset
        Studies in order of first appearance.

    Raises
    ------
    InputError
        If a cell cannot be used; the message names it.

    Notes
    -----
    Columns `study`, `n1` (or `n`), `n2`, `threshold` (or `t_thr`), `threshold_kind`, `correction`
    and `space`, and every unknown column (a covariate), belong to the study: a cell is empty or
    the same in all its rows. `x`, `y`, `z`, `statistic` (or `t`), `kind` and `sign` belong to the
    peak.
    """
    lines, digest = read_lines(path)
    header = next((line for line in lines if line.strip(" \t,;")), "")
    return dataset_of(_csv(lines, delimiter(header), path), path, digest, compat, assumed, ledger)


def _csv(lines: Sequence[str], separator: str, path: Path) -> Rows:
    reader = csv.reader((f"{line}\n" for line in lines), delimiter=separator, strict=True)
    try:
        for cells in reader:
            yield reader.line_num, [unguarded(cell.strip()) for cell in cells]
    except csv.Error as error:
        raise InputError(
            f"cannot be split into cells ({error}); check the quotes.", path, reader.line_num
        ) from error


def dataset_of(
    rows: Rows,
    path: Path,
    digest: str,
    compat: bool,
    assumed: Assumed | None,
    ledger: Ledger | None = None,
    notices: Iterable[Notice] = (),
    cell: Callable[[int, int], str] | None = None,
) -> Dataset:
    """Dataset of the rows of a flat table; `cell` names a cell by row and column from 0."""
    rows = ((i, [c.strip() for c in cells]) for i, cells in rows)
    filled = ((i, cells) for i, cells in rows if any(cells))
    line, header = next(filled, (1, []))
    header = [" ".join(name.split()) for name in header]  # a name in quotes may have two lines
    table = _Table(path, _columns(header, path, line), cell)
    for count, (i, cells) in enumerate(filled, 1):
        if count > MOST_PEAKS:
            raise InputError(f"holds more than {MOST_PEAKS:,} rows; split it.", path)
        with noted(ledger):
            table.add(i, cells)
    return to_dataset(
        table.records(), table.covariates, path, {path.name: digest}, notices,
        compat, assumed, ledger,
    )  # fmt: skip


def _columns(header: Sequence[str], path: Path, line: int) -> list[str]:
    lower = [h.lower() for h in header]
    known = {*STUDY, *PEAK}
    # As in an SDM table: beside t_thr, a column threshold says corrected or uncorrected.
    others = dict(OTHER_NAMES, **({"threshold": "correction"} if "t_thr" in lower else {}))
    columns = [others.get(c, c) if c in known or c in others else h
               for c, h in zip(lower, header, strict=True)]  # fmt: skip
    while columns and not columns[-1]:
        columns.pop()
    if "" in columns:
        raise InputError(f"column {columns.index('') + 1} has no name.", path, line)
    if len(columns) > MOST_COLUMNS:
        raise InputError(
            f"has {len(columns):,} columns, more than {MOST_COLUMNS:,}; keep those that matter.",
            path,
            line,
        )
    twice = [c for c, n in Counter(columns).items() if n > 1]
    if twice:
        raise InputError(f"column {shown(twice[0])} appears twice; keep one.", path, line)
    for wanted in ("study", "n1", "x", "y", "z", "space"):
        if wanted not in columns:
            raise InputError(
                f"has no column {wanted}; the first row must name study, n1, threshold, space, x, "
                f"y, z and statistic, found {shown(' '.join(header))}.",
                path,
                line,
            )
    return columns


class _Table:
    """The studies of a table while its rows are read."""

    def __init__(
        self, path: Path, columns: list[str], cell: Callable[[int, int], str] | None
    ) -> None:
        self.path, self.columns, self.cell = path, columns, cell
        self.covariates = [c for c in columns if c not in (*STUDY, *PEAK)]
        self.studies: dict[str, tuple[Record, dict[str, str]]] = {}
        self.nothing: dict[str, int] = {}  # study -> line of its row without coordinates
        self.lines: dict[str, int | None] = {}  # name, also in lower case -> first line

    def records(self) -> list[Record]:
        """Studies in order of first appearance, with all their cells."""
        for record, held in self.studies.values():
            record.threshold = held.get("threshold", "")
            record.threshold_kind = _kind(held.get("threshold_kind", ""))
            cells = {c: held.get(c, "") for c in ("study", "n1", "n2", *self.covariates)}
            cells["threshold"] = held.get("correction", "")
            record.row = Row(record.row.line, cells)
        return [record for record, _ in self.studies.values()]

    def fault(self, line: int, column: str, found: str, wanted: str) -> InputError:
        """Name a cell, what it holds and what it should."""
        where = f"column {column}"
        if self.cell is not None and column in self.columns:
            where = f"cell {self.cell(line, self.columns.index(column))} ({where})"
        held = f"holds {shown(found)}" if found else "is empty"
        return InputError(f"{where} {held}; {wanted}.", self.path, line)

    def add(self, line: int, cells: list[str]) -> None:
        """Take a row."""
        if any(cells[len(self.columns) :]):
            raise InputError(
                f"has {len(cells)} cells for {len(self.columns)} columns; was a decimal comma "
                "split? Write numbers with a decimal point, and quote text that holds the "
                "separator.",
                self.path,
                line,
            )
        row = dict(zip(self.columns, cells, strict=False))
        name = composed(row.get("study", ""))
        if not name:
            raise self.fault(
                line, "study", "",
                "repeat the study's name in every row (of merged cells only the first holds it)",
            )  # fmt: skip
        if name not in self.studies:
            record = Record(Row(line, {"study": name}))
            check_name(record.row, self.lines, self.path)
            if len(self.studies) == MOST_STUDIES:
                raise too_many_studies(self.path)
            self.studies[name] = record, {"study": name}
        record, held = self.studies[name]
        self._study_cells(name, held, row, line)
        self._peak(record, held.get("space", ""), row, line)

    def _study_cells(self, name: str, held: dict[str, str], row: dict[str, str], line: int) -> None:
        """Fill in what the study lacks; what it has must be the same."""
        for column in (*STUDY[1:], *self.covariates):
            new = row.get(column, "")
            if not new:
                continue
            old = held.get(column, "")
            if not old:
                if column != "correction" and decimal_comma(new):
                    wanted = f"write a number{decimal_comma(new)}"
                    raise self.fault(line, column, new, wanted)
                held[column] = new
            elif old != new and (number(old) is None or number(old) != number(new)):
                raise self.fault(
                    line, column, new,
                    f"study {shown(name)} has {shown(old)} in an earlier row, and all its "
                    "rows must agree",
                )  # fmt: skip

    def _peak(self, record: Record, space: str, row: dict[str, str], line: int) -> None:
        place = [row.get(axis, "") for axis in "xyz"]
        text, word = row.get("statistic", ""), row.get("sign", "").lower()
        if all(map(is_missing, place)):
            if not is_missing(text) or len(record.peaks):
                raise self.fault(line, "x", place[0], "a peak needs its coordinates, in mm")
            self.nothing.setdefault(record.name, line)
            return
        if record.name in self.nothing:
            raise InputError(
                f"study {shown(record.name)} has a peak here and a row without coordinates, which "
                f"says that it found nothing, in line {self.nothing[record.name]}; keep one.",
                self.path,
                line,
            )
        xyz = [self._number(line, axis, cell) for axis, cell in zip("xyz", place, strict=True)]
        if word not in SIGN_WORDS:
            raise self.fault(line, "sign", word, "write + or -, or nothing")
        sign, kind = SIGN_WORDS[word], _kind(row.get("kind", ""))
        value = None
        if text.lower() in SIGNS:
            own = int(SIGNS[text.lower()])
        elif is_missing(text) and sign:
            own = sign
        else:
            wanted = "write a number, or p or n where only the sign of the effect is known"
            value = self._number(line, "statistic", text, wanted)
            if kind not in KINDS:
                raise self.fault(line, "kind", row.get("kind", ""), f"write {', '.join(KINDS)}")
            own = -1 if value < 0 else 1 if KINDS[kind].signed else sign
        if sign and sign != own:
            raise self.fault(line, "sign", word, "the statistic itself has the other sign")
        if record.space == NO_PEAKS:
            name = space.lower().replace(" ", "_")
            known = OTHER_SPACES.get(name, name)
            if known not in CONVERSIONS:
                raise self.fault(line, "space", space, f"write one of {', '.join(CONVERSIONS)}")
            record.space = known
        record.peaks.add(xyz, value, kind, line, own)

    def _number(self, line: int, column: str, cell: str, wanted: str = "write a number") -> float:
        value = number(cell)
        if value is None:
            raise self.fault(line, column, cell, wanted + decimal_comma(cell))
        return value


def _kind(cell: str) -> str:
    word = cell.strip().lower().replace("-", "_").replace(" ", "_")
    return OTHER_KINDS.get(word, word)
