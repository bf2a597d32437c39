"""In how many permutations each voxel is at least as large as observed."""

from __future__ import annotations

from typing import Any

import numpy as np

from gpu_sdm.ops._op import Op


def exceedances(z: np.ndarray, observed: np.ndarray, tolerance: float = 0.0) -> np.ndarray:
    """Count the maps in which a voxel reaches its observed value, on either side.

    Parameters
    ----------
    z : (P, V) float32
        z maps of permutations.
    observed : (V,) float32
        The observed z map.
    tolerance : float
        What is less than observed by no more counts as equal; single precision.

    Returns
    -------
    (2, V) int32
        Counts of z >= observed - tolerance, then of -z >= -observed - tolerance. A NaN counts on
        both sides, so that it can only make p larger.
    """
    slack = np.float32(tolerance)
    below = z < observed - slack, -z < -observed - slack
    return np.stack([(~side).sum(axis=0, dtype=np.int32) for side in below])


def sample(rng: np.random.Generator) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Twenty maps of white noise."""
    z = rng.standard_normal((20, 300)).astype(np.float32)
    return (z, z[7].copy(), 1e-4), {}


EXCEEDANCES = Op("exceedances", numpy=exceedances, cpu=None, sample=sample, rtol=0.0)
