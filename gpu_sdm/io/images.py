"""Statistical maps of studies, `STUDY.nii.gz`: which belong to which study, and their headers."""

from __future__ import annotations

import hashlib
import itertools
import unicodedata
from collections.abc import Collection, Iterable
from pathlib import Path

import numpy as np

from gpu_sdm.data import ImageFile, Notice
from gpu_sdm.errors import InputError
from gpu_sdm.io._keep_on import Ledger, noted
from gpu_sdm.io._nifti_file import Header, read_header, sha256
from gpu_sdm.io._text import shown

ENDINGS = (".nii.gz", ".nii")
# What AES-SDM writes of a study: Hedges g, and its variance as pp_STUDY_var.
PREPROCESSED = "pp_"
KINDS = {
    "t": "t statistic",
    "z": "z statistic",
    "g": "Hedges g",
    "d": "Cohen d",
    "contrast": "contrast, with its standard error",
}
COMPANIONS = {"g": "_var", "d": "_var", "contrast": "_se"}
NEEDS_COMPANION = ("contrast",)


def stem_of(path: Path) -> str | None:
    """File name without .nii or .nii.gz, as names of studies are spelt; None for other files."""
    written = _as_written(path)
    return None if written is None else unicodedata.normalize("NFC", written)


def _as_written(path: Path) -> str | None:
    for ending in ENDINGS:
        if path.name.lower().endswith(ending):
            return path.name[: -len(ending)]
    return None


def find_images(
    files: Iterable[Path], names: Collection[str], ledger: Ledger | None = None
) -> tuple[dict[str, Path], dict[str, Path]]:
    """Assign the images of a folder to studies; a ledger takes the errors.

    Returns
    -------
    images : dict
        Study name to its STUDY.nii.gz or STUDY.nii.
    preprocessed : dict
        Study name to its pp_STUDY.nii.gz, as AES-SDM writes for every study, those with peaks
        included.

    Raises
    ------
    InputError
        If a study has both STUDY.nii.gz and STUDY.nii.
    """
    images: dict[str, Path] = {}
    preprocessed: dict[str, Path] = {}
    names = set(names)
    for path in files:
        stem = stem_of(path)
        if stem is None:
            continue
        if stem in names:
            found, study = images, stem
        elif stem.removeprefix(PREPROCESSED) in names:
            found, study = preprocessed, stem.removeprefix(PREPROCESSED)
        else:
            continue
        with noted(ledger):
            if study in found:
                raise InputError(
                    f"study {shown(study)} has two files, {found[study].name} and {path.name}; "
                    "keep one.",
                    path,
                )
            found[study] = path
    return images, preprocessed


def inspect_image(
    path: Path, study: str, kind: str, names: Collection[str]
) -> tuple[ImageFile, list[Notice], dict[str, str]]:
    """Check the headers of a study's map and of the file that belongs to it.

    Parameters
    ----------
    path : path
        STUDY.nii.gz, STUDY.nii, or pp_STUDY.nii.gz.
    study : str
        Study name.
    kind : {"", "t", "z", "g", "d", "contrast"}
        What the map holds; empty: t, as SDM has it.
    names : collection of str
        All studies: STUDY_var.nii.gz may be another study's own map.

    Returns
    -------
    image : ImageFile
    notices : list of Notice
        `companion_unused`.
    sha256 : dict
        Content hash of each file.

    Raises
    ------
    InputError
        If a header cannot be used, a contrast has no standard error, or the only map is a pp_
        file of which the table does not say that it holds effect sizes.
    """
    stem, written, notices = stem_of(path) or "", _as_written(path) or "", []
    if stem not in names and kind not in ("g", "d"):
        raise InputError(
            f"study {shown(study)} has only this map, which AES-SDM may have made from peaks; if "
            "it was made from the study's own map, say g in the table's column image, else add "
            f"{study}.SOFTWARE_SPACE.txt or {study}.nii.gz.",
            path,
        )
    kind = kind or "t"
    beside = {
        suffix: [p for e in ENDINGS if (p := path.with_name(written + suffix + e)).is_file()]
        for suffix in ("_var", "_se")
        if stem + suffix not in names
    }
    wanted = COMPANIONS.get(kind, "")
    found = beside.pop(wanted, [])
    if len(found) > 1:
        raise InputError(
            f"study {shown(study)} has two files, {found[0].name} and {found[1].name}; keep one.",
            found[0],
        )
    if not found and kind in NEEDS_COMPANION:
        raise InputError(
            f"study {shown(study)} has a contrast without its standard error; add "
            f"{stem}{wanted}.nii.gz on the same grid.",
            path,
        )
    for unused in itertools.chain(*beside.values()):
        text = f"{unused.name} is not used, as {path.name} is read as {kind}; say in the table's"
        text += " column image what that map holds (t, z, g, d or contrast)."
        notices.append(Notice("companion_unused", text))
    companion = found[0] if found else None
    header = read_header(path)
    hashes = {path.name: sha256(path)}
    if companion is not None:
        if not _same_grid(header, read_header(companion)):
            raise InputError(f"lies on another grid than {path.name}.", companion)
        hashes[companion.name] = sha256(companion)
    digest = hashlib.sha256("".join(hashes.values()).encode()).hexdigest()
    return ImageFile(path, kind, companion, header.shape, header.affine, digest), notices, hashes


def _same_grid(one: Header, other: Header) -> bool:
    return one.shape == other.shape and np.allclose(one.affine, other.affine, atol=1e-4)
