"""How alike two maps, two sets of voxels, two lists of peaks or two nulls are.

Every function takes plain arrays, so that any variant of a stage can be scored by them.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
from scipy.spatial import cKDTree

from gpu_sdm.clusters import blobs
from gpu_sdm.spaces import Space


class Agreement(NamedTuple):
    """Correlation of ours and theirs, slope of ours regressed on theirs, bias and rmse of ours."""

    r: float
    slope: float
    bias: float
    rmse: float


class Peak(NamedTuple):
    """A cluster's peak."""

    mm: tuple[float, float, float]
    z: float
    voxels: int


def agreement(ours: np.ndarray, theirs: np.ndarray, keep: np.ndarray | None = None) -> Agreement:
    """Score ours against theirs (arrays of one shape), over the voxels `keep` where it is given.

    NaN for r and slope where a map is constant (theirs for the slope, either for r).

    Raises
    ------
    ValueError
        If nothing is left to compare or a value is not finite.
    """
    chosen = slice(None) if keep is None else keep
    ours, theirs = (np.asarray(a)[chosen].astype(float).ravel() for a in (ours, theirs))
    if not len(ours) or not (np.isfinite(ours).all() and np.isfinite(theirs).all()):
        raise ValueError(f"{len(ours)} values to compare, all of which must be finite")
    difference = ours - theirs
    a, b = ours - ours.mean(), theirs - theirs.mean()
    aa, bb, ab = (float(x @ y) for x, y in ((a, a), (b, b), (a, b)))
    # A constant map leaves the rounding of its mean behind.
    vary_a = np.ptp(ours) > 0
    vary_b = np.ptp(theirs) > 0
    return Agreement(
        r=ab / float(np.sqrt(aa * bb)) if vary_a and vary_b else float("nan"),
        slope=ab / bb if vary_b else float("nan"),
        bias=float(difference.mean()),
        rmse=float(np.sqrt((difference**2).mean())),
    )


def score_maps(
    ours: Mapping[str, np.ndarray],
    theirs: Mapping[str, np.ndarray],
    regions: Mapping[str, np.ndarray],
) -> dict[tuple[str, str], Agreement]:
    """Score every map that both have in every region.

    Parameters
    ----------
    ours, theirs : mapping of str to (V,) array
        Maps by name.
    regions : mapping of str to (V,) bool
        Voxels to score, by name; empty regions are left out.

    Returns
    -------
    dict
        (map, region) -> `Agreement`.
    """
    return {
        (name, region): agreement(ours[name], theirs[name], keep)
        for name in theirs
        if name in ours
        for region, keep in regions.items()
        if keep.any()
    }


def dice(ours: np.ndarray, theirs: np.ndarray) -> float:
    """Overlap of two sets of voxels (bool), 2 |A and B| / (|A| + |B|); NaN where both are empty."""
    total = int(ours.sum()) + int(theirs.sum())
    return 2 * int((ours & theirs).sum()) / total if total else float("nan")


def cluster_peaks(z: np.ndarray, passing: np.ndarray, space: Space, k_min: int) -> list[Peak]:
    """Voxel of largest z of each cluster of the passing voxels (V,) bool, larger clusters first."""
    number, mm, peaks = blobs(passing, space, k_min), space.mm(), []
    for c in range(1, int(number.max(initial=0)) + 1):
        inside = np.flatnonzero(number == c)
        top = inside[np.argmax(z[inside])]
        x, y, w = (float(m) for m in mm[top])
        peaks.append(Peak((x, y, w), float(z[top]), len(inside)))
    return peaks


def nearest(places_mm: np.ndarray, candidates_mm: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Distance (n,) in mm of each place to its nearest candidate, and which that is (n,).

    Infinite and -1 where there is no candidate.
    """
    places_mm = np.reshape(places_mm, (-1, 3))
    if not len(candidates_mm):
        return np.full(len(places_mm), np.inf), np.full(len(places_mm), -1)
    far, which = cKDTree(np.reshape(candidates_mm, (-1, 3))).query(places_mm)
    return far, which


def reach(lower: np.ndarray, upper: np.ndarray, b: float) -> np.ndarray:
    """Voxels (V,) bool where a study's bounds differ from [-b, b]: a peak is in reach.

    The kernel ends at 2^-9, so that a reached bound moves by a thousandth of b or more; bounds
    are stored in single precision.
    """
    return np.maximum(np.abs(lower + b), np.abs(upper - b)) > 1e-4 * b


def pull(lower: np.ndarray, upper: np.ndarray, b: float) -> np.ndarray:
    """Sum (V,) the kernels of the peaks in reach, 1 - (upper - lower) / 2 b: 0 none, 1 known."""
    return 1 - (upper - lower) / (2 * b)
