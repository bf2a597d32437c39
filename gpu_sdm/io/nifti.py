"""Result maps out and in: NIfTI-1, float32, MNI space, the same bytes for the same values."""

from __future__ import annotations

import gzip
from pathlib import Path
from typing import NamedTuple

import numpy as np

from gpu_sdm.errors import SpaceError
from gpu_sdm.io._nifti_file import read_data, read_header
from gpu_sdm.io.tables import write_bytes
from gpu_sdm.spaces import Space

MNI = 4  # NIfTI's code of the coordinate system
MAX_DESCRIPTION = 79  # bytes that the header holds


class MapKind(NamedTuple):
    """How a map is written: value outside the mask, description, NIfTI intent."""

    fill: float
    description: str
    intent: str


def _p(description: str) -> MapKind:
    return MapKind(1.0, description, "p value")


# Every map of an output folder, by file name.
MAPS: dict[str, MapKind] = {
    "g": MapKind(0.0, "Effect size, Hedges g", "estimate"),
    "se": MapKind(0.0, "Standard error of Hedges g", "estimate"),
    "z": MapKind(0.0, "SDM-Z", "z score"),
    "score": MapKind(0.0, "Score of the mean at zero, from the bounds", "z score"),
    "p": _p("Uncorrected p, one-sided, positive effects"),
    "p_neg": _p("Uncorrected p, one-sided, negative effects"),
    "log_p": MapKind(0.0, "-log10 uncorrected p, positive effects", "log10 p value"),
    "log_p_neg": MapKind(0.0, "-log10 uncorrected p, negative effects", "log10 p value"),
    "tau2": MapKind(0.0, "Between-study variance tau2", "estimate"),
    "i2": MapKind(0.0, "Heterogeneity I2, percent", "estimate"),
    "h2": MapKind(0.0, "Heterogeneity H2", "estimate"),
    "q": MapKind(0.0, "Heterogeneity Q, chi-squared", "estimate"),
    "mask": MapKind(0.0, "Analysed voxels", "none"),
    "p_fwe_voxel": _p("FWE p of voxel z, one-sided, positive effects"),
    "p_fwe_voxel_neg": _p("FWE p of voxel z, one-sided, negative effects"),
    "p_fwe_voxel_two_sided": _p("FWE p of voxel z, two-sided"),
    "tfce": MapKind(0.0, "TFCE of z, E 0.5 H 2, without dh", "none"),
    "tfce_neg": MapKind(0.0, "TFCE of -z, E 0.5 H 2, without dh", "none"),
    "p_fwe_tfce": _p("FWE p of TFCE, one-sided, positive effects"),
    "p_fwe_tfce_neg": _p("FWE p of TFCE, one-sided, negative effects"),
    "p_fwe_tfce_two_sided": _p("FWE p of TFCE, two-sided"),
    "p_fwe_cluster_extent": _p("FWE p of cluster extent, one-sided, positive effects"),
    "p_fwe_cluster_extent_neg": _p("FWE p of cluster extent, one-sided, negative effects"),
    "p_fwe_cluster_extent_two_sided": _p("FWE p of cluster extent, two-sided"),
    "p_fwe_cluster_mass": _p("FWE p of cluster mass, one-sided, positive effects"),
    "p_fwe_cluster_mass_neg": _p("FWE p of cluster mass, one-sided, negative effects"),
    "p_fwe_cluster_mass_two_sided": _p("FWE p of cluster mass, two-sided"),
}


def write_map(
    path: Path,
    values: np.ndarray,
    space: Space,
    fill: float = 0.0,
    description: str = "",
    intent: str = "none",
) -> None:
    """Write a map as .nii.gz.

    Parameters
    ----------
    path : path
        Where; ends with .nii.gz.
    values : (V,) float or bool
        The map in the mask.
    space : Space
        Grid and mask.
    fill : float
        Value outside the mask.
    description : str
        At most 79 bytes.
    intent : str
        NIfTI intent as nibabel names it.

    Raises
    ------
    OutputError
        If the file cannot be written; no part of it is left.

    Notes
    -----
    Neither the time nor the file name enters the compressed file: equal maps are equal files.
    """
    import nibabel

    if len(description.encode()) > MAX_DESCRIPTION:
        raise ValueError(f"The description of {path.name} has over {MAX_DESCRIPTION} bytes.")
    image = nibabel.Nifti1Image(space.embed(values, fill), space.affine)
    header = image.header
    header.set_sform(space.affine, code=MNI)
    header.set_qform(space.affine, code=MNI)
    header.set_xyzt_units("mm")
    header.set_intent(intent)
    header["descrip"] = description.encode()
    write_bytes(path, gzip.compress(image.to_bytes(), compresslevel=6, mtime=0))


def write_named_map(folder: Path, name: str, values: np.ndarray, space: Space) -> Path:
    """Write one of `MAPS` as `folder/name.nii.gz`, in its own manner, and give its path."""
    path = folder / f"{name}.nii.gz"
    write_map(path, values, space, *MAPS[name])
    return path


def read_map(path: Path, space: Space) -> np.ndarray:
    """Read a map on the analysis grid.

    Returns
    -------
    (V,) float32
        Its values in the mask.

    Raises
    ------
    InputError
        If it cannot be read.
    SpaceError
        If it lies on another grid.
    """
    header = read_header(path)
    if header.shape != space.shape or not np.allclose(header.affine, space.affine, atol=1e-4):
        raise SpaceError(
            f"{path} has shape {header.shape} and another grid than the analysis, which is "
            f"{space.shape} at {space.voxel_size} mm in MNI space."
        )
    return space.extract(read_data(path, header))
