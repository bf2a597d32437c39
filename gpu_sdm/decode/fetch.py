"""Download a database once, through NiMARE, into the user's cache folder."""

from __future__ import annotations

import contextlib
import importlib
import os
import shutil
import sys
import warnings
from pathlib import Path
from typing import Any

from gpu_sdm.decode.database import KNOWN, Database, default_folder, open_database
from gpu_sdm.errors import InputError, OutputError, SettingError
from gpu_sdm.io.claimed import abandoned, remove

# What is fetched of all that NiMARE offers: Neurosynth's 400 topics alone are larger than this.
SELECTION: dict[str, dict[str, Any]] = {
    "neurosynth": {"source": "abstract", "vocab": ["terms", "LDA50"]},
    "neuroquery": {"source": "abstract", "vocab": "neuroquery7547"},
}


def _extract() -> Any:
    """NiMARE's module of downloads."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about versions of its dependencies
            return importlib.import_module("nimare.extract")
    except ImportError as error:
        raise SettingError(
            f"--fetch downloads through NiMARE, which cannot be imported here ({error}); install "
            "it with pip install 'gpu-sdm[nimare]', or give a folder with --database."
        ) from error


def _by_hand(name: str) -> str:
    known = KNOWN[name]
    return (
        f"with a network, get the version-{known.version} files from {known.home} and give their "
        "folder with --database DIR"
    )


def fetch(name: str) -> Database:
    """Download a database, unless it is there.

    Parameters
    ----------
    name : {"neurosynth", "neuroquery"}
        Which one.

    Returns
    -------
    Database
        Opened, in `default_folder(name)`. The folder is whole or not there.

    Raises
    ------
    SettingError
        If there is no such database, or NiMARE is missing.
    InputError
        If it cannot be downloaded, e.g. offline, or what came is damaged.
    OutputError
        If it cannot be kept.
    """
    if name not in KNOWN:
        raise SettingError(f"--database is {name!r}; to fetch there are: {', '.join(KNOWN)}.")
    folder = default_folder(name)
    if folder.is_dir():
        return open_database(folder)
    extract = _extract()
    for left in abandoned(folder, "partial"):
        remove(left)
    partial = folder.with_name(f".{name}.{os.getpid()}.partial")
    try:
        try:
            partial.mkdir(parents=True)
        except OSError as error:
            raise OutputError(
                f"{partial} cannot be created ({error.strerror}); set GPU_SDM_CACHE to a folder "
                "that you may write to."
            ) from error
        _download(extract, name, partial)
        inner = partial / name
        database = open_database(inner if inner.is_dir() else partial)
        try:
            database.folder.rename(folder)
        except OSError as error:
            if not folder.is_dir():  # else another process was faster
                raise OutputError(
                    f"{folder} cannot be written ({error.strerror}); set GPU_SDM_CACHE to another "
                    "folder."
                ) from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return open_database(folder)


def _download(extract: Any, name: str, folder: Path) -> None:
    get = getattr(extract, f"fetch_{name}")
    # NiMARE prints to stdout, which is ours for the result.
    with contextlib.redirect_stdout(sys.stderr), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it calls frozen databases deprecated
        try:
            get(
                data_dir=str(folder),
                version=KNOWN[name].version,
                return_type="files",
                **SELECTION[name],
            )
        except OSError as error:  # URLError and all that a network does wrong
            reason = getattr(error, "reason", None) or error
            raise InputError(
                f"{KNOWN[name].title} could not be downloaded ({reason}): is this machine offline? "
                f"Otherwise, {_by_hand(name)}."
            ) from error
        except Exception as error:  # NiMARE's own, of any kind
            raise InputError(
                f"NiMARE could not download {KNOWN[name].title} ({type(error).__name__}: {error}); "
                f"{_by_hand(name)}."
            ) from error


def database_of(
    text: str | None, vocabulary: str | None = None, talairach: bool = False
) -> Database:
    """Open what --database means: a folder, or the name of a database that was fetched.

    Raises
    ------
    InputError
        If it is not there; says how to fetch it.
    """
    name = text or next(iter(KNOWN))
    if Path(name).is_dir():
        return open_database(name, vocabulary, talairach)
    if name not in KNOWN:
        raise InputError(
            f"there is no such folder; give one, or the name of a fetched database "
            f"({', '.join(KNOWN)}).",
            name,
        )
    folder = default_folder(name)
    if not folder.is_dir():
        raise InputError(
            f"{KNOWN[name].title} is not on this machine; download it once with gpu-sdm decode "
            f"--fetch --database {name}, or give a folder with --database DIR."
        )
    return open_database(folder, vocabulary, talairach)
