"""SDM-PSI's own analysis folder, read as if it were a result of ours."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from gpu_sdm.errors import InputError, NumericalError, SpaceError
from gpu_sdm.io._text import number, read_lines, shown
from gpu_sdm.io.nifti import read_map
from gpu_sdm.io.volumes import read_volume
from gpu_sdm.spaces import SHAPES, Space, grid_affine

MAXIMA = "maxsMinsZ.asc"
FLOAT32_STEP = 2.0**-24  # largest error of a 1-p that was stored in single precision


def _as_it_is(values: np.ndarray) -> np.ndarray:
    return values


def _one_minus(values: np.ndarray) -> np.ndarray:
    # The negative sides of the corrected maps hold -(1-p).
    p: np.ndarray = 1 - np.abs(values)
    return p


# Our name -> (theirs, {} being the name of the model; what makes ours of it).
FILES: dict[str, tuple[str, Callable[[np.ndarray], np.ndarray]]] = {
    "g": ("{}_g", _as_it_is),
    "se": ("{}_var", np.sqrt),
    "z": ("{}_z", _as_it_is),
    "tau2": ("{}_tau2", _as_it_is),
    "i2": ("{}_h_i2", _as_it_is),
    "h2": ("{}_h_h2", _as_it_is),
    "q": ("{}_h_Q", _as_it_is),
    "p": ("uncorrp", _one_minus),
    "p_neg": ("uncorrp_neg", _one_minus),
    "p_fwe_voxel": ("corrp_voxel", _one_minus),
    "p_fwe_voxel_neg": ("corrp_voxel_neg", _one_minus),
    "p_fwe_tfce": ("corrp_tfce", _one_minus),
    "p_fwe_tfce_neg": ("corrp_tfce_neg", _one_minus),
}


@dataclass(frozen=True, eq=False)
class SdmResults:
    """An analysis folder of SDM-PSI.

    Parameters
    ----------
    folder : path
        E.g. `analysis_MyMean`.
    model : str
        The name that its maps begin with, e.g. `MyMean`.
    space : Space
        Grid and mask: the voxels with a variance.
    """

    folder: Path
    model: str
    space: Space

    # A p of 50/1000, stored as a single precision .95, comes back 1e-8 beside .05.
    p_tolerance = FLOAT32_STEP

    def _path(self, name: str) -> Path:
        return self.folder / f"{FILES[name][0].format(self.model)}.nii.gz"

    def has(self, name: str) -> bool:
        """Whether there is a map of this name (ours: `z`, `p_fwe_tfce_neg`, ...)."""
        return name in FILES and self._path(name).is_file()

    def map(self, name: str) -> np.ndarray:
        """Read a map (V,) float32 by our name for it; p as p, i2 in percent.

        Raises
        ------
        InputError
            If the folder has no such map; names those it has.
        NumericalError
            If it holds NaN.
        """
        if not self.has(name):
            found = ", ".join(n for n in FILES if self.has(n))
            raise InputError(f"has no map {name!r}; it has: {found}.", self.folder)
        values = FILES[name][1](read_map(self._path(name), self.space))
        bad = np.flatnonzero(np.isnan(values))
        if len(bad):
            x, y, z = self.space.mm(bad[:1])[0]
            raise NumericalError(
                f"{self._path(name)} holds NaN at MNI ({x:g}, {y:g}, {z:g}), {len(bad)} in all."
            )
        return values

    def permutations(self) -> int | None:
        """Count the permutations, the observed one included; None where they are not listed."""
        path = self.folder / MAXIMA
        return self.maxima()["voxel"].shape[1] if path.is_file() else None

    def maxima(self) -> dict[str, np.ndarray]:
        """Null of the maxima: statistic -> (2, P), positive side first, the observed first.

        Raises
        ------
        InputError
            If maxsMinsZ.asc is not there or damaged.
        """
        path = self.folder / MAXIMA
        lines, _ = read_lines(path)
        rows = []
        for i, line in enumerate(lines, 1):
            if not line.strip():
                continue
            values = [number(cell) for cell in line.split()]
            if len(values) != 4 or None in values:
                raise InputError(
                    "wanted max z, max -z, max TFCE and max TFCE of the negative side, found "
                    f"{shown(line)}.",
                    path,
                    i,
                )
            rows.append(values)
        if not rows:
            raise InputError("holds no permutation.", path)
        columns = np.array(rows, np.float64).T
        return {"voxel": columns[:2], "tfce": columns[2:]}


def models(folder: Path) -> list[str]:
    """Names of the models whose z, g and variance maps lie in a folder."""
    names = (path.name.removesuffix("_z.nii.gz") for path in folder.glob("*_z.nii.gz"))
    return sorted(
        name
        for name in names
        if all((folder / f"{name}_{kind}.nii.gz").is_file() for kind in ("g", "var"))
    )


def open_sdm_results(folder: Path | str) -> SdmResults:
    """Open an analysis folder of SDM-PSI.

    Parameters
    ----------
    folder : path
        Holds NAME_z.nii.gz, NAME_g.nii.gz, NAME_var.nii.gz and the p maps uncorrp, corrp_voxel,
        corrp_tfce (each also with _neg), as SDM-PSI 6.21 writes them: 1-p, on the negative sides
        of the corrected ones -(1-p).

    Raises
    ------
    InputError
        If it holds no such maps, or those of several models.
    SpaceError
        If they lie on another grid than SDM-PSI's.
    """
    folder = Path(folder)
    found = models(folder)
    if len(found) != 1:
        what = f"those of {', '.join(found)}" if found else "none"
        raise InputError(
            f"an analysis folder of SDM-PSI holds the maps NAME_z, NAME_g and NAME_var of one "
            f"model; here are {what}.",
            folder,
        )
    path = folder / f"{found[0]}_var.nii.gz"
    variance, affine = read_volume(path)
    for size, shape in SHAPES.items():
        if variance.shape == shape and np.allclose(affine, grid_affine(size), atol=1e-4):
            return SdmResults(folder, found[0], Space(size, variance > 0))
    raise SpaceError(
        f"{path} has shape {variance.shape} and origin {affine[:3, 3].tolist()}; the grids known "
        f"are {SHAPES} in MNI space."
    )
