"""Tables of the studies as papers print them, from whatever columns the input has."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from gpu_sdm.data import Study
from gpu_sdm.errors import SettingError
from gpu_sdm.findings.check_thresholds import one_sided_p
from gpu_sdm.findings.study_columns import MISSING, Columns, cell
from gpu_sdm.findings.table3 import escape

SPACES = {"mni": "MNI", "tal": "Talairach", "brett": "Talairach (Brett)"}
YES_NO = {"1": "Y", "0": "N"}
ALL = "all"
NUMBERS = re.compile(rf"-?[\d.]+( \([\d.]+\))?|{MISSING}|")

Cell = Callable[[Study], str]


@dataclass(frozen=True)
class Printed:
    """One table: its name, a caption, and its cells as text by heading, a row per study."""

    name: str
    caption: str
    rows: list[dict[str, str]]


def _age(columns: Columns, group: str) -> Cell | None:
    """Mean (SD) of the ages of a group."""
    mean, sd = columns.name("age", group), columns.name("age", group, "sd")
    if mean is None:
        return None

    def write(study: Study) -> str:
        spread = cell(study, sd)
        return cell(study, mean) + ("" if spread == MISSING else f" ({spread})")

    return write


def _quality(columns: Columns, quantity: str, group: str, studies: Sequence[Study]) -> Cell | None:
    """Percent of a group, yes or no where a column holds just that, or its words."""
    name = columns.name(quantity, group)
    if name is not None:
        of_text = any(name in s.labels for s in studies)
        if of_text or all(cell(s, name) in (*YES_NO, MISSING) for s in studies):
            return lambda s: YES_NO.get(cell(s, name), cell(s, name))
    read = columns.percent(quantity, group)
    if read is None:
        return None
    return lambda s: MISSING if math.isnan(read(s)) else f"{round(read(s), 1):g} %"


def _threshold(columns: Columns) -> Cell:
    """Words of the paper where a column has them, else t_thr and the one-sided p that it is."""
    name = columns.name("threshold")

    def write(study: Study) -> str:
        if cell(study, name) != MISSING:
            return cell(study, name)
        if study.image is not None:
            return "whole map"
        t = study.t_threshold
        return MISSING if math.isnan(t) else f"t > {t:.4g} (p < {one_sided_p(t, study.df):.2g})"

    return write


def _space(columns: Columns) -> Cell:
    """Words of the paper where a column has them, else the space of the peak file."""
    name = columns.name("space")

    def write(study: Study) -> str:
        if cell(study, name) != MISSING:
            return cell(study, name)
        kind = "mni" if study.image is not None else study.peaks.space.rpartition("_")[2]
        return SPACES.get(kind, MISSING)

    return write


def _samples(columns: Columns, studies: Sequence[Study]) -> dict[str, Cell]:
    """Cells of the first table by heading."""
    two = any(s.two_sample for s in studies)
    first = "patients" if two else ""
    cells: dict[str, Cell] = {"Study": lambda s: s.name}
    if (disorder := columns.name("disorder")) is not None:
        cells["Disorder"] = lambda s: cell(s, disorder)
    cells[f"n {first}".strip()] = lambda s: str(s.n1)
    if two:
        cells["n controls"] = lambda s: str(s.n2)
    ages = {g: _age(columns, g) for g in ("patients", "controls", "")}
    if ages["patients"] is not None and ages["controls"] is not None:
        del ages[""]  # it says no more
    for group, age in ages.items():
        if age is not None:
            cells[f"Age {group}".strip() + " (SD)"] = age
    for quantity, heading in (("female", "Female"), ("treated", "Treated")):
        for group in ("patients", "controls", ""):
            quality = _quality(columns, quantity, group, studies)
            if quality is not None:
                cells[f"{heading} {group}".strip()] = quality
    return cells


def _methods(columns: Columns) -> dict[str, Cell]:
    """Cells of the second table by heading."""
    cells: dict[str, Cell] = {
        "Study": lambda s: s.name,
        "Threshold": _threshold(columns),
        "Correction": lambda s: s.correction or cell(s, columns.name("correction")),
        "Space": _space(columns),
    }
    for quantity in ("software", "contrast", "directions", "paradigm"):
        name = columns.name(quantity)
        if name is not None:
            cells[quantity.capitalize()] = _plain(name)
    cells["Peaks"] = lambda s: "map" if s.image is not None else str(len(s.peaks))
    return cells


def _plain(name: str) -> Cell:
    return lambda s: cell(s, name)


def study_tables(studies: Sequence[Study], further: Sequence[str] = ()) -> list[Printed]:
    """Make the tables of samples and of methods, and one of further columns.

    Parameters
    ----------
    studies : sequence of Study
        In order.
    further : sequence of str
        Columns to print as they are; "all": every one whose name is not understood.

    Returns
    -------
    list of Printed
        `samples`, `methods` and, where columns were asked for, `further`.

    Raises
    ------
    SettingError
        If a column is not there.
    """
    columns = Columns.of(studies)
    every = (*columns.known.values(), *columns.unknown)
    for name in further:
        if name != ALL and name not in every:
            raise SettingError(
                f"column {name!r} is not in the table; it has: {', '.join(every) or 'none'}."
            )
    tables = {
        "samples": ("Samples of the studies.", _samples(columns, studies)),
        "methods": ("Thresholds, spaces and contrasts of the studies.", _methods(columns)),
    }
    chosen = [n for f in further for n in (columns.unknown if f == ALL else (f,))]
    if chosen:
        own: dict[str, Cell] = {"Study": lambda s: s.name}
        tables["further"] = (
            "Further columns of the studies.",
            own | {name: _plain(name) for name in chosen},
        )
    return [
        Printed(name, caption, [{h: write(s) for h, write in cells.items()} for s in studies])
        for name, (caption, cells) in tables.items()
    ]


def to_latex(rows: Sequence[Mapping[str, str]], caption: str) -> str:
    """Give a table as a LaTeX `table` that needs no package, columns of numbers to the right."""
    heads = list(rows[0])
    layout = "".join("r" if all(NUMBERS.fullmatch(r[h]) for r in rows) else "l" for h in heads)
    lines = [r"\begin{table}", r"\centering", r"\small", rf"\caption{{{escape(caption)}}}"]
    lines += [rf"\begin{{tabular}}{{{layout}}}", r"\hline"]
    lines += [" & ".join(escape(h) for h in heads) + r" \\", r"\hline"]
    lines += [" & ".join(escape(r[h]) for h in heads) + r" \\" for r in rows]
    return "\n".join([*lines, r"\hline", r"\end{tabular}", r"\end{table}"]) + "\n"
