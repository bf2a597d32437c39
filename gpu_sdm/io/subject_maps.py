"""Maps of subjects that a template is built from: found, checked, read one at a time."""

from __future__ import annotations

import glob
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from scipy import ndimage

from gpu_sdm.errors import InputError
from gpu_sdm.io import _nifti_file
from gpu_sdm.io._nifti_file import Header, read_header, sha256
from gpu_sdm.io.image_effects import has_data
from gpu_sdm.io.images import stem_of
from gpu_sdm.io.volumes import TEMPLATE_MARK
from gpu_sdm.spaces import SHAPES, grid_affine


@dataclass(frozen=True, slots=True, eq=False)
class SubjectFile:
    """An image file with the map of one subject, or of several along its fourth axis."""

    path: Path
    header: Header
    sha256: str  # of the file

    @property
    def shape(self) -> tuple[int, int, int]:
        """Size of a map."""
        return self.header.shape

    @property
    def affine(self) -> np.ndarray:
        """(4, 4) float64 voxel to millimetres."""
        return self.header.affine

    @property
    def maps(self) -> int:
        """Number of maps."""
        return self.header.maps

    @property
    def stacked(self) -> bool:
        """Whether it holds several maps."""
        return self.header.maps > 1

    def same_grid(self, voxel_size: int) -> bool:
        """Tell whether its voxels are those of the analysis grid."""
        return self.shape == SHAPES[voxel_size] and np.allclose(
            self.affine, grid_affine(voxel_size), atol=1e-3
        )

    def step_mm(self) -> float:
        """Length of its longest voxel edge, mm."""
        return float(np.sqrt((self.affine[:3, :3] ** 2).sum(axis=0)).max())


def find_images(given: Sequence[Path | str], without: Path | None = None) -> list[Path]:
    """List the image files that are meant.

    Parameters
    ----------
    given : sequence of path
        Files, folders (every visible .nii and .nii.gz right in them) and patterns with `*`, `?`,
        `[`.
    without : path, optional
        A file that folders and patterns do not give: the one to be written.

    Returns
    -------
    list of Path
        Ordered by name, so that the order in which they are given does not matter.

    Raises
    ------
    InputError
        If a file, or any file of a folder or pattern, is missing, or one is given twice.
    """
    found: dict[Path, Path] = {}
    own = None if without is None else without.resolve()
    for item in map(Path, given):
        named = False
        if item.is_dir():
            files = [f for f in item.iterdir() if f.is_file() and _is_image(f)]
            wanted = "holds no .nii or .nii.gz file"
        elif not item.exists() and any(sign in str(item) for sign in "*?["):
            files = [Path(f) for f in glob.glob(str(item), recursive=True)]  # noqa: PTH207
            files = [f for f in files if f.is_file()]
            wanted = "matches no file"
        else:
            files, wanted, named = ([item] if item.is_file() else []), "is no file", True
        files = [f for f in files if named or f.resolve() != own]
        if not files:
            raise InputError(f"{wanted}; give NIfTI images, a folder or a pattern.", item)
        for file in files:
            place = file.resolve()
            if place == own:
                raise InputError("is to be read and to be written; choose another --out.", file)
            if place in found:
                raise InputError("is given twice; each subject counts once.", file)
            found[place] = file
    return sorted(found.values(), key=lambda f: (f.name, str(f)))


def _is_image(path: Path) -> bool:
    # macOS puts a ._NAME.nii.gz beside each file on a foreign disk, which is no image.
    return stem_of(path) is not None and not path.name.startswith(".")


def inspect(path: Path) -> SubjectFile:
    """Read and check the header of an image.

    Raises
    ------
    InputError
        If it is not an image of real numbers with 3 or 4 axes, a sensible size and a place in
        space, or if it is a template.
    """
    header = read_header(path, stack=True)
    if header.note.startswith(TEMPLATE_MARK):
        raise InputError("is a correlation template, not a subject's map; leave it out.", path)
    return SubjectFile(path, header, sha256(path))


def read_maps(file: SubjectFile, voxel_size: int) -> Iterator[np.ndarray]:
    """Read the maps of a file, one after the other.

    Parameters
    ----------
    file : SubjectFile
        From `inspect`.
    voxel_size : int
        Analysis grid, mm.

    Yields
    ------
    (X, Y, Z) float64
        A map on the analysis grid; NaN where there is no data, which is where the image is not
        finite or lies in its background of zeros (`gpu_sdm.io.image_effects.has_data`). Images
        on another grid are interpolated linearly, and a voxel has data where all that it is
        interpolated from has.

    Raises
    ------
    InputError
        If its data cannot be read.
    """
    for data in _nifti_file.read_maps(file.path, file.header, np.float64):
        there = has_data(data)
        if file.same_grid(voxel_size):
            yield np.where(there, data, np.nan)
        else:
            yield _resample(np.where(there, data, 0), there, file.affine, voxel_size)


def _resample(
    data: np.ndarray, there: np.ndarray, affine: np.ndarray, voxel_size: int
) -> np.ndarray:
    # Rounded: a voxel centre must not fall out of the image by the last bit of an inverse.
    to_image = np.round(np.linalg.inv(affine) @ grid_affine(voxel_size), 9)
    shape = SHAPES[voxel_size]

    def at_grid(volume: np.ndarray) -> np.ndarray:
        return ndimage.affine_transform(
            volume, to_image[:3, :3], to_image[:3, 3], output_shape=shape, order=1
        )

    return np.where(at_grid(there.astype(np.float64)) > 1 - 1e-6, at_grid(data), np.nan)
