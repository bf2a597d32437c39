"""What a result folder holds besides the run's own files: kept when the result is replaced."""

from __future__ import annotations

import hashlib
import os
import re
import shutil
from collections.abc import Iterator
from pathlib import Path, PurePath

from gpu_sdm.config import Settings
from gpu_sdm.errors import OutputError
from gpu_sdm.io.nifti import MAPS
from gpu_sdm.io.tables import stored_json

OWN_FOLDERS = ("maps", "null", "tables")
OWN_TABLE = re.compile(r"^(studies|peaks|coefficients|clusters_.+)\.tsv$")
# What commands on a result write into it: stale once the null behind it is another.
FINDINGS = frozenset(
    {
        "bias", "conjunction", "contrast", "decode", "extract", "figures", "grade",
        "heterogeneity", "jackknife", "methods.md", "plots", "report", "report.html", "roi",
        "tail", "thresholds",
    }
)  # fmt: skip
# Of these the tables are stale but not the long work behind them, which their command checks.
RESUMED = {"jackknife": ("folds", "folds-permuted", "jackknife.json")}
EARLIER = "earlier"


def is_own(path: PurePath) -> bool:
    """Whether a file, relative to the result folder, is one that the run itself writes."""
    if len(path.parts) == 1:
        return path.name == "run.json"
    if len(path.parts) != 2:
        return False
    folder, name = path.parts
    if folder == "maps":
        return name.endswith(".nii.gz") and name.removesuffix(".nii.gz") in MAPS
    if folder == "null":
        return name == "maxima.tsv"
    return folder == "tables" and OWN_TABLE.match(name) is not None


def foreign(folder: Path) -> list[Path]:
    """List what a result folder holds besides the run's own files, relative to it.

    A folder without any of them is one entry.
    """
    found: list[Path] = []
    for entry in sorted(folder.iterdir()):
        mixed = entry.name in OWN_FOLDERS and entry.is_dir() and not entry.is_symlink()
        for each in sorted(entry.iterdir()) if mixed else [entry]:
            relative = each.relative_to(folder)
            if not is_own(relative):
                found.append(relative)
    return found


def _moves(folder: Path, aside: str, extended: bool) -> Iterator[tuple[Path, Path]]:
    """Yield where each foreign entry belongs, both relative: findings last."""
    entries = foreign(folder)
    findings = [e for e in entries if e.parts[0] in FINDINGS]
    yield from ((e, e) for e in entries if e not in findings)
    for entry in findings:
        kept = RESUMED.get(entry.name, ()) if extended else ()
        if not kept or not (folder / entry).is_dir():
            yield entry, Path(EARLIER, aside, entry)
            continue
        for child in sorted((folder / entry).iterdir()):
            each = entry / child.name
            yield each, each if child.name in kept else Path(EARLIER, aside, each)


def _free(path: Path) -> Path:
    """Give a path at which nothing is: itself, or with a number."""
    tried, number = path, 1
    while os.path.lexists(tried):
        tried, number = path.with_name(f"{path.name}.{number}"), number + 1
    return tried


def carry_over(old: Path, new: Path, extended: bool, permutations: int | None) -> list[Path]:
    """Move what is not the run's own from a replaced result into the new one.

    Findings of the old null go to `earlier/NAME/` of the new folder, everything else to its own
    place. Every entry moves by one rename: interrupted, the same call goes on.

    Parameters
    ----------
    old, new : path
        Result folders of one file system; `old` keeps its own files.
    extended : bool
        The new result has the settings and input of the old one and more permutations.
    permutations : int, optional
        Those of the old one.

    Returns
    -------
    list of path
        Folders and files that were moved aside, relative to `new`.

    Raises
    ------
    OSError
        If something cannot be moved; it stays in `old`.
    """
    name = f"{permutations}-permutations"
    if not extended or permutations is None:
        run = old / "run.json"
        name = "replaced-" + hashlib.sha256(run.read_bytes() if run.exists() else b"").hexdigest()
        name = name[:17]
    aside = []
    for source, target in list(_moves(old, name, extended)):
        there = _free(new / target)
        there.parent.mkdir(parents=True, exist_ok=True)
        (old / source).rename(there)
        if target != source:
            aside.append(there.relative_to(new))
    return aside


def put_back(replaced: Path, out: Path) -> str:
    """Complete the replacing of a result that may have been interrupted at any moment.

    Parameters
    ----------
    replaced : path
        Where OUT was moved to.
    out : path
        OUT: the new result; or nothing, then the old one is put back.

    Returns
    -------
    str
        What became of earlier findings, in a sentence; empty where there were none.

    Raises
    ------
    OutputError
        If something cannot be moved; it stays in `replaced`.
    """
    try:
        if not (out / "run.json").exists():
            if out.exists():
                out.rmdir()
            replaced.rename(out)
            return ""
        old, new = stored_json(replaced / "run.json"), stored_json(out / "run.json")
        same = old.get("content") == new["content"] and not Settings.from_dict(
            new["settings"]
        ).differences(old.get("settings", {}))
        aside = carry_over(replaced, out, same, old.get("permutations"))
    except OSError as exc:
        raise OutputError(
            f"{replaced} holds what was in {out} and cannot be moved there ({exc.strerror}); "
            "move it yourself."
        ) from exc
    # Renamed first: what is half removed must never be taken for what OUT was.
    rubbish = replaced.with_name("rubbish")
    shutil.rmtree(rubbish, ignore_errors=True)
    replaced.rename(rubbish)
    shutil.rmtree(rubbish, ignore_errors=True)
    if not aside:
        return ""
    folder = Path(*aside[0].parts[:2])
    names = sorted({str(path.relative_to(folder)) for path in aside})
    return (
        f"findings of the result that was replaced are kept in {out / folder} "
        f"({', '.join(names)}): they come from the earlier null; give their commands again."
    )
