"""Writing a Dataset in another format: whole or not at all, and read back before it counts."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np

from gpu_sdm.data import Dataset, Notice, Study
from gpu_sdm.errors import GpuSdmError, OutputError, SettingError
from gpu_sdm.io import read_all
from gpu_sdm.io._text import number, shown
from gpu_sdm.io._write_flat import write_csv, write_sdm, write_tsv_table, write_xlsx
from gpu_sdm.io._write_nimads import write_nimads
from gpu_sdm.io.images import ENDINGS
from gpu_sdm.io.sdm_table import TABLE
from gpu_sdm.io.sleuth import write_sleuth
from gpu_sdm.io.tables import sync_folder


class Writer(NamedTuple):
    """How a format is written, and what names it."""

    write: Callable[[Dataset, Path], list[Notice]]
    suffix: str  # "" for a folder
    exact: bool  # whether what it holds of peaks and thresholds reads back the same


WRITERS: dict[str, Writer] = {
    "sdm": Writer(write_sdm, "", True),
    "csv": Writer(write_csv, ".csv", True),
    "tsv": Writer(write_tsv_table, ".tsv", True),
    "xlsx": Writer(write_xlsx, ".xlsx", True),
    "sleuth": Writer(write_sleuth, ".txt", False),
    "nimads": Writer(write_nimads, ".json", True),
}


def format_for(out: Path, to: str | None = None) -> str:
    """Format to write, a key of `WRITERS`: as asked for, else from the name.

    Raises
    ------
    SettingError
        If neither says it.
    """
    if to is not None:
        if to not in WRITERS:
            raise SettingError(f"--to is {to!r}; it must be one of: {', '.join(WRITERS)}.")
        return to
    for name, writer in WRITERS.items():
        if out.suffix.lower() == writer.suffix:
            return name
    endings = ", ".join(f"{w.suffix or 'a folder'} ({n})" for n, w in WRITERS.items())
    raise SettingError(f"{out}: the name says no format; end it as one of {endings}, or give --to.")


def convert(
    dataset: Dataset, out: Path | str, to: str | None = None, force: bool = False
) -> tuple[Notice, ...]:
    """Write a Dataset.

    Parameters
    ----------
    dataset : Dataset
        What was read.
    out : path
        File, or folder of an SDM project.
    to : {"sdm", "csv", "tsv", "xlsx", "sleuth", "nimads"}, optional
        Format; by default that of the suffix (none: an SDM project).
    force : bool
        Replace what is at `out`.

    Returns
    -------
    tuple of Notice
        What the format cannot hold, and so was not written.

    Raises
    ------
    OutputError
        If something is at `out`, it cannot be written, or does not read back as it was; then
        nothing changes.
    SettingError
        If the format is not clear.

    Examples
    --------
    >>> from gpu_sdm.io import read
    >>> convert(read(project), folder / "studies.csv")
    ()
    >>> read(folder / "studies.csv").names == read(project).names
    True
    """
    out = Path(out)
    name = format_for(out, to)
    writer = WRITERS[name]
    if (out.exists() or out.is_symlink()) and not force:
        raise OutputError(f"{out} exists; choose another name, or replace it with --force.")
    if out.exists() and not _replaceable(out, name):
        raise OutputError(f"{out} is no {name} that could be replaced; choose another name.")
    inputs = [dataset.path, *(s.image.path for s in dataset.studies if s.image is not None)]
    if any(i.exists() and out.exists() and i.samefile(out) for i in inputs):
        raise OutputError(f"{out} is the input itself; choose another name.")
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=f".{out.name}.", dir=out.parent) as scratch:
            made = Path(scratch) / out.name
            if name == "sdm":
                made.mkdir()
            notices = writer.write(dataset, made)
            if writer.exact:
                _check(dataset, made, name)
            _put(made, out, Path(scratch))
    except OSError as error:
        raise OutputError(
            f"{out} cannot be written: {error.strerror or error}; choose a folder that you may "
            "write to."
        ) from error
    return tuple(notices)


def _replaceable(out: Path, name: str) -> bool:
    """Whether nothing else than such an output is lost with what is at `out`."""
    if name != "sdm":
        return out.is_file()
    if not out.is_dir():
        return False
    names = {p.name.lower(): p.is_file() for p in out.iterdir()}
    ours = all(file and name.endswith((".txt", *ENDINGS)) for name, file in names.items())
    return ours and (TABLE in names or not names)  # somebody's notes are text files too


def _put(made: Path, out: Path, scratch: Path) -> None:
    """Move what was made to `out`."""
    old = scratch / "old"  # removed with the scratch
    if made.is_dir() and out.exists():
        out.rename(old)
    try:
        made.replace(out)
    except OSError:
        if old.exists():
            old.rename(out)
        raise
    sync_folder(out.parent)


def _check(dataset: Dataset, made: Path, name: str) -> None:
    """Read back what was written, and compare."""
    wanted = [s for s in dataset.studies if name == "sdm" or s.image is None]
    if len(wanted) < 2:
        raise OutputError(f"{made.name}: fewer than 2 studies have peaks to write.")
    try:
        lost = differences(wanted, read_all(made).studies)
    except GpuSdmError as error:
        lost = [str(error)]
    if lost:
        raise OutputError(f"{name} cannot hold this input: {lost[0]}")


def differences(one: tuple[Study, ...] | list[Study], other: tuple[Study, ...]) -> list[str]:
    """Say in what the studies of two datasets differ, one sentence each.

    Compared are names, groups, thresholds, peaks (in MNI, to 1e-9 mm; t to 1e-12), which heights
    are known, corrections, covariates and labels; not the reported kinds, nor lines and files.
    """
    if [s.name for s in one] != [s.name for s in other]:
        return ["the studies are not the same."]
    found = []
    for a, b in zip(one, other, strict=True):
        parts = {
            "n": (a.n1, a.n2) == (b.n1, b.n2),
            "threshold": _same(np.array(a.t_threshold), np.array(b.t_threshold), 1e-12),
            "correction": a.correction == b.correction,
            "number of peaks": len(a.peaks) == len(b.peaks),
            "image": (a.image is None) == (b.image is None),
        }
        if parts["number of peaks"]:
            parts["coordinates"] = _same(a.peaks.xyz_mm, b.peaks.xyz_mm, 1e-9)
            parts["t"] = _same(a.peaks.t, b.peaks.t, 1e-12)
            parts["known heights"] = np.array_equal(a.peaks.known, b.peaks.known)
            parts["signs"] = np.array_equal(np.signbit(a.peaks.t), np.signbit(b.peaks.t))
        held = _facts(b)
        for column, value in _facts(a).items():
            parts[f"column {column}"] = column not in held or held[column] == value
        found += [f"study {shown(a.name)} would differ in {p}." for p, same in parts.items()
                  if not same]  # fmt: skip
    return found


def _same(a: np.ndarray, b: np.ndarray, tolerance: float) -> bool:
    return a.shape == b.shape and np.allclose(a, b, rtol=tolerance, atol=tolerance, equal_nan=True)


def _facts(study: Study) -> dict[str, float | str]:
    """Covariates and labels; whether a column is one or the other depends on the other studies."""
    facts: dict[str, float | str] = {c: v for c, v in study.covariates.items() if v == v}
    for column, text in study.labels.items():
        plain = " ".join(text.split())
        value = number(plain)
        if plain:
            facts[column] = plain if value is None else value
    return facts
