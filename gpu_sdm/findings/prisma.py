"""Counts of a PRISMA 2020 flow diagram: read from two columns, and their sums checked."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from gpu_sdm.errors import InputError
from gpu_sdm.io._text import read_lines, shown

OTHER = "other methods"
# Boxes of the official template, by the words that a row begins with.
IDENTIFIED = "records identified from"
REMOVED = "records removed before screening"
SCREENED, EXCLUDED = "records screened", "records excluded"
SOUGHT, LOST = "reports sought for retrieval", "reports not retrieved"
ASSESSED, REFUSED = "reports assessed for eligibility", "reports excluded"
STUDIES, REPORTS = "studies included in review", "reports of included studies"
# Of these a row names a part after a second colon, and there may be several rows.
PARTS = (IDENTIFIED, REMOVED, EXCLUDED, REFUSED)
OFFICIAL = (
    IDENTIFIED, REMOVED, SCREENED, EXCLUDED, SOUGHT, LOST, ASSESSED, REFUSED, STUDIES, REPORTS,
)  # fmt: skip
OF_OTHER = (IDENTIFIED, SOUGHT, LOST, ASSESSED, REFUSED)
REQUIRED = (IDENTIFIED, SCREENED, ASSESSED, STUDIES)
COLUMNS = ("box", "n")


@dataclass(frozen=True)
class Box:
    """One box of the diagram.

    Parameters
    ----------
    n : int
        Its count; the sum where it has parts.
    parts : tuple of (str, int)
        What its rows name after the box's own name, in order; empty where nothing is named.
    lines : tuple of int
        Lines of the file.
    """

    n: int
    parts: tuple[tuple[str, int], ...]
    lines: tuple[int, ...]


@dataclass(frozen=True)
class Flow:
    """Boxes by name: `main` of databases and registers, `other` of other methods (or empty)."""

    main: Mapping[str, Box]
    other: Mapping[str, Box]

    def n(self, name: str, column: str = "main") -> int | None:
        """Count of a box; None where it is not given."""
        box = (self.main if column == "main" else self.other).get(name)
        return None if box is None else box.n


def read_flow(path: Path) -> Flow:
    """Read the counts and check that they add up.

    Parameters
    ----------
    path : path
        CSV or TSV with the columns `box` and `n`: names of the PRISMA 2020 boxes, after a colon
        what a part of a box is (a database, a reason). Rows of the column of other methods begin
        with `Other methods:`.

    Returns
    -------
    Flow

    Raises
    ------
    InputError
        If a row cannot be used, a box is missing, or counts do not add up; every sum that does
        not is named with its lines.
    """
    lines, _ = read_lines(path)
    header = next((line for line in lines if line.strip()), "")
    separator = "\t" if "\t" in header else ";" if ";" in header and "," not in header else ","
    numbered = _cells(lines, separator, path)
    if not numbered or tuple(c.lower() for c in numbered[0][1][:2]) != COLUMNS:
        line = numbered[0][0] if numbered else 1
        raise InputError("has no header box,n; the first row names these two columns.", path, line)
    found: dict[tuple[bool, str], list[tuple[str, int, int]]] = {}
    for line, cells in numbered[1:]:
        other, name, part = _box(cells[0], path, line)
        n = _count(cells, path, line)
        have = found.setdefault((other, name), [])
        if have and (name not in PARTS or part in {p for p, *_ in have}):
            raise InputError(
                f"{shown(cells[0])} is already in line {have[-1][2]}; give each box once.",
                path,
                line,
            )
        have.append((part, n, line))
    boxes = {key: _sum(rows) for key, rows in found.items()}
    flow = Flow(*({n: b for (o, n), b in boxes.items() if o is side} for side in (False, True)))
    for name in REQUIRED:
        if name not in flow.main:
            raise InputError(f"has no row {name.capitalize()!r}; add it.", path)
    if flow.other and ASSESSED not in flow.other:
        raise InputError("has no row 'Other methods: Reports assessed for eligibility'.", path)
    if wrong := inconsistencies(flow):
        raise InputError("the counts do not add up: " + "; ".join(wrong) + ".", path)
    return flow


def _cells(lines: Sequence[str], separator: str, path: Path) -> list[tuple[int, list[str]]]:
    """Cells of the rows that hold something, with their lines."""
    rows = csv.reader(io.StringIO("\n".join(lines)), delimiter=separator)
    try:
        return [(rows.line_num, [c.strip() for c in r]) for r in rows if any(c.strip() for c in r)]
    except csv.Error as error:
        raise InputError(
            f"cannot be split into cells ({error}); check the quotes.", path, rows.line_num
        ) from error


def _box(text: str, path: Path, line: int) -> tuple[bool, str, str]:
    """Whether a row is of other methods, which box it is, and which part of it."""
    words = " ".join(text.split())
    other = words.lower().startswith(OTHER)
    if other:
        words = words[len(OTHER) :].lstrip(" :")
    bare = re.sub(r"[*†]", "", words)
    name = max((b for b in OFFICIAL if bare.lower().startswith(b)), key=len, default=None)
    if name is None or (other and name not in OF_OTHER):
        wanted = ", ".join(repr(b.capitalize()) for b in (OF_OTHER if other else OFFICIAL))
        raise InputError(
            f"{shown(text)} is no box of {'other methods' if other else 'the diagram'}; it must "
            f"begin with one of: {wanted}.",
            path,
            line,
        )
    part = bare[len(name) :].strip(" :")
    if part and name not in PARTS:
        raise InputError(
            f"{shown(text)}: the box {name.capitalize()!r} has no parts; write its name alone.",
            path,
            line,
        )
    return other, name, part


def _count(cells: Sequence[str], path: Path, line: int) -> int:
    cell = cells[1] if len(cells) > 1 else ""
    plain = re.sub(r"(?<=\d)[, \u00a0\u202f](?=\d{3}\b)", "", cell)
    if len([c for c in cells if c]) > 2 or not re.fullmatch(r"\d{1,9}", plain):
        raise InputError(
            f"{shown(cells[0])} has n = {shown(', '.join(cells[1:]))}; it must be one whole "
            "number (quote a box name that holds a comma).",
            path,
            line,
        )
    return int(plain)


def _sum(rows: Sequence[tuple[str, int, int]]) -> Box:
    parts = tuple((part, n) for part, n, _ in rows)
    named = parts if any(part for part, _ in parts) else ()
    return Box(sum(n for _, n in parts), named, tuple(line for *_, line in rows))


def inconsistencies(flow: Flow) -> list[str]:
    """Say every sum of the diagram that is not right, with the lines concerned.

    Parameters
    ----------
    flow : Flow
        The boxes. A box that is not given counts 0 where it is subtracted, and as what flows
        into it where it is passed.
    """
    wrong: list[str] = []
    ends: list[tuple[int, str]] = []
    for boxes, where in ((flow.main, ""), (flow.other, "other methods: ")):
        if not boxes:
            continue
        into, says = None, ""
        for name, less in ((SCREENED, REMOVED), (SOUGHT, EXCLUDED), (ASSESSED, LOST)):
            first, box = boxes.get(IDENTIFIED), boxes.get(name)
            if into is None:
                if first is None:  # other methods may begin with what was sought
                    into, says = (box.n, _said(name, box)) if box else (None, "")
                    continue
                into, says = first.n, _said(IDENTIFIED, first)
            out = boxes.get(less)
            left = into - (out.n if out else 0)
            minus = f" - {_said(less, out)}" if out else ""
            if box is None:
                if left < 0:
                    wrong.append(f"{where}{says}{minus} is below 0")
                into, says = left, f"{says}{minus}"
                continue
            if box.n != left:
                wrong.append(f"{where}{_said(name, box)} should be {says}{minus} = {left}")
            into, says = box.n, _said(name, box)
        assessed = boxes.get(ASSESSED)
        if assessed is not None:
            out = boxes.get(REFUSED)
            minus = f" - {_said(REFUSED, out)}" if out else ""
            ends.append(
                (assessed.n - (out.n if out else 0), f"{where}{_said(ASSESSED, assessed)}{minus}")
            )
    left, says = sum(n for n, _ in ends), " + ".join(text for _, text in ends)
    studies, reports = flow.main.get(STUDIES), flow.main.get(REPORTS)
    if reports is not None and reports.n != left:
        wrong.append(f"{_said(REPORTS, reports)} should be {says} = {left}")
    if studies is not None and studies.n > (left if reports is None else reports.n):
        most = f"{says} = {left}" if reports is None else _said(REPORTS, reports)
        wrong.append(f"{_said(STUDIES, studies)} is more than {most}")
    if studies is not None and studies.n == 0 < left:
        wrong.append(f"{_said(STUDIES, studies)}, but {says} = {left} reports are left")
    return wrong


def _said(name: str, box: Box) -> str:
    lines = ", ".join(map(str, box.lines))
    return f"{name} {box.n:,} (line{'s' * (len(box.lines) > 1)} {lines})"
