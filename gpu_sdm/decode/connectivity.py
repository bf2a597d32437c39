"""Seed connectivity maps that a user brings, and their conjunction with co-activation."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from scipy import special

from gpu_sdm.data import _freeze
from gpu_sdm.decode.coactivation import Coactivation
from gpu_sdm.errors import InputError, SettingError, SpaceError
from gpu_sdm.inference import fdr_q
from gpu_sdm.io._nifti_file import sha256
from gpu_sdm.io.image_effects import interpolated, positions
from gpu_sdm.io.volumes import read_volume
from gpu_sdm.spaces import Space

R_MIN = 0.2
ALMOST_ONE = 1 - 1e-6  # of the seed with itself: Fisher's z stays finite
LEAST_N = 4


@dataclass(frozen=True, eq=False)
class Connectivity:
    """Correlation of a seed with every voxel.

    Parameters
    ----------
    path : path
        Where it is from.
    sha256 : str
        Content hash of the file.
    fisher_z : (V,) float64
        Inverse hyperbolic tangent of r; 0 where the map has no data.
    z : (V,) float64, optional
        That times sqrt(n - 3), where n is known.
    passes : (V,) bool
        r above the limit, and z at the false discovery rate where n is known.
    """

    path: Path
    sha256: str
    fisher_z: np.ndarray
    z: np.ndarray | None
    passes: np.ndarray

    def __post_init__(self) -> None:
        _freeze(self.fisher_z, self.passes)
        if self.z is not None:
            _freeze(self.z)


def read_connectivity(
    path: Path, space: Space, r_min: float = R_MIN, n: int | None = None, q: float = 0.05
) -> Connectivity:
    """Read a map of correlations and transform it.

    Parameters
    ----------
    path : path
        3-D NIfTI of r in MNI space on any grid; interpolated linearly. Voxels that are not finite
        have no data, nor has what lies between them for the greater part.
    space : Space
        Grid and mask of the analysis.
    r_min : float
        Smaller correlations do not count, nor negative ones.
    n : int, optional
        Independent observations behind r: adds the test of z = atanh(r) sqrt(n - 3).
    q : float
        False discovery rate of that test, two-sided.

    Raises
    ------
    InputError
        If it cannot be read, or holds values that are no correlations.
    SpaceError
        If it does not overlap the mask.
    SettingError
        If n is below 4.
    """
    if n is not None and n < LEAST_N:
        raise SettingError(f"--n is {n}; Fisher's z needs at least {LEAST_N} observations.")
    data, affine = read_volume(path)
    there = np.isfinite(data)
    if there.any() and np.abs(data[there]).max() > 1 + 1e-4:
        raise InputError(
            f"holds {float(np.abs(data[there]).max()):.4g}; correlations lie between -1 and 1 "
            "(give r, not Fisher's z or t).",
            path,
        )
    r = interpolated(data[there], there, positions(affine, space))
    covered = np.isfinite(r)
    r = np.where(covered, r, 0.0)
    if not (r != 0).any():
        raise SpaceError(
            f"{path}: the map is 0 or without data in the whole mask; wanted r in MNI space."
        )
    z = np.arctanh(np.clip(r, -ALMOST_ONE, ALMOST_ONE))
    passes = covered & (r > r_min)
    if n is None:
        return Connectivity(path, sha256(path), z, None, passes)
    tested = z * np.sqrt(n - 3)
    p = np.where(covered, 2 * special.ndtr(-np.abs(tested)), 1.0)
    return Connectivity(path, sha256(path), z, tested, passes & (fdr_q(p) <= q))


def conjunction(coactivation: Coactivation, connectivity: Connectivity, q: float) -> np.ndarray:
    """Where a seed both co-activates and is connected.

    Parameters
    ----------
    coactivation : Coactivation
        Passes where positive at false discovery rate `q`.
    connectivity : Connectivity
        Passes by its own rule.
    q : float
        Of the former.

    Returns
    -------
    (V,) float64
        0 where one of the two does not pass. Elsewhere the smaller of their z (the minimum
        statistic), or z of co-activation where the connectivity has no z of its own.

    References
    ----------
    .. [1] Nichols T, Brett M, Andersson J, Wager T, Poline JB (2005) Valid conjunction inference
       with the minimum statistic. NeuroImage 25:653-660.
    """
    both = coactivation.found(q) & connectivity.passes
    z = coactivation.z
    if connectivity.z is not None:
        z = np.minimum(z, connectivity.z)
    return np.where(both, z, 0.0)
