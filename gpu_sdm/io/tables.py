"""Tables and JSON out, and the null's maxima in and out; every file whole or not there."""

from __future__ import annotations

import json
import math
import os
import re
from collections.abc import Iterable, Mapping, Sequence
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np

from gpu_sdm.errors import InputError, OutputError
from gpu_sdm.io._text import read_file, shown
from gpu_sdm.io.claimed import abandoned, remove

MISSING = "n/a"
# What a spreadsheet would compute, with any apostrophes that already stand before it; a number, a
# list of numbers and a lone sign are none.
FORMULA = re.compile(r"'*(?:[=@]|[-+](?![-+\d.,;\s]*(?:[eE][-+]?\d+)?$))")

# Columns of null/maxima.tsv by statistic (positive side, negative side) and their precision.
MAXIMA: dict[str, tuple[tuple[str, str], type[np.floating]]] = {
    "voxel": (("max_z", "max_neg_z"), np.float32),
    "tfce": (("max_tfce", "max_neg_tfce"), np.float64),
    "cluster-extent": (("max_extent", "max_neg_extent"), np.float64),
    "cluster-mass": (("max_mass", "max_neg_mass"), np.float64),
}


def write_bytes(path: Path, content: bytes) -> None:
    """Write a file so that at any moment it is the old one or the new one, never a part.

    Raises
    ------
    OutputError
        If it cannot be written; nothing is left behind.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    for left in abandoned(path, "tmp"):
        remove(left)
    try:
        with temporary.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
        sync_folder(path.parent)
    except OSError as error:
        remove(temporary)  # where the folder is no folder, not even that can be asked for
        raise OutputError(
            f"{path} cannot be written: {error.strerror or error}; choose a folder that you may "
            "write to, with room on its disk."
        ) from error


def new_folder(folder: Path) -> Path:
    """Make a folder to write into, unless it is there.

    Raises
    ------
    OutputError
        If it cannot be made.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(
            f"{folder} cannot be created ({error.strerror}); choose a folder in one that you may "
            "write to."
        ) from error
    return folder


def sync_folder(folder: Path) -> None:
    """Make renames in a folder durable."""
    if os.name != "posix":  # elsewhere a folder cannot be opened, and renames are durable
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def guarded(cell: str) -> str:
    """Text of a cell that no spreadsheet takes for a formula: an apostrophe before =, +, -, @.

    Examples
    --------
    >>> guarded("=1+1"), guarded("-4.5"), guarded("n/a")
    ("'=1+1", '-4.5', 'n/a')
    """
    return f"'{cell}" if FORMULA.match(cell) else cell


def unguarded(cell: str) -> str:
    """Take back what `guarded` did."""
    return cell[1:] if cell[:1] == "'" and FORMULA.match(cell) else cell


def _encoded(text: str) -> bytes:
    r"""UTF-8; bytes of a file name that are no UTF-8 as \udcNN, which JSON reads back."""
    return text.encode("utf-8", "backslashreplace")


def _cell(value: Any) -> str:
    if value is None:
        return MISSING
    if isinstance(value, (bool, np.bool_)):
        return "true" if value else "false"
    if isinstance(value, (float, np.floating)):
        # str of a NumPy float is the shortest text that reads back as the same value of its type.
        return MISSING if math.isnan(value) else str(value)
    if isinstance(value, (str, Path)):
        return guarded(" ".join(str(value).split()))
    return str(value)


def write_tsv(
    path: Path, columns: Sequence[str], rows: Iterable[Mapping[str, Any] | Sequence[Any]]
) -> None:
    """Write a tab-separated table with a header.

    Parameters
    ----------
    path : path
        Where.
    columns : sequence of str
        Header, in order.
    rows : iterable of mapping or of sequence
        Values by column name or in column order. Floats are written so that they read back
        equal; NaN and None as `n/a`; white space within text as one blank.

    Raises
    ------
    OutputError
        If the file cannot be written.
    """
    lines = ["\t".join(map(_cell, columns))]
    for row in rows:
        values = [row[c] for c in columns] if isinstance(row, Mapping) else list(row)
        if len(values) != len(columns):
            raise ValueError(f"A row of {path.name} has {len(values)} values, not {len(columns)}.")
        lines.append("\t".join(map(_cell, values)))
    write_bytes(path, _encoded("\n".join(lines) + "\n"))


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(k): _plain(v) for k, v in value.items()}
    if isinstance(value, np.ndarray):
        return _plain(value.tolist())
    if isinstance(value, (list, tuple)):
        return [_plain(v) for v in value]
    if isinstance(value, np.generic):
        return _plain(value.item())
    if isinstance(value, float) and not math.isfinite(value):
        return None  # JSON knows neither NaN nor infinity
    return str(value) if isinstance(value, Path) else value


