"""Files in and out. An input format is a module with `sniff` and a reader, and a line here."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from gpu_sdm.data import Dataset
from gpu_sdm.errors import InputError
from gpu_sdm.io import flat, nimads, nimare_files, sdm_table, sleuth, xlsx
from gpu_sdm.io._keep_on import Ledger
from gpu_sdm.io._text import unreadable
from gpu_sdm.io._thresholds import Assumed, with_unused

__all__ = ["READERS", "Assumed", "Reader", "read", "read_all"]


class Reader(NamedTuple):
    """How to recognise an input format and how to read it."""

    title: str
    sniff: Callable[[Path], bool]
    read: Callable[[Path, bool, Assumed | None, Ledger | None], Dataset]


def _read_sdm(path: Path, compat: bool, assumed: Assumed | None, ledger: Ledger | None) -> Dataset:
    if assumed is None:
        return sdm_table.read_sdm_project(path, compat, ledger)
    own = Ledger()
    dataset = with_unused(sdm_table.read_sdm_project(path, compat, own), own, assumed)
    errors = own.errors_with(len(dataset.studies))
    if ledger is not None:
        ledger.errors += errors
        ledger.names += own.names
    elif errors:
        raise errors[0]
    return dataset


READERS: dict[str, Reader] = {
    "sdm": Reader("SDM project folder", sdm_table.sniff, _read_sdm),
    "flat": Reader("CSV or TSV with columns study, n1, x, y, z ...", flat.sniff, flat.read_flat),
    "xlsx": Reader("the same as XLSX", xlsx.sniff, xlsx.read_xlsx),
    "sleuth": Reader("Sleuth/GingerALE foci (// Reference=MNI)", sleuth.sniff, sleuth.read_sleuth),
    "nimads": Reader("NIMADS studyset JSON", nimads.sniff, nimads.read_nimads),
    "nimare": Reader("NiMARE Dataset JSON", nimare_files.sniff, nimare_files.read_nimare),
    "parquet": Reader(
        "NiMARE studyset folder of parquet tables",
        nimare_files.sniff_parquet,
        nimare_files.read_parquet,
    ),
}


def format_of(path: Path) -> str:
    """Format of an input, a key of `READERS`, from its content.

    Raises
    ------
    InputError
        If there is nothing, nothing known, or what two formats could be.
    """
    try:
        fits = [name for name, reader in READERS.items() if reader.sniff(path)]
        exists = path.exists()
    except OSError as exc:
        raise unreadable(exc, path) from exc
    if len(fits) == 1:
        return fits[0]
    if fits:
        raise InputError(
            f"looks like {' and like '.join(READERS[f].title for f in fits)}; leave in it what "
            "belongs to one of them.",
            path,
        )
    formats = "; ".join(r.title for name, r in READERS.items() if name != "sdm")
    if not exists:
        raise InputError(
            f"does not exist; give the folder of an SDM project, or one of: {formats}.", path
        )
    if path.is_dir():
        raise InputError(
            f"is not an SDM project; give a folder that holds {sdm_table.TABLE} and one peak file "
            f"per study, or one of: {formats}.",
            path,
        )
    raise InputError(
        f"is not an SDM project ({sdm_table.TABLE} and one peak file per study) nor anything else "
        f"that can be read: {formats}.",
        path,
    )


def read(
    path: Path | str,
    compat: bool = False,
    assumed: Assumed | None = None,
    ledger: Ledger | None = None,
) -> Dataset:
    """Read studies and their peaks in any known format.

    Parameters
    ----------
    path : path
        An SDM project folder (sdm_table.txt and STUDY.SOFTWARE_SPACE.txt files), a CSV, TSV or
        XLSX file, Sleuth foci, a NiMARE or NIMADS file; recognised from its content.
    compat : bool
        Truncate converted millimetres toward zero, as SDM-PSI 6.21 does.
    assumed : Assumed, optional
        p value that stands in for thresholds that the input does not give.
    ledger : Ledger, optional
        Takes the errors of single studies; reading goes on.

    Returns
    -------
    Dataset
        Studies in table order, and a notice for every doubt about them.

    Raises
    ------
    InputError
        If nothing readable is there, or a file cannot be used.
    SettingError
        If `assumed` cannot be a threshold.

    Examples
    --------
    >>> dataset = read(project)
    >>> dataset.names[:2], len(dataset.studies)
    (('study00', 'study01'), 6)
    """
    path = Path(path)
    if assumed is not None:
        assumed.check()
    name = format_of(path)
    try:
        return READERS[name].read(path, compat, assumed, ledger)
    except OSError as exc:
        raise unreadable(exc, path) from exc


def read_all(path: Path | str, assumed: Assumed | None = None) -> Dataset:
    """Read an input with the studies of unknown threshold, which an analysis would leave out.

    Their `t_threshold` is NaN; other arguments and errors are those of `read`.

    Examples
    --------
    >>> len(read_all(project).studies)
    6
    """
    path, ledger = Path(path), Ledger()
    dataset = with_unused(read(path, assumed=assumed, ledger=ledger), ledger, None)
    errors = ledger.errors_with(len(dataset.studies))
    if errors:
        raise errors[0]
    return dataset
