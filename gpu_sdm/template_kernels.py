"""What the kernels of an SDM-PSI analysis sum to, read from its bound maps."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from scipy.spatial import cKDTree

from gpu_sdm.data import Dataset
from gpu_sdm.errors import InputError
from gpu_sdm.io import read
from gpu_sdm.io.volumes import read_bounds, voxel_size_of
from gpu_sdm.ops.virtual_distance import COLLAPSE_MM
from gpu_sdm.spaces import SHAPES, Space
from gpu_sdm.stages.effects import effect_to_bound, peaks_as_used
from gpu_sdm.stages.template_learn import SummedKernel


def read_kernels(project: Path, bounds: Path | None = None) -> list[SummedKernel]:
    """Read what the kernels of an SDM-PSI analysis sum to.

    Parameters
    ----------
    project : path
        The SDM project: table and peak files.
    bounds : path, optional
        The folder of STUDY_lower.nii.gz and STUDY_upper.nii.gz; default: pp in the project.

    Returns
    -------
    list of SummedKernel
        Studies that have peaks.

    Raises
    ------
    InputError
        If a file is missing or cannot be read, if no study has peaks, or if the maps are not
        those of the project's thresholds, sample sizes and peaks.
    SpaceError
        If the maps do not lie on the grid of 2 mm (or 3, or 4).

    Notes
    -----
    Beyond the reach of its peaks a study's bounds are [-b, b], with b the effect at its
    threshold; elsewhere 1 - (upper - lower) / 2b is the weighted mean of its kernels. Heights
    play no part. Coordinates lose their decimals, as in SDM-PSI.
    """
    folder = project / "pp" if bounds is None else bounds
    dataset = read(project, compat=True)
    if not folder.is_dir():
        raise InputError(
            "there is no such folder of bound maps (STUDY_lower.nii.gz, STUDY_upper.nii.gz), "
            "which SDM-PSI's preprocessing writes; name it with --bounds.",
            folder,
        )
    chosen = [k for k, s in enumerate(dataset.studies) if s.image is None and len(s.peaks)]
    if not chosen:
        raise InputError("no study of this project has peaks to learn from.", project)
    names = [dataset.names[k] for k in chosen]
    size = voxel_size_of(_first_map(folder, names[0]))
    whole = Space(size, np.ones(SHAPES[size], bool))
    # One study tells the mask, so that the others are not held on the whole grid.
    covered, _ = read_bounds(folder, names[:1], whole)
    space, limits = read_bounds(folder, names, covered)
    kernels = _kernels(dataset, chosen, limits.upper - limits.lower, folder)
    studies = [
        SummedKernel(name, space, peaks_as_used(dataset.studies[k], compat=True)[0], kernel)
        for name, k, kernel in zip(names, chosen, kernels, strict=True)
    ]
    _check_peaks(studies, folder)
    return studies


def _first_map(folder: Path, name: str) -> Path:
    """Path of a study's lower bound; raise unless it is there."""
    path = folder / f"{name}_lower.nii.gz"
    if not path.is_file():
        raise InputError(
            f"holds no {path.name}; each study with peaks needs STUDY_lower.nii.gz and "
            "STUDY_upper.nii.gz, as SDM-PSI's preprocessing writes them.",
            folder,
        )
    return path


def _kernels(
    dataset: Dataset, chosen: Sequence[int], width: np.ndarray, folder: Path
) -> np.ndarray:
    """Give summed kernels (K, V) of the width of bounds; raise where it is of other studies."""
    b = effect_to_bound(dataset.studies)[list(chosen)]
    for k, widest, bound in zip(chosen, width.max(axis=1), b, strict=True):
        # The whole mask may be in reach of many peaks, but not all of it in close reach.
        if not 0.9 < widest / (2 * bound) < 1.001:
            raise InputError(
                f"the bounds of {dataset.names[k]} are at most {widest:.4g} apart; by its "
                f"threshold and sample size that must be {2 * bound:.4g}. Are the maps of this "
                "table, written before it was changed?",
                folder,
            )
    kernels: np.ndarray = np.clip(1 - width / (2 * b[:, None]), 0, 1).astype(np.float32)
    return kernels


def _check_peaks(studies: Sequence[SummedKernel], folder: Path) -> None:
    """Raise unless the effect is known at the peaks: a peak's own voxel has no width."""
    total = known = 0
    for study in studies:
        nearest: Any = cKDTree(study.space.mm()).query(study.xyz_mm)
        far, at = nearest
        inside = far <= COLLAPSE_MM
        total += int(inside.sum())
        known += int((study.kernel[at[inside]] > 1 - 1e-4).sum())
    if known < 0.9 * total:
        raise InputError(
            f"the effect is known at only {known} of the {total} peaks in the mask; the maps are "
            "not of these peaks, or were made with another kernel than SDM-PSI's of 20 mm and "
            "full anisotropy.",
            folder,
        )
