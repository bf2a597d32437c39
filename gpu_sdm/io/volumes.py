"""Volumes that a user or another program brings: masks, correlation templates, bound maps."""

from __future__ import annotations

import gzip
import math
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from gpu_sdm.config import Settings
from gpu_sdm.data import KNOWN_WIDTH, Bounds
from gpu_sdm.errors import InputError, NumericalError, SpaceError
from gpu_sdm.io._nifti_file import read_data, read_header, read_maps
from gpu_sdm.io.tables import write_bytes
from gpu_sdm.spaces import SHAPES, Space, grid_affine
from gpu_sdm.templates import (
    Template,
    default_mask,
    default_template,
    from_correlations,
)

MOST_VALUES = 2**28  # of a template; 1 GiB
TEMPLATE_MARK = "gpu-sdm correlation template"  # in the header of what `save_template` writes


def read_volume(path: Path | str, ndim: int = 3) -> tuple[np.ndarray, np.ndarray]:
    """Read a NIfTI file.

    Parameters
    ----------
    path : path
        .nii or .nii.gz.
    ndim : int
        Wanted number of axes; last axes of length 1 beyond it are dropped.

    Returns
    -------
    data : (X, Y, Z[, N]) float32
        Its values, scaled as its header says.
    affine : (4, 4) float64
        Voxel to millimetres.

    Raises
    ------
    InputError
        If it is missing, cannot be read or has another number of axes.
    """
    path = Path(path)
    header = read_header(path, stack=True)
    shape = (*header.shape, *([header.maps] if header.maps > 1 else []))
    if len(shape) != ndim:
        raise InputError(f"the image has {len(shape)} axes {shape}; {ndim} are wanted.", path)
    if ndim == 3:
        return read_data(path, header), header.affine
    if math.prod(shape) > MOST_VALUES:
        raise InputError(
            f"claims the size {shape}, more than {MOST_VALUES:,} values; its header is damaged.",
            path,
        )
    return np.stack(list(read_maps(path, header)), axis=-1), header.affine


def _on_grid(
    data: np.ndarray, affine: np.ndarray, path: Path | str, voxel_size: int, what: str
) -> None:
    """Raise unless a volume lies on the analysis grid, voxel by voxel."""
    shape, wanted = SHAPES[voxel_size], grid_affine(voxel_size)
    if data.shape[:3] != shape or not np.allclose(affine, wanted, atol=1e-3):
        diagonal, origin = np.diag(affine)[:3].round(3), affine[:3, 3].round(3)
        raise SpaceError(
            f"{path}: the {what} has shape {data.shape[:3]}, voxels {tuple(diagonal.tolist())} mm "
            f"and origin {tuple(origin.tolist())}; the analysis grid is {shape}, "
            f"{tuple(np.diag(wanted)[:3].tolist())} and {tuple(wanted[:3, 3].tolist())}: "
            f"choose the voxel size that fits or resample the {what}."
        )


def read_mask(path: Path | str, voxel_size: int) -> np.ndarray:
    """Read an analysis mask: every voxel that is neither 0 nor NaN.

    Parameters
    ----------
    path : path
        A 3-D image on any grid in MNI space; the nearest of its voxels decides where its grid
        is not that of the analysis.
    voxel_size : int
        Analysis grid, mm.

    Returns
    -------
    (X, Y, Z) bool

    Raises
    ------
    InputError
        If it cannot be read, is not 3-D or holds only zeros.
    SpaceError
        If none of its voxels falls on the analysis grid.
    """
    data, affine = read_volume(path)
    inside: np.ndarray = np.isfinite(data) & (data != 0)
    if not inside.any():
        raise InputError("the mask is empty: no voxel differs from 0.", path)
    shape, grid = SHAPES[voxel_size], grid_affine(voxel_size)
    if data.shape == shape and np.allclose(affine, grid, atol=1e-3):
        return inside
    ijk = np.indices(shape).reshape(3, -1)
    to_file = np.linalg.inv(affine) @ grid
    # Rounded first: half-way voxels must not depend on the last bit of an inverse.
    near = np.floor(np.round(to_file[:3, :3] @ ijk + to_file[:3, 3:], 6) + 0.5).astype(np.int64)
    there = ((near >= 0) & (near < np.array(data.shape)[:, None])).all(axis=0)
    mask = np.zeros(ijk.shape[1], bool)
    mask[there] = inside[tuple(near[:, there])]
    if not mask.any():
        raise SpaceError(
            f"{path}: the mask does not overlap the {voxel_size} mm analysis grid in MNI space."
        )
    return mask.reshape(shape)


def load_space(settings: Settings) -> Space:
    """Give the grid and the mask of an analysis: built in, or the file of `settings.mask`."""
    size = settings.voxel_size
    return Space(
        size, default_mask(size) if settings.mask is None else read_mask(settings.mask, size)
    )


def voxel_size_of(path: Path | str) -> int:
    """Give the voxel size, mm, of the analysis grid that an image has the shape of.

    Raises
    ------
    InputError
        If it cannot be read.
    SpaceError
        If it has the shape of none of the grids.
    """
    shape = read_header(Path(path), stack=True).shape
    for size, wanted in SHAPES.items():
        if shape == wanted:
            return size
    raise SpaceError(f"{path}: the image has shape {shape}; the analysis grids are {SHAPES}.")


