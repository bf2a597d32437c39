"""Maps of invented subjects for tests of templates."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
from scipy import ndimage
from typer.testing import CliRunner

from gpu_sdm.cli import app
from gpu_sdm.spaces import SHAPES, grid_affine

INNER = (slice(14, 30), slice(18, 34), slice(12, 28))  # a block of the 4 mm grid


def run(*arguments: Any) -> Any:
    """Call the command line in this process."""
    return CliRunner().invoke(app, [str(a) for a in arguments])


def fields(rng: np.random.Generator, n: int, shape: tuple[int, ...]) -> Iterator[np.ndarray]:
    """Stationary fields: voxels d apart correlate exp(-d^2 / (4 1.5^2))."""
    for _ in range(n):
        yield ndimage.gaussian_filter(rng.standard_normal(shape), 1.5, mode="wrap")


def write_image(path: Path, data: np.ndarray, affine: np.ndarray | None = None) -> Path:
    """Write an image, on the 4 mm grid unless told otherwise."""
    nib.save(nib.Nifti1Image(data, grid_affine(4) if affine is None else affine), path)
    return path


def write_subjects(folder: Path, n: int = 12, seed: int = 7) -> Path:
    """Write maps with data in a block only, around a mean of 5."""
    folder.mkdir()
    for i, block in enumerate(fields(np.random.default_rng(seed), n, (16, 16, 16))):
        data = np.zeros(SHAPES[4], np.float32)
        data[INNER] = 5 + block
        write_image(folder / f"s{i:02d}.nii.gz", data)
    return folder
