"""Files in and out. An input format is a module with `sniff` and a reader, and a line here."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from gpu_sdm.data import Dataset
from gpu_sdm.errors import InputError
from gpu_sdm.io import sdm_table


class Reader(NamedTuple):
    """How to recognise an input format and how to read it."""

    sniff: Callable[[Path], bool]
    read: Callable[[Path, bool], Dataset]


READERS: dict[str, Reader] = {
    "sdm": Reader(sdm_table.sniff, sdm_table.read_sdm_project),
}


def read(path: Path | str, compat: bool = False) -> Dataset:
    """Read studies and their peaks in any known format.

    Parameters
    ----------
    path : path
        The folder of an SDM project (sdm_table.txt and STUDY.SOFTWARE_SPACE.txt files).
    compat : bool
        Truncate converted millimetres toward zero, as SDM-PSI 6.21 does.

    Returns
    -------
    Dataset
        Studies in table order, and a notice for every doubt about them.

    Raises
    ------
    InputError
        If nothing readable is there, or a file cannot be used.
    """
    path = Path(path)
    try:
        for reader in READERS.values():
            if reader.sniff(path):
                return reader.read(path, compat)
        exists = path.exists()
    except OSError as exc:
        raise InputError(f"cannot be read ({exc.strerror or exc}).", path) from exc
    if not exists:
        raise InputError("does not exist; give the folder of an SDM project.", path)
    raise InputError(
        f"is not an SDM project; give a folder that holds {sdm_table.TABLE} and one peak file "
        "per study.",
        path,
    )
