"""The maps of coefficients and of tau2, smoothed: inside the mask, or as SDM-PSI 6.21 does it."""

from __future__ import annotations

import numpy as np
from scipy.ndimage import gaussian_filter
from scipy.special import ndtr

from gpu_sdm.spaces import Space

SMOOTHING_MM = 1.0  # standard deviation; SDM-PSI's MleCoefSmooth and MleTau2Smooth


def _volume(values: np.ndarray | float, space: Space) -> np.ndarray:
    volume = np.zeros(int(np.prod(space.shape)))
    volume[space.index] = values
    return volume.reshape(space.shape, order="F")


def smooth_in_mask(values: np.ndarray, space: Space, sigma_mm: float = SMOOTHING_MM) -> np.ndarray:
    """Smooth a map (V,) by a Gaussian that sees only the mask; float64.

    The mean over the voxels of the mask in reach, so that a constant map stays constant.
    """

    def blur(x: np.ndarray | float) -> np.ndarray:
        sigma = sigma_mm / space.voxel_size
        return space.extract(gaussian_filter(_volume(x, space), sigma, mode="constant"))

    smooth: np.ndarray = blur(values) / blur(1.0)
    return smooth


def voxel_shares(voxel_size: float, sigma_mm: float = SMOOTHING_MM) -> tuple[float, float]:
    """Share of a Gaussian that falls into the voxel of its mean, and into either neighbour.

    Examples
    --------
    >>> [round(share, 4) for share in voxel_shares(2)]
    [0.6827, 0.1573]
    """
    near, far = ndtr(np.array([0.5, 1.5]) * voxel_size / sigma_mm)
    return float(2 * near - 1), float(far - near)


def smooth_sdm(values: np.ndarray, space: Space, in_place: bool = True) -> np.ndarray:
    """Smooth a map (V,) as SDM-PSI 6.21 does; float64.

    Each axis by the shares of three voxels (`voxel_shares`), 0 outside the mask and nothing made
    up for it or for the tails that are left out, so that values shrink at the edge. Along the
    second and third axis it works in place: of the voxel before a voxel it takes what is
    already smoothed. Inferred from the original's maps (docs/fidelity.md).

    Parameters
    ----------
    values : (V,)
        A map.
    space : Space
        Its grid and mask.
    in_place : bool
        Whether the second and third axis are smoothed in place.
    """
    own, side = voxel_shares(space.voxel_size)
    volume = _volume(values, space)
    for axis in range(3):
        before = np.moveaxis(volume, axis, 0)
        after = own * before
        after[:-1] += side * before[1:]
        if axis and in_place:
            for i in range(1, len(after)):
                after[i] += side * after[i - 1]
        else:
            after[1:] += side * before[:-1]
        volume = np.moveaxis(after, 0, axis)
    return space.extract(volume)
