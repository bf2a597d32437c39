"""Meta-analytic co-activation: where studies with a peak at a seed report peaks as well."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import special

from gpu_sdm import cache
from gpu_sdm.data import _freeze
from gpu_sdm.decode.counts import STUDY_COUNTS, nearest_voxels, sphere
from gpu_sdm.decode.database import Database
from gpu_sdm.inference import fdr_q
from gpu_sdm.spaces import Space

KERNEL_MM = 10.0  # of MKDA and NiMARE
PRIOR = 0.5


@dataclass(frozen=True, eq=False)
class Coactivation:
    """Studies of a seed against all others.

    Parameters
    ----------
    studies, others : int
        Selected studies and the rest.
    z : (V,) float64
        Association: signed root of the two-way chi-square. Positive where the selected studies
        report peaks more often than the others.
    q : (V,) float64
        False discovery rate of its two-sided p.
    uniformity_z : (V,) float64
        Signed root of the one-way chi-square of the selected studies alone: more peaks than an
        average voxel.
    active, active_others : (V,) int32
        Studies of either kind with a peak within the kernel.
    """

    studies: int
    others: int
    z: np.ndarray
    q: np.ndarray
    uniformity_z: np.ndarray
    active: np.ndarray
    active_others: np.ndarray

    def __post_init__(self) -> None:
        _freeze(self.z, self.q, self.uniformity_z, self.active, self.active_others)

    def found(self, q: float) -> np.ndarray:
        """(V,) bool where the association is positive at a false discovery rate of `q`."""
        return (self.q <= q) & (self.z > 0)

    def posterior(self) -> np.ndarray:
        """(V,) probability of the seed given a peak here, both equally likely before (0.5)."""
        share, rest = self.active / self.studies, self.active_others / self.others
        both = PRIOR * share + (1 - PRIOR) * rest
        nowhere = np.full(len(both), np.nan)
        found: np.ndarray = np.divide(PRIOR * share, both, out=nowhere, where=both > 0)
        return found


def two_way(
    a: np.ndarray, b: np.ndarray, n_a: int | np.ndarray, n_b: int | np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Pearson's chi-square of 2 x 2 tables, as a signed z, and its two-sided p.

    Parameters
    ----------
    a, b : (V,) int
        How many of the first and of the second group have the thing.
    n_a, n_b : int
        Sizes of the groups.

    Returns
    -------
    z : (V,) float64
        Positive where the share is larger in the first group; 0 where all or none have it.
    p : (V,) float64
        1 there.
    """
    a, b = np.asarray(a, np.float64), np.asarray(b, np.float64)
    total = n_a + n_b
    have = a + b
    below = have * (total - have) * n_a * n_b
    excess = a * n_b - b * n_a
    chi2 = np.divide(total * excess**2, below, out=np.zeros_like(below), where=below > 0)
    return np.sign(excess) * np.sqrt(chi2), special.chdtrc(1, chi2)


def one_way(a: np.ndarray, n: int) -> np.ndarray:
    """Signed z (V,) of the chi-square of counts `a` out of `n` against their mean over voxels."""
    a = np.asarray(a, np.float64)
    mean = a.mean()
    below = mean * (n - mean)
    chi2 = (a - mean) ** 2 * n / below if below > 0 else np.zeros_like(a)
    z: np.ndarray = np.sign(a - mean) * np.sqrt(chi2)
    return z


def total_counts(
    database: Database, space: Space, kernel_mm: float = KERNEL_MM, backend: str = "cpu"
) -> np.ndarray:
    """(V,) int32 studies of the whole database with a peak within `kernel_mm` of each voxel.

    Kept in the cache by content of the database, grid and radius.
    """
    entry = cache.key("study counts", database.digest(), space.voxel_size, float(kernel_mm))
    held = cache.load("coactivation", entry)
    if held is None or held["count"].shape != space.shape:
        count = STUDY_COUNTS.on(backend)(
            nearest_voxels(database.xyz_mm, space),
            database.start,
            sphere(kernel_mm, space.voxel_size),
            space.shape,
        )
        cache.store("coactivation", entry, count=count)
        held = {"count": count}
    return space.extract(held["count"])


def coactivation(
    database: Database,
    selected: np.ndarray,
    space: Space,
    total: np.ndarray,
    kernel_mm: float = KERNEL_MM,
    backend: str = "cpu",
) -> Coactivation:
    """Compare selected studies with all others, voxel by voxel (MKDA chi-square).

    Parameters
    ----------
    database : Database
        K studies.
    selected : (K,) bool
        Studies of the seed; some but not all.
    space : Space
        Grid and mask.
    total : (V,) int32
        From `total_counts`, of the same space and radius.
    kernel_mm : float
        A voxel is active in a study with a peak at most this far, mm.
    backend : {"cpu", "numpy"}
        Version of the counting.

    Notes
    -----
    Equal to NiMARE's `MKDAChi2` (association and uniformity z). Only the selected studies are
    counted anew: those of the others are the difference to the whole database, so that a seed
    costs the peaks of its own studies alone.

    References
    ----------
    .. [1] Wager TD, Lindquist M, Kaplan L (2007) Meta-analysis of functional neuroimaging data.
       Soc Cogn Affect Neurosci 2:150-158.
    .. [2] Yarkoni T et al. (2011) Large-scale automated synthesis of human functional
       neuroimaging data. Nature Methods 8:665-670.
    """
    rows = np.flatnonzero(selected)
    n = len(rows)
    peaks = np.repeat(selected, np.diff(database.start))
    start = np.concatenate([[0], np.cumsum(np.diff(database.start)[rows])])
    active = space.extract(
        STUDY_COUNTS.on(backend)(
            nearest_voxels(database.xyz_mm[peaks], space),
            start,
            sphere(kernel_mm, space.voxel_size),
            space.shape,
        )
    )
    others = len(selected) - n
    rest = total - active
    z, p = two_way(active, rest, n, others)
    return Coactivation(n, others, z, fdr_q(p), one_way(active, n), active, rest)
