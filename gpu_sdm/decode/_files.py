"""The files of a database, read so that a damaged or hostile one can only end in a sentence."""

from __future__ import annotations

import gzip
import io
import zipfile
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from gpu_sdm.errors import InputError

if TYPE_CHECKING:
    from pandas import DataFrame
    from scipy.sparse import csr_matrix

MOST_BYTES = 1 << 29  # of any file once unpacked; Neurosynth's peaks are 25 MB
ARCHIVE_ERRORS = (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile, zlib.error)


def _unpacked(path: Path) -> bytes:
    """Content of a file, unpacked where it ends with .gz; never more than `MOST_BYTES`."""
    try:
        with path.open("rb") as raw:
            if path.suffix == ".gz":
                with gzip.GzipFile(fileobj=raw) as plain:
                    content = plain.read(MOST_BYTES + 1)
            else:
                content = raw.read(MOST_BYTES + 1)
    except (OSError, EOFError, zlib.error) as error:
        raise InputError(
            f"cannot be read ({error}); it is damaged or cut short: download it again.", path
        ) from error
    if len(content) > MOST_BYTES:
        raise InputError(f"holds more than {MOST_BYTES:,} bytes once unpacked.", path)
    return content


def read_table(path: Path, texts: Sequence[str], numbers: Sequence[str] = ()) -> DataFrame:
    """Read columns of a tab-separated table.

    Parameters
    ----------
    path : path
        .tsv or .tsv.gz with a header.
    texts, numbers : sequence of str
        Columns to read as text and as finite numbers.

    Returns
    -------
    DataFrame
        Those columns.

    Raises
    ------
    InputError
        If it cannot be read, lacks a column, or a number is missing or none; names the row.
    """
    import pandas as pd

    content = _unpacked(path)
    wanted = [*texts, *numbers]
    try:
        header = content[: content.find(b"\n") + 1].decode("utf-8-sig").strip().split("\t")
        missing = [c for c in wanted if c not in header]
        if missing:
            raise InputError(
                f"has no column {missing[0]!r}; its columns are {', '.join(header)[:200]}.", path, 1
            )
        # Quoted titles and table names of NeuroQuery go on over several lines.
        table = pd.read_csv(
            io.BytesIO(content), sep="\t", usecols=wanted, dtype=str, keep_default_na=False,
            encoding="utf-8-sig", engine="c",
        )  # fmt: skip
    except (UnicodeDecodeError, ValueError, pd.errors.ParserError) as error:
        reason = " ".join(str(error).split())
        raise InputError(f"is not a tab-separated table ({reason}).", path) from error
    for column in numbers:
        values = pd.to_numeric(table[column], errors="coerce").to_numpy(np.float64)
        bad = np.flatnonzero(~np.isfinite(values))
        if len(bad):
            found = str(table[column].iloc[bad[0]])
            raise InputError(
                f"the {column} is {found!r} in row {int(bad[0]) + 1:,} below the header; wanted a "
                f"number ({len(bad)} such row(s)).",
                path,
            )
        table[column] = values
    return table


def read_lines(path: Path) -> tuple[str, ...]:
    """Lines of a UTF-8 file that are not blank.

    Raises
    ------
    InputError
        If it cannot be read.
    """
    try:
        text = _unpacked(path).decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise InputError(f"is not UTF-8 text (byte {error.start + 1}).", path) from error
    return tuple(line.strip() for line in text.split("\n") if line.strip())


def read_features(path: Path, shape: tuple[int, int]) -> csr_matrix:
    """Read the values of terms in studies.

    Parameters
    ----------
    path : path
        .npz of `scipy.sparse.save_npz`; pickled objects are refused.
    shape : (int, int)
        Studies and terms that it must hold.

    Returns
    -------
    (K, T) sparse float64

    Raises
    ------
    InputError
        If it is no such file, has another shape, or holds what is no finite, non-negative number.
    """
    from scipy import sparse

    try:
        with zipfile.ZipFile(path) as archive:
            size = sum(member.file_size for member in archive.infolist())
        if size > MOST_BYTES:
            raise InputError(f"holds more than {MOST_BYTES:,} bytes once unpacked.", path)
        # load_npz passes allow_pickle=False to NumPy: objects end in a ValueError.
        found: Any = sparse.load_npz(path)
        if found.format not in ("csr", "csc", "coo"):
            raise ValueError(f"it is stored as {found.format}, wanted csr, csc or coo")
        if found.shape != shape:
            raise InputError(
                f"has {found.shape[0]:,} studies and {found.shape[1]:,} terms; the table of "
                f"studies and the vocabulary have {shape[0]:,} and {shape[1]:,}.",
                path,
            )
        if found.format != "coo":  # which checks its indices when it is made
            found.check_format(full_check=True)  # one out of range would read foreign memory
        values: csr_matrix = found.tocsr().astype(np.float64)
    except (*ARCHIVE_ERRORS, TypeError, AttributeError) as error:
        reason = " ".join(str(error).split())[:200]
        raise InputError(
            f"is not a sparse table of terms as scipy.sparse.save_npz writes it ({reason}).", path
        ) from error
    if not (np.isfinite(values.data).all() and (values.data >= 0).all()):
        raise InputError("holds a value that is negative or no number.", path)
    return values
