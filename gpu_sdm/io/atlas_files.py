"""Atlases as files: a NIfTI of region numbers or of probabilities, and a table of names."""

from __future__ import annotations

import csv
import re
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from gpu_sdm.errors import InputError
from gpu_sdm.io._json import parsed
from gpu_sdm.io._text import read_lines, shown
from gpu_sdm.io.volumes import read_volume

LABEL_FILES = (".csv", ".tsv", ".txt", ".json")
NUMBER_COLUMNS = ("index", "value", "number", "id")
NAME_COLUMNS = ("name", "label", "region")
LARGEST = 2**24  # beyond it single precision no longer holds every whole number


def _is_number(cell: str) -> bool:
    return re.fullmatch(r"\d{1,8}", cell.strip(), re.ASCII) is not None


def _json_names(path: Path, lines: list[str]) -> dict[int, str]:
    content = parsed("\n".join(lines), path)
    if not isinstance(content, dict) or not all(
        _is_number(k) and isinstance(v, str) and v.strip() for k, v in content.items()
    ):
        raise InputError(
            'wanted one JSON object of region numbers and names, e.g. {"1": "Insula_L"}.', path
        )
    names = {int(k): v.strip() for k, v in content.items()}
    if len(names) < len(content):  # "1" and "01"
        raise InputError("gives one region number twice; keep one name of each.", path)
    return names


def _columns(path: Path, header: list[str], line: int) -> tuple[int, int]:
    """Positions of number and name in a header row."""
    lower = [cell.strip().lower() for cell in header]
    found = [
        next((lower.index(c) for c in wanted if c in lower), None)
        for wanted in (NUMBER_COLUMNS, NAME_COLUMNS)
    ]
    number, name = found
    if number is None or name is None:
        wanted = f"{' or '.join(NUMBER_COLUMNS)}, and a column {' or '.join(NAME_COLUMNS)}"
        raise InputError(
            f"the header is {shown(' '.join(header))}; wanted a column {wanted}.", path, line
        )
    return number, name


def _rows(path: Path, lines: list[str], mark: str) -> Iterator[tuple[int, list[str]]]:
    reader = csv.reader((f"{line}\n" for line in lines), delimiter=mark)
    try:
        for cells in reader:
            if any(cell.strip() for cell in cells):
                yield reader.line_num, cells
    except csv.Error as error:
        raise InputError(
            f"cannot be split into cells ({error}); check the quotes.", path, reader.line_num
        ) from error


def read_region_names(path: Path | str) -> dict[int, str]:
    """Read the names of an atlas's regions.

    Parameters
    ----------
    path : path
        `.json`: an object of numbers and names. Otherwise a table separated by tabs, commas or
        semicolons with a header (`index`, `value`, `number` or `id`; `name`, `label` or
        `region`), or without one: number, name.

    Returns
    -------
    dict of int to str
        Region number -> name.

    Raises
    ------
    InputError
        If it cannot be read, a number is no whole number or appears twice, or a name is empty.
    """
    path = Path(path)
    lines, _ = read_lines(path)
    if path.suffix.lower() == ".json":
        return _json_names(path, lines)
    first = next((line for line in lines if line.strip("\t;, ")), "")
    mark = max("\t;,", key=first.count)
    names: dict[int, str] = {}
    number, name = 0, 1
    for row, (i, cells) in enumerate(_rows(path, lines, mark)):
        if row == 0 and not _is_number(cells[0]):
            number, name = _columns(path, cells, i)
            continue
        if len(cells) <= max(number, name):
            raise InputError(
                f"wanted a number and a name, found {shown(mark.join(cells))}.", path, i
            )
        key, region = cells[number].strip(), " ".join(cells[name].split())
        if not _is_number(key) or not region:
            raise InputError(
                f"wanted a whole number and a name, found {shown(key)} and {shown(region)}.",
                path,
                i,
            )
        if int(key) in names:
            raise InputError(f"region {key} appears a second time.", path, i)
        names[int(key)] = region
    if not names:
        raise InputError("holds no region; write a number and a name in each row.", path)
    return names


def labels_beside(path: Path) -> Path | None:
    """Table of names beside an atlas image: the same name with .csv, .tsv, .txt or .json."""
    stem = re.sub(r"\.nii(\.gz)?$", "", path.name, flags=re.I)
    found = (path.with_name(stem + suffix) for suffix in LABEL_FILES)
    return next((candidate for candidate in found if candidate.is_file()), None)


def read_atlas_file(path: Path | str) -> tuple[np.ndarray, np.ndarray, dict[int, str]]:
    """Read an atlas that a user brings.

    Parameters
    ----------
    path : path
        3-D NIfTI of whole numbers in MNI space, 0 where there is no region, on any grid. Names
        come from a table beside it (`labels_beside`).

    Returns
    -------
    volume : (X, Y, Z) int32
        Region numbers.
    affine : (4, 4) float64
        Voxel to MNI millimetres.
    regions : dict of int to str
        Names of the numbers in the volume; `region N` where none is given.

    Raises
    ------
    InputError
        If a file cannot be read, or the image holds other than whole numbers from 0 on.
    """
    path = Path(path)
    data, affine = read_volume(path)
    if not ((data >= 0) & (data < LARGEST) & (data == np.floor(data))).all():
        raise InputError(
            "an atlas holds whole numbers from 0 to 16777215, one for each region; this image "
            "holds others (a probability map becomes an atlas by naming its likeliest region).",
            path,
        )
    volume = data.astype(np.int32)
    beside = labels_beside(path)
    names = {} if beside is None else read_region_names(beside)
    there = [n for n in np.unique(volume).tolist() if n]
    if not there:
        raise InputError("the atlas is empty: every voxel is 0.", path)
    return volume, affine, {n: names.get(n, f"region {n}") for n in there}


def likeliest_region(path: Path, percent: int) -> tuple[np.ndarray, np.ndarray]:
    """Reduce probability maps to the likeliest region of each voxel.

    Parameters
    ----------
    path : path
        4-D NIfTI, one volume of percentages for each region.
    percent : int
        A voxel belongs to a region only where its probability is above this.

    Returns
    -------
    volume : (X, Y, Z) int32
        1 + the position of the largest probability (of equals the first); 0 where none is above
        `percent`.
    affine : (4, 4) float64
        Voxel to MNI millimetres.

    Notes
    -----
    Reads one region at a time: the whole would take some 500 MB.
    """
    import nibabel

    image = nibabel.load(path, keep_file_open=True)
    best = np.full(image.shape[:3], percent, image.get_data_dtype())
    volume = np.zeros(image.shape[:3], np.int32)
    for i in range(image.shape[3]):
        share = np.asarray(image.dataobj[..., i])
        higher = share > best
        volume[higher], best[higher] = i + 1, share[higher]
    return volume, np.asarray(image.affine, np.float64)
