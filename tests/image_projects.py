"""Small projects whose studies supply maps, for tests."""

from __future__ import annotations

from pathlib import Path

import nibabel as nib
import numpy as np
from scipy.ndimage import gaussian_filter

import gpu_sdm
from gpu_sdm.data import Notice
from gpu_sdm.spaces import SHAPES, Space, grid_affine
from gpu_sdm.stages.images import image_effects


def save(
    path: Path, values: np.ndarray, affine: np.ndarray | None = None, dtype: type = np.float32
) -> None:
    """Write a NIfTI file."""
    affine = grid_affine(4) if affine is None else affine
    nib.save(nib.Nifti1Image(np.asarray(values, dtype), affine), path)


def project(folder: Path, rows: list[str], header: str = "study\tn1\timage") -> Path:
    """Write the table of a project: rows of text."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "sdm_table.txt").write_text("\n".join([header, *rows]) + "\n")
    return folder


def small_space(radius: int = 6) -> Space:
    """A ball in the middle of the 4 mm grid."""
    grid = np.indices(SHAPES[4]).reshape(3, -1).T - np.array(SHAPES[4]) // 2
    return Space(4, (np.linalg.norm(grid, axis=1) <= radius).reshape(SHAPES[4]))


def smooth_t(rng: np.random.Generator, shape: tuple[int, ...] = SHAPES[4]) -> np.ndarray:
    """A smooth map of mean 0.5 and variance 1."""
    field = gaussian_filter(rng.standard_normal(shape), 2)
    return (0.5 + field / field.std()).astype(np.float32)


def effects_of(folder: Path, space: Space) -> tuple[np.ndarray, tuple[Notice, ...]]:
    """Read a project and its images: g (K, V) and notices."""
    studies = gpu_sdm.read(folder).studies
    return image_effects([s for s in studies if s.image], space)
