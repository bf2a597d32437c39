"""Maps of subjects that a template is built from: found, checked, read one at a time."""

from __future__ import annotations

import glob
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from scipy import ndimage

from gpu_sdm.errors import InputError
from gpu_sdm.io._nifti_file import sha256
from gpu_sdm.io.image_effects import has_data
from gpu_sdm.io.volumes import TEMPLATE_MARK
from gpu_sdm.spaces import SHAPES, grid_affine

ENDINGS = (".nii", ".nii.gz")  # what is taken from a folder
MOST_VOXELS = 2**26  # of one map: 0.5 mm over the whole head


@dataclass(frozen=True, slots=True, eq=False)
class SubjectFile:
    """An image file with the map of one subject, or of several along its fourth axis."""

    path: Path
    shape: tuple[int, int, int]
    affine: np.ndarray  # (4, 4) voxel to millimetres
    maps: int
    stacked: bool  # a fourth axis is there
    sha256: str  # of the file

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
        Files, folders (every .nii and .nii.gz right in them) and patterns with `*`, `?`, `[`.
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
            files = [f for f in item.iterdir() if f.is_file() and f.name.endswith(ENDINGS)]
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


def _open(path: Path) -> Any:
    import nibabel
    from nibabel.filebasedimages import ImageFileError
    from nibabel.spatialimages import HeaderDataError

    try:
        # Kept open, a compressed stack is unpacked once and not once per map.
        return nibabel.load(path, mmap=False, keep_file_open=True)
    except (
        OSError, EOFError, ValueError, AttributeError, ArithmeticError, MemoryError, zlib.error,
        ImageFileError, HeaderDataError,
    ) as error:  # fmt: skip
        raise InputError(f"cannot be read as a NIfTI image ({error}).", path) from error


def inspect(path: Path) -> SubjectFile:
    """Read and check the header of an image.

    Raises
    ------
    InputError
        If it is not an image of real numbers with 3 or 4 axes, a sensible size and a place in
        space, or if it is a template.
    """
    image = _open(path)
    shape = tuple(int(n) for n in getattr(image, "shape", ()))
    while len(shape) > 4 and shape[-1] == 1:
        shape = shape[:-1]
    if len(shape) not in (3, 4) or min(shape) < 1:
        raise InputError(f"has the axes {shape}; 3 are wanted, or 4 with subjects last.", path)
    if int(np.prod(shape[:3], dtype=object)) > MOST_VOXELS:
        raise InputError(f"claims {shape[:3]} voxels per map; its header is damaged.", path)
    if image.get_data_dtype().kind not in "iuf":
        raise InputError(f"holds {image.get_data_dtype()}; real numbers are wanted.", path)
    header = image.header
    if "sform_code" in header and header["sform_code"] <= 0 and header["qform_code"] <= 0:
        raise InputError(
            "does not say where its voxels lie (sform and qform codes are 0); export it with its "
            "affine in MNI space.",
            path,
        )
    affine = np.asarray(image.affine, np.float64)
    if not np.isfinite(affine).all() or abs(np.linalg.det(affine)) < 1e-9:
        raise InputError("the image's affine is singular: its voxels have no place.", path)
    note = header["descrip"].item() if "descrip" in header else b""
    if note.decode("latin-1").startswith(TEMPLATE_MARK):
        raise InputError("is a correlation template, not a subject's map; leave it out.", path)
    maps = shape[3] if len(shape) == 4 else 1
    grid = shape[0], shape[1], shape[2]
    return SubjectFile(path, grid, affine, maps, len(shape) == 4, sha256(path))


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
    proxy = _open(file.path).dataobj
    for i in range(file.maps):
        try:
            raw = proxy[..., i] if file.stacked else np.asarray(proxy)
        except (OSError, EOFError, ValueError, ArithmeticError, MemoryError, zlib.error) as error:
            raise InputError(f"its data cannot be read ({error}).", file.path) from error
        data = np.asarray(raw, np.float64).reshape(file.shape)
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