def json_text(content: Mapping[str, Any]) -> str:
    """Give JSON in the order given, indented by 2.

    NumPy values become plain ones, paths text, NaN and infinities null.
    """
    return json.dumps(_plain(content), indent=2, ensure_ascii=False, allow_nan=False)


def write_json(path: Path, content: Mapping[str, Any]) -> None:
    """Write the JSON of `json_text`.

    Raises
    ------
    OutputError
        If the file cannot be written.
    """
    write_bytes(path, _encoded(json_text(content) + "\n"))


def stored_json(path: Path) -> dict[str, Any]:
    """Give the content of a file of `write_json`; empty where there is none, or another thing."""
    try:
        stored = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return {}
    return stored if isinstance(stored, dict) else {}


def _header(statistics: Iterable[str]) -> list[str]:
    return ["permutation", *(column for s in statistics for column in MAXIMA[s][0])]


# The headers that a null can have: any of the statistics, always in the order of MAXIMA.
HEADERS = {tuple(_header(s)): s for n in range(1, len(MAXIMA) + 1) for s in combinations(MAXIMA, n)}


def write_maxima(path: Path, maxima: Mapping[str, np.ndarray]) -> None:
    """Write null/maxima.tsv.

    Parameters
    ----------
    path : path
        Where.
    maxima : mapping of str to (2, P) float
        Statistic (a key of `MAXIMA`) to its maxima on the positive and negative side,
        permutation 0 (the observed one) first. z is held in float32, the others in float64.

    Raises
    ------
    OutputError
        If the file cannot be written.
    """
    statistics = tuple(s for s in MAXIMA if s in maxima)
    if not statistics or len(statistics) != len(maxima):
        raise ValueError(f"maxima holds {list(maxima)}; statistics are {list(MAXIMA)}.")
    columns: list[np.ndarray] = []
    for s in statistics:
        held = np.asarray(maxima[s]).astype(MAXIMA[s][1])
        if not np.array_equal(maxima[s], held):
            raise ValueError(f"The maxima of {s} do not fit {held.dtype} exactly, or hold NaN.")
        columns.extend(held)
    rows = ((i, *values) for i, values in enumerate(zip(*columns, strict=True)))
    write_tsv(path, _header(statistics), rows)


def read_maxima(path: Path, statistics: Sequence[str] | None = None) -> dict[str, np.ndarray]:
    """Read null/maxima.tsv, to the bit as it was written.

    Parameters
    ----------
    path : path
        The file.
    statistics : sequence of str, optional
        What it must hold; by default whatever it does.

    Returns
    -------
    dict of str to (2, P) float32 (voxel) or float64 (the others)
        Statistic to its maxima on the positive and the negative side.

    Raises
    ------
    InputError
        If the file is damaged: unreadable, cut short, a header, a permutation number or a value
        that is not what it must be.
    """
    try:
        text = read_file(path).decode()
    except UnicodeDecodeError as error:
        raise InputError(f"the null cannot be read: {error}.", path) from error
    if not text.endswith("\n"):
        raise InputError("the null is cut short; run the analysis anew with --force.", path)
    header, *lines = text[:-1].split("\n")
    held = HEADERS.get(tuple(header.split("\t")))
    if held is None or (statistics is not None and set(held) != set(statistics)):
        wanted = "\t".join(_header(statistics or tuple(MAXIMA)))
        raise InputError(f"the header is {shown(header)}, wanted {wanted!r}.", path, 1)
    if not lines:
        raise InputError("the null holds no permutation.", path)
    values = np.empty((2 * len(held), len(lines)))
    for number, line in enumerate(lines):
        cells = line.split("\t")
        if len(cells) != len(values) + 1 or cells[0] != str(number):
            raise InputError(
                f"wanted permutation {number} and {len(values)} values, found {shown(line)}.",
                path,
                number + 2,
            )
        try:
            values[:, number] = [float(cell) for cell in cells[1:]]
        except ValueError as error:
            raise InputError(f"{shown(line)} holds what is no number.", path, number + 2) from error
        if not (np.abs(values[:, number]) <= np.finfo(np.float32).max).all():
            raise InputError(f"{shown(line)} holds a value that is not finite.", path, number + 2)
    return {s: values[2 * i : 2 * i + 2].astype(MAXIMA[s][1]) for i, s in enumerate(held)}
