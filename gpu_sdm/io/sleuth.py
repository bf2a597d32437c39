"""Foci as Sleuth exports and GingerALE reads them: coordinates and sample sizes, nothing else."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np

from gpu_sdm.data import Dataset, Notice
from gpu_sdm.errors import InputError
from gpu_sdm.io._keep_on import Ledger
from gpu_sdm.io._records import SIGN, PeakColumns, Record, to_dataset, unique_names
from gpu_sdm.io._table_rows import MOST_STUDIES, Row, too_many_studies
from gpu_sdm.io._text import first_text, number, read_lines, shown
from gpu_sdm.io._thresholds import Assumed
from gpu_sdm.io._write_flat import exact
from gpu_sdm.io.tables import write_bytes

REFERENCE = re.compile(r"//\s*reference\s*=\s*(.*)", re.IGNORECASE)
SUBJECTS = re.compile(r"//\s*subjects\s*=\s*(.*)", re.IGNORECASE)
SPACES = {"mni": "other_mni", "talairach": "other_tal", "tal": "other_tal"}


def sniff(path: Path) -> bool:
    """Whether `path` is a text file that begins with a // line."""
    return first_text(path, 4096).lstrip().startswith("//")


def read_sleuth(
    path: Path, compat: bool = False, assumed: Assumed | None = None, ledger: Ledger | None = None
) -> Dataset:
    """Read foci.

    Parameters
    ----------
    path : path
        UTF-8 text: `// Reference=MNI` or `Talairach`, then of each experiment `//` lines (its
        name, `// Subjects=N`) and rows x y z.
    compat : bool
        Truncate converted millimetres as SDM-PSI 6.21 does.
    assumed : Assumed, optional
        Threshold of the experiments; the format holds none, so there is an error without it.
    ledger : Ledger, optional
        Takes the errors of studies; reading goes on.

    Returns
    -------
    Dataset
        One one-sample study per experiment; every height unknown and positive.

    Raises
    ------
    InputError
        If a line cannot be used or `assumed` is missing.
    """
    lines, digest = read_lines(path)
    filled = [(i, line.strip()) for i, line in enumerate(lines, 1) if line.strip(" \t,")]
    if not filled or (first := REFERENCE.match(filled[0][1])) is None:
        raise InputError(
            "does not say its space; make its first line // Reference=MNI or // "
            "Reference=Talairach.",
            path,
            filled[0][0] if filled else None,
        )
    space = SPACES.get(first[1].strip().lower())
    if space is None:
        raise InputError(
            f"gives its space as {shown(first[1].strip())}; it must be MNI or Talairach.",
            path,
            filled[0][0],
        )
    found = _experiments(filled[1:], path)
    names, notices = unique_names((name for name, *_ in found), path)
    text = f"{path.name}: the format does not tell groups; every study is taken as one sample."
    notices.append(Notice("one_sample_assumed", text))
    records = [
        Record(
            Row(line, {"study": name, "n1": n}), space=space if len(peaks) else "no_peaks",
            peaks=peaks,
        )
        for name, (_, line, n, peaks) in zip(names, found, strict=True)
    ]  # fmt: skip
    return to_dataset(records, (), path, {path.name: digest}, notices, compat, assumed, ledger)


def _experiments(
    lines: list[tuple[int, str]], path: Path
) -> list[tuple[str, int, str, PeakColumns]]:
    """Name, line, sample size and peaks of each block of // lines and coordinates."""
    found: list[tuple[str, int, str, PeakColumns]] = []
    title: list[str] = []
    start, size, in_header = 0, "", False
    for i, line in lines:
        if line.startswith("//"):
            if not in_header:
                title, start, size, in_header = [], i, "", True
            subjects = SUBJECTS.match(line)
            if subjects:
                size = subjects[1].strip()
                found.append(("; ".join(title), start, size, PeakColumns()))
                if len(found) > MOST_STUDIES:
                    raise too_many_studies(path)
            elif size:  # an experiment without foci, and the next one's name
                title, start, size = [line.lstrip("/").strip()], i, ""
            else:
                title.append(line.lstrip("/").strip())
            continue
        if not size:
            raise InputError(
                "holds coordinates of an experiment without // Subjects=N; add its line.", path, i
            )
        in_header = False
        xyz = [number(c) for c in re.split(r"[\s,]+", line.strip(" \t,"))]
        if len(xyz) != 3 or None in xyz:
            raise InputError(
                f"found {shown(line)}; a row is x, y, z in mm, three numbers with a decimal point.",
                path,
                i,
            )
        found[-1][3].add((float(v) for v in xyz if v is not None), None, SIGN, i)
    if title and not size:
        raise InputError(
            f"ends within experiment {shown(title[0])}, which has no // Subjects=N.", path, start
        )
    return found


def write_sleuth(dataset: Dataset, path: Path) -> list[Notice]:
    """Write foci: positive peaks, in MNI unless all of them are in Talairach.

    Returns
    -------
    list of Notice
        What the format could not hold.
    """
    peaks = [s.peaks for s in dataset.studies]
    talairach = {p.space for p in peaks if len(p)} == {"other_tal"}
    blocks = [f"// Reference={'Talairach' if talairach else 'MNI'}\n"]
    negative, empty, two = 0, [], []
    for study in dataset.studies:
        p = study.peaks
        keep = ~np.signbit(p.t)
        negative += int((~keep).sum())
        two += [study.name] if study.two_sample else []
        if not keep.any():
            empty.append(study.name)
            continue
        xyz = (p.xyz_reported if talairach else p.xyz_mm)[keep]
        rows = ("\t".join(map(exact, place)) for place in xyz)
        blocks.append("\n".join([f"// {study.name}", f"// Subjects={study.n}", *rows]) + "\n")
    write_bytes(path, "\n".join(blocks).encode())
    lost = ["heights, thresholds, covariates and kinds of coordinates are not written"]
    if not talairach and any(not p.space.endswith("mni") for p in peaks if len(p)):
        lost.append("coordinates are written as MNI")
    if negative:
        lost.append(f"{negative:,} negative peaks are left out, as foci have no sign")
    if empty:
        lost.append(f"{len(empty)} studies without positive peaks are left out")
    if two:
        lost.append(f"{len(two)} two-sample studies become one sample of n1 + n2")
    return [Notice("not_written", f"{path.name}: {text}.") for text in lost]
