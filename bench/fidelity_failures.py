"""Where SDM-PSI's minimiser fails, told from its bounds alone.

The exact optimum of the likelihood (with the leave-one-out rule) and the mean at which SDM-PSI's
search ends (`gpu_sdm.ops.fit_mean_sdm`, every discard emulated) differ by more than a cutoff.
SDM-PSI smooths the map of means by 1 mm (half a voxel), which carries an eighth of a failure to
each face neighbour and a fiftieth to each edge neighbour, of failures that often exceed 1;
`with_neighbours` adds all 26.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
from fidelity_data import OUTPUT
from scipy.ndimage import binary_dilation

from gpu_sdm import cache
from gpu_sdm.data import Bounds, StudyTerms
from gpu_sdm.io.nifti import write_map
from gpu_sdm.ops.fit_bounds import FIT_BOUNDS
from gpu_sdm.ops.fit_mean_sdm import FIT_MEAN_SDM
from gpu_sdm.spaces import Space

CUTOFFS = (0.02, 0.1)
BLOCK = 4096  # voxels between two saves


def minimiser_means(
    bounds: Bounds, terms: StudyTerms, discards: int
) -> tuple[np.ndarray, np.ndarray]:
    """Mean of the emulated minimiser and the exact optimum, each (V,); unsmoothed.

    Kept in fidelity-output/ block by block, so that an interrupted run continues.
    """
    key = cache.key("minimiser 3", bounds.lower, bounds.upper, terms.c, terms.v2, discards)
    path = OUTPUT / f"minimiser-{key[:16]}.npy"
    n = bounds.lower.shape[1]
    means = np.full((2, n), np.nan)
    if path.exists():
        means = np.load(path)
    one = np.ones((len(terms.c), 1))
    for start in range(0, n, BLOCK):
        block = slice(start, min(n, start + BLOCK))
        if not np.isnan(means[:, block]).any():
            continue
        low, high = bounds.lower[:, block], bounds.upper[:, block]
        for row, search in enumerate((FIT_MEAN_SDM, FIT_BOUNDS)):
            fit = search.on("cpu")(low, high, terms.c, terms.v2, one, np.ones(1), discards)
            means[row, block] = fit[0][0]
        OUTPUT.mkdir(exist_ok=True)
        np.save(path, means)
        print(f"minimiser: {block.stop:,} of {n:,} voxels", flush=True)
    return means[0], means[1]


def with_neighbours(failed: np.ndarray, space: Space) -> np.ndarray:
    """Failing voxels (V,) bool and their 26 neighbours."""
    wide = binary_dilation(space.embed(failed) > 0, np.ones((3, 3, 3), bool))
    return space.extract(wide)


def regions_apart(
    bounds: Bounds,
    terms: StudyTerms,
    discards: int,
    space: Space,
    cutoffs: tuple[float, ...] = CUTOFFS,
) -> dict[str, np.ndarray]:
    """Voxels (V,) bool that fail by each cutoff; those left, without and with neighbours.

    `bounds` are SDM-PSI's own, in the mask of `space`.
    """
    emulated, exact = minimiser_means(bounds, terms, discards)
    regions = {}
    for cutoff in cutoffs:
        failed = np.abs(emulated - exact) > cutoff
        regions[f"failing {cutoff:g}"] = failed
        regions[f"apart {cutoff:g}"] = ~failed
        regions[f"apart {cutoff:g} and neighbours"] = ~with_neighbours(failed, space)
    return regions


def write_failures(regions: Mapping[str, np.ndarray], space: Space) -> list[Path]:
    """Write the failing voxels of each cutoff as a map in fidelity-output/."""
    OUTPUT.mkdir(exist_ok=True)
    written = []
    for name, failed in regions.items():
        if name.startswith("failing "):
            cutoff = name.removeprefix("failing ")
            path = OUTPUT / f"minimiser_failures_{cutoff}.nii.gz"
            what = f"SDM-PSI's minimiser is off by > {cutoff}"
            write_map(path, failed.astype(float), space, 0.0, what)
            written.append(path)
    return written
