"""Peak files `STUDY.SOFTWARE_SPACE.txt`: which belong to which study, and the rows in them."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Collection, Iterable
from pathlib import Path

import numpy as np

from gpu_sdm.coordinates import CONVERSIONS, to_mni
from gpu_sdm.data import Notice, Peaks
from gpu_sdm.errors import InputError
from gpu_sdm.io._keep_on import Ledger, noted
from gpu_sdm.io._text import LARGEST_T, number, read_lines, shown
from gpu_sdm.io.images import find_images
from gpu_sdm.spaces import ORIGIN_MM, SHAPES

NO_PEAKS = "no_peaks"
SUFFIXES = (*CONVERSIONS, NO_PEAKS)
MOST_PEAKS = 2_000_000  # of all studies
LONGEST_ROW = 1_000  # characters
IMAGE = "image"  # in place of a space: the file is the study's map
SIGNS = {"p": 1.0, "n": -1.0}

# Centres of the outermost voxels: a peak between them has its nearest voxels in every grid.
_CORNERS = np.array(
    [ORIGIN_MM, np.add(ORIGIN_MM, np.array((-2, 2, 2)) * (np.array(SHAPES[2]) - 1))]
)
BOX_LOW, BOX_HIGH = _CORNERS.min(axis=0), _CORNERS.max(axis=0)


def find_files(
    folder: Path, names: Collection[str], ledger: Ledger | None = None
) -> tuple[dict[str, tuple[Path, str]], list[Notice]]:
    """Assign the peak files and images of a folder to studies.

    Parameters
    ----------
    folder : path
        The project folder.
    names : collection of str
        The studies of the table.
    ledger : Ledger, optional
        Takes the errors; the files at fault are left out.

    Returns
    -------
    files : dict
        Study name to its file and space ("spm_mni", ..., "no_peaks", or "image").
    notices : list of Notice
        `unlisted_file` for every peak file whose study has no row.

    Raises
    ------
    InputError
        If a study has no file, two files or an unknown suffix.
    """
    files: dict[str, tuple[Path, str]] = {}
    notices = []
    listed = _listing(folder)
    images, preprocessed = find_images(listed, names, ledger)
    known = set(names)
    spoilt: set[str] = set()  # studies with a file that an error was noted of
    for path in listed:
        if not path.name.lower().endswith(".txt"):
            continue
        stem = unicodedata.normalize("NFC", path.name[:-4])
        study, _, suffix = stem.rpartition(".")
        if suffix.lower() in SUFFIXES and study:
            if study not in known:
                notices.append(Notice("unlisted_file", _unlisted(path, study, names)))
            elif study in files:
                with noted(ledger):
                    raise InputError(_two_files(study, files[study][0], path), path)
            else:
                files[study] = (path, suffix.lower())
        elif study in known or stem in known:
            found = f"the suffix {shown(suffix)} is unknown" if study in known else "has no suffix"
            name = study if study in known else stem
            spoilt.add(name)
            with noted(ledger):
                raise InputError(
                    f"{found}; name the file {name}.SOFTWARE_SPACE.txt with one of: "
                    f"{', '.join(SUFFIXES)}.",
                    path,
                )
    for name in names:
        image = images.get(name)
        if name in files:
            with noted(ledger):
                if image is not None:
                    raise InputError(_two_files(name, files[name][0], image), folder)
            continue
        image = image or preprocessed.get(name)
        if image is not None:
            files[name] = (image, IMAGE)
        elif name not in spoilt:
            with noted(ledger):
                raise InputError(
                    f"study {shown(name)} has no peak file; add {name}.SOFTWARE_SPACE.txt (for "
                    f"example {name}.spm_mni.txt), its map as {name}.nii.gz, or {name}.no_peaks.txt"
                    " if it found nothing.",
                    folder,
                )
    return files, notices


def _two_files(study: str, one: Path, other: Path) -> str:
    return f"study {shown(study)} has two files, {one.name} and {other.name}; keep one."


def _listing(folder: Path) -> list[Path]:
    """Visible files in an order that no file system changes."""
    return sorted((p for p in folder.iterdir() if not p.name.startswith(".")), key=lambda p: p.name)


def _unlisted(path: Path, study: str, names: Iterable[str]) -> str:
    near = [n for n in names if n.lower() == study.lower()]
    hint = f" (the table has {shown(near[0])}: case matters)" if near else ""
    return f"{path.name}: study {shown(study)} has no row in the table{hint}; it is not used."


def read_peaks(
    path: Path, space: str, study: str, t_threshold: float, compat: bool = False
) -> tuple[Peaks, list[Notice], str]:
    """Read the peaks of one study.

    Parameters
    ----------
    path : path
        The peak file: rows x, y, z, t; `p` or `n` in place of t where only the sign is known.
    space : str
        Space of the coordinates, or "no_peaks".
    study : str
        Study name, for messages.
    t_threshold : float
        The study's |t| threshold, taken for the height of `p` and `n`; NaN where not given.
    compat : bool
        Truncate converted millimetres toward zero, as SDM-PSI 6.21 does.

    Returns
    -------
    peaks : Peaks
    notices : list of Notice
        `unknown_height`, `peak_below_threshold`, `duplicate_peak`, `opposite_signs`, per peak.
    sha256 : str
        Content hash of the file.

    Raises
    ------
    InputError
        If a row is not three numbers and a height, a coordinate lies outside the brain's box, or
        the number of peaks contradicts the suffix.
    """
    lines, digest = read_lines(path)
    rows = [(i, line) for i, line in enumerate(lines, 1) if line.strip()]
    if space == NO_PEAKS and rows:
        raise InputError(
            "holds rows although its suffix is no_peaks; empty it, or rename it to the space of "
            f"its peaks (for example {study}.spm_mni.txt).",
            path,
            rows[0][0],
        )
    if space != NO_PEAKS and not rows:
        raise InputError(
            f"holds no peak; if the study found nothing, rename it to {study}.no_peaks.txt.", path
        )
    values, known = np.empty((len(rows), 4)), np.ones(len(rows), bool)
    for row, (line_number, line) in enumerate(rows):
        values[row], known[row] = _parse(line, path, line_number)
    numbers = np.array([i for i, _ in rows], int)
    reported, t = values[:, :3].copy(), values[:, 3].copy()
    t[~known] = np.copysign(t_threshold, t[~known])  # keeps the sign of a NaN
    xyz_mm = reported.copy() if space == NO_PEAKS else to_mni(reported, space)
    if compat:
        xyz_mm = np.trunc(xyz_mm) + 0.0  # -0 becomes 0
    check_box(xyz_mm, reported, path, numbers, f"the space {space} in the file name")
    peaks = Peaks(xyz_mm, reported, t, known, numbers, space, path.name)
    return peaks, peak_doubts(peaks, t_threshold), digest


def _parse(line: str, path: Path, line_number: int) -> tuple[list[float], bool]:
    """Three coordinates and t (or its sign), and whether t is known."""
    # A comma counts once, so that "1,,3,4" is a missing value and not three values.
    long = len(line) > LONGEST_ROW  # blanks would be searched through once for each of them
    cells = [] if long else re.split(r"\s*,\s*|\s+", re.sub(r"[\s,]+$", "", line.lstrip()))
    xyz = [number(c) for c in cells[:3]]
    if len(cells) == 4 and None not in xyz:
        sign, t = SIGNS.get(cells[3].lower()), number(cells[3])
        if t is not None and abs(t) > LARGEST_T:
            raise InputError(
                f"t = {t:g} is not a t statistic; check the columns.", path, line_number
            )
        if sign is not None or t is not None:
            return [*xyz, sign if t is None else t], t is not None  # type: ignore[list-item]
    raise InputError(
        f"found {shown(line.strip())}; a row is x, y, z in mm and t, all numbers with a decimal "
        "point, with p or n in place of a t whose height was not reported.",
        path,
        line_number,
    )


def check_box(
    xyz_mm: np.ndarray, reported: np.ndarray, path: Path, lines: np.ndarray, space: str
) -> None:
    """Refuse peaks outside the brain's box, which no grid could hold.

    `space` says where the space is stated, as the other thing that may be wrong.
    """
    outside = ((xyz_mm < BOX_LOW) | (xyz_mm > BOX_HIGH)).any(axis=1)
    if not outside.any():
        return
    row = int(outside.argmax())
    limits = ", ".join(
        f"{a} {lo:g} to {hi:g}" for a, lo, hi in zip("xyz", BOX_LOW, BOX_HIGH, strict=True)
    )
    raise InputError(
        f"the peak ({_place(reported[row])}) is at MNI ({_place(xyz_mm[row])}) mm, outside the "
        f"box {limits}; correct it, or {space}.",
        path,
        int(lines[row]),
    )


def _place(xyz: np.ndarray) -> str:
    return ", ".join(f"{v:.6g}" for v in xyz)


def peak_doubts(peaks: Peaks, t_threshold: float) -> list[Notice]:
    """Doubts about each peak: its height, whether it was given before."""
    notices = []
    first: dict[tuple[float, ...], dict[bool, int]] = {}
    for place, t, known, line in zip(
        peaks.xyz_reported, peaks.t, peaks.known, peaks.lines, strict=True
    ):
        where = f"{peaks.source}:{line}: "
        if not known:
            sign = "negative" if np.signbit(t) else "positive"
            notices.append(
                Notice("unknown_height", f"{where}the height of this {sign} peak is not reported.")
            )
        elif abs(t) < t_threshold:
            text = f"{where}|t| = {abs(t):g} is below the study's own threshold {t_threshold:g}."
            notices.append(Notice("peak_below_threshold", text))
        seen = first.setdefault(tuple(place + 0.0), {})
        negative = bool(np.signbit(t))
        text = f"{where}the peak at ({_place(place)}) was already given in line"
        if negative in seen:
            notices.append(Notice("duplicate_peak", f"{text} {seen[negative]}."))
        elif seen:
            other = next(iter(seen.values()))
            notices.append(Notice("opposite_signs", f"{text} {other} with the opposite sign."))
        seen.setdefault(negative, int(line))
    return notices