def load_template(path: Path | str | None, voxel_size: int) -> Template:
    """Give the correlation template: built in (None), or that of a file.

    Parameters
    ----------
    path : path, optional
        4-D NIfTI (X, Y, Z, 13) on the analysis grid. Volume i holds at each voxel the
        correlation with the voxel at `gpu_sdm.templates.OFFSETS[i]`, in steps of the array's
        axes (x index up = x mm down): (0,0,1), (0,1,-1), (0,1,0), (0,1,1), (1,-1,-1), (1,-1,0),
        (1,-1,1), (1,0,-1), (1,0,0), (1,0,1), (1,1,-1), (1,1,0), (1,1,1). 0: not neighbours.
    voxel_size : int
        Analysis grid, mm.

    Raises
    ------
    InputError
        If the file cannot be read or is not 4-D.
    SpaceError
        If it does not lie on the grid or holds something else than correlations.
    """
    if path is None:
        return default_template(voxel_size)
    r, affine = read_volume(path, ndim=4)
    _on_grid(r, affine, path, voxel_size, "template")
    try:
        return from_correlations(r, voxel_size)
    except SpaceError as error:
        raise SpaceError(f"{path}: {error}") from error


def save_template(template: Template, path: Path | str) -> None:
    """Write a template in the form that `load_template` reads; equal templates, equal files.

    Raises
    ------
    OutputError
        If the file cannot be written; no part of it is left.
    """
    import nibabel

    path = Path(path)
    image = nibabel.Nifti1Image(template.r(), grid_affine(template.voxel_size))
    image.header.set_xyzt_units("mm")
    image.header["descrip"] = TEMPLATE_MARK.encode()
    content = image.to_bytes()
    if path.name.endswith(".gz"):
        content = gzip.compress(content, compresslevel=6, mtime=0)
    write_bytes(path, content)


def _bound_maps(
    folder: Path | str, names: Sequence[str], voxel_size: int
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Read STUDY_lower.nii.gz and STUDY_upper.nii.gz of each study, on the analysis grid."""
    folder = Path(folder)
    if not folder.is_dir():
        raise InputError("there is no such folder of bound maps.", folder)
    wanted = [folder / f"{name}_{side}.nii.gz" for name in names for side in ("lower", "upper")]
    missing = [path for path in wanted if not path.is_file()]
    if missing:
        raise InputError(
            f"{len(missing)} of {len(wanted)} bound maps are missing, the first is "
            f"{missing[0].name}; each study needs STUDY_lower.nii.gz and STUDY_upper.nii.gz.",
            folder,
        )
    pairs = []
    for path in wanted:
        data, affine = read_volume(path)
        _on_grid(data, affine, path, voxel_size, "bound map")
        pairs.append(data)
        if len(pairs) == 2:
            yield pairs[0], pairs[1]
            pairs = []


def read_bounds(folder: Path | str, names: Sequence[str], space: Space) -> tuple[Space, Bounds]:
    """Read bounds that SDM-PSI's own preprocessing wrote.

    Parameters
    ----------
    folder : path
        Holds STUDY_lower.nii.gz and STUDY_upper.nii.gz, Hedges g, on the analysis grid.
    names : sequence of str
        K studies, in the wanted order.
    space : Space
        Grid and wanted mask.

    Returns
    -------
    Space
        The wanted mask without the voxels that the maps do not cover.
    Bounds
        In the mask of that space. Limits nearer than 1e-5 are set equal: a known effect.

    Raises
    ------
    InputError
        If a file is missing or unreadable, or a lower limit exceeds its upper one.
    SpaceError
        If a map lies on another grid, or none of its voxels in the mask is covered.
    NumericalError
        If a map holds NaN in the mask.

    Notes
    -----
    Outside its mask SDM-PSI writes 0 to both maps of every study. Taken for data these would be
    known effects of exactly 0, so such voxels leave the mask. So does the first voxel of the
    grid, where SDM-PSI writes a bound although it lies far outside its mask.
    """
    shape = (len(names), space.n_voxels)
    lower, upper = np.empty(shape, np.float32), np.empty(shape, np.float32)
    for k, maps in enumerate(_bound_maps(folder, names, space.voxel_size)):
        lower[k], upper[k] = (space.extract(m) for m in maps)
        bad = np.flatnonzero(~(lower[k] <= upper[k] + KNOWN_WIDTH))
        if len(bad):
            low, high = float(lower[k, bad[0]]), float(upper[k, bad[0]])
            x, y, z = space.mm(bad[:1])[0]
            where = f"{names[k]} at MNI ({x:g}, {y:g}, {z:g}), {len(bad)} voxel(s) in all"
            if np.isnan(low) or np.isnan(high):
                raise NumericalError(f"The bound maps of {where}, hold NaN.")
            raise InputError(
                f"the lower limit {low:g} exceeds the upper {high:g}: {where}.", folder
            )
        known = upper[k] - lower[k] < KNOWN_WIDTH
        upper[k, known] = lower[k, known]
    covered = ((lower != 0) | (upper != 0)).any(axis=0) & (space.index > 0)
    if not covered.any():
        raise SpaceError(f"{folder}: the bound maps are 0 in the whole mask.")
    if not covered.all():
        lower, upper = lower[:, covered], upper[:, covered]
        space = Space(space.voxel_size, space.embed(covered.astype(np.float32)) > 0)
    return space, Bounds(lower, upper)
