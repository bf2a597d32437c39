"""Peaks within clusters: local maxima, and those of them that lie apart."""

from __future__ import annotations

import numpy as np
from scipy import ndimage

from gpu_sdm.clusters import BOX
from gpu_sdm.spaces import Space


def local_maxima(values: np.ndarray, voxels: np.ndarray, space: Space) -> np.ndarray:
    """Find the local maxima of a map among some voxels.

    Parameters
    ----------
    values : (V,) float
        The map; pass -z for the negative side.
    voxels : (n,) int
        Positions in the mask that count; all others are ignored.
    space : Space
        Grid and mask.

    Returns
    -------
    (m,) int
        Positions in the mask that none of the 26 voxels around exceeds, highest first, of equals
        the first in scan order. Of joined equal voxels only the first counts.

    Notes
    -----
    The local peaks of SDM-PSI's reports are these.
    """
    volume = np.full(int(np.prod(space.shape)), -np.inf)
    volume[space.index[voxels]] = values[voxels]
    volume = volume.reshape(space.shape, order="F")
    highest = ndimage.maximum_filter(volume, size=3, mode="constant", cval=-np.inf)
    top = np.isfinite(volume) & (volume == highest)
    plateau = space.extract(ndimage.label(top, BOX)[0])
    number, first = np.unique(plateau, return_index=True)
    found = np.sort(first[number > 0])
    return found[np.argsort(-values[found], kind="stable")]


def spread_out(voxels: np.ndarray, space: Space, distance_mm: float) -> np.ndarray:
    """Keep, in their order, the voxels at least `distance_mm` from every one kept before.

    Parameters
    ----------
    voxels : (n,) int
        Positions in the mask, the most important first.
    space : Space
        Grid and mask.
    distance_mm : float
        Between voxel centres; 0 keeps all.
    """
    mm = space.mm(voxels)
    kept: list[int] = []
    for i in range(len(voxels)):
        if (np.linalg.norm(mm[kept] - mm[i], axis=1) >= distance_mm).all():
            kept.append(i)
    return voxels[kept]
